"""The event loop of a launcher: one thread that waits for output, signals, deaths of children and timers."""
import selectors
import signal
import time

from launch.processes import DeathOrder, Signals, signal_name

__all__ = ["Loop", "Interrupted"]


class Interrupted(Exception):
    """A signal came, or the launcher's front process died, while something was being waited for."""


class Loop:
    """A context: inside it signals are noted, not carried out.

    Args: screen: a Screen, whose slow readers are served too.  front_fd: end of file there means the front has died.
    """

    def __init__(self, screen, front_fd):
        self.signals, self.front_gone = Signals(), False
        self.deaths = 0             # how many roles have ended: who waits looks up when it grows
        self._screen, self._front_fd = screen, front_fd
        self._selector = selectors.DefaultSelector()
        self._children, self._order, self._last_death = {}, DeathOrder(), 0.0
        self._timers = {}           # callback: [due, period]

    def __enter__(self):
        self.signals.__enter__()
        self.watch(self.signals.wakeup_fd, self.signals.drain)
        self.watch(self._front_fd, self._front_died)
        return self

    def __exit__(self, *raised):
        self._selector.close()
        self._order.close()
        self.signals.__exit__(*raised)

    def watch(self, file, callback):
        """Call ``callback()`` whenever ``file`` (a descriptor or what has one) can be read."""
        self._selector.register(file, selectors.EVENT_READ, callback)

    def watch_write(self, file, callback):
        """The same for writing."""
        self._selector.register(file, selectors.EVENT_WRITE, callback)

    def unwatch(self, file):
        """End ``watch`` or ``watch_write``."""
        self._selector.unregister(file)

    def child(self, pid, died):
        """Call ``died(code, when)`` once when this child has ended; code: negative for a signal."""
        self._children[pid] = died
        self._order.add(pid)

    def every(self, period, callback):
        """Call ``callback()`` about every ``period`` seconds; None ends that."""
        if period is None:
            self._timers.pop(callback, None)
        else:
            self._timers[callback] = [time.monotonic() + period, period]

    def pump(self, seconds):
        """Wait up to so long for something to happen, and take it in."""
        self._screen.arm(self._selector)
        if self._timers:
            due = min(timer[0] for timer in self._timers.values())
            seconds = max(0.0, min(seconds, due - time.monotonic()))
        for key, _ in self._selector.select(seconds):
            if self._selector.get_map().get(key.fd) is key:     # an earlier callback may have ended it
                key.data()
        self._bury()
        now = time.monotonic()
        for callback, timer in list(self._timers.items()):
            if timer[0] <= now and callback in self._timers:
                timer[0] = now + timer[1]
                callback()

    def _bury(self):
        """Tell those concerned of children that have ended, in the order in which they did."""
        deaths = []
        while self.signals.deaths:
            deaths.append(self.signals.deaths.popleft())
        for pid, code, when in sorted(deaths, key=lambda death: self._order.rank(death[0])):
            died = self._children.pop(pid, None)        # None: an orphan we were given
            if died is not None:
                self._last_death = max(when, self._last_death + 1e-6)
                died(code, self._last_death)

    def wait(self, seconds):
        """Take in what happens for so long, or until a role has ended."""
        deadline = time.monotonic() + seconds
        deaths = self.deaths
        while True:
            self.pump(max(0.0, deadline - time.monotonic()))
            if self.deaths > deaths or time.monotonic() >= deadline:
                return

    def until(self, condition, seconds):
        """Take in what happens until ``condition()`` is true; returns whether it is within so many seconds.

        Raises: Interrupted.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if self.interrupted:
                raise Interrupted
            if time.monotonic() >= deadline:
                return False
            self.pump(max(0.0, deadline - time.monotonic()))
        return True

    @property
    def interrupted(self):
        """Whether somebody wants the job to end."""
        return bool(self.signals.received) or self.front_gone

    def hurry(self, since):
        """Whether a second Ctrl-C came; one within half a second of the first is the same, sent twice by a wrapper.

        Args: since: when ending began: if nothing was received before, one is enough.
        """
        presses = [when for number, when in self.signals.received if number == signal.SIGINT]
        if not presses:
            return False
        first = self.signals.received[0][1]
        return first >= since or presses[-1] - first > 0.5

    def reason(self):
        """Why it is ``interrupted``: (exit code, words)."""
        if self.front_gone:
            return 137, "the launcher's front process was killed"
        number = self.signals.received[0][0]
        return 128 + number, f"received {signal_name(number)}"

    def _front_died(self):
        self.front_gone = True
        self.unwatch(self._front_fd)
