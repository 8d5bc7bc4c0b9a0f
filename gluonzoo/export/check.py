"""Is what was exported still the same function? Random inputs through both, and the largest difference."""
from dataclasses import dataclass

import mxnet as mx
import numpy as np

from .metadata import ExportError

__all__ = ["Difference", "compare", "flatten", "relative"]


@dataclass(frozen=True)
class Difference:
    """The largest distance between two functions' outputs.

    Args:
        absolute: of any element.
        relative: of any output array: its largest absolute difference over its largest value.
    """
    absolute: float
    relative: float


def flatten(outputs):
    """The arrays (or symbols) inside nested lists, tuples and dicts, as a list of (name, value), in order."""
    def walk(value, path):
        if hasattr(value, "_fields"):  # A named tuple.
            value = value._asdict()
        if isinstance(value, dict):
            children = value.items()
        elif isinstance(value, (list, tuple)) or isinstance(value, mx.sym.Symbol) and len(value) > 1:
            children = enumerate(value)
        else:
            return [("_".join(path) or "output", value)] if value is not None else []
        return [pair for key, item in children for pair in walk(item, path + (str(key),))]

    pairs = walk(outputs, ())
    # Plain sequences number their outputs: "0" alone says little.
    return [(f"output{name}" if name[0].isdigit() else name, value) for name, value in pairs]


def compare(live, exported, input_shape, batches=(1, 3), seed=0, ctx=None):
    """Run random batches through two blocks in inference mode and measure how far apart the outputs are.

    Draws from a generator of its own: MXNet's and NumPy's random state stay as they are.

    Args:
        live, exported: blocks (or functions) of one NDArray; the outputs may be nested in lists, tuples and dicts.
        input_shape: of one sample, without the batch.
        batches: numbers of samples, one run for each.
        ctx: the device of the inputs.
    Returns: Difference, the largest over all batches and outputs.
    Raises: ExportError when the two give different numbers or shapes of outputs, or one gives NaN.
    """
    rng = np.random.RandomState(seed)
    absolute = largest = 0.0
    for batch in batches:
        data = rng.standard_normal((batch,) + tuple(input_shape)).astype(np.float32)
        with mx.autograd.pause(train_mode=False):
            # Each gets its own array, so that one writing into its input cannot fool the comparison.
            pairs = [flatten(block(mx.nd.array(data, ctx=ctx))) for block in (live, exported)]
            ours, theirs = ([array.asnumpy() for _, array in pair] for pair in pairs)
        if [array.shape for array in ours] != [array.shape for array in theirs]:
            raise ExportError(f"for an input of shape {data.shape} the live network gives outputs of shapes "
                              f"{[array.shape for array in ours]}, the exported {[array.shape for array in theirs]}")
        for (name, _), a, b in zip(pairs[0], ours, theirs):
            if np.isnan(a).any() or np.isnan(b).any():
                raise ExportError(f"output {name!r} is NaN for random inputs of shape {data.shape}: nothing to "
                                  "compare; are the parameters trained?")
            absolute, largest = max(absolute, _distance(a, b)), max(largest, relative(a, b))
    return Difference(absolute, largest)


def _distance(a, b):
    """The largest distance of any two elements; equal infinities are equal."""
    with np.errstate(invalid="ignore"):
        distance = np.where(a == b, 0.0, np.abs(np.asarray(a, np.float64) - b))
    return float(distance.max()) if distance.size else 0.0


def relative(a, b):
    """The largest distance of any two elements of two arrays, over the largest finite value of `a`; NaN where one is NaN."""
    largest = _distance(a, b)
    finite = np.abs(a[np.isfinite(a)])
    scale = float(finite.max()) if finite.size else 0.0
    return largest / scale if scale > 0 else (largest if largest != largest else float("inf") if largest else 0.0)
