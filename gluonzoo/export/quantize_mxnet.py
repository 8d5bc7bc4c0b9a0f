"""A graph with 8-bit operators of MXNet's oneDNN backend, from a float graph and the ranges of its tensors.

The passes of MXNet's C interface are called directly: ``mxnet.contrib.quantization.quantize_net`` goes through files, reads
the calibration data by an iterator that it never rewinds, and finds its thresholds itself. What they get wrong is put right
here and in `quantize_sums`: the weights' gain, ranges cut to six decimals, sums of signed numbers.
"""
import mxnet as mx
import numpy as np
from mxnet.contrib import quantization as passes

from .fuse_fold import free_name, spell_out_norms
from .graph import Graph
from .metadata import ExportError
from .quantize_sums import repair_sums

__all__ = ["LAYERS", "in_8_bits", "layers", "quantized_weight", "real_weight", "round_weights", "to_int8"]

#: Operators with weights that get 8 bits.
LAYERS = ("Convolution", "FullyConnected")
#: Ranges below this are noise, and their reciprocals' products too near to the end of float32: such layers stay in float32.
SMALLEST = 1e-12
#: MXNet's kernels round a weight to steps of the channel's largest over 127.5; ours are of it over 127.
GAIN = 127.5 / 127
_BACKEND = "MKLDNN_QUANTIZE"
_FUSED = ("_sg_mkldnn_conv", "_sg_mkldnn_fully_connected")


def _layer_name(node):
    name = node.inputs[1][0]
    return name[:-len(".weight")] if name.endswith(".weight") else name


def layers(graph):
    """{name: node} of the layers that can be quantized: the name is that of the weight without ".weight".

    Of layers that share a weight the first node.
    """
    found = {}
    for node in graph.operators:
        if node.op in LAYERS and graph.value(node.inputs[1]) is not None:
            found.setdefault(_layer_name(node), node)
    return found


def quantized_weight(weight):
    """(int8 values, float32 scale (O,)): each output channel's largest weight becomes 127; no zero point.

    Of what `real_weight` gives, it finds the same values and scales again, to the bit: a scale that differs in the last bit turns
    some roundings of activations.

    Shape: (O, ...) float32 -> the same, and (O,).
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1).astype(np.float64)
    scale = np.where(largest > 0, largest / 127.0, 1.0)
    steps = np.rint(weight / scale.reshape((-1,) + (1,) * (weight.ndim - 1)))
    return np.clip(steps, -127, 127).astype(np.int8), scale.astype(np.float32)


def real_weight(steps, scale):
    """The float32 weights that int8 values and scales stand for."""
    return steps.astype(np.float32) * scale.reshape((-1,) + (1,) * (steps.ndim - 1))


def round_weights(graph, names):
    """Replace the named layers' weights by the nearest that 8 bits can hold; quantizing those again changes nothing."""
    for name, node in layers(graph).items():
        if name in names:
            weight = node.inputs[1][0]
            graph.parameters[weight] = real_weight(*quantized_weight(graph.parameters[weight]))
    return graph


def too_small(graph, ranges):
    """Names of the layers whose input or output range is below `SMALLEST`: they stay in float32."""
    readers = graph.consumers()

    def entries(node):
        after = [reader.entry for reader, _ in readers.get(node.entry, [])]
        return [node.inputs[0], node.entry if node.entry in ranges else (after or [node.entry])[0]]

    return tuple(name for name, node in layers(graph).items()
                 if any(0 < ranges[entry][1] < SMALLEST for entry in entries(node) if entry in ranges))


def in_8_bits(node):
    """Whether a node of an 8-bit graph is a convolution or dense layer in 8 bits."""
    return node.op in _FUSED and str(node.attrs.get("quantized")).lower() == "true"


def to_int8(graph, ranges, excluded=()):
    """A graph of oneDNN's fused operators, with 8 bits in all layers but the excluded, and grouped convolutions (`_is_grouped`).

    The parameters stay float32: the operators quantize them, by the channel, when they first run.

    Args:
        graph: a float graph without BatchNorms that could be folded, its weights as `round_weights` leaves them.
        ranges: {entry: (low, high)} of `quantize_calibration.calibrate`.
        excluded: names of `layers`.
    Returns: Graph.
    """
    graph, ranges = spell_out_norms(graph.copy()), dict(ranges)
    kept = {node.name for node in graph.operators
            if node.op in LAYERS and (_layer_name(node) in set(excluded) or _is_grouped(node))}
    symbol, heads = _joined(graph)
    repair_sums(graph, Graph.from_symbol(symbol, graph.parameters), heads, ranges, kept)
    symbol, heads = _joined(graph)
    symbol, wanted = passes._quantize_symbol(
        symbol, mx.cpu(), excluded_symbols=_avoided(symbol, graph, kept), excluded_operators=["BatchNorm"],
        offline_params=list(graph.parameters), quantized_dtype="auto", quantize_mode="smart",
        quantize_granularity="channel-wise")
    thresholds = {}
    for output in wanted:
        name = output[:-len("_output")] if output.endswith("_output") else output
        entry = heads.get(name, name), 0
        if entry in ranges:
            thresholds[output] = ranges[entry]
    symbol = passes._calibrate_quantized_sym(symbol, thresholds).get_backend_symbol(_BACKEND)
    made = Graph.from_symbol(symbol, graph.parameters, graph.output_names).prune()
    return _without_gain(_exact_ranges(made, heads, ranges))


def _is_grouped(node):
    """Whether a node is a convolution of groups of several channels.

    MXNet rounds the weights of a group by the scale of the channel that has the group's number, and multiplies the results by
    that of their own channel. Each group of a depthwise convolution has one channel, with the same number.
    """
    groups = node.attrs.get("num_group", 1)
    return node.op == "Convolution" and groups > 1 and node.attrs["num_filter"] != groups


def _joined(graph):
    """(symbol of oneDNN's fused operators, {name of such an operator: name of the graph's node that its output is})."""
    try:
        symbol = graph.to_symbol().get_backend_symbol(_BACKEND)
    except mx.MXNetError as error:
        raise ExportError(f"MXNet cannot join this network's operators for 8 bits (a convolution's result that is added to a sum "
                          f"which it is in already makes it fail): {str(error).splitlines()[-1].strip()}") from None
    heads = {}
    for node in Graph.from_symbol(symbol, graph.parameters).operators:
        inside = _inside(node)
        heads[node.name] = inside["nodes"][inside["heads"][0][0]]["name"]
    return symbol, heads


def _inside(node):
    return node.subgraphs[0] if node.subgraphs else {"nodes": [{"name": node.name, "op": node.op}], "heads": [[0]]}


def _avoided(symbol, graph, kept):
    """Names of the fused operators that stay in float32: those with a layer that is kept so, and means over a whole map,
    whose 8-bit result would have the steps of the map's largest value."""
    return [node.name for node in Graph.from_symbol(symbol, graph.parameters).operators
            if kept.intersection(item["name"] for item in _inside(node)["nodes"])
            or node.op == "Pooling" and node.attrs.get("global_pool") and node.attrs.get("pool_type") == "avg"]


def _exact_ranges(graph, heads, ranges):
    """MXNet writes ranges into its graph with six decimals; put in all digits."""
    for node in graph.operators:
        if "max_calib_range" not in node.attrs:
            continue
        source = node
        while source.op in ("_contrib_quantize_v2", "_contrib_requantize", "_contrib_dequantize"):
            source = graph.source(source)
        name = source.name[len("quantized_"):] if source.name.startswith("quantized_") else source.name
        low, high = ranges.get((heads.get(name, name), 0), (0.0, -1.0))
        if abs(float(node.attrs["max_calib_range"]) - high) <= 1e-6 + 1e-6 * abs(high):
            node.attrs.update(min_calib_range=float(low), max_calib_range=float(high))
    return graph


def _without_gain(graph):
    """Scale the weights that 8-bit operators read so that those multiply by what the weights were."""
    readers = graph.consumers()
    for entry in [entry for entry in readers if graph.value(entry) is not None]:
        eight = [node for node, position in readers[entry] if position == 1 and in_8_bits(node)]
        if not eight:
            continue
        weight, name = graph.parameters[entry[0]], entry[0]
        if len(eight) < len(readers[entry]):  # Another operator needs it as it is.
            first = next(node for node in graph.operators if node in eight)
            name = graph.add_parameter(free_name(graph, name), weight, first.name)[0]
            for node in eight:
                node.inputs[1] = name, 0
        # Values of the very kind that a file gives back: a scale that differs in the last bit turns some roundings.
        graph.parameters[name] = real_weight(*quantized_weight(weight * np.float32(GAIN)))
    return graph
