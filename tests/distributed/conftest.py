"""Real jobs: scheduler, servers and workers as processes on loopback, started by launch/launch.py."""
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from job_processes import marked_processes

ROOT = Path(__file__).resolve().parent.parent.parent
JOBS = Path(__file__).resolve().parent / "jobs"


class Outcome:
    """A finished job: code, output, seconds, and what its workers wrote with `report` (jobs/common.py), by rank."""

    def __init__(self, code, output, seconds, reports):
        self.code, self.output, self.seconds, self.reports = code, output, seconds, reports

    @property
    def comparable(self):
        """The reports with everything that equal runs have in common: weights, losses, accuracies; not times."""
        return {rank: {**report, "resumed_at": None, "history": [
            {name: value for name, value in record.items() if name not in ("seconds", "images_per_second", "data_wait")}
            for record in report["history"]]} for rank, report in self.reports.items()}


@pytest.fixture
def job(tmp_path):
    """job(workers, servers, script, *arguments, launch=(), env={}, timeout=120) -> Outcome; leaves no process behind.

    meanwhile: called with the mark of the job's processes, in a thread, while the job runs.
    """
    numbers = iter(range(1000))

    def run(workers, servers, script, *arguments, launch=(), env=None, timeout=180, check=True, meanwhile=None):
        number = next(numbers)
        folder = tmp_path / f"job-{number}"
        folder.mkdir()
        mark = f"{os.getpid()}-{number}-{time.monotonic_ns()}"
        script = script if Path(script).is_absolute() else JOBS / script
        command = [sys.executable, str(ROOT / "launch" / "launch.py"), "-n", str(workers), "-s", str(servers),
                   "--log-dir", str(folder / "logs"), *launch, sys.executable, str(script), *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(JOBS)]), "GLUONZOO_TEST_MARK": mark,
                       "GLUONZOO_TEST_REPORTS": str(folder), **(env or {})}
        begun = time.monotonic()
        thread = threading.Thread(target=meanwhile, args=(mark,)) if meanwhile else None
        if thread:
            thread.start()
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, cwd=str(tmp_path))
        if thread:
            thread.join()
        seconds = time.monotonic() - begun
        assert marked_processes(mark) == []
        output = result.stdout + result.stderr
        if check:
            assert result.returncode == 0, output
        reports = {int(path.stem.split("-")[1]): json.loads(path.read_text()) for path in folder.glob("report-*.json")}
        return Outcome(result.returncode, output, seconds, reports)
    return run


_straight = {}


@pytest.fixture
def survive(job, tmp_path):
    """survive(name, workers, servers, settings={}, launch=(), env={}, ..., **wishes) -> Outcome with `weights`, rank 0's, of
    jobs/survive.py; the run's folder is tmp_path / name.

    survive.straight(workers, servers, settings={}, ...): the same for a run to which nothing happens, made once a session.
    """
    def run(name, workers=2, servers=1, launch=(), env=None, check=True, meanwhile=None, settings=None, **wishes):
        wishes["settings"] = {"output": str(tmp_path / name), **(settings or {})}
        outcome = job(workers, servers, "survive.py", json.dumps(wishes), launch=launch, env=env, check=check,
                      meanwhile=meanwhile)
        final = tmp_path / name / "final-0.npz"
        outcome.weights = dict(np.load(final)) if final.exists() else None
        return outcome

    def straight(workers=2, servers=1, settings=None, **wishes):
        key = json.dumps([workers, servers, settings, wishes], sort_keys=True)
        if key not in _straight:
            _straight[key] = run("straight", workers, servers, settings=settings, **wishes)
        return _straight[key]
    run.straight = straight
    return run


@pytest.fixture
def busy_cores():
    """Both cores kept busy by other processes while a test runs."""
    loads = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 2)]
    yield
    for load in loads:
        load.kill()
    for load in loads:
        load.wait()
