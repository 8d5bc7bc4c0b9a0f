"""The processes of a `pool.Pool`: started on their processors, handed pieces, mourned and replaced, ended."""
import collections
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading

from ..errors import UserError

__all__ = ["PoolError", "Workers"]

#: Pieces a process may be ahead of the results that were taken.
AHEAD = 16
#: Deaths in a row, without a piece done between, after which a process is not started again.
DEATHS = 3
#: Images named in a message.
NAMED = 5


class PoolError(RuntimeError):
    """No process of a pool is left, or what one ran failed in a way that is not the image's."""


class Workers:
    """The processes, a thread of this one with each."""

    def __init__(self, parts, setup, tell):
        self._setup, self._tell = json.dumps(setup).encode() + b"\n", tell
        self._changed, self._closed, self._opened = threading.Condition(), False, 0
        self._together = setup["options"]["warm_up"]  # Nobody begins before all can, where time is measured.
        #: (number, piece) that nobody has; {number: answer} not taken yet; the first number of this run, and the next to take.
        self._waiting, self._answers, self._first, self._taken, self._tries = collections.deque(), {}, 0, 0, {}
        self._processes, self._alive, self._said, self._told = {}, len(parts), None, False
        self._spawning = threading.Lock()
        self._threads = [threading.Thread(target=self._serve, args=(number, *part), daemon=True)
                         for number, part in enumerate(parts)]
        self._numbers = itertools.count()
        for thread in self._threads:
            thread.start()

    def run(self, pieces):
        """The answers to pieces, in their order: dictionaries, or exceptions to raise. What an earlier run left is dropped."""
        with self._changed:
            numbers = [next(self._numbers) for _ in pieces]
            self._first = self._taken = numbers[0]
            self._answers.clear()
            self._waiting = collections.deque(zip(numbers, pieces))
            self._changed.notify_all()
        for number in numbers:
            with self._changed:
                self._changed.wait_for(lambda number=number: number in self._answers or self._said or not self._alive)
                answer = self._answers.pop(number, None) or self._said or PoolError("no process of the pool is left")
                self._taken = number + 1
                self._changed.notify_all()
            yield answer

    def close(self):
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with self._spawning:
            for process, _ in self._processes.values():
                process.kill()
        for thread in self._threads:
            thread.join()

    # In the threads

    def _serve(self, number, processors, threads):
        deaths = 0
        while deaths < DEATHS and not self._closed:
            process = self._spawn(number, processors, threads)
            piece = None
            if process is not None and self._open(process):
                piece = self._next()
                while piece is not None and self._hand(process, *piece):
                    piece, deaths = self._next(), 0
            ending = self._end(number, process)
            if self._closed:
                break
            deaths += 1
            self._mourn(number, ending, piece)
        with self._changed:
            self._alive -= 1
            self._changed.notify_all()

    def _spawn(self, number, processors, threads):
        """A process on its processors; None after the end."""
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads),
                       "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
        said = tempfile.TemporaryFile()  # A pipe that nobody empties would stop a process that warns a lot.
        with self._spawning:
            if self._closed:
                return None
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, processors)  # This thread's, which the process inherits, before it makes any of its own.
            try:
                # In a session of its own: Ctrl-C comes to us alone, and we end it.
                process = subprocess.Popen([sys.executable, "-m", "gluonzoo.export.pool_worker"], stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, stderr=said, env=environment, start_new_session=True)
            finally:
                os.sched_setaffinity(0, before)
            self._processes[number] = process, said
        return process

    def _open(self, process):
        """Have a process open the model. False where it died, or that was refused, which is the end of all."""
        answer = self._ask(process, self._setup)
        if answer is None:
            return False
        with self._changed:
            if "refused" in answer:
                self._said, self._closed = UserError(answer["refused"]), True  # The others find the same.
                self._changed.notify_all()
                return False
            if not self._told:
                self._told = True
                for line in answer["told"]:
                    self._tell(line)
            self._opened += 1
            self._changed.notify_all()
        return True

    @staticmethod
    def _ask(process, line):
        """What a process answers to a line; None when it died."""
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            return None
        return json.loads(answer) if answer.endswith(b"\n") else None

    def _next(self):
        """(number, piece) of the next one; waits for it. None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting
                                   and self._waiting[0][0] < self._taken + AHEAD * len(self._threads)
                                   and (not self._together or self._opened >= self._alive))
            return None if self._closed else self._waiting.popleft()

    def _hand(self, process, number, piece):
        """Have a process do a piece. False when it died of it."""
        answer = self._ask(process, json.dumps({"number": number, "piece": piece}).encode() + b"\n")
        if answer is None:
            return False
        with self._changed:
            if number >= self._first:
                self._answers[number] = UserError(answer["refused"]) if "refused" in answer else answer
            self._changed.notify_all()
        return True

    def _end(self, number, process):
        """Wait for the end of a process, which is dead or no longer needed; returns what it ended with, in words."""
        if process is None:
            return ""
        if self._closed:
            process.kill()
        try:
            process.stdin.close()
        except OSError:
            pass
        code = process.wait()
        process.stdout.close()
        with self._spawning:
            said = self._processes.pop(number)[1]
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
        said.close()
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return how + (f": {lines[-1][:200]}" if lines and code >= 0 else "")

    def _mourn(self, worker, ending, handed):
        """Tell of a death, and have its piece tried again or lost."""
        if handed is None:
            self._tell(f"process {worker}: {ending} while it started")
            return
        number, piece = handed
        names = [item[2] for item in piece]
        listed = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        with self._changed:
            self._tries[number] = self._tries.get(number, 0) + 1
            again = self._tries[number] == 1
            if again and number >= self._first:
                self._waiting.appendleft(handed)
            elif number >= self._first:
                self._answers[number] = {"lost": f"its process {ending}, twice"}
            self._changed.notify_all()
        self._tell(f"process {worker}: {ending} while it had {listed}; "
                   + ("they are tried once more" if again else "that was the second time: they are lost"))
