#!/usr/bin/env python3
"""What runs in the pods of a job around launch.py and agents.

    pod.py agent HOST:PORT --key-file FILE --first N    dials the launcher, again and again until it says goodbye
    pod.py ready                                        exit code 0 while that agent hears its launcher
    pod.py run LAUNCHER WORDS ...                       runs the launcher; see below
    pod.py listening PORT                               exit code 0 while a process here listens on that port

The agent's place among the job's hosts is N and the pod's number in its Job (JOB_COMPLETION_INDEX). An exit code above
128 comes out of ``run`` only when a signal came to this pod: when one killed a worker the launcher ends with such a
code too, but then the job has failed, and to Kubernetes the difference is whether it shall begin again.
"""
import argparse
import os
import signal
import sys
import time

if not __package__:     # run as a file: import the package this file is in, not its files one by one
    _HERE = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [os.path.dirname(_HERE)] + [entry for entry in sys.path if os.path.realpath(entry or ".") != _HERE]

__all__ = ["main"]

# The time of this file is that of the launcher's last heartbeat; it is there while there is a link.
STATE = os.path.join(os.environ.get("TMPDIR") or "/tmp", "gluonzoo-linked")
WITHIN = 10.0           # seconds: several heartbeats
GIVE_UP = 1800.0        # seconds without a launcher: long enough for another node to be found for it
PAUSE = 1.0             # between two lives
PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WRONG_USE = 2


def _parser():
    parser = argparse.ArgumentParser(prog="pod.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    kinds = parser.add_subparsers(dest="what", required=True)
    add = kinds.add_parser("agent").add_argument
    add("launcher", metavar="HOST:PORT")
    add("--key-file", required=True, metavar="FILE")
    add("--first", type=int, default=0, metavar="N", help="place of the Job's first pod among the hosts")
    add("--index-from", default="JOB_COMPLETION_INDEX", metavar="VARIABLE")
    add("--connect-timeout", type=float, default=60.0, metavar="S")
    add("--give-up", type=float, default=GIVE_UP, metavar="S")
    add("--state", default=STATE, metavar="FILE")
    add = kinds.add_parser("ready").add_argument
    add("--within", type=float, default=WITHIN, metavar="S")
    add("--state", default=STATE, metavar="FILE")
    kinds.add_parser("listening").add_argument("port", type=int)
    kinds.add_parser("run").add_argument("words", nargs=argparse.REMAINDER)
    return parser


def main(argv=None):
    """The program; returns the exit code."""
    options = _parser().parse_args(argv)
    if options.what == "ready":
        return _ready(options.state, options.within)
    if options.what == "listening":
        return 0 if _listening(options.port) else _complain(f"nobody listens on port {options.port}", 1)
    if options.what == "run":
        child = _Child()
        code = child.run(lambda: os.execvp(options.words[0], options.words))
        return code if code < 128 or child.stopped else 1
    text = os.environ.get(options.index_from, "")
    if not text.isdigit():
        return _complain(f"expected the pod's number in {options.index_from}, got {text!r}", WRONG_USE)
    return _Lives(["--key-file", options.key_file, "--index", str(options.first + int(text)), "--connect-timeout",
                   f"{options.connect_timeout:g}", options.launcher], options.state, options.give_up).run()


def _complain(words, code):
    sys.stderr.write(f"pod: {words}\n")
    return code


def _ready(state, within):
    try:
        silent = time.time() - os.stat(state).st_mtime
    except OSError:
        return _complain("no link to the launcher", 1)
    return 0 if silent < within else _complain(f"nothing was heard from the launcher for {silent:.0f} s", 1)


def _listening(port):
    """Whether a TCP socket of this pod listens there; nothing is connected to find out."""
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(file) as lines:
                rows = [line.split() for line in lines][1:]
        except OSError:         # a kernel without IPv6
            continue
        if any(row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port for row in rows):
            return True
    return False


class _Child:
    """Children of this process, one after the other, to which it passes signals on."""

    def __init__(self):
        self.stopped = None         # the signal that came
        self._pid = None
        for number in PASSED:
            signal.signal(number, self._pass_on)

    def run(self, body):
        """Run ``body()``, whose result is the exit code, in a child; returns that, or 128 + signal."""
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED)        # until it is known whom to pass signals on to
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                for number in PASSED:
                    signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED)
                code = body()
            finally:
                if sys.exc_info()[0] is not None:
                    sys.excepthook(*sys.exc_info())
                os._exit(code)
        self._pid = pid
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED)
        if self.stopped:            # between two children
            self._pass_on(self.stopped, None)
        while True:                 # as a pod's first process this one gets orphans, too
            dead, status = os.waitpid(-1, 0)
            if dead == pid:
                self._pid = None
                return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def _pass_on(self, number, _frame):
        self.stopped = number
        if self._pid is not None:
            os.kill(self._pid, number)


class _Lives:
    """One agent after the other: a launcher that is lost may come back elsewhere.

    Args: words: for dialer.py.  state: see STATE.  give_up: seconds without a launcher.
    """

    def __init__(self, words, state, give_up):
        self._words, self._state, self._give_up = words, state, give_up

    def run(self):
        """Returns: the last agent's exit code."""
        child, heard = _Child(), time.time()
        while True:
            began = time.monotonic()
            code = child.run(lambda: _serve(self._words, self._state))
            heard = max(heard, self._take_state())
            if code in (0, WRONG_USE) or child.stopped:
                return code
            if time.time() - heard >= self._give_up:
                return _complain(f"no launcher for {self._give_up:g} s; giving up", code)
            time.sleep(max(0.0, PAUSE - (time.monotonic() - began)))

    def _take_state(self):
        """When the launcher was last heard; there is no link any more."""
        try:
            last = os.stat(self._state).st_mtime
            os.unlink(self._state)
            return last
        except OSError:
            return 0.0


def _serve(words, state):
    """An agent's life."""
    from launch import agent, dialer

    class Linked(agent.Agent):
        """Leaves a sign of each word from the launcher."""

        def _do_hello(self, **fields):
            super()._do_hello(**fields)
            _touch(state)

        def _do_beat(self):
            _touch(state)
    agent.Agent = Linked
    return dialer.main(words)


def _touch(path):
    try:
        with open(path, "w"):
            os.utime(path)
    except OSError as error:
        _complain(f"{path}: {error.strerror}", 0)


if __name__ == "__main__":
    sys.exit(main())
