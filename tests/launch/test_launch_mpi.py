"""--launcher mpi with a real mpirun: agents on this machine, and on hosts that are network namespaces."""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from launch import mpi
from launch.spec import Host, LaunchError

import pytest
from namespaces import Network
from namespaces import missing as no_network

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
needs_mpirun = pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun here (Debian: openmpi-bin)")
HOSTS = f"localhost:1,{socket.gethostname()}:1"
UP = "touch('up-%d-%d' % (RESTART, INDEX))\n"
SLEEP = UP + "if RESTART == 0: time.sleep(60)\ndone()"


@pytest.fixture
def mpi_job(job):
    """start(worker, *options, hosts=...) for a job by mpirun, whose session folder is ours and must be empty at the end."""
    folder = tempfile.mkdtemp(prefix="gzmpi-")      # a short path: sockets are in it

    def start(worker, *options, hosts=HOSTS, env=None, **more):
        return job.start(worker, "--launcher", "mpi", "-H", hosts, *options, env={"TMPDIR": folder, **(env or {})}, **more)
    start.job, start.folder = job, folder
    yield start
    shutil.rmtree(folder, ignore_errors=True)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def name_of(pid):
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def mpirun_of(job):
    """Pids of the mpirun programs that the launcher has started."""
    return [pid for pid in children(job.supervisor) if name_of(pid) == "mpirun"]


# ---- without mpirun ----

def test_the_command():
    argv = mpi.mpirun_argv(["a", "b"], "/usr/bin/python3", mpi.MpiOptions(("mpirun",), ("--mca", "x", "y"), True))
    assert argv[:-5] == ("mpirun", "--allow-run-as-root", "-n", "2", "-H", "a,b", "--map-by", "seq", "--bind-to", "none",
                         "--enable-recovery", "-x", "GLUONZOO_JOIN", "--mca", "x", "y")
    assert argv[-5:-2] == ("/usr/bin/python3", "-I", "-c") and argv[-1] == os.path.join(ROOT, "launch", "dialer.py")
    assert "--allow-run-as-root" not in mpi.mpirun_argv(["a"], "python3", mpi.MpiOptions())


def test_a_host_without_the_checkout():
    argv = mpi.mpirun_argv(["a"], sys.executable, mpi.MpiOptions())
    done = subprocess.run([*argv[argv.index(sys.executable):-1], "/no/such/launch/dialer.py"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == (f"gluonzoo: host {socket.gethostname()} has no /no/such/launch/dialer.py"
                                                    ": this folder must be on a file system that all hosts share\n")


@pytest.mark.parametrize("words, message", [
    ((), "--launcher mpi needs the hosts, -H FILE or -H host1:2,host2, outside of an allocation"),
    (("-H", "a:1,b:1", "--mpirun", ""), "--mpirun is empty"),
    (("-H", "a:1,b:1", "--mpirun", "no-such-mpirun"), "--mpirun 'no-such-mpirun' not found in PATH"),
    (("-H", "a:1,b:1", "--mpirun", "true", "--mpi-option", "'"), "--mpi-option \"'\": No closing quotation"),
    (("-H", "me@a:1,b:1", "--mpirun", "true"), "host a: mpirun takes neither user= nor port="),
    (("-H", "a:1,b:1", "--partition", "x"), "--partition is for --launcher slurm"),
])
def test_wrong_use(launch, words, message):
    env = {name: "" for name in ("SLURM_JOB_NODELIST", "PBS_NODEFILE")}
    done = launch("-n", "2", "-s", "1", "--launcher", "mpi", *words, "true", env=env)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1, done.err


def test_mpi_options_are_for_mpi(launch):
    done = launch("-n", "2", "-s", "1", "--mpi-option", "x", "true")
    assert done.code == 2 and "--mpi-option is for --launcher mpi" in done.err


def test_hosts_of_a_pbs_allocation(launch, tmp_path):
    (tmp_path / "nodes").write_text("n1\nn1\nn2\nn3\n")
    done = launch("-n", "4", "-s", "1", "--launcher", "mpi", "--mpirun", "true --flag", "--mpi-option", "--mca 'a b' c",
                  "--dry-run", "true", env={"PBS_NODEFILE": str(tmp_path / "nodes"), "SLURM_JOB_NODELIST": ""})
    assert done.code == 0, done.err
    assert re.search(r"^true --flag (--allow-run-as-root )?-n 3 -H n1,n2,n3 --map-by seq .* --mca 'a b' c ", done.out, re.M)
    assert re.findall(r"host (n\d)|# (worker \d)", done.out) == [
        ("n1", ""), ("", "worker 0"), ("", "worker 1"), ("n2", ""), ("", "worker 2"), ("n3", ""), ("", "worker 3")]
    assert not (tmp_path / "runs").exists()


def test_user_and_port_are_refused():
    with pytest.raises(LaunchError, match="put them into"):
        mpi.mpi_starter([Host("a", port=22)], None, mpi.MpiOptions(), {})


# ---- with it ----

@needs_mpirun
def test_a_job(mpi_job):
    job = mpi_job(UP + "print(os.getcwd(), sorted(n for n in os.environ if n.startswith(('OMPI', 'PMIX', 'GLUONZOO_J'))))\n"
                  "print(len(os.sched_getaffinity(0)))\nawait_file('go'); done()")
    job.await_files("up-0-0", "up-0-1")
    shown = b""
    for pid in job.running():
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            shown += file.read()
    with open(f"/proc/{mpirun_of(job)[0]}/environ", "rb") as file:
        secret = re.search(rb"GLUONZOO_JOIN=([^\0]+)", file.read()).group(1)
    assert secret not in shown and b"mpirun" in shown and b"dialer.py" in shown
    job.file("go").touch()
    done = job.finish()
    assert done.code == 0, done.err
    assert sorted(done.out.splitlines()) == sorted(
        line for i in (0, 1) for line in (f"[worker {i}] {job.folder} ['GLUONZOO_JOB_ID', 'GLUONZOO_JOB_WORKERS']",
                                          f"[worker {i}] {len(os.sched_getaffinity(0))}"))
    assert re.search(rf"2 workers on localhost, {socket.gethostname()}, scheduler port \d+; logs in logs", done.err)
    assert os.listdir(mpi_job.folder) == []


@needs_mpirun
def test_a_worker_that_fails_and_the_agents_stay(mpi_job):
    job = mpi_job("print('one')\nif RESTART == 0 and INDEX == 1: sys.exit(3)\n" + UP + "await_file('go'); done()",
                  "--max-restarts", "1")
    job.await_files("up-0-0")
    first = mpirun_of(job)
    job.await_files("up-1-0", "up-1-1")
    assert mpirun_of(job) == first and len(first) == 1
    job.file("go").touch()
    done = job.finish()
    assert done.code == 0 and "FAILED: worker 1 exited with code 3" in done.err and "restart 1 of 1" in done.err


@needs_mpirun
def test_an_agent_that_is_killed_is_started_again_alone(mpi_job):
    job = mpi_job(UP + "if RESTART == 0: time.sleep(60)\nawait_file('go'); done()", "--max-restarts", "1")
    job.await_files("up-0-0", "up-0-1")
    runs = mpirun_of(job)
    agents = children(runs[0])
    assert len(agents) == 2
    os.kill(agents[1], signal.SIGKILL)
    job.await_files("up-1-0", "up-1-1")
    again = mpirun_of(job)
    assert len(again) == 2 and runs[0] in again and children(runs[0]) == agents[:1]
    job.file("go").touch()
    done = job.finish(30)
    assert done.code == 0 and "restart 1 of 1" in done.err, done.err
    assert os.listdir(mpi_job.folder) == []


@needs_mpirun
def test_mpirun_that_is_killed_is_named_and_started_again(mpi_job):
    job = mpi_job(SLEEP, "--max-restarts", "1")
    job.await_files("up-0-0", "up-0-1")
    os.kill(mpirun_of(job)[0], signal.SIGKILL)
    done = job.finish(30)
    assert done.code == 0, done.err
    assert re.search(r"FAILED: host \S+ lost \(.*\): mpirun was killed by SIGKILL; ending the job", done.err), done.err


@needs_mpirun
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_the_launcher_ends(mpi_job, waiting, number, code):
    job = mpi_job(SLEEP)
    job.await_files("up-0-0", "up-0-1")
    job.popen.send_signal(number)
    assert job.popen.wait(20) == code
    waiting(lambda: job.running() == [], 10, "the end of all processes")


@needs_mpirun
def test_mpirun_that_does_not_work(mpi_job):
    done = mpi_job("done()", "--mpi-option", "--mca plm_rsh_agent /bin/false", hosts="no-such-host.invalid:2").finish(30)
    assert done.code == 2, done.err
    assert re.search(r"error: host no-such-host.invalid: mpirun ended with code \d+: ", done.err), done.err


RSH = """\
#!/bin/sh
# In the place of ssh: host names are network namespaces here. A name of its own, as mpirun's daemons tell hosts by it.
host=$1; shift
exec ip netns exec "$host" unshare --uts sh -c "hostname $host; $*"
"""


@pytest.fixture
def network(job, tmp_path):
    """start(worker, hosts, *options): mpirun on host 1 of a network, agents on others. network.net: the Network."""
    rsh, folder = tmp_path / "rsh", tmp_path / "net"
    rsh.write_text(RSH)
    rsh.chmod(0o755)
    folder.mkdir()
    session = tempfile.mkdtemp(prefix="gzmpi-")
    net = Network(folder, 3)

    def start(worker, hosts, *options):
        argv = job.command(worker, "-n", "2", "-s", "1", "--launcher", "mpi", "-H", ",".join(f"{host}:1" for host in hosts),
                           "--mpi-option", f"--mca plm_rsh_agent {rsh}", "--env", "GZ_TEST_DIR", "--env", "GZ_TEST_JOB",
                           *options)
        job.popen = subprocess.Popen(["ip", "netns", "exec", net.name(1), *argv], env=job.environ(TMPDIR=session),
                                     cwd=str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     stdin=subprocess.DEVNULL)
        job.began = time.monotonic()
    start.net = net
    yield start
    job.clean()
    net.close()
    shutil.rmtree(session, ignore_errors=True)


needs_network = pytest.mark.skipif(no_network() != "", reason=no_network() or "there is one")
HOSTNAME = "print(subprocess.run(['hostname'], stdout=subprocess.PIPE).stdout.decode().strip()); done()"


@needs_mpirun
@needs_network
def test_two_hosts(network, job):
    """The workers are on the hosts in the order of -H; between them all is encrypted."""
    hosts = [network.net.name(3), network.net.name(2)]
    network(HOSTNAME, hosts)
    done = job.finish(60)
    assert done.code == 0, done.err
    assert f"2 workers on {hosts[0]}, {hosts[1]}, scheduler port" in done.err and "encrypted between hosts" in done.err
    assert sorted(done.out.splitlines()) == [f"[worker {i}] {hosts[i]}" for i in (0, 1)]


@needs_mpirun
@needs_network
def test_a_host_that_is_gone_is_done_without(network, job, waiting):
    hosts = [network.net.name(2), network.net.name(3)]
    network(UP + "if RESTART == 0: time.sleep(60)\n" + HOSTNAME, hosts, "--min-workers", "1", "--max-restarts", "1",
            "--host-timeout", "2", "--connect-timeout", "8")
    job.await_files("up-0-0", "up-0-1")
    network.net.cut(3)
    out, err = (stream.decode() for stream in job.popen.communicate(timeout=60))
    assert job.popen.returncode == 0, err
    assert f"FAILED: host {hosts[1]} lost (worker 1): nothing was heard from it" in err
    assert f"host {hosts[1]} is left out: " in err
    assert "1 worker (2 were asked for) on " in err and f"[worker 0] {hosts[0]}" in out
    waiting(lambda: job.running() == [], 20, "the end of what the lost host still did")


@needs_mpirun
def test_a_real_training(tmp_path):
    session = tempfile.mkdtemp(prefix="gzmpi-")
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, os.path.join(ROOT, "launch", "launch.py"), "--launcher", "mpi", "-H", HOSTS, "-n", "2", "-s", "1",
             "--log-dir", str(tmp_path / "logs"), sys.executable, os.path.join(ROOT, "tools", "train.py"), "--model", "lenet5",
             "--dataset", "digits", "--epochs", "1", "--batch-size", "32", "--kvstore", "dist_sync", "--output",
             str(tmp_path / "run")], env={**os.environ, "PYTHONPATH": ROOT, "TMPDIR": session}, cwd=str(tmp_path),
            capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr + done.stdout
        assert "[worker 0] epoch 1/1" in done.stdout and "finished: 2 workers ended with code 0" in done.stderr
        assert float(re.search(r"val accuracy ([\d.]+)", done.stdout).group(1)) > 0.7, done.stdout
        assert time.monotonic() - began < 100
    finally:
        shutil.rmtree(session, ignore_errors=True)
