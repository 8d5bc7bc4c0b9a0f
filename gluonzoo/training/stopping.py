"""Stopping in good order: signals that ask for it, and how all workers come to stop after the same update."""
import collections
import contextlib
import signal
import threading

from ..distributed import cluster

__all__ = ["StopRequest", "Agreement"]

#: Updates between a vote and its reading. By then the sum has long arrived, so reading it lets nobody wait; every worker
#: reads at the same distance, so all act after the same update.
DELAY = 2


class StopRequest:
    """Whether somebody asked this run to stop, write a checkpoint, and end.

    Attributes: reason: what asked, for example "SIGTERM", or None.
    """

    def __init__(self):
        self.reason = None

    @property
    def asked(self):
        """Whether a stop was asked for."""
        return self.reason is not None

    def ask(self, reason):
        """Ask for a stop after the update under way."""
        self.reason = self.reason or reason

    def _heard(self, number, _):
        self.ask(signal.Signals(number).name)
        if number == signal.SIGTERM:
            # The second one ends the process at once.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    @contextlib.contextmanager
    def on_signals(self):
        """Within, SIGUSR1 asks for a stop and, unless a launcher watches this process, SIGTERM too.

        To workers a launcher sends SIGTERM when they are to end at once. A SIGUSR1 that was blocked since the program's start
        (`hold`) arrives on entering; one that comes after leaving does nothing. Outside the main thread this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        numbers = [signal.SIGUSR1] if cluster.in_job() else [signal.SIGUSR1, signal.SIGTERM]
        before = {number: signal.signal(number, self._heard) for number in numbers}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        try:
            yield self
        finally:
            if before[signal.SIGUSR1] == signal.SIG_DFL:
                # Too late to matter, it must not kill a run that is about to end well.
                before[signal.SIGUSR1] = signal.SIG_IGN
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


class Agreement:
    """Has all workers stop after the same update: votes travel with the gradients and are read a little later.

    A worker alone, and one of an asynchronous job, decides for itself.

    Args: request: `StopRequest`; trainer: `Trainer`.
    """

    def __init__(self, request, trainer):
        self._request, self._trainer = request, trainer
        self._votes = collections.deque()
        self._alone = not trainer.kvstore.is_distributed or trainer.kvstore.is_async

    def note(self):
        """Take in the votes of the update just made; call it after every update."""
        if not self._alone:
            self._votes.append(self._trainer.votes)

    def reached(self, delay=DELAY):
        """Whether to stop now; the same answer on every worker that asks after the same update with the same delay.

        Args: delay: number of latest votes that are left for later; 0 waits for all of them.
        """
        if self._alone:
            return self._request.asked
        votes = 0
        while len(self._votes) > delay:
            votes += float(self._votes.popleft().asscalar())
        if votes:
            self._request.ask("a signal to another worker")
        return votes > 0
