"""Random numbers that are a pure function of what they are drawn for.

The draw for sample `index` in `epoch` depends on (seed, epoch, index, stream) and on nothing else: not on
the batch the sample is in, not on the worker that reads it, not on NumPy's version. So one worker and
many see the same pictures, and a resumed run sees those of the uninterrupted one.

Source: the mixing function of SplitMix64: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014, figure 17 (the variant of S. Vigna's reference code). Differences: used as a hash of
counters, not as a sequence.
"""
import math

import numpy as np

__all__ = ["bits", "uniform", "integers", "uniform_at", "normal", "beta", "order"]

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


def normal(seed, epoch, indices, stream):
    """Numbers from the standard normal distribution. Uses the streams `stream` and `stream` + 1.

    Shape: (N,) integers -> (N,) float64.
    Source: G. Box, M. Muller, "A note on the generation of random normal deviates", 1958.
    """
    first, second = (uniform(seed, epoch, indices, stream + k) for k in (0, 1))
    # Python's own functions, one number at a time: NumPy's may differ in the last bit by a number's place in the array.
    return np.array([math.sqrt(-2.0 * math.log(1.0 - u)) * math.cos(2.0 * math.pi * v) for u, v in zip(first, second)])


def beta(seed, epoch, indices, stream, alpha):
    """Numbers from the distribution Beta(alpha, alpha), alpha above 0. Uses the streams from `stream` on, up to 400 of them.

    Shape: (N,) integers -> (N,) float64.
    Source: the ratio of two gamma variates, each by G. Marsaglia, W. Tsang, "A simple method for generating gamma variables",
    2000, with their step for alpha below 1. Differences: in logarithms, because a small alpha's variates underflow.
    """
    first, second = (_log_gamma_variates(seed, epoch, indices, stream + k, alpha) for k in (0, 200))
    return np.array([1.0 / (1.0 + math.exp(min(b - a, 700.0))) for a, b in zip(first, second)])


def _log_gamma_variates(seed, epoch, indices, stream, alpha):
    d = alpha + (1.0 if alpha < 1 else 0.0) - 1 / 3
    c = 1 / math.sqrt(9 * d)
    values = [None] * len(indices)
    open_rows, attempt = np.arange(len(indices)), 0
    while len(open_rows):
        chosen = np.asarray(indices)[open_rows]
        normals = normal(seed, epoch, chosen, stream + 1 + 3 * attempt).tolist()
        uniforms = uniform(seed, epoch, chosen, stream + 3 + 3 * attempt).tolist()
        for row, x, w in zip(open_rows.tolist(), normals, uniforms):
            cube = (1.0 + c * x) ** 3
            # More than 95 % are accepted at once. The 60th is taken as it comes.
            if cube > 0 and (attempt >= 59 or math.log(1.0 - w) < 0.5 * x * x + d - d * cube + d * math.log(cube)):
                values[row] = math.log(d * cube)
        open_rows, attempt = np.array([row for row in open_rows if values[row] is None], dtype=np.int64), attempt + 1
    if alpha < 1:
        smaller = uniform(seed, epoch, indices, stream).tolist()
        values = [value + math.log(1.0 - u) / alpha for value, u in zip(values, smaller)]
    return values
