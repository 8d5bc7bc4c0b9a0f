"""Random numbers that are a pure function of what they are drawn for.

The draw for sample `index` in `epoch` depends on (seed, epoch, index, stream) and on nothing else: not on
the batch the sample is in, not on the worker that reads it, not on NumPy's version. So one worker and
many see the same pictures, and a resumed run sees those of the uninterrupted one.

Source: the mixing function of SplitMix64: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014, figure 17 (the variant of S. Vigna's reference code). Differences: used as a hash of
counters, not as a sequence.
"""
import numpy as np

__all__ = ["bits", "uniform", "integers", "uniform_at", "order"]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_ORDER_STREAM = 0x6F72646572  # Keeps the order of an epoch independent of what is drawn for its samples.


def _mix_int(value):
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _mix_array(value):
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _key(seed, epoch):
    return _mix_int(_mix_int(int(seed) + _GOLDEN) + (int(epoch) + 1) * _GOLDEN)


def bits(seed, epoch, indices, stream):
    """64 random bits for every index.

    Shape: (N,) integers -> (N,) uint64.
    """
    counters = np.asarray(indices, dtype=np.int64).reshape(-1).astype(np.uint64) + np.uint64(1)
    values = _mix_array(counters * np.uint64(_GOLDEN) + np.uint64(_key(seed, epoch)))
    return _mix_array(values + np.uint64(((int(stream) + 1) * _GOLDEN) & _MASK))


def uniform(seed, epoch, indices, stream):
    """Uniform numbers in [0, 1).

    Shape: (N,) integers -> (N,) float64.
    """
    return (bits(seed, epoch, indices, stream) >> np.uint64(11)).astype(np.float64) * 2.0 ** -53


def integers(seed, epoch, indices, stream, high):
    """Uniform whole numbers in [0, high).

    Shape: (N,) integers -> (N,) int64.
    """
    return (uniform(seed, epoch, indices, stream) * high).astype(np.int64)


def uniform_at(seed, epoch, index, stream):
    """The number that `uniform` draws for one index, as a Python float and without NumPy's overhead."""
    value = _mix_int(_key(seed, epoch) + (int(index) + 1) * _GOLDEN)
    return (_mix_int(value + (int(stream) + 1) * _GOLDEN) >> 11) * 2.0 ** -53


def order(length, seed, epoch):
    """A random order of `length` samples: a permutation of 0 .. length-1.

    Shape: -> (length,) int64.
    """
    return np.argsort(bits(seed, epoch, np.arange(length), _ORDER_STREAM), kind="stable").astype(np.int64)
