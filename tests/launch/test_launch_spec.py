"""The job as data."""
from launch.spec import OWNED, JobSpec, LaunchError, Ports, check, check_name, counts, ordered, plan

import pytest


def make(**changes):
    values = dict(command=("python", "train.py"), server_argv=("py", "-m", "s"), num_workers=3, num_servers=2,
                  log_dir="/logs")
    values.update(changes)
    return JobSpec(**values)


PORTS = Ports(9000, (9001, 9002), (9003, 9005, 9007))


def test_plan_has_every_role_once():
    names = [(p.role, p.index, p.name, p.file_stem, p.host) for p in plan(make(), PORTS)]
    assert names == [("scheduler", 0, "scheduler", "scheduler", "127.0.0.1")] + [
        ("server", i, f"server {i}", f"server-{i}", "127.0.0.1") for i in range(2)] + [
        ("worker", i, f"worker {i}", f"worker-{i}", "127.0.0.1") for i in range(3)]


def test_environment_contract():
    processes = plan(make(), PORTS, restart=4)
    for process in processes:
        expected = {
            "DMLC_ROLE": process.role, "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": "9000",
            "DMLC_NUM_WORKER": "3", "DMLC_NUM_SERVER": "2", "DMLC_NODE_HOST": "127.0.0.1", "DMLC_INTERFACE": "lo",
            "GLUONZOO_LOCAL_WORKERS": "3", "GLUONZOO_ROLE_INDEX": str(process.index), "GLUONZOO_RESTART": "4",
            "PYTHONUNBUFFERED": "1"}
        if process.role == "worker":
            expected["GLUONZOO_PROGRESS_FILE"] = f"/logs/worker-{process.index}.progress"
            expected["PORT"] = str((9003, 9005, 9007)[process.index])
        elif process.role == "server":
            expected["PORT"] = str((9001, 9002)[process.index])
        assert process.env == expected, process.name
        assert process.argv == (("python", "train.py") if process.role == "worker" else ("py", "-m", "s"))
    assert set(processes[-1].env) <= OWNED | {"PYTHONUNBUFFERED"}


def test_bar_is_for_worker_0_alone():
    shown = [p.name for p in plan(make(bar=True), PORTS) if p.env.get("GLUONZOO_BAR") == "1"]
    assert shown == ["worker 0"]
    assert not any("GLUONZOO_BAR" in p.env for p in plan(make(bar=False), PORTS))


def test_interface_may_be_left_to_ps_lite():
    assert not any("DMLC_INTERFACE" in p.env for p in plan(make(interface=None), PORTS))


def test_user_variables_by_role():
    job = make(env={"A": "1", "B": "all"}, env_worker={"B": "worker"}, env_server={"B": "server", "C": ""})
    for process in plan(job, PORTS):
        kind = "worker" if process.role == "worker" else "server"
        assert (process.env["A"], process.env["B"]) == ("1", kind)
        assert process.env.get("C") == (None if kind == "worker" else "")


@pytest.mark.parametrize("changes, expected", [
    ({}, None),
    ({"import_root": "/src"}, "/src"),
    ({"import_root": "/src", "python_path": "/mine:/too"}, "/src:/mine:/too"),
    ({"import_root": "/src", "python_path": "/mine", "env": {"PYTHONPATH": "/asked"}}, "/src:/asked"),
    ({"import_root": "/src", "env_server": {"PYTHONPATH": "/asked"}}, "/src:/asked"),
])
def test_python_path_of_servers(changes, expected):
    for process in plan(make(**changes), PORTS):
        if process.role == "worker":
            assert process.env.get("PYTHONPATH") == changes.get("env", {}).get("PYTHONPATH")
        else:
            assert process.env.get("PYTHONPATH") == expected


def test_buffering_may_be_asked_for():
    assert {p.env["PYTHONUNBUFFERED"] for p in plan(make(env={"PYTHONUNBUFFERED": ""}), PORTS)} == {""}


@pytest.mark.parametrize("ports", [
    Ports(9000, (9001,), (9003, 9004, 9005)),
    Ports(9000, (9001, 9002), (9003, 9004)),
    Ports(9000, (9001, 9002), (9003, 9005, 9004)),
    Ports(9000, (9001, 9001), (9003, 9004, 9005)),
])
def test_ports_that_do_not_fit(ports):
    with pytest.raises(ValueError, match="ascending"):
        plan(make(), ports)


def test_ports_are_dealt_ascending():
    assert ordered([50, 60, 10, 40, 20, 30], 2) == Ports(50, (10, 20), (30, 40, 60))


@pytest.mark.parametrize("changes, words", [
    ({"num_workers": 0}, "at least 1 worker, got 0"),
    ({"num_workers": -2}, "at least 1 worker, got -2"),
    ({"num_servers": 0}, "at least 1 server, got 0"),
    ({"num_servers": -1}, "negative, got -1"),
    ({"command": ()}, "no COMMAND"),
    ({"env": {"DMLC_ROLE": "x"}}, "DMLC_ROLE is set by the launcher"),
    ({"env_worker": {"PORT": "1"}}, "PORT is set by the launcher"),
    ({"env_server": {"a-b": "1"}}, "'a-b' is not a name"),
])
def test_jobs_that_cannot_be(changes, words):
    with pytest.raises(LaunchError, match=words):
        check(make(**changes))


def test_a_good_job_passes():
    check(make(env={"DMLC_PS_VAN_TYPE": "p3", "_x9": ""}))


@pytest.mark.parametrize("name", ["", "9A", "A B", "A\n", "Ä"])
def test_bad_names(name):
    with pytest.raises(LaunchError):
        check_name(name)


def test_counts_in_words():
    assert counts(make()) == "1 scheduler, 2 servers, 3 workers"
    assert counts(make(num_workers=1, num_servers=1)) == "1 scheduler, 1 server, 1 worker"
