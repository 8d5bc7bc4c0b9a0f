"""Whole jobs: environment, output, failures, deadlines, restarts."""
import fcntl
import json
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

LIMIT = 10.0        # seconds from a failure to the launcher's exit, with defaults


def test_a_job_that_works(job):
    done = job.run("print('hello from', INDEX); done()")
    assert done.code == 0
    assert sorted(done.out.splitlines()) == ["[worker 0] hello from 0", "[worker 1] hello from 1"]
    first, last = done.err.splitlines()
    assert first.startswith("launch: 1 scheduler, 1 server, 2 workers on 127.0.0.1, scheduler port ")
    assert first.endswith("logs in logs") and last.startswith("launch: finished: 2 workers ended with code 0")
    assert sorted(os.listdir(str(job.log_dir))) == ["launch.log", "scheduler.log", "server-0.log", "worker-0.log",
                                                    "worker-1.log"]
    assert job.log("worker-1.log") == b"hello from 1\n" and job.log("launch.log").decode() == done.err


def test_logs_go_to_a_fresh_folder_by_default(job):
    done = job.run("done()", logs=False)
    assert done.code == 0
    folder = done.err.split("logs in ")[1].split("\n")[0]
    assert folder.startswith("runs/launch-") and os.path.exists(str(job.file(folder) / "worker-0.log"))


def test_environment_of_every_role(job):
    dump = "import json; print(json.dumps([dict(os.environ), sys.argv[1:], os.listdir('/proc/self/fd'), os.getsid(0)]))"
    stale = {"DMLC_ROLE": "server", "DMLC_NUM_WORKER": "9", "DMLC_LOCAL": "1", "PORT": "1", "GLUONZOO_BAR": "1",
             "GLUONZOO_RESTART": "7", "GLUONZOO_PROGRESS_FILE": "/x", "GZ_KEPT": "kept", "PYTHONPATH": "/mine"}
    done = job.run(dump + "; done()", "-n", "2", "-s", "2", "--env", "A=1", "--env-worker", "B=2", env=stale,
                   server=dump + "; wait_for_workers()")
    assert done.code == 0
    seen = {}
    for line in done.out.splitlines():
        name, _, text = line[1:].partition("] ")
        seen[name] = json.loads(text)
    assert sorted(seen) == ["scheduler", "server 0", "server 1", "worker 0", "worker 1"]
    port = seen["scheduler"][0]["DMLC_PS_ROOT_PORT"]
    for name, (env, arguments, fds, _) in seen.items():
        role, _, index = name.partition(" ")
        expected = {"DMLC_ROLE": role, "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": port,
                    "DMLC_NUM_WORKER": "2", "DMLC_NUM_SERVER": "2", "DMLC_NODE_HOST": "127.0.0.1",
                    "DMLC_INTERFACE": "lo"}
        assert {k: v for k, v in env.items() if k.startswith("DMLC_")} == expected
        assert env["GLUONZOO_LOCAL_WORKERS"] == "2" and env["GLUONZOO_ROLE_INDEX"] == (index or "0")
        assert env["GLUONZOO_RESTART"] == "0" and env["PYTHONUNBUFFERED"] == "1" and "GLUONZOO_BAR" not in env
        assert env["GZ_KEPT"] == "kept" and env["A"] == "1" and env.get("B") == ("2" if role == "worker" else None)
        assert len(fds) == 4, "0, 1, 2 and the folder being listed"
        assert env["PYTHONPATH"].endswith("/mine") and (env["PYTHONPATH"] == "/mine") == (role == "worker")
        assert arguments == ([] if role == "worker" else ["-m", "gluonzoo.distributed.server"])
        assert env.get("GLUONZOO_PROGRESS_FILE") == (
            str(job.log_dir / (f"worker-{index}.progress")) if role == "worker" else None)
        assert ("PORT" in env) == (role != "scheduler")
    assert int(seen["worker 0"][0]["PORT"]) < int(seen["worker 1"][0]["PORT"])
    assert int(seen["server 0"][0]["PORT"]) < int(seen["server 1"][0]["PORT"])
    assert len({one[3] for one in seen.values()}) == 5, "each role has a session of its own"


# ---- failures ----

def test_a_worker_that_exits_3(job):
    done = job.run("print('one'); print('two')\nif INDEX == 1: sys.exit(3)\ntime.sleep(60)")
    assert done.code == 3 and done.seconds < LIMIT
    report = done.err.splitlines()
    assert report[1].startswith("launch: FAILED: worker 1 exited with code 3 after ")
    assert "(host 127.0.0.1, pid " in report[1]
    assert report[2] == "launch: its last 2 lines (all in logs/worker-1.log):"
    assert report[3:] == ["    one", "    two"]


def test_a_worker_that_raises(job):
    done = job.run("step(41)\nif INDEX == 0: raise RuntimeError('boom')\ntime.sleep(60)")
    assert done.code == 1 and done.seconds < LIMIT
    assert "FAILED: worker 0 exited with code 1" in done.err and ", at step 41 (" in done.err
    assert "    RuntimeError: boom\n" in done.err
    assert "RuntimeError: boom" in job.log("worker-0.log").decode()


def test_a_worker_killed_by_a_signal(job):
    done = job.run("if INDEX == 1: os.kill(os.getpid(), signal.SIGSEGV)\ntime.sleep(60)")
    assert done.code == 128 + 11 and "FAILED: worker 1 was killed by SIGSEGV" in done.err
    assert "it printed nothing" in done.err


def test_wrong_use_is_told_shortly_and_not_repeated(job):
    done = job.run("if INDEX == 0: sys.exit(print('error: unknown model lenet6', file=sys.stderr) or 2)\n"
                   "time.sleep(60)", "--max-restarts", "3")
    assert done.code == 2 and done.seconds < LIMIT
    first, second = done.err.splitlines()
    assert second.startswith("launch: worker 0 exited with code 2 (wrong use)")
    assert second.endswith(": error: unknown model lenet6")


def test_code_2_later_is_a_failure(job):
    done = job.run("step(1)\nif INDEX == 0: sys.exit(2)\ntime.sleep(60)")
    assert done.code == 2 and "FAILED: worker 0 exited with code 2" in done.err


def test_only_the_last_lines_are_in_the_report(job):
    done = job.run("for i in range(100): print('line', i)\nsys.exit(INDEX and 5)\n")
    assert done.code == 5 and "its last 20 lines" in done.err
    assert [line for line in done.err.splitlines() if line.startswith("    ")] == [
        f"    line {i}" for i in range(80, 100)]


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_failure_is_named_and_who_followed(job, first):
    done = job.run(f"FIRST = {first}\n" + """
if INDEX == FIRST:
    with open(path("pid.new"), "w") as file: file.write(str(os.getpid()))
    os.rename(path("pid.new"), path("pid"))
    await_file("ready")
    os._exit(7)
await_file("pid")
stat = "/proc/%s/stat" % open(path("pid")).read()
sys.stdout.write("x" * 200000 + "\\n" * 100000)      # keeps the launcher busy when the deaths come
touch("ready")
try:
    while open(stat).read().split()[2] != "Z": time.sleep(.001)
except OSError:
    os._exit(9)
os._exit(9)
""")
    assert done.code == 7
    assert f"FAILED: worker {first} exited with code 7" in done.err
    assert f"others followed: worker {1 - first} exited with code 9" in done.err


@pytest.mark.parametrize("role, how, code, words", [
    ("server", "os.kill(os.getpid(), signal.SIGKILL)", 137, "was killed by SIGKILL"),
    ("server", "sys.exit(0)", 1, "exited with code 0"),
    ("scheduler", "sys.exit(1)", 1, "exited with code 1"),
    ("scheduler", "os.kill(os.getpid(), signal.SIGKILL)", 137, "was killed by SIGKILL"),
])
def test_a_server_or_scheduler_that_ends_early(job, role, how, code, words):
    done = job.run("time.sleep(60)",
                   server=f"print('my last words')\nif ROLE == {role!r}: time.sleep(.3); {how}\nwait_for_workers()")
    assert done.code == code and done.seconds < LIMIT
    name = "server 0" if role == "server" else role
    assert f"FAILED: {name} {words} while workers were running" in done.err
    assert "    my last words" in done.err


def test_servers_that_end_in_order_leave_the_workers_their_time(job):
    """As after ps-lite's own end: worker 0 still writes its export, longer than ORDERLY."""
    done = job.run("touch('over'); time.sleep(3 if INDEX == 0 else 0); print('exported')", server="await_file('over')")
    assert done.code == 0 and done.out.count("exported") == 2


def test_servers_that_do_not_end_by_themselves_are_ended_quietly(job):
    done = job.run("pass", server="time.sleep(60)")
    assert done.code == 0 and done.seconds < 8
    assert len(done.err.splitlines()) == 2 and "finished" in done.err


def test_a_server_that_fails_after_the_workers_is_noted_only(job):
    done = job.run("done()", server="wait_for_workers(); time.sleep(.3); os.abort()")
    assert done.code == 0 and "after the workers had finished" in done.err


def test_a_program_the_kernel_cannot_start(job):
    program = job.folder / "noshebang"
    program.write_bytes(b"\x00\x01\x02")
    program.chmod(0o755)
    argv = job.command("pass")[:-3] + [str(program)]
    done = subprocess.run(argv, env=job.environ(), cwd=str(job.folder), capture_output=True)
    assert done.returncode == 126 and job.running() == []
    assert b"FAILED: worker 0 could not be started: %s: Exec format error" % str(program).encode() in done.stderr
    assert b"Traceback" not in done.stderr


# ---- deadlines ----

def test_timeout_of_the_whole_job(job):
    done = job.run("while True: step(int(time.time() * 100)); print('busy'); time.sleep(.05)", "--timeout", "1.2",
                   "--max-restarts", "2")
    assert done.code == 124 and 1.2 < done.seconds < 5
    assert "FAILED: the job was not done after 1.2 s (--timeout)" in done.err and "worker 1 (pid " in done.err


def test_stall_of_reported_steps_output_does_not_count(job):
    """Worker 1 reports nothing and goes on printing: it does not hide that the others stand still."""
    done = job.run("if INDEX == 0:\n    for i in range(8): step(i); time.sleep(.1)\n"
                   "while True: print('still here'); step(7) if INDEX == 0 else 0; time.sleep(.05)",
                   "--stall-timeout", "1")
    assert done.code == 124 and 1.5 < done.seconds < 6
    assert "FAILED: no worker made progress for 1 s (--stall-timeout); the last was worker 0 at step 7" in done.err
    assert "worker 1 (pid " in done.err and "no step reported, last output 0." in done.err


def test_progress_keeps_a_job_alive(job):
    done = job.run("for i in range(10): step(i); time.sleep(.2)\ndone()", "--stall-timeout", "1.5",
                   "--startup-timeout", "1.5")
    assert done.code == 0


def test_stall_without_reports_counts_output(job):
    done = job.run("for i in range(6): print(i); time.sleep(.2)\ntime.sleep(60)", "--stall-timeout", "0.8")
    assert done.code == 124 and 1.8 < done.seconds < 6
    assert "no worker printed anything for 0.8 s (--stall-timeout)" in done.err


def test_a_job_that_never_starts(job):
    done = job.run("time.sleep(60)", "--startup-timeout", "0.7", server="print('servers do not count'); time.sleep(60)")
    assert done.code == 124 and done.seconds < 5
    assert "no worker printed anything or reported a step within 0.7 s of the start (--startup-timeout)" in done.err


@pytest.mark.parametrize("sign", ["print('up')", "step(0)"])
def test_output_or_a_step_is_a_start(job, sign):
    done = job.run(f"if INDEX == 1: {sign}\ntime.sleep(1.5); done()", "--startup-timeout", "1")
    assert done.code == 0


def test_an_old_progress_file_does_not_count(job):
    job.log_dir.mkdir()
    (job.log_dir / "worker-0.progress").write_text("99\n")
    done = job.run("time.sleep(60)", "--startup-timeout", "0.7")
    assert done.code == 124 and "startup-timeout" in done.err


# ---- restarts ----

def test_restart_on_a_fresh_port(job):
    done = job.run("print('attempt', RESTART, 'port', os.environ['DMLC_PS_ROOT_PORT'], sys.argv[1:])\n"
                   "if RESTART < 2 and INDEX == 1: sys.exit(4)\n"
                   "if RESTART < 2: time.sleep(60)\ndone()", "--max-restarts", "2")
    assert done.code == 0 and "restart 1 of 2" in done.err and "restart 2 of 2" in done.err
    lines = job.log("worker-0.log").decode().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("attempt")] == ["0", "1", "2"]
    assert len({line.split()[3] for line in lines if line.startswith("attempt")}) == 3
    assert sum(line.startswith("=== restart") for line in lines) == 2


def test_restarts_run_out(job):
    done = job.run("sys.exit(6) if INDEX else time.sleep(60)", "--max-restarts", "1")
    assert done.code == 6 and "giving up after 1 restart" in done.err and done.err.count("FAILED") == 2


def test_a_worker_that_says_it_would_fail_again_is_believed(job):
    done = job.run("sys.exit(65) if INDEX else time.sleep(60)", "--max-restarts", "3")
    assert done.code == 65 and "not starting again" in done.err and done.err.count("FAILED") == 1


def test_restart_on_the_port_that_was_asked_for(job):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    done = job.run("print(os.environ['DMLC_PS_ROOT_PORT'])\nif RESTART == 0: sys.exit(4)\ndone()",
                   "--max-restarts", "1", "--port", str(port))
    assert done.code == 0 and job.log("worker-1.log").decode().split("\n")[::2] == [str(port)] * 2


def test_a_start_may_take_longer_than_a_step(job):
    done = job.run("if RESTART: time.sleep(2.5)\nfor i in range(3): step(i); time.sleep(.3)\n"
                   "if RESTART == 0: sys.exit(3)\ndone()", "--max-restarts", "1", "--stall-timeout", "1.2")
    assert done.code == 0, done.err


def test_a_stall_is_restarted(job):
    done = job.run("step(1)\nif RESTART == 0: time.sleep(60)\ndone()", "--max-restarts", "1", "--stall-timeout", "0.6")
    assert done.code == 0 and "restart 1 of 1" in done.err


def test_a_scheduler_whose_port_was_taken_meanwhile_starts_again_for_free(job, waiting):
    job.start("print('restart', RESTART); await_file('taken'); time.sleep(.5); done()",
              server="if ROLE == 'scheduler' and not os.path.exists(path('taken')):\n"
                     "    with open(path('port.new'), 'w') as f: f.write(os.environ['DMLC_PS_ROOT_PORT'])\n"
                     "    os.rename(path('port.new'), path('port'))\n    await_file('taken'); sys.exit(1)\n"
                     "wait_for_workers()")
    job.await_files("port")
    port = int(job.file("port").read_text())
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", port))
        sock.listen(1)
        job.file("taken").write_text("")
        done = job.finish()
    assert done.code == 0 and "another program took the scheduler's port" in done.err
    assert "FAILED" not in done.err and "restart 1" not in done.out
    assert done.err.count("scheduler port") == 2 and done.err.count(f"scheduler port {port}") == 1


def test_a_scheduler_that_fails_by_itself_is_a_failure(job):
    done = job.run("time.sleep(60)", server="sys.exit(1) if ROLE == 'scheduler' else wait_for_workers()")
    assert done.code == 1 and "FAILED: scheduler exited with code 1" in done.err


def test_restarts_within_a_window(job):
    done = job.run("if RESTART < 3: time.sleep(.6); sys.exit(4)\ndone()", "-n", "1", "--max-restarts", "1",
                   "--restart-window", "0.5")
    assert done.code == 0 and "restart 1 of 1 within 0.5 s, 3 in all" in done.err


def test_too_many_restarts_within_a_window(job):
    done = job.run("sys.exit(4)", "-n", "1", "--max-restarts", "2", "--restart-window", "60")
    assert done.code == 4 and "giving up after 2 restarts within 60 s" in done.err


# ---- workers that may fail ----

def test_a_worker_that_may_fail(job):
    done = job.run("step(INDEX)\nif INDEX: await_file('go'); sys.exit(9)\n"
                   "touch('go'); time.sleep(1); print(os.environ['GLUONZOO_TOLERATE_WORKERS'])", "--tolerate-workers", "1",
                   server="time.sleep(60)")
    assert done.code == 0 and "[worker 0] 1" in done.out, done.err
    assert "worker 1 exited with code 9 after " in done.err and "; going on without it (1 of at most 1)" in done.err
    assert "FAILED" not in done.err and "finished: 1 worker ended with code 0 (1 had failed)" in done.err


def test_worker_0_may_not_fail(job):
    done = job.run("sys.exit(9) if INDEX == 0 else time.sleep(60)", "--tolerate-workers", "1")
    assert done.code == 9 and "FAILED: worker 0 exited with code 9" in done.err


# ---- output ----

def test_flood_of_output_is_complete(job):
    done = job.run("for i in range(60000): print(INDEX, i, 'x' * 100)\ndone()")
    assert done.code == 0
    lines = done.out.splitlines()
    for index in (0, 1):
        prefix = f"[worker {index}] "
        mine = [line[len(prefix):] for line in lines if line.startswith(prefix)]
        assert mine == [f"{index} {i} {'x' * 100}" for i in range(60000)]
        assert job.log(f"worker-{index}.log").decode().splitlines() == mine


def test_a_slow_reader_blocks_nobody_and_misses_nothing(job):
    job.start("for i in range(40000): print(i, 'y' * 300)\ntouch('written-%d' % INDEX); done()")
    job.await_files("written-0", "written-1")       # 24 MB are out though nobody has read a byte
    done = job.finish(40)
    assert done.code == 0 and len(done.out.splitlines()) == 80000


def test_bytes_that_are_not_text(job):
    done = job.run("if INDEX == 0: os.write(1, b'\\xff\\xfe\\x00 bad \\xc3\\n\\x80 no newline')\ndone()")
    assert done.code == 0
    assert sorted(done.stdout.split(b"\n")) == [b"", b"[worker 0] \x80 no newline", b"[worker 0] \xff\xfe\x00 bad \xc3"]
    assert job.log("worker-0.log") == b"\xff\xfe\x00 bad \xc3\n\x80 no newline"


def test_bad_bytes_in_a_report(job):
    done = job.run("os.write(2, b'caf\\xe9\\n'); os._exit(3)")
    assert done.code == 3 and b"    caf\xe9\n" in done.stderr


def test_very_long_lines(job):
    done = job.run("if INDEX == 0: print('z' * 5000000)\ndone()")
    shown = [line[len("[worker 0] "):] for line in done.out.splitlines()]
    assert done.code == 0 and "".join(shown) == "z" * 5000000 and job.log("worker-0.log") == b"z" * 5000000 + b"\n"


BAR = "for i in range(101):\n    sys.stderr.write('\\r%d%%' % i); sys.stderr.flush(); time.sleep(.002)\nprint()\n"


def test_bars_into_a_pipe_keep_their_last_state(job):
    done = job.run(BAR + "print('end'); done()")
    assert sorted(done.out.splitlines()) == ["[worker 0] 100%", "[worker 0] end", "[worker 1] 100%", "[worker 1] end"]
    assert b"\r50%" in job.log("worker-0.log")


def test_bars_on_a_terminal_are_drawn_in_place(job):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    seen = []

    def read():
        try:
            seen.extend(iter(lambda: os.read(master, 4096), b""))
        except OSError:
            return
    try:
        job.start(BAR + "print('bar', os.environ.get('GLUONZOO_BAR')); done()", stdout=slave, stderr=slave)
        os.close(slave)
        reader = threading.Thread(target=read)
        reader.start()
        done = job.finish()
        reader.join(10)
    finally:
        os.close(master)
    screen = b"".join(seen)
    assert done.code == 0
    assert b"\r\x1b[K[worker 0] 50%" in screen and b"[worker 1] 50%" not in screen
    assert b"[worker 0] 100%\r\n" in screen and b"[worker 1] 100%\r\n" in screen
    assert b"[worker 0] bar 1\r\n" in screen and b"[worker 1] bar None\r\n" in screen


def test_closed_standard_output_ends_the_job(job):
    job.start("while True: print('line'); time.sleep(.01)")
    assert job.popen.stdout.readline() == b"[worker 0] line\n" or True
    job.popen.stdout.close()
    job.popen.stdout = None
    done = job.finish()
    assert done.code == 141 and "nobody reads standard output any more" in done.err


def test_started_without_standard_files(job):
    job.start("print('x'); done()", stdout=None, stderr=None,
              preexec=lambda: [os.close(fd) for fd in (0, 1, 2)] and None)
    assert job.finish().code == 0
    assert job.log("worker-0.log") == b"x\n" and b"finished" in job.log("launch.log")


def test_a_full_disk_behind_standard_output(job):
    with open("/dev/full", "wb") as full:
        done = job.run("print('x'); time.sleep(.2); print('y'); done()", stdout=full)
    assert done.code == 0 and "cannot write to standard output: No space left on device" in done.err
    assert job.log("worker-0.log") == b"x\ny\n"


# ---- two at once ----

def test_two_launchers_at_once(jobs):
    both = [jobs().start("print(os.environ['DMLC_PS_ROOT_PORT'], os.environ['PORT']); time.sleep(.5); done()")
            for _ in range(2)]
    done = [one.finish() for one in both]
    assert [one.code for one in done] == [0, 0]
    chosen = [set(one.out.replace("[worker 0] ", "").replace("[worker 1] ", "").split()) for one in done]
    assert len(chosen[0]) == len(chosen[1]) == 3 and not chosen[0] & chosen[1]


def test_two_launchers_in_one_log_folder(job):
    job.start("print('up'); await_file('go'); done()")
    job.popen.stdout.readline()
    second = subprocess.run(job.command("pass"), env=job.environ(), cwd=str(job.folder), capture_output=True)
    job.command("await_file('go'); done()")
    job.file("go").write_text("")
    assert second.returncode == 2 and second.stderr.startswith(b"error: another launch.py is using the log folder")
    assert job.finish().code == 0


def test_it_waits_without_spending_time(job):
    job.start("step(1); touch('up-%d' % INDEX); await_file('go'); done()")
    job.await_files("up-0", "up-1")

    def cpu():
        ticks = 0
        for pid in (job.popen.pid, job.supervisor):
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    time.sleep(0.3)
    before, began = cpu(), time.monotonic()
    time.sleep(2)
    used, passed = cpu() - before, time.monotonic() - began
    job.file("go").write_text("")
    assert job.finish().code == 0
    assert used <= 0.01 * passed + 0.01     # one tick of the clock it is measured with


def test_the_name_of_the_python_is_the_commands(job):
    """Without --server-python, python as COMMAND runs the servers too; here it has no gluonzoo and says so."""
    (job.folder / "python").write_text("#!/bin/sh\nif [ \"$1\" = -m ]; then echo \"$2\"; exit 5; fi\nexec sleep 60\n")
    (job.folder / "python").chmod(0o755)
    from launch import launch
    argv = [sys.executable, launch.__file__, "-n", "1", "--log-dir", str(job.log_dir), "python", "x.py"]
    env = job.environ(PATH=str(job.folder) + ":" + os.environ["PATH"])
    done = subprocess.run(argv, env=env, cwd=str(job.folder), capture_output=True)
    assert done.returncode == 5 and b"gluonzoo.distributed.server" in done.stdout and job.running() == []
