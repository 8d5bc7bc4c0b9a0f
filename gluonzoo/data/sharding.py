"""Which samples every worker reads in every step."""
from collections import namedtuple

import numpy as np

from ..errors import UserError
from . import draws

__all__ = ["Batch", "ShardedBatches"]

Batch = namedtuple("Batch", ["step", "indices", "total", "following"], defaults=(None,))
Batch.__doc__ = """One worker's part of one global batch.

step: number of the batch in its epoch, from 0.
indices: (n,) int64, the samples of this worker, in order; n may be 0 in the last step.
total: samples in the global batch, over all workers; the number to divide summed gradients by.
following: the sample that comes after this worker's part in the epoch's order; after the last one the first.
"""


_STREAM_BLOCK, _STREAM_SAMPLE = 0x626C6F636B, 0x73616D706C65


def _order_in_blocks(length, seed, epoch, size, buffer):
    """A random order of samples that lie together on disk, and where its groups of blocks end.

    The blocks of `size` samples come in random order; the samples of every `buffer` of them in turn are shuffled together.

    Shape: -> (length,) int64, (groups,) int64.
    """
    blocks = -(-length // size)
    place = np.empty(blocks, dtype=np.int64)
    place[np.argsort(draws.bits(seed, epoch, np.arange(blocks), _STREAM_BLOCK), kind="stable")] = np.arange(blocks)
    group = np.repeat(place // buffer, size)[:length]
    order = np.lexsort((draws.bits(seed, epoch, np.arange(length), _STREAM_SAMPLE), group))
    return order.astype(np.int64), np.cumsum(np.bincount(group))


def _whole(name, value, least):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise UserError(f"{name} is {value!r}; expected a whole number of at least {least}")
    return int(value)


class ShardedBatches:
    """The batches of one worker: every sample exactly once per epoch over all workers, equal steps on all.

    The global batch i of an epoch is `order[i * B : (i + 1) * B]`, B = num_workers * batch_size, and worker r
    of W takes the slice from n * r // W to n * (r + 1) // W of its n samples: `batch_size` each in a full batch,
    and as even as possible in the last one, where a worker can be left with none. Joined in the order of the
    ranks, the workers' parts are the batch of one worker with W * batch_size. The global batches do not depend on the
    number of workers when B is given: an epoch begun by some workers can be ended by more or fewer.

    Args: length: samples in the data set, at least 1.
        batch_size: samples per worker and step.
        rank, num_workers: which worker this is, 0 <= rank < num_workers. More workers than samples is allowed.
        seed: any whole number; with the epoch it decides the order.
        shuffle: False keeps the data set's order in every epoch.
        global_batch_size: B, where it is not num_workers * batch_size; a worker's part is then B / num_workers.
        blocks: (samples in a block, blocks shuffled together), for data sets that are read from disk in blocks
            (`RecordDataset.blocks`); None: any sample can follow any other.
    Raises: UserError when an argument is out of range; the message names the value received.
    """

    def __init__(self, length, batch_size, rank=0, num_workers=1, seed=0, shuffle=True, global_batch_size=None,
                 blocks=None):
        self.length = _whole("length", length, 1)
        self.batch_size = _whole("batch_size", batch_size, 1)
        self.num_workers = _whole("num_workers", num_workers, 1)
        self.rank = _whole("rank", rank, 0)
        if self.rank >= self.num_workers:
            raise UserError(f"rank is {rank}; expected 0 to {self.num_workers - 1} for num_workers {self.num_workers}")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise UserError(f"seed is {seed!r}; expected a whole number")
        self.seed = int(seed)
        self.shuffle = bool(shuffle)
        if global_batch_size is None:
            global_batch_size = self.num_workers * self.batch_size
        self.global_batch_size = _whole("global_batch_size", global_batch_size, 1)
        self.blocks = None
        if blocks is not None:
            self.blocks = _whole("samples in a block", blocks[0], 1), _whole("blocks shuffled together", blocks[1], 1)

    def __len__(self):
        """Steps per epoch, the same on every worker."""
        return -(-self.length // self.global_batch_size)

    def order(self, epoch):
        """The samples of an epoch in the order they are used, over all workers: (length,) int64."""
        return self._order(epoch)[0]

    def _order(self, epoch):
        """`order`, and the places in it before which a reader may finish with what came so far."""
        epoch = _whole("epoch", epoch, 0)
        if self.blocks and self.shuffle and self.length > self.blocks[0] * self.blocks[1]:
            return _order_in_blocks(self.length, self.seed, epoch, *self.blocks)
        # All at once where all would be in one group, and one group's worth after the other without shuffling.
        together = self.length if self.shuffle or not self.blocks else self.blocks[0] * self.blocks[1]
        ends = np.append(np.arange(together, self.length, together), self.length)
        if self.shuffle:
            return draws.order(self.length, self.seed, epoch), ends
        return np.arange(self.length, dtype=np.int64), ends

    def groups(self, epoch, start=0):
        """This worker's samples from step `start` on, as one array for each group of blocks, in the order they are used."""
        order, ends = self._order(epoch)
        places = [np.arange(*self._slice(step)) for step in range(start, len(self))]
        places = np.concatenate(places) if places else np.zeros(0, dtype=np.int64)
        return [order[part] for part in np.split(places, np.searchsorted(places, ends[:-1])) if len(part)]

    def _slice(self, step):
        """Where this worker's part of a global batch begins and ends in the epoch's order."""
        begin = step * self.global_batch_size
        total = min(self.length - begin, self.global_batch_size)
        return begin + total * self.rank // self.num_workers, begin + total * (self.rank + 1) // self.num_workers

    def epoch(self, epoch, start=0):
        """Iterate over the `Batch`es of this worker in an epoch, from step `start` (0 to `len(self)`) on."""
        epoch, start = _whole("epoch", epoch, 0), _whole("start", start, 0)
        if start > len(self):
            raise UserError(f"start is step {start}; expected 0 to {len(self)}, the steps of an epoch")
        return self._batches(epoch, start)

    def _batches(self, epoch, start):
        order = self.order(epoch)
        for step in range(start, len(self)):
            total = min(self.length - step * self.global_batch_size, self.global_batch_size)
            first, last = self._slice(step)
            yield Batch(step, order[first:last], total, order[last % self.length])
