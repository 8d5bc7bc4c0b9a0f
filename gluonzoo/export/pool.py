"""Many images through a network: processes side by side, each on processors of its own, that share out the images.

Processes are programs of their own (`pool_worker`), not forks: MXNet's threads do not survive one. They are told what to open and
what to run in lines of JSON; nothing is unpickled. Pieces go to whoever is free, results come in the order of the images.
"""
import collections
import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np

from .. import runtime
from ..errors import UserError
from . import shares
from .pool_worker import Reader, classify, warm_up
from .predictor import Prediction, find_images

__all__ = ["Pool", "Result", "PoolError"]

#: Pieces a process may be ahead of the results that were taken.
AHEAD = 16
#: Deaths in a row, without a piece done between, after which a process is not started again.
DEATHS = 3
#: Seconds that a process takes to import MXNet and gluonzoo, when another one does so beside it.
IMPORTS = 2.0
#: Images named in a message.
NAMED = 5


class PoolError(RuntimeError):
    """No process of a pool is left, or what one ran failed in a way that is not the image's."""


@dataclass(frozen=True)
class Result:
    """One image's.

    Args: name: its file, of an array with its number; predictions: the likeliest first, None where there is an error; error:
        what it is, as a text; lost: whether the processes that had it died; seconds: spent on reading and on the rest of the
        piece it was in, for one image alone with batch_size 1.
    """
    name: str
    predictions: Optional[List[Prediction]]
    error: Optional[str] = None
    lost: bool = False
    seconds: Tuple[float, float] = (0.0, 0.0)


def list_items(files):
    """[path, index, name] for every image: arrays of several (.npy) are looked into, but not read."""
    items = []
    for path in files:
        count = 1
        if path.lower().endswith(".npy"):
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
                count = array.shape[0] if getattr(array, "ndim", 0) == 4 else 1
            except (OSError, ValueError, EOFError):
                pass  # Whoever reads it tells.
        items += [[path, None, path]] if count <= 1 else [[path, index, f"{path}[{index}]"] for index in range(count)]
    return items


class Pool:
    """Classifies images with several processes; a context manager, at whose end none is left.

        with Pool("export/resnet", jobs="auto") as pool:
            for result in pool.predict(["photos"]):
                print(result.name, result.predictions or result.error)

    Each process opens the model itself, has processors of its own and as many OpenMP threads. Results are those of one
    process but for rounding, relative 1e-4 at most: with other numbers of threads and of images at a time sums are added in
    another order. With jobs 1 this process does it all. "auto" classifies the first two batches here and looks at time and
    memory: it starts a process for each processor where that pays (`shares.choose_jobs`), else goes on alone.

    An image whose process dies is tried once more in a new one, with all that were run together with it; then it is
    told as lost, and the others go on.

    Args: model, weights, pretrained, classes, mean, std, labels: as of `gluonzoo.sources.open_predictor`. jobs: number of
        processes, or "auto". batch_size: images run at once. top, crops, mirror: as of `Predictor.predict`. keep_going: an
        image that cannot be read becomes a result with an error; without, a UserError. tell: called with lines for a person.
        warm_up: each process runs its first piece some times unmeasured.
    Attributes: jobs: processes at work, 1 where this one is, None as long as "auto" has not decided; threads: of each.
    """

    def __init__(self, model, jobs="auto", batch_size=32, *, top=5, crops="1", mirror=False, keep_going=False, tell=print,
                 warm_up=False, **source):
        self.jobs = shares.check_jobs(jobs)
        if not isinstance(model, (str, os.PathLike)):
            raise UserError(f"model is a {type(model).__name__}; processes open it themselves: expected the path of an export or "
                            "checkpoint, or a registered network's name with weights")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UserError(f"batch_size is {batch_size!r}; expected a whole number of at least 1")
        self.batch_size, self._tell = batch_size, tell
        self._source = {"model": os.fspath(model), **source}
        self._options = {"top": top, "crops": crops, "mirror": mirror, "keep_going": keep_going, "warm_up": warm_up}
        self._reader, self._predictor, self._workers, self._start = Reader(), None, None, 0.0
        self._shares = shares.processor_shares(self.jobs) if self.jobs and self.jobs > 1 else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """End all processes, whatever they do."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    @property
    def threads(self):
        """OpenMP threads of each process; where they differ, of the one with the fewest."""
        return min(threads for _, threads in self._shares) if self._shares else runtime.threads_in_use()

    @property
    def predictor(self):
        """The `Predictor` with which this process classifies, opened when first asked for."""
        if self._predictor is None:
            from ..sources import open_predictor
            begun = time.perf_counter()
            self._predictor = open_predictor(**self._source, tell=self._tell)
            self._start = time.perf_counter() - begun
        return self._predictor

    def predict(self, paths, pictures=None):
        """Classify images: a `Result` each, in their order, as soon as it is there.

        Args: paths: files, folders and patterns, as of `find_images`. pictures: called with (name) for every image in order,
            gives the file to draw it to.
        Raises: UserError for a path without images; without keep_going for an image that cannot be read, when its turn comes.
            PoolError when no process can work.
        """
        files = find_images([paths] if isinstance(paths, (str, os.PathLike)) else list(paths))
        items = list_items(files)
        return self.run([[*item, pictures(item[2]) if pictures else None] for item in items])

    def run(self, items):
        """As `predict`, for a list of [path, index in an array or None, name, file of a picture or None]."""
        done = 0
        if self.jobs is None:
            done = min(len(items), 2 * self.batch_size)
            for at in range(0, done, self.batch_size):
                begun = time.perf_counter()
                results = self._here(items[at:at + self.batch_size])
                seconds = (time.perf_counter() - begun) / len(results)
                yield from results
            if len(items) > done:
                self._decide(len(items) - done, seconds)
        items = items[done:]
        if self.jobs == 1:
            for piece in shares.pieces(items, self.batch_size, 1):
                yield from self._here(piece)
        elif items:
            yield from self._there(list(shares.pieces(items, self.batch_size, self.jobs)))

    def _decide(self, left, seconds):
        """Choose the number of processes for the images left, of which each takes this process so many seconds."""
        processors = runtime.available_cpus()
        chosen = shares.choose_jobs(left, seconds, IMPORTS + self._start, processors, shares.own_memory(),
                                    shares.available_memory())
        self._tell(f"jobs: {chosen} for {left:,} images at {1000 * seconds:.1f} ms each in one process, {processors} processors, "
                   f"{shares.own_memory() / 1e6:,.0f} MB a process")
        self.jobs = chosen
        if chosen > 1:
            self._shares = shares.processor_shares(chosen)
            self._predictor = None
            gc.collect()

    def _here(self, piece):
        if self._options["warm_up"]:
            warm_up(self.predictor, self._reader, piece, self._options)
            self._options["warm_up"] = False
        return _results(piece, classify(self.predictor, self._reader, piece, self._options))

    def _there(self, pieces):
        if self._workers is None:
            self._workers = _Workers(self._shares, {"source": self._source, "options": self._options}, self._tell)
        for piece, answer in zip(pieces, self._workers.run(pieces)):
            if isinstance(answer, Exception):
                self.close()
                raise answer
            yield from _results(piece, answer)


def _results(piece, answer):
    if "lost" in answer:
        return [Result(item[2], None, answer["lost"], lost=True) for item in piece]
    seconds = tuple(answer["seconds"])
    return [Result(item[2], None if guesses is None else [Prediction(*guess) for guess in guesses], error, seconds=seconds)
            for item, guesses, error in zip(piece, answer["guesses"], answer["errors"])]


class _Workers:
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
