"""Many images through a network: processes side by side, each on processors of its own, that share out the images.

Processes are programs of their own (`pool_worker`), not forks: MXNet's threads do not survive one. They are told what to open and
what to run in lines of JSON; nothing is unpickled. Pieces go to whoever is free, results come in the order of the images.
"""
import gc
import os
import time
from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np

from .. import runtime
from ..errors import UserError
from . import shares
from .pool_processes import PoolError, Workers
from .pool_worker import Reader, classify, warm_up
from .predictor import Prediction, find_images

__all__ = ["Pool", "Result", "PoolError"]

#: Seconds that a process takes to import MXNet and gluonzoo, when another one does so beside it.
IMPORTS = 2.0


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

    Args: model, weights, pretrained, classes, mean, std, labels, fuse: as of `gluonzoo.sources.open_predictor`. jobs: number of
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
                results = self._here(items[at:at + self.batch_size])
                read, rest = (seconds / len(results) for seconds in results[0].seconds)
                yield from results
            if len(items) > done:
                self._decide(len(items) - done, read, rest, items[done - 1])
        items = items[done:]
        if self.jobs == 1:
            for piece in shares.pieces(items, self.batch_size, 1):
                yield from self._here(piece)
        elif items:
            yield from self._there(list(shares.pieces(items, self.batch_size, self.jobs)))

    def _decide(self, left, read, rest, item):
        """Choose the number of processes for the images left. read, rest: seconds that each takes this process; item: one that
        it has had."""
        fitted = 0.0
        try:
            image = self._reader.image(item[0], item[1])
            begun = time.perf_counter()
            self.predictor.transform([image])  # With one thread.
            fitted = min(time.perf_counter() - begun, rest)
        except UserError:
            pass  # One that is passed over.
        processors = runtime.available_cpus()
        chosen = shares.choose_jobs(left, read + fitted, rest - fitted, IMPORTS + self._start, processors, shares.own_memory(),
                                    shares.available_memory())
        self._tell(f"jobs: {chosen} for {left:,} images; each takes one process {1000 * (read + fitted):.1f} ms with one thread "
                   f"and {1000 * (rest - fitted):.1f} ms with all; {processors} processors, {shares.own_memory() / 1e6:,.0f} MB "
                   "a process")
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
            self._workers = Workers(self._shares, {"source": self._source, "options": self._options}, self._tell)
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
