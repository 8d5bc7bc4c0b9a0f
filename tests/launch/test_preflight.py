"""``launch.py check``: real agents on stand-in hosts, each with something missing, and what is said about it.

In the place of ssh stands a script that runs the command here, or in a network namespace of that host's name.
"""
import json
import os
import shutil
import subprocess
import sys
import time

from launch import findings
from launch.findings import Findings, judge
from launch.preflight import Wanted
from launch.spec import Host

import pytest

SSH = """\
#!/bin/sh
previous=; for last; do host=$previous; previous=$last; done
case "$host" in
    closed) echo "ssh: connect to host closed port 22: Connection refused" >&2; exit 255;;
    denied) echo "me@denied: Permission denied (publickey)." >&2; exit 255;;
    slow) sleep 60;;
esac
if [ -n "$GZ_TEST_NETS" ]; then exec ip netns exec "$GZ_TEST_NETS$host" sh -c "$last"; fi
exec sh -c "$last"
"""
# A Python that believes something else of its machine. The agent's command is: python -I -c PROGRAM.
ODD_PYTHON = """\
#!/bin/sh
if [ "$1" = -I ]; then exec {python} -I -c "{words};$3"; fi
exec {python} "$@"
"""


class Checker:
    def __init__(self, job):
        self.job, self.folder = job, job.folder
        self.ssh = self.script("ssh", SSH)

    def script(self, name, text):
        file = self.folder / name
        file.write_text(text)
        file.chmod(0o755)
        return str(file)

    def python(self, words):
        return self.script("odd-python", ODD_PYTHON.format(python=sys.executable, words=words))

    def start(self, hosts, *options, python=sys.executable, **env):
        (self.folder / "hosts").write_text(hosts)
        env = self.job.environ(**env)
        return subprocess.Popen([sys.executable, self.job.launcher, "check", "-H", "hosts", "--ssh", self.ssh,
                                 "--remote-python", python, *options],
                                cwd=str(self.folder), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, hosts, *options, **more):
        """Returns: exit code, lines of standard output, standard error."""
        popen = self.start(hosts, *options, **more)
        out, err = popen.communicate(timeout=60)
        assert self.job.running() == [], "agents are left behind"
        return popen.returncode, out.decode().splitlines(), err.decode()

    def problems(self, hosts, *options, kind="PROBLEM: ", **more):
        code, lines, err = self.run(hosts, *options, **more)
        assert err == ""
        return code, [line[len(kind):] for line in lines if line.startswith(kind)]


@pytest.fixture
def checker(job):
    return Checker(job)


def test_all_is_well(checker):
    code, lines, err = checker.run("a address=127.0.0.1 slots=1\nb address=127.0.0.1\n")
    assert (code, err) == (0, ""), lines
    assert lines[0].split()[:5] == ["host", "ssh", "python", "gluonzoo", "mxnet"]
    from gluonzoo._version import __version__
    for name, line in zip("ab", lines[1:]):
        assert line.split()[:4] == [name, "yes", sys.version.split()[0], __version__], line
        assert "127.0.0.1 (lo)" in line
    assert lines[-1] == "all is well: a job can start on 2 hosts"
    assert sorted(os.listdir(str(checker.folder))) == ["hosts", "ssh"], "nothing is written"


def test_json(checker):
    code, lines, _ = checker.run("a address=127.0.0.1 slots=64\ndenied address=127.0.0.1\n", "--json")
    told = json.loads("\n".join(lines))
    assert code == 1 and told["ok"] is False
    a, denied = told["hosts"]
    assert a["ok"] and a["ssh"] is True and a["facts"]["cpus"] >= 1 and abs(a["clock_difference"]) < 1
    assert a["folder"]["free"] > 0 and a["python"]["mxnet"] and a["interface"] == "lo"
    assert not denied["ok"] and "Permission denied" in denied["ssh"] and denied["facts"] is None
    assert [problem["host"] for problem in told["problems"]] == ["denied"]
    assert any("64 slots" in note["text"] for note in told["notes"])


def test_hosts_that_cannot_be_reached(checker):
    code, problems = checker.problems("closed\nme@denied:2222\na address=127.0.0.1\n")
    assert code == 1 and len(problems) == 2
    assert problems[0].startswith("closed: ssh could not connect: ssh: connect to host closed port 22: Connection refused: "
                                  "start sshd there")
    assert "Permission denied (publickey): it must let you in without a password: ssh-copy-id" in problems[1]


def test_a_host_that_does_not_answer(checker):
    began = time.monotonic()
    code, problems = checker.problems("slow\n", "--connect-timeout", "1")
    assert code == 1 and problems == ["slow: no answer within 1 s (--connect-timeout)"]
    assert time.monotonic() - began < 10


def test_python_is_missing(checker):
    code, problems = checker.problems("a\n", python="no-such-python")
    assert code == 1 and len(problems) == 1
    assert "no-such-python" in problems[0] and "install Python 3.8 or newer there, or name it with --remote-python" in problems[0]


def test_python_is_too_old(checker):
    python = checker.python("import sys;sys.version_info=(3,6,9);sys.version='3.6.9 (old)'")
    code, problems = checker.problems("a\n", python=python)
    assert code == 1 and "needs Python 3.8 or newer on" in problems[0] and "found 3.6.9" in problems[0]


def test_another_gluonzoo(checker):
    (checker.folder / "gluonzoo").mkdir()
    (checker.folder / "gluonzoo" / "__init__.py").write_text("raise SystemExit('must not be imported')\n")
    (checker.folder / "gluonzoo" / "_version.py").write_text('__version__ = "9.9.9"\n')
    code, problems = checker.problems("a address=127.0.0.1\n")
    from gluonzoo._version import __version__
    assert code == 1 and problems == [f"a: gluonzoo is 9.9.9 there and {__version__} here: install the same, or copy this one "
                                      "(--sync-dst-dir)"]


def test_modules_are_missing_or_broken(checker):
    bare = checker.script("bare-python", f"#!/bin/sh\nexec {sys.executable} -S \"$@\"\n")
    code, problems = checker.problems("a address=127.0.0.1\n", "--server-python", bare)
    assert code == 1 and problems == [
        f"a: {bare} has no mxnet there: pip install mxnet, or name another Python with --server-python"]
    (checker.folder / "mxnet.py").write_text("raise ImportError('libmxnet.so is broken')\n")
    assert checker.problems("a address=127.0.0.1\n") == (0, []), "only looked for"
    code, problems = checker.problems("a address=127.0.0.1\n", "--deep")
    assert code == 1 and "libmxnet.so is broken" in problems[0] and "--server-python" in problems[0]


def test_deep(checker):
    pytest.importorskip("mxnet")
    code, lines, err = checker.run("a address=127.0.0.1\n", "--deep", "--json")
    assert (code, err) == (0, ""), lines
    assert json.loads("\n".join(lines))["hosts"][0]["python"]["mxnet"] == "1.9.1"


def test_the_folder_and_the_command(checker):
    code, problems = checker.problems("a address=127.0.0.1\n", "--remote-dir", "/no/such/folder")
    assert code == 1 and len(problems) == 1 and "No such file or directory" in problems[0] and "--sync-dst-dir" in problems[0]
    code, problems = checker.problems("a address=127.0.0.1\n", "-n", "1", "./train.sh", "--lr", "1")
    assert code == 1 and problems == ["a: COMMAND './train.sh' is not found there: install it, or correct PATH or --remote-dir"]
    checker.script("train.sh", "#!/bin/sh\n")
    assert checker.problems("a address=127.0.0.1\n", "-n", "1", "./train.sh", "--lr", "1") == (0, [])


def test_a_clock_that_is_off(checker):
    python = checker.python("import time;t=time.time;time.time=lambda:t()-90")
    code, notes = checker.problems("a address=127.0.0.1\n", python=python, kind="note: ")
    assert code == 0, "no reason not to start"
    assert any(note.startswith("a: its clock is 90.0 s behind ours: ") for note in notes), notes


def test_a_job_that_can_do_without_the_host(checker):
    hosts = "a address=127.0.0.1\nb address=127.0.0.1\ndenied address=127.0.0.1\n"
    code, lines, _ = checker.run(hosts, "-n", "3", "-s", "1", "--min-workers", "2", sys.executable, "-c", "pass")
    assert code == 0 and lines[-1] == "all is well: a job can start on 2 of 3 hosts"
    code, lines, _ = checker.run(hosts, "-n", "3", "-s", "1", "--min-workers", "3", sys.executable, "-c", "pass")
    assert code == 1 and any(line.startswith("PROBLEM: the job: at least 3 workers") for line in lines), lines


def test_wrong_use(checker):
    for options, words in ((["--launcher", "mpi"], "check looks at hosts through ssh"), (["--nonsense"], "unrecognized"),
                           (["-n", "5", "true"], "5 workers (-n), but 1 slot")):
        code, lines, err = checker.run("a address=127.0.0.1\n", *options)
        assert code == 2 and lines == [] and words in err and err.count("\n") == 1


def test_it_can_be_interrupted(checker, waiting):
    popen = checker.start("slow\n")
    waiting(lambda: len(checker.job.running()) >= 3, what="ssh")
    popen.terminate()
    out, err = popen.communicate(timeout=20)
    assert popen.returncode == 143 and out == b"" and b"received SIGTERM" in err and checker.job.running() == []


# ---- several machines ----

@pytest.fixture
def nets(checker):
    """Two network namespaces on a bridge; returns a function that runs ``ip`` in one of them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and the ip program, for network namespaces")
    prefix, made = f"gzp{os.getpid()}", []

    def ip(name, *words):
        done = subprocess.run(["ip", "-n", prefix + name, *words], capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr}"
    try:
        for name in ("s", "a", "b"):
            done = subprocess.run(["ip", "netns", "add", prefix + name], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"network namespaces cannot be made here: {done.stderr.strip()}")
            made.append(prefix + name)
            ip(name, "link", "set", "lo", "up")
        ip("s", "link", "add", "name", "br0", "type", "bridge")
        ip("s", "link", "set", "br0", "up")
        for number, name in enumerate("ab", 1):
            ip(name, "link", "add", "name", "eth7", "type", "veth", "peer", "name", "p" + name, "netns", prefix + "s")
            ip("s", "link", "set", "p" + name, "master", "br0", "up")
            ip(name, "addr", "add", f"10.79.0.{number}/24", "dev", "eth7")
            ip(name, "link", "set", "eth7", "up")
        ip.prefix = prefix
        yield ip
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


MACHINES = "a address=10.79.0.1\nb address=10.79.0.2\n"


def test_hosts_reach_one_another(checker, nets):
    code, lines, err = checker.run(MACHINES, GZ_TEST_NETS=nets.prefix)
    assert (code, err) == (0, ""), lines
    for number, line in enumerate(lines[1:3], 1):
        assert f"10.79.0.{number} (eth7)" in line and "1 of 1, " in line


def test_a_port_that_is_blocked(checker, nets):
    # What a firewall does: b never answers a at that port.
    nets("b", "rule", "add", "ipproto", "tcp", "sport", "45678", "to", "10.79.0.1", "blackhole")
    code, problems = checker.problems(MACHINES, "--channel-port", "45678", GZ_TEST_NETS=nets.prefix)
    assert code == 1 and problems == ["b: port 45678 of 10.79.0.2 cannot be reached from a (timed out): open the port in the "
                                      "firewall there, or choose one that is open with --channel-port"]


def test_a_port_that_is_taken(checker, nets):
    text = "import socket, time; s = socket.create_server(('0.0.0.0', 45678)); print('up', flush=True); time.sleep(60)"
    other = subprocess.Popen(["ip", "netns", "exec", nets.prefix + "b", sys.executable, "-S", "-c", text],
                             stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"up\n"
        code, problems = checker.problems(MACHINES, "--channel-port", "45678", GZ_TEST_NETS=nets.prefix)
    finally:
        other.kill()
        other.communicate()
    assert code == 1 and len(problems) == 1
    assert problems[0].startswith("b: its channel cannot be used: ") and "in use: end the program" in problems[0]


def test_an_address_of_another_machine(checker, nets):
    code, lines, _ = checker.run("a address=10.79.0.1\nb address=10.79.0.9\n", GZ_TEST_NETS=nets.prefix)
    assert code == 1
    assert any(line.startswith("PROBLEM: b: port ") and "cannot be reached from a (" in line for line in lines), lines
    assert any(line.startswith("note: b: 10.79.0.9 is on none of its interfaces (eth7 10.79.0.2, lo 127.0.0.1") for line in lines)


def test_no_openssl(checker, nets):
    tools = checker.folder / "tools"
    tools.mkdir()
    for name in ("sh", "ip"):
        (tools / name).symlink_to(shutil.which(name))
    (checker.folder / "cryptography.py").write_text("raise ImportError\n")
    code, problems = checker.problems(MACHINES, GZ_TEST_NETS=nets.prefix, PATH=str(tools), PYTHONPATH=str(checker.folder))
    assert code == 1 and problems[0].startswith("this machine: a job on several hosts needs the openssl program")


# ---- the verdict, from made-up findings ----

FACTS = {"user": "me", "cpus": 4, "memory": {"total": 8 << 30, "available": 4 << 30}, "addresses": {"eth0": ["10.0.0.1"]},
         "python": "3.11.2", "gluonzoo": "1.0"}
WANTED = Wanted("1.0", "/data", "python")


def well(**changes):
    found = Findings(Host("a", slots=2))
    found.facts, found.skew, found.round_trip = FACTS, 0.01, 0.002
    found.address, found.interface = "10.0.0.1", "eth0"
    found.folder = {"free": 9 << 30, "writable": True, "program": None}
    found.python = {"python": "3.11.2", "gluonzoo": "1.0", "mxnet": "1.9.1"}
    for name, value in changes.items():
        setattr(found, name, value)
    return found


@pytest.mark.parametrize("changes, words, fatal", [
    ({"python": {"python": "3.8", "gluonzoo": None, "mxnet": True}}, "has no gluonzoo there", True),
    ({"folder": {"free": 9 << 30, "writable": False, "program": None}}, "/data cannot be written by me", False),
    ({"folder": {"free": 1 << 20, "writable": True, "program": None}}, "0.0 GiB are free in /data", False),
    ({"facts": {**FACTS, "memory": {"total": 1 << 30, "available": 100 << 20}}}, "0.1 GiB of memory", False),
    ({"facts": {**FACTS, "cpus": 1}}, "2 slots, but 1 CPUs", False),
    ({"skew": 3.0, "round_trip": 2.5}, None, False),
    ({"skew": 3.0}, "3.0 s ahead of ours", False),
    ({"interface": None}, "10.0.0.1 is on none of its interfaces", False),
    ({"channel": "its link ended"}, "its channel cannot be used: its link ended", True),
    ({"reached": {"b": 0.5, "c": "timed out", "d": "timed out"}, "channel_port": 9}, "reached from c, d (timed out)", True),
])
def test_judge(changes, words, fatal):
    assert judge(well(), WANTED) == []
    problems = judge(well(**changes), WANTED)
    if words is None:
        assert problems == []
    else:
        assert len(problems) == 1 and words in str(problems[0]) and problems[0].fatal == fatal
        assert "\n" not in str(problems[0])


def test_the_table_has_a_row_a_host():
    lines = findings.table([well(), well(why="closed"), well(reached={"b": 0.25, "c": "timed out"})])
    assert len(lines) == 4 and len({line.index(word) for line, word in zip(lines[:2], ("python", "3.11.2"))}) == 1
    assert lines[2].split()[:2] == ["a", "no"] and lines[3].endswith("1 of 2, 0.2 ms")
