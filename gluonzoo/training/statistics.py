"""BatchNorm's running statistics in a run: they differ by worker and device, because gradients do not touch them."""
import contextlib

import mxnet as mx
import numpy as np

__all__ = ["HoldsStatistics"]

BATCH_NORM_STATISTICS = ("running_mean", "running_var")


class HoldsStatistics:
    """The part of `session.Run` that reads, gathers, averages and sets them. Uses its net, contexts, store and ema."""

    def _statistics(self):
        return {name: parameter for name, parameter in self.net._collect_params_with_prefix().items()
                if name.rpartition(".")[2] in BATCH_NORM_STATISTICS}

    def statistics(self):
        """This worker's running statistics, (D, L), a row a device, in the order of names; None when there are none."""
        statistics = self._statistics()
        if not statistics:
            return None
        # BatchNorm writes them in backward() without telling the engine, so reading alone would not wait for it.
        mx.nd.waitall()
        return np.stack([np.concatenate([parameter.list_data()[device].asnumpy().ravel()
                                         for parameter in statistics.values()]) for device in range(len(self.contexts))])

    def gather_statistics(self, rows):
        """All workers' and devices' rows, (W, D, L), from this worker's (D, L); None when there is one of each, or none."""
        if rows is None or self.store.num_workers * len(self.contexts) == 1 or self.store.is_async:
            return None
        return self.store.gather(rows)

    def worker_statistics(self):
        """All workers' and devices' running statistics, (W, D, L); None when there is one of each."""
        if self.store.num_workers * len(self.contexts) == 1 or self.store.is_async:
            return None
        return self.gather_statistics(self.statistics())

    def named_statistics(self, row):
        """{structural name: NumPy array} of one row (L,); {} when it is None."""
        values, start = {}, 0
        for name, parameter in self._statistics().items() if row is not None else ():
            size = int(np.prod(parameter.shape))
            values[name] = row[start:start + size].reshape(parameter.shape).astype(parameter.dtype)
            start += size
        return values

    def set_statistics(self, rows):
        """Set this worker's running statistics from (D, L), one row a device."""
        for device, row in enumerate(rows):
            for parameter, values in zip(self._statistics().values(), self.named_statistics(row).values()):
                parameter.list_data()[device][:] = mx.nd.array(values, dtype=parameter.dtype)
        mx.nd.waitall()

    def average_statistics(self, rows):
        """Set this worker's running statistics to the mean of all workers' and devices' (W, D, L)."""
        if rows is not None:
            self.set_statistics(np.tile(mean_row(rows), (len(self.contexts), 1)))

    @contextlib.contextmanager
    def averaged_weights(self):
        """Within, the network on its first device has the weights and running statistics of the moving average, the latter
        averaged over workers and devices too; every worker must enter it."""
        own = self.statistics()
        weights = self.net._collect_params_with_prefix()
        before = {name: weights[name].list_data()[0].asnumpy() for name in weights}
        gathered = self.gather_statistics(self.ema.statistics)
        try:
            for name, values in self.ema.weights().items():
                weights[name].list_data()[0][:] = mx.nd.array(values, dtype=weights[name].dtype)
            if gathered is not None:
                self.average_statistics(gathered)
            elif own is not None:
                self.set_statistics(self.ema.statistics)
            yield self
        finally:
            for name, values in before.items():
                weights[name].list_data()[0][:] = mx.nd.array(values, dtype=values.dtype)
            if own is not None:
                self.set_statistics(own)


def mean_row(rows):
    """The mean (L,) of all workers' and devices' (W, D, L), in their own type."""
    return rows.astype(np.float64).mean(axis=(0, 1)).astype(rows.dtype)
