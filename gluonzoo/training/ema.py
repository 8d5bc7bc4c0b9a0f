"""An exponential moving average of a network's weights, which often scores better than the weights themselves.

After update n (from 1) of a run: e = d e + (1 - d) w with d = min(decay, n / (9 + n)), so that the first, random weights are
soon forgotten. BatchNorm's running mean and variance are averaged the same way as the weights; what is frozen stays.

Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992, for averaging; the exponential form
and the growing decay as in TensorFlow's ExponentialMovingAverage with num_updates, which the Inception networks were evaluated
with (Szegedy et al., 2015, section 8).
"""
import mxnet as mx
import numpy as np

from .sgd import LARGE

__all__ = ["WeightAverage"]

#: Small arrays are averaged by one operator, so many at a time.
_GROUP = 60


class WeightAverage:
    """The average of one network's weights on one worker.

    Weights are the same bits on all workers and devices, and so is their average; running statistics differ by worker and
    device, and so do theirs.

    Args: net: initialised; decay: at least 0, below 1; statistics: running statistics (D, L), a row a device, or None.
    Attributes: updates: so far; statistics: their average, (D, L) float32, or None; constraint: a `constraints.Constraint` that
        holds for the average too, or None.
    """

    def __init__(self, net, decay, statistics=None):
        self.decay, self.updates, self.constraint = decay, 0, None
        self.statistics = None if statistics is None else statistics.astype(np.float32)
        self._weights = {name: parameter.list_data()[0] for name, parameter in net._collect_params_with_prefix().items()
                         if not name.endswith(("running_mean", "running_var"))}
        # Whole copies: an array may be in a layout of oneDNN's.
        self._averages = {name: mx.nd.array(weight.asnumpy(), ctx=weight.context,
                                            dtype="float32" if weight.dtype == np.float16 else weight.dtype)
                          for name, weight in self._weights.items()}
        pairs = [(self._averages[name], weight) for name, weight in self._weights.items()]
        self._alone = [pair for pair in pairs if pair[1].size >= LARGE or pair[1].dtype != np.float32]
        rest = [pair for pair in pairs if pair[1].size < LARGE and pair[1].dtype == np.float32]
        self._groups = [rest[start:start + _GROUP] for start in range(0, len(rest), _GROUP)]

    def update(self, statistics=None):
        """Take in the weights after an update. statistics: the running statistics (D, L) now, where there are any."""
        self.updates += 1
        share = 1 - min(self.decay, self.updates / (9 + self.updates))
        # SGD with rate -share, decay -1 and the weight as gradient is e + share (w - e): one pass over each array.
        for average, weight in self._alone:
            weight = weight if weight.dtype == average.dtype else weight.astype(average.dtype)
            mx.nd.sgd_update(average, weight, out=average, lr=-share, wd=-1)
        for group in self._groups:
            mx.nd.multi_sgd_update(*[array for pair in group for array in pair], out=[average for average, _ in group],
                                   lrs=[-share] * len(group), wds=[-1] * len(group), num_weights=len(group))
        if self.constraint is not None:
            self.constraint.on_average(self._averages)
        if statistics is not None:
            self.statistics += np.float32(share) * (statistics - self.statistics)

    def weights(self):
        """{structural name: NumPy array} of the averaged weights, of float16 ones in float32."""
        return {name: average.asnumpy() for name, average in self._averages.items()}

    def load(self, values, updates, statistics=None):
        """Go on from {name: array} that `weights` returned, more names allowed, after so many updates."""
        for name, average in self._averages.items():
            average[:] = mx.nd.array(values[name], dtype=average.dtype)
        self.updates = updates
        if statistics is not None:
            self.statistics = np.array(statistics, dtype=np.float32)
