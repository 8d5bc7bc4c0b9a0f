"""ONNX files written from a network's traced graph, checked against the live network by onnxruntime before they are kept.

A converter of its own, not MXNet 1.9.1's (`mx.onnx`): that one stamps files with the newest operator set of the installed
onnx although it writes nodes of 13, takes another constant for LRN than the operator, imports a module that onnx 1.19 dropped,
and knows neither adaptive pooling beyond 1x1 nor the samplers of spatial transformers, nor the signs of binary convolutions.
"""
import contextlib
import os
import tempfile
from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from .. import arrays
from .._version import __version__
from .check import Difference
from .graph import Graph
from .metadata import ExportError, Metadata
from .onnx_builder import HIGHEST, LOWEST, Builder, ir_version, known_sizes
from .onnx_check import check
from .onnx_ops import TABLE as _LAYERS
from .onnx_ops_shape import TABLE as _SHAPES
from .onnx_ops_spatial import TABLE as _SPATIAL
from .onnx_session import package, to_properties
from .symbol import TOLERANCE, _describe, _layouts_restored, _parameters, _run_once

__all__ = ["OnnxExport", "TABLE", "to_onnx", "to_model"]

#: {MXNet's operator: function(builder, node, *values) -> value or list of values}.
TABLE = {**_LAYERS, **_SHAPES, **_SPATIAL}

#: Protobuf messages end at 2 GiB.
_LARGEST = (1 << 31) - (1 << 20)
#: How much larger the second size of image is in the check of a network that takes any.
_MORE_ROWS, _MORE_COLUMNS = 35, 19


@dataclass(frozen=True)
class OnnxExport:
    """What `to_onnx` wrote.

    Args:
        path: of the file. difference: the largest from the live network's outputs.
        opset: the operator set of the file. input_shape: of the file's input, None for what is free.
    """
    path: str
    difference: Difference
    opset: int
    input_shape: Tuple[Optional[int], ...]


def to_onnx(net, path, input_shape=None, *, opset=None, with_preprocess=False, metadata=None, tolerance=TOLERANCE,
            force=False):
    """Write an ONNX file, once onnxruntime gives what the live network gives.

    The batch is free, and so are the height and width of images where the network takes any. The file's initializers are the
    network's parameters under their structural names; the input is named "data", the outputs as in `to_symbol`. The file says
    of itself what `load_onnx` gives as metadata. Checked are three random batches of different sizes, two of them of images
    of the standard size and one of larger ones where they may be.

    Args:
        net: an initialised HybridBlock of one input and float32 parameters; it may have several outputs.
        path: of the file, ending in .onnx; its folder is made when absent.
        input_shape: (C, H, W) of one input; from the registry when not given.
        opset: ONNX's operator set, 13 to 21; by default the lowest that has what the network needs (13; 16 with a spatial
            transformer).
        with_preprocess: the file takes "images", (N, H, W, C) uint8 RGB (or grey) of the standard size, normalises them by the
            metadata's mean and std, and gives "probabilities", the softmax of the first output; others are left out.
        metadata: further fields of `Metadata` by name: classes, mean, std, dataset.
        tolerance: the largest relative difference of outputs that passes. More than the default is for networks that enlarge
            rounding errors; every single layer must agree to 1e-5 in any case. See `onnx_check` for networks with signs.
        force: replace a file that is there.
    Returns: OnnxExport.
    Raises: ExportError when onnx or onnxruntime is missing, a file is there, the network is not initialised, its shape is
        unknown, an operator has no translation (named with its node), or outputs differ by more than `tolerance` (the first
        layer that differs is named); no file is left then, and an old one is untouched. OSError when the disk fails.
    """
    package("onnx")
    package("onnxruntime")
    path = os.fspath(path)
    _check_target(path, opset, force)
    parameters = _parameters(net)
    details = _describe(net, input_shape, metadata or {})
    shape = details["input_shape"]
    if with_preprocess:
        _check_preprocess(net, details)
    ctx = next(iter(parameters.values()))[1].list_ctx()[0] if parameters else None
    graph = Graph.from_net(net)
    if with_preprocess:
        graph = graph.with_outputs(graph.outputs[:1])
    shapes = _example_shapes(net, graph, shape, with_preprocess)
    details["outputs"] = ("probabilities",) if with_preprocess else graph.output_names
    model, names = to_model(graph, shapes, Metadata(**details), opset=opset, with_preprocess=with_preprocess)
    content = model.SerializeToString()
    _run_once(net, shape, ctx)
    with _beside(path) as beside:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with _layouts_restored(net):
            difference = check(net, beside, graph, names, shapes, Metadata(**details) if with_preprocess else None, ctx,
                               tolerance)
    free = tuple(item.dim_value or None for item in model.graph.input[0].type.tensor_type.shape.dim)
    return OnnxExport(path, difference, model.opset_import[0].version, free)


def to_model(graph, shapes, metadata, *, opset=None, with_preprocess=False):
    """A `Graph` as an ONNX model, unchecked: (onnx.ModelProto, {entry of the graph: name of the value}).

    Args:
        shapes: examples of inputs (N, C, H, W); what differs among them is free.
        metadata: `Metadata`, written into the file.
    Raises: ExportError naming what has no translation.
    """
    onnx = package("onnx")
    from onnx import TensorProto, helper, numpy_helper

    wrong = [(name, value.dtype) for name, value in graph.parameters.items() if value.dtype != np.float32]
    if wrong:
        raise ExportError(f"parameter {wrong[0][0]} is of {wrong[0][1]}; expected float32, as the input")
    total = sum(value.nbytes for value in graph.parameters.values())
    if total > _LARGEST:
        raise ExportError(f"{total} bytes of parameters; an ONNX file holds at most {_LARGEST}")
    batch, channels, *image = [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes)]
    free = [batch or "N", channels] + [size or letter for size, letter in zip(image, "HW")]
    builder, before = Builder(graph, known_sizes(graph, shapes), opset), ()
    inputs = [helper.make_tensor_value_info(graph.input, TensorProto.FLOAT, free)]
    if with_preprocess:
        before = _normalise(builder, metadata)
        inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *shapes[0][2:], channels])]
    builder.translate(TABLE)
    outputs = [(name, [free[0]] + list(builder.sizes[entry][1:])) for entry, name in zip(graph.outputs, graph.output_names)]
    if with_preprocess:
        outputs = [("probabilities", [free[0], outputs[0][1][1]])]
        builder.nodes += _probabilities(builder)
    made = helper.make_graph(
        [*before, *builder.nodes], metadata.model or "network", inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in outputs],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in graph.parameters.items()])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", builder.opset)], producer_name="gluonzoo",
                              producer_version=__version__, ir_version=ir_version(builder.opset))
    helper.set_model_props(model, to_properties(metadata, arrays.digest(graph.parameters), with_preprocess))
    onnx.checker.check_model(model)
    return model, builder.values


def _check_target(path, opset, force):
    """Complain before any work about a file or an operator set that cannot be."""
    if not path.lower().endswith(".onnx") or os.path.isdir(path):
        raise ExportError(f"{path}: expected the name of a file that ends in .onnx")
    if os.path.lexists(path) and not force:
        raise ExportError(f"{path}: already there; use force (--force) to replace it")
    if opset is not None and (type(opset) is not int or not LOWEST <= opset <= HIGHEST):
        raise ExportError(f"opset is {opset!r}; expected {LOWEST} to {HIGHEST}")


def _check_preprocess(net, details):
    channels = details["input_shape"][0]
    if details.get("mean") is None or details.get("std") is None:
        raise ExportError("with_preprocess needs the mean and std of the pixels: give them as metadata")
    if len(details["input_shape"]) != 3 or channels not in (1, 3):
        raise ExportError(f"with_preprocess is for grey (1) or RGB (3) images; the input is {details['input_shape']}")


def _example_shapes(net, graph, shape, fixed=False):
    """Two inputs (N, C, H, W) that differ in all that is free: the batch, and the image's size where the network takes any."""
    first = (1,) + tuple(shape)
    if fixed or len(shape) != 3 or getattr(net, "fixed_size", False):
        return [first, (3,) + tuple(shape)]
    other = (3, shape[0], shape[1] + _MORE_ROWS, shape[2] + _MORE_COLUMNS)
    try:
        graph.shapes(other)
    except ExportError:
        return [first, (3,) + tuple(shape)]
    return [first, other]


def _normalise(builder, metadata):
    """Nodes from "images" to the network's input, as `gluonzoo.data.Transform` computes it: one product and one sum a pixel."""
    from onnx import TensorProto, helper, numpy_helper

    from ..data import Transform
    rule = Transform(metadata.input_shape, metadata.mean, metadata.std)
    nodes, images, data = [], "images", builder.graph.input
    builder.taken.update(("images", "probabilities"))
    mean, std = np.asarray(rule.mean), np.asarray(rule.std)
    for name, value in (("scale", 1.0 / (255.0 * std)), ("shift", -mean / std)):
        tensor = numpy_helper.from_array(value.astype(np.float32).reshape(1, -1, 1, 1), name)
        nodes.append(helper.make_node("Constant", [], [builder._unique(f"preprocess/{name}")], value=tensor))
    planes, numbers, scaled = (builder._unique(f"preprocess/{name}") for name in ("planes", "numbers", "scaled"))
    scale, shift = (node.output[0] for node in nodes)
    return [*nodes, helper.make_node("Transpose", [images], [planes], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", [planes], [numbers], to=TensorProto.FLOAT),
            helper.make_node("Mul", [numbers, scale], [scaled]), helper.make_node("Add", [scaled, shift], [data])]


def _probabilities(builder):
    """Nodes from the first output to "probabilities"; maps of class scores are averaged over their places before."""
    from onnx import helper
    entry, nodes = builder.graph.outputs[0], []
    scores = builder.graph.output_names[0]
    if len(builder.sizes[entry]) > 2:
        means, flat = (builder._unique(f"probabilities/{name}") for name in ("means", "flat"))
        nodes = [helper.make_node("GlobalAveragePool", [scores], [means]), helper.make_node("Flatten", [means], [flat], axis=1)]
        scores = flat
    return [*nodes, helper.make_node("Softmax", [scores], ["probabilities"], axis=1)]


@contextlib.contextmanager
def _beside(path):
    """The path of a file in a new folder beside `path`, which gets that name when all went well; else nothing is left."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{os.path.basename(path)}.tmp-", dir=folder) as made:
        beside = os.path.join(made, os.path.basename(path))
        yield beside
        os.replace(beside, path)
