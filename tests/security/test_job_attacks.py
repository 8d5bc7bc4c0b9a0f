"""A stranger on the network of a whole job: three hosts train over --launcher ssh, a fourth does what it can.

All attacks happen to one job, while it trains; then each test looks at what came of one of them.
"""
import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

from gluonzoo.training import checkpoint

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
for folder in (ROOT / "tests" / "launch", Path(__file__).resolve().parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import namespaces  # noqa: E402
from intruder import ZMTP, Inside, Recorder, frames, open_ports, told  # noqa: E402

WHY_NOT = namespaces.missing()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

HOSTS, STRANGER, FRAMES = (1, 2, 3), 4, 1000
UPDATES = 60
MARK = "GLUONZOO_TEST_MARK"
#: How a packed JobKey begins (launch/secure.py), and what is inside.
PACKED, PEM = b"eyJ2ZXJzaW9uIjogMSwgImNlcnRpZmljYXRlIjog", b"PRIVATE KEY-----"

# Trains slowly until the file OVER is there, and does not end before. Arguments: output folder, sample log, OVER.
TRAIN = """
import os, sys, time
import gluonzoo.distributed
from gluonzoo.training import loop, run
output, log, over = sys.argv[1:]
honest = loop.step

def step(this, images, labels):
    if not os.path.exists(over):
        time.sleep(1)
    while this.position.step + 1 == this.total_steps and not os.path.exists(over):
        this.log.heartbeat(f"{this.position.step} waits {time.time():.0f}")
        time.sleep(0.1)
    return honest(this, images, labels)

loop.step = step
run.train({"model": "lenet5", "dataset": "digits", "kvstore": "dist_sync", "epochs": 1, "batch_size": 12, "seed": 11,
           "checkpoint_every": 20, "output": output, "sample_log": log})
gluonzoo.distributed.leave(0)
"""

# A node of stock ps-lite that wants to take part. (gluonzoo only so that MXNet can be imported at all.)
JOIN = """
import gluonzoo
import mxnet as mx
print("tries", flush=True)
store = mx.kv.create("dist_sync")
print("joined", flush=True)
"""


class Job:
    """A job over ssh, in a folder; `local` for one on this machine that nobody attacks."""

    def __init__(self, folder, network=None):
        self.folder, self.network, self.mark = folder, network, uuid.uuid4().hex
        self.over = folder / "over"
        (folder / "tmp").mkdir(parents=True)
        (folder / "train.py").write_text(TRAIN)
        self.popen = None

    def start(self, *more):
        argv = [sys.executable, str(ROOT / "launch" / "launch.py"), "-n", "2", "-s", "1", "--log-dir",
                str(self.folder / "logs"), *more]
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(self.folder / "tmp"),
                   MARK: self.mark}
        if self.network:
            (self.folder / "hosts").write_text("".join(
                f"{self.network.address(host)} role={role}\n"
                for host, role in ((1, "scheduler,server"), (2, "worker"), (3, "worker"))))
            python = self.folder / "python"
            python.write_text(f"#!/bin/sh\nexport TMPDIR='{self.folder}/tmp' {MARK}={self.mark}\n"
                              f"exec '{sys.executable}' \"$@\"\n")
            python.chmod(0o755)
            argv += ["-H", str(self.folder / "hosts"), "--ssh", self.network.ssh, "--remote-python", str(python)]
            environ["PATH"] = f"{self._shim()}:{environ['PATH']}"
        argv += [sys.executable, *(str(self.folder / name) for name in ("train.py", "run", "samples", "over"))]
        self.output = open(self.folder / "output", "wb")
        self.popen = subprocess.Popen(argv, env=environ, cwd=str(self.folder), stdin=subprocess.DEVNULL, stdout=self.output,
                                      stderr=subprocess.STDOUT, start_new_session=True)
        return self

    def _shim(self):
        """A folder with an openssl in it that tells this test, and nobody else, the keys it makes."""
        shim = self.folder.parent / f"{self.folder.name}-shim"
        shim.mkdir()
        (shim / "openssl").write_text(f"#!/bin/sh\n'{shutil.which('openssl')}' \"$@\" | tee -a '{shim}/keys'\n")
        (shim / "openssl").chmod(0o755)
        return shim

    def secrets(self):
        """Lines of the private keys that were made."""
        text = (self.folder.parent / f"{self.folder.name}-shim" / "keys").read_bytes()
        blocks = re.findall(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)\n-----END", text, re.DOTALL)
        return [line for block in blocks for line in block.split(b"\n") if len(line) > 20]

    @property
    def update(self):
        """How many updates are done."""
        try:
            lines = (self.folder / "samples" / "worker-0.jsonl").read_bytes().split(b"\n")
            return json.loads(lines[-2])["update"] + 1 if len(lines) > 1 else 0
        except (OSError, ValueError):
            return 0

    def await_update(self, number, seconds=120):
        deadline = time.monotonic() + seconds
        while self.update < number:
            assert self.popen.poll() is None and time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def text(self):
        return (self.folder / "output").read_text(errors="replace")

    def finish(self, seconds=180):
        """Let it end; returns its weights."""
        self.over.write_text("")
        assert self.popen.wait(seconds) == 0, self.text()
        return checkpoint.newest(str(self.folder / "run")).arrays("parameters.params")

    def processes(self):
        """Pids of all that carries its mark: launcher, ssh programs, agents, channels, roles."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    if f"{MARK}={self.mark}".encode() in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                        found.append(int(entry))
        return found

    def close(self):
        if self.popen is None:
            return
        self.popen.terminate()
        try:
            self.popen.wait(30)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.output.close()
        deadline = time.monotonic() + 30
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.1)


class Story:
    """The attacks on a job and what was seen."""

    def __init__(self, network, job):
        self.network, self.job = network, job
        self.address = {host: network.address(host) for host in HOSTS}
        self.seen, self.trained, self.seconds = {}, {}, {}
        self.switch, self.here = Inside(network.name(0)), Inside(network.name(STRANGER), 16)

    def attack(self, name, function):
        """Carry out an attack, and note what it gave and how many updates the job had made before and a little later."""
        before, began = self.job.update, time.monotonic()
        self.seen[name] = function()
        self.seconds[name] = round(time.monotonic() - began, 1)
        # An attack may take less time than an update on a busy machine: what counts is that one comes.
        while self.job.update <= before < UPDATES - 1 and time.monotonic() - began < 60:
            time.sleep(0.1)
        self.trained[name] = before, self.job.update

    def everywhere(self, function, *arguments):
        """{host: function(its address, ...)}, at the same time."""
        futures = {host: self.here.submit(function, self.address[host], *arguments) for host in HOSTS}
        return {host: future.result() for host, future in futures.items()}

    def channels(self):
        """{host: (address, port)} of what the scan found beside sshd."""
        return {host: (self.address[host], port) for host in HOSTS for port in self.seen["scan"][host] if port != 22}

    def sessions(self, recorder):
        """{host: [what was sent to its channel]} of the sessions on record."""
        found = {host: [] for host in HOSTS}
        for (_, _, address, port), data in self.between_hosts(recorder).items():
            for host, there in self.channels().items():
                if there == (address, port) and len(data) > 500:
                    found[host].append(data)
        return found

    def between_hosts(self, recorder):
        """The record less what we have said ourselves."""
        return {flow: data for flow, data in recorder.streams().items()
                if {flow[0], flow[2]} <= set(self.address.values())}

    def silence(self):
        """What an open port says to somebody who says nothing."""
        futures = {(host, port): self.here.submit(told, (self.address[host], port), b"", False, 8)
                   for host, ports in self.seen["scan"].items() for port in ports}
        answers = {}
        for key, future in futures.items():
            try:
                answers[key] = future.result()
            except OSError:         # sshd waits longer than we do
                answers[key] = b"?"
        return answers

    def send(self, recorded):
        """Send FRAMES frames to every channel; returns (how many, the answers other than silence)."""
        def one(there, frame, number):
            return told(there, frame, number % 2 == 0 or len(frame) < 80)
        sent = [self.here.submit(one, there, frame, number) for host, there in self.channels().items()
                for number, frame in enumerate(frames(recorded, FRAMES, seed=host))]
        concurrent.futures.wait(sent)
        return len(sent), [future.result() for future in sent if future.result()]

    def replay(self, sessions):
        """Every recorded session, whole and in part, to its own host and to the others."""
        answers = []
        for host, there in self.channels().items():
            tries = [session[:length] for other in HOSTS for session in sessions[other][:12 if other == host else 2]
                     for length in (80, 700, None)]
            futures = [self.here.submit(told, there, data, end) for data in tries for end in (True, False)]
            answers += [future.result() for future in futures]
        return answers

    def join(self):
        """Workers of stock ps-lite that try to take part: through open ports, and the scheduler's own."""
        inner = int(re.search(r"scheduler port (\d+)", self.job.text()).group(1))
        started = []
        for host, port in ((1, self.channels()[1][1]), (1, inner), (2, self.channels()[2][1])):
            environ = {**os.environ, "PYTHONPATH": str(ROOT), "DMLC_ROLE": "worker", "DMLC_PS_ROOT_URI": self.address[host],
                       "DMLC_PS_ROOT_PORT": str(port), "DMLC_NUM_WORKER": "2", "DMLC_NUM_SERVER": "1",
                       "DMLC_NODE_HOST": self.network.address(STRANGER), "DMLC_INTERFACE": "eth0"}
            started.append(subprocess.Popen(["ip", "netns", "exec", self.network.name(STRANGER), sys.executable, "-c", JOIN],
                                            env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        return started

    def close(self):
        for inside in (self.switch, self.here):
            inside.shutdown()


def said(started, seconds):
    """What programs print until they end or have had so many seconds after their first word."""
    texts = []
    first = [program.stdout.readline() for program in started]
    time.sleep(seconds)
    for word, program in zip(first, started):
        program.kill()
        texts.append(word + program.communicate()[0])
    return texts


def looked_at(job):
    """The command lines and environments of all processes of a job, and the files below its folder, as bytes by name.

    Of environments those of roles and agents only: the launcher's is the user's.
    """
    found = {}
    for pid in [entry for entry in os.listdir("/proc") if entry.isdigit()]:
        with contextlib.suppress(OSError):
            found[f"/proc/{pid}/cmdline"] = Path(f"/proc/{pid}/cmdline").read_bytes()
    for pid in job.processes():
        with contextlib.suppress(OSError):
            found[f"/proc/{pid}/environ"] = Path(f"/proc/{pid}/environ").read_bytes()
    for folder in (job.folder, Path("/dev/shm")):
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file():
                    found[str(path)] = path.read_bytes()
    return found


def leaks(job, places):
    """Names of places that hold something of a key."""
    wanted = [PACKED, PEM, *job.secrets()]
    return [name for name, content in places.items() if any(secret in content for secret in wanted)]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Four hosts; the job knows nothing of the fourth."""
    made = namespaces.Network(tmp_path_factory.mktemp("network"), 4)
    yield made
    made.close()


@pytest.fixture(scope="module")
def story(network, tmp_path_factory):
    """A job that was attacked while it trained, and one that was left alone."""
    folder = tmp_path_factory.mktemp("jobs")
    job, alone = Job(folder / "attacked", network), Job(folder / "alone")
    told_of = Story(network, job)
    recorder, joining = told_of.switch.run(Recorder, "p1"), []
    try:
        job.start()
        job.await_update(2)
        told_of.attack("scan", lambda: told_of.everywhere(open_ports))
        joining = told_of.join()
        told_of.sessions_seen = told_of.sessions(recorder)
        told_of.attack("silence", told_of.silence)
        told_of.attack("replay", lambda: told_of.replay(told_of.sessions_seen))
        recorded = [session for sessions in told_of.sessions_seen.values() for session in sessions][:12]
        told_of.attack("frames", lambda: told_of.send(recorded))
        told_of.attack("join", lambda: said(joining, 5))
        told_of.places = looked_at(job)
        told_of.streams = told_of.between_hosts(recorder)
        told_of.weights = job.finish()
        told_of.left = looked_at(job)
        alone.over.write_text("")
        told_of.expected = alone.start().finish()
        print("\nattack: seconds, updates before and after:",
              {name: (told_of.seconds[name], *told_of.trained[name]) for name in told_of.seconds})
        yield told_of
    finally:
        for program in joining:
            program.kill()
            program.wait()
        for one in (job, alone):
            one.close()
        recorder.close()
        told_of.close()


def test_the_job_trains_through_all_of_it_and_ends_as_if_left_alone(story):
    assert "FAILED" not in story.job.text() and "restart" not in story.job.text(), story.job.text()
    for name in ("scan", "frames"):
        before, after = story.trained[name]
        assert after > before or before >= UPDATES - 1, (name, story.trained)
    assert set(story.weights) == set(story.expected)
    for name, value in story.expected.items():
        assert story.weights[name].tobytes() == value.tobytes(), (name, np.abs(story.weights[name] - value).max())


def test_a_scan_finds_sshd_and_one_port_a_host(story):
    for host in HOSTS:
        assert 22 in story.seen["scan"][host] and len(story.seen["scan"][host]) == 2, story.seen["scan"]


def test_the_one_port_says_nothing(story):
    for (_, port), answer in story.seen["silence"].items():
        assert answer.startswith(b"SSH-2.0") or answer == b"?" if port == 22 else answer == b"", story.seen["silence"]


def test_a_thousand_frames_at_every_port(story):
    count, answers = story.seen["frames"]
    assert count == FRAMES * len(HOSTS) and answers == []


def test_recorded_sessions_are_worth_nothing(story):
    assert sum(map(len, story.sessions_seen.values())) >= 4, "there is something on record"
    assert len(story.seen["replay"]) > 50 and set(story.seen["replay"]) == {b""}


def test_what_goes_between_hosts_is_not_to_be_read(story):
    """No greeting of ps-lite's, none of its messages, on the whole record; sessions begin with no fixed bytes."""
    assert sum(map(len, story.streams.values())) > 1 << 20
    assert not [flow for flow, data in story.streams.items() if ZMTP[:12] in data or b"127.0.0.1" in data]
    begins = [data[:16] for sessions in story.sessions_seen.values() for data in sessions]
    assert len(set(begins)) == len(begins)


def test_a_node_of_stock_ps_lite_does_not_get_in(story):
    assert story.seen["join"] == ["tries\n"] * 3


def test_the_key_is_on_no_command_line_and_in_no_file(story):
    assert len(story.job.secrets()) >= 2, "the test knows the key"
    assert leaks(story.job, {"itself": b"x" + story.job.secrets()[0]}) == ["itself"]
    assert leaks(story.job, story.places) == [], "while the job runs"
    assert leaks(story.job, story.left) == [], "afterwards"
    assert os.listdir(story.job.folder / "tmp") == []


# ---- without the channel

@pytest.mark.slow
def test_what_a_job_without_a_channel_is_exposed_to(network, tmp_path):
    """For contrast: --insecure-network warns, works, can be found, read, and ended with a few frames."""
    switch, here, job = Inside(network.name(0)), Inside(network.name(STRANGER), 8), Job(tmp_path / "insecure", network)
    recorder = switch.run(Recorder, "p1")
    try:
        job.start("--insecure-network")
        job.await_update(2)
        assert "WARNING: --insecure-network: nothing between hosts is encrypted" in job.text()
        found = here.run(open_ports, network.address(1))
        assert len(found) == 3, "sshd, scheduler, server"
        assert any(data.startswith(ZMTP[:10]) for data in recorder.streams().values())
        for number, frame in enumerate(frames([ZMTP + os.urandom(300)], 200, seed=5)):
            with contextlib.suppress(OSError):
                here.run(told, (network.address(1), found[1 + number % 2]), frame, True, 0.2)
            if job.popen.poll() is not None:
                break
        print(f"\nan insecure job ended after {number + 1} frames:", *job.text().splitlines()[-3:], sep="\n")
        deadline = time.monotonic() + 30
        while job.popen.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert job.popen.poll() not in (None, 0), job.text()
    finally:
        job.close()
        recorder.close()
        for inside in (switch, here):
            inside.shutdown()
