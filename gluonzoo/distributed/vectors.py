"""Sums of small vectors over the devices of a process and the workers of a job, in the middle of a network's pass.

Each vector has a key and is summed in rounds. A device's thread that comes with its part waits for those of the other devices;
the last one sums over the workers, through shared memory where they share a host, else through the KVStore.
"""
import threading

import mxnet as mx
import numpy as np

from ..errors import UserError
from . import shared

__all__ = ["VectorSum"]


class _Place:
    """Where the devices' parts of one key meet. Attributes: done: number of finished rounds."""

    def __init__(self):
        self.condition, self.parts, self.done = threading.Condition(), {}, 0
        self.result, self.leaving = None, 0


class VectorSum:
    """Sums of vectors of fixed sizes, by key: 0, 1, ... Every worker must make it, at the same place among what it allocates.

    Every device that has samples must come to every key as often as the others; `begin` says how many there are, and `idle`
    stands in for a worker without samples, so that uneven parts of a batch let nobody wait for ever.

    Args: store: a `KVStore`, or None; under dist_async only devices are summed. devices: how many; sizes: elements of each key.
    Attributes: workers: how many are summed over.
    """

    def __init__(self, store, devices, sizes):
        self.devices, self._sizes = devices, list(sizes)
        self.workers = 1 if store is None or store.is_async else store.num_workers
        self._store, self._memory = store, None
        self._places = [_Place() for _ in sizes]
        self._starts = np.cumsum([0] + self._sizes)
        self._expected, self._begun = {}, 0
        if self.workers > 1:
            self._memory = shared.open_memory(store, int(self._starts[-1]), 2 * len(self._sizes))
        if self.workers > 1 and self._memory is None:
            self._first = store.allocate(len(self._sizes))
            store.broadcast({self._first + key: [mx.nd.zeros((size,))] for key, size in enumerate(self._sizes)})

    def begin(self, devices):
        """Say how many of this worker's devices, the first ones, take part in the next round of every key; with 0, `idle` must
        follow."""
        if not 0 <= devices <= self.devices:
            raise UserError(f"{devices} devices take part in a sum of {self.devices}; expected 0 to {self.devices}")
        self._expected[self._begun] = devices
        self._expected.pop(self._begun - 4096, None)  # Passes are queued, but never so many.
        self._begun += 1

    def sum(self, key, values, device):
        """The sum of all parts of this round, (size,) float64; waits for them.

        Args: values: this device's part, (size,); device: its number.
        """
        place = self._places[key]
        with place.condition:
            # Those of the last round leave first; and a device may be ahead of a round that it takes no part in.
            while place.leaving or self._expected.get(place.done, self.devices) <= device:
                place.condition.wait()
            place.parts[device] = values
            round = place.done
            if len(place.parts) == self._expected.get(round, self.devices):
                total = 0
                for number in sorted(place.parts):
                    total = total + np.asarray(place.parts[number], dtype=np.float64)
                place.result, place.leaving = self._over_workers(key, total, round), len(place.parts)
                place.parts, place.done = {}, round + 1
                place.condition.notify_all()
            else:
                while place.done == round:
                    place.condition.wait()
            result = place.result
            place.leaving -= 1
            if not place.leaving:
                place.condition.notify_all()
            return result

    def _over_workers(self, key, total, round):
        if self.workers == 1:
            return total
        if self._memory is not None:
            start, stop = int(self._starts[key]), int(self._starts[key + 1])
            self._memory.put(key, start, total, round + 1)
            return self._memory.take(key, start, stop, round + 1)
        array = mx.nd.array(total, dtype="float32")
        self._store.push_pull(self._first + key, [array])
        return array.asnumpy().astype(np.float64)

    def idle(self):
        """Take part in one round of every key with nothing, in the place of this worker's devices.

        First all parts are given, then all sums awaited: what other workers' passes wait for never depends on their order.

        Returns: the sums, a list of (size,) float64 in the order of keys.
        """
        totals = [np.zeros(size) for size in self._sizes]
        mx.nd.waitall()  # For this worker's own passes that are still under way.
        rounds = [place.done + 1 for place in self._places]
        if self._memory is not None:
            for key, (size, round) in enumerate(zip(self._sizes, rounds)):
                self._memory.put(key, int(self._starts[key]), np.zeros(size), round)
            for key, round in enumerate(rounds):
                totals[key] = self._memory.take(key, int(self._starts[key]), int(self._starts[key + 1]), round)
        elif self.workers > 1:
            arrays = [mx.nd.zeros((size,)) for size in self._sizes]
            for key, array in enumerate(arrays):
                self._store.push_pull(self._first + key, [array])
            totals = [array.asnumpy().astype(np.float64) for array in arrays]
        for place in self._places:
            place.done += 1
        return totals
