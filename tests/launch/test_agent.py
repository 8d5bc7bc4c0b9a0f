"""A real agent and a small launcher: whatever happens to either, nothing is left on the agent's host."""
import fcntl
import hashlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid

from launch import agent_roles, bundle, facts, ports
from launch.channel import Channel
from launch.protocol import TO_LAUNCHER, checked
from launch.secure import JobKey
from launch.wire import MESSAGE, OUTPUT, Unpacker, message, pack

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
STUBBORN = """\
import os, signal, subprocess, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(100)"
def child(**more): subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.DEVNULL, **more)
child(); child(start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: child()
    os._exit(0)
print("up", flush=True)
time.sleep(100)
"""
UPS = 4                 # processes of STUBBORN that say "up"
GIVING_UP = 15.0        # seconds, on a machine that is busy


class Host:
    """An agent, and the launcher's end of its link."""

    def __init__(self, folder, argv, data=b"", env=None):
        self.folder, self.marker = folder, uuid.uuid4().hex
        self.tmp = folder / "tmp"
        self.tmp.mkdir(exist_ok=True)
        self.said, self.output, self.order = [], {}, []
        self._unpacker = Unpacker()
        env = {**os.environ, "GZ_TEST_JOB": self.marker, "TMPDIR": str(self.tmp), **(env or {})}
        env.pop("PYTHONUNBUFFERED", None)       # with it print("up") is two writes, between which others get in
        self.popen = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      cwd=str(folder), env=env)
        self.stdin, self.stdout = self.popen.stdin, self.popen.stdout
        self.write(data)

    def write(self, data):
        self.stdin.write(data)
        self.stdin.flush()

    def send(self, op, **fields):
        self.write(message(op, **fields))

    def read(self, seconds=0.0, limit=1 << 18):
        """Take in what there is; returns whether there was something."""
        fd = self.stdout.fileno()
        if not select.select([fd], [], [], seconds)[0]:
            return False
        data = os.read(fd, limit)
        for kind, index, payload in self._unpacker.feed(data):
            if kind == OUTPUT:
                self.output.setdefault(index, bytearray()).extend(payload)
                self.order.append(("output", index))
            else:
                assert kind == MESSAGE
                op, fields = checked(payload, TO_LAUNCHER)
                if op != "beat":
                    self.said.append((op, fields))
                self.order.append((op, fields.get("index")))
        return bool(data)

    def expect(self, wanted, seconds=GIVING_UP, **like):
        """Read until the agent says so; returns the fields."""
        deadline, seen = time.monotonic() + seconds, 0
        while True:
            for op, fields in self.said[seen:]:
                seen += 1
                if op == wanted and all(fields.get(name) == value for name, value in like.items()):
                    return fields
            assert time.monotonic() < deadline, f"no {wanted} {like} in {self.said}"
            self.read(0.1)

    def hello(self, timeout=20.0, **more):
        self.send("hello", version="1", host=0, timeout=timeout, key=None, listen=None, **more)
        return self.expect("ready")

    def start(self, index, code, worker=False, argv=None, env=None, cwd=None):
        self.send("start", index=index, role="worker" if worker else "server", env=env or {}, cwd=cwd, worker=worker,
                  argv=argv or [sys.executable, "-S", "-c", code])

    def await_output(self, index, text, count=1):
        deadline = time.monotonic() + GIVING_UP
        while self.output.get(index, b"").count(text) < count:
            assert time.monotonic() < deadline, (self.output, self.said)
            self.read(0.1)

    def end(self, grace=0.0):
        """End the attempt; returns what was left."""
        self.said = [(op, fields) for op, fields in self.said if op != "ended"]
        self.send("end", grace=grace)
        return self.expect("ended")["left"]

    def finish(self, seconds=GIVING_UP):
        """Wait for the agent, reading on; returns (exit code, standard error), nothing being left of it."""
        deadline = time.monotonic() + seconds
        while self.popen.poll() is None:
            assert time.monotonic() < deadline, f"the agent still runs after {seconds:g} s"
            if self.stdout.closed or not self.read(0.02):
                time.sleep(0.02)
        while not self.stdout.closed and self.read():
            continue
        self.await_nothing()
        return self.popen.returncode, self.popen.stderr.read().decode()

    def await_nothing(self, seconds=GIVING_UP):
        deadline = time.monotonic() + seconds
        while self.running() or os.listdir(str(self.tmp)):
            assert time.monotonic() < deadline, (self.running(), os.listdir(str(self.tmp)))
            time.sleep(0.02)

    def running(self):
        """Pids of all that carry this host's mark."""
        wanted, found = ("GZ_TEST_JOB=" + self.marker).encode(), []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/environ", "rb") as file:
                        if wanted in file.read().split(b"\0"):
                            found.append(int(entry))
                except OSError:
                    continue
        return found

    def hang_up(self):
        self.stdin.close()
        self.stdout.close()

    def clean(self):
        for stream in (self.stdin, self.stdout, self.popen.stdin, self.popen.stdout):
            try:
                stream.close()
            except OSError:
                continue
        deadline = time.monotonic() + 10
        while self.running() and time.monotonic() < deadline:
            for pid in self.running():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.02)
        self.popen.wait()
        self.popen.stderr.close()


@pytest.fixture
def agents(tmp_path):
    """A maker of agents that are gone after the test."""
    made = []

    def make(argv=None, data=b"", **more):
        folder = tmp_path / f"host{len(made)}"
        folder.mkdir()
        if argv is None:
            argv = [sys.executable, "-S", "-m", "launch.agent"]
            more["env"] = {**more.get("env", {}), "PYTHONPATH": ROOT}
        made.append(Host(folder, argv, data, **more))
        return made[-1]
    yield make
    for host in made:
        host.clean()


@pytest.fixture
def host(agents):
    """An agent that has been greeted."""
    made = agents()
    made.hello(grace=0.3)
    return made


# ---- what it says of its host ----

def test_ready_and_goodbye(agents):
    host = agents()
    ready = host.hello(cwd=ROOT)
    assert ready["hostname"] == socket.gethostname() and ready["python"] == sys.version.split()[0]
    assert ready["cpus"] == len(os.sched_getaffinity(0)) and abs(ready["time"] - time.time()) < 5
    assert 0 < ready["memory"]["available"] <= ready["memory"]["total"]
    assert "127.0.0.1" in ready["addresses"]["lo"] and "lo" in ready["interfaces"] and ready["channel_port"] is None
    with open(os.path.join(ROOT, "gluonzoo", "_version.py")) as file:
        assert f'"{ready["gluonzoo"]}"' in file.read() and ready["version"] == "1"
    host.send("bye")
    assert host.finish() == (0, "")


def test_which_gluonzoo_a_program_would_import(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert facts.facts(str(tmp_path))["gluonzoo"] == facts.facts()["gluonzoo"]
    (tmp_path / "gluonzoo").mkdir()
    (tmp_path / "gluonzoo" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "gluonzoo" / "_version.py").write_text("__version__ = '9.8'\n")
    assert facts.facts(None, [str(tmp_path)])["gluonzoo"] == facts.facts(str(tmp_path))["gluonzoo"] == "9.8"


def test_beats_come_by_themselves(agents):
    host = agents()
    host.hello(timeout=1.0)
    deadline = time.monotonic() + 1.6
    while time.monotonic() < deadline:
        host.read(0.1)
        host.send("beat")
    assert host.order.count(("beat", None)) >= 4


# ---- roles ----

def test_how_roles_end(host):
    codes = ["raise SystemExit(3)", "pass", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
             "import os; os.abort()", "import time; print('up', flush=True); time.sleep(100)"]
    for index, code in enumerate(codes):
        host.start(index, code)
    for index, code in enumerate([3, 0, -9, -6]):
        assert host.expect("started", index=index)["pid"] > 0
        assert 0 <= host.expect("exit", index=index, code=code)["ago"] < 5
    host.await_output(4, b"up\n")
    host.send("signal", indexes=[0, 4, 77], number=int(signal.SIGUSR1))
    host.expect("exit", index=4, code=-int(signal.SIGUSR1))
    assert host.end() == [] and not any(op in ("failed", "trouble") for op, _ in host.said)


def test_exits_are_told_in_the_order_of_deaths(host):
    for index in range(8):
        host.start(index, f"import time; time.sleep(1.0 - {index} * 0.1 - time.time() % 0.001)")
    for index in range(8):
        host.expect("exit", index=index)
    told = [(fields["index"], fields["ago"]) for op, fields in host.said if op == "exit"]
    assert len(told) == 8 and all(ago < 1 for _, ago in told)


def test_signals_reach_the_process_alone(host):
    code = ("import os, signal, subprocess, sys, time\n"
            "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(100)'])\n"
            "def stop(*_): os.write(1, b'child %r\\n' % child.poll()); os._exit(0)\n"
            "signal.signal(signal.SIGUSR1, stop); os.write(1, b'up\\n')\nwhile True: time.sleep(1)\n")
    host.start(0, code)
    host.await_output(0, b"up\n")
    host.send("signal", indexes=[0], number=int(signal.SIGUSR1))
    host.expect("exit", index=0, code=0)
    host.await_output(0, b"child None\n")
    assert host.end() == []


def test_environment_input_and_folder(agents, tmp_path):
    host = agents(env={"DMLC_ROLE": "stale", "DMLC_OTHER": "stale", "PORT": "1", "GLUONZOO_BAR": "1", "KEPT": "yes",
                       "GLUONZOO_AGENT_KEY": "secret"})
    host.hello()
    code = ("import os, sys; print(sorted((k, os.environb[k.encode()]) for k in os.environ if k[:4] in ('DMLC', 'PORT', "
            "'GLUO', 'KEPT', 'MINE') and k != 'GLUONZOO_DATA'), os.getcwd(), sys.stdin.read() == '', "
            "os.getsid(0) == os.getpid(), len(os.listdir('/proc/self/fd')))")
    host.start(0, code, env={"DMLC_ROLE": "server", "MINE": os.fsdecode(b"\xff ' \n")}, cwd=str(tmp_path))
    host.expect("exit", index=0, code=0)
    assert host.output[0].decode() == (f"[('DMLC_ROLE', b'server'), ('KEPT', b'yes'), ('MINE', b\"\\xff ' \\n\")] "
                                       f"{tmp_path} True True 4\n")


@pytest.mark.parametrize("change, code, words", [
    ({"cwd": "/nowhere/at all"}, 126, "cannot work in the folder '/nowhere/at all': No such file or directory"),
    ({"cwd": "/etc/passwd"}, 126, "cannot work in the folder '/etc/passwd': Not a directory"),
    ({"cwd": "a\0b"}, 126, "cannot work in the folder"),
    ({"argv": ["no-such-program-anywhere"]}, 127, "'no-such-program-anywhere' not found in PATH"),
    ({"argv": ["/no/such/program"]}, 127, "'/no/such/program' not found"),
    ({"argv": ["/etc/passwd"]}, 126, "'/etc/passwd' is not executable"),
    ({"argv": ["/etc"]}, 126, "'/etc' is a folder"),
    ({"argv": [""]}, 126, "empty"),
    ({"argv": ["true", "a\0b"]}, 126, "null byte"),
    ({"argv": ["true", "\ud812"]}, 126, "could not be started"),
    ({"argv": ["true"], "env": {"A=B": "C"}}, 126, "could not be started"),
    ({"argv": ["true", "x" * 200000]}, 126, "too long"),
])
def test_what_cannot_be_started(host, change, code, words):
    host.start(5, "pass", **change)
    failed = host.expect("failed", index=5)
    assert failed["code"] == code and words in failed["why"] and "\n" not in failed["why"]
    host.start(5, "print('next')")
    host.expect("exit", index=5, code=0)


def test_no_room_for_steps(host):
    host.tmp.rmdir()
    host.start(0, "pass", worker=True)
    failed = host.expect("failed", index=0, code=126)
    assert failed["why"] == f"cannot make a file for its steps in {host.tmp} (TMPDIR): No such file or directory"
    host.tmp.mkdir()


def test_a_number_that_is_taken(host):
    host.start(0, "import time; print('up', flush=True); time.sleep(100)")
    host.await_output(0, b"up\n")
    host.start(0, "pass")
    assert "number 0" in host.expect("failed", index=0)["why"]
    assert host.end() == []


# ---- output ----

def test_much_output_arrives_whole_and_in_order(host):
    code = ("import hashlib, os, sys\nsize, seed, sha = {size}, {seed}, hashlib.sha256()\n"
            "piece = bytes((7 * i + seed) % 256 for i in range(1 << 16))\n"
            "while size > 0:\n    data = (b'%d\\n' % size + piece)[:size]\n    sha.update(data); size -= len(data)\n"
            "    while data: data = data[os.write(1 + size % 2, data):]\n"
            "open(sys.argv[1], 'w').write(sha.hexdigest())\n")
    sizes = {0: 50_000_000, 1: 3_000_001, 2: 1}
    for index, size in sizes.items():
        host.start(index, "", argv=[sys.executable, "-S", "-c", code.format(size=size, seed=index),
                                    str(host.folder / f"sum{index}")])
    for index in sizes:
        host.expect("exit", 60, index=index, code=0)
    for index, size in sizes.items():
        assert len(host.output[index]) == size and hashlib.sha256(
            host.output[index]).hexdigest() == (host.folder / f"sum{index}").read_text()
        assert host.order.index(("exit", index)) > max(i for i, what in enumerate(host.order) if what == ("output", index))


def memory_of(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_slow_reader_makes_the_roles_wait_and_nothing_else(agents):
    host = agents()
    pid = host.hello()["pid"]
    code = "import os\nfor _ in range(1000): os.write(1, b'x' * 65536)\n"
    host.start(0, code)
    time.sleep(1.0)
    assert memory_of(pid) < 45_000_000          # of 65 MB
    host.start(1, "print('last words'); raise SystemExit(4)")
    host.expect("exit", index=1, code=4)
    assert len(host.output.get(0, b"")) < 20_000_000 and host.output[1] == b"last words\n"
    before = len(host.order)
    time.sleep(2.2)                             # a beat of the agent's is due, and 8 MB are waiting
    for _ in range(8):
        host.read(0.5, 65536)
    assert ("beat", None) in host.order[before:]
    host.expect("exit", index=0, code=0)
    assert host.output[0] == b"x" * 65536000


def test_nothing_waits_for_a_reader_at_the_end(agents):
    host = agents()
    host.hello(timeout=1.0, grace=0.2)
    host.start(0, "import os, signal\nsignal.signal(15, 1)\nwhile True: os.write(1, b'x' * 65536)\n")
    host.expect("started")
    deadline = time.monotonic() + GIVING_UP
    while host.popen.poll() is None:            # neither reads nor beats
        assert time.monotonic() < deadline
        time.sleep(0.05)
    host.await_nothing()


def test_what_a_role_leaves_behind_prints_on(host):
    host.start(0, "import subprocess, sys\nsubprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(.4); "
                  "print(\"later\")'])\nprint('first', flush=True)\n")
    host.expect("exit", index=0, code=0)
    assert host.output[0] == b"first\n"
    host.await_output(0, b"first\nlater\n")


# ---- steps ----

def test_progress(host):
    code = ("import os, sys, time\nfile = os.environ['GLUONZOO_PROGRESS_FILE']\n"
            "def step(text):\n    open(file + '.new', 'w').write(text); os.replace(file + '.new', file)\n"
            "print(file, flush=True); step('1\\n'); time.sleep(1.4); step('2 of many'); time.sleep(1.2); step('3')\n")
    host.start(7, code, worker=True)
    host.start(8, "import os; print(os.environ.get('GLUONZOO_PROGRESS_FILE'))")
    host.expect("exit", index=7, code=0)
    steps = [fields["text"] for op, fields in host.said if op == "progress"]
    assert steps == ["1", "2 of many", "3"] and host.output[8] == b"None\n"
    assert host.order.index(("exit", 7)) > max(i for i, what in enumerate(host.order) if what == ("progress", 7))
    folder = os.path.dirname(host.output[7].decode().strip())
    assert os.stat(folder).st_mode & 0o777 == 0o700 and os.path.dirname(folder) == str(host.tmp)
    host.end()
    host.start(7, "", argv=[sys.executable, "-S", "-c", "import os; assert not os.path.exists(os.environ["
                                                        "'GLUONZOO_PROGRESS_FILE'])"], worker=True)
    host.said.clear()
    host.expect("exit", index=7, code=0)
    host.send("bye")
    host.finish()
    assert os.listdir(str(host.tmp)) == []


def test_folders_of_agents_that_could_not_clean_up(agents, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    one, two = (agents(env={"TMPDIR": str(shared)}) for _ in range(2))
    code = "import os, time; print(os.path.dirname(os.environ['GLUONZOO_PROGRESS_FILE']), flush=True); time.sleep(100)"
    for name in ("gluonzoo-agent-0", "other"):
        (shared / name).mkdir()
        (shared / name / "0.progress").write_text("7")
    folders = []
    for host in (one, two):
        host.hello(grace=0)
        host.start(0, code, worker=True)
        host.await_output(0, b"\n")
        folders.append(os.path.basename(host.output[0].decode().strip()))
    assert sorted(os.listdir(str(shared))) == sorted(["other", *folders])
    for pid in one.running():
        os.kill(pid, signal.SIGKILL)
    two.send("bye")
    two.finish()
    assert sorted(os.listdir(str(shared))) == sorted(["other", folders[0]])


# ---- ending ----

def test_end_ends_everything_and_the_agent_stays(host):
    for _ in range(2):
        host.output.clear()
        host.start(0, STUBBORN)
        host.start(1, "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit('saved'))\n"
                      "print('up', flush=True)\ntime.sleep(100)")
        host.await_output(0, b"up\n", UPS)
        host.await_output(1, b"up\n")
        host.said.clear()
        began = time.monotonic()
        assert host.end(0.5) == []
        assert 0.5 <= time.monotonic() - began < 5
        host.expect("exit", index=0, code=-9)
        host.expect("exit", index=1, code=1)
        assert host.output[1] == b"up\nsaved\n" and host.order[-1] == ("ended", None)
        assert len(host.running()) == 2         # the agent and its keeper
    host.send("bye")
    assert host.finish() == (0, "")


def test_a_second_end_is_a_hurry(host):
    host.start(0, STUBBORN)
    host.await_output(0, b"up\n", UPS)
    began = time.monotonic()
    host.send("end", grace=60)
    time.sleep(0.3)
    host.send("end", grace=0)
    host.expect("ended")
    assert time.monotonic() - began < 5 and host.end() == []


def run_stubborn(host, channels=0):
    host.output.clear()
    host.start(0, STUBBORN, worker=True)
    host.await_output(0, b"up\n", UPS)
    assert len(host.running()) == UPS + 2 + channels and os.listdir(str(host.tmp))


def test_the_link_ends(host):
    run_stubborn(host)
    host.hang_up()
    code, err = host.finish()
    assert code == 1 and err == "gluonzoo agent: the link to the launcher ended; ending\n"


def test_no_long_grace_without_a_launcher(agents, monkeypatch):
    # The agent's own limit is 10 s: ship one with less.
    monkeypatch.setattr(bundle, "_source", lambda name, real=bundle._source: (real(name) or "").replace(
        "LONGEST = 10.0", "LONGEST = 0.3") or None)
    bundle._needed.cache_clear()
    host = agents(bundle.command(sys.executable), bundle.payload())
    bundle._needed.cache_clear()
    host.hello(grace=3600.0)
    run_stubborn(host)
    host.send("end", grace=3600.0)
    time.sleep(0.6)
    assert len(host.running()) == UPS + 2
    host.hang_up()
    assert host.finish()[0] == 1


def test_only_its_input_ends(host):
    host.start(0, "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit('saved'))\nprint('up', flush=True)\n"
                  "time.sleep(100)")
    host.await_output(0, b"up\n")
    host.stdin.close()
    host.expect("exit", index=0, code=1)
    assert host.finish()[0] == 1 and host.output[0] == b"up\nsaved\n"


def test_a_silent_launcher(agents):
    host = agents()
    host.hello(timeout=1.0, grace=0.2)
    run_stubborn(host)
    host.send("beat")
    began = time.monotonic()
    code, err = host.finish()
    assert code == 1 and err == "gluonzoo agent: nothing was heard from the launcher for 1 s; ending\n"
    assert 0.9 < time.monotonic() - began < 6


def test_an_agent_that_was_stopped_reads_what_came_meanwhile(agents):
    host = agents()
    pid = host.hello(timeout=1.0)["pid"]
    os.kill(pid, signal.SIGSTOP)
    for _ in range(8):
        time.sleep(0.2)
        host.send("beat")
    os.kill(pid, signal.SIGCONT)
    host.start(0, "print('fine')")
    host.expect("exit", index=0, code=0)


@pytest.mark.parametrize("moment", ["open", "flock"])
def test_a_folder_that_another_agent_sweeps_away_is_made_again(tmp_path, monkeypatch, moment):
    path, real = str(tmp_path / "gluonzoo-agent-x"), {"open": os.open, "flock": fcntl.flock}
    swept = []

    def late(*arguments):
        if not swept:
            swept.append(os.rmdir(path))
        return real[moment](*arguments)
    monkeypatch.setattr(os if moment == "open" else fcntl, moment, late)
    os.close(agent_roles._make_folder(path))
    assert swept and os.path.isdir(path)


def test_an_agent_that_stays_stopped_is_ended_with_its_roles(agents):
    host = agents()
    pid = host.hello(timeout=1.0)["pid"]
    run_stubborn(host)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    code, err = host.finish()
    assert code == 137 and f"(pid {pid}) did nothing for" in err
    assert time.monotonic() - began > 2.0      # The launcher's patience and a little more.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("which", ["agent", "keeper"])
def test_signals_to_the_agent(agents, number, which):
    host = agents()
    pid = host.hello(grace=0.3)["pid"]
    run_stubborn(host)
    os.kill(pid if which == "agent" else host.popen.pid, number)
    code, err = host.finish()
    assert code == 128 + number and err == f"gluonzoo agent: received {number.name}; ending\n"
    host.expect("exit", index=0, code=-9)


@pytest.mark.parametrize("link", ["there", "gone"])
def test_the_agent_is_killed(agents, link):
    host = agents()
    pid = host.hello()["pid"]
    run_stubborn(host)
    if link == "gone":
        os.kill(pid, signal.SIGSTOP)
        host.hang_up()
        host.popen.stderr.close()
        host.popen.stderr = open(os.devnull, "rb")
    os.kill(pid, signal.SIGKILL)
    code, err = host.finish()
    assert code == 137 and (link == "gone" or "was killed by SIGKILL" in err)


def test_the_keeper_is_killed(host):
    run_stubborn(host)
    host.popen.kill()
    host.expect("exit", index=0, code=-9)
    host.await_nothing()


@pytest.mark.parametrize("data, words", [
    (b"GET / HTTP/1.0\r\n\r\n", "expected a frame, received b'GET / HTTP/1.0"),
    (pack(MESSAGE, 0, b"{"), "not JSON"),
    (pack(OUTPUT, 0, b"x"), "only agents send"),
    (message("format_disk"), "'format_disk', which is unknown"),
    (message("__init__"), "unknown"),
    (message("start", index=0), "without 'role'"),
    (message("end", grace="now"), "'grace' cannot be 'now'"),
    (message("end", grace=1.0, force=True), "with 'force'"),
    (message("end", grace=-1), "'grace' cannot be -1"),
    (message("ports", ports=[0], own=[]), "'ports' cannot be list"),
    (message("signal", indexes=[True], number=9), "'indexes'"),
    (message("hello", version="1", host=0, timeout=0, key=None, listen=None), "'timeout' cannot be 0"),
    (message("start", index=1, role="worker", argv=[], env={}, cwd=None, worker=True), "'argv'"),
    (message("start", index=1, role="worker", argv=["x"], env={"A": 1}, cwd=None, worker=True), "'env'"),
    (message("routes", routes=[[1, "a", 2]], serve=[]), "'routes'"),
])
def test_nonsense_on_the_link(host, data, words):
    host.start(0, "import time; print('up', flush=True); time.sleep(100)")
    host.await_output(0, b"up\n")
    host.write(data)
    code, err = host.finish()
    assert code == 1 and words in err and err.count("\n") == 1 and "Traceback" not in err
    assert words in host.expect("trouble", about="link", fatal=True)["text"]
    host.expect("exit", index=0, code=-15)


def test_a_file_is_no_link(tmp_path):
    with open(os.devnull) as null:
        done = subprocess.run([sys.executable, "-S", "-m", "launch.agent"], stdin=null, capture_output=True, timeout=20,
                              env={**os.environ, "PYTHONPATH": ROOT})
    assert done.returncode == 2 and b"neither a pipe nor a socket" in done.stderr and done.stdout == b""


# ---- ports ----

def test_ports_are_kept_from_others(agents):
    one, two = agents(), agents()
    for host in (one, two):
        host.hello()
    with ports.reserve("127.0.0.1", 3) as found:
        free, busy, bound = found.ports
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", bound))
        listener.listen()
        one.send("ports", ports=[free, busy, bound], own=[busy])
        assert one.expect("ports")["taken"] == [bound]
        two.send("ports", ports=[busy], own=[free])
        assert two.expect("ports")["taken"] == sorted([free, busy])
    assert ports.is_free("127.0.0.1", free)                     # locked, not listened on
    one.said.clear()
    one.send("ports", ports=[free, bound], own=[])
    assert one.expect("ports")["taken"] == []
    two.said.clear()
    two.send("ports", ports=[busy, bound], own=[])              # the first is free again
    assert two.expect("ports")["taken"] == [bound]
    one.end()
    two.said.clear()
    two.send("ports", ports=[free, busy, bound], own=[])
    assert two.expect("ports")["taken"] == []


def test_more_ports_than_files(agents):
    host = agents()
    pid = host.hello()["pid"]
    if sys.version_info < (3, 9) and shutil.which("prlimit") is None:
        pytest.skip("no prlimit here")
    subprocess.run(["prlimit", "--pid", str(pid), "--nofile=40:40"], check=True)
    host.send("ports", ports=list(range(20001, 20101)), own=[])
    trouble = host.expect("trouble", about="ports", fatal=True)
    assert "Too many open files (ulimit -n)" in trouble["text"]


def test_no_tunnels_without_a_key(host):
    host.send("routes", routes=[], serve=[])
    host.expect("routed")
    host.send("routes", routes=[[31001, "127.0.0.1", 4000, 1]], serve=[])
    host.expect("trouble", about="routes", fatal=True)


# ---- connections between hosts ----

def greet_with_key(host, key):
    host.said.clear()
    host.send("hello", version="1", host=3, timeout=20.0, key=key, listen=["127.0.0.1", 0], grace=0.3)
    return host.expect("ready")["channel_port"]


def test_tunnels(host):
    key = JobKey.create().pack()
    channel_port = greet_with_key(host, key)
    with socket.create_connection(("127.0.0.1", channel_port)) as stranger:
        stranger.sendall(b"x" * 1000)
        stranger.settimeout(0.3)
        with pytest.raises((socket.timeout, ConnectionError)):
            assert stranger.recv(1) == b"" and raised()
    with ports.reserve("127.0.0.1", 3) as found:
        here, there, closed = found.ports
    host.send("routes", routes=[[here, "127.0.0.1", closed, 1], [there, "127.0.0.1", closed, 1]], serve=[closed])
    host.expect("routed")
    assert not ports.is_free("127.0.0.1", here) and not ports.is_free("127.0.0.1", there)
    run_stubborn(host, 1)
    assert host.end() == [] and ports.is_free("127.0.0.1", here) and len(host.running()) == 3
    assert greet_with_key(host, JobKey.create().pack()) == channel_port         # the port stays, the key does not
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", there))
        listener.listen()
        host.send("routes", routes=[[here, "127.0.0.1", closed, 1], [there, "127.0.0.1", closed, 1]], serve=[])
        assert host.expect("trouble", about="routes", fatal=True)["port"] == there
    host.hang_up()
    assert host.finish()[0] == 1


def raised():
    """The connection was closed: as good as no answer."""
    raise ConnectionError


def test_a_key_that_is_none(host):
    host.send("hello", version="1", host=3, timeout=20.0, key="no key at all", listen=["127.0.0.1", 0])
    assert "no key at all" not in host.expect("trouble", about="hello", fatal=True)["text"]


def test_the_channel_is_killed(host):
    greet_with_key(host, JobKey.create().pack())
    channel, = [pid for pid in host.running() if "launch/channel" in command_of(pid) or len(command_of(pid).split("\0")) > 5]
    os.kill(channel, signal.SIGKILL)
    host.expect("trouble", about="channel", fatal=True)
    assert greet_with_key(host, JobKey.create().pack()) and host.end() == []


def test_the_channel_is_stopped(host):
    """A channel that does not answer is replaced at the end of the attempt."""
    key = JobKey.create().pack()
    greet_with_key(host, key)
    channel, = [pid for pid in host.running() if "launch/channel" in command_of(pid) or len(command_of(pid).split("\0")) > 5]
    os.kill(channel, signal.SIGSTOP)
    assert host.end() == [] and channel not in host.running()
    assert greet_with_key(host, JobKey.create().pack())
    with ports.reserve("127.0.0.1", 2) as found:
        here, there = found.ports
    host.send("routes", routes=[[here, "127.0.0.1", there, 1]], serve=[there])
    host.expect("routed")


def command_of(pid):
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read()


@pytest.mark.parametrize("ending", ["bye", "launcher gone", "agent killed"])
def test_an_agent_that_dials_in(agents, ending):
    key = JobKey.create().pack()
    with Channel().start() as channel:
        channel.send(op="key", key=key)
        channel.send(op="listen", host="127.0.0.1", port=0, index=0)
        port = channel.receive(GIVING_UP)[0]["port"]
        channel.send(op="accept", target="control")
        dial = {"address": ["127.0.0.1", port], "target": "control", "timeout": 10}
        host = agents(bundle.command(sys.executable), bundle.payload("launch.agent", dial=dial),
                      env={"GLUONZOO_AGENT_KEY": key})
        event, fd = channel.receive(GIVING_UP)
        assert event["event"] == "accepted"
        host.stdin, host.stdout = os.fdopen(os.dup(fd), "wb"), os.fdopen(fd, "rb", 0)
        pid = host.hello(grace=0.3)["pid"]
        greet_with_key(host, key)
        greet_with_key(host, JobKey.create().pack())
        run_stubborn(host, 1)
        host.start(1, "import os; print('GLUONZOO_AGENT_KEY' in os.environ)")
        host.expect("exit", index=1, code=0)
        assert host.output[1] == b"False\n" and host.end(0.1) == []
        run_stubborn(host, 1)
        if ending == "bye":
            host.send("bye")
        elif ending == "agent killed":
            os.kill(pid, signal.SIGKILL)
        else:
            channel.close()
            host.hang_up()
        assert host.finish()[0] == {"bye": 0, "agent killed": 137, "launcher gone": 1}[ending]


def test_a_launcher_that_is_not_there(agents):
    with ports.reserve("127.0.0.1", 1) as found:
        dial = {"address": ["127.0.0.1", found.ports[0]], "target": "control", "timeout": 0.5}
        host = agents(bundle.command(sys.executable), bundle.payload("launch.agent", dial=dial),
                      env={"GLUONZOO_AGENT_KEY": JobKey.create().pack()})
        code, err = host.finish()
    assert code == 1 and "no answer" not in err and f"cannot reach the launcher at 127.0.0.1 port {found.ports[0]}" in err


# ---- from memory ----

@pytest.mark.parametrize("flags", [["-I"], ["-I", "-S"]])
def test_shipped_to_an_empty_folder(agents, flags, tmp_path):
    python, _, *rest = bundle.command(sys.executable)
    host = agents([python, *flags, *rest], bundle.payload(), env={"PYTHONPATH": "", "HOME": str(tmp_path)})
    host.hello(grace=0.3)
    host.start(0, "print('from afar')", worker=True)
    host.expect("exit", index=0, code=0)
    assert host.output[0] == b"from afar\n"
    run_stubborn(host)
    host.hang_up()
    assert host.finish()[0] == 1


def test_a_crash_shows_where(agents):
    host = agents(bundle.command(sys.executable), bundle.payload("launch.agent", dial="nonsense"),
                  env={"GLUONZOO_AGENT_KEY": "secret"})
    code, err = host.finish()
    assert code == 70 and "<gluonzoo>/launch/agent.py" in err and "self._tunnels.dial(key, **dial)" in err
    assert "secret" not in err
