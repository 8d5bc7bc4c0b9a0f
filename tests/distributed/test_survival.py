"""Kills at any moment, fewer workers, NaNs, slow and idle workers: no hang, and the run ends as if nothing had been."""
import os
import random
import signal
import time

from gluonzoo.training import checkpoint, samples

import numpy as np
import pytest
from job_processes import roles

NET = {"model": "small_test_net", "checkpoint_every": 4}
IMAGES = 1433  # in the training set
NOTHING = {"augment": "none"}  # With plain_test_net: the samples of each update decide everything.


def close(one, other, tolerance=1e-4):
    """Whether two runs ended with the same weights, within a part of each array's largest."""
    assert set(one) == set(other)
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=0, atol=tolerance * np.abs(value).max(), err_msg=name)


@pytest.mark.parametrize("moment", ["prepare", "rename"] + [
    pytest.param(slow, marks=pytest.mark.slow) for slow in ("import", "arrays", "verify", "removal")])
def test_killed_during_start_or_save(survive, tmp_path, moment):
    """In the first attempt rank 0 dies while it starts, or while it writes its second checkpoint; the launcher restarts."""
    settings = {**NET, "keep": 1}
    straight = survive.straight(2, settings=settings)
    outcome = survive("run", 2, settings=settings, die_in=moment, launch=("--max-restarts", "1"))
    assert outcome.comparable == straight.comparable
    resumed = {"import": None, "prepare": None, "removal": 8}.get(moment, 4)
    assert outcome.reports[0]["resumed_at"] == resumed
    best = checkpoint.newest(str(tmp_path / "run"))
    left = [name for name in os.listdir(tmp_path / "run" / "checkpoints") if name.startswith(".")]
    assert best.state["epoch"] == 2 and not left


class Killer:
    """Kills random roles of a job at random moments."""

    def __init__(self, seed, kills, within, numbers=(signal.SIGKILL,)):
        self._random, self._kills, self._within, self._numbers = random.Random(seed), kills, within, numbers
        self.done = []

    def __call__(self, mark):
        begun = time.monotonic()
        for _ in range(self._kills):
            time.sleep(self._random.uniform(*self._within))
            while time.monotonic() - begun < 120:
                found = roles(mark)
                if found:
                    name = self._random.choice(sorted(found))
                    try:
                        os.kill(found[name], self._random.choice(self._numbers))
                        self.done.append((name, round(time.monotonic() - begun, 1)))
                    except OSError:
                        continue
                    break
                time.sleep(0.05)


def kill_at_random(survive, seed):
    settings = {**NET, "epochs": 5}
    straight = survive.straight(2, settings=settings)
    killer = Killer(seed, kills=3, within=(0.3, 0.9 * straight.seconds))
    outcome = survive(f"run-{seed}", 2, settings=settings, launch=("--max-restarts", "9", "--grace", "1"), meanwhile=killer)
    assert outcome.comparable == straight.comparable, killer.done


def test_kills_at_random_moments(survive):
    kill_at_random(survive, seed=int(os.environ.get("GLUONZOO_SEED", "1")))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 14))
def test_many_kills_at_random_moments(survive, seed):
    kill_at_random(survive, seed)


def test_three_workers_killed_once_use_the_same_samples_in_the_same_updates(survive, tmp_path):
    settings = {"epochs": 1, "batch_size": 30, "checkpoint_every": 3, **NOTHING}
    straight = survive("whole", 3, 2, settings={**settings, "sample_log": str(tmp_path / "log")})
    broken = survive("run", 3, 2, settings={**settings, "sample_log": str(tmp_path / "log-2")}, die=[[1, 8]],
                     launch=("--max-restarts", "1"))
    assert broken.reports[0]["resumed_at"] == 6
    log = samples.read(tmp_path / "log")
    assert log == samples.read(tmp_path / "log-2") and list(log) == list(range(16))
    assert sorted(sample for update in log.values() for sample in update.samples) == list(range(IMAGES))
    close(straight.weights, broken.weights)


@pytest.mark.parametrize("there", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_job_goes_on_with_another_number_of_workers(survive, tmp_path, there):
    """3 workers were asked for and stop after update 6; the launcher finds places for 2 (or 4) and says so."""
    settings = {"epochs": 2, "batch_size": 30, "momentum": 0.9, **NOTHING}
    straight = survive.straight(3, settings=settings)
    logged = {**settings, "sample_log": str(tmp_path / "log")}
    assert survive("run", 3, settings=logged, stop=[[2, 3]]).reports[0]["update"] == 6
    rest = survive("run", there, settings=logged, resume=True, job_workers=3)
    assert rest.reports[0]["resumed_at"] == 6 and len(rest.reports) == there
    log = samples.read(tmp_path / "log")
    assert list(log) == list(range(32))
    for epoch in (0, 1):
        seen = sorted(sample for update in log.values() if update.epoch == epoch for sample in update.samples)
        assert seen == list(range(IMAGES))
    assert [len(update.samples) for update in list(log.values())[:16]] == [90] * 15 + [IMAGES - 15 * 90]
    close(straight.weights, rest.weights)
    one, other = straight.reports[0]["history"], rest.reports[0]["history"]
    for old, new in zip(one, other):
        assert old["lr"] == new["lr"] and old["step"] == new["step"]
        assert abs(old["train_loss"] - new["train_loss"]) < 1e-4 and abs(old["val_accuracy"] - new["val_accuracy"]) < 0.005


def test_fewer_workers_take_over_the_average_of_the_running_statistics(survive):
    settings = {"model": "small_test_net", "epochs": 1, "batch_size": 30}
    survive("run", 3, settings=settings, stop=[[0, 3]])
    rest = survive("run", 2, settings=settings, resume=True, job_workers=3)
    assert len({str(report["digests"]) for report in rest.reports.values()}) == 1
    assert rest.reports[0]["update"] == 16 and np.isfinite(rest.weights["features.1.running_var"]).all()


@pytest.mark.parametrize("rank", [0, 1])
def test_nan_on_one_worker_ends_the_job_and_keeps_the_last_good_checkpoint(survive, tmp_path, rank):
    outcome = survive("run", 2, settings={"checkpoint_every": 2}, nan=[[rank, 5]], check=False, launch=("--max-restarts", "3"))
    assert outcome.code == 65 and "is not finite" in outcome.output, outcome.output
    assert "not starting again" in outcome.output and "Traceback" not in outcome.output, outcome.output
    assert outcome.seconds < 60
    saved = checkpoint.newest(str(tmp_path / "run"))
    assert saved.state["step"] == 4
    assert all(np.isfinite(value).all() for value in saved.arrays("parameters.params").values())


@pytest.mark.parametrize("workers, kind, model", [
    pytest.param(2, "dist_sync", "plain_test_net", marks=pytest.mark.slow), (2, "dist_sync", "small_test_net"),
    pytest.param(1, "device", "small_test_net", marks=pytest.mark.slow),
    (2, "dist_async", "plain_test_net")])
def test_nan_on_one_worker_is_left_out_on_all(survive, workers, kind, model):
    settings = {"model": model, "epochs": 1, "on_nan": "skip", "kvstore": kind, "checkpoint_every": 6, **NOTHING}
    outcome = survive("run", workers, settings=settings, nan=[[workers - 1, 5], [workers - 1, 6]])
    if kind != "dist_async":
        assert len({str(report["digests"]) for report in outcome.reports.values()}) == 1
        assert "update 5 left out" in outcome.output
        assert "update 6 left out: its gradient is not finite (2 in a row)" in outcome.output
        assert outcome.reports[0]["history"][0]["left_out"] == 2
    assert np.isfinite(outcome.reports[0]["history"][0]["train_loss"]) and outcome.reports[0]["history"][0]["val_accuracy"] > 0.3
    assert all(np.isfinite(value).all() for value in outcome.weights.values())


def test_left_out_means_as_if_the_update_had_not_been(survive):
    """Two workers, one of them with NaNs, against one with the whole batch."""
    settings = {"epochs": 1, "on_nan": "skip", "optimizer": "adam", "lr": 0.002, **NOTHING}
    two = survive("two", 2, settings=settings, nan=[[1, 3], [1, 4], [0, 9]])
    one = survive("one", 1, settings={**settings, "batch_size": 96, "kvstore": "device"}, nan=[[0, 3], [0, 4], [0, 9]])
    close(one.weights, two.weights, 1e-5)
    assert [report["history"][0]["left_out"] for report in (one.reports[0], two.reports[0])] == [3, 3]


def test_too_many_in_a_row_end_the_job(survive):
    outcome = survive("run", 2, settings={"on_nan": "skip"}, nan=[[1, update] for update in range(2, 99)], check=False)
    assert outcome.code == 65 and "10 updates in a row had gradients that are not finite" in outcome.output, outcome.output


def test_an_empty_shard_uneven_shards_and_little_to_validate(survive):
    """3 workers, 2 training images: one has no sample in any update, and in the validation two have none."""
    outcome = survive("run", 3, settings={**NET, "epochs": 3, "on_nan": "skip"}, samples=2, valid_samples=1)
    assert [report["update"] for report in outcome.reports.values()] == [3, 3, 3]
    assert len({str(report["digests"]) for report in outcome.reports.values()}) == 1
    outcome = survive("run-2", 3, settings={"epochs": 2, "batch_size": 7, **NOTHING}, samples=43)  # 21, 21, 1
    one = survive("run-3", 1, settings={"epochs": 2, "batch_size": 21, "kvstore": "device", **NOTHING}, samples=43)
    close(one.weights, outcome.weights, 1e-5)


@pytest.mark.parametrize("kind", ["dist_sync", "dist_async"])
def test_a_slow_worker(survive, kind):
    outcome = survive("run", 2, settings={"epochs": 1, "kvstore": kind}, slow=[1, 0.3], launch=("--stall-timeout", "20"))
    assert [report["update"] for report in outcome.reports.values()] == [15, 15]
