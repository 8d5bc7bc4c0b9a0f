"""How gradients travel: gathered into buckets, summed over devices and workers, divided by the global number of samples.

Four ways, all with the same result but for rounding (and what compression does on purpose):

- `ServerSum`: through the KVStore, for workers on several hosts, and for several devices of one process.
- `SharedSum`: through memory that all workers see, when they are on one host and each has one device. Servers copy and
  count what here is added once; workers are added in the order of their ranks, so equal runs agree to the bit.
- `compression.CompressedSum`: through the KVStore, with fewer bits.
- `OwnSum`: nowhere; a job of one worker with one device has nobody to add.
"""
import mxnet as mx
import numpy as np

from ..distributed import cluster, shared

__all__ = ["BUCKET_ELEMENTS", "EXTRAS", "Bucket", "make_buckets", "ServerSum", "SharedSum", "OwnSum", "choose"]

#: Gradients up to this many elements (1 MB of float32) travel together as one KVStore key: small networks spend most
#: of a step on messages otherwise. A larger gradient is a key of its own.
BUCKET_ELEMENTS = 1 << 18

#: Elements that follow the first bucket's gradients: the worker's vote (0 or 1) and its number of samples, so that the number
#: of votes and the global number of samples arrive with the gradients' sum.
EXTRAS = 2


class Bucket:
    """Gradients that travel as one key: per device one flat array and, in it, a view for every gradient.

    Attributes: parameters; size, elements without the extras; dtype; flats, a device each, in which gradients are sent;
        sums, where their sum arrives (the same arrays, unless set by `receive_in`); views: per device those of sums.
    """

    def __init__(self, parameters, contexts, extras=0):
        self.parameters, self.extras = parameters, extras
        self._sizes = [int(np.prod(parameter.shape)) for parameter in parameters]
        self.size, self.dtype = sum(self._sizes), parameters[0].dtype
        self.send_from([mx.nd.zeros((self.size + extras,), ctx=ctx, dtype=self.dtype) for ctx in contexts])

    def send_from(self, flats):
        """Use these arrays, one a device, to send from and to receive in; backward() writes gradients right there."""
        self.flats, self._sent = flats, self._split(flats)
        for number, parameter in enumerate(self.parameters):
            here = [views[number] for views in self._sent]
            for view, gradient in zip(here, parameter.list_grad()):
                gradient.copyto(view)
            parameter._grad = here
            mx.autograd.mark_variables(parameter.list_data(), here, parameter.grad_req)
        self.receive_in(flats)

    def receive_in(self, sums):
        """Use other arrays for the sum than those sent from."""
        self.sums, self.views = sums, self._split(sums)
        self.gradients = [flat[:self.size] for flat in sums]
        self.votes = sums[0][self.size:self.size + 1] if self.extras else None
        self.counts = [flat[self.size + 1:] for flat in sums] if self.extras else None

    def _split(self, flats):
        ends = np.cumsum(self._sizes)
        return [[flat[int(end - size):int(end)].reshape(parameter.shape)
                 for parameter, size, end in zip(self.parameters, self._sizes, ends)] for flat in flats]

    def gather(self):
        """Copy those gradients into what is sent that somebody has given an array of their own since."""
        for device, views in enumerate(self._sent):
            for parameter, view in zip(self.parameters, views):
                if parameter.list_grad()[device] is not view:
                    # One copy each: MXNet's concat takes five times as long.
                    parameter.list_grad()[device].copyto(view)

    def note(self, counts, vote):
        """Put every device's number of samples and, on the first, the vote behind the gradients."""
        for device, (flat, count) in enumerate(zip(self.flats, counts)):
            flat[self.size:] = mx.nd.array([bool(vote) and not device, count], ctx=flat.context, dtype=flat.dtype)

    def average(self, counts):
        """Divide the sums by the global number of samples (at least 1: an entirely empty batch has zero gradients).

        Args: counts: of the first bucket.
        """
        for flat, count in zip(self.gradients, counts):
            count = count.astype(flat.dtype) if count.dtype != flat.dtype else count
            mx.nd.broadcast_div(flat, mx.nd._internal._maximum_scalar(count, scalar=1.0), out=flat)


def make_buckets(parameters, contexts):
    """Deal parameters out to buckets, from the last layer to the first: the order in which gradients are finished."""
    groups, size = [], 0
    for parameter in reversed(parameters):
        elements = int(np.prod(parameter.shape))
        if not groups or size + elements > BUCKET_ELEMENTS or parameter.dtype != groups[-1][0].dtype:
            groups.append([])
            size = 0
        groups[-1].append(parameter)
        size += elements
    return [Bucket(group, contexts, 0 if number else EXTRAS) for number, group in enumerate(groups)]


class ServerSum:
    """Through the KVStore, a key a bucket; the first keys, of the last layers, go first. Every worker must make it."""

    def __init__(self, store, buckets):
        self._store, self._buckets = store, buckets
        self._first = store.allocate(len(buckets))
        store.broadcast({self._first + number: bucket.flats for number, bucket in enumerate(buckets)})

    def sum(self, counts, vote):
        """Sum the gradients over devices and workers into the buckets' sums, asynchronously.

        Args: counts: number of samples of every device. vote: True or False.
        Returns: the number of votes, an NDArray (1,); None when there is one worker only.
        """
        self._buckets[0].note(counts, vote)
        for number, bucket in enumerate(self._buckets):
            bucket.gather()
            self._store.push_pull(self._first + number, bucket.flats, priority=-number)
        # A copy, because the next update overwrites the bucket before anybody needs to have read this.
        return self._buckets[0].votes.copy() if self._store.is_distributed else None

    def average(self):
        """Divide what `sum` summed by the number of samples."""
        for bucket in self._buckets:
            bucket.average(self._buckets[0].counts)

    def leave_out(self):
        """What `sum` summed last is not going to be used."""


class SharedSum:
    """Through a `distributed.shared.SharedMemory` that all workers see. Interface: as `ServerSum`, but `sum` waits.

    With one device a worker, and float32. A worker's processors have nothing else to do meanwhile: there is no network to
    wait for, only other workers, and adding is shared out, each worker adding one part of every bucket.

    Args: private: whether sums are changed in place afterwards; then each worker copies them.
    """

    def __init__(self, memory, buckets, private=False):
        self._memory, self._buckets, self._private = memory, buckets, private
        self._ends = list(np.cumsum([0] + [bucket.size + bucket.extras for bucket in buckets]))
        for bucket, start, stop in zip(buckets, self._ends, self._ends[1:]):
            bucket.send_from([mx.nd.from_numpy(memory.mine[start:stop], zero_copy=True)])
            result = memory.result[start:stop]
            bucket.receive_in([mx.nd.zeros(result.shape) if private else mx.nd.from_numpy(result, zero_copy=True)])

    @staticmethod
    def elements(buckets):
        """Size of the memory, in elements."""
        return sum(bucket.size + bucket.extras for bucket in buckets)

    def sum(self, counts, vote):
        """As `ServerSum.sum`, but the sums are there, and averages already, when it returns."""
        extras = self._buckets[0].size
        self._memory.mine[extras:extras + EXTRAS] = vote, sum(counts)
        for bucket in self._buckets:
            bucket.gather()
            # Nobody may add into what an update that is still under way here reads.
            shared.wait_to_write(bucket.sums[0])
        for number, bucket in enumerate(self._buckets):
            bucket.flats[0].wait_to_read()
            self._memory.ready(number)
        for number, (start, bucket) in enumerate(zip(self._ends, self._buckets)):
            self._memory.add(number, start, start + bucket.size, bucket.extras, divisor=extras + 1)
        self._memory.meet()
        if self._private:
            for start, stop, bucket in zip(self._ends, self._ends[1:], self._buckets):
                bucket.sums[0][:] = mx.nd.array(self._memory.result[start:stop])
        return self._buckets[0].votes.copy()

    def average(self):
        """`sum` has done it."""

    def leave_out(self):
        """What `sum` summed last is not going to be used."""


class OwnSum:
    """For the only worker of a job, with one device: what it has is the sum. Interface: as `ServerSum`."""

    def __init__(self, buckets):
        self._buckets = buckets

    def sum(self, counts, vote):
        """As `ServerSum.sum`."""
        self._buckets[0].note(counts, vote)
        for bucket in self._buckets:
            bucket.gather()
        return self._buckets[0].votes.copy()

    def average(self):
        """As `ServerSum.average`."""
        for bucket in self._buckets:
            bucket.average(self._buckets[0].counts)

    def leave_out(self):
        """What `sum` summed last is not going to be used."""


def choose(store, buckets, contexts, private=False):
    """The way gradients go: nowhere for a single worker, `SharedSum` where all share a host, else `ServerSum`.

    Every worker must call it. GLUONZOO_SHARED_MEMORY=0 leaves `ServerSum`.
    """
    if store.is_distributed and store.num_workers == 1 and len(contexts) == 1 and cluster.shared_memory():
        return OwnSum(buckets)
    if store.is_distributed and store.num_workers > 1:
        float32 = all(np.dtype(bucket.dtype) == np.float32 for bucket in buckets)
        fit = float32 and len(contexts) == 1 and contexts[0].device_type == "cpu"
        memory = shared.open_memory(store, SharedSum.elements(buckets) if fit else 0, len(buckets))
        if memory is not None:
            return SharedSum(memory, buckets, private)
    return ServerSum(store, buckets)
