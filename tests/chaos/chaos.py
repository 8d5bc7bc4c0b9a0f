"""One trial: a small real job to which things happen, and the judgement whether it ended as if nothing had happened.

The job is tools/train.py, LeNet-5 on scikit-learn's digits, over --launcher local or ssh. As root it runs in network
namespaces of its own, so that whatever is left of it can be told from other programs' doings.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
for folder in (ROOT, os.path.join(ROOT, "tests", "launch"), HERE):
    if folder not in sys.path:
        sys.path.insert(0, folder)

from gluonzoo import arrays  # noqa: E402 (the path is set first)
from gluonzoo.training import checkpoint, samples  # noqa: E402

import namespaces  # noqa: E402
import numpy as np  # noqa: E402
from plan import CARRIERS, EVERY, UPDATES, Trial  # noqa: E402
from victims import MARK, carriers, hit, listening, marked, roles, unix_sockets  # noqa: E402

__all__ = ["Failed", "References", "Run", "run_trial", "NO_NETWORK"]

BATCH, RESTARTS = 24, 10        # samples of an update, over all workers; --max-restarts
LIMIT = 420.0                   # seconds for a trial
LEAVE = 25.0                    # seconds for agents of hosts that were cut off to notice
LOOK = 0.005
PATIENCE = 8.0                  # seconds for a fault to end an attempt, before the next one hits the same
NO_NETWORK = namespaces.missing()


class Failed(AssertionError):
    """The trial did not end as it should; the message says what is wrong."""


@dataclass
class Hit:
    """What one fault has done, and what is to be taken back."""

    text: str
    host: int = 0           # whose link is cut
    pid: int = 0            # stopped, and not ended by the launcher
    until: float = float("inf")
    attempts: int = 0       # when it happened


@dataclass
class Run:
    """The launcher's process of a trial and what is seen of its job."""

    trial: Trial
    folder: str
    network: object = None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self):
        self.began, self.hits, self.unreached, self.restarted_at = 0.0, [], [], []
        self.attempts, self.update, self.writing, self._size = 0, 0, False, 0
        self.trained = -1           # the last attempt that has made an update
        for name in ("logs", "tmp"):
            os.makedirs(self.path(name))
        self.output = open(self.path("output"), "w+b")
        self.popen = None

    def path(self, *names):
        return os.path.join(self.folder, *names)

    # ---- the job ----

    def command(self):
        trial, python = self.trial, sys.executable
        argv = [python, os.path.join(ROOT, "launch", "launch.py"), "-n", str(trial.workers), "-s", str(trial.servers),
                "--log-dir", self.path("logs"), "--launcher", trial.launcher, "--grace", "2",
                "--max-restarts", str(RESTARTS), "--stall-timeout", f"{trial.stall:g}"]
        if trial.launcher == "ssh":
            lines = [line.format("", *map(self.network.address, (1, 2, 3))) for line in trial.layout]
            with open(self.path("hosts"), "w") as file:
                file.write("\n".join(lines) + "\n")
            # sshd passes no variables on; with these the agents, too, can be recognised and keep to the trial's folder.
            with open(self.path("python"), "w") as file:
                file.write(f"#!/bin/sh\nexport TMPDIR='{self.path('tmp')}' {MARK}={self.mark}\nexec '{python}' \"$@\"\n")
            os.chmod(self.path("python"), 0o755)
            argv += ["-H", self.path("hosts"), "--ssh", self.network.ssh, "--host-timeout", f"{trial.host_timeout:g}",
                     "--remote-python", self.path("python")]
        elif self.network is not None:
            argv = ["ip", "netns", "exec", self.network.name(0), *argv]
        return argv + [python, os.path.join(ROOT, "tools", "train.py"), "--model", "lenet5", "--dataset", "digits",
                       "--kvstore", "dist_sync", "--epochs", "2", "--batch-size", str(BATCH // trial.workers),
                       "--checkpoint-every", str(EVERY), "--keep", "2", "--seed", "7", "--output", self.path("run"),
                       "--sample-log", self.path("samples")]

    def start(self):
        environ = {name: value for name, value in os.environ.items() if not re.match(r"(DMLC_|GLUONZOO_(?!DATA)|PORT$)", name)}
        environ.update({"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", "TMPDIR": self.path("tmp"), MARK: self.mark,
                        "MPLBACKEND": "agg", "MPLCONFIGDIR": self.path("logs")})
        self.began = time.monotonic()
        self.popen = subprocess.Popen(self.command(), env=environ, cwd=self.folder, stdin=subprocess.DEVNULL,
                                      stdout=self.output, stderr=subprocess.STDOUT, start_new_session=True)

    def text(self):
        with open(self.path("output"), "rb") as file:
            return file.read().decode("utf-8", "replace")

    # ---- seeing ----

    def look(self):
        """Take in how far the job is."""
        size = os.path.getsize(self.path("output"))
        if size != self._size:
            self._size = size
            attempts = len(re.findall(r"^launch: restart \d+ of ", self.text(), re.MULTILINE))
            self.restarted_at += [self.update] * (attempts - self.attempts)
            self.attempts = attempts
        try:
            with open(self.path("samples", "worker-0.jsonl"), "rb") as file:
                file.seek(max(0, os.path.getsize(file.name) - 4096))
                lines = file.read().split(b"\n")
            update = json.loads(lines[-2])["update"] + 1 if len(lines) > 1 else 0
            if update > self.update:
                self.trained = self.attempts
            self.update = update
        except (OSError, ValueError):
            pass        # not there yet, or just being cut
        try:
            self.writing = any(name.startswith(".writing") for name in os.listdir(self.path("run", "checkpoints")))
        except OSError:
            self.writing = False

    # ---- doing ----

    def candidates(self, fault):
        """[(name, pid or host)] of those the fault may hit now."""
        processes = marked(self.mark)
        found = roles(processes)
        if fault.victim in CARRIERS:        # with a role: before there are any, the launcher has every right to give up
            return [one for one in carriers(self.network, processes) if found and one[0].startswith(fault.victim)]
        if fault.victim == "host":
            here = {host: set(self.network.processes(host)) for host in (1, 2, 3)}
            return [(f"host {host}", host) for host in here if any(pid in here[host] for _, pid in found)]
        return [one for one in found if one[0].startswith(fault.victim)]

    def strike(self, fault, name, target):
        """Carry a fault out; returns whether its victim was there."""
        now = time.monotonic()
        done = Hit(f"{name} {str(fault).split(' ', 1)[1]} (at {now - self.began:.1f} s, update {self.update}, "
                   f"attempt {self.attempts + 1})", attempts=self.attempts)
        if fault.action == "cut":
            self.network.cut(target)
            done.host = target
            if fault.seconds is not None:
                done.until = now + fault.seconds
        else:
            if not hit(target, getattr(signal, fault.action), self.mark):
                return False
            if fault.action == "SIGSTOP" and fault.victim in ("agent", "keeper"):
                # Nobody can end these but who stopped them. A keeper has nothing to do until the end.
                done.pid, done.until = target, now + 5 if fault.victim == "keeper" else float("inf")
        self.hits.append(done)
        return True

    def take_back(self, everything=False):
        """Mend links and continue processes, when their time has come or the launcher has started the job again."""
        for done in self.hits:
            if everything or time.monotonic() > done.until or self.attempts > done.attempts:
                if done.host:
                    self.network.mend(done.host)
                if done.pid:
                    hit(done.pid, signal.SIGCONT, self.mark)
                done.host = done.pid = 0

    def due(self, fault, armed, attempts, state):
        """Whether a fault's moment has come. armed: when the one before it happened; attempts: those it shall not hit."""
        now = time.monotonic()
        if fault.moment == "time":
            return now - armed >= fault.when
        if attempts and now - armed > PATIENCE:     # the fault before it has not ended an attempt
            attempts -= 1
        late = self.update > 0.9 * UPDATES          # no other attempt may come
        if fault.moment == "start":
            if "seen" not in state and self.attempts >= attempts and roles(marked(self.mark)):
                state["seen"] = now
            return late or now - state.get("seen", now) >= fault.when
        here = late or self.trained == self.attempts >= attempts and self.update >= fault.when
        return here and (fault.moment == "update" or self.writing)

    def drive(self):
        """Let the faults happen until the launcher has ended."""
        pending, armed, attempts, state = list(self.trial.faults), self.began, 0, {}
        while self.popen.poll() is None:
            self.look()
            self.take_back()
            if pending and self.due(pending[0], armed, attempts, state):
                found = self.candidates(pending[0])
                if found:
                    name, target = found[int(pending[0].pick * len(found))]
                    if self.strike(pending[0], name, target):
                        pending.pop(0)
                        armed, attempts, state = time.monotonic(), self.attempts + 1, {}
            if time.monotonic() - self.began > LIMIT:
                raise Failed(f"not done after {LIMIT:g} s")
            time.sleep(LOOK)
        self.look()
        self.unreached = pending

    # ---- judging ----

    def left(self):
        """What should not be there any more."""
        found = [f"process {pid} ({environment.get('DMLC_ROLE', 'no role')})" for pid, environment in marked(self.mark).items()]
        found += [f"temporary {name}" for name in os.listdir(self.path("tmp"))]
        if self.network is not None:
            for host in range(self.network.count + 1):
                found += [f"process {pid} on host {host}" for pid in self.network.processes(host)]
                found += [f"listener {address} on host {host}" for address in listening(self.network, host)]
                found += [f"unix socket {name} on host {host}" for name in unix_sockets(self.network, host)]
        names = os.listdir(self.path("run", "checkpoints")) if os.path.isdir(self.path("run", "checkpoints")) else []
        return found + [f"half a checkpoint {name}" for name in names if name.startswith(".")]

    def wait_until_nothing_is_left(self):
        deadline = time.monotonic() + LEAVE
        while self.left():
            if time.monotonic() > deadline:
                raise Failed("left behind: " + "; ".join(self.left()[:6]))
            time.sleep(0.1)

    def close(self):
        """End whatever there may be."""
        self.output.close()
        if self.popen is not None and self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        for _ in range(100):
            left = marked(self.mark)
            for pid in left:
                hit(pid, signal.SIGKILL, self.mark)
            if not left:
                return
            time.sleep(0.05)

    def compare(self, reference):
        """Raises: Failed unless samples and weights are those of the uninterrupted run."""
        log = samples.read(self.path("samples"))
        if json.loads(json.dumps(list(log.values()))) != reference["samples"]:
            raise Failed("other samples in some updates than without faults")
        found = checkpoint.newest(self.path("run")).arrays("parameters.params")
        if set(found) != set(reference["weights"]):
            raise Failed("other parameters")
        for name, value in reference["weights"].items():
            if self.trial.workers <= 2 and found[name].tobytes() != value.tobytes():
                raise Failed(f"{name} is not the same to the bit: {np.abs(found[name] - value).max():.2g}")
            if np.abs(found[name] - value).max() > 1e-4 * np.abs(value).max():
                raise Failed(f"{name} is {np.abs(found[name] - value).max() / np.abs(value).max():.2g} (relative) away")


def _new_files(before):
    """What is new where a program may write that heeds no TMPDIR: sockets in /tmp, shared memory that nobody uses."""
    found = [f"/tmp/{name}" for name in set(os.listdir("/tmp")) - before["/tmp"] if _is_socket(f"/tmp/{name}")]
    return found + [f"/dev/shm/{name}" for name in set(os.listdir("/dev/shm")) - before["/dev/shm"] if _orphan(name)]


def _is_socket(path):
    return os.path.exists(path) and stat.S_ISSOCK(os.lstat(path).st_mode)


def _orphan(name):
    """Whether no living process has this piece of shared memory; else it is that process's."""
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/maps") as file:
                if f"/dev/shm/{name}" in file.read():
                    return False
        except OSError:
            continue
    return os.path.exists(f"/dev/shm/{name}")


class References:
    """Uninterrupted runs, one a configuration, kept in a folder."""

    def __init__(self, folder):
        self._folder = folder

    def get(self, trial):
        """{"weights": {name: array}, "samples": [...], "seconds": s} of a job like this one's."""
        folder = os.path.join(self._folder, f"reference-{trial.workers}-{trial.servers}")
        if not os.path.exists(os.path.join(folder, "facts.json")):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            self._make(folder, Trial(-1, trial.workers, trial.servers, "local", (), stall=120))
        with open(os.path.join(folder, "facts.json")) as file:
            return {**json.load(file), "weights": arrays.load(os.path.join(folder, "weights.params"))}

    def _make(self, folder, trial):
        run = Run(trial, os.path.join(folder, "run"))
        try:
            run.start()
            run.drive()
            if run.popen.returncode or run.attempts:
                raise Failed(f"the run without faults ended with code {run.popen.returncode}:\n{run.text()}")
            seconds = time.monotonic() - run.began
            shutil.copy(os.path.join(checkpoint.newest(run.path("run")).path, "parameters.params"),
                        os.path.join(folder, "weights.params"))
            log = samples.read(run.path("samples"))
            assert len(log) == UPDATES, len(log)
        finally:
            run.close()
        with open(os.path.join(folder, "facts.json.new"), "w") as file:
            json.dump({"samples": list(log.values()), "seconds": seconds}, file)
        os.replace(file.name, os.path.join(folder, "facts.json"))
        shutil.rmtree(run.folder)


def run_trial(trial, folder, references):
    """Run a trial in a new folder and judge it.

    Returns: its line of the table, a dict; "result" is "ok" or what is wrong. The folder stays when it is not "ok".
    """
    reference = references.get(trial)
    os.makedirs(folder)
    before = {place: set(os.listdir(place)) for place in ("/tmp", "/dev/shm")}
    network = None
    if trial.launcher == "ssh" or not NO_NETWORK:
        network = namespaces.Network(pathlib.Path(folder), 3 if trial.launcher == "ssh" else 0)
    run, result, seconds = None, "ok", 0.0
    try:
        run = Run(trial, os.path.join(folder, "job"), network)
        run.start()
        try:
            run.drive()
            seconds = time.monotonic() - run.began
            if run.popen.returncode != 0:
                raise Failed(f"exit code {run.popen.returncode}")
            run.take_back(everything=True)
            run.wait_until_nothing_is_left()
            run.compare(reference)
            left = _new_files(before)
            if left:
                raise Failed("left behind: " + ", ".join(left))
        except Exception as error:      # whatever it is, it is the result of this trial
            result = f"{type(error).__name__}: {error}"
            seconds = seconds or time.monotonic() - run.began
    finally:
        if run is not None:
            run.close()
        if network is not None:
            network.close()
    if result == "ok":
        shutil.rmtree(folder)
    return {"seed": trial.seed, "workers": trial.workers, "servers": trial.servers, "launcher": trial.launcher,
            "faults": [done.text for done in run.hits], "not_reached": [str(fault) for fault in run.unreached],
            "restarts": run.attempts, "restarted_at": run.restarted_at, "seconds": round(seconds, 1),
            "alone": round(reference["seconds"], 1), "load": round(os.getloadavg()[0], 1), "result": result,
            **({} if result == "ok" else {"folder": folder})}
