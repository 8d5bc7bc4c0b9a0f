"""A process of the job as the supervisor knows it, on whatever machine it runs, and what exit codes mean together."""
import time

from launch.processes import signal_name
from launch.spec import WORKER

__all__ = ["Role", "judge", "tolerated", "FINISHED", "ORDERLY"]

ORDERLY = 2.0           # a server that ended with 0 while workers run: time for the job to prove this is its end
FINISHED = "finished"


class Role:
    """One process of the job and what is known about it; times are of the monotonic clock.

    Back ends derive from it; its methods are called by them, or by the supervisor where they say so.
    """

    def __init__(self, spec, output):
        self.spec, self.output = spec, output
        self.pid = 0
        self.started = self.heard = self.ended = self.progressed = None
        self.code = None            # None while it runs; negative: the signal that ended it
        self.lost = ""              # why, when its host is gone: nobody knows its code then, 1 is assumed
        self.refused = None         # (why, exit code) when it could not be started
        self.progress = None        # what its progress file holds, None while there is nothing

    @property
    def is_worker(self):
        return self.spec.role == WORKER

    @property
    def steps(self):
        """The step it has reached, None when it does not tell."""
        return self.progress.split()[0].decode("utf-8", "replace") if self.progress else None

    def ending(self):
        """``exited with code 3`` or ``was killed by SIGKILL``."""
        if self.lost:
            return "was lost with its host"
        if self.code < 0:
            return f"was killed by {signal_name(-self.code)}"
        return f"exited with code {self.code}"

    def hear(self, data):
        """Take in what it has printed."""
        self.heard = time.monotonic()
        self.output.feed(data)

    def report(self, text):
        """Take in what its progress file holds."""
        if text and text != self.progress:      # empty: just being rewritten
            self.progress, self.progressed = text, time.monotonic()

    def look(self):
        """For the supervisor: find out about its progress, where that does not come by itself."""

    def drain(self):
        """For the supervisor: take in what it has printed and is still on its way to us."""

    def put_away(self):
        """For the supervisor: nothing more will come from it."""
        self.drain()
        self.output.finish()


def judge(roles, now, tolerate=0):
    """Decide from exit codes whether a job is over.

    - a worker that ends with anything but 0 has failed, unless it is among the first ``tolerate`` to do so;
    - so has a server or scheduler that ends while workers run, at once if its code is not 0, after ORDERLY seconds
      if it is: when all of them end with 0, ps-lite has shut down in good order, and the workers may finish alone;
    - when all workers have ended with 0 the job has finished, whatever becomes of the others.

    Args: roles: objects with is_worker, code (None while running) and ended.  now: same clock as ended.
    Returns: None (goes on), FINISHED, or the role that failed first.
    """
    spared = tolerated(roles, tolerate)
    workers = [role for role in roles if role.is_worker and role not in spared]
    helpers = [role for role in roles if not role.is_worker]
    if all(role.code == 0 for role in workers):
        return FINISHED
    orderly = all(role.code == 0 for role in helpers)
    suspects = [role for role in workers if role.code not in (None, 0)]
    suspects += [role for role in helpers if role.code is not None and not orderly]
    if any(role.code != 0 or now - role.ended >= ORDERLY for role in suspects):
        return min(suspects, key=lambda role: role.ended)
    return None


def tolerated(roles, limit):
    """The workers that have failed and are spared: the first ``limit`` of them, never worker 0, on which all rely."""
    if not limit:
        return []
    workers = [role for role in roles if role.is_worker]
    failed = [role for role in workers[1:] if role.code not in (None, 0)]
    return sorted(failed, key=lambda role: role.ended)[:limit]
