"""Weight sharing: k-means over the weights of a layer, so that each is one of a few values.

Source: S. Han, H. Mao, W. Dally, Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and
Huffman Coding, 2016, arXiv:1510.00149, sections 3.1 (clusters), 3.2 (initialisation) and 3.3 (training: `training.sharing`).
Differences: weights that are exactly 0, the pruned ones, stay 0 and in no cluster, as sparse storage has them anyway.
"""
from dataclasses import dataclass

import numpy as np

from ..errors import UserError

__all__ = ["INITS", "Shared", "share", "kmeans"]

#: Where the clusters begin: evenly between the smallest and the largest weight; at evenly spaced shares of the weights'
#: distribution; at weights drawn at random. Section 3.2 finds the first best, because it keeps large weights.
INITS = ("linear", "density", "random")

_ROUNDS = 1000


@dataclass(frozen=True)
class Shared:
    """An array of few values. codes: (k,) float32, rising, 0 first where there are zeros; indices: the array's shape, uint16."""

    codes: np.ndarray
    indices: np.ndarray

    def array(self):
        """The array itself."""
        return self.codes[self.indices]


def kmeans(values, clusters, init="linear", seed=0):
    """Centres of Lloyd's algorithm on numbers, run until nothing moves.

    Args: values: (n,), n from 1; clusters: at most so many. Returns: centres (k,) float64, rising, each with at least one value.
    """
    values = np.sort(values.astype(np.float64))
    if init == "linear":
        centres = np.linspace(values[0], values[-1], clusters)
    elif init == "density":
        centres = np.quantile(values, (np.arange(clusters) + 0.5) / clusters)
    else:
        centres = values[np.random.RandomState(seed).choice(len(values), min(clusters, len(values)), replace=False)]
    centres = np.unique(centres)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = None
    for _ in range(_ROUNDS):
        # Sorted numbers: a cluster is what lies between the middles of neighbouring centres.
        borders = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2, side="right")
        new = np.concatenate([[0], borders, [len(values)]])
        if ends is not None and np.array_equal(new, ends):
            break
        ends, counts = new, np.diff(new)
        # A cluster that has lost all its values is gone.
        ends = np.concatenate([[0], ends[1:][counts > 0]])
        centres = np.diff(sums[ends]) / np.diff(ends)
    return centres


def share(array, bits, init="linear", seed=0):
    """The array with each element other than 0 replaced by the centre of its cluster, of at most 2 ** bits clusters.

    Args: array: float32, finite; bits: 1 to 8; init: of `INITS`; seed: of "random".
    Returns: `Shared`.
    Raises: UserError for other settings, or elements that are not finite.
    """
    if not isinstance(bits, int) or not 1 <= bits <= 8:
        raise UserError(f"weight sharing with {bits!r} bits; expected 1 to 8")
    if init not in INITS:
        raise UserError(f"weight sharing begins with {init!r}; expected one of {', '.join(INITS)}")
    if not np.isfinite(array).all():
        raise UserError("weight sharing of weights that are not finite; expected finite numbers")
    used = array[array != 0]
    if not used.size:
        return Shared(np.zeros(1, np.float32), np.zeros(array.shape, np.uint16))
    centres = kmeans(used, 2 ** bits, init, seed)
    codes = centres.astype(np.float32)
    # Neighbours may round to the same float32, and a cluster's centre to 0, which is for those that are pruned.
    codes = np.unique(codes[codes != 0])
    if not len(codes):
        codes = np.unique(used)[:1]
    middles = (codes[1:].astype(np.float64) + codes[:-1]) / 2
    indices = np.searchsorted(middles, array.astype(np.float64), side="left")
    if used.size < array.size:
        codes = np.concatenate([np.zeros(1, np.float32), codes])
        indices = np.where(array == 0, 0, indices + 1)
    # Rounded centres may have lost a weight that lay on a border.
    kept, indices = np.unique(indices, return_inverse=True)
    return Shared(codes[kept], indices.reshape(array.shape).astype(np.uint16))
