"""A network for inference only: fewer and faster operators, the same function up to rounding.

Our rewrites of the graph come first (`fuse_fold`, `fuse_layout`); MXNet's oneDNN backend then joins convolutions with the
activations and sums that follow. MXNet's own ``net.optimize_for`` would do the latter to the network itself and leave every
gradient zero without a word; here the network is traced and its copy rewritten.
"""
import collections
import types

import mxnet as mx
import numpy as np

from ..errors import UserError
from ..layers.network import Network
from .check import compare
from .fuse_fold import drop_identities, flatten_before_dense, fold_norms, spell_out_norms, split_over_concat, uses
from .fuse_layout import arrange_channels
from .graph import Graph
from .metadata import ExportError
from .symbol import _describe, _layouts_restored

__all__ = ["STEPS", "TOLERANCE", "FusedBlock", "fuse", "fused_graph", "inference_source"]

#: The largest relative difference (see `check.Difference`) between a fused and the live network that is let through.
TOLERANCE = 1e-4

#: Signs and the like: rounding moves a value from one side of the step to the other, and no bound on the outputs holds.
STEPS = ("sign", "_contrib_sign_ste", "_contrib_round_ste", "round", "rint", "floor", "ceil", "trunc", "fix")


class FusedBlock(mx.gluon.SymbolBlock):
    """A network's graph for inference, with outputs of the network's own type and names (a list, where there is no `net`).

    Shape: as the network.
    Raises: UserError when called while gradients are recorded: its operators have none; or for an input that the network
        would refuse.
    """

    def __init__(self, graph, net=None, ctx=None):
        super().__init__(graph.to_symbol(), [mx.sym.var(Graph.input, dtype="float32")])
        for name, parameter in self.collect_params().items():
            value = graph.parameters[name]
            parameter._load_init(mx.nd.array(value, dtype=value.dtype), ctx or mx.cpu(), cast_dtype=True,
                                 dtype_source="saved")
        self.collect_params().setattr("grad_req", "null")
        self._compiled = _Compiled(self)
        self.output_names = graph.output_names
        self._outputs = None
        if len(graph.outputs) > 1 and net is not None:
            self._outputs = getattr(net, "_outputs", None) or collections.namedtuple("FusedOutputs", graph.output_names)
        self._limits = None
        if isinstance(net, Network):
            # Not the network itself: it would stay in memory as long as this block.
            self._limits = types.SimpleNamespace(**{name: getattr(net, name) for name in (
                "in_channels", "min_size", "fixed_size")}, model_name=net.model_name or type(net).__name__)
        self.model_name, self.model_kwargs = getattr(net, "model_name", None), getattr(net, "model_kwargs", None)
        for name in ("classes", "in_channels", "min_size", "fixed_size"):
            if hasattr(net, name):
                setattr(self, name, getattr(net, name))

    def forward(self, x, *args):
        if isinstance(x, mx.nd.NDArray):
            if mx.autograd.is_recording():
                raise UserError("this network was made for inference: it has no gradients; train the one it was made from")
            if self._limits is not None:
                Network.check_input(self._limits, x.shape)
        run = self._compiled if self._active and isinstance(x, mx.nd.NDArray) else super().forward
        outputs = run(x, *args)
        return outputs if self._outputs is None else self._outputs(*outputs)

    def hybridize(self, active=True, **kwargs):
        """As any block's; compiled, a graph of fixed memory is kept for each of the last shapes that came repeatedly."""
        self._compiled.clear()
        super().hybridize(active, **kwargs)

    def cast(self, dtype):
        self._compiled.clear()
        super().cast(dtype)


class _Compiled:
    """A block's graph compiled once for each shape of input, which MXNet does for one shape at a time.

    MXNet's `static_shape` plans the whole run ahead, which halves the time of small networks. But given another shape and then
    the first one again, one that oneDNN's operators are in dies in their layouts ("can't generate TBlob for MKLDNN data"). Here
    every shape has a graph of its own, and what comes once or twice runs through one that is not planned ahead.
    """
    #: Shapes that have a planned graph. Each holds its maps, and the weights in the layouts that oneDNN chose for it.
    MOST = 4
    #: Uses of a shape before it gets a planned graph.
    USES = 2

    def __init__(self, block):
        self._block = block
        self.clear()

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
        made = self._compile(planned=True)
        if not self._works(made, x):
            return self._choose(x)
        del self._uses[key]
        if len(self._planned) == self.MOST:
            self._planned.popitem(last=False)
        self._planned[key] = made
        return made

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


def fuse(net, x=None, *, input_shape=None):
    """A faster copy of a network for inference on the processor; the network itself is not changed and still trains.

    BatchNorm goes into the layer beside it; dropout and the like go; widths of maps become multiples of 16, which oneDNN's
    fast kernels need (ShuffleNet's 58, Xception's 728 channels), and with them slices and shuffles of channels go; a 1x1
    convolution of a concatenation of two reads both parts; MXNet's oneDNN operators take in activations and sums. The copy
    is compared with the network before it is returned. Networks of binary activations are left as they are but for dropout:
    a rounding error there turns a sign.

    Args:
        net: an initialised HybridBlock of one input, in float32.
        x: an example input (N, C, H, W), an NDArray or NumPy array, from which the shape is taken.
        input_shape: (C, H, W) instead; from the registry when neither is given.
    Returns: FusedBlock, hybridized. It takes any batch, and any size of image that the network takes.
    Raises: ExportError when the network is not initialised, takes no such input, or the copy's outputs differ by more than
        1e-4 relative.
    """
    if x is not None:
        shape = tuple(getattr(x, "shape", ()))
        if len(shape) != 4:
            raise ExportError(f"x has shape {shape}; expected an example input (N, C, H, W)")
        if input_shape is not None and tuple(input_shape) != shape[1:]:
            raise ExportError(f"x has shape {shape} and input_shape is {tuple(input_shape)}; expected one of them, or equal ones")
        input_shape = shape[1:]
    graph, ctx, details = inference_source(net, input_shape)
    input_shape = details["input_shape"]
    graph = fused_graph(graph, input_shape)
    symbol = graph.to_symbol()
    if not uses(graph, *STEPS):
        symbol = symbol.get_backend_symbol("MKLDNN")
    block = FusedBlock(Graph.from_symbol(symbol, graph.parameters, graph.output_names), net, ctx)
    block.hybridize()
    _verify(net, block, input_shape, ctx)
    return block


def inference_source(net, input_shape=None):
    """(its `Graph`, its device, fields of `Metadata`) of a network that can be rewritten for inference on the processor.

    Raises: ExportError when it is not initialised, not in float32, or not on a processor.
    """
    graph = Graph.from_net(net)
    details = _describe(net, input_shape, {})
    parameters = list(net.collect_params().values())
    kinds = sorted({str(np.dtype(parameter.dtype)) for parameter in parameters} - {"float32"})
    if kinds:
        raise ExportError(f"the network holds parameters of {', '.join(kinds)}; expected float32")
    ctx = parameters[0].list_ctx()[0] if parameters else mx.cpu()
    if ctx.device_type != "cpu":
        raise ExportError(f"the network is on {ctx}; these operators are oneDNN's, on the processor: expected mx.cpu()")
    return graph, ctx, details


def fused_graph(graph, input_shape):
    """`graph` rewritten by us, in MXNet's ordinary operators.

    Args: input_shape: (C, H, W).
    """
    graph = drop_identities(graph.copy())
    if uses(graph, *STEPS):
        return graph
    graph = spell_out_norms(arrange_channels(split_over_concat(fold_norms(graph)), input_shape))
    return flatten_before_dense(graph, graph.shapes((1,) + tuple(input_shape)))


def _verify(net, block, input_shape, ctx):
    with _layouts_restored(net):
        difference = compare(net, block, input_shape, ctx=ctx)
    if not difference.relative <= TOLERANCE:
        raise ExportError(f"the fused network differs from the live one by {difference.absolute:.3g} "
                          f"(relative {difference.relative:.3g}; at most {TOLERANCE:g} passes)")
