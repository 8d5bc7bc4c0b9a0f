"""A fused network's graph compiled for the shapes of input that come: by oneDNN directly, or by MXNet."""
import collections

import mxnet as mx
import numpy as np

from .check import relative
from .onednn.runner import Unsupported

__all__ = ["TOLERANCE", "Compiled"]

#: The largest relative difference (see `check.Difference`) between a fused and the live network that is let through.
TOLERANCE = 1e-4


class Compiled:
    """A block's graph compiled once for each shape of input, which MXNet does for one shape at a time.

    Args:
        block: a SymbolBlock.
        direct: `onednn.runner.Direct` of the same function, tried first; or None.

    MXNet's `static_shape` plans the whole run ahead, which halves the time of small networks. But given another shape and then
    the first one again, one that oneDNN's operators are in dies in their layouts ("can't generate TBlob for MKLDNN data"). Here
    every shape has a graph of its own, and what comes once or twice runs through one that is not planned ahead.
    """
    #: Shapes that have a planned graph. Each holds its maps, and the weights in the layouts that oneDNN chose for it.
    MOST = 4
    #: Uses of a shape before it gets a planned graph.
    USES = 2

    def __init__(self, block, direct=None):
        self._block, self._direct = block, direct
        self.problem = None
        self.clear()

    def use_mxnet(self, why):
        """Let MXNet's operators run all shapes."""
        if self._direct is not None:
            self._direct, self.problem = None, why
        self.clear()

    @property
    def engines(self):
        return {key[0]: compiled.name if isinstance(compiled, _Direct) else "mxnet" for key, compiled in self._planned.items()}

    def prepare(self, x):
        key = x.shape, x.context, x.dtype
        if key not in self._planned:
            self._uses[key] = self.USES
            self._choose(x)
        return self.engines.get(x.shape, "mxnet")

    def clear(self):
        self._general, self._planned, self._uses = None, collections.OrderedDict(), collections.OrderedDict()

    def _compile(self, planned):
        inputs, outputs = self._block._cached_graph
        parameters, names = self._block.collect_params(), outputs.list_inputs()
        flags = [("static_alloc", True), ("static_shape", planned)]
        place = names.index(inputs[0].name) if inputs[0].name in names else None
        own = [None if index == place else parameters[name] for index, name in enumerate(names)]
        return mx.nd.CachedOp(outputs, flags), own

    def __call__(self, x):
        return self._run(self._choose(x), x)

    @staticmethod
    def _run(compiled, x):
        if isinstance(compiled, _Direct):
            return compiled(x)
        op, parameters = compiled
        return op(*[x if parameter is None else parameter.data(x.context) for parameter in parameters])

    def _choose(self, x):
        key = x.shape, x.context, x.dtype
        if key in self._planned:
            self._planned.move_to_end(key)
            return self._planned[key]
        uses = self._uses[key] = self._uses.pop(key, 0) + 1
        if len(self._uses) > 4 * self.MOST:
            self._uses.popitem(last=False)
        if uses != self.USES + 1:  # Not yet; or it was tried, and could not be planned.
            if self._general is None:
                self._general = self._compile(planned=False)
            return self._general
        made = self._try_direct(x)
        if made is None:
            made = self._compile(planned=True)
            if not self._works(made, x):
                return self._choose(x)
        self._uses.pop(key, None)
        if len(self._planned) == self.MOST:
            self._planned.popitem(last=False)
        self._planned[key] = made
        return made

    def _try_direct(self, x):
        """The network compiled by oneDNN for the shape of x, compared with MXNet on x; None where it cannot be."""
        if self._direct is None or x.dtype != np.float32 or x.context.device_type != "cpu":
            return None
        if self._general is None:
            self._general = self._compile(planned=False)
        expected = _listed(self._run(self._general, x))
        expected = [array.asnumpy() for array in expected]
        try:
            # Winograd's convolutions round more; where that is too much for a network, the others are left.
            for winograd in (True, False):
                made = _Direct(self._direct.compile(x.shape, x.context, winograd), self._direct.name)
                found = [array.asnumpy() for array in _listed(made(x))]
                if [array.shape for array in found] == [array.shape for array in expected] and all(
                        relative(a, b) <= TOLERANCE / 2 for a, b in zip(expected, found)):
                    return made
            self.problem = "its outputs differ from MXNet's"
        except Unsupported as error:
            self.problem = f"it has no {error}"
        return None

    def _works(self, compiled, x):
        """Whether a planned graph runs again and again; where it does not, it is the second run that dies."""
        try:
            for _ in range(3):
                outputs = self._run(compiled, x)
                for output in outputs if isinstance(outputs, list) else [outputs]:
                    output.wait_to_read()
        except mx.MXNetError:
            return False
        return True


class _Direct:
    """A `Runner` that answers as MXNet's compiled graphs do: an array, or a list of several."""

    def __init__(self, runner, name):
        self._runner, self.name = runner, name

    def __call__(self, x):
        outputs = self._runner(x)
        return outputs if len(outputs) > 1 else outputs[0]


def _listed(outputs):
    return outputs if isinstance(outputs, (list, tuple)) else [outputs]
