"""Real jobs: scheduler, servers and workers as processes on loopback, started by launch/launch.py."""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
JOBS = Path(__file__).resolve().parent / "jobs"


class Outcome:
    """A finished job: code, output, seconds, and what its workers wrote with `report` (jobs/common.py), by rank."""

    def __init__(self, code, output, seconds, reports):
        self.code, self.output, self.seconds, self.reports = code, output, seconds, reports


def marked_processes(mark):
    """Ids of the live processes whose environment holds GLUONZOO_TEST_MARK=mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if state != "Z" and f"GLUONZOO_TEST_MARK={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.fixture
def job(tmp_path):
    """job(workers, servers, script, *arguments, launch=(), env={}, timeout=120) -> Outcome; leaves no process behind."""
    numbers = iter(range(1000))

    def run(workers, servers, script, *arguments, launch=(), env=None, timeout=180, check=True):
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
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, cwd=str(tmp_path))
        seconds = time.monotonic() - begun
        assert marked_processes(mark) == []
        output = result.stdout + result.stderr
        if check:
            assert result.returncode == 0, output
        reports = {int(path.stem.split("-")[1]): json.loads(path.read_text()) for path in folder.glob("report-*.json")}
        return Outcome(result.returncode, output, seconds, reports)
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
