"""Parameters of a quantized network in a file: weights of the quantized layers as int8, a scale for each output channel.

In the file such a weight has its ordinary name, ``arg:NAME``, and type int8; ``scale:NAME`` holds the float32 scales (O,).
Whoever loads it multiplies; the 8-bit operators quantize the products to the same int8 again.
"""
import numpy as np

from .metadata import ExportError
from .quantize_mxnet import layers, quantized_weight, real_weight

__all__ = ["packed", "unpacked"]

_SCALE = "scale:"


def packed(graph, source, excluded):
    """{"arg:", "aux:" or "scale:" + name: array} of an 8-bit graph's parameters.

    Args: source: the float graph that it was made from; excluded: names of its layers that stay in float32.
    """
    symbol = graph.to_symbol()
    states = set(symbol.list_auxiliary_states())
    values = {("aux:" if name in states else "arg:") + name: value for name, value in graph.parameters.items()}
    for name, node in layers(source).items():
        weight = node.inputs[1][0]
        if name not in excluded and f"arg:{weight}" in values:
            values[f"arg:{weight}"], values[_SCALE + weight] = quantized_weight(graph.parameters[weight])
    return values


def unpacked(path, values):
    """The parameters of a file as float32, by the names that the graph has; those of an ordinary file as they are.

    Raises: ExportError naming the file and the parameter whose scale is missing or does not fit.
    """
    plain = {name: value for name, value in values.items() if not name.startswith(_SCALE)}
    for key in [name for name in values if name.startswith(_SCALE)]:
        name, scale = "arg:" + key[len(_SCALE):], values[key]
        steps = plain.get(name)
        if steps is None or steps.dtype != np.int8 or steps.ndim < 2 or scale.shape != steps.shape[:1] or not (
                scale.dtype == np.float32 and np.isfinite(scale).all()):
            raise ExportError(f"{path}: {key} is of shape {scale.shape} and type {scale.dtype}; expected float32 scales for the "
                              f"channels of an int8 parameter {name}")
        plain[name] = real_weight(steps, scale)
    return plain
