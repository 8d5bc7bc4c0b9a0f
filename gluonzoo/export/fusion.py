"""A network for inference only: fewer and faster operators, the same function up to rounding.

Our rewrites of the graph come first (`fuse_fold`, `fuse_layout`). Then oneDNN runs what is left directly (package `onednn`), or,
where it is not installed or lacks an operator, MXNet does, whose oneDNN backend joins convolutions with the activations and sums
that follow. MXNet's own ``net.optimize_for`` would do the latter to the network itself and leave every gradient zero without a
word; here the network is traced and its copy rewritten.
"""
import collections
import types

import mxnet as mx
import numpy as np

from ..errors import UserError
from ..layers.network import Network
from .check import compare
from .compiled import TOLERANCE, Compiled
from .fuse_fold import drop_identities, flatten_before_dense, fold_norms, spell_out_norms, split_over_concat, uses
from .fuse_layout import arrange_channels
from .graph import Graph
from .metadata import ExportError
from .onednn.runner import Direct
from .symbol import _describe, _layouts_restored

__all__ = ["ENGINES", "STEPS", "TOLERANCE", "FusedBlock", "fuse", "fused_graph", "inference_source"]

#: What runs a fused network: oneDNN where it can, it or an error, MXNet.
ENGINES = ("auto", "onednn", "mxnet")

#: Signs and the like: rounding moves a value from one side of the step to the other, and no bound on the outputs holds.
STEPS = ("sign", "_contrib_sign_ste", "_contrib_round_ste", "round", "rint", "floor", "ceil", "trunc", "fix")


class FusedBlock(mx.gluon.SymbolBlock):
    """A network's graph for inference, with outputs of the network's own type and names (a list, where there is no `net`).

    Other parameters, by `load_parameters` or a parameter's `set_data`, are used at once, but by MXNet's operators from then on.

    Args:
        graph: in MXNet's operators.
        direct: `onednn.runner.Direct` of the same function, which runs the shapes that `prepare` was called for or that come
            a third time; None: MXNet runs all.
    Shape: as the network.
    Raises: UserError when called while gradients are recorded: its operators have none; or for an input that the network
        would refuse.
    """

    def __init__(self, graph, net=None, ctx=None, direct=None):
        super().__init__(graph.to_symbol(), [mx.sym.var(Graph.input, dtype="float32")])
        for name, parameter in self.collect_params().items():
            value = graph.parameters[name]
            parameter._load_init(mx.nd.array(value, dtype=value.dtype), ctx or mx.cpu(), cast_dtype=True,
                                 dtype_source="saved")
        self.collect_params().setattr("grad_req", "null")
        self._compiled = Compiled(self, direct)
        if direct is not None:
            for parameter in self.collect_params().values():
                parameter.set_data = self._noticed(parameter.set_data)
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

    def _noticed(self, set_data):
        compiled = self._compiled

        def noticed(data):
            compiled.use_mxnet("other parameters were set")
            set_data(data)
        return noticed

    def forward(self, x, *args):
        if isinstance(x, mx.nd.NDArray):
            if mx.autograd.is_recording():
                raise UserError("this network was made for inference: it has no gradients; train the one it was made from")
            if self._limits is not None:
                Network.check_input(self._limits, x.shape)
        run = self._compiled if self._active and isinstance(x, mx.nd.NDArray) else super().forward
        outputs = run(x, *args)
        return outputs if self._outputs is None else self._outputs(*outputs)

    def prepare(self, x):
        """Compile now for inputs of the shape of `x`, an NDArray (N, C, H, W), and not when that shape comes a third time.

        It takes a second or a few. Returns: what runs that shape from now on, "mxnet" or for instance "onednn 2.6.0".
        """
        if not isinstance(x, mx.nd.NDArray) or x.ndim != 4:
            raise UserError(f"prepare takes an NDArray (N, C, H, W), received {getattr(x, 'shape', type(x).__name__)}")
        if self._limits is not None:
            Network.check_input(self._limits, x.shape)
        return self._compiled.prepare(x)

    @property
    def engines(self):
        """{shape of input: what runs it}, for the shapes that were compiled."""
        return self._compiled.engines

    @property
    def why_not_direct(self):
        """Why oneDNN does not run this network directly; None where it does, or has not been tried."""
        return self._compiled.problem

    def load_parameters(self, *args, **kwargs):
        """As any block's; from then on MXNet's operators run the network."""
        self._compiled.use_mxnet("other parameters were loaded")
        super().load_parameters(*args, **kwargs)

    def hybridize(self, active=True, **kwargs):
        """As any block's; compiled, a graph of fixed memory is kept for each of the last shapes that came repeatedly."""
        self._compiled.clear()
        super().hybridize(active, **kwargs)

    def cast(self, dtype):
        self._compiled.use_mxnet(f"the network was cast to {np.dtype(dtype).name}")
        super().cast(dtype)


def fuse(net, x=None, *, input_shape=None, engine="auto"):
    """A faster copy of a network for inference on the processor; the network itself is not changed and still trains.

    BatchNorm goes into the layer beside it; dropout and the like go; widths of maps become multiples of 16, which oneDNN's
    fast kernels need (ShuffleNet's 58, Xception's 728 channels), and with them slices and shuffles of channels go; a 1x1
    convolution of a concatenation of two reads both parts; activations and sums go into the convolutions. The copy is compared
    with the network before it is returned. Networks of binary activations are left as they are but for dropout: a rounding
    error there turns a sign.

    Where the package onednn-cpu-gomp is installed, oneDNN runs the copy directly: for each shape of input, algorithms (Winograd's
    for 3x3 convolutions among them) and orders of values in memory are chosen by measuring, which takes a second or a few when
    `fuse` is called, for the shape of `x`, and whenever another shape comes for the third time.

    Args:
        net: an initialised HybridBlock of one input, in float32.
        x: an example input (N, C, H, W), an NDArray or NumPy array; the copy is compiled for its shape.
        input_shape: (C, H, W) instead, with a batch of 1; from the registry when neither is given.
        engine: "auto": oneDNN directly where it can; "onednn": that, or an error; "mxnet": MXNet's operators.
    Returns: FusedBlock, hybridized. It takes any batch, and any size of image that the network takes.
    Raises: ExportError when the network is not initialised, takes no such input, or the copy's outputs differ by more than
        1e-4 relative, or when oneDNN was asked for and is not there or lacks an operator. UserError for an unknown engine.
    """
    if engine not in ENGINES:
        raise UserError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")
    example = x
    if x is not None:
        shape = tuple(getattr(x, "shape", ()))
        if len(shape) != 4:
            raise ExportError(f"x has shape {shape}; expected an example input (N, C, H, W)")
        if input_shape is not None and tuple(input_shape) != shape[1:]:
            raise ExportError(f"x has shape {shape} and input_shape is {tuple(input_shape)}; expected one of them, or equal ones")
        input_shape = shape[1:]
    graph, ctx, details = inference_source(net, input_shape)
    input_shape = details["input_shape"]
    direct = None if engine == "mxnet" else _direct(graph, input_shape)
    graph = fused_graph(graph, input_shape)
    symbol = graph.to_symbol()
    if not uses(graph, *STEPS):
        symbol = symbol.get_backend_symbol("MKLDNN")
    block = FusedBlock(Graph.from_symbol(symbol, graph.parameters, graph.output_names), net, ctx, direct)
    block.hybridize()
    _verify(net, block, input_shape, ctx)
    if direct is not None:
        shape = (1,) + tuple(input_shape) if example is None else example.shape
        # Random values: those of an example may be all zero.
        values = np.random.RandomState(0).standard_normal(shape)
        block.prepare(mx.nd.array(values, dtype=np.float32, ctx=ctx))
    if engine == "onednn" and block.why_not_direct:
        raise ExportError(f"oneDNN cannot run this network directly: {block.why_not_direct}; use engine=\"auto\" or \"mxnet\"")
    if engine == "onednn" and direct is None:
        raise ExportError("oneDNN is not installed, or not made for this machine or network: "
                          "pip install onednn-cpu-gomp==2022.2.1 (Linux, x86-64)")
    return block


def _direct(graph, input_shape):
    """`Direct` of a graph's rewrites; None where there is no library, or rounding turns signs in the network."""
    base = drop_identities(graph.copy())
    if uses(base, *STEPS):
        return None
    base = fold_norms(base)
    split = split_over_concat(base.copy())
    graphs = [base] + ([split] if len(split.nodes) != len(base.nodes) else [])
    return Direct.of([arrange_channels(one, input_shape) for one in graphs])


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
