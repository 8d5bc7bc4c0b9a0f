"""SyncBatchNorm over real workers: outputs, updates (so gradients) and running statistics of the whole batch in one process."""
import pytest


@pytest.mark.parametrize("workers, sizes, memory", [
    (3, "8,2,7", True),  # in the second batch one worker has no sample
    (3, "2,7", False),  # through the servers
])
def test_workers_normalise_by_the_whole_batch(job, workers, sizes, memory):
    outcome = job(workers, 1, "sync_norm.py", sizes, env={"GLUONZOO_SHARED_MEMORY": "1" if memory else "0"}, timeout=120)
    assert len(outcome.reports) == workers
    for report in outcome.reports.values():
        assert report["kinds"].count("SyncBatchNorm") == 3 and report["memory"] == memory
        assert report["moved"] > 0.1
        assert max(report["worst"].values()) < 2e-4, report["worst"]
