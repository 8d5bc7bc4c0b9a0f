"""Where output goes: every role's raw bytes into its log, its lines to the screen, nothing ever waiting for a reader.

All of it is bytes: what a role prints need not be UTF-8. A line ends at a newline; a carriage return inside it
starts it over, so that of a progress bar only its last state is a line. The log keeps everything.
"""
import collections
import errno
import os
import select
import signal
import stat
import time

__all__ = ["Lines", "Outlet", "RoleOutput", "Screen"]

LINE_LIMIT = 1 << 20        # a longer line is shown in pieces of this size
TAIL_LINES = 20
TAIL_WIDTH = 2000           # bytes of a line kept for the report
MEMORY_LIMIT = 8 << 20      # bytes waiting for a slow reader in memory; the rest waits in a file


class Lines:
    """Cut a stream of bytes into lines, carriage returns applied."""

    def __init__(self):
        self._rest = b""
        self._bar = False       # the unfinished line has had a carriage return

    @property
    def live(self):
        """The unfinished line if it is drawn in place (a progress bar), else b""."""
        return self.unfinished if self._bar else b""

    def feed(self, data):
        """Take more of the stream.

        Returns: the lines that ended in it, without their newlines.
        """
        parts = (self._rest + data).split(b"\n")
        rest = parts.pop()
        has_return = b"\r" in data or b"\r" in self._rest
        lines = [_visible(part) for part in parts] if has_return else parts
        if lines:
            self._bar = False
        if b"\r" in rest:
            self._bar = True
            rest = rest[rest.rstrip(b"\r").rfind(b"\r") + 1:]       # what was overwritten is gone
        while len(rest) > LINE_LIMIT:
            lines.append(rest[:LINE_LIMIT])
            rest = rest[LINE_LIMIT:]
        self._rest = rest
        return [piece for line in lines for piece in _pieces(line)]

    @property
    def unfinished(self):
        """What would be visible of the unfinished line, b"" when there is none."""
        return _visible(self._rest)

    def finish(self):
        """The stream has ended; returns the line it left unfinished, if any, as a list."""
        lines = [self.unfinished] if self.unfinished else []
        self._rest, self._bar = b"", False
        return lines


def _visible(line):
    """What a terminal would be left with of a line that has carriage returns."""
    line = line.rstrip(b"\r")
    return line[line.rfind(b"\r") + 1:]


def _pieces(line):
    """A line, cut where it is too long to be one."""
    if len(line) <= LINE_LIMIT:
        return (line,)
    return [line[i:i + LINE_LIMIT] for i in range(0, len(line), LINE_LIMIT)]


class Outlet:
    """Writes to a descriptor whose reader may be slow: never blocks, never loses a byte.

    What is not taken yet waits in memory, beyond MEMORY_LIMIT in a nameless file in ``spill_dir``. ``broken`` tells
    why nothing can be written any more (an errno), 0 while all is well; ``lost`` counts bytes for which that file
    had no room.
    """

    def __init__(self, fd, spill_dir="."):
        self.is_tty = os.isatty(fd)
        self.broken = self.lost = 0
        self._fd, self._own, self._chunk = fd, None, 4096
        self._spill_dir, self._spill, self._read_at, self._end_at = spill_dir, None, 0, 0
        self._memory, self._size = collections.deque(), 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        mode = os.fstat(fd).st_mode
        self._always = stat.S_ISREG(mode)
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            # O_NONBLOCK belongs to the open file, which the caller's shell shares: open it once more for ourselves.
            try:
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._own = os.open(f"/proc/self/fd/{fd}", flags)
                self._fd, self._chunk = self._own, 65536
            except OSError:
                pass        # not ours to open: small writes, each after a poll, do not block either

    def fileno(self):
        """For a selector."""
        return self._fd

    @property
    def pending(self):
        """Whether something waits to be written."""
        return self.waiting > 0

    def write(self, data):
        """Write now what goes without waiting, and keep the rest."""
        if not self.broken and data:
            rest = data if self.pending else self._push(data)
            if rest and not self.broken:
                self._keep(bytes(rest))

    def flush(self):
        """Write what is waiting, as far as it goes without waiting."""
        while self.pending and not self.broken:
            rest = self._push(self._take())
            if rest:
                self._memory.appendleft(bytes(rest))
                self._size += len(rest)
                return

    @property
    def waiting(self):
        """How many bytes wait."""
        return self._size + self._end_at - self._read_at

    def close(self):
        """Forget what is waiting and close what was opened here; later writes go nowhere."""
        self._forget()
        self.broken = self.broken or errno.EBADF
        if self._own is not None:
            os.close(self._own)
            self._own = None

    def _forget(self):
        if self._spill is not None:
            self._spill.close()
            self._spill = None
        self._read_at = self._end_at = self._size = 0
        self._memory.clear()

    def _push(self, data):
        """Returns what could not be written yet."""
        view = memoryview(data)
        try:
            while view:
                if self._own is None and not self._always and not self._poll.poll(0):
                    break
                view = view[os.write(self._fd, view[:self._chunk]):]
        except BlockingIOError:
            return view
        except OSError as error:
            self.broken = error.errno or errno.EIO
            self._forget()      # the descriptor itself stays open: a selector may still know its number
            return b""
        return view

    def _keep(self, data):
        """Put data at the end of what waits."""
        if self._read_at == self._end_at and self._size + len(data) <= MEMORY_LIMIT:
            self._memory.append(data)
            self._size += len(data)
            return
        try:
            if self._spill is None:
                import tempfile  # slow to import and hardly ever needed
                self._spill = tempfile.TemporaryFile(dir=self._spill_dir, buffering=0)
            self._spill.seek(self._end_at)
            while data:
                written = self._spill.write(data)
                self._end_at += written
                data = data[written:]
        except OSError:             # no room: the role's own log is all there is
            self.lost += len(data)

    def _take(self):
        """Take the next piece of what waits."""
        if self._memory:
            data = self._memory.popleft()
            self._size -= len(data)
            return data
        self._spill.seek(self._read_at)
        data = self._spill.read(min(1 << 20, self._end_at - self._read_at))
        self._read_at += len(data)
        if self._read_at == self._end_at:
            self._spill.truncate(0)
            self._read_at = self._end_at = 0
        return data


def _same_file(one, other):
    a, b = os.fstat(one), os.fstat(other)
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


class Screen:
    """The launcher's standard output (the roles' lines) and standard error (its own), in one order.

    On a terminal the last line may be *live*: it is redrawn in place and other lines appear above it.
    Args: log: file object (binary, unbuffered) that also gets the launcher's own lines.
    """

    def __init__(self, out_fd=1, err_fd=2, log=None, spill_dir="."):
        self.out = Outlet(out_fd, spill_dir)
        self.err = self.out if _same_file(out_fd, err_fd) else Outlet(err_fd, spill_dir)
        self._terminal_fd = out_fd
        self._log = log
        self._outlets = [self.out] if self.out is self.err else [self.out, self.err]
        self._live, self._drawn, self._told = b"", False, False
        self._registered = set()

    @property
    def stopped(self):
        """Whether whoever read our standard output has gone, so that the job has lost its purpose.

        A terminal that is gone (EIO) counts unless we were told to outlive it (nohup ignores SIGHUP); other errors,
        a full disk for one, leave the logs.
        """
        gone = (errno.EPIPE,) if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (errno.EPIPE, errno.EIO)
        return self.out.broken in gone

    def lines(self, prefix, lines):
        """Show lines of a role."""
        if lines:
            start = b"\n" + prefix
            self._print(self.out, prefix + start.join(lines) + b"\n")

    def live(self, text):
        """Redraw the live line; b"" takes it away."""
        if self.out.is_tty and text != self._live:
            self._live = text
            if not self.out.pending:    # a slow terminal misses a few states of the bar, but no line
                self._print(self.out, b"")

    def say(self, text):
        """Show lines of the launcher itself."""
        data = b"".join(b"launch: " + line.encode("utf-8", "surrogateescape") + b"\n" for line in text.split("\n"))
        self.raw(data)

    def raw(self, data):
        """Show bytes of the launcher's as they are (whole lines)."""
        if self._log is not None:
            try:
                self._log.write(data)
            except OSError:
                self._log = None        # a full disk: the roles' own logs tell of it
        self._print(self.err, data)

    def _print(self, outlet, data):
        if outlet is self.out:
            data = (b"\r\x1b[K" if self._drawn else b"") + data + self._fit(self._live)
            self._drawn = bool(self._live)
        outlet.write(data)

    def _fit(self, text):
        """Cut to the width of the terminal: a line that wraps cannot be redrawn in place."""
        if not text:
            return b""
        try:
            columns = os.get_terminal_size(self._terminal_fd).columns or 80
        except OSError:
            columns = 80
        return text.decode("utf-8", "replace")[:columns - 1].encode("utf-8")

    def arm(self, selector):
        """Have the selector wake us when a reader that was slow can take more; to be called before each select."""
        if self.out.broken and not self.stopped and not self._told:
            self._told = True
            self.say(f"cannot write to standard output: {os.strerror(self.out.broken)}; the logs go on")
        for outlet in self._outlets:
            waits = outlet.pending and not outlet.broken
            if waits and outlet not in self._registered:
                try:
                    selector.register(outlet, 2, outlet.flush)      # 2: selectors.EVENT_WRITE
                except PermissionError:                             # a file: always writable, not for epoll
                    outlet.flush()
                    continue
                self._registered.add(outlet)
            elif not waits and outlet in self._registered:
                self._registered.discard(outlet)
                selector.unregister(outlet)

    def finish(self, patience, stop):
        """Write what is waiting and close.

        Args: patience: seconds without one byte taken after which we stop waiting, None for no limit.
            stop: called without arguments; True when the wait shall end.
        """
        self.live(b"")
        for outlet in self._outlets:
            last = time.monotonic()
            while outlet.pending and not outlet.broken and not stop():
                before = outlet.waiting
                select.select([], [outlet], [], 0.2)
                outlet.flush()
                if outlet.waiting != before:
                    last = time.monotonic()
                elif patience is not None and time.monotonic() - last > patience:
                    break
            lost = 0 if outlet.broken else outlet.lost + outlet.waiting
            outlet.close()
            if lost:
                self.say(f"{lost} bytes of output were not shown, nobody read them; the logs have all")


class RoleOutput:
    """Everything one role prints: raw into its log, by lines to the screen, the last of it kept for a report.

    Args: live: its unfinished line may be the screen's live line.
    """

    def __init__(self, name, log_path, screen, live=False):
        self.log_path = log_path
        self._name, self._screen, self._is_live = name, screen, live
        self._prefix = b"[" + name.encode() + b"] "
        self._log = open(log_path, "ab", buffering=0)
        self._lines = Lines()
        self._tail = collections.deque(maxlen=TAIL_LINES)

    def feed(self, data):
        """Take what the role has printed."""
        self._write_log(data)
        self._show(self._lines.feed(data))
        if self._is_live:
            live = self._lines.live
            self._screen.live(self._prefix + live if live else b"")

    def finish(self):
        """The role prints no more."""
        self._show(self._lines.finish())
        if self._is_live:
            self._screen.live(b"")
        if self._log is not None:
            self._log.close()
            self._log = None

    def mark(self, text):
        """Write a separator into the log only."""
        self._write_log(text.encode("utf-8") + b"\n")

    def tail(self):
        """The last lines, for a report."""
        last = self._lines.unfinished[:TAIL_WIDTH]
        return (list(self._tail) + ([last] if last else []))[-TAIL_LINES:]

    def _show(self, lines):
        self._tail.extend(line[:TAIL_WIDTH] for line in lines[-TAIL_LINES:])
        if self._is_live and lines:
            self._screen.live(b"")
        self._screen.lines(self._prefix, lines)

    def _write_log(self, data):
        view = memoryview(data)
        try:
            while view and self._log is not None:
                view = view[self._log.write(view):]
        except OSError as error:        # a full disk: the job may still save what it has
            self._screen.say(f"cannot write {self.log_path} any more: {error.strerror}")
            self._log.close()
            self._log = None
