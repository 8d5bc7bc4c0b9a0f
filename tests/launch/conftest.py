"""Real jobs without MXNet: small scripts as workers, a small script in the place of scheduler and servers."""
import os
import re
import signal
import subprocess
import sys
import time
import uuid

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LAUNCH = os.path.join(ROOT, "launch", "launch.py")
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

PRELUDE = """\
import os, signal, subprocess, sys, time
INDEX, RESTART = int(os.environ["GLUONZOO_ROLE_INDEX"]), int(os.environ["GLUONZOO_RESTART"])
HERE = os.environ["GZ_TEST_DIR"]
def path(name): return os.path.join(HERE, name)
def touch(name): open(path(name), "w").close()
def await_file(name):
    while not os.path.exists(path(name)): time.sleep(0.01)
def step(number):
    with open(os.environ["GLUONZOO_PROGRESS_FILE"] + ".new", "w") as file: file.write("%d\\n" % number)
    os.replace(file.name, os.environ["GLUONZOO_PROGRESS_FILE"])
def done(): touch("done-%d-%d" % (RESTART, INDEX))
"""

# What ps-lite's own processes do, seen from outside: they live until the workers are done, then end with 0.
SERVER = """\
import atexit
ROLE = os.environ["DMLC_ROLE"]
touch("%s-%d-%d-up" % (ROLE, RESTART, INDEX))
def wait_for_workers():
    while not all(os.path.exists(path("done-%d-%d" % (RESTART, i))) for i in range(int(os.environ["DMLC_NUM_WORKER"]))):
        time.sleep(0.02)
"""


def processes_of(marker):
    """Pids of the living processes that carry the marker in their environment."""
    wanted, found = ("GZ_TEST_JOB=" + marker).encode(), []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if wanted in file.read().split(b"\0"):
                        found.append(int(entry))
            except OSError:
                continue
    return found


def wait_for(condition, seconds=30.0, what="condition"):
    """Wait until ``condition()`` is true and return what it returned; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)


class Result:
    """A launcher that has ended."""

    def __init__(self, code, out, err, seconds):
        self.code, self.stdout, self.stderr, self.seconds = code, out, err, seconds
        self.out, self.err = out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


class Job:
    """One job in a folder of its own; ``start`` and ``finish`` it, or ``run`` it."""
    launcher = LAUNCH

    def __init__(self, folder):
        self.folder, self.marker = folder, uuid.uuid4().hex
        self.log_dir = folder / "logs"
        self.popen = self.began = None

    def script(self, name, text, first=""):
        """Write a script and return its path."""
        file = self.folder / name
        file.write_text(first + PRELUDE + text)
        file.chmod(0o755)
        return str(file)

    def environ(self, **more):
        env = {k: v for k, v in os.environ.items() if not re.match(r"(DMLC_|GLUONZOO_|PORT$)", k)}
        env.update(GZ_TEST_JOB=self.marker, GZ_TEST_DIR=str(self.folder), **more)
        return env

    def command(self, worker, *options, server="wait_for_workers()", logs=True):
        """The launcher's argv for workers and servers that run these lines of Python."""
        fake = self.script("server", SERVER + server + "\n", first=f"#!{sys.executable} -S\n")
        argv = [sys.executable, LAUNCH, "--server-python", fake]
        if logs:
            argv += ["--log-dir", str(self.log_dir)]
        if not any(option in ("-n", "--num-workers") for option in options):
            argv += ["-n", "2", "-s", "1"]
        return argv + list(options) + [sys.executable, "-S", self.script("worker.py", worker)]

    def start(self, worker, *options, env=None, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec=None, **more):
        self.began = time.monotonic()
        self.popen = subprocess.Popen(self.command(worker, *options, **more), env=self.environ(**(env or {})),
                                      cwd=str(self.folder), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                                      preexec_fn=preexec)
        return self

    def finish(self, seconds=60.0):
        """Wait for the launcher; nothing of the job may be left when it has ended."""
        try:
            out, err = self.popen.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            raise AssertionError(f"launcher still runs after {seconds:g} s") from None
        took = time.monotonic() - self.began
        assert processes_of(self.marker) == []
        return Result(self.popen.returncode, out or b"", err or b"", took)

    def run(self, worker, *options, seconds=60.0, **more):
        return self.start(worker, *options, **more).finish(seconds)

    def file(self, name):
        return self.folder / name

    def await_files(self, *names):
        for name in names:
            wait_for(self.file(name).exists, what=name)

    @property
    def supervisor(self):
        """Pid of the front's only child."""
        with open(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children") as file:
            return int(file.read().split()[0])

    def roles(self, *wanted):
        """Pids of the job's processes, other than the launcher's two, whose environment has all these words."""
        launcher, found = (self.popen.pid, self.supervisor), []
        for pid in self.running():
            with open(f"/proc/{pid}/environ") as file:
                if pid not in launcher and set(wanted) <= set(file.read().split("\0")):
                    found.append(pid)
        return found

    def log(self, name):
        return (self.log_dir / name).read_bytes()

    def running(self):
        return processes_of(self.marker)

    def clean(self):
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()
            for stream in (self.popen.stdout, self.popen.stderr):
                if stream:
                    stream.close()
        for _ in range(50):
            left = self.running()
            if not left:
                return
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)


@pytest.fixture
def job(tmp_path):
    """A job whose processes are gone after the test, whatever the test did."""
    made = Job(tmp_path)
    yield made
    made.clean()


@pytest.fixture
def jobs(tmp_path):
    """A maker of several such jobs."""
    made = []

    def make():
        folder = tmp_path / f"job{len(made)}"
        folder.mkdir()
        made.append(Job(folder))
        return made[-1]
    yield make
    for one in made:
        one.clean()


@pytest.fixture
def launch(tmp_path):
    """Run the launcher with these arguments in an empty folder; for runs that end at once."""
    def run(*arguments, env=None, module=False, cwd=None, preexec=None):
        argv = [sys.executable] + (["-m", "launch.launch"] if module else [LAUNCH]) + list(arguments)
        base = {k: v for k, v in os.environ.items() if not re.match(r"(DMLC_|GLUONZOO_|PORT$)", k)}
        if module:
            base["PYTHONPATH"] = ROOT
        began = time.monotonic()
        done = subprocess.run(argv, env={**base, **(env or {})}, cwd=str(cwd or tmp_path), stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=20, preexec_fn=preexec)
        return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - began)
    return run


@pytest.fixture
def waiting():
    """The function wait_for (test files cannot import this one)."""
    return wait_for
