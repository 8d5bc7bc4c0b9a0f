"""dist_async: the optimizer runs on the servers, set up, saved and restored by JSON commands; survivors go on."""
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from gluonzoo import arrays
from gluonzoo.distributed.server import join_states, share
from gluonzoo.training import checkpoint

import numpy as np
import pytest
from job_processes import marked_processes

ROOT = Path(__file__).resolve().parent.parent.parent
#: Arrays of more elements are cut over all servers: the two weights of the small network, 512 and 256, and not the biases.
CUT = {"MXNET_KVSTORE_BIGARRAY_BOUND": "200"}


@pytest.mark.parametrize("optimizer, before, after", [("sgd", 1, 2), ("adam", 2, 3)] + [
    pytest.param(*slow, marks=pytest.mark.slow) for slow in (
        ("adam", 1, 2), ("adam", 2, 1), ("sgd", 2, 2), ("sgd", 2, 1), ("sgd", 2, 3), ("adam", 2, 2))])
def test_one_worker_equals_local_training_and_resumes_with_other_servers(job, tmp_path, optimizer, before, after):
    folder = tmp_path / "states"
    folder.mkdir()
    saved = job(1, before, "asynchronous.py", 8, folder, "save", optimizer, env=CUT)
    assert saved.reports[0]["difference"] <= 1e-6
    files = [f"server-{rank}.params" for rank in range(before)]
    assert sorted(path.name for path in folder.iterdir()) == ["net.params", *files]
    states = [arrays.load(str(folder / file)) for file in files]
    for name, value in join_states(states).items():
        kind, key, *_ = name.split("/")
        if kind == "state":
            # Every server holds what `share` says: in this the whole of re-sharding rests on how ps-lite cuts.
            parts = [share(int(key), value.size, rank, before, 200) for rank in range(before)]
            assert [len(state.get(name, ())) for state in states] == [part[1] - part[0] if part else 0 for part in parts]
    assert job(1, after, "asynchronous.py", 8, folder, "load", optimizer, env=CUT).reports[0]["difference"] <= 1e-6


def test_shares_cover_every_element_once():
    random = np.random.RandomState(0)
    for _ in range(2000):
        key, size, servers, bound = (int(random.randint(low, high)) for low, high in ((0, 99), (1, 500), (1, 9), (1, 600)))
        parts = [share(key, size, rank, servers, bound) for rank in range(servers)]
        held = [element for part in parts if part for element in range(*part)]
        assert held == list(range(size))
        if size < bound:
            assert sum(part is not None for part in parts) == 1
    assert [share(1, 5, rank, 2, 5) for rank in (0, 1)] == [(0, 3), (3, 5)]  # A half goes up, as in C.


def test_joined_counts_are_the_latest():
    one = {"count/3": np.array([7]), "state/3": np.arange(2.0)}
    other = {"count/3": np.array([9]), "count/4": np.array([1]), "state/3": np.arange(3.0)}
    joined = join_states([one, other])
    assert joined["count/3"] == 9 and joined["count/4"] == 1 and joined["state/3"].tolist() == [0, 1, 0, 1, 2]


def test_missing_states_of_a_server_are_refused(job, tmp_path):
    folder = tmp_path / "states"
    folder.mkdir()
    job(1, 2, "asynchronous.py", 2, folder, "save", "sgd")
    (folder / "server-0.params").unlink()
    outcome = job(1, 1, "asynchronous.py", 2, folder, "load", "sgd", check=False)
    assert outcome.code != 0 and "holds the states of servers [1]; expected those of 0, 1, ... without a gap" in outcome.output


def test_two_workers_train(job):
    outcome = job(2, 1, "asynchronous.py", 10, "-", "-", "sgd")
    assert all(0 < report["size"] < 10 for report in outcome.reports.values())


def test_a_whole_run_resumes_with_another_number_of_servers(survive):
    # A constant rate: commands to the servers overtake gradients, so a changing one takes effect an update or two early.
    settings = {"kvstore": "dist_async", "optimizer": "adam", "lr": 0.002, "augment": "none", "schedule": "constant",
                "warmup_epochs": 0}
    straight = survive("whole", 1, 1, settings=settings)
    survive("run", 1, 1, settings=settings, stop=[[0, 8]])
    rest = survive("run", 1, 3, settings=settings, resume=True, env={"MXNET_KVSTORE_BIGARRAY_BOUND": "1000"})
    assert rest.reports[0]["resumed_at"] == 9
    for name, value in straight.weights.items():
        np.testing.assert_allclose(rest.weights[name], value, rtol=0, atol=1e-4 * np.abs(value).max())


@pytest.fixture
def bare_job(tmp_path):
    """bare_job(workers, wishes) -> {role name: Popen}: the processes of a job of jobs/survive.py, without a launcher."""
    started, mark = {}, f"bare-{os.getpid()}-{time.monotonic_ns()}"

    def run(workers, wishes):
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers + 2)]
        scheduler, server, *ports = sorted(listening.getsockname()[1] for listening in sockets)
        for listening in sockets:
            listening.close()
        common = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "distributed" / "jobs")]),
                  "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": str(scheduler), "DMLC_NUM_WORKER": str(workers),
                  "DMLC_NUM_SERVER": "1", "DMLC_NODE_HOST": "127.0.0.1", "DMLC_INTERFACE": "lo", "GLUONZOO_TEST_MARK": mark,
                  "GLUONZOO_TEST_REPORTS": str(tmp_path), "GLUONZOO_TOLERATE_WORKERS": "1"}
        server_argv = [sys.executable, "-m", "gluonzoo.distributed.server"]
        plan = [("scheduler", 0, None, server_argv), ("server", 0, server, server_argv)]
        plan += [("worker", rank, port, [sys.executable, str(ROOT / "tests" / "distributed" / "jobs" / "survive.py"),
                                         json.dumps(wishes)]) for rank, port in enumerate(ports)]
        for role, index, port, argv in plan:
            environment = {**common, "DMLC_ROLE": role, "GLUONZOO_ROLE_INDEX": str(index)}
            environment.update({"PORT": str(port)} if port else {})
            started[f"{role} {index}"] = subprocess.Popen(argv, env=environment, cwd=str(tmp_path))
        return started
    yield run
    for process in started.values():
        process.kill()
        process.wait()
    assert marked_processes(mark) == []


@pytest.mark.parametrize("victim, last", [(1, 2), (2, 0)])
def test_survivors_go_on_and_leave_without_the_dead(bare_job, tmp_path, victim, last):
    """What a worker does under --tolerate-workers: it trains on, rank 0 validates and saves, and nobody waits at the exit."""
    settings = {"output": str(tmp_path / "run"), "kvstore": "dist_async"}
    job = bare_job(3, {"settings": settings, "die": [[victim, 5]], "slow": [last, 0.1]})
    assert [job[f"worker {rank}"].wait(120) for rank in range(3)] == [-signal.SIGKILL if rank == victim else 0
                                                                     for rank in range(3)]
    saved = checkpoint.newest(str(tmp_path / "run"))
    # How far it has learned depends on whose gradients come when; that rank 0 has looked does not.
    assert saved.state["epoch"] == 2 and 0 < saved.state["history"][1]["val_accuracy"] <= 1
    assert saved.has("server-0.params")


def launcher_knows(flag):
    return flag in subprocess.run([sys.executable, str(ROOT / "launch" / "launch.py"), "--help"], capture_output=True,
                                  text=True).stdout


@pytest.mark.skipif(not launcher_knows("--tolerate-workers"), reason="launch.py has no --tolerate-workers yet")
def test_the_launcher_lets_survivors_go_on(survive, tmp_path):
    outcome = survive("run", 3, settings={"kvstore": "dist_async"}, die=[[2, 5]], slow=[0, 0.05],
                      launch=("--tolerate-workers", "1"))
    assert sorted(outcome.reports) == [0, 1] and outcome.reports[0]["update"] == 20
    assert checkpoint.newest(str(tmp_path / "run")).state["epoch"] == 2
