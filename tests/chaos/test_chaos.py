"""Kills, stops and cut links at random moments of real jobs: they finish with the weights of an uninterrupted run."""
import json
import os
import subprocess
import sys
from pathlib import Path

from gluonzoo.training import checkpoint, samples

import chaos
import namespaces
import numpy as np
import pytest
from plan import UPDATES, Fault, Trial, draw

HERE = Path(__file__).resolve().parent
OVER_SSH = pytest.mark.skipif(bool(chaos.NO_NETWORK), reason=chaos.NO_NETWORK)


# Short ones that differ: worker killed in a checkpoint; link cut in mid-training; server ended while it starts; channel killed.
@pytest.mark.parametrize("seed", [52, 46] + [pytest.param(seed, marks=OVER_SSH) for seed in (37, 33)])
def test_short_trials(trial, seed):
    plan = draw(seed, ssh=not chaos.NO_NETWORK, short=True)
    line = trial(plan)
    assert line["restarts"] >= 1 and len(line["faults"]) == 1, line


def test_a_stopped_scheduler_is_noticed_at_the_end(trial):
    """Updates need no scheduler; barriers do, at an epoch's end and the job's: the stall deadline ends that."""
    line = trial(Trial(1000, 2, 1, "local", (Fault("scheduler", "SIGSTOP", "update", 70),), stall=15))
    assert line["restarted_at"][-1] == UPDATES, line


@pytest.mark.slow
def test_a_stopped_worker_is_no_progress(trial):
    line = trial(Trial(1001, 2, 1, "local", (Fault("worker", "SIGSTOP", "update", 40, pick=0.9),), stall=20))
    assert line["restarts"] == 1 and line["restarted_at"][0] <= 41, line


@OVER_SSH
@pytest.mark.slow
@pytest.mark.parametrize("victim", ["agent", "keeper", "channel"])
@pytest.mark.parametrize("action", ["SIGKILL", "SIGSTOP", "SIGTERM"])
def test_what_carries_a_job_may_fail_too(trial, victim, action):
    layout = "{1} role=scheduler,server", "{2} role=worker", "{3} role=worker"
    trial(Trial(1002, 2, 1, "ssh", (Fault(victim, action, "update", 10, pick=0.5),), layout))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_fifty_trials(trial, seed):
    trial(draw(seed, ssh=not chaos.NO_NETWORK))


# ---- the harness itself

@OVER_SSH
def test_what_is_left_is_seen(tmp_path):
    network = namespaces.Network(tmp_path, 0)
    run = chaos.Run(Trial(0, 1, 1, "local", ()), str(tmp_path / "job"), network)
    code = "import socket, sys; s = socket.create_server(('127.0.0.1', 12345)); print('up', flush=True); sys.stdin.read()"
    try:
        assert run.left() == []
        with subprocess.Popen(["ip", "netns", "exec", network.name(0), sys.executable, "-S", "-c", code], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, env={chaos.MARK: run.mark, "PATH": os.environ["PATH"]}) as program:
            program.stdout.readline()
            (tmp_path / "job" / "tmp" / "file").write_text("")
            (tmp_path / "job" / "run" / "checkpoints" / ".writing-step-0000000005").mkdir(parents=True)
            left = run.left()
            program.stdin.close()
        assert f"process {program.pid} (no role)" in left and f"process {program.pid} on host 0" in left
        assert "temporary file" in left and "listener 127.0.0.1:12345 on host 0" in left
        assert "half a checkpoint .writing-step-0000000005" in left
    finally:
        run.close()
        network.close()


@pytest.mark.parametrize("workers", [2, 3])
def test_other_weights_and_other_samples_are_seen(tmp_path, workers):
    """Two workers must agree to the bit, three within 1e-4; the samples always."""
    run = chaos.Run(Trial(0, workers, 1, "local", ()), str(tmp_path / "job"))
    weight = np.linspace(-1, 1, 50, dtype="float32")
    checkpoint.save(run.path("run", "checkpoints"), parameters={"w": weight}, optimizer=None, state={"step": 1},
                    config={"model": "lenet5"})
    log = samples.SampleLog(run.path("samples"), 0, 0, 1)
    log.write(0, 0, 0, [3, 1, 2])
    log.close()
    known = {"weights": {"w": weight}, "samples": [[0, 0, [3, 1, 2], False]]}
    run.compare(known)
    nearly = {"w": weight + np.float32(1e-6)}
    if workers == 2:
        with pytest.raises(chaos.Failed, match="not the same to the bit"):
            run.compare({**known, "weights": nearly})
    else:
        run.compare({**known, "weights": nearly})
    for other in ({"weights": {"w": weight + np.float32(1e-3)}}, {"weights": {"v": weight}},
                  {"samples": [[0, 0, [3, 2, 1], False]]}):
        with pytest.raises(chaos.Failed):
            run.compare({**known, **other})
    run.close()


def test_plans_are_of_their_seed():
    assert draw(3) == draw(3) != draw(4)
    plans = [draw(seed) for seed in range(50)]
    assert {plan.workers for plan in plans} == {1, 2, 3, 4} and {plan.servers for plan in plans} == {1, 2}
    actions = {(fault.victim, fault.action) for plan in plans for fault in plan.faults}
    assert {("host", "cut")} | {(role, action) for role in ("worker", "server", "scheduler")
                                for action in ("SIGKILL", "SIGSTOP", "SIGTERM")} <= actions
    assert {fault.moment for plan in plans for fault in plan.faults} == {"time", "start", "update", "checkpoint"}


def test_the_program_goes_on_where_its_file_ends(tmp_path):
    line = {"seed": 0, "workers": 1, "servers": 1, "launcher": "local", "faults": ["worker 0 SIGKILL"], "not_reached": [],
            "restarts": 1, "seconds": 9.0, "result": "ok"}
    file = tmp_path / "out"
    file.write_text(json.dumps(line) + "\n" + json.dumps({**line, "seed": 1}) + '\n{"seed": 2, half a li')
    done = subprocess.run([sys.executable, str(HERE / "run.py"), "--trials", "2", "--out", str(file)], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0 and "2 of 2 ok, 2 restarts, 2 faults" in done.stdout, done.stderr
