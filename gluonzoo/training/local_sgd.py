"""Local SGD: every worker updates by its own gradients, and all average their parameters now and then."""
import mxnet as mx
import numpy as np

from .exchange import BUCKET_ELEMENTS

__all__ = ["LocalSteps"]

#: The weight of a worker that has had no samples, instead of none, so that an average over nothing but such workers exists.
_HARDLY_ANY = 1e-3


def _flat_arrays(state):
    """The NDArrays of an optimizer's state, in a fixed order."""
    if state is None:
        return []
    return [array for part in state for array in _flat_arrays(part)] if isinstance(state, (list, tuple)) else [state]


class LocalSteps:
    """Averages parameters and the optimizer's state (momentum and the like) over workers after every so many updates.

    A worker counts by the samples it has had since the last average. With SGD, momentum included, and an average after every
    update the result is that of summed gradients; the optimizer's state is averaged for that, and because a worker whose
    momentum still pulls elsewhere would undo the average.

    Source: Stich, "Local SGD Converges Fast and Communicates Little", 2019, algorithm 1. Differences: momentum, averaged too;
    workers weighted by samples.

    Args: store: a distributed, synchronous `KVStore`; parameters: on one device; updater: the optimizer's Updater; every: number
        of updates from average to average.
    """

    def __init__(self, store, parameters, updater, every):
        self._store, self._parameters, self._updater, self._every = store, parameters, updater, every
        self._updates, self._samples = 0, 0
        self._ctx = parameters[0].list_ctx()[0]
        self._extras = mx.nd.zeros((2,), ctx=self._ctx)
        self._no_votes = mx.nd.zeros((1,), ctx=self._ctx)
        self._flats = self._first = None

    @property
    def pending(self):
        """Whether there was an update since the last average."""
        return self._updates > 0

    def after_update(self, samples, vote):
        """Note an update by so many samples, and average if it is time; every worker must call it after every update.

        Returns: the number of votes, an NDArray (1,); votes are counted at averages only.
        """
        self._updates += 1
        self._samples += samples
        return self.average(vote) if self._updates >= self._every else self._no_votes

    def average(self, vote=False):
        """Average now, if there was an update since the last time; every worker must call it. Returns: as `after_update`."""
        if not self._updates:
            return self._no_votes
        arrays = [parameter.list_data()[0] for parameter in self._parameters]
        for index in range(len(self._parameters)):
            arrays.extend(_flat_arrays(self._updater.states.get(index)))
        if self._flats is None:
            self._prepare(arrays)
        weight = self._samples or _HARDLY_ANY
        views = iter(view for group in self._views for view in group)
        for array, view in zip(arrays, views):
            mx.nd._internal._mul_scalar(array, scalar=weight, out=view)
        self._extras[:] = mx.nd.array([bool(vote), weight], ctx=self._ctx)
        for number, flat in enumerate([self._extras, *self._flats]):
            self._store.push_pull(self._first + number, [flat], priority=-number)
        for flat in self._flats:
            mx.nd.broadcast_div(flat, self._extras[1:], out=flat)
        views = iter(view for group in self._views for view in group)
        for array, view in zip(arrays, views):
            view.copyto(array)
        self._updates = self._samples = 0
        return self._extras[:1].copy()

    def _prepare(self, arrays):
        """Make the arrays that travel, and in them a view for each of the given ones."""
        groups, size = [], 0
        for array in arrays:
            if not groups or size + array.size > BUCKET_ELEMENTS:
                groups.append([])
                size = 0
            groups[-1].append(array.shape)
            size += array.size
        self._flats, self._views = [], []
        for shapes in groups:
            ends = np.cumsum([0] + [int(np.prod(shape)) for shape in shapes])
            self._flats.append(mx.nd.zeros((int(ends[-1]),), ctx=self._ctx))
            self._views.append([self._flats[-1][int(start):int(stop)].reshape(shape)
                                for start, stop, shape in zip(ends, ends[1:], shapes)])
        self._first = self._store.allocate(1 + len(self._flats))
        self._store.broadcast({self._first + number: [flat] for number, flat in enumerate([self._extras, *self._flats])})
