"""How large activations get on the user's images: the range of each tensor that 8 bits then have to cover.

Statistics are gathered batch by batch (a largest value, then a histogram of fixed size), so that memory does not grow with
the number of images.

Source: entropy: S. Migacz, 8-bit Inference with TensorRT, GPU Technology Conference 2017, the calibration pseudocode.
Differences: exact zeros, which every threshold represents exactly and which a ReLU gives by the thousand, are not counted.
"""
import mxnet as mx
import numpy as np

from ..errors import UserError
from .graph import Graph
from .metadata import ExportError

__all__ = ["METHODS", "PERCENTILE", "Images", "calibrate", "entropy_threshold", "percentile_threshold"]

METHODS = ("naive", "percentile", "entropy")
#: Percent of a tensor's values that "percentile" covers.
PERCENTILE = 99.99
BINS = 4096
#: Bytes of activations held at once; batches are cut to fit.
_MEMORY = 256 << 20
#: Operators that take in a ReLU which follows.
_JOINED = ("Convolution", "FullyConnected", "BatchNorm")
#: Steps of 8 bits on one side of zero, and when there are no negative values.
_LEVELS = {True: 127, False: 255}


class Images:
    """The user's images, which can be gone through any number of times.

    Args:
        source: an array (N, C, H, W), normalised as for the network, or something that gives batches of such whenever it is
            iterated: a list, a DataLoader; not a generator, which gives them once.
    Raises: UserError for anything else, an empty set, or values that are not finite.
    """

    def __init__(self, source):
        if hasattr(source, "shape"):
            self._source = [source]
        elif hasattr(source, "__iter__") and not isinstance(source, (str, bytes, dict)):
            if iter(source) is source:
                raise UserError(f"images is a {type(source).__name__}, which gives its batches only once; calibration goes "
                                "through them several times: pass an array, a list, or an object that can be iterated again")
            self._source = source
        else:
            raise UserError(f"images is of type {type(source).__name__}; expected an array (N, C, H, W) or batches of such")
        first = next(self.batches(), None)
        if first is None:
            raise UserError("there are no images to calibrate on")
        self.shape = first.shape[1:]
        self.count = None

    def batches(self, size=None):
        """Batches as float32 arrays (n, C, H, W), of at most `size` images."""
        count = 0
        for batch in self._source:
            batch = batch.asnumpy() if isinstance(batch, mx.nd.NDArray) else np.asarray(batch)
            shape = getattr(self, "shape", batch.shape[1:])
            if batch.ndim != 4 or 0 in batch.shape or batch.dtype.kind not in "fiu":
                raise UserError(f"a batch of images has shape {batch.shape} and type {batch.dtype}; expected numbers of shape "
                                "(N, C, H, W)")
            if batch.shape[1:] != shape:
                raise UserError(f"a batch of images has shape {batch.shape}; those before were (N, {str(shape)[1:]}")
            batch = batch.astype(np.float32)
            if not np.isfinite(batch).all():
                raise UserError("a batch of images holds NaN or infinity")
            count += len(batch)
            for begin in range(0, len(batch), size or len(batch)):
                yield batch[begin:begin + size] if size else batch
        if getattr(self, "count", None) not in (None, count):
            raise UserError(f"images gave {self.count} images the first time and {count} now; expected the same each time")
        if hasattr(self, "shape"):
            self.count = count


def calibrate(graph, images, method):
    """The ranges of a graph's tensors over all images.

    Args:
        graph: of operators in float32, with its parameters.
        images: `Images`.
        method: "naive" (the largest value), "percentile" (`PERCENTILE` of the values lie within) or "entropy" (the least
            Kullback-Leibler divergence of the quantized values from the real ones).
    Returns: {entry: (low, high)}; low is 0 where nothing is negative, else -high.
    Raises: UserError for an unknown method; ExportError when a tensor is not finite.
    """
    if method not in METHODS:
        raise UserError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    entries = _wanted(graph)
    run, size = _runner(graph, entries, images.shape)
    largest, negative = {}, {}
    for batch in images.batches(size):
        for entry, values in run(batch):
            low, high = float(values.min()), float(values.max())
            if not np.isfinite(low + high):
                raise ExportError(f"{entry[0]}: not finite on the images given; nothing to calibrate")
            largest[entry] = max(largest.get(entry, 0.0), high, -low)
            negative[entry] = negative.get(entry, False) or low < 0
    thresholds = {entry: value or 1.0 for entry, value in largest.items()}  # All zeros: any range holds them.
    if method != "naive":
        counts = {entry: np.zeros(BINS, np.int64) for entry in entries}
        for batch in images.batches(size):
            for entry, values in run(batch):
                counts[entry] += histogram(values, thresholds[entry])
        find = percentile_threshold if method == "percentile" else entropy_threshold
        thresholds = {entry: find(counts[entry], thresholds[entry], _LEVELS[negative[entry]]) for entry in entries}
    return {entry: (-value if negative[entry] else 0.0, value) for entry, value in thresholds.items()}


def histogram(values, largest):
    """How many absolute values fall into each of `BINS` equal parts of [0, largest]; exact zeros are not counted.

    Shape: any -> (BINS,) int64.
    """
    magnitudes = np.abs(values.ravel())
    magnitudes = magnitudes[magnitudes > 0]
    places = np.minimum((magnitudes * (BINS / largest)).astype(np.intp), BINS - 1)
    return np.bincount(places, minlength=BINS)


def percentile_threshold(counts, largest, levels=None, percent=PERCENTILE):
    """The upper edge of the first bin below whose end `percent` of the values lie."""
    total = counts.sum()
    if not total:
        return largest
    place = int(np.searchsorted(np.cumsum(counts), total * percent / 100.0))
    return largest * (min(place, len(counts) - 1) + 1) / len(counts)


def entropy_threshold(counts, largest, levels):
    """The threshold at which the distribution of the values, cut there and quantized to `levels` steps, is nearest to that of
    the values cut there."""
    if not counts.sum():
        return largest
    counts = counts.astype(np.float64)
    best, chosen = np.inf, len(counts)
    for end in range(levels + 1, len(counts) + 1, 16):
        inside = counts[:end]
        real = inside.copy()
        real[-1] += counts[end:].sum()
        groups = np.arange(end) * levels // end
        filled = inside > 0
        sums, sizes = np.bincount(groups, inside, levels), np.bincount(groups, filled, levels)
        quantized = np.where(filled, (sums / np.maximum(sizes, 1))[groups], 0.0)
        if not quantized.any():
            continue
        real, quantized = real / real.sum(), quantized / quantized.sum()
        used = real > 0
        divergence = float(np.sum(real[used] * np.log(real[used] / np.maximum(quantized[used], 1e-9))))
        if divergence < best:
            best, chosen = divergence, end
    return largest * chosen / len(counts)


def _wanted(graph):
    """Entries whose ranges are needed: all, but a layer's that only its ReLU reads. (A sum's is: MXNet does not join the two
    where both addends are in 8 bits already, and adds wrongly without a range.)"""
    readers = graph.consumers()
    entries = [(Graph.input, 0)]
    for node in graph.operators:
        after = readers.get(node.entry, [])
        only = after[0][0] if len(after) == 1 else None
        if node.op not in _JOINED or only is None or only.op not in ("Activation", "clip") or node.entry in graph.outputs:
            entries.append(node.entry)
    return entries


def _runner(graph, entries, shape):
    """(function of a batch that gives (entry, values) for each entry, images of a batch that fit into memory)."""
    from .fusion import FusedBlock

    asked = [entry for entry in entries if entry[0] != Graph.input]
    sizes = graph.shapes((1,) + tuple(shape))
    block = FusedBlock(graph.with_outputs(asked))
    bytes_each = 4 * sum(int(np.prod(sizes[entry])) for entry in sizes if sizes[entry] and entry[0] not in graph.parameters)

    def run(batch):
        yield (Graph.input, 0), batch
        outputs = block(mx.nd.array(batch))
        for entry, output in zip(asked, outputs if isinstance(outputs, (list, tuple)) else [outputs]):
            yield entry, output.asnumpy()

    return run, max(1, _MEMORY // max(1, bytes_each))
