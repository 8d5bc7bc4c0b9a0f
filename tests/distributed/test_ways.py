"""The ways gradients go: shared memory, servers, compressed, local steps. Same results where they must be, learning everywhere,
and runs that continue to the bit."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).resolve().parent / "jobs"
ROOT = JOBS.parent.parent.parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One job of two workers that trains on digits in every way; {name: what rank 0 and rank 1 reported}."""
    folder = tmp_path_factory.mktemp("ways")
    held_back, local = {"compression": "2bit", "checkpoint_every": 10}, {"local_steps": 4, "checkpoint_every": 10}
    runs = {"memory": {}, "2bit": held_back, "2bit again": {**held_back, "resume_from": 20, "of": "2bit"},
            "fp16": {"compression": "fp16"}, "local": local, "local again": {**local, "resume_from": 20, "of": "local"},
            "sixteen": {"local_steps": 16}, "scaled": {"auto_scale_lr": True, "base_batch": 16, "lr": 0.0125}}
    command = [sys.executable, str(ROOT / "launch" / "launch.py"), "-n", "2", "-s", "1", "--log-dir", str(folder / "logs"),
               "--timeout", "170", sys.executable, str(JOBS / "ways.py"), json.dumps(runs)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(JOBS)]), "GLUONZOO_TEST_REPORTS": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=str(folder), timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    reports = [json.loads((folder / f"report-{rank}.json").read_text()) for rank in (0, 1)]
    return {name: [report[name] for report in reports] for name in runs}


def test_workers_end_with_the_same_weights(finished):
    for name, (first, second) in finished.items():
        assert first["digest"] == second["digest"], name


def test_workers_of_one_host_share_memory(finished):
    assert finished["memory"][0]["way"] == "SharedSum" and finished["2bit"][0]["way"] == "CompressedSum"


@pytest.mark.parametrize("name, least", [("memory", 0.85), ("fp16", 0.85), ("local", 0.85), ("sixteen", 0.85), ("2bit", 0.7)])
def test_every_way_learns(finished, name, least):
    """In 46 updates; 2-bit compression is behind in so few, `test_2bit_catches_up` gives it more."""
    assert finished[name][0]["accuracy"] > least


@pytest.mark.parametrize("name", ["2bit", "local"])
def test_runs_continue_to_the_bit(finished, name):
    """What compression holds back, and where workers are between two averages, is part of a checkpoint."""
    assert finished[name + " again"][0]["digest"] == finished[name][0]["digest"]


def test_auto_scale_lr_goes_by_the_global_batch(finished):
    assert finished["scaled"][0]["peak"] == 0.0125 * 64 / 16
    assert finished["scaled"][0]["digest"] == finished["memory"][0]["digest"]


@pytest.mark.slow
def test_2bit_catches_up(job):
    settings = {"model": "lenet5", "epochs": 8}
    runs = {"none": settings, "2bit": {**settings, "compression": "2bit"}}
    report = job(2, 1, "ways.py", json.dumps(runs)).reports[0]
    assert report["2bit"]["accuracy"] > report["none"]["accuracy"] - 0.02


@pytest.mark.parametrize("workers, shared", [(3, "1"), (2, "0")])
def test_workers_equal_one_with_and_without_shared_memory(job, workers, shared):
    outcome = job(workers, 1, "equal.py", 2, 16, "dist_sync", "sgd", env={"GLUONZOO_SHARED_MEMORY": shared})
    for rank in range(workers):
        assert max(difference for _, difference in outcome.reports[rank]["results"]) <= 1e-6


def test_sums_of_three_workers_are_the_same_bits_in_every_run(job):
    """In the order of ranks, not of arrival."""
    digests = {json.dumps([digest for digest, _ in job(3, 1, "equal.py", 2, 16, "dist_sync", "sgd").reports[0]["results"]])
               for _ in range(2)}
    assert len(digests) == 1


def test_settings_of_the_trainer_hold_in_every_way(job):
    reports = job(2, 1, "settings.py").reports
    for report in reports.values():
        for name, difference in report["differences"].items():
            assert difference <= 1e-6, name
        for name, (unchanged, finite, _) in report["left_out"].items():
            assert unchanged and finite, name
        assert report["devices"] == pytest.approx([-0.1 * 2 * 0.01 / 8] * 2, rel=1e-4)
    assert reports[0]["left_out"] == reports[1]["left_out"]


def test_local_steps_with_an_average_each_time_are_summed_gradients(job):
    outcome = job(2, 1, "local_equal.py")
    for report in outcome.reports.values():
        assert report["difference"] <= 1e-6 and report["apart"] > 1e-4
