"""The agent of a host: the launcher's hands there.

It starts the roles it is told to, sends what they print, their steps and their exit codes over the link, and ends
everything below it when it is told to, when the link ends and when the launcher is silent for too long. A job on one
host needs no agent.

As with the launcher there are two processes: a keeper, which kills an agent that does nothing any more, ends what a killed
one leaves behind and removes its folder, and the agent itself (``processes.keep``).
"""
import collections
import os
import select
import selectors
import shutil
import sys
import time

from launch import ports as all_ports
from launch import wire
from launch.agent_roles import PREFIX, READ_SIZE, Roles
from launch.agent_tunnels import LOCAL, Tunnels
from launch.facts import facts
from launch.loop import Interrupted, Loop
from launch.processes import end_descendants, keep
from launch.protocol import TO_AGENT, checked
from launch.spec import LaunchError

__all__ = ["main", "KEY_VARIABLE"]

TIMEOUT = 20.0              # seconds of silence after which the launcher counts as gone, until it says how many
GRACE = 5.0                 # for the roles when there is nobody to say how long, unless the launcher has said
BEAT, TICK = 2.0, 1.0       # seconds between two beats, between two looks at the progress files
LONGEST = 10.0              # of grace when the launcher is gone: it may be starting the job elsewhere
PATIENCE = 2.0              # at the end, for a link that takes nothing
STUCK = 2.0                 # an agent that is silent for so much longer than the launcher waits is killed by its keeper
KEY_VARIABLE = "GLUONZOO_AGENT_KEY"


def main(argv=(), dial=None):
    """Serve a launcher until it says goodbye or is gone; returns the exit code.

    Args: dial: how to reach the launcher through its channel, a dict with address ([host, port]), target and timeout;
        the key is in the environment then, under KEY_VARIABLE. None: it is at the other end of standard input and
        output.
    """
    key = os.environ.pop(KEY_VARIABLE, None)        # the roles have no use for it
    link = _take_over(dial is None)
    if argv or (dial is not None and key is None):
        sys.stderr.write(f"error: launch.agent takes no arguments, and a key in {KEY_VARIABLE} to dial; "
                         f"got {list(argv)} and {'a' if key else 'no'} key\n")
        return 2
    given = os.environ.get("TMPDIR", "")            # it may have come along from another machine
    folder = os.path.join(given if os.path.isdir(given) else "/tmp", PREFIX + os.urandom(8).hex())
    try:
        return keep(lambda front_fd, pulse: Agent(front_fd, folder, pulse).run(link, key, dial))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take_over(is_link):
    """Standard input and output as two new descriptors; nothing printed by mistake can reach the link then.

    ``sys.stderr`` becomes one that neither waits nor fails: it may be a pipe to a connection that is no more, and an
    error there must not keep the keeper from its work.
    """
    link = (os.dup(0), os.dup(1)) if is_link else None
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    sys.stderr = _Complaints()
    return link


class _Complaints:
    """A standard error for a few words."""

    def write(self, text):
        try:
            poll = select.poll()
            poll.register(2, select.POLLOUT)
            if poll.poll(0):
                os.write(2, text.encode("utf-8", "backslashreplace")[:4096])    # so much goes at once
        except OSError:
            pass
        return len(text)

    def flush(self):
        """Nothing is kept."""


class Agent:
    """One link's life.

    Args: front_fd: end of file there means the keeper has died.  folder: for progress files, made when there is need.
        pulse: tells the keeper that we are alive, and when it is to hear so again.
    """

    def __init__(self, front_fd, folder, pulse):
        self._loop = Loop(self, front_fd)
        self._folder, self._sender, self._pulse = folder, None, pulse
        self._unpacker, self._inbox = wire.Unpacker(), collections.deque()
        self._armed = self._mute = False        # mute: nothing can be written any more
        self._lost = None                       # why nothing more will be heard from the launcher
        self._heard, self._timeout, self._grace = time.monotonic(), TIMEOUT, GRACE
        self._reservation = all_ports.Reservation()
        self._tunnels, self._roles = Tunnels(self._loop, self.send), None

    # ---- the link ----

    def send(self, op, **fields):
        """Tell the launcher something."""
        if self._sender is not None:
            self._sender.send(wire.message(op, **fields))

    def arm(self, selector):
        """For the loop, before each wait: write what goes, and have it wake us when the link takes more."""
        if self._sender is None:
            return
        self._flush()
        waits = self._sender.pending and not self._mute
        if waits and not self._armed:
            selector.register(self._out, selectors.EVENT_WRITE, self._flush)
        elif self._armed and not waits:
            selector.unregister(self._out)
        self._armed = waits

    def _flush(self):
        if not self._mute:
            try:
                self._sender.flush()
            except OSError as error:
                self._mute = True
                self._lose(f"the link to the launcher broke: {error.strerror}")
        self._roles.flushed()

    def _receive(self):
        try:
            data = os.read(self._in, READ_SIZE)
            if not data:
                self._lose("the link to the launcher ended")
            for kind, _, payload in self._unpacker.feed(data):
                if kind != wire.MESSAGE:
                    raise wire.WireError("received output, which only agents send")
                self._inbox.append(checked(payload, TO_AGENT))
            self._heard = time.monotonic()
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(f"the link to the launcher broke: {error.strerror}")
        except wire.WireError as error:
            self.send("trouble", about="link", text=str(error), fatal=True)
            self._lose(str(error))

    def _lose(self, why):
        """Listen no more; the first reason counts."""
        if self._lost is None:
            self._lost, self._roles.unheard = why, True
            self._loop.unwatch(self._in)

    def _beat(self):
        self.send("beat")
        # When the launcher has given us up it starts the roles elsewhere: they must not run on here.
        self._pulse(self._timeout + STUCK)

    # ---- from the first message to the last ----

    def run(self, link, key=None, dial=None):
        """Serve until there is no more reason to; returns the exit code.

        Args: link: (descriptor to read, descriptor to write); None: ``dial`` with ``key``.
        """
        with self._loop:
            try:
                code, why = self._connect(link, key, dial) or self._serve()
                if why:
                    sys.stderr.write(f"gluonzoo agent: {why}; ending\n")
            finally:
                self._close()
            return code

    def _connect(self, link, key, dial):
        """Returns: exit code and reason when there is no link, else None."""
        try:
            if link is None:
                fd = self._tunnels.dial(key, **dial)
                link = fd, os.dup(fd)
            self._in, self._out = link
            for fd in link:
                os.set_blocking(fd, False)
            self._sender = wire.Sender(self._out)
            self._roles = Roles(self._loop, self._sender, self._folder)
            self._loop.watch(self._in, self._receive)
        except Interrupted:
            return self._loop.reason()
        except PermissionError:         # epoll's word for a file
            return 2, "standard input is neither a pipe nor a socket with a launcher at its other end"
        except LaunchError as error:
            return 1, str(error)
        self._heard = time.monotonic()
        self._pulse(self._timeout + STUCK)
        self._loop.every(BEAT, self._beat)
        self._loop.every(TICK, self._roles.look)
        return None

    def _serve(self):
        """Returns: exit code and reason; no reason when the launcher says goodbye."""
        while True:
            if self._inbox:
                op, fields = self._inbox.popleft()
                if op == "bye":
                    return 0, None
                getattr(self, "_do_" + op)(**fields)
            elif self._lost:
                return 1, self._lost
            elif self._loop.front_gone:
                return 1, "its keeper was killed"
            elif self._loop.interrupted:
                return self._loop.reason()
            elif self._is_silent and self._still_silent():
                return 1, f"nothing was heard from the launcher for {self._timeout:g} s"
            self._loop.pump(0 if self._inbox else max(0.0, self._heard + self._timeout - time.monotonic()))

    @property
    def _is_silent(self):
        return time.monotonic() - self._heard >= self._timeout

    def _still_silent(self):
        self._loop.pump(0)          # if it is us who were stopped, its words are waiting
        return not self._inbox and self._is_silent

    def _close(self):
        """End and remove everything that is ours."""
        if self._roles is not None:
            self._roles.unheard = True          # goodbye has been said, or there is nobody to say it
            self._end_roles(self._grace)
            last, written = time.monotonic(), self._sender.written
            while self._sender.pending and not self._mute and time.monotonic() - last < PATIENCE:
                self._loop.pump(0.1)
                if self._sender.written != written:
                    last, written = time.monotonic(), self._sender.written
        self._reservation.close()
        self._tunnels.close()
        end_descendants(os.getpid(), 0, self._loop.wait)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end_roles(self, grace):
        """End everything but the channel; a shorter grace asked for meanwhile, or a signal, makes it quick."""
        known, began = len(self._loop.signals.received), time.monotonic()

        def hurry():
            alone = self._lost or self._loop.front_gone or self._is_silent
            return (any(op == "end" and fields["grace"] < grace for op, fields in self._inbox)
                    or len(self._loop.signals.received) > known
                    or (alone and time.monotonic() - began > LONGEST))
        return self._roles.end(grace, hurry, self._tunnels.pids)

    # ---- what the launcher may ask for (protocol.py) ----

    def _do_beat(self):
        """Having been heard is all."""

    def _do_hello(self, version, host, timeout, key, listen, grace=GRACE, cwd=None, path=()):
        self._timeout, self._grace = timeout, grace
        self._loop.every(min(BEAT, timeout / 4), self._beat)
        self._pulse(timeout + STUCK)

        def ready(port):
            self.send("ready", version=version, channel_port=port, pid=os.getpid(), **facts(cwd, path))
        if key is None:
            ready(None)
        else:
            self._tunnels.open(key, host, listen or [LOCAL, 0], ready)

    def _do_ports(self, ports, own):
        self._reservation.close()
        self._reservation = all_ports.Reservation()
        taken = []
        for port in sorted({*ports, *own}):
            try:
                if not self._take_port(port):
                    taken.append(port)
            except OSError as error:        # one open file a port
                self.send("trouble", about="ports", fatal=True,
                          text=f"cannot lock port {port}: {error.strerror} (ulimit -n)")
                return
        self.send("ports", taken=taken)

    def _take_port(self, port):
        """Keep other launchers from a port, without listening on it; returns whether it could be had."""
        lock = all_ports.lock_of(port)
        if lock is None:
            return False
        try:
            if all_ports.is_free(LOCAL, port):
                self._reservation.add(port, lock)
                return True
        except LaunchError:             # not for this user
            pass
        lock.close()
        return False

    def _do_routes(self, routes, serve):
        self._tunnels.route(routes, serve)

    def _do_start(self, index, role, argv, env, cwd, worker):
        self._roles.start(index, argv, env, cwd, worker)

    def _do_signal(self, indexes, number):
        why = self._roles.signal(indexes, number)
        if why:
            self.send("trouble", about="signal", text=why, fatal=False)

    def _do_end(self, grace):
        left = self._end_roles(grace)
        self._reservation.close()
        self._tunnels.clear()
        self._sender.send(wire.message("ended", left=left), last=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
