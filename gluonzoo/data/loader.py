"""Batches prepared by background threads while the network computes."""
import time
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .. import runtime
from ..errors import UserError

__all__ = ["Loader"]


class Loader:
    """Iterates over (Batch, images, labels) of one epoch, in order; threads prepare the next ones meanwhile.

    Shape: images (n, C, H, W) float32, labels (n,) int32; n is the worker's part of the batch and may be 0. Where the
    transform mixes images, labels are soft: (n, classes) float32.
    Threads, not processes: the threads of MXNet's engine and of ps-lite do not survive a fork. An exception in a
    thread is raised where the batch it belongs to would have come. Leaving the loop early, by `break`, an exception or
    `close()`, ends the threads.

    Args: dataset: a data set of `gluonzoo.data.load`.
        batches: `ShardedBatches` over it.
        transform: `Transform`, or any function of (images, indices, epoch).
        epoch, start: which epoch, from which step on.
        prefetch: batches prepared ahead, at least 1.
        threads: how many prepare batches; by default 1 for arrays in memory (more do not pay), and for image files
            as many as this worker has processors.
    Attributes: waited: seconds for which whoever iterates had to wait for a batch, in this epoch so far.
    Raises: UserError when an argument is out of range or the batches name more samples than the data set has.
    """

    def __init__(self, dataset, batches, transform, epoch, start=0, prefetch=2, threads=None):
        if batches.length > len(dataset):
            raise UserError(f"the batches are over {batches.length} samples; the data set {dataset.name} "
                            f"has {len(dataset)}")
        if prefetch < 1:
            raise UserError(f"prefetch is {prefetch}; expected at least 1")
        if threads is not None and threads < 1:
            raise UserError(f"threads is {threads}; expected at least 1")
        if threads is None:
            threads = 1 if getattr(dataset, "in_memory", True) else runtime.default_threads()
        batches.epoch(epoch, start)  # Raises here, not in a thread, when either is out of range.
        self.dataset, self.batches, self.transform = dataset, batches, transform
        self.epoch, self.start, self.threads = epoch, start, threads
        self.prefetch = max(prefetch, threads)
        self._running, self.waited = lambda: None, 0.0

    def __len__(self):
        """Batches from `start` to the end of the epoch."""
        return len(self.batches) - self.start

    def _prepare(self, source, batch):
        mixing = getattr(self.transform, "mixing", None)
        if mixing is not None:
            return self._mix(source, batch, mixing)
        images = source.images(batch.indices)
        return batch, self.transform(images, batch.indices, self.epoch), self.dataset.labels[batch.indices]

    def _mix(self, source, batch, mixing):
        """A batch whose images are mixed with those that follow them in the epoch's order, with soft labels."""
        classes = len(self.dataset.classes)
        if not len(batch.indices):
            return batch, self.transform([], [], self.epoch), np.zeros((0, classes), dtype=np.float32)
        indices = np.append(batch.indices, batch.following)
        if source is self.dataset:
            images = source.images(indices)
        else:
            # What follows this worker's part is not among what its reader reads ahead.
            images = list(source.images(batch.indices)) + list(self.dataset.images(indices[-1:]))
        images = self.transform(images, indices, self.epoch)
        return batch, *mixing(images, self.dataset.labels[indices], batch.indices, self.epoch, classes)

    def __iter__(self):
        """Start the epoch; an iteration that is still under way is closed."""
        self.close()
        running = self._iterate()
        # Weak, so that a loop left by `break` drops the only reference, which closes the iteration.
        self._running = weakref.ref(running)
        return running

    def _iterate(self):
        batches = self.batches.epoch(self.epoch, self.start)
        self.waited = 0.0
        # Data sets that lie on disk in blocks read them ahead by themselves.
        ahead = getattr(self.dataset, "read_ahead", None)
        source = ahead(self.batches.groups(self.epoch, self.start)) if ahead else self.dataset
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="gluonzoo-loader")
        waiting = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(self._prepare, source, batch))
                if len(waiting) > self.prefetch:
                    yield self._await(waiting)
            while waiting:
                yield self._await(waiting)
        finally:
            for future in waiting:
                future.cancel()
            if ahead:
                source.close()
            pool.shutdown(wait=True)

    def _await(self, waiting):
        begun = time.monotonic()
        try:
            return waiting.popleft().result()
        finally:
            self.waited += time.monotonic() - begun

    def close(self):
        """End the threads of an iteration under way. Harmless when there is none."""
        running = self._running()
        if running is not None:
            running.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
