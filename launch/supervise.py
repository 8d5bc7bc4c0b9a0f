"""Start the processes of a job, watch them, name the first failure, end everything, start again if asked.

One thread and one event loop (``loop.py``): output, signals and deaths wake it; it looks at the workers' progress once
a second. A back end (``local.py``, ``remote.py``) knows where processes run and how they are reached; ``judge``
(``roles.py``) decides from the roles' exit codes alone.

A back end has:
    open(loop, screen)      once, before anything else
    prepare(restart)        the ProcessSpecs of the next attempt; may raise LaunchError
    describe()              one line for the start of an attempt
    start(spec, output)     start one and return its Role; may raise OSError
    trouble()               why the attempt cannot go on though no role has failed, "" while it can
    lost_its_port()         whether a program that is not ours took the scheduler's port
    signal(roles, number)   send a signal to these processes themselves
    alive(), strays(roles)  whether anything of the attempt still runs; Processes that the roles left behind
    end(grace, wait, hurry) end all of the attempt; returns the Processes that could not be ended
    leave()                 the job is over, whatever its end; nothing of it runs any more
    close()                 give everything back
"""
import os
import signal
import time
from typing import NamedTuple, Optional

from launch.loop import Interrupted, Loop
from launch.output import RoleOutput
from launch.processes import end_descendants, exit_code, start_error
from launch.report import Report, plural, text
from launch.roles import FINISHED, ORDERLY, Role, judge, tolerated
from launch.spec import SCHEDULER, LaunchError

__all__ = ["Limits", "Outcome", "Supervisor"]

TICK = 1.0              # seconds between two looks at the progress files
SETTLE = 0.25           # from the first failure to the report: last words, and who else failed by itself
LINGER = 3.0            # all workers are done: time for servers and scheduler to end by themselves
USAGE_WINDOW = 60.0     # exit code 2 this early is a mistake in the command line, not a failure of the job
HOPELESS = 65           # a worker's exit code (EX_DATAERR of sysexits.h): started again, it would end the same way
DEFAULT_STALL = 600.0   # for jobs whose workers report progress
START_PATIENCE = 30.0   # at least so long to the first step of a restart, when an earlier attempt has reported steps
PATIENCE = 2.0          # for a reader of our output that has stopped reading, after a failure
AFTER_STOP = 2.0        # the grace of what has not ended after a stop with a checkpoint: it had its time already

FAILED, LOST, STALLED, NO_START, TIMEOUT = "failed", "lost", "stalled", "no start", "timeout"
INTERRUPTED, NO_READER, CLASH, USAGE, BAD_COMMAND = "interrupted", "no reader", "port clash", "usage", "bad command"
IN_VAIN = "in vain"
RETRIED = (FAILED, LOST, STALLED, NO_START)


class Limits(NamedTuple):
    """Deadlines in seconds; None where the user said nothing, 0 for none at all.

    window: max_restarts counts only restarts within the last so many seconds, None for all.  stop: time for the workers
    to write a checkpoint after SIGTERM, None for none.  tolerate: so many workers may fail.
    """
    job: Optional[float] = None
    stall: Optional[float] = None
    startup: Optional[float] = None
    grace: float = 5.0
    max_restarts: int = 0
    window: Optional[float] = None
    stop: Optional[float] = None
    tolerate: int = 0


class Outcome(NamedTuple):
    """How an attempt ended: ``code`` is the launcher's exit code if it stays with this."""
    kind: str
    code: int
    text: str = ""
    role: Optional[Role] = None


class Supervisor:
    """Runs a job to its end; ``run`` returns the exit code.

    Args: job: a back end.  log_dir: existing folder, as the user shall read it.  front_fd: see Loop.
    """

    def __init__(self, job, limits, screen, log_dir, front_fd):
        self._job, self._limits, self._screen, self._log_dir = job, limits, screen, log_dir
        self._loop, self._report = Loop(screen, front_fd), Report(screen)
        self._roles, self._spared = [], []
        self._restarts = []         # when the job was started again
        self._stepping = False      # whether a step was reported in this attempt
        self._first_step = None     # longest time from a start to that, None while there was none
        self._began = self._attempt_began = time.monotonic()
        self._ending_since = None
        self._next_look = 0.0

    # ---- the whole job ----

    def run(self, processes=None):
        """Start the job, and again until it has finished or may not be started any more.

        Args: processes: what ``job.prepare(0)`` returned, if that was called already.
        Raises: LaunchError when the first ``prepare`` does.
        """
        with self._loop as loop:
            outcome = None
            try:
                self._job.open(loop, self._screen)
                outcome = self._attempts(processes)
            finally:
                try:
                    self._job.leave()
                finally:
                    end_descendants(os.getpid(), 0, loop.wait)  # what the back end needed, or an exception has left
                self._put_away()
                self._job.close()
                patience = None if outcome is not None and outcome.kind == FINISHED else PATIENCE
                known = len(loop.signals.received)
                self._screen.finish(patience, lambda: len(loop.signals.received) > known)
            return outcome.code

    def _attempts(self, processes):
        clashed = False
        outcome = None
        while True:
            if processes is None:
                try:
                    processes = self._job.prepare(len(self._restarts))
                except LaunchError as error:
                    if outcome is None:
                        raise
                    self._say(f"cannot start again: {error}")
                except Interrupted:
                    outcome = self._interruption()
                    self._ending_since = time.monotonic()
                    self._say(outcome.text)
                    self._end(self._limits.grace)
                    return outcome
            if processes is not None:
                outcome = self._attempt(processes)
                processes = None
            if self._loop.interrupted and outcome.kind in RETRIED + (CLASH,):
                return outcome
            if outcome.kind == CLASH and not clashed:
                clashed = True
                self._say("starting once more, on a fresh port")
            elif not (outcome.kind in RETRIED and self._may_restart()):
                return outcome

    def _may_restart(self):
        """Whether another restart is allowed; says so, or why not."""
        most, window, now = self._limits.max_restarts, self._limits.window, time.monotonic()
        recent = len([when for when in self._restarts if window is None or now - when < window])
        within = "" if window is None else f" within {window:g} s"
        if recent < most:
            self._restarts.append(now)
            total = "" if window is None else f"{within}, {len(self._restarts)} in all"
            self._say(f"restart {recent + 1} of {most}{total}")
            return True
        if self._restarts:
            self._say(f"giving up after {plural(recent, 'restart')}{within}")
        return False

    def _attempt(self, processes):
        """Start all roles once, and stay until all of them are gone."""
        self._ending_since, self._next_look, self._spared = None, 0.0, []
        self._attempt_began, self._stepping = time.monotonic(), False
        self._say(f"{self._job.describe()}; logs in {self._log_dir}")
        outcome = self._start(processes) or self._watch()
        self._ending_since = time.monotonic()
        grace = self._limits.grace
        if outcome.kind == FINISHED:
            self._let_end()
        elif outcome.kind == INTERRUPTED and outcome.code == 128 + signal.SIGTERM and self._limits.stop:
            grace = min(grace, AFTER_STOP)
            self._stop(outcome)
        else:
            self._tell(outcome)
        self._end(grace)
        if outcome.kind == FINISHED:
            ended = plural(sum(role.is_worker for role in self._roles) - len(self._spared), "worker")
            spared = f" ({len(self._spared)} had failed)" if self._spared else ""
            self._say(f"finished: {ended} ended with code 0{spared} after {time.monotonic() - self._began:.1f} s")
        return outcome

    # ---- starting ----

    def _start(self, processes):
        """Start every process; returns an Outcome when one cannot be started."""
        self._roles = []
        for spec in processes:
            self._loop.pump(0)
            if self._loop.interrupted:
                break
            try:
                self._roles.append(self._job.start(spec, self._output(spec)))
            except OSError as error:
                why, code = start_error(error)
                what = error.filename or spec.argv[0]
                return Outcome(BAD_COMMAND, code, f"{spec.name} could not be started: {what}: {why}")
        return None

    def _output(self, spec):
        live = spec.role == "worker" and spec.index == 0
        output = RoleOutput(spec.name, os.path.join(self._log_dir, spec.file_stem + ".log"), self._screen, live)
        if self._restarts:
            output.mark(f"=== restart {len(self._restarts)}, {time.strftime('%Y-%m-%d %H:%M:%S')} ===")
        return output

    def _put_away(self):
        """All processes are gone: close what belonged to them."""
        for role in self._roles:
            role.put_away()

    # ---- deciding ----

    def _watch(self):
        """Stay until there is an outcome."""
        while True:
            outcome = self._verdict()
            if outcome is not None:
                return outcome
            self._loop.pump(self._until_next_look())

    def _interruption(self):
        code, words = self._loop.reason()
        return Outcome(INTERRUPTED, code, words)

    def _verdict(self):
        if self._loop.interrupted:
            return self._interruption()
        for role in self._roles:
            if role.refused is not None:
                why, code = role.refused
                return Outcome(BAD_COMMAND, code, f"{role.spec.name} could not be started on {role.spec.host}: {why}")
        first = judge(self._roles, time.monotonic(), self._limits.tolerate)
        self._tell_spared()
        if first == FINISHED:
            return Outcome(FINISHED, 0)
        if first is not None:
            return self._failure()
        trouble = self._job.trouble()
        if trouble:
            return Outcome(LOST, 1, trouble)
        if self._screen.stopped:
            return Outcome(NO_READER, 128 + signal.SIGPIPE, "nobody reads standard output any more")
        return self._overdue()

    def _failure(self):
        """A role has failed: look a moment later who was first, and what it was."""
        deadline = time.monotonic() + SETTLE
        while time.monotonic() < deadline and not self._loop.interrupted:
            self._loop.pump(max(0.0, deadline - time.monotonic()))
        role = judge(self._roles, float("inf"), self._limits.tolerate)
        if role is None or role == FINISHED:        # it was the end of the job after all
            return Outcome(FINISHED, 0) if role else None
        if role.lost:
            return Outcome(LOST, 1, role.lost, role)
        self._look_at_progress()
        no_progress = all(other.progress is None for other in self._roles)
        code = exit_code(role.code) or 1
        if role.spec.role == SCHEDULER and no_progress and self._job.lost_its_port():
            return Outcome(CLASH, code, "another program took the scheduler's port before the scheduler could")
        early = role.ended - self._attempt_began < USAGE_WINDOW
        if role.is_worker and role.code == 2 and early and no_progress:
            return Outcome(USAGE, code, "", role)
        return Outcome(IN_VAIN if role.is_worker and role.code == HOPELESS else FAILED, code, "", role)

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
            role.look()

    def _overdue(self):
        """Whether a deadline has passed."""
        now, limits = time.monotonic(), self._limits
        if limits.job and now - self._began >= limits.job:
            return Outcome(TIMEOUT, 124, f"the job was not done after {limits.job:g} s (--timeout)")
        if now < self._next_look:
            return None
        self._next_look = now + 0.9 * self._until_next_look()
        self._look_at_progress()
        workers = [role for role in self._roles if role.is_worker and role not in self._spared]
        reporting = [role for role in workers if role.progress is not None]
        talking = [role.heard for role in workers if role.heard is not None]
        if not reporting and not talking and limits.startup and now - self._attempt_began >= limits.startup:
            return Outcome(NO_START, 124, f"no worker printed anything or reported a step within {limits.startup:g} s "
                                          "of the start (--startup-timeout)")
        if reporting:
            limit = DEFAULT_STALL if limits.stall is None else limits.stall
            if not self._stepping:
                self._stepping = True
                self._first_step = max(now - self._attempt_began, self._first_step or 0.0)
            latest = max(reporting, key=lambda role: role.progressed)
            if limit and now - latest.progressed >= limit:
                return Outcome(STALLED, 124, f"no worker made progress for {limit:g} s (--stall-timeout); the last was "
                                             f"{latest.spec.name} at step {text(latest.progress)}")
        elif limits.stall and now - max(talking, default=self._attempt_began) >= self._start_limit():
            return Outcome(STALLED, 124, f"no worker printed anything for {self._start_limit():g} s (--stall-timeout), and "
                                         "none reports its steps")
        return None

    def _start_limit(self):
        """The stall limit while no worker has reported a step: a start takes longer than a step does."""
        if self._first_step is None:
            return self._limits.stall
        return max(self._limits.stall, START_PATIENCE, 3 * self._first_step)

    # ---- ending ----

    def _end(self, grace):
        """End whatever is left of an attempt."""
        left = self._job.end(grace, self._loop.wait, lambda: self._loop.hurry(self._ending_since))
        self._loop.pump(0)
        self._put_away()
        for process in left:
            self._say(f"could not end pid {process.pid} ({process.command})")

    def _let_end(self):
        """The workers are done: give the rest time to end by itself, and say what did not."""
        deadline = time.monotonic() + LINGER
        while self._job.alive() and time.monotonic() < deadline and not self._loop.interrupted:
            self._loop.wait(0.1)
        left = self._job.strays(self._roles)
        if left:
            some = ", ".join(f"{process.pid} ({process.command})" for process in left[:8])
            self._say(f"ending {plural(len(left), 'process', 'processes')} left behind by the workers: {some}")
        for role in self._roles:
            if role.code not in (None, 0) and role not in self._spared:
                self._say(f"note: {role.spec.name} {role.ending()} after the workers had finished")

    def _stop(self, outcome):
        """SIGTERM with time to spare: the workers shall write a checkpoint and end by themselves."""
        seconds = self._limits.stop
        self._say(f"{outcome.text}; the workers have {seconds:g} s for a checkpoint (Ctrl-C to end them at once)")
        workers = [role for role in self._roles if role.is_worker and role.code is None]
        before = [role for role in self._roles if role.code not in (None, 0)]
        self._job.signal(workers, signal.SIGUSR1)

        def over():
            return all(role.code is not None for role in workers) or self._loop.hurry(self._ending_since)
        deadline = time.monotonic() + seconds
        while not over() and time.monotonic() < deadline:
            self._loop.wait(min(TICK, max(0.0, deadline - time.monotonic())))
        self._look_at_progress()
        running = [role for role in workers if role.code is None]
        failed = [role for role in self._roles if role.is_worker and role.code not in (None, 0) and role not in before]
        if running:
            names = ", ".join(role.spec.name for role in running[:8]) + (" ..." if len(running) > 8 else "")
            waited = time.monotonic() - self._ending_since
            self._say(f"{names} did not stop within {waited:.1f} s; ending the job")
        elif failed:
            self._say("the workers did not all stop in order: "
                      + ", ".join(f"{role.spec.name} {role.ending()}" for role in failed[:8]))
        else:
            steps = [role.steps for role in workers if role.steps is not None]
            self._say(f"stopped after a checkpoint at step {steps[0]}" if steps else "the workers stopped in order")

    # ---- telling ----

    def _say(self, words):
        self._screen.say(words)

    def _tell(self, outcome):
        """Why the attempt ended, when it was not well."""
        if outcome.kind in (FAILED, USAGE, IN_VAIN):
            after = outcome.role.ended - self._attempt_began
            if outcome.kind == USAGE:
                self._report.usage(outcome.role, after)
            else:
                self._report.failure(outcome.role, after, self._roles, self._spared)
            if outcome.kind == IN_VAIN and self._limits.max_restarts:
                self._say(f"exit code {HOPELESS} says that another start would end the same way; not starting again")
            return
        again = " (once more to kill it at once)" if outcome.code == 128 + signal.SIGINT else ""
        failed = outcome.kind in RETRIED + (TIMEOUT, BAD_COMMAND)
        self._say(f"{'FAILED: ' if failed else ''}{outcome.text}; ending the job{again}")
        if outcome.kind in (STALLED, NO_START, TIMEOUT):
            self._report.standing(self._roles)

    def _tell_spared(self):
        """Workers that have failed and are done without."""
        for role in tolerated(self._roles, self._limits.tolerate):
            if role not in self._spared:
                role.look()
                self._spared.append(role)
                story = self._report.story(role, "", role.ended - self._attempt_began)
                self._say(f"{story}; going on without it ({len(self._spared)} of at most {self._limits.tolerate})")
