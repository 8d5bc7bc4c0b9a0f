"""One agent's link as the launcher sees it, and the roles behind it.

A link is *coming* until the agent has answered, then it is *there*, and when anything is wrong with it, it is *gone*,
for ever: ``why`` tells the reason, the roles behind it are lost, and the host needs a new link.
"""
import os
import signal
import time

from launch import wire
from launch.output import Lines
from launch.processes import Process, signal_name
from launch.protocol import TO_LAUNCHER, checked
from launch.roles import Role

__all__ = ["Link", "RemoteRole", "Starting"]

READ_SIZE = 1 << 18
LAST_WORDS = 1.0        # seconds from the end of a link to the death of the program that carried it
SSH_FAILED = 255        # ssh's own exit code, when it is not that of the remote command


class RemoteRole(Role):
    """A role that an agent has been asked to start; what is known of it comes through the link."""

    def __init__(self, spec, output, link, index):
        super().__init__(spec, output)
        self.link, self.index = link, index

    def end(self, code, when):
        """Take in that it has ended."""
        self.code, self.ended = code, when

    def lose(self, why):
        """Its host is gone."""
        self.lost = why
        self.end(1, time.monotonic())


class Starting:
    """The local program that carries a link (ssh), and what it says on its standard error.

    Args: popen: with stderr a pipe.  say: shows a line.
    """

    def __init__(self, popen, loop, say):
        self.popen, self.code, self.last = popen, None, ""
        self._loop, self._say, self._lines = loop, say, Lines()
        self._fd = popen.stderr.fileno()
        self.ended = lambda: None
        os.set_blocking(self._fd, False)
        loop.watch(self._fd, self._read)
        loop.child(popen.pid, self._died)

    def _read(self):
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return False
        except ValueError:
            return False
        lines = self._lines.feed(data) if data else self._lines.finish()
        for line in lines:
            text = line.decode("utf-8", "replace").strip()
            if text:
                self.last = text
                self._say(text)
        if not data:
            self._hang_up()
        return bool(data) and self._fd >= 0

    def _hang_up(self):
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            self.popen.stderr.close()
            self._fd = -1

    def _died(self, code, _when):
        self.popen.returncode = self.code = code
        while self._fd >= 0 and self._read():
            continue
        self._hang_up()
        self.ended()

    def ending(self):
        """How it ended, for people: its exit code is ssh's."""
        if self.code == SSH_FAILED:
            return self.last or "ssh failed without a word"
        if self.code is not None and self.code < 0:
            return f"ssh was killed by {signal_name(-self.code)}"
        last = f": {self.last}" if self.last else ""
        return f"the agent's ssh ended with code {self.code}{last}"

    def kill(self):
        """End it at once."""
        if self.code is None:
            try:
                os.kill(self.popen.pid, signal.SIGKILL)
            except ProcessLookupError:
                return


class Link:
    """What the launcher and one agent say to one another.

    Args: place: the host's number.  name: its name.  timeout: seconds of silence after which it is gone.
        read_fd, write_fd: owned by the link from now on.  starting: the Starting that carries it, None for a socket.
        say: shows a line about the host.
    """

    def __init__(self, place, name, loop, timeout, read_fd, write_fd, starting=None, say=lambda text: None):
        self.place, self.name, self.starting = place, name, starting
        self.ready = None           # what the agent said of its host, when it is there
        self.why = ""               # it is gone
        self.answers = {}           # the last message of each kind that answers one of ours
        self.trouble = ""           # why what was asked last cannot be done
        self.broken = ""            # a connection between hosts ended in an error
        self.failed = ""            # the attempt cannot succeed
        self.roles = {}             # RemoteRole by number
        self.left = False           # we took leave: whatever ends now, ends in order
        self._loop, self._timeout, self._say = loop, timeout, say
        self._heard = time.monotonic()
        self._in, self._out = read_fd, write_fd
        self._sender, self._unpacker, self._armed = wire.Sender(write_fd), wire.Unpacker(), False
        for fd in (read_fd, write_fd):
            os.set_blocking(fd, False)
        loop.watch(read_fd, self._read)
        self._ended_at = None
        if starting is not None:
            starting.ended = self._carrier_ended

    @property
    def there(self):
        return self.ready is not None and not self.why

    # ---- to the agent ----

    def send(self, op, **fields):
        """Say something; to a link that is gone, nothing."""
        self.raw(wire.message(op, **fields))

    def raw(self, data):
        """Send bytes as they are, before the first frame: the agent's own program."""
        if not self.why:
            self._sender.send(data)
            self._flush()

    def ask(self, op, answer, **fields):
        """Say something that will be answered with ``answer``."""
        self.answers.pop(answer, None)
        self.trouble = ""
        self.send(op, **fields)

    def _flush(self):
        try:
            self._sender.flush()
        except OSError as error:
            self._end(f"its link broke: {error.strerror}")
            return
        if self._sender.pending != self._armed:
            self._armed = self._sender.pending
            if self._armed:
                self._loop.watch_write(self._out, self._flush)
            else:
                self._loop.unwatch(self._out)

    # ---- from the agent ----

    def _read(self):
        """Returns whether there may be more."""
        try:
            data = os.read(self._in, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError as error:
            self._end(f"its link broke: {error.strerror}")
            return False
        if not data:
            self._end("its link ended")
            return False
        self._heard = time.monotonic()
        try:
            for kind, index, payload in self._unpacker.feed(data):
                if kind == wire.OUTPUT:
                    if index in self.roles:
                        self.roles[index].hear(payload)
                else:
                    self._take(*checked(payload, TO_LAUNCHER))
        except wire.WireError as error:
            self.close(f"its link broke: {error}")
        return not self.why

    def _take(self, op, fields):
        if op == "ready":
            self.ready = self.answers[op] = fields
        elif op in ("ports", "routed", "ended"):
            self.answers[op] = fields
        elif op == "trouble":
            self._say(fields["text"])
            if fields["fatal"]:
                self.trouble = fields["text"]
            if fields["about"] == "channel":
                self.failed = fields["text"]
        elif op == "broken":
            self.broken = fields["text"]
            self._say(self.broken)
        elif op in ("started", "failed", "exit", "progress"):
            role = self.roles.get(fields["index"])
            if role is not None and role.code is None:
                self._take_of_role(role, op, fields)

    def _take_of_role(self, role, op, fields):
        now = time.monotonic()
        if op == "started":
            role.pid, role.started = fields["pid"], now
        elif op == "progress":
            role.report(fields["text"].encode("utf-8", "replace")[:200])
        elif op == "failed":
            role.refused = fields["why"], fields["code"]
            role.end(fields["code"], now)
            self._loop.deaths += 1
        else:
            role.end(fields["code"], now - fields["ago"])
            self._loop.deaths += 1

    # ---- its end ----

    def check(self):
        """End a link that is silent."""
        silent = time.monotonic() - self._heard
        if self.there and silent >= self._timeout:
            self.close(f"nothing was heard from it for {silent:.0f} s (--host-timeout)")

    def _end(self, why):
        """The stream has ended: who carried it knows better why, and tells in a moment."""
        starting = self.starting
        if starting is None or starting.code is not None or self._ended_at is not None:
            self.close(why if starting is None or starting.code is None else self._story())
            return
        self._ended_at = time.monotonic()
        self._put_down()
        self._loop.every(LAST_WORDS, self._waited)

    def _waited(self):
        self._loop.every(None, self._waited)
        self.close("its link ended")

    def _carrier_ended(self):
        while self._in is not None and not self.why and self._ended_at is None and self._read():
            continue
        self.close(self._story())

    def _story(self):
        text = self.starting.ending()
        if self.ready is None and self.starting.code == SSH_FAILED:
            return f"ssh could not connect: {text}"
        if self.ready is None and self.starting.code in (126, 127):
            return f"its Python could not be started (--remote-python): {self.starting.last}"
        return text

    def _put_down(self):
        """No reading and no writing any more."""
        if self._in is not None:
            self._loop.unwatch(self._in)
            if self._armed:
                self._loop.unwatch(self._out)
            self._armed = False
            for fd in {self._in, self._out}:
                os.close(fd)
            self._in = self._out = None
            self._sender = _Nowhere()

    def close(self, why):
        """The link is gone from now on; the roles behind it are lost."""
        if self.why:
            return
        self.why = why
        self._put_down()
        self._loop.every(None, self._waited)
        if self.starting is not None:
            self.starting.kill()
        running = [role for role in self.roles.values() if role.code is None]
        names = ", ".join(role.spec.name for role in running[:8]) + (", ..." if len(running) > 8 else "")
        for role in running:
            role.lose(f"host {self.name} lost ({names}): {why}")
            self._loop.deaths += 1

    def left_behind(self):
        """Processes the agent could not end, when it was told to end everything."""
        found = self.answers.get("ended", {}).get("left", [])
        return [Process(pid, 0, "?", f"{command} on {self.name}") for pid, command in found]


class _Nowhere:
    """In the place of a Sender when there is nobody to send to."""
    pending = False

    def send(self, _frame):
        """Nothing."""

    def flush(self):
        """Nothing."""
