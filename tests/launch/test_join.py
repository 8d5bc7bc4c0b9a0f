"""Agents that dial in: real ones on this machine, each started as a person or a scheduler would."""
import os
import re
import signal
import stat
import subprocess
import sys

from launch.dialer import Invitation, read_key, target
from launch.join import own_addresses
from launch.secure import JobKey
from launch.spec import LaunchError

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DIALER = os.path.join(ROOT, "launch", "dialer.py")
UP = "touch('up-%d-%d' % (RESTART, INDEX))\n"


class Joined:
    """A job and the agents somebody starts for it."""

    def __init__(self, job, waiting):
        self.job, self.waiting, self.agents = job, waiting, []

    def start(self, worker, *options, hosts=2, **more):
        self.job.start(worker, "--launcher", "join", "--num-hosts", str(hosts), "--host", "127.0.0.1", "-n", "2", "-s", "1",
                       *options, stderr=open(self.job.folder / "err", "wb"), **more)
        self.waiting(lambda: "waiting for" in self.err(), what="the launcher")
        return self

    def err(self):
        return (self.job.folder / "err").read_text()

    @property
    def line(self):
        """What the launcher says has to be run on the hosts."""
        return re.search(r"on each host: (.*)", self.err()).group(1).split()

    def agent(self, *options, line=None, env=None):
        """Start an agent in the job's folder."""
        line = line or self.line
        self.agents.append(subprocess.Popen(
            [sys.executable, *line[1:], *options], cwd=str(self.job.folder), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.job.environ(**(env or {}))))
        return self.agents[-1]

    def finish(self, seconds=30):
        """Wait for all; returns the launcher's Result and the agents' exit codes."""
        out = self.job.popen.communicate(timeout=seconds)[0]
        codes = [agent.wait(40) for agent in self.agents]
        self.waiting(lambda: self.job.running() == [], what="the end of all processes")
        return self.job.popen.returncode, out.decode(), codes

    def clean(self):
        for agent in self.agents:
            agent.kill()
            agent.wait()
            agent.stdout.close()


@pytest.fixture
def joined(job, waiting):
    made = Joined(job, waiting)
    yield made
    made.clean()


def secrets_shown(job, secrets):
    """Command lines of the job's processes in which one of the secrets stands."""
    lines = []
    for pid in job.running():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                lines.append(file.read().decode("utf-8", "replace"))
        except OSError:
            continue
    assert lines
    return [line for line in lines if any(secret in line for secret in secrets)]


def test_agents_that_come_by_themselves(joined):
    joined.start("print(sorted(n for n in os.environ if 'JOIN' in n or 'KEY' in n or n.startswith('OMPI')))\n" + UP
                 + "await_file('go'); done()", env={"GLUONZOO_JOIN": "stale"})
    file = joined.job.log_dir / "join.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and str(file) in joined.line
    key = file.read_text().strip()
    joined.agent("--index", "1", env={"OMPI_COMM_WORLD_RANK": "7"})
    joined.agent()                                      # the one that is left
    joined.job.await_files("up-0-0", "up-0-1")
    assert secrets_shown(joined.job, [key, key[:60]]) == []
    joined.job.file("go").touch()
    code, out, codes = joined.finish()
    assert (code, codes) == (0, [0, 0]), joined.err()
    assert sorted(out.splitlines()) == ["[worker 0] []", "[worker 1] []"]
    assert not file.exists() and key not in joined.err()
    assert "finished: 2 workers ended with code 0" in joined.err()


def test_an_agent_that_is_lost_comes_again_and_the_other_stays(joined):
    joined.start(UP + "if RESTART == 0: time.sleep(60)\ndone()", "--max-restarts", "1")
    first, second = joined.agent("--index", "0"), joined.agent("--index", "1")
    joined.job.await_files("up-0-0", "up-0-1")
    second.kill()
    joined.waiting(lambda: "restart 1 of 1" in joined.err(), 20, "the restart")
    joined.agent("--index", "1")
    code, _, codes = joined.finish()
    assert (code, codes) == (0, [0, -signal.SIGKILL, 0]), joined.err()
    assert first.returncode == 0


def test_one_that_comes_early_is_held_and_one_too_many_is_sent_away(joined):
    joined.start(UP + "if RESTART == 0: await_file('go')\nif RESTART == 0 and INDEX: sys.exit(3)\n"
                 "print(RESTART); done()", "--max-restarts", "1")
    joined.agent("--index", "0")
    joined.agent("--index", "1")
    joined.job.await_files("up-0-0", "up-0-1")
    early = joined.agent("--index", "1")            # its place is taken
    more = joined.agent()
    assert more.wait(20) == 1
    assert "an agent has come from 127.0.0.1, but there is one for each of 2 hosts; sent away" in joined.err()
    assert early.poll() is None
    joined.agents[1].kill()
    code, out, codes = joined.finish()
    assert code == 0 and "[worker 1] 1" in out, joined.err()
    assert codes == [0, -signal.SIGKILL, 0, 1]


def test_a_key_that_was_made_before(joined, tmp_path):
    file, other = tmp_path / "key", tmp_path / "other"
    for path in (file, other):
        path.touch(0o600)
        path.write_text(JobKey.create().pack() + "\n")
    joined.start("done()", "--join-key-file", str(file))
    assert joined.line[1:4] == [DIALER, "--key-file", "KEYFILE"] and not (joined.job.log_dir / "join.key").exists()
    where = joined.line[-1]
    stranger = joined.agent(line=["", DIALER, "--key-file", str(other), "--connect-timeout", "1", where])
    assert stranger.wait(20) == 1 and b"cannot reach the launcher at 127.0.0.1 port" in stranger.stdout.read()
    joined.agent(line=["", DIALER, "--key-file", str(file), where])
    joined.agent(line=["", DIALER, "--index-from", "JOB_COMPLETION_INDEX", where],
                 env={"JOB_COMPLETION_INDEX": "1", "GLUONZOO_JOIN_KEY": file.read_text()})
    code, _, codes = joined.finish()
    assert (code, codes) == (0, [1, 0, 0]), joined.err()
    assert file.exists()


def test_nobody_comes(joined):
    joined.start("done()", "--connect-timeout", "5")
    agent = joined.agent("--index", "0")
    code, _, codes = joined.finish()
    assert code == 2 and "error: host agent 1: no agent has come for it" in joined.err()
    assert codes == [0] and agent.stdout.read() == b""


@pytest.mark.parametrize("victim", ["front", "supervisor", "channel"])
def test_agents_end_with_their_launcher(joined, victim):
    joined.start(UP + "time.sleep(60)", "--grace", "0.5")
    joined.agent()
    joined.agent()
    joined.job.await_files("up-0-0", "up-0-1")
    supervisor = joined.job.supervisor
    pid = {"front": joined.job.popen.pid, "supervisor": supervisor}.get(victim)
    if pid is None:
        with open(f"/proc/{supervisor}/task/{supervisor}/children") as file:
            pid = int(file.read().split()[0])
    os.kill(pid, signal.SIGKILL)
    code, _, codes = joined.finish()
    assert code != 0 and set(codes) <= {0, 1}, joined.err()
    if victim == "channel":
        assert re.search(r"FAILED: host \S+ lost \(.*\): its link ended", joined.err())


def test_sigterm_to_the_launcher(joined):
    joined.start(UP + "time.sleep(60)")
    joined.agent()
    joined.agent()
    joined.job.await_files("up-0-0", "up-0-1")
    joined.job.popen.terminate()
    code, _, codes = joined.finish()
    assert (code, codes) == (143, [0, 0]), joined.err()


def test_named_hosts_and_dry_run(launch, tmp_path):
    (tmp_path / "hosts").write_text("a slots=2\nb role=server,scheduler address=10.0.0.7\n")
    done = launch("-n", "2", "-s", "1", "--launcher", "join", "-H", "hosts", "--dry-run", "true")
    assert done.code == 0, done.err
    assert re.search(r"# ---- host b\n.*dialer.py --key-file \S+/join.key --index 1 \S+:PORT\n", done.out)
    assert sorted(os.listdir(str(tmp_path))) == ["hosts"]


@pytest.mark.parametrize("words, message", [
    (("--launcher", "join"), "--launcher join needs either --num-hosts K or the hosts (-H)"),
    (("--launcher", "join", "--num-hosts", "0"), "--num-hosts is 1 or more, got 0"),
    (("--num-hosts", "2"), "--num-hosts is for --launcher join"),
    (("--launcher", "join", "--num-hosts", "1", "--sync-dst-dir", "x"), "--sync-dst-dir is for --launcher ssh"),
    (("--launcher", "join", "--num-hosts", "1", "--join-key-file", "nothing"), "--join-key-file nothing: No such file"),
    (("--launcher", "join", "--num-hosts", "1", "--env", "GLUONZOO_JOIN=1"), "is set by the launcher itself"),
])
def test_wrong_use(launch, words, message):
    done = launch("-n", "1", "-s", "1", *words, "true")
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1, done.err


def dial(*arguments, **env):
    return subprocess.run([sys.executable, DIALER, *arguments], env={**os.environ, **env}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("arguments, env, message", [
    ((), {}, "where is the launcher? expected HOST:PORT, or GLUONZOO_JOIN in the environment"),
    (("a:1",), {}, "the job's key is needed: --key-file FILE, or GLUONZOO_JOIN_KEY in the environment"),
    (("a",), {"GLUONZOO_JOIN_KEY": "x"}, "expected HOST:PORT of the launcher, got 'a'"),
    (("a:1",), {"GLUONZOO_JOIN_KEY": "x"}, "not a job's key: 1 characters"),
    ((), {"GLUONZOO_JOIN": "secret"}, "GLUONZOO_JOIN holds 6 characters that no launcher of this version wrote"),
    ((), {"GLUONZOO_JOIN": Invitation((("a", 1),), "k", 1.0, "RANK", {"0": 0}).pack(), "RANK": "3"},
     "RANK tells which host this is; expected one of 0, got '3'"),
    (("--frobnicate",), {}, "unrecognized arguments: --frobnicate"),
])
def test_wrong_use_of_the_dialler(arguments, env, message):
    done = dial(*arguments, **env)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert "secret" not in done.stderr


def test_key_files(tmp_path):
    file = tmp_path / "key"
    text = JobKey.create().pack()
    file.write_text(text + "\n")
    for mode in (0o600, 0o400):
        file.chmod(mode)
        assert read_key(str(file), "--key-file") == text
    for mode in (0o644, 0o640, 0o602):
        file.chmod(mode)
        with pytest.raises(LaunchError, match=f"others may read or change it \\(mode {mode:04o}\\), expected 0600 or 0400"):
            read_key(str(file), "--key-file")
    file.chmod(0o600)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(LaunchError, match="holds no key: it is not text"):
        read_key(str(file), "--key-file")
    with pytest.raises(LaunchError, match="Is a directory"):
        read_key(str(tmp_path), "--key-file")


def test_invitations():
    made = Invitation((("10.0.0.1", 4000), ("fd00::1", 4000)), "key", 12.5, "RANK", {"0": 3, "1": 5})
    assert Invitation.unpack(made.pack()) == made
    assert (made.place({"RANK": "1"}), Invitation((), "key").place({})) == (5, None)
    with pytest.raises(LaunchError, match="got nothing"):
        made.place({})
    assert (target(None), target(12)) == ("agent", "agent-12")


def test_own_addresses():
    found = own_addresses()
    assert found and len(set(found)) == len(found)
    assert found == ("127.0.0.1",) or not any(address.startswith("127.") or address == "::1" for address in found)
