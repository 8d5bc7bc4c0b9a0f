"""bfloat16: products of numbers of 8 significant bits, sums in float32.

Convolutions, dense layers and what oneDNN can do between them get bfloat16 inputs, other operators float32 ones. MXNet's own
``amp.init("bfloat16")`` patches its operators for the whole process, for good; here one network's graph is rewritten.

Whether it pays is the processor's matter. AMD's Zen 5 does two bfloat16 products where it does one in float32, and ResNet-50 ran
1.65 times as fast there. On an Intel Emerald Rapids whose AMX is hidden, convolutions of ResNet-50 took 1.5 to 1.7 times as long
in bfloat16 as in float32. So `to_bf16` and `train_in_bf16` measure both on the machine they run on.
"""
import time
from dataclasses import dataclass
from typing import Dict, Optional

import mxnet as mx
import numpy as np
from mxnet.gluon.parameter import ParameterDict

from ..errors import UserError
from .check import Difference, compare
from .fuse_fold import drop_identities, fold_norms, free_name, uses
from .fusion import FusedBlock, fuse, inference_source
from .graph import Graph, Node
from .metadata import ExportError
from .quantize_store import to_bfloat16, write
from .symbol import _layouts_restored

__all__ = ["BOUND", "Bfloat16", "native_instructions", "to_bf16", "train_in_bf16"]

#: The largest difference relative to the largest output (see `check.Difference`) that is let through. bfloat16 rounds to
#: one part in 256; ResNet-50 was seen at 0.6 percent, VGG-11 at 0.8, MobileNet v2 at 0.9.
BOUND = 0.03
#: MXNet's number of the type.
_FLAG = 12
#: Operators that get bfloat16, with their parameters.
_LAYERS = ("Convolution", "FullyConnected")
_HALF = _LAYERS + ("Activation", "Pooling", "elemwise_add", "Concat", "Flatten", "BatchNorm")
#: Those, and the ones that are known to work in float32 between casts.
_KNOWN = set(_HALF) | {"mean", "clip", "Dropout", "null"}


@dataclass(frozen=True)
class Bfloat16:
    """A copy of a network in bfloat16; inputs and outputs are float32.

    Attributes:
        block: `FusedBlock`, hybridized.
        difference: `Difference` of its outputs from float32's, on random inputs.
        speed: how many times as fast as `fuse`'s float32 copy it was, in processor time; None when it was not measured.
        graph: the `Graph`, parameters of convolutions and dense layers in MXNet's bfloat16.
        details: fields of `Metadata`.
    """
    block: mx.gluon.HybridBlock
    difference: Difference
    speed: Optional[float]
    graph: Graph
    details: Dict[str, object]

    def __call__(self, x):
        return self.block(x)

    def save(self, prefix, force=False, *, metadata=None):
        """Write PREFIX-symbol.json, PREFIX-0000.params and PREFIX.json, about half the float export's size.

        They are read back by `load_symbol` and compared with this copy before they get their names.

        Args: prefix, force, metadata: as for `to_symbol`.
        Returns: Exported.
        Raises: ExportError when a file is there, or what is read back gives other outputs; no file is left then.
        """
        states = set(self.graph.to_symbol().list_auxiliary_states())
        values = {("aux:" if name in states else "arg:") + name: value for name, value in self.graph.parameters.items()}
        return write(self.block, self.graph, values, self.details, prefix, force, metadata)


def native_instructions(path="/proc/cpuinfo"):
    """The processor's bfloat16 instruction sets, a sorted tuple; empty where there are none, or nobody says."""
    try:
        with open(path) as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        flags = ()
    return tuple(sorted({"avx512_bf16", "amx_bf16"}.intersection(flags)))


def to_bf16(net, input_shape=None, *, force=False):
    """A copy of a network that computes in bfloat16, for inference on the processor; BatchNorm is folded in first.

    For training there is `train_in_bf16`.

    Args:
        net: an initialised HybridBlock of one input, in float32; it is not changed.
        input_shape: (C, H, W); from the registry by default.
        force: go on without native instructions, with depthwise convolutions, and without measuring whether it pays.
    Returns: Bfloat16.
    Raises: ExportError with the reason: no native instructions, a fused or 8-bit network, an operator that is not known to work,
        depthwise convolutions (15 times as slow as fused float32), outputs farther than `BOUND` from float32's, or not faster
        than `fuse`'s float32 copy on this processor.
    """
    graph, ctx, details = _source(net, input_shape, force)
    shape = details["input_shape"]
    graph = drop_identities(graph)
    _check_operators(graph, force)
    block, made = _block(*_converted(fold_norms(graph)), net, ctx)
    with _layouts_restored(net):
        difference = compare(net, block, shape, ctx=ctx)
    if not np.isfinite(difference.relative) or difference.relative > BOUND:
        raise ExportError(f"in bfloat16 the outputs differ by {difference.relative:.3g} of the largest from float32's; at most "
                          f"{BOUND:g} passes")
    speed = None if force else _speed(block, fuse(net, input_shape=shape), shape, ctx)
    if speed is not None and speed <= 1:
        raise ExportError(f"in bfloat16 the network is {speed:.2f} times as fast as in float32 (gluonzoo.export.fuse) on this "
                          "processor: stay with that, or use force (--force-bf16)")
    return Bfloat16(block, difference, speed, made, details)


def train_in_bf16(net, input_shape=None, *, force=False):
    """A block that computes a network and its gradients in bfloat16, with the network's own parameters: train it in its place.

    The parameters, their gradients and the running statistics stay float32 and are the network's: a trainer of
    ``net.collect_params()`` updates them, and ``net`` is evaluated, saved and exported as ever. No other network is touched.

    Args: as for `to_bf16`. The network must not be given other Parameter objects afterwards (``reset_classes``).
    Returns: SymbolBlock; hybridize it as you would the network. Several outputs come as a list. Called while gradients are
        recorded in inference mode, it raises UserError: they would be wrong.
    Raises: ExportError with the reason, as `to_bf16`; "not faster" is of forward and backward together.
    """
    graph, ctx, details = _source(net, input_shape, force)
    for node in graph.operators:
        if node.op == "relu":
            node.op, node.attrs = "Activation", {"act_type": "relu"}
    _check_operators(graph, force)
    half, _ = _converted(graph, store=False)
    speed = None if force else _training_speed(half, graph, details["input_shape"], ctx)
    if speed is not None and speed <= 1:
        raise ExportError(f"in bfloat16 the network trains {speed:.2f} times as fast as in float32 on this processor: stay with "
                          "that, or use force")
    own = ParameterDict()
    for name, parameter in net._collect_params_with_prefix().items():
        own._params[name] = parameter
    return _TrainingBlock(half.to_symbol(), [mx.sym.var(Graph.input, dtype="float32")], params=own)


class _TrainingBlock(mx.gluon.SymbolBlock):
    """See `train_in_bf16`."""

    def forward(self, x, *args):
        if isinstance(x, mx.nd.NDArray) and mx.autograd.is_recording() and not mx.autograd.is_training():
            raise UserError("gradients are recorded with train_mode=False: behind max pooling MXNet's are wrong then in "
                            "bfloat16; use the network itself")
        return super().forward(x, *args)


def _source(net, input_shape, force):
    """As `inference_source`, of a network that bfloat16 may be tried with; the graph is a copy."""
    if isinstance(net, FusedBlock):
        raise ExportError("the network is fused or in 8 bits; its operators are wrong by percents in bfloat16: convert the "
                          "network that it was made from")
    if not native_instructions() and not force:
        raise ExportError("this processor has neither avx512_bf16 nor amx_bf16: bfloat16 would be emulated, slower than float32; "
                          "use force (--force-bf16) to have it nevertheless")
    graph, ctx, details = inference_source(net, input_shape)
    return graph.copy(), ctx, details


def _check_operators(graph, force):
    """Raise ExportError for operators that are wrong, or slow, in bfloat16."""
    unknown = sorted({node.op for node in graph.nodes.values()} - _KNOWN)
    if unknown:
        raise ExportError(f"the network has the operators {', '.join(unknown)}, which are not known to work between bfloat16 "
                          "layers; expected some of " + ", ".join(sorted(_KNOWN - {"null"})))
    depthwise = [node.name for node in graph.operators if node.op == "Convolution"
                 and node.attrs.get("num_group", 1) == node.attrs["num_filter"] > 1]
    if depthwise and not force:
        raise ExportError(f"{depthwise[0]} and {len(depthwise) - 1} more are depthwise convolutions, for which oneDNN has no "
                          "bfloat16 kernel: many times as slow as in float32; use force (--force-bf16) to have it nevertheless")


def _converted(graph, store=True):
    """(a graph with casts, names of the parameters that it has in bfloat16: those of layers, none unless `store`)."""
    graph = graph.copy()
    readers = graph.consumers()
    own = set() if not store else {entry[0] for node in graph.operators if node.op in _LAYERS for entry in node.inputs[1:]
           if graph.value(entry) is not None and all(reader.op in _LAYERS for reader, _ in readers[entry])}
    half, casts = {(name, 0) for name in own}, {}

    def cast(entry, wanted, before):
        if (entry in half) == wanted:
            return entry
        if (entry, wanted) not in casts:
            kind = "bfloat16" if wanted else "float32"
            node = Node("amp_cast", free_name(graph, f"{entry[0]}_{entry[1]}_{kind}"), {"dtype": kind}, [entry])
            casts[entry, wanted] = (graph.insert(node, before) if before else graph.append(node)).entry
            if wanted:
                half.add(casts[entry, wanted])
        return casts[entry, wanted]

    for node in graph.operators:
        wanted = node.op in _HALF
        # BatchNorm's own parameters stay float32.
        node.inputs = [cast(entry, wanted and not (node.op == "BatchNorm" and position), node.name)
                       for position, entry in enumerate(node.inputs)]
        if wanted:
            half.add(node.entry)
    for name in own:
        graph.nodes[name].attrs["__dtype__"] = _FLAG
    graph.outputs = [cast(entry, False, None) for entry in graph.outputs]
    return graph, own


def _block(graph, own, net, ctx):
    """(hybridized block, its graph) of a graph with casts; `own` are the parameters that become bfloat16."""
    if not uses(graph, "BatchNorm"):  # With one left, MXNet's joining gives other numbers (seen: by 5 percent).
        # MXNet leaves the casts out of a graph's text unless asked.
        text = graph.to_symbol().get_backend_symbol("MKLDNN").tojson(remove_amp_cast=False)
        graph = Graph.from_symbol(text, graph.parameters, graph.output_names)
    graph.parameters.update((name, to_bfloat16(graph.parameters[name])) for name in own)
    block = FusedBlock(graph, net, ctx)
    block.hybridize(static_alloc=True)
    return block, graph


def _training_speed(half, full, shape, ctx):
    """How many times as fast a converted graph is in training as its original; copies of the parameters are used."""
    def steps(graph):
        block = graph.to_block(ctx)
        block.hybridize(static_alloc=True)

        def run(x):
            with mx.autograd.record():
                outputs = block(x)
            mx.autograd.backward(outputs)
        return run

    return _speed(steps(half), steps(full), shape, ctx)


def _speed(block, fused, shape, ctx, batch=8, repeats=4):
    """How many times as fast as another a block is: processor time of runs in turn, the shortest of each."""
    x = mx.nd.array(np.random.RandomState(0).standard_normal((batch,) + tuple(shape)), ctx=ctx)
    times = {}
    for turn in range(repeats + 1):
        for name, run in (("bf16", block), ("fp32", fused)):
            begun = time.process_time()
            run(x)
            mx.nd.waitall()
            if turn:  # The first run makes the kernels.
                times.setdefault(name, []).append(time.process_time() - begun)
    return min(times["fp32"]) / min(times["bf16"])
