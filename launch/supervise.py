"""Start the processes of a job, watch them, name the first failure, end everything, start again if asked.

One thread and one event loop: the roles' output, signals and deaths wake it; it looks at the workers' progress files
once a second. ``judge`` decides from the roles' exit codes alone and knows nothing of processes.
"""
import os
import selectors
import signal
import subprocess
import time
from typing import NamedTuple, Optional

from launch.output import RoleOutput
from launch.processes import (
    DeathOrder,
    Signals,
    descendants,
    dies_with,
    end_descendants,
    exit_code,
    signal_name,
    start_error,
)
from launch.spec import SCHEDULER, WORKER, LaunchError

__all__ = ["Limits", "Outcome", "Supervisor", "judge"]

TICK = 1.0              # seconds between two looks at the progress files
SETTLE = 0.25           # from the first failure to the report: last words, and who else failed by itself
ORDERLY = 2.0           # a server that ended with 0 while workers run: time for the job to prove this is its end
LINGER = 3.0            # all workers are done: time for servers and scheduler to end by themselves
USAGE_WINDOW = 60.0     # exit code 2 this early is a mistake in the command line, not a failure of the job
DEFAULT_STALL = 600.0   # for jobs whose workers report progress
PIPE_SIZE = 1 << 20
READ_SIZE = 1 << 18
PATIENCE = 2.0          # for a reader of our output that has stopped reading, after a failure

FINISHED, FAILED, STALLED, NO_START, TIMEOUT = "finished", "failed", "stalled", "no start", "timeout"
SIGNALLED, NO_READER, FRONT_GONE, CLASH, USAGE, BAD_COMMAND = (
    "signalled", "no reader", "front gone", "port clash", "usage", "bad command")
RETRIED = (FAILED, STALLED, NO_START)


class Limits(NamedTuple):
    """Deadlines in seconds; None where the user said nothing, 0 for none at all."""
    job: Optional[float] = None
    stall: Optional[float] = None
    startup: Optional[float] = None
    grace: float = 5.0
    max_restarts: int = 0


class Outcome(NamedTuple):
    """How an attempt ended: ``code`` is the launcher's exit code if it stays with this."""
    kind: str
    code: int
    text: str = ""
    role: Optional["Role"] = None


class Role:
    """One process of the job and what is known about it; times are of the monotonic clock."""

    def __init__(self, spec, progress_file):
        self.spec, self.progress_file = spec, progress_file
        self.popen = self.output = self.fd = None
        self.pid = 0
        self.started = self.heard = self.ended = self.progressed = None
        self.code = None            # None while it runs; negative: the signal that ended it
        self.progress = None        # what its progress file holds, None while there is nothing

    @property
    def is_worker(self):
        return self.spec.role == WORKER

    def ending(self):
        """``exited with code 3`` or ``was killed by SIGKILL``."""
        if self.code < 0:
            return f"was killed by {signal_name(-self.code)}"
        return f"exited with code {self.code}"


def judge(roles, now):
    """Decide from exit codes whether a job is over.

    - a worker that ends with anything but 0 has failed;
    - so has a server or scheduler that ends while workers run, at once if its code is not 0, after ORDERLY seconds
      if it is: when all of them end with 0, ps-lite has shut down in good order, and the workers may finish alone;
    - when all workers have ended with 0 the job has finished, whatever becomes of the others.

    Args: roles: objects with is_worker, code (None while running) and ended.  now: same clock as ended.
    Returns: None (goes on), FINISHED, or the role that failed first.
    """
    workers = [role for role in roles if role.is_worker]
    helpers = [role for role in roles if not role.is_worker]
    if all(role.code == 0 for role in workers):
        return FINISHED
    orderly = all(role.code == 0 for role in helpers)
    suspects = [role for role in workers if role.code not in (None, 0)]
    suspects += [role for role in helpers if role.code is not None and not orderly]
    if any(role.code != 0 or now - role.ended >= ORDERLY for role in suspects):
        return min(suspects, key=lambda role: role.ended)
    return None


class Supervisor:
    """Runs a job to its end; ``run`` returns the exit code.

    Args: job: a back end's job (``LocalJob``): prepare, command, describe, progress_file, lost_its_port.
        log_dir: existing folder, as the user shall read it.  front_fd: end of file there means the front has died.
    """

    def __init__(self, job, limits, screen, log_dir, front_fd):
        self._job, self._limits, self._screen = job, limits, screen
        self._log_dir, self._front_fd = log_dir, front_fd
        self._selector = selectors.DefaultSelector()
        self._signals = Signals()
        self._roles, self._by_pid = [], {}
        self._order, self._last_death = DeathOrder(), 0.0
        self._front_gone = False
        self._began = self._attempt_began = time.monotonic()
        self._ending_since = None
        self._next_look = 0.0

    # ---- the whole job ----

    def run(self, processes):
        """Start the job, and again until it has finished or may not be started any more.

        Args: processes: what ``job.prepare(0)`` returned.
        """
        with self._signals:
            self._selector.register(self._signals.wakeup_fd, selectors.EVENT_READ, self._signals.drain)
            self._selector.register(self._front_fd, selectors.EVENT_READ, self._front_died)
            outcome = None
            try:
                outcome = self._attempts(processes)
            finally:
                end_descendants(os.getpid(), 0, self._wait)     # nothing, unless an exception brought us here
                self._put_away()
                self._job.close()
                patience = None if outcome is not None and outcome.kind == FINISHED else PATIENCE
                known = len(self._signals.received)
                self._screen.finish(patience, lambda: len(self._signals.received) > known)
                self._selector.close()
                self._order.close()
            return outcome.code

    def _attempts(self, processes):
        restart, clashed = 0, False
        while True:
            outcome = self._attempt(processes, restart)
            if self._interrupted() and outcome.kind in RETRIED + (CLASH,):
                return outcome
            if outcome.kind == CLASH and not clashed:
                clashed = True
                self._say("starting once more, on a fresh port")
            elif outcome.kind in RETRIED and restart < self._limits.max_restarts:
                restart += 1
                self._say(f"restart {restart} of {self._limits.max_restarts}")
            else:
                if outcome.kind in RETRIED and restart:
                    self._say(f"giving up after {_plural(restart, 'restart')}")
                return outcome
            try:
                processes = self._job.prepare(restart)
            except LaunchError as error:
                self._say(f"cannot start again: {error}")
                return outcome

    def _attempt(self, processes, restart):
        """Start all roles once, and stay until all of them are gone."""
        self._ending_since, self._next_look = None, 0.0
        self._attempt_began = time.monotonic()
        self._say(f"{self._job.describe()}; logs in {self._log_dir}")
        outcome = self._start(processes, restart) or self._watch()
        self._ending_since = time.monotonic()
        if outcome.kind == FINISHED:
            self._let_end()
        else:
            self._report(outcome)
        left = end_descendants(os.getpid(), self._limits.grace, self._wait, self._in_a_hurry)
        self._pump(0)
        self._put_away()
        for process in left:
            self._say(f"could not end pid {process.pid} ({process.command})")
        if outcome.kind == FINISHED:
            workers = _plural(sum(role.is_worker for role in self._roles), "worker")
            self._say(f"finished: {workers} ended with code 0 after {time.monotonic() - self._began:.1f} s")
        return outcome

    # ---- starting ----

    def _start(self, processes, restart):
        """Start every process; returns an Outcome when one cannot be started."""
        self._roles, self._by_pid = [], {}
        for spec in processes:
            self._pump(0)
            if self._interrupted():
                break
            role = Role(spec, self._job.progress_file(spec) if spec.role == WORKER else None)
            try:
                if role.progress_file and os.path.lexists(role.progress_file):
                    os.unlink(role.progress_file)       # of an earlier attempt or job
                self._start_role(role, restart)
            except OSError as error:
                why, code = start_error(error)
                what = error.filename or spec.argv[0]
                return Outcome(BAD_COMMAND, code, f"{spec.name} could not be started: {what}: {why}")
        return None

    def _start_role(self, role, restart):
        spec = role.spec
        argv, env = self._job.command(spec)
        live = spec.role == WORKER and spec.index == 0
        output = RoleOutput(spec.name, os.path.join(self._log_dir, spec.file_stem + ".log"), self._screen, live)
        if restart:
            output.mark(f"=== restart {restart}, {time.strftime('%Y-%m-%d %H:%M:%S')} ===")
        read_end, write_end = os.pipe()
        try:
            _widen(read_end)
            role.popen = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=write_end,
                                          stderr=subprocess.STDOUT, start_new_session=True,
                                          preexec_fn=dies_with(os.getpid()))
        except BaseException:
            os.close(read_end)
            output.finish()
            raise
        finally:
            os.close(write_end)
        os.set_blocking(read_end, False)
        role.pid, role.fd, role.output, role.started = role.popen.pid, read_end, output, time.monotonic()
        self._selector.register(read_end, selectors.EVENT_READ, lambda: self._read(role))
        self._roles.append(role)
        self._by_pid[role.pid] = role
        self._order.add(role.pid)

    # ---- the event loop ----

    def _pump(self, seconds):
        """Wait up to so long for something to happen, and take it in."""
        self._screen.arm(self._selector)
        for key, _ in self._selector.select(seconds):
            key.data()
        deaths = []
        while self._signals.deaths:
            deaths.append(self._signals.deaths.popleft())
        for pid, code, when in sorted(deaths, key=lambda death: self._order.rank(death[0])):
            role = self._by_pid.pop(pid, None)      # None: an orphan we were given
            if role is not None:
                role.code = role.popen.returncode = code
                role.ended = self._last_death = max(when, self._last_death + 1e-6)
                self._drain(role)

    def _wait(self, seconds):
        """Take in what happens for so long, or until a role has died."""
        deadline = time.monotonic() + seconds
        running = len(self._by_pid)
        while True:
            self._pump(max(0.0, deadline - time.monotonic()))
            if len(self._by_pid) < running or time.monotonic() >= deadline:
                return

    def _read(self, role):
        """Take in what a role has printed; returns whether there may be more."""
        if role.fd is None:
            return False
        try:
            data = os.read(role.fd, READ_SIZE)
        except BlockingIOError:
            return False
        if not data:
            self._hang_up(role)
            return False
        role.heard = time.monotonic()
        role.output.feed(data)
        return True

    def _drain(self, role):
        """Take in what is in the pipe of a role that has died; its children may go on filling it."""
        for _ in range(4 * PIPE_SIZE // READ_SIZE):
            if not self._read(role):
                return

    def _hang_up(self, role):
        if role.fd is not None:
            self._selector.unregister(role.fd)
            os.close(role.fd)
            role.fd = None
            role.output.finish()

    def _put_away(self):
        """All processes are gone: close what belonged to them."""
        for role in self._roles:
            self._drain(role)
            self._hang_up(role)
            if role.popen.returncode is None:       # could not be ended: subprocess shall not wait for it either
                role.popen.returncode = -signal.SIGKILL

    def _front_died(self):
        self._front_gone = True
        self._selector.unregister(self._front_fd)

    # ---- deciding ----

    def _watch(self):
        """Stay until there is an outcome."""
        while True:
            outcome = self._verdict()
            if outcome is not None:
                return outcome
            self._pump(self._until_next_look())

    def _verdict(self):
        if self._front_gone:
            return Outcome(FRONT_GONE, 137, "the launcher's front process was killed")
        if self._signals.received:
            number = self._signals.received[0][0]
            return Outcome(SIGNALLED, 128 + number, f"received {signal_name(number)}")
        first = judge(self._roles, time.monotonic())
        if first == FINISHED:
            return Outcome(FINISHED, 0)
        if first is not None:
            return self._failure()
        if self._screen.stopped:
            return Outcome(NO_READER, 128 + signal.SIGPIPE, "nobody reads standard output any more")
        return self._overdue()

    def _failure(self):
        """A role has failed: look a moment later who was first, and what it was."""
        deadline = time.monotonic() + SETTLE
        while time.monotonic() < deadline and not self._interrupted():
            self._pump(max(0.0, deadline - time.monotonic()))
        role = judge(self._roles, float("inf"))
        if role is None or role == FINISHED:        # it was the end of the job after all
            return Outcome(FINISHED, 0) if role else None
        self._look_at_progress()
        no_progress = all(other.progress is None for other in self._roles)
        code = exit_code(role.code) or 1
        if role.spec.role == SCHEDULER and no_progress and self._job.lost_its_port():
            return Outcome(CLASH, code, "another program took the scheduler's port before the scheduler could")
        early = role.ended - self._attempt_began < USAGE_WINDOW
        if role.is_worker and role.code == 2 and early and no_progress:
            return Outcome(USAGE, code, "", role)
        return Outcome(FAILED, code, "", role)

    def _until_next_look(self):
        """How long nothing can happen unless something wakes us."""
        given = [s for s in (self._limits.job, self._limits.stall, self._limits.startup) if s]
        tick = min([TICK] + [s / 4 for s in given])
        if any(role.code == 0 and not role.is_worker for role in self._roles):
            tick = min(tick, ORDERLY / 8)
        if self._limits.job:
            tick = min(tick, max(0.0, self._began + self._limits.job - time.monotonic()) + 0.001)
        return tick

    def _look_at_progress(self):
        for role in self._roles:
            if role.progress_file is None:
                continue
            try:
                with open(role.progress_file, "rb") as file:
                    text = file.read(200).strip()
            except OSError:
                continue            # not written yet
            if text and text != role.progress:      # empty: just being rewritten
                role.progress, role.progressed = text, time.monotonic()

    def _overdue(self):
        """Whether a deadline has passed."""
        now, limits = time.monotonic(), self._limits
        if limits.job and now - self._began >= limits.job:
            return Outcome(TIMEOUT, 124, f"the job was not done after {limits.job:g} s (--timeout)")
        if now < self._next_look:
            return None
        self._next_look = now + 0.9 * self._until_next_look()
        self._look_at_progress()
        workers = [role for role in self._roles if role.is_worker]
        reporting = [role for role in workers if role.progress is not None]
        talking = [role.heard for role in workers if role.heard is not None]
        if not reporting and not talking and limits.startup and now - self._attempt_began >= limits.startup:
            return Outcome(NO_START, 124, f"no worker printed anything or reported a step within {limits.startup:g} s "
                                          "of the start (--startup-timeout)")
        if reporting:
            limit = DEFAULT_STALL if limits.stall is None else limits.stall
            latest = max(reporting, key=lambda role: role.progressed)
            if limit and now - latest.progressed >= limit:
                return Outcome(STALLED, 124, f"no worker made progress for {limit:g} s (--stall-timeout); the last was "
                                             f"{latest.spec.name} at step {_text(latest.progress)}")
        elif limits.stall and now - max(talking, default=self._attempt_began) >= limits.stall:
            return Outcome(STALLED, 124, f"no worker printed anything for {limits.stall:g} s (--stall-timeout), and "
                                         "none reports its steps")
        return None

    # ---- ending ----

    def _interrupted(self):
        return bool(self._signals.received) or self._front_gone

    def _in_a_hurry(self):
        """A second Ctrl-C; one within half a second of the first is the same, sent twice by a wrapper around us."""
        presses = [when for number, when in self._signals.received if number == signal.SIGINT]
        if not presses:
            return False
        if self._signals.received[0][1] >= self._ending_since:      # it came while we were ending: one is enough
            return True
        return presses[-1] - self._signals.received[0][1] > 0.5

    def _let_end(self):
        """The workers are done: give the rest time to end by itself, and say what did not."""
        deadline = time.monotonic() + LINGER
        alive = descendants(os.getpid())
        while alive and time.monotonic() < deadline and not self._interrupted():
            self._wait(0.1)
            alive = descendants(os.getpid())
        mine = {role.pid for role in self._roles}
        left = [process for process in alive if process.pid not in mine and process.ppid not in mine]
        if left:
            some = ", ".join(f"{process.pid} ({process.command})" for process in left[:8])
            self._say(f"ending {_plural(len(left), 'process', 'processes')} left behind by the workers: {some}")
        for role in self._roles:
            if role.code not in (None, 0):
                self._say(f"note: {role.spec.name} {role.ending()} after the workers had finished")

    # ---- telling ----

    def _say(self, text):
        self._screen.say(text)

    def _report(self, outcome):
        if outcome.kind in (FAILED, USAGE):
            self._report_failure(outcome)
            return
        again = " (once more to kill it at once)" if outcome.code == 128 + signal.SIGINT else ""
        failed = outcome.kind in RETRIED + (TIMEOUT, BAD_COMMAND)
        self._say(f"{'FAILED: ' if failed else ''}{outcome.text}; ending the job{again}")
        if outcome.kind in (STALLED, NO_START, TIMEOUT):
            self._report_standing()

    def _report_failure(self, outcome):
        role = outcome.role
        after = role.ended - self._attempt_began
        tail = role.output.tail()
        if outcome.kind == USAGE:
            last = ": " + _text(tail[-1]) if tail else ""
            self._say(f"{role.spec.name} exited with code 2 (wrong use) after {after:.1f} s{last}")
            return
        while_running = "" if role.is_worker else " while workers were running"
        step = "" if role.progress is None else ", at step " + _text(role.progress)
        self._say(f"FAILED: {role.spec.name} {role.ending()}{while_running} after {after:.1f} s{step} "
                  f"(host {role.spec.host}, pid {role.pid})")
        log = role.output.log_path
        if tail:
            self._say(f"its last {_plural(len(tail), 'line')} (all in {log}):")
            self._screen.raw(b"".join(b"    " + line + b"\n" for line in tail))
        else:
            self._say(f"it printed nothing (log: {log})")
        others = [other for other in self._roles if other is not role and other.code not in (None, 0)]
        if others:
            self._say("others followed: " + ", ".join(
                f"{other.spec.name} {other.ending()} {other.ended - role.ended:.2f} s later"
                for other in sorted(others, key=lambda other: other.ended)))

    def _report_standing(self):
        """Where each worker stood when a deadline passed."""
        now = time.monotonic()
        workers = [role for role in self._roles if role.is_worker]
        for role in workers[:16]:
            if role.code is not None:
                state = role.ending()
            else:
                state = "no step reported" if role.progress is None else "step " + _text(role.progress)
                state += ", printed nothing" if role.heard is None else f", last output {now - role.heard:.1f} s ago"
            tail = role.output.tail()
            self._say(f"  {role.spec.name} (pid {role.pid}): {state}" + (": " + _text(tail[-1]) if tail else ""))
        if len(workers) > 16:
            self._say(f"  and {len(workers) - 16} more")


def _widen(fd):
    """A larger pipe lets a role run on while we are busy; without the right to it the usual size does."""
    import fcntl
    try:
        fcntl.fcntl(fd, 1031, PIPE_SIZE)        # F_SETPIPE_SZ, which the fcntl module knows from Python 3.10 on
    except OSError:
        return


def _plural(number, word, words=None):
    return f"{number} {word if number == 1 else words or word + 's'}"


def _text(data, limit=300):
    """Bytes of a role's as one readable piece of a line."""
    return " ".join(data[:limit].decode("utf-8", "replace").split())
