"""Whatever is killed, nothing of the job is left."""
import fcntl
import os
import pty
import signal
import termios
import time

import pytest

UP = "touch('up-%d' % INDEX)\n"
DETACHED = """\
code = "import os, time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " \\
       "open(os.environ['GZ_TEST_DIR'] + '/%s-{}'.format(os.environ['GLUONZOO_ROLE_INDEX']), 'w'); time.sleep(100)"
quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
# a session of its own; an orphan of an orphan; nohup in a shell that ends; one that holds the pipe open
subprocess.Popen([sys.executable, "-S", "-c", code % "setsid"], start_new_session=True, **quiet)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: os.execv(sys.executable, [sys.executable, "-S", "-c", code % "double"])
    os._exit(0)
subprocess.call(["sh", "-c", 'nohup "$0" -S -c "$1" & exit 0', sys.executable, code % "nohup"], **quiet)
subprocess.Popen([sys.executable, "-S", "-c", code % "pipe"])
for name in ("setsid", "double", "nohup", "pipe"): await_file("%s-%d" % (name, INDEX))
"""
KINDS = ("setsid", "double", "nohup", "pipe")


def gone(job, waiting, seconds=10.0):
    began = time.monotonic()
    waiting(lambda: not job.running(), seconds, f"processes of the job: {job.running()}")
    return time.monotonic() - began


def test_ctrl_c(job):
    job.start(UP + "time.sleep(60)")
    job.await_files("up-0", "up-1")
    job.popen.send_signal(signal.SIGINT)
    done = job.finish(10)
    assert done.code == 130 and "received SIGINT; ending the job (once more to kill it at once)" in done.err
    assert "Traceback" not in done.err + done.out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_to_the_launcher(job, number):
    job.start(UP + "time.sleep(60)", "--max-restarts", "3")
    job.await_files("up-0", "up-1")
    job.popen.send_signal(number)
    done = job.finish(10)
    assert done.code == 128 + number and f"received {number.name}" in done.err and "restart" not in done.err


def test_workers_get_their_grace(job):
    job.start("signal.signal(signal.SIGTERM, lambda *_: (time.sleep(.5), print('saved', flush=True), os._exit(0)))\n"
              + UP + "time.sleep(60)")
    job.await_files("up-0", "up-1")
    job.popen.send_signal(signal.SIGTERM)
    done = job.finish(10)
    assert done.code == 143 and sorted(done.out.splitlines()) == ["[worker 0] saved", "[worker 1] saved"]


CHECKPOINT = """
def stop(*_):
    step(17); print('saved'); sys.stdout.flush(); time.sleep(.5); os._exit(0)
signal.signal(signal.SIGUSR1, stop)
"""


def test_sigterm_with_grace_is_a_stop_with_a_checkpoint(job):
    job.start(CHECKPOINT + UP + "time.sleep(60)", "--grace", "10", "--max-restarts", "2", server="time.sleep(60)")
    job.await_files("up-0", "up-1")
    job.popen.send_signal(signal.SIGTERM)
    done = job.finish(15)
    assert done.code == 143 and sorted(done.out.splitlines()) == ["[worker 0] saved", "[worker 1] saved"]
    assert "received SIGTERM; the workers have 10 s for a checkpoint (Ctrl-C to end them at once)" in done.err
    assert "stopped after a checkpoint at step 17" in done.err and "restart" not in done.err


def test_sigterm_without_grace_is_no_such_stop(job):
    job.start(CHECKPOINT + UP + "time.sleep(60)")
    job.await_files("up-0", "up-1")
    job.popen.send_signal(signal.SIGTERM)
    done = job.finish(15)
    assert done.code == 143 and done.out == "" and "received SIGTERM; ending the job" in done.err


def test_a_worker_that_does_not_know_the_signal(job):
    job.start(UP + "time.sleep(60)", "--grace", "10")
    job.await_files("up-0", "up-1")
    job.popen.send_signal(signal.SIGTERM)
    done = job.finish(15)
    assert done.code == 143 and done.seconds < 8
    assert "the workers did not all stop in order: worker 0 was killed by SIGUSR1, worker 1 was killed by" in done.err


def test_ctrl_c_ends_the_wait_for_a_checkpoint(job):
    job.start("signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n" + UP + "time.sleep(60)", "--grace", "30")
    job.await_files("up-0", "up-1")
    job.popen.send_signal(signal.SIGTERM)
    time.sleep(0.7)
    assert job.popen.poll() is None
    job.popen.send_signal(signal.SIGINT)
    done = job.finish(10)
    assert done.code == 143 and "worker 0, worker 1 did not stop within " in done.err


STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)\n"


def test_a_worker_that_ignores_sigterm_with_defaults(job):
    done = job.run(STUBBORN + "if INDEX == 1: time.sleep(.3); sys.exit(3)\ntime.sleep(60)")
    assert done.code == 3 and 5 < done.seconds < 10


def test_a_second_ctrl_c_kills_at_once(job):
    job.start(STUBBORN + UP + "time.sleep(60)", "--grace", "30")
    job.await_files("up-0", "up-1")
    job.popen.send_signal(signal.SIGINT)
    time.sleep(0.1)
    job.popen.send_signal(signal.SIGINT)        # the same press, sent on by a wrapper as well
    time.sleep(0.9)
    assert job.popen.poll() is None
    job.popen.send_signal(signal.SIGINT)
    began = time.monotonic()
    done = job.finish(10)
    assert done.code == 130 and time.monotonic() - began < 3


def test_ctrl_c_while_a_failed_job_is_ending(job):
    job.start(STUBBORN + UP + "sys.exit(3) if INDEX else time.sleep(60)", "--grace", "30", "--max-restarts", "5")
    assert job.popen.stderr.readline() and b"FAILED" in job.popen.stderr.readline()
    time.sleep(0.3)
    job.popen.send_signal(signal.SIGINT)
    done = job.finish(10)
    assert done.code == 3 and "restart" not in done.err


def test_ctrl_c_on_a_real_terminal(job):
    master, slave = pty.openpty()

    def take_terminal():
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    job.start(UP + "time.sleep(60)", stdout=slave, stderr=slave, preexec=take_terminal)
    os.close(slave)
    job.await_files("up-0", "up-1")
    os.write(master, b"\x03")
    done = job.finish(10)
    text = os.read(master, 1 << 16)
    os.close(master)
    assert done.code == 130 and b"received SIGINT" in text


def test_a_terminal_that_goes_away(job):
    master, slave = pty.openpty()

    def take_terminal():
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    job.start(UP + "time.sleep(60)", stdout=slave, stderr=slave, preexec=take_terminal)
    os.close(slave)
    job.await_files("up-0", "up-1")
    os.close(master)
    assert job.finish(10).code == 129


@pytest.mark.parametrize("delay", [0.03, 0.1, 0.2])
def test_ctrl_c_while_it_starts(job, waiting, delay):
    job.start("time.sleep(60)", "-n", "5", "-s", "2")
    time.sleep(delay)
    job.popen.send_signal(signal.SIGINT)
    code = job.finish(10).code
    if job.log_dir.exists():
        assert code == 130
    else:       # Python was still starting, and may say what it likes
        assert code in (130, -signal.SIGINT, 1)


def test_nohup_is_respected(job):
    job.start(UP + "await_file('go'); done()", preexec=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN) and None)
    job.await_files("up-0", "up-1")
    job.popen.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    job.file("go").write_text("")
    assert job.finish().code == 0


@pytest.mark.parametrize("victim", ["front", "supervisor", "group of the front"])
def test_sigkill_of_the_launcher(job, waiting, victim):
    job.start(DETACHED + UP + "time.sleep(60)", "--grace", "1", preexec=os.setpgrp)
    job.await_files("up-0", "up-1")
    assert len(job.running()) == 2 + 2 + 2 * (1 + len(KINDS))
    if victim == "front":
        os.kill(job.popen.pid, signal.SIGKILL)
    elif victim == "supervisor":
        os.kill(job.supervisor, signal.SIGKILL)
    else:
        os.killpg(job.popen.pid, signal.SIGKILL)
    gone(job, waiting, 10)
    done = job.finish(5)
    assert done.code == (137 if victim == "supervisor" else -9)
    if victim == "supervisor":
        assert "supervisor" in done.err and "killed by SIGKILL; ending the job" in done.err


def test_sigkill_of_the_supervisor_when_nobody_reads_its_errors(job, waiting):
    read_end, write_end = os.pipe()
    job.start(DETACHED + UP + "time.sleep(60)", "--grace", "1", stderr=write_end)
    os.close(write_end)
    job.await_files("up-0", "up-1")
    os.close(read_end)
    os.kill(job.supervisor, signal.SIGKILL)
    gone(job, waiting, 10)
    assert job.finish(5).code == 137


def test_sigkill_of_both_at_once_leaves_no_role(job, waiting):
    job.start(UP + "time.sleep(60)")
    job.await_files("up-0", "up-1")
    supervisor = job.supervisor
    os.kill(supervisor, signal.SIGSTOP)         # so that it cannot see the other go
    os.kill(job.popen.pid, signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    gone(job, waiting, 5)


def test_sigkill_of_the_launcher_while_it_starts(job, waiting):
    for delay in (0.05, 0.1, 0.15, 0.2):
        job.start("time.sleep(60)", "-n", "6", "-s", "2")
        time.sleep(delay)
        job.popen.kill()
        job.popen.communicate(timeout=15)
        gone(job, waiting, 10)


def test_detached_grandchildren_of_a_failed_job(job):
    done = job.run(DETACHED + UP + "if INDEX: await_file('up-0'); sys.exit(3)\ntime.sleep(60)", "--grace", "1")
    assert done.code == 3 and done.seconds < 10


def test_detached_grandchildren_of_a_finished_job(job):
    done = job.run(DETACHED + UP + "await_file('up-%d' % (1 - INDEX)); done()", "--grace", "1")
    assert done.code == 0 and "ending 8 processes left behind by the workers: " in done.err


def test_a_stopped_worker(job):
    job.start(UP + "if INDEX == 1: await_file('go'); sys.exit(3)\ntime.sleep(60)")
    job.await_files("up-0", "up-1")
    stopped, = job.roles("DMLC_ROLE=worker", "GLUONZOO_ROLE_INDEX=0")
    os.kill(stopped, signal.SIGSTOP)
    job.file("go").write_text("")
    done = job.finish(10)
    assert done.code == 3 and done.seconds < 5, "SIGCONT lets it take SIGTERM"


def test_a_stopped_worker_that_ignores_sigterm(job):
    done = job.run(STUBBORN + "if INDEX == 1: sys.exit(3)\nos.kill(os.getpid(), signal.SIGSTOP); time.sleep(60)",
                   "--grace", "1")
    assert done.code == 3 and done.seconds < 5


@pytest.mark.parametrize("role", ["server", "scheduler", "worker"])
def test_a_role_killed_from_outside(job, role):
    job.start(UP + "time.sleep(60)")
    job.await_files("up-0", "up-1", "server-0-0-up", "scheduler-0-0-up")
    victim = job.roles(f"DMLC_ROLE={role}")[0]
    os.kill(victim, signal.SIGKILL)
    done = job.finish(10)
    assert done.code == 137 and done.seconds < 10
    assert f"FAILED: {role}" in done.err and "was killed by SIGKILL" in done.err and f"pid {victim}" in done.err


def test_a_wrapper_script_and_its_child(job):
    """COMMAND is often a shell script: the worker proper is its child."""
    job.start("subprocess.call([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n", "--grace", "1")
    time.sleep(0.6)
    job.popen.send_signal(signal.SIGTERM)
    assert job.finish(10).code == 143


def test_children_of_the_program_that_became_the_launcher_stay(job):
    """`sh -c 'sleep & exec launch.py'`: the sleep is the launcher's child, but not of the job."""
    import subprocess
    argv = ["sh", "-c", 'sleep 30 & echo $! > sleep.pid; exec "$@"', "sh"] + job.command("done()")
    assert subprocess.run(argv, env=job.environ(), cwd=str(job.folder), stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, timeout=20).returncode == 0
    pid = int(job.file("sleep.pid").read_text())
    assert job.running() == [pid]
    os.kill(pid, signal.SIGKILL)
