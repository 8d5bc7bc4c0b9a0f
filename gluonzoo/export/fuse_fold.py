"""Rewrites of a network's graph for inference that leave its function as it is, up to rounding.

Each function takes a `graph.Graph` that it may change and returns it. Arithmetic on parameters is in float64, rounded once.
"""
import numpy as np

from .graph import VARIABLE, Node

__all__ = ["drop_identities", "flatten_before_dense", "fold_norms", "spell_out_norms", "split_over_concat", "uses"]

#: Operators that compute nothing in inference mode.
IDENTITIES = {"Dropout", "identity", "_copy", "BlockGrad", "make_loss"}


def drop_identities(graph):
    """Leave out dropout, BlockGrad, slices of everything, and the like; write ReLU in the one way that oneDNN's backend joins."""
    for node in graph.operators:
        if node.op == "relu":
            node.op, node.attrs = "Activation", {"act_type": "relu"}
        whole = node.op == "slice_axis" and node.attrs.get("begin") == 0 and node.attrs.get("end") in (None, "None")
        if whole or (node.op in IDENTITIES and node.attrs.get("mode", "training") == "training"):
            graph.redirect(node.entry, node.inputs[0])
    return graph.prune()


def norm_scale_and_shift(graph, node):
    """(scale, shift), float64 (C,), with which a BatchNorm multiplies and to which it adds, by its running statistics."""
    gamma, beta, mean, variance = (graph.parameters[name].astype(np.float64) for name, _ in node.inputs[1:])
    if node.attrs.get("fix_gamma", True):
        gamma = np.ones_like(gamma)
    scale = gamma / np.sqrt(variance + float(node.attrs.get("eps", 1e-3)))
    return scale, beta - mean * scale


def fold_norms(graph):
    """Put every BatchNorm that directly follows a convolution or dense layer of its own, or directly precedes one without
    padding, into that layer's weights and bias.

    Source: B. Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
    2017, arXiv:1712.05877, section 3.2 (the layer before); the layer after is the same algebra.
    """
    for node in graph.operators:
        if node.op != "BatchNorm" or node.attrs.get("axis", 1) != 1:
            continue
        if any(graph.value(entry) is None for entry in node.inputs[1:]):
            continue
        _fold_back(graph, node) or _fold_forward(graph, node)
    return graph.prune()


def _own_weights(graph, node, readers):
    """Whether a node is a convolution or dense layer whose weights are parameters that no other node reads."""
    return node.op in ("Convolution", "FullyConnected") and all(
        graph.value(entry) is not None and len(readers[entry]) == 1 for entry in node.inputs[1:])


def _fold_back(graph, norm):
    readers = graph.consumers()
    layer = norm.inputs[0][0]
    layer = graph.nodes[layer]
    if (not _own_weights(graph, layer, readers) or len(readers[layer.entry]) != 1 or layer.entry in graph.outputs
            or layer.op == "FullyConnected" and not layer.attrs.get("flatten", True)):
        return False
    scale, shift = norm_scale_and_shift(graph, norm)
    weight, bias = _weight_and_bias(graph, layer)
    _set_weights(graph, layer, weight * scale.reshape((-1,) + (1,) * (weight.ndim - 1)), bias * scale + shift)
    graph.redirect(norm.entry, layer.entry)
    return True


def _fold_forward(graph, norm):
    readers = graph.consumers()
    after = readers.get(norm.entry, [])
    if len(after) != 1 or after[0][1] != 0 or norm.entry in graph.outputs:
        return False
    layer = after[0][0]
    if not _own_weights(graph, layer, readers):
        return False
    scale, shift = norm_scale_and_shift(graph, norm)
    weight, bias = _weight_and_bias(graph, layer)
    channels = scale.size
    if layer.op == "Convolution":
        # A padded zero is not shifted: with padding, the shift is no constant.
        if any(np.ravel(layer.attrs.get("pad", 0))) or layer.attrs.get("num_group", 1) != 1:
            return False
        parts = weight
    elif layer.attrs.get("flatten", True) and weight.shape[1] % channels == 0:
        parts = weight.reshape(weight.shape[0], channels, -1)  # Features of a map: channels, rows, columns.
    else:
        return False
    bias = bias + np.tensordot(parts.reshape(parts.shape[0], channels, -1).sum(axis=2), shift, axes=1)
    parts = parts * scale.reshape((1, -1) + (1,) * (parts.ndim - 2))
    _set_weights(graph, layer, parts.reshape(weight.shape), bias)
    graph.redirect(norm.entry, norm.inputs[0])
    return True


def _weight_and_bias(graph, layer):
    """A layer's weight and bias in float64; zeros where it has no bias."""
    weight = graph.parameters[layer.inputs[1][0]].astype(np.float64)
    if layer.attrs.get("no_bias", False):
        return weight, np.zeros(weight.shape[0])
    return weight, graph.parameters[layer.inputs[2][0]].astype(np.float64)


def _set_weights(graph, layer, weight, bias):
    """Replace a layer's weight and bias; one without bias gets one."""
    name = layer.inputs[1][0]
    graph.parameters[name] = weight.astype(np.float32)
    if not layer.attrs.get("no_bias", False):
        graph.parameters[layer.inputs[2][0]] = bias.astype(np.float32)
        return
    stem = name[:-len("weight")] if name.endswith("weight") else name + "."
    entry = graph.add_parameter(free_name(graph, stem + "bias"), bias.astype(np.float32), layer.name)
    layer.inputs.append(entry)
    layer.attrs["no_bias"] = False


def free_name(graph, name):
    """`name`, or with a number behind it where a node has that name."""
    number, free = 0, name
    while free in graph.nodes:
        number += 1
        free = f"{name}_{number}"
    return free


def spell_out_norms(graph):
    """Write BatchNorms that could not be folded as something that MXNet's backend does not touch: it takes one into the
    convolution before it even where others read that convolution too, and gives wrong numbers.

    With the ReLU that alone reads it, one becomes MXNet's operator for both; other ones behind convolutions a product and a sum.
    """
    readers = graph.consumers()
    for norm in graph.operators:
        if norm.op != "BatchNorm" or norm.attrs.get("axis", 1) != 1 or any(graph.value(e) is None for e in norm.inputs[1:]):
            continue
        after = readers.get(norm.entry, [])
        relu = after[0][0] if len(after) == 1 and norm.entry not in graph.outputs else None
        if relu is not None and relu.op == "Activation" and relu.attrs.get("act_type") == "relu":
            norm.op = "_contrib_BatchNormWithReLU"
            graph.redirect(relu.entry, norm.entry)
        elif graph.source(norm).op == "Convolution":
            entry = norm.inputs[0]
            for op, value in zip(("broadcast_mul", "broadcast_add"), norm_scale_and_shift(graph, norm)):
                own = graph.add_parameter(f"{norm.name}_{op}_value", value.astype(np.float32).reshape(1, -1, 1, 1), norm.name)
                entry = graph.insert(Node(op, f"{norm.name}_{op}", {}, [entry, own]), norm.name).entry
            graph.redirect(norm.entry, entry)
    return graph.prune()


def split_over_concat(graph, parts=2):
    """Let a 1x1 convolution that alone reads a concatenation read its parts, and add: nothing is copied together.

    Pooling without padding in between is done to each part. oneDNN adds inside the last convolution.

    Args: parts: concatenations of more parts than this stay.
    """
    readers = graph.consumers()
    for joined in graph.operators:
        if joined.op != "Concat" or joined.attrs.get("dim", 1) != 1 or not 2 <= len(joined.inputs) <= parts:
            continue
        chain, entry = [], joined.entry
        while True:
            after = readers.get(entry, [])
            node = after[0][0] if len(after) == 1 and after[0][1] == 0 and entry not in graph.outputs else None
            if node is None or node.op != "Pooling":
                break
            chain.append(node)
            entry = node.entry
        if (node is None or node.op != "Convolution" or not _own_weights(graph, node, readers)
                or node.attrs.get("num_group", 1) != 1 or set(node.attrs["kernel"]) != {1}):
            continue
        widths = [_channels(graph, part) for part in joined.inputs]
        if None not in widths:
            _split(graph, joined, chain, node, widths)
            readers = graph.consumers()
    return graph.prune()


def _channels(graph, entry):
    """The channels that an entry has, where it comes from a convolution through activations; else None."""
    node = graph.nodes[entry[0]]
    while node.op in ("Activation", "clip", "LeakyReLU") and node.inputs[1:] == []:
        node = graph.source(node)
    return node.attrs["num_filter"] if node.op == "Convolution" else None


def _split(graph, joined, chain, conv, widths):
    weight = graph.parameters[conv.inputs[1][0]]
    bias = None if conv.attrs.get("no_bias", False) else conv.inputs[2]
    total, begin = None, 0
    for index, (entry, width) in enumerate(zip(joined.inputs, widths)):
        for pool in chain:
            entry = graph.insert(Node("Pooling", f"{pool.name}_part{index}", dict(pool.attrs), [entry]), conv.name).entry
        own = graph.add_parameter(f"{conv.inputs[1][0]}_part{index}", weight[:, begin:begin + width].copy(), conv.name)
        begin += width
        first = index == 0
        part = Node("Convolution", f"{conv.name}_part{index}", dict(conv.attrs, no_bias=not first or bias is None),
                    [entry, own] + ([bias] if first and bias is not None else []))
        entry = graph.insert(part, conv.name).entry
        if total is not None:
            entry = graph.insert(Node("elemwise_add", f"{conv.name}_sum{index}", {}, [total, entry]), conv.name).entry
        total = entry
    graph.redirect(conv.entry, total)


def uses(graph, *operators):
    """Whether the graph has one of these operators."""
    return any(node.op in operators for node in graph.nodes.values() if node.op != VARIABLE)


def flatten_before_dense(graph, shapes):
    """Put a Flatten in front of every dense layer that reads a map.

    oneDNN's dense layer takes a map of one pixel in whatever layout it has; run again in planned memory (`static_shape`) it then
    finds a blocked layout where it wants a plain one, and the run dies.

    Args: shapes: {entry: shape} of the graph.
    """
    for node in graph.operators:
        if node.op == "FullyConnected" and node.attrs.get("flatten", True) and len(shapes.get(node.inputs[0], ())) > 2:
            flat = graph.insert(Node("Flatten", free_name(graph, f"{node.name}_flat"), {}, [node.inputs[0]]), node.name)
            node.inputs[0] = flat.entry
    return graph
