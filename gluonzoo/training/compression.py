"""Gradients with fewer bits, for slow links: two bits with error feedback, and half precision.

MXNet has a 2-bit compression of its own, which is not used here: `Trainer` refuses it, what it holds back lives where no
checkpoint can reach it, and only what goes to the servers is small; what comes back, the sum, is whole. Here the sum comes back
as small as it went: signs are digits of a number in base 2W + 1 for W workers, the servers add numbers, and no digit of the
sum can overflow into the next. Several digits fit into one float32 exactly: 9 for 2 workers, 7 for 4, 5 for 8, 4 for 16,
3 for up to 101, 2 for up to 1447.
"""
import math

import mxnet as mx
import numpy as np

from ..errors import UserError

__all__ = ["COMPRESSIONS", "DEFAULT_THRESHOLD", "digits_in_a_number", "TwoBit", "Half", "CompressedSum"]

COMPRESSIONS = ("none", "2bit", "fp16")

#: In units of a worker's gradient, summed over its samples; MXNet's own default.
DEFAULT_THRESHOLD = 0.5

#: Whole numbers below this are exact in float32, also when they are divided by a base and rounded down.
_EXACT = 1 << 23


def digits_in_a_number(workers):
    """How many digits in base 2 workers + 1 one float32 carries."""
    return int(math.log(_EXACT - 0.5) / math.log(2 * workers + 1))


class TwoBit:
    """One bucket's gradients as -threshold, 0 or threshold; what is lost is added to the next gradient.

    Source: Seide et al., "1-Bit Stochastic Gradient Descent", 2014, for the error feedback; Strom, "Scalable Distributed DNN
    Training Using Commodity GPU Cloud Computing", 2015, for the threshold. Shape: (size,) -> (ceil(size / digits),).
    """

    def __init__(self, size, workers, threshold, ctx):
        self.size, self._threshold, self._workers = size, threshold, workers
        self._base, self._digits = 2 * workers + 1, digits_in_a_number(workers)
        self.width = -(-size // self._digits)
        self._whole = mx.nd.zeros((self._digits * self.width,), ctx=ctx)  # The residual, padded with zeros.
        self.residual = self._whole[:size]
        self._powers = mx.nd.array([[float(self._base) ** place for place in range(self._digits)]], ctx=ctx)
        self.packed = mx.nd.zeros((self.width,), ctx=ctx)

    def pack(self, gradient):
        """Take in a gradient (size,); sets packed, what is sent, and residual, what is not."""
        mx.nd.elemwise_add(self.residual, gradient, out=self.residual)
        signs = self._whole >= self._threshold
        other = self._whole <= -self._threshold
        mx.nd.elemwise_sub(signs, other, out=signs)
        other = mx.nd._internal._mul_scalar(signs, scalar=self._threshold, out=other)
        mx.nd.elemwise_sub(self._whole, other, out=self._whole)
        # A digit is the sign plus 1.
        number = mx.nd.dot(self._powers, signs.reshape((self._digits, self.width))).reshape((-1,))
        mx.nd._internal._plus_scalar(number, scalar=float(self._base ** self._digits // (self._base - 1)), out=self.packed)

    def unpack(self, out):
        """Write into out (size,) the sum over workers that packed holds now."""
        rest, whole = self.packed, mx.nd.empty(self._whole.shape, ctx=self.packed.context)
        for place in range(self._digits):
            higher = mx.nd.floor(rest / self._base)
            mx.nd.elemwise_sub(rest, higher * self._base, out=whole[place * self.width:(place + 1) * self.width])
            rest = higher
        # A digit of the sum is the sum of the signs plus one for every worker.
        mx.nd._internal._minus_scalar(whole[:self.size], scalar=float(self._workers), out=out)
        mx.nd._internal._mul_scalar(out, scalar=self._threshold, out=out)


class Half:
    """One bucket's gradients in half precision. Shape: (size,) float32 -> (size,) float16."""

    residual = None

    def __init__(self, size, ctx):
        self.packed = mx.nd.zeros((size,), ctx=ctx, dtype="float16")

    def pack(self, gradient):
        """Take in a gradient; sets packed."""
        gradient.astype("float16").copyto(self.packed)

    def unpack(self, out):
        """Write into out the sum that packed holds now."""
        out[:] = self.packed.astype("float32")


class CompressedSum:
    """Through the KVStore, compressed; the number of samples and of votes travel beside, exact. Interface: as `ServerSum`.

    When a gradient is not finite on some worker, all sums are NaN on every worker.
    """

    def __init__(self, store, buckets, kind, threshold=DEFAULT_THRESHOLD, undo=False):
        for bucket in buckets:
            if np.dtype(bucket.dtype) != np.float32:
                raise UserError(f"compression {kind} is for float32 parameters; there is one of {np.dtype(bucket.dtype)}")
        self._store, self._buckets = store, buckets
        ctx = buckets[0].flats[0].context
        self._codecs = [TwoBit(bucket.size, store.num_workers, threshold, ctx) if kind == "2bit" else Half(bucket.size, ctx)
                        for bucket in buckets]
        self._holds_back, self._undo = kind == "2bit", undo and kind == "2bit"
        self._exact = mx.nd.zeros((3,), ctx=ctx)
        self._zeros = mx.nd.zeros((max(bucket.size for bucket in buckets),), ctx=ctx)
        self._before = self._totals = self._whole_keys = None
        self._first = store.allocate(len(buckets) + 1)
        keys = {self._first + number: [codec.packed] for number, codec in enumerate(self._codecs)}
        store.broadcast({**keys, self._first + len(buckets): [self._exact]})

    def sum(self, counts, vote):
        """As `ServerSum.sum`."""
        self._totals = None
        if self._undo:
            self._before = [codec.residual.copy() for codec in self._codecs]
        last, doubts = len(self._buckets), []
        for number, (bucket, codec) in enumerate(zip(self._buckets, self._codecs)):
            bucket.gather()
            gradient = bucket.gradients[0]
            if len(bucket.gradients) > 1:
                gradient = mx.nd.add_n(*[other.as_in_context(gradient.context) for other in bucket.gradients])
            # 0, or NaN when an element is not finite. (MXNet's all_finite takes thirty times as long.)
            doubts.append(mx.nd.dot(gradient, self._zeros[:bucket.size]))
            codec.pack(gradient)
            self._store.push_pull(self._first + number, [codec.packed], priority=-number)
        exact = mx.nd.array([float(bool(vote)), sum(counts)], ctx=self._exact.context)
        mx.nd.concat(exact, mx.nd.add_n(*doubts), dim=0, out=self._exact)
        self._store.push_pull(self._first + last, [self._exact], priority=-last)
        divisor = mx.nd._internal._maximum_scalar(self._exact[1:2], scalar=1.0) + self._exact[2:]
        for bucket, codec in zip(self._buckets, self._codecs):
            codec.unpack(bucket.gradients[0])
            mx.nd.broadcast_div(bucket.gradients[0], divisor, out=bucket.gradients[0])
            for other in bucket.gradients[1:]:
                bucket.gradients[0].copyto(other)
        return self._exact[:1].copy()

    def average(self):
        """`sum` has done it."""

    def leave_out(self):
        """Put back what was held back before `sum`, whose gradient, not finite, is not going to be used."""
        if self._before is not None:
            for codec, before in zip(self._codecs, self._before):
                codec.residual[:] = before

    # What is held back, for checkpoints

    def settle(self):
        """Share what all workers hold back out evenly, so that one array stands for all; every worker must call it."""
        if not self._holds_back or self._totals is not None:
            return
        totals = [codec.residual.copy() for codec in self._codecs]
        if self._whole_keys is None:
            self._whole_keys = self._store.allocate(len(totals))
            self._store.broadcast({self._whole_keys + number: [total.copy()] for number, total in enumerate(totals)})
        for number, total in enumerate(totals):
            self._store.push_pull(self._whole_keys + number, [total])
        self._set(totals)

    def _set(self, totals):
        for codec, total in zip(self._codecs, totals):
            codec.residual[:] = total / self._store.num_workers
        self._totals = totals

    def state(self):
        """What all workers together hold back, {"residual:<bucket>": NumPy array}, after `settle`."""
        if not self._holds_back:
            return {}
        if self._totals is None:
            raise UserError("what 2-bit compression holds back is spread over the workers; have every one call synchronize() "
                            "first")
        return {f"residual:{number}": total.asnumpy() for number, total in enumerate(self._totals)}

    def load(self, values):
        """Restore what `state` returned, also with another number of workers; nothing was held back where values lacks it.

        Returns: the names used. Raises: UserError for arrays of another network.
        """
        if not self._holds_back:
            return set()
        totals = []
        for number, bucket in enumerate(self._buckets):
            value = values.get(f"residual:{number}", np.zeros(bucket.size, dtype=np.float32))
            if value.shape != (bucket.size,):
                raise UserError(f"optimizer state residual:{number} has shape {value.shape}; expected ({bucket.size},)")
            totals.append(mx.nd.array(value, ctx=self._exact.context))
        self._set(totals)
        return {name for name in values if name.startswith("residual:")}
