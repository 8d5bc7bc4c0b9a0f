"""N workers are one worker with N times the batch; no start-up race; exact sums with uneven shares."""
import pytest


def check(outcome, workers):
    assert len(outcome.reports) == workers, outcome.output
    for repetition in zip(*(outcome.reports[rank]["results"] for rank in range(workers))):
        digests, differences = zip(*repetition)
        assert len(set(digests)) == 1, "ranks ended with different weights"
        assert max(differences) <= 1e-6, differences
    for rank in range(workers):
        assert outcome.reports[rank]["total"] == workers * (workers + 1) / 2
        assert int(outcome.reports[rank]["index"]) == rank


def test_two_workers_equal_one_twenty_times_under_load(job, busy_cores):
    check(job(2, 1, "equal.py", 20, 16, "dist_sync", "sgd"), 2)


@pytest.mark.slow
def test_two_workers_equal_one_in_twenty_jobs_under_load(job, busy_cores):
    for _ in range(20):
        check(job(2, 1, "equal.py", 1, 16, "dist_sync", "sgd"), 2)


@pytest.mark.parametrize("workers, servers, size, kind, optimizer", [
    (2, 2, 16, "dist_device_sync", "adam"),
    (3, 2, 7, "dist_sync", "sgd"),  # uneven shares
    (3, 1, 2, "dist_sync", "sgd"),  # one worker never has a sample
])
def test_workers_equal_one(job, workers, servers, size, kind, optimizer):
    check(job(workers, servers, "equal.py", 2, size, kind, optimizer), workers)


def test_gather_keeps_every_bit(job):
    for report in job(3, 2, "gather.py").reports.values():
        assert len(report["checks"]) == 62 and all(report["checks"])


@pytest.mark.parametrize("kind", ["dist_sync", "dist_async"])
def test_inference_before_and_between_updates(job, kind):
    """Stock: the server aborts on the first key, or the worker on a pull, because oneDNN has reordered the weights."""
    reports = job(2, 1, "layout.py", kind).reports
    assert all(report["finite"] and report["moved"] > 0 for report in reports.values())
    if kind == "dist_sync":
        assert len({report["digest"] for report in reports.values()}) == 1
