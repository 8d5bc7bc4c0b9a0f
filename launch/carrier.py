"""Agents started on many hosts by one program (mpirun, srun), which dial in when they are there.

The program is given what they need to know in its environment, which it passes on; nothing secret is on a command
line. When an agent is lost, the program is run once more for each host that lacks one; the others stay as they are.
"""
import os
import shlex
import signal
import subprocess
import time
from typing import NamedTuple

from launch.dialer import INVITATION
from launch.join import DIALER, JoinStarter
from launch.links import Starting
from launch.processes import dies_with, signal_name, start_error

__all__ = ["ProgramStarter", "agent_argv"]

# Run with -c on a host: the checkout's own message when that is not there, in place of Python's, which names no host.
BOOT = ("import os,runpy,socket,sys; sys.argv[:]=sys.argv[1:]; os.path.exists(sys.argv[0]) or sys.exit("
        "'gluonzoo: host %s has no %s: this folder must be on a file system that all hosts share' % "
        "(socket.gethostname(), sys.argv[0])); runpy.run_path(sys.argv[0], run_name='__main__')")
NOISE = "cluster configuration lacks support for cpu binding"       # srun, where it is not needed either
BYE, TERM, KILL = 3.0, 6.0, 1.0     # seconds for the program to end: by itself, after SIGTERM, after SIGKILL


def agent_argv(python):
    """What to run on a host whose environment holds the Invitation."""
    return [python, "-I", "-c", BOOT, DIALER]


class Program(Starting):
    """The program; ``words`` is how it is called. Its agents' complaints come through its standard error."""

    def __init__(self, popen, loop, say, words, until):
        super().__init__(popen, loop, self._hear)
        self.words, self.until = words, until           # until: when those who have not come by then are given up
        self._tell, self.carriers = say, []
        self._boxed, self._first, self._summary = False, "", ""
        self.ended = self._ended

    def _hear(self, text):
        """A line. Open MPI puts what is wrong between two rows of dashes, the gist first."""
        if not text.strip("-"):
            self._boxed = not self._boxed
            self._summary = "" if self._boxed else self._summary
            return
        if text.endswith(NOISE):
            return
        self._first = self._first or text
        if not (self._boxed and self._summary):
            self._summary = text
        self._tell(text if text.startswith(self.words + ":") else f"{self.words}: {text}")

    def ending(self):
        """How it ended, for people."""
        how = f"was killed by {signal_name(-self.code)}" if self.code < 0 else f"ended with code {self.code}"
        said = self._summary if self.carriers else self._first      # what comes after the first error follows from it
        said = said[len(self.words) + 2:] if said.startswith(self.words + ": ") else said
        return f"{self.words} {how}" + (f": {said}" if said else "")

    def _ended(self):
        for carrier in self.carriers:
            carrier.ended()

    def signal(self, number):
        """Send it a signal, if it is still there."""
        if self.code is None:
            try:
                os.kill(self.popen.pid, number)
            except ProcessLookupError:
                return


class Carrier:
    """A Program as one of its links sees it: a link that is given up does not take the others with it."""
    last = ""

    def __init__(self, program):
        self._program, self.ended = program, lambda: None
        program.carriers.append(self)

    @property
    def code(self):
        return self._program.code

    def ending(self):
        """How the program ended."""
        return self._program.ending()

    def kill(self):
        """The program stays."""


class Call(NamedTuple):
    """How the program is run.

    Args: argv: all its words.  variable: in which its agents find the key of ``places``, by which they know which host
        they are.
    """
    argv: tuple
    variable: str
    places: dict


class ProgramStarter(JoinStarter):
    """Starts agents with a program.

    Args: words: the program's name for people.  call: function of places (numbers of hosts) that returns a Call.
        environ: its environment, and of the agents.
    """

    def __init__(self, hosts, options, words, call, environ):
        super().__init__(hosts, options)
        self._words, self._make, self._environ = words, call, environ
        self._programs, self._by_place, self._failures = [], {}, {}

    def missing(self, place):
        """Why a host has no link, "" when it may get one."""
        program = self._by_place.get(place)
        if program is not None and program.code is not None and place in self._expected:
            return program.ending()
        return self._failures.get(place) or super().missing(place)

    def script(self, place):
        """The one command, with the first host."""
        if place:
            return []
        argv = self._make(list(range(len(self._hosts)))).argv
        return [f"# {INVITATION} in its environment holds the launcher's address and the job's key",
                " ".join(map(shlex.quote, argv))]

    def _opened(self):
        """Nobody has to be told."""

    def _closed(self):
        """No file was written."""

    def _carrier(self, place):
        program = self._by_place.get(place)
        return None if program is None else Carrier(program)

    def _call(self, places):
        """Run the program for those hosts it was not run for a moment ago."""
        now = time.monotonic()
        coming = {place: program for place, program in self._by_place.items()
                  if program.code is None and now < program.until and place not in self._given}
        places = [place for place in places if place not in coming]
        # At first all at once. Later each by itself: one host that is gone would fail them all.
        for group in [[place] for place in places] if self._programs else [places] if places else []:
            self._run(group, now)

    def _run(self, places, now):
        """Run the program for these hosts."""
        call = self._make(places)
        for place in places:
            self._failures.pop(place, None)
            self._by_place.pop(place, None)
            self._given.pop(place, None)
        environ = {**self._environ, INVITATION: self._invitation(call.variable, call.places)}
        try:
            popen = subprocess.Popen(call.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, bufsize=0,
                                     stderr=subprocess.PIPE, env=environ, start_new_session=True,
                                     preexec_fn=dies_with(os.getpid()))
        except OSError as error:
            for place in places:
                self._failures[place] = f"{call.argv[0]} could not be started: {start_error(error)[0]}"
            return
        program = Program(popen, self._loop, lambda text: self._say(None, text), self._words,
                          now + self._options.connect_timeout)
        self._programs.append(program)
        for place in places:
            self._by_place[place] = program

    def _dismiss(self):
        """The agents are gone, and what started them is about to go."""
        for seconds, number in ((BYE, signal.SIGTERM), (TERM, signal.SIGKILL), (KILL, None)):
            deadline = time.monotonic() + seconds
            while any(program.code is None for program in self._programs) and time.monotonic() < deadline:
                self._loop.pump(0.1)
            if number is not None:
                for program in self._programs:
                    program.signal(number)
