"""The job as data."""
from launch.spec import (
    OWNED,
    ROLES,
    Host,
    JobSpec,
    LaunchError,
    Ports,
    check,
    check_name,
    counts,
    ordered,
    place,
    plan,
)

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
            "GLUONZOO_LOCAL_WORKERS": "3", "GLUONZOO_JOB_ID": "", "GLUONZOO_JOB_WORKERS": "3",
            "GLUONZOO_ROLE_INDEX": str(process.index),
            "GLUONZOO_RESTART": "4",
            "PYTHONUNBUFFERED": "1"}
        if process.role == "worker":
            expected["GLUONZOO_PROGRESS_FILE"] = f"/logs/worker-{process.index}.progress"
            expected["PORT"] = str((9003, 9005, 9007)[process.index])
        elif process.role == "server":
            expected["PORT"] = str((9001, 9002)[process.index])
        if process.role != "worker":
            expected["GLUONZOO_LIGHT_SERVER"] = "1"
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


# ---- several hosts ----

def dealt(lines, workers=3, servers=2, **changes):
    """``scheduler | servers | workers`` by host, for hosts such as ``a:2 b:1:worker``."""
    hosts = []
    for word in lines.split():
        name, slots, roles = (word + "::").split(":")[:3]
        hosts.append(Host(name, slots=int(slots or 1), roles=tuple(roles.split(",")) if roles else ROLES,
                          chosen=bool(roles)))
    where = place(hosts, make(num_workers=workers, num_servers=servers, **changes))
    names = where.hosts
    return " | ".join([names[where.scheduler], " ".join(names[i] for i in where.servers),
                       " ".join(names[i] for i in where.workers)])


@pytest.mark.parametrize("lines, workers, servers, expected", [
    ("a:4", 3, 2, "a | a a | a a a"),
    ("a:2 b:2", 3, 2, "a | a b | a a b"),
    ("a b c", 3, 1, "a | a | a b c"),
    ("a b c", 2, 4, "a | a a b c | a b"),
    ("a:1:scheduler,server b:2 c:2", 4, 2, "a | a a | b b c c"),
    ("b:2 c:2 a:1:scheduler,server", 4, 2, "a | a a | b b c c"),
    ("a:2 b:2:worker c:1:server", 4, 2, "a | c c | a a b b"),
    ("a:1:worker b:1:server c:1:scheduler", 1, 2, "c | b b | a"),
])
def test_roles_are_dealt_to_hosts(lines, workers, servers, expected):
    assert dealt(lines, workers, servers) == expected


@pytest.mark.parametrize("lines, changes, words", [
    ("a b", {}, "3 workers (-n), but 2 slots on a, b; give slots= in the hostfile, or --oversubscribe"),
    ("a", {}, "3 workers (-n), but 1 slot on a;"),
    ("a:4:worker", {}, "no scheduler: role= allows it on none of a"),
    ("a:4:scheduler,server", {}, "no worker: role= allows it on none of a"),
    ("a b", {"min_workers": 3}, "at least 3 workers (--min-workers), but 2 slots on a, b"),
    ("a b", {"max_workers": 5}, "at least 3 workers (-n), but 2 slots on a, b"),
    (" ".join(f"h{i}" for i in range(9)), {"num_workers": 10}, "9 slots on h0, h1, h2, h3, h4, and 4 more"),
])
def test_no_room(lines, changes, words):
    with pytest.raises(LaunchError) as error:
        dealt(lines, changes.pop("num_workers", 3), **changes)
    assert words in str(error.value)


@pytest.mark.parametrize("lines, changes, workers", [
    ("a b", {"oversubscribe": True}, "a a b"),
    ("a:1:server,scheduler b c", {"oversubscribe": True}, "b b c"),
    ("a b", {"min_workers": 1}, "a b"),
    ("a:4", {"min_workers": 1}, "a a a"),
    ("a:4 b:4", {"min_workers": 1, "max_workers": 6}, "a a a a b b"),
    ("a b", {"min_workers": 1, "oversubscribe": True}, "a a b"),
])
def test_another_number_of_workers(lines, changes, workers):
    assert dealt(lines, **changes).split(" | ")[2] == workers


def test_environment_on_several_hosts():
    where = place([Host("a", slots=2), Host("b", slots=1)], make())
    processes = plan(make(tolerate=1), PORTS, 0, where)
    assert [(p.name, p.host, p.place) for p in processes] == [
        ("scheduler", "a", 0), ("server 0", "a", 0), ("server 1", "b", 1), ("worker 0", "a", 0), ("worker 1", "a", 0),
        ("worker 2", "b", 1)]
    for process in processes:
        assert process.env["DMLC_NODE_HOST"] == process.env["DMLC_PS_ROOT_URI"] == "127.0.0.1"
        assert process.env["GLUONZOO_LOCAL_WORKERS"] == ("2" if process.host == "a" else "1")
        assert process.env["GLUONZOO_JOB_WORKERS"] == "3" and process.env["GLUONZOO_TOLERATE_WORKERS"] == "1"
        assert "GLUONZOO_PROGRESS_FILE" not in process.env, "each agent has its own"


def test_workers_see_how_many_were_asked_for():
    job = make(min_workers=1)
    processes = plan(job, Ports(9000, (9001, 9002), (9003,)), 1, place([Host("a")], job))
    assert {(p.env["DMLC_NUM_WORKER"], p.env["GLUONZOO_JOB_WORKERS"]) for p in processes} == {("1", "3")}


def test_without_a_channel_ranks_follow_the_addresses_as_in_ps_lite():
    """ps-lite sorts by address, the highest first, as text."""
    hosts = [Host("a"), Host("b"), Host("c")]
    where = place(hosts, make(), ["10.0.0.2", "10.0.0.10", "10.0.0.3"])
    processes = plan(make(interface=None), PORTS, 0, where)
    assert [p.host for p in processes] == ["a", "a", "b", "c", "a", "b"]
    assert [p.env["DMLC_NODE_HOST"] for p in processes][3:] == ["10.0.0.3", "10.0.0.2", "10.0.0.10"]
    assert {p.env["DMLC_PS_ROOT_URI"] for p in processes} == {"10.0.0.2"}


def test_the_jobs_id_is_new_each_time_but_for_slurm():
    from launch.launch import _job_id
    command = ["python", "train.py"]
    assert _job_id({}, command) != _job_id({}, command) != ""
    first = _job_id({"SLURM_JOB_ID": "7"}, command)
    assert first == _job_id({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}, command)
    assert len({first, _job_id({"SLURM_JOB_ID": "8"}, command), _job_id({"SLURM_JOB_ID": "7"}, command + ["-v"])}) == 3
    assert {p.env["GLUONZOO_JOB_ID"] for restart in range(2) for p in plan(make(job_id="a"), PORTS, restart)} == {"a"}
