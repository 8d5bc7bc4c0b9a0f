"""Orderly stops and starts of tools/train.py: SIGTERM, SIGUSR1, the same command line again and again."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from gluonzoo.training import checkpoint

import numpy as np
import pytest

RUN = ("--model", "lenet5", "--dataset", "digits", "--epochs", "3", "--seed", "4")


@pytest.fixture
def start(root, tmp_path):
    """start(*arguments) -> Popen of tools/train.py with text output."""
    started = []

    def run(*arguments):
        started.append(subprocess.Popen([sys.executable, str(root / "tools" / "train.py"), *RUN, *map(str, arguments)],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=str(tmp_path),
                                        env={**os.environ, "PYTHONPATH": str(root)}))
        return started[-1]
    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.005)


def final(folder):
    saved = checkpoint.newest(str(folder))
    return saved, {**saved.arrays("parameters.params"), **saved.arrays("optimizer.params")}


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGUSR1, 0)])
def test_stopped_and_started_again_equals_uninterrupted(start, tmp_path, number, code):
    whole = start("--output", "whole")
    assert whole.wait() == 0
    command = ("--output", "run", "--resume", "auto")
    first = start(*command)
    wait_for(tmp_path / "run" / "checkpoints", first)
    first.send_signal(number)
    output = first.communicate()[0]
    assert first.returncode == code, output
    saved, _ = final(tmp_path / "run")
    assert (f"stopped at update {saved.state['step']} by {signal.Signals(number).name}; continue with --resume --output run"
            in output)
    second = start(*command)
    output = second.communicate()[0]
    assert second.returncode == 0 and f"resumed from {Path('run')}" in output, output
    (one, expected), (other, got) = final(tmp_path / "whole"), final(tmp_path / "run")
    assert other.state["step"] == one.state["step"] and set(got) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    third = start(*command)  # All is done: nothing happens, and it is a success.
    output = third.communicate()[0]
    assert third.returncode == 0 and "Traceback" not in output, output
    assert final(tmp_path / "run")[0].state["step"] == one.state["step"]


def test_the_second_sigterm_ends_at_once(start, tmp_path):
    process = start("--output", "run", "--batch-size", "1400", "--accumulate", "700")
    wait_for(tmp_path / "run" / "log.jsonl", process)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    assert process.returncode == -signal.SIGTERM


def test_sigusr1_during_the_start_waits_for_the_run(start, tmp_path):
    process = start("--output", "run")
    blocked = 1 << (signal.SIGUSR1 - 1)
    while True:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if int(status.split("SigBlk:")[1].split()[0], 16) == blocked:  # (A child that is being made blocks all.)
            break
    process.send_signal(signal.SIGUSR1)
    output = process.communicate()[0]
    assert process.returncode == 0 and "stopped at update 1 by SIGUSR1" in output, output
