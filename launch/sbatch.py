"""A job handed to Slurm: submitted, its output shown as it comes, its exit code made ours, cancelled with us."""
import os
import re
import signal
import subprocess
import sys
import time

from launch.processes import signal_name, start_error
from launch.spec import LaunchError

__all__ = ["write", "run"]

COMMAND_LIMIT = 60          # seconds for one of Slurm's commands
TICK = 0.25                 # seconds between two looks at the output
ASK = (1.0, 5.0)            # seconds between two questions about the job: at first, and in the long run
QUIET = 1.0                 # seconds without news after the job's end: all output has come through the file system
MARGIN = 15.0               # seconds for the launcher in the job to end what it has started
LEAVE = 90.0                # seconds for Slurm to end a job: KillWait is 30 by default
FINAL = {"COMPLETED": 0, "FAILED": 1, "CANCELLED": 143, "TIMEOUT": 124, "DEADLINE": 124, "NODE_FAIL": 1, "PREEMPTED": 1,
         "BOOT_FAIL": 1, "OUT_OF_MEMORY": 1, "REVOKED": 1}


def write(path, text):
    """Keep the script; values of --env may stand in it, so it is for its owner."""
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700), "w", encoding="utf-8",
                  errors="surrogateescape") as file:
            file.write(text)
    except OSError as error:
        raise LaunchError(f"cannot write the script {path}: {error.strerror}") from None


def run(path, log_dir, stop, wait=True):
    """Submit a script and stay until its job has ended.

    Args: log_dir: where its output goes.  stop: seconds the launcher in the job may take after SIGTERM.  wait: False to
        come back when it is submitted.
    Returns: an exit code.
    Raises: LaunchError when it cannot be submitted.
    """
    code, out, err = _command("sbatch", "--parsable", path)
    number = out.strip().partition(";")[0]
    if code or not number.isdigit():
        raise LaunchError(f"sbatch ended with code {code}: {_short(err or out)}")
    job = Job(number, os.path.join(log_dir, f"slurm-{number}.out"), stop)
    job.say(f"submitted as job {number}: {path}; its output goes to {job.output}")
    return job.follow() if wait else 0


class Job:
    """A job of Slurm's, seen from the terminal it came from."""

    def __init__(self, number, output, stop):
        self.number, self.output, self._stop = number, output, stop
        self._at, self._state, self._told = 0, {}, ""
        self._received = []             # signals
        self._deadline = None           # when what is to be ended has to have ended
        self._harder = False            # scancel was called

    def say(self, words):
        """A line for the person at the terminal."""
        sys.stderr.write(f"launch: {words}\n")
        sys.stderr.flush()

    def follow(self):
        """Stay to its end; returns the exit code."""
        old = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            return self._follow()
        except BrokenPipeError:
            self.say(f"nobody reads standard output any more; job {self.number} goes on")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)        # for Python's own last flush
            return 128 + signal.SIGPIPE
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _note(self, number, _frame):
        self._received.append(number)

    def _follow(self):
        period, known = ASK[0], 0
        asked = time.monotonic() - period
        while True:
            if time.monotonic() - asked >= period:
                asked, period = time.monotonic(), min(ASK[1], period * 1.3)
                if self._look():
                    return self._end()
            news = self._show()
            if len(self._received) > known:
                known = len(self._received)
                if signal.SIGHUP in self._received:
                    self.say(f"received SIGHUP; job {self.number} goes on (scancel {self.number} ends it)")
                    return 128 + signal.SIGHUP
                self._cancel()
                period = ASK[0]
            if self._deadline is not None and time.monotonic() >= self._deadline:
                if self._harder:
                    self.say(f"job {self.number} has not ended; see scontrol show job {self.number}")
                    return 128 + self._received[0]
                self._cancel()
            if not news:
                time.sleep(TICK)

    # ---- what Slurm says ----

    def _look(self):
        """Ask for the job's state, and tell when it is another; returns whether it is over."""
        code, out, err = _command("scontrol", "show", "job", self.number)
        if code:
            if "Invalid job id" in err:     # it ended long ago, for Slurm
                self._state = {}
                return True
            return False                    # the controller does not answer now
        self._state = dict(re.findall(r"(?:^|\s)(JobState|Reason|ExitCode|NodeList|Restarts)=(\S*)", out))
        state = self._state.get("JobState", "")
        if state == "PENDING":
            told = "waits" + self._reason()
        elif state == "RUNNING":
            told = f"runs on {self._state.get('NodeList')}"
        else:
            return state in FINAL
        if self._state.get("Restarts", "0") != "0":
            told += f", restart {self._state['Restarts']}"
        if told != self._told:
            self._told = told
            self.say(f"job {self.number} {told}")
        return False

    def _end(self):
        """It is over: show the rest, and find its exit code."""
        quiet = time.monotonic() + QUIET
        while time.monotonic() < quiet:
            if self._show():
                quiet = time.monotonic() + QUIET
            time.sleep(TICK)
        if not os.path.exists(self.output):
            self.say(f"there is no {self.output}; the log folder must be on a file system that all hosts share "
                     "(--log-dir)")
        state = self._state.get("JobState")
        code = FINAL.get(state, 1)
        if state == "FAILED":
            exited, _, killed = self._state.get("ExitCode", "1:0").partition(":")
            code = int(exited) or (128 + int(killed) if int(killed or 0) else 1)
        if self._received and code:
            code = 128 + self._received[0]
        nodes = self._state.get("NodeList", "(null)")
        if nodes != "(null)" and not self._told.startswith("runs on"):    # it was over before it was seen to run
            self.say(f"job {self.number} ran on {nodes}")
        how = f"ended: {state}{self._reason()}" if state else "is not known to Slurm any more"
        self.say(f"job {self.number} {how}" + (f", exit code {code}" if code else ""))
        return code

    def _reason(self):
        reason = self._state.get("Reason", "None")
        return "" if reason == "None" else f" ({reason})"

    # ---- output ----

    def _show(self):
        """Copy what has been written since the last look; returns whether there was something."""
        try:
            with open(self.output, "rb") as file:
                file.seek(self._at)
                data = file.read(1 << 20)
        except OSError:             # not there yet
            return False
        self._at += len(data)
        if data:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        return bool(data)

    # ---- ending it ----

    def _cancel(self):
        """SIGTERM for the launcher in the job, which ends it in order; scancel when that is not enough."""
        name = signal_name(self._received[0])
        if self._deadline is None:
            self._look()        # what is known may be seconds old: a job that runs by now must not be cut off
        now = time.monotonic()
        if self._state.get("JobState") == "RUNNING" and self._deadline is None:
            self.say(f"received {name}; ending job {self.number} (once more to cancel it at once)")
            _command("scancel", "--batch", "--signal=TERM", self.number)
            self._deadline = now + self._stop + MARGIN
        elif not self._harder:
            self.say(f"{'received ' + name + '; ' if self._deadline is None else ''}cancelling job {self.number}")
            _command("scancel", self.number)
            self._harder, self._deadline = True, now + LEAVE
        else:
            self._deadline = now        # asked for a third time


def _command(*argv):
    """One of Slurm's commands: exit code, output, complaints."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=COMMAND_LIMIT, start_new_session=True)
    except OSError as error:
        raise LaunchError(f"{argv[0]} could not be run: {start_error(error)[0]}") from None
    except subprocess.TimeoutExpired:
        return 1, "", f"no answer within {COMMAND_LIMIT} s"
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def _short(text):
    return " ".join(text.split())[:500] or "no message"
