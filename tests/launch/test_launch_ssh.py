"""--launcher ssh for real: network namespaces as hosts, sshd in each, MXNet's own scheduler, servers and workers."""
import json
import os
import re
import signal
import subprocess
import sys
import time

import namespaces
import pytest

WHY_NOT = namespaces.missing()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
JOBS = os.path.join(ROOT, "tests", "distributed", "jobs")
UP = "touch('up-%d-%d' % (RESTART, INDEX))\n"


@pytest.fixture
def network(tmp_path):
    """Three hosts."""
    made = namespaces.Network(tmp_path, 3)
    yield made
    made.close()


def options(network, *more, hosts=None):
    """Scheduler and server on host 1, workers on 2 and 3, unless the hostfile's lines are given."""
    lines = hosts or [f"{network.address(1)} role=scheduler,server", f"root@{network.address(2)} role=worker  # one",
                      f"{network.address(3)}:22 role=worker slots=1"]
    (network.folder / "hosts").write_text("\n".join(lines) + "\n")
    return ["-H", str(network.folder / "hosts"), "--launcher", "ssh", "--ssh", network.ssh, "--remote-python",
            sys.executable, *more]


def train(network, tmp_path, *more, repetitions=2, kind="dist_sync", timeout=170):
    """A real training of two workers, compared with one by the job itself. Returns output, seconds."""
    argv = [sys.executable, os.path.join(ROOT, "launch", "launch.py"), "-n", "2", "-s", "1", "--log-dir",
            str(tmp_path / "logs"), *options(network, *more), sys.executable, os.path.join(JOBS, "equal.py"),
            str(repetitions), "16", kind, "sgd"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, JOBS]), "GLUONZOO_TEST_REPORTS": str(tmp_path)}
    began = time.monotonic()
    done = subprocess.run(argv, cwd=str(tmp_path), env=environ, capture_output=True, text=True, timeout=timeout)
    seconds = time.monotonic() - began
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert all(network.processes(host) == [] for host in (1, 2, 3)), "agents and roles are gone"
    reports = [json.loads((tmp_path / f"report-{rank}.json").read_text()) for rank in (0, 1)]
    for one, other in zip(reports[0]["results"], reports[1]["results"]):
        assert one[0] == other[0] and max(one[1], other[1]) <= 1e-6
    assert [int(report["index"]) for report in reports] == [0, 1], "ranks are in the order of the hosts"
    return output, seconds


def test_a_real_training_on_three_hosts(network, tmp_path):
    output, _ = train(network, tmp_path)
    assert f"on {network.address(1)}, {network.address(2)}, {network.address(3)}, scheduler port" in output
    assert "encrypted between hosts" in output


def test_ps_lite_listens_on_loopback_only(network, job):
    """What a stranger on the network finds: sshd and one port a host."""
    start(network, job, UP + "import socket\ns = socket.socket(); s.bind(('127.0.0.1', int(os.environ['PORT']))); s.listen(1)\n"
          "await_file('go'); done()")
    job.await_files("up-0-0", "up-0-1")
    for host in (1, 2, 3):
        listening = network.run(host, "ss", "-ltnH")
        outside = [line.split()[3] for line in listening.splitlines() if not line.split()[3].startswith("127.0.0.1:")]
        assert len(outside) == 2 and f"{network.address(host)}:22" in outside, listening
    job.file("go").write_text("")
    done = job.finish(30)
    assert done.code == 0, done.err


def test_the_same_over_a_slow_link(network, tmp_path):
    """100 Mbit/s, and 25 ms each way, so 50 ms for question and answer, between each host and the others."""
    for host in (1, 2, 3):
        network.limit(host, "100mbit")
        network.delay(host, 0.0125)
    began = time.monotonic()
    network.run(2, sys.executable, "-c", f"import socket; socket.create_connection(('{network.address(3)}', 22))")
    assert time.monotonic() - began > 0.05
    train(network, tmp_path, repetitions=1)


def test_without_a_channel(network, tmp_path):
    output, _ = train(network, tmp_path, "--insecure-network", repetitions=1)
    assert "WARNING: --insecure-network" in output and "not protected" in output


# ---- small workers ----

def start(network, job, worker, *more, **others):
    job.start(worker, "-n", "2", "-s", "1", "--env", "GZ_TEST_JOB", "--env", "GZ_TEST_DIR", *options(network, *more),
              **others)
    return job


def test_nothing_secret_or_fragile_on_a_command_line(network, job):
    odd = "it's \"a\"; $(touch oops) \\ ü"
    start(network, job, "print(repr(os.environ['A']), sys.argv[1:]); " + UP + "await_file('go'); done()", "--env", "A=" + odd,
          "--env", "GZ_SECRET", env={"GZ_SECRET": "hunter2-of-the-test"})
    job.await_files("up-0-0", "up-0-1")
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    words = file.read()
            except OSError:
                continue
            assert b"hunter2-of-the-test" not in words and b"PRIVATE KEY" not in words
    job.file("go").write_text("")
    done = job.finish(30)
    assert done.code == 0 and done.out.count(repr(odd)) == 2, done.err
    assert not job.file("oops").exists()


def test_a_host_whose_key_is_not_known(network, job):
    known = network.folder / "known_hosts"
    known.write_text("".join(line for line in known.read_text().splitlines(True) if not line.startswith(network.address(2))))
    start(network, job, "pass")
    done = job.finish(30)
    assert done.code == 2
    assert f"error: host {network.address(2)}: ssh could not connect: Host key verification failed." in done.err


def test_a_host_that_is_not_there(network, job):
    network.cut(3)
    start(network, job, "pass", "--connect-timeout", "3")
    done = job.finish(30)
    assert done.code == 2 and f"error: host {network.address(3)}: " in done.err, done.err


def test_a_worker_killed_on_a_host(network, job):
    start(network, job, UP + "time.sleep(100)")
    job.await_files("up-0-0", "up-0-1")
    victim, = job.roles("DMLC_ROLE=worker", "GLUONZOO_ROLE_INDEX=1")
    os.kill(victim, signal.SIGKILL)
    done = job.finish(30)
    assert done.code == 137
    assert re.search(rf"FAILED: worker 1 was killed by SIGKILL .*\(host {network.address(3)}, pid {victim}\)", done.err)


@pytest.mark.parametrize("how", ["killed", "cut"])
def test_nothing_is_left_on_hosts_when_the_launcher_is_gone(network, job, waiting, how):
    """SIGKILL of launcher and supervisor; a link that carries nothing any more."""
    start(network, job, UP + "time.sleep(100)", "--grace", "1", "--host-timeout", "4")
    job.await_files("up-0-0", "up-0-1")
    assert all(network.processes(host) for host in (1, 2, 3))
    if how == "killed":
        supervisor = job.supervisor
        os.kill(job.popen.pid, signal.SIGSTOP)
        os.kill(supervisor, signal.SIGKILL)
        os.kill(job.popen.pid, signal.SIGKILL)
    else:
        network.cut(2)
    waiting(lambda: not network.processes(2), 25, "processes on the host")
    waiting(lambda: not network.processes(1) and not network.processes(3), 25, "processes on the others")
    done = job.finish(30)
    if how == "cut":
        assert done.code == 1 and f"FAILED: host {network.address(2)} lost (worker 0): " in done.err


def test_a_host_removed_for_good(network, job):
    """Elastic: the job goes on with the workers there are."""
    start(network, job, UP + "print('of', os.environ['DMLC_NUM_WORKER'], os.environ['GLUONZOO_JOB_WORKERS'])\n"
          "if RESTART == 0: time.sleep(100)\ndone()", "--max-restarts", "1", "--min-workers", "1", "--host-timeout", "4",
          "--connect-timeout", "5")
    job.await_files("up-0-0", "up-0-1")
    network.remove(3)
    done = job.finish(60)
    assert done.code == 0, done.err
    assert f"FAILED: host {network.address(3)} lost (worker 1)" in done.err
    assert f"host {network.address(3)} is left out: " in done.err and "1 worker (2 were asked for)" in done.err
    assert "[worker 0] of 1 2\n" in done.out


SERVE = """
import socket
if ROLE == 'scheduler':
    listener = socket.socket()
    listener.bind(('127.0.0.1', int(os.environ['DMLC_PS_ROOT_PORT'])))
    listener.listen(8)
    listener.settimeout(0.2)
    while not all(os.path.exists(path('done-%d-%d' % (RESTART, i))) for i in (0, 1)):
        try:
            with listener.accept()[0] as sock: sock.sendall(b'from the scheduler')
        except socket.timeout: continue
wait_for_workers()
"""
ASK = """
import socket
def ask():
    for _ in range(100):
        with socket.create_connection(('127.0.0.1', int(os.environ['DMLC_PS_ROOT_PORT']))) as sock:
            words = sock.makefile().read()
            if words: return words
        time.sleep(.1)
print(RESTART, ask())
"""


def test_a_restart_has_new_connections_with_a_new_key(network, job):
    start(network, job, ASK + "if RESTART == 0: sys.exit(4) if INDEX else time.sleep(100)\ndone()", "--max-restarts", "1",
          server=SERVE)
    done = job.finish(40)
    assert done.code == 0, done.err
    assert done.out.count("1 from the scheduler") == 2, done.out


def test_a_channel_that_dies_ends_the_attempt(network, job):
    start(network, job, UP + ASK + "if RESTART == 0: time.sleep(100)\ndone()", "--max-restarts", "1", server=SERVE)
    job.await_files("up-0-0", "up-0-1")
    for pid in network.processes(2):
        with open(f"/proc/{pid}/stat") as file:     # the agent's only child with descriptors of TCP, not a role
            text = file.read()
        with open(f"/proc/{pid}/environ", "rb") as file:
            is_role = b"DMLC_ROLE=" in file.read()
        if not is_role and "python" in text and not _children(pid):
            os.kill(pid, signal.SIGKILL)
    done = job.finish(40)
    assert done.code == 0, done.err
    assert f"FAILED: host {network.address(2)}: the channel's process (pid " in done.err
    assert done.out.count("1 from the scheduler") == 2, done.out


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


def test_code_is_copied_first(network, job):
    (job.folder / ".git").mkdir()
    (job.folder / ".git" / "secret").write_text("")
    there = network.folder / "copied" / "to here"
    (job.folder / "data file").write_text("copied")
    start(network, job, "print(os.getcwd(), open('data file').read(), os.listdir()); done()", "--sync-dst-dir", str(there))
    done = job.finish(40)
    assert done.code == 0, done.err
    assert done.out.count(f"{there} copied ") == 2 and ".git" not in os.listdir(str(there))
    assert "logs" not in os.listdir(str(there)), "nor the log folder"
