"""Files of networks in fewer bits: int8 weights with a scale for each output channel, or bfloat16 ones.

In the file an 8-bit weight has its ordinary name, ``arg:NAME``, and type int8; ``scale:NAME`` holds the float32 scales (O,).
Whoever loads it multiplies; the 8-bit operators quantize the products to the same int8 again. bfloat16 is a type of MXNet's own.
"""
import os
import shutil
import tempfile

import numpy as np

from .. import arrays
from .check import compare
from .metadata import ExportError, Metadata, sha256
from .quantize_mxnet import layers, quantized_weight, real_weight
from .symbol import TOLERANCE, Exported, _file_names, load_symbol

__all__ = ["checked_metadata", "packed", "to_bfloat16", "unpacked", "write"]

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


def to_bfloat16(values):
    """float32 values rounded to the nearest bfloat16 (halves to even), as `arrays` stores MXNet's type."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype(np.uint16).view(np.dtype([("bfloat16", "<u2")])).reshape(np.shape(values))


def checked_metadata(details, outputs, fields):
    """The fields of `Metadata` from a network's details and the user's fields.

    Raises: ExportError for unknown names or bad values.
    """
    unknown = set(fields or {}) - {"classes", "mean", "std", "dataset"}
    if unknown:
        raise ExportError(f"metadata has {', '.join(sorted(unknown))}; expected some of classes, mean, std, dataset")
    given = dict(fields or {})
    for name, kind in (("classes", str), ("mean", float), ("std", float)):
        if given.get(name) is not None:
            given[name] = tuple(kind(item) for item in given[name])
    details = dict(details, outputs=outputs, **given)
    Metadata(**details)  # Complains.
    return details


def write(block, graph, values, details, prefix, force, metadata):
    """Write PREFIX-symbol.json, PREFIX-0000.params and PREFIX.json beside their names, read them back, compare, rename.

    Args:
        block: what they have to compute. graph: of it. values: {"arg:" and the like + name: array} of its parameters.
        details: fields of `Metadata`. prefix, force, metadata: as for `to_symbol`.
    Returns: Exported.
    Raises: ExportError when a file is there, or what is read back gives other outputs; no file is left then.
    """
    prefix = os.fspath(prefix)
    names = _file_names(prefix)
    folder = os.path.dirname(os.path.abspath(prefix))
    details = checked_metadata(details, graph.output_names, metadata)
    final = {role: os.path.join(os.path.dirname(prefix), name) for role, name in names.items()}
    taken = [path for path in final.values() if os.path.lexists(path)]
    if taken and not force:
        raise ExportError(f"{', '.join(taken)}: already there; use force (--force) to replace them")
    os.makedirs(folder, exist_ok=True)
    beside = tempfile.mkdtemp(prefix=f".{os.path.basename(prefix)}.tmp-", dir=folder)
    try:
        files = {role: os.path.join(beside, name) for role, name in names.items()}
        with open(files["symbol"], "w", encoding="utf-8") as file:
            file.write(graph.to_json())
            file.flush()
            os.fsync(file.fileno())
        arrays.save(files["parameters"], values)
        hashes = {role: (names[role], sha256(files[role])) for role in ("symbol", "parameters")}
        Metadata(files=hashes, **details).write(files["metadata"])
        difference = compare(block, load_symbol(files["metadata"])[0], details["input_shape"])
        if not difference.relative <= TOLERANCE:
            raise ExportError(f"the network read back differs by {difference.absolute:.3g} (relative "
                              f"{difference.relative:.3g}; at most {TOLERANCE:g} passes); nothing was kept")
        for role in ("symbol", "parameters", "metadata"):
            os.replace(files[role], final[role])
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Exported(difference=difference, **final)
