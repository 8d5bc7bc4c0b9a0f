"""Sums that oneDNN's 8-bit convolutions get wrong.

MXNet 1.9.1 lets a convolution add another tensor to its result in place, and computes the sum in the type of that tensor. It
goes wrong where the sum should have the other type:

- a signed tensor (a shortcut's convolution without ReLU) in a sum with a ReLU: the sum should have 255 steps and ends at 127;
- an unsigned tensor (behind a ReLU) in a sum without one: everything below zero becomes zero.
"""
import numpy as np

from .fuse_fold import _set_weights, _weight_and_bias, free_name
from .graph import Node

__all__ = ["repair_sums"]

#: Operators that hand on 8-bit numbers as they are.
_PASSING = ("Pooling", "Flatten", "Dropout", "Concat")
_ADDITIONS = ("elemwise_add", "broadcast_add")
_LAYERS = ("Convolution", "FullyConnected")
#: So many times its range, an unsigned tensor has no number above 127.
_HALF = 255.5 / 127


def repair_sums(graph, joined, heads, ranges, kept=()):
    """Give addends the type of their sum where it differs, or else let MXNet not join them.

    A signed shortcut's convolution gets a constant added, as large as the range below zero, and a ReLU that then only cuts what
    the range cut before; the other convolution's bias loses that constant. The sum stays what it was, and so do the steps.

    Args:
        graph: the float graph, which is changed. joined: the same after MXNet joined operators.
        heads: {name in joined: name in graph}. ranges: {entry of graph: (low, high)}; entries are added and changed.
        kept: names of graph's layers that stay in float32; their sums are right.
    """
    for node in joined.operators:
        if str(node.attrs.get("with_sum")).lower() != "true" or not node.subgraphs:
            continue
        inside = {item["name"]: item["op"] for item in node.subgraphs[0]["nodes"]}
        conv = next(graph.nodes[name] for name, op in inside.items() if op == "Convolution")
        add = next(graph.nodes[name] for name, op in inside.items() if op in _ADDITIONS)
        total, other = (heads[node.name], 0), next(entry for entry in add.inputs if graph.nodes[entry[0]] is not conv)
        unsigned = _is_unsigned(graph, other, ranges)
        if conv.name in kept or total not in ranges or (total != add.entry) == unsigned:
            continue
        if unsigned:
            _part(graph, conv, add, ranges)
        elif not _shift(graph, other, conv, add, ranges):
            ranges[total] = 0.0, _HALF * ranges[total][1]
    readers = graph.consumers()
    for add in [node for node in graph.operators if node.op in _ADDITIONS]:
        # MXNet's 8-bit ReLU halves an unsigned sum; without a range, it adds in 32 bits.
        after = [reader.op for reader, _ in readers.get(add.entry, [])]
        if "Activation" in after and all(_is_unsigned(graph, entry, ranges) for entry in add.inputs):
            ranges.pop(add.entry, None)


def _is_unsigned(graph, entry, ranges):
    """Whether MXNet holds an entry as uint8."""
    node = graph.nodes[entry[0]]
    if node.op in _PASSING:
        return all(_is_unsigned(graph, item, ranges) for item in node.inputs)
    return node.op not in _LAYERS + _ADDITIONS and ranges.get(entry, (-1.0,))[0] >= 0


def _part(graph, conv, add, ranges):
    """Put something between a convolution and the sum of its result that MXNet does not join: a maximum over 1x1 pixels."""
    entry = conv.entry
    pool = Node("Pooling", free_name(graph, f"{conv.name}_parted"), {"kernel": (1, 1), "pool_type": "max"}, [entry])
    graph.insert(pool, add.name)
    add.inputs = [pool.entry if item == entry else item for item in add.inputs]
    if entry in ranges:
        ranges[pool.entry] = ranges[entry]


def _shift(graph, entry, conv, add, ranges):
    """Whether `entry`, which `add` adds to a convolution's result, could be made unsigned."""
    readers = graph.consumers()
    shortcut = graph.nodes[entry[0]]
    if shortcut.op != "Convolution" or entry not in ranges or len(readers[entry]) != 1 or entry in graph.outputs:
        return False
    if any(len(readers[own]) > 1 or graph.value(own) is None for layer in (shortcut, conv) for own in layer.inputs[1:]):
        return False
    high = ranges.pop(entry)[1]
    for layer, shift in ((shortcut, high), (conv, -high)):
        name = layer.inputs[1][0]
        before = graph.parameters[name]
        weight, bias = _weight_and_bias(graph, layer)
        _set_weights(graph, layer, weight, bias + shift)
        graph.parameters[name] = before
    relu = graph.insert(Node("Activation", free_name(graph, f"{shortcut.name}_shifted"), {"act_type": "relu"}, [entry]), add.name)
    add.inputs = [relu.entry if item == entry else item for item in add.inputs]
    ranges[relu.entry] = 0.0, float(np.float32(2 * high))
    return True
