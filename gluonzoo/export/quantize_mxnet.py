"""A graph with 8-bit operators of MXNet's oneDNN backend, from a float graph and the ranges of its tensors.

The passes of MXNet's C interface are called directly: ``mxnet.contrib.quantization.quantize_net`` goes through files, reads
the calibration data by an iterator that it never rewinds, and finds its thresholds itself.
"""
import mxnet as mx
import numpy as np
from mxnet.contrib import quantization as passes

from .fuse_fold import spell_out_norms
from .graph import Graph
from .metadata import ExportError

__all__ = ["LAYERS", "layers", "round_weights", "to_int8"]

#: Operators with weights that get 8 bits.
LAYERS = ("Convolution", "FullyConnected")
_BACKEND = "MKLDNN_QUANTIZE"
#: MXNet hands ranges on as text with six decimals; smaller ones would be wrong by a percent or be 0, and the outputs with them.
SMALLEST = 5e-5


def layers(graph):
    """{name: node} of the layers that can be quantized: the name is that of the weight without ".weight"."""
    found = {}
    for node in graph.operators:
        if node.op in LAYERS and graph.value(node.inputs[1]) is not None:
            name = node.inputs[1][0]
            found[name[:-len(".weight")] if name.endswith(".weight") else name] = node
    return found


def quantized_weight(weight):
    """(int8 values, float32 scale (O,)): each output channel's largest weight becomes 127; no zero point.

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


def to_int8(graph, ranges, excluded=()):
    """A graph of oneDNN's fused operators, with 8 bits in all layers but the excluded.

    The parameters stay float32: the operators quantize them, by the channel, when they first run.

    Args:
        graph: a float graph without BatchNorms that could be folded.
        ranges: {entry: (low, high)} of `quantize_calibration.calibrate`.
        excluded: names of `layers`.
    Returns: Graph.
    Raises: ExportError naming a tensor whose range is below `SMALLEST`.
    """
    graph = spell_out_norms(graph.copy())
    symbol = graph.to_symbol().get_backend_symbol(_BACKEND)
    kept = {node.name for name, node in layers(graph).items() if name in set(excluded)}
    heads, avoid = {}, []
    for node in Graph.from_symbol(symbol, graph.parameters).operators:
        inside = node.subgraphs[0] if node.subgraphs else {"nodes": [{"name": node.name}], "heads": [[0]]}
        heads[node.name] = inside["nodes"][inside["heads"][0][0]]["name"]
        if kept.intersection(item["name"] for item in inside["nodes"]):
            avoid.append(node.name)
    symbol, wanted = passes._quantize_symbol(
        symbol, mx.cpu(), excluded_symbols=avoid, excluded_operators=["BatchNorm"], offline_params=list(graph.parameters),
        quantized_dtype="auto", quantize_mode="smart", quantize_granularity="channel-wise")
    thresholds = {}
    for output in wanted:
        name = output[:-len("_output")] if output.endswith("_output") else output
        entry = heads.get(name, name), 0
        if entry in ranges:
            if ranges[entry][1] < SMALLEST:
                raise ExportError(f"{entry[0]} is at most {ranges[entry][1]:.3g} on the images given; MXNet writes ranges with "
                                  f"six decimals, and 8 bits need at least {SMALLEST:g}: is the network trained?")
            thresholds[output] = ranges[entry]
    symbol = passes._calibrate_quantized_sym(symbol, thresholds).get_backend_symbol(_BACKEND)
    return Graph.from_symbol(symbol, graph.parameters, graph.output_names).prune()
