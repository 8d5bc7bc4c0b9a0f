"""Jobs on several hosts, each of them this machine: agents, links and what becomes of a job when they end.

In the place of ssh stands a script that runs the command here; it refuses a host as long as there is a file
``refuse-HOST``. Real hosts and a real ssh are in test_launch_ssh.py.
"""
import json
import os
import re
import signal
import sys
import time

import pytest

SSH = """\
#!/bin/sh
previous=; for last; do host=$previous; previous=$last; done
echo $$ > "$GZ_TEST_DIR/ssh-$host"
echo "$@" >> "$GZ_TEST_DIR/ssh-log"
if [ -e "$GZ_TEST_DIR/refuse-$host" ]; then echo "Warning: nobody is at home" >&2
    echo "ssh: connect to host $host port 22: Connection refused" >&2; exit 255; fi
sh -c "exec $last"
exit $?
"""
HOSTS = "a address=127.0.0.1\nb address=127.0.0.1\n"
UP = "touch('up-%d-%d' % (RESTART, INDEX))\n"
WHERE = ("print('worker', INDEX, 'of', os.environ['DMLC_NUM_WORKER'], 'asked', os.environ['GLUONZOO_JOB_WORKERS'], "
         "'local', os.environ['GLUONZOO_LOCAL_WORKERS'])\n")


class Hosts:
    """A job whose hosts are a and b, or those given."""

    def __init__(self, job, waiting):
        self.job, self.waiting = job, waiting
        ssh = job.folder / "fake-ssh"
        ssh.write_text(SSH)
        ssh.chmod(0o755)
        self.ssh = str(ssh)

    def options(self, options, hosts):
        (self.job.folder / "hosts").write_text(hosts)
        return ("-H", "hosts", "--ssh", self.ssh, "--remote-python", sys.executable, "--env", "GZ_TEST_JOB", "--env",
                "GZ_TEST_DIR") + options

    def start(self, worker, *options, hosts=HOSTS, **more):
        self.job.start(worker, *self.options(options, hosts), **more)
        return self

    def run(self, worker, *options, hosts=HOSTS, seconds=30, **more):
        return self.job.run(worker, *self.options(options, hosts), seconds=seconds, **more)

    def finish(self, seconds=30):
        return self.job.finish(seconds)

    def up(self, *names):
        self.job.await_files(*[name if "-" in name else f"up-0-{name}" for name in names])

    def agents(self, host):
        """Keeper and agent of a host."""
        keeper = int(self.job.file("ssh-" + host).read_text())      # the stand-in's, whose child it is
        found = []
        for _ in range(2):
            with open(f"/proc/{keeper}/task/{keeper}/children") as file:
                keeper = int(file.read().split()[0])
            found.append(keeper)
        return found

    def kill_ssh(self, host):
        os.kill(int(self.job.file("ssh-" + host).read_text()), signal.SIGKILL)


@pytest.fixture
def hosts(job, waiting):
    return Hosts(job, waiting)


def test_a_job_on_two_hosts(hosts):
    done = hosts.run("print('hello from', INDEX, os.getcwd()); done()")
    assert done.code == 0, done.err
    here = str(hosts.job.folder)
    assert sorted(done.out.splitlines()) == [f"[worker {i}] hello from {i} {here}" for i in (0, 1)]
    first, last = done.err.splitlines()
    assert re.match(r"launch: 1 scheduler, 1 server, 2 workers on a, b, scheduler port \d+; logs in logs\Z", first)
    assert last.startswith("launch: finished: 2 workers ended with code 0")
    assert sorted(os.listdir(str(hosts.job.log_dir))) == ["launch.log", "scheduler.log", "server-0.log", "worker-0.log",
                                                          "worker-1.log"]
    assert hosts.job.log("worker-1.log").decode() == f"hello from 1 {here}\n"


def test_environment_and_arguments(hosts):
    dump = "import json; print(json.dumps([dict(os.environ), sys.argv[1:], os.listdir('/proc/self/fd'), os.getsid(0)]))"
    odd = "it's \"a\"; $(touch oops) \\ \n ü"
    env = {"GLUONZOO_MINE": "1", "MXNET_X": "2", "OMP_NUM_THREADS": "3", "PYTHONPATH": "/mine", "LC_TIME": "C",
           "DMLC_OLD": "1", "PORT": "1", "GLUONZOO_RESTART": "7", "GZ_SECRET": "hunter2"}
    hosts.start(dump + "; done()", "-n", "3", "-s", "1", "--env", "A=" + odd, "--env-worker", "B=2", "--env",
                "GZ_SECRET", env=env, server=dump + "; wait_for_workers()", hosts="a slots=2\nb\n".replace(
                    "\n", " address=127.0.0.1\n"))
    done = hosts.finish()
    assert done.code == 0, done.err
    seen = {}
    for line in done.out.splitlines():
        name, _, text = line[1:].partition("] ")
        seen[name] = json.loads(text)
    assert sorted(seen) == ["scheduler", "server 0", "worker 0", "worker 1", "worker 2"]
    for name, (found, _, fds, _) in seen.items():
        role, _, index = name.partition(" ")
        assert found["DMLC_ROLE"] == role and found["GLUONZOO_ROLE_INDEX"] == (index or "0")
        assert found["GLUONZOO_LOCAL_WORKERS"] == ("1" if name == "worker 2" else "2")
        assert found["DMLC_NODE_HOST"] == found["DMLC_PS_ROOT_URI"] == "127.0.0.1"
        assert found["A"] == odd and found.get("B") == ("2" if role == "worker" else None)
        assert "DMLC_OLD" not in found and found["GLUONZOO_RESTART"] == "0" and len(fds) == 4
        for key in ("GLUONZOO_MINE", "MXNET_X", "OMP_NUM_THREADS", "LC_TIME", "GZ_SECRET"):
            assert found[key] == env[key]
        assert found["PYTHONPATH"].endswith("/mine") and (found["PYTHONPATH"] == "/mine") == (role == "worker")
        assert ("GLUONZOO_PROGRESS_FILE" in found) == (role == "worker")
    assert len({one[3] for one in seen.values()}) == 5, "each role has a session of its own"
    said = hosts.job.file("ssh-log").read_text()
    assert "hunter2" not in said and "touch" not in said and not hosts.job.file("oops").exists()
    assert "-o BatchMode=yes" in said and "StrictHostKeyChecking" not in said


def test_a_worker_that_fails_is_named_with_its_host(hosts):
    done = hosts.run("step(41); print('one')\nif INDEX == 1: sys.exit(3)\ntime.sleep(60)")
    assert done.code == 3 and done.seconds < 12
    assert re.search(r"FAILED: worker 1 exited with code 3 after .*, at step 41 \(host b, pid \d+\)", done.err)
    assert "its last 1 line (all in logs/worker-1.log):\n    one\n" in done.err


def test_a_program_that_is_not_there(hosts):
    argv = hosts.job.command("pass", *hosts.options((), HOSTS))[:-3] + ["no-such-program-xyz"]
    import subprocess
    done = subprocess.run(argv, env=hosts.job.environ(), cwd=str(hosts.job.folder), capture_output=True)
    assert done.returncode == 127 and hosts.job.running() == []
    assert b"could not be started on " in done.stderr and b"'no-such-program-xyz' not found" in done.stderr


def test_a_folder_that_is_not_there(hosts):
    done = hosts.run("pass", "--remote-dir", "/no/such/folder")
    assert done.code == 126 and "cannot work in the folder '/no/such/folder': No such file or directory" in done.err


def test_much_output_from_two_hosts_is_complete(hosts):
    done = hosts.run("for i in range(30000): print(INDEX, i, 'x' * 100)\ndone()")
    assert done.code == 0
    for index in (0, 1):
        expected = [f"{index} {i} {'x' * 100}" for i in range(30000)]
        assert hosts.job.log(f"worker-{index}.log").decode().splitlines() == expected
        assert [line.partition("] ")[2] for line in done.out.splitlines() if line.startswith(f"[worker {index}]")] == expected


# ---- reaching hosts ----

def test_a_host_that_cannot_be_reached(hosts):
    (hosts.job.folder / "refuse-b").write_text("")
    done = hosts.run("pass")
    assert done.code == 2 and done.seconds < 10
    assert done.err.splitlines() == [
        "launch: host b: Warning: nobody is at home", "launch: host b: ssh: connect to host b port 22: Connection refused",
        "error: host b: ssh could not connect: ssh: connect to host b port 22: Connection refused"]


def test_a_host_without_the_python(hosts):
    done = hosts.run("pass", "--remote-python", "no-such-python-9")
    assert done.code == 2 and "error: host a: its Python could not be started (--remote-python): " in done.err
    assert "no-such-python-9" in done.err.splitlines()[-1]


def test_a_login_shell_that_prints(hosts):
    (hosts.job.folder / "fake-ssh").write_text(SSH.replace('sh -c "exec $last"', 'echo Welcome; sh -c "$last"'))
    done = hosts.run("pass")
    assert done.code == 2 and "error: host a: its link broke: expected a frame, received b'Welcome" in done.err


def test_a_host_that_does_not_answer(hosts):
    (hosts.job.folder / "fake-ssh").write_text(SSH.replace('sh -c "exec $last"', "exec sleep 60"))
    done = hosts.run("pass", "--connect-timeout", "1")
    assert done.code == 2 and done.seconds < 8
    assert "error: host a: no answer within 1 s (--connect-timeout); host b: no answer within 1 s" in done.err


def test_ctrl_c_while_hosts_are_reached(hosts):
    (hosts.job.folder / "fake-ssh").write_text(SSH.replace('sh -c "exec $last"', "exec sleep 60"))
    hosts.start("pass")
    hosts.up("ssh-a", "ssh-b")
    hosts.job.popen.send_signal(signal.SIGINT)
    done = hosts.finish(10)
    assert done.code == 130 and "received SIGINT" in done.err


# ---- losing agents and links ----

@pytest.mark.parametrize("victim", ["agent", "keeper", "ssh"])
def test_a_lost_host_ends_the_job(hosts, victim):
    hosts.start(UP + "time.sleep(60)")
    hosts.up("0", "1")
    if victim == "ssh":
        hosts.kill_ssh("b")
    else:
        os.kill(hosts.agents("b")[victim == "agent"], signal.SIGKILL)
    done = hosts.finish()
    assert done.code == 1 and done.seconds < 20
    assert "FAILED: host b lost (worker 1): " in done.err, done.err


@pytest.mark.parametrize("victim", ["agent", "ssh"])
def test_a_lost_host_is_reached_again(hosts, victim):
    hosts.start(UP + "print('attempt', RESTART)\nif RESTART == 0: time.sleep(60)\ndone()", "--max-restarts", "1")
    hosts.up("0", "1")
    if victim == "ssh":
        hosts.kill_ssh("b")
    else:
        os.kill(hosts.agents("b")[1], signal.SIGKILL)
    done = hosts.finish()
    assert done.code == 0, done.err
    assert "FAILED: host b lost" in done.err and "restart 1 of 1" in done.err
    said = hosts.job.file("ssh-log").read_text()
    assert len(re.findall(r" a python|/python", said)) == 3, "the healthy agent stays"


def test_a_stopped_agent_is_a_lost_host(hosts):
    hosts.start(UP + "time.sleep(60)", "--host-timeout", "2")
    hosts.up("0", "1")
    stopped = hosts.agents("b")
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    done = hosts.finish()
    assert done.code == 1
    assert re.search(r"FAILED: host b lost \(worker 1\): nothing was heard from it for [23] s \(--host-timeout\)", done.err)


def test_sigkill_of_the_launcher_ends_all_hosts(hosts):
    hosts.start(UP + "time.sleep(60)", "--grace", "1")
    hosts.up("0", "1")
    os.kill(hosts.job.supervisor, signal.SIGKILL)
    hosts.waiting(lambda: not hosts.job.running(), 15, "processes of the job")
    assert hosts.finish(5).code == 137


def test_detached_processes_on_hosts_are_ended(hosts):
    done = hosts.run("subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(100)'], "
                     "start_new_session=True)\ndone()", "--grace", "1")
    assert done.code == 0       # Job.finish looks for what is left


# ---- restarts ----

def test_restart_on_fresh_ports_with_the_same_agents(hosts):
    done = hosts.run("print('attempt', RESTART, os.environ['DMLC_PS_ROOT_PORT'])\n"
                     "if RESTART == 0: sys.exit(4) if INDEX else time.sleep(60)\ndone()", "--max-restarts", "1")
    assert done.code == 0 and "restart 1 of 1" in done.err
    lines = [line.split() for line in hosts.job.log("worker-0.log").decode().splitlines() if line.startswith("attempt")]
    assert [line[1] for line in lines] == ["0", "1"] and lines[0][2] != lines[1][2]
    assert len(hosts.job.file("ssh-log").read_text().splitlines()) == 2


def test_a_restart_waits_for_a_host_to_come_back(hosts):
    hosts.start(UP + "if RESTART == 0: time.sleep(60)\ndone()", "--max-restarts", "1")
    hosts.up("0", "1")
    refuse = hosts.job.file("refuse-b")
    refuse.write_text("")
    hosts.kill_ssh("b")
    time.sleep(2.5)
    refuse.unlink()
    done = hosts.finish()
    assert done.code == 0, done.err
    assert done.err.count("Connection refused") == 1, "said once, though tried several times"


def test_a_host_that_stays_away_ends_the_job(hosts):
    hosts.start(UP + "time.sleep(60)", "--max-restarts", "2", "--connect-timeout", "1")
    hosts.up("0", "1")
    hosts.job.file("refuse-b").write_text("")
    hosts.kill_ssh("b")
    done = hosts.finish()
    assert done.code == 1
    assert "cannot start again: 2 workers (-n), but 1 slot on a" in done.err and "giving up after 2 restarts" in done.err


def test_restarts_are_counted_within_a_window(hosts):
    done = hosts.run("if RESTART < 3: time.sleep(.6); sys.exit(4)\ndone()", "-n", "1", "-s", "1", "--max-restarts", "1",
                     "--restart-window", "0.5", hosts="a address=127.0.0.1\n")
    assert done.code == 0 and "restart 1 of 1 within 0.5 s, 3 in all" in done.err


# ---- elastic ----

def test_fewer_workers_when_a_host_stays_away(hosts):
    hosts.start(UP + WHERE + "if RESTART == 0: time.sleep(60)\ndone()", "--max-restarts", "1", "--min-workers", "1")
    hosts.up("0", "1")
    hosts.job.file("refuse-b").write_text("")
    hosts.kill_ssh("b")
    done = hosts.finish()
    assert done.code == 0, done.err
    assert "host b is left out: ssh could not connect: ssh: connect to host b port 22: Connection refused" in done.err
    assert "1 scheduler, 1 server, 1 worker (2 were asked for) on a, scheduler port" in done.err
    assert "[worker 0] worker 0 of 1 asked 2 local 1\n" in done.out


def test_a_host_with_servers_stays_away_and_comes_back(hosts):
    """a holds scheduler and server; without it they are on b, and later on a again."""
    hosts.start(UP + WHERE + "if RESTART < 2: time.sleep(60)\ndone()", "--max-restarts", "2", "--min-workers", "1")
    hosts.up("0", "1")
    refuse = hosts.job.file("refuse-a")
    refuse.write_text("")
    hosts.kill_ssh("a")
    hosts.up("up-1-0")
    refuse.unlink()
    victim, = hosts.job.roles("DMLC_ROLE=worker")
    os.kill(victim, signal.SIGKILL)
    done = hosts.finish()
    assert done.code == 0, done.err
    assert "on b, scheduler port" in done.err and done.err.count("on a, b, scheduler port") == 2
    assert [line for line in done.out.splitlines() if "worker 1 of 2" in line]


def test_too_few_hosts_are_left(hosts):
    (hosts.job.folder / "refuse-b").write_text("")
    done = hosts.run("pass", "-n", "3", "-s", "1", "--min-workers", "2", hosts=HOSTS + "c address=127.0.0.1 role=server\n")
    assert done.code == 2
    assert "error: at least 2 workers (--min-workers), but 1 slot on a, c" in done.err


# ---- ending ----

CHECKPOINT = """
def stop(*_):
    step(17); print('saved'); sys.stdout.flush(); os._exit(0)
signal.signal(signal.SIGUSR1, stop)
step(16)
"""


def test_sigterm_with_grace_is_a_stop_with_a_checkpoint(hosts):
    hosts.start(CHECKPOINT + UP + "time.sleep(60)", "--grace", "10", server="time.sleep(60)")
    hosts.up("0", "1")
    hosts.job.popen.send_signal(signal.SIGTERM)
    done = hosts.finish()
    assert done.code == 143 and done.seconds < 15
    assert sorted(done.out.splitlines()) == ["[worker 0] saved", "[worker 1] saved"]
    assert "stopped after a checkpoint at step 17" in done.err


def test_workers_that_do_not_stop_in_time(hosts):
    hosts.start("signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n" + UP + "time.sleep(60)", "--grace", "1")
    hosts.up("0", "1")
    hosts.job.popen.send_signal(signal.SIGTERM)
    done = hosts.finish()
    assert done.code == 143 and "worker 0, worker 1 did not stop within 1.0 s; ending the job" in done.err


def test_ctrl_c_ends_all_hosts(hosts):
    hosts.start(UP + "time.sleep(60)")
    hosts.up("0", "1")
    hosts.job.popen.send_signal(signal.SIGINT)
    done = hosts.finish()
    assert done.code == 130 and "received SIGINT; ending the job (once more to kill it at once)" in done.err


def test_a_second_ctrl_c_kills_at_once_everywhere(hosts):
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    hosts.start(stubborn + UP + "time.sleep(60)", "--grace", "30")
    hosts.up("0", "1")
    hosts.job.popen.send_signal(signal.SIGINT)
    time.sleep(1)
    assert hosts.job.popen.poll() is None
    hosts.job.popen.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert hosts.finish(15).code == 130 and time.monotonic() - began < 6


def test_workers_that_may_fail(hosts):
    """As dist_async: the server stays until it is ended."""
    done = hosts.run("step(3)\nif INDEX == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
                     "print(os.environ['GLUONZOO_TOLERATE_WORKERS']); time.sleep(1.5)", "--tolerate-workers", "1",
                     server="time.sleep(60)")
    assert done.code == 0, done.err
    assert re.search(r"worker 1 was killed by SIGKILL after .*, at step 3 \(host b, pid \d+\); going on without it "
                     r"\(1 of at most 1\)", done.err)
    assert "FAILED" not in done.err and "finished: 1 worker ended with code 0 (1 had failed)" in done.err


def test_a_lost_host_whose_workers_may_fail(hosts):
    hosts.start(UP + "if INDEX: time.sleep(60)\nawait_file('go')", "--tolerate-workers", "1", server="time.sleep(60)")
    hosts.up("0", "1")
    hosts.kill_ssh("b")
    time.sleep(1)
    hosts.job.file("go").write_text("")
    done = hosts.finish()
    assert done.code == 0 and "worker 1 was lost with its host" in done.err, done.err


@pytest.mark.parametrize("first, words", [(0, "FAILED: worker 0 exited with code 5"), (2, "FAILED: worker 2 exited with")])
def test_more_workers_fail_than_may(hosts, first, words):
    done = hosts.run(f"time.sleep(.5 * INDEX)\nsys.exit(5 if INDEX in (1, {first}) else time.sleep(60))", "-n", "3", "-s",
                     "1", "--tolerate-workers", "1", hosts="a slots=3 address=127.0.0.1\n")
    assert done.code == 5 and words in done.err
