"""An orderly stop: all workers after the same update, whoever is told and whenever; what follows is the uninterrupted run."""
import os
import signal
import time

import pytest
from job_processes import roles

NET = {"model": "small_test_net"}


def without_end(outcome):
    """Reports less what a stopped and an uninterrupted run cannot share."""
    return {rank: {**report, "stopped": None, "update": None} for rank, report in outcome.comparable.items()}


@pytest.mark.parametrize("workers, kind, stop", [
    (1, "device", [[0, 17]]), pytest.param(1, "dist_sync", [[0, 4]], marks=pytest.mark.slow),
    (2, "dist_sync", [[0, 5], [1, 9]]),  # at different moments: the first decides
    # Only one is told, and it is not rank 0; so in the next case.
    pytest.param(2, "dist_sync", [[1, 5]], marks=pytest.mark.slow),
    (2, "dist_sync", [[1, 13]]),  # read after the epoch's last update (of 15): stop before the validation
    pytest.param(2, "dist_sync", [[0, 15], [1, 15]], marks=pytest.mark.slow)])  # the first of the second epoch
def test_stop_and_resume_equal_the_uninterrupted_run(survive, workers, kind, stop):
    settings = {**NET, "kvstore": kind}
    straight = survive.straight(workers, settings=settings)
    stopped = survive("stopped", workers, settings=settings, stop=stop)
    updates = {(report["stopped"], report["update"]) for report in stopped.reports.values()}
    first = min(update for _, update in stop)
    delay = 0 if kind == "device" else 2
    epoch = 30 // workers
    assert updates == {(True, min(first + 1 + delay, (first // epoch + 1) * epoch))}, stopped.output
    again = survive("stopped", workers, settings=settings, resume=True)
    assert again.reports[0]["resumed_at"] == stopped.reports[0]["update"] and not again.reports[0]["stopped"]
    assert without_end(again) == without_end(straight)


def test_a_stop_during_validation_waits_for_the_epochs_checkpoint(survive, tmp_path):
    """Told after the last vote of an epoch: the checkpoint at its end carries the word."""
    def tell(mark):
        log = tmp_path / "job-0" / "logs" / "worker-1.progress"
        while True:
            time.sleep(0.002)
            try:
                if "validating" in log.read_text():
                    break
            except OSError:
                continue
        text = log.read_text()
        os.kill(roles(mark)["worker 1"], signal.SIGUSR1)
        told.append(text)

    told = []
    outcome = survive("run", 2, settings={"epochs": 40}, meanwhile=tell)
    assert {report["stopped"] for report in outcome.reports.values()} == {True}
    assert len({report["update"] for report in outcome.reports.values()}) == 1
    assert told and outcome.reports[0]["update"] - int(told[0].split()[0]) in range(0, 8), (told, outcome.reports[0]["update"])


def test_dist_async_workers_stop_each_by_itself_and_the_run_resumes(survive):
    stopped = survive("run", 2, settings={"kvstore": "dist_async"}, stop=[[0, 6], [1, 3]])
    assert [stopped.reports[rank]["update"] for rank in (0, 1)] == [7, 4]
    again = survive("run", 2, settings={"kvstore": "dist_async"}, resume="auto")
    assert again.reports[0]["resumed_at"] == 7 and again.reports[0]["update"] == 30
