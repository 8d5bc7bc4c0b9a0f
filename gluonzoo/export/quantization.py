"""INT8 inference: weights and activations of convolutions and dense layers in 8 bits, calibrated on the user's images.

Weights are rounded to 255 steps for each output channel, activations to the range that calibration found; BatchNorm is in the
weights before. The same 8-bit weights and ranges serve MXNet's oneDNN operators and, as QuantizeLinear and DequantizeLinear
nodes, onnxruntime.
"""
from dataclasses import dataclass
from typing import Dict, Optional, Tuple

import mxnet as mx
import numpy as np

from ..errors import UserError
from .fuse_fold import drop_identities, fold_norms, uses
from .fusion import STEPS, FusedBlock, inference_source
from .graph import Graph
from .metadata import ExportError, Metadata
from .quantize_calibration import Images, calibrate
from .quantize_mxnet import layers, round_weights, to_int8, too_small
from .quantize_store import checked_metadata, packed, write

__all__ = ["Accuracy", "Quantized", "quantize"]

#: Images on which the harm of single layers is measured, and on which an ONNX file is checked.
_SAMPLE = 64
#: Images of one run when accuracy is measured.
_BATCH = 64


@dataclass(frozen=True)
class Accuracy:
    """Percent of the images whose likeliest class is the label: of the network in float32, and of its 8-bit copy."""
    fp32: float
    int8: float
    images: int

    @property
    def drop(self):
        """Points lost."""
        return self.fp32 - self.int8


@dataclass(frozen=True)
class Quantized:
    """An 8-bit copy of a network.

    Attributes:
        block: `FusedBlock`, of the network's inputs and outputs.
        layers: names of all layers that can be quantized; each is a weight's structural name without ".weight".
        excluded: names of those that were left in float32: those that were asked for, those whose numbers are below
            `quantize_mxnet.SMALLEST`, and those that hurt, in this order.
        accuracy: `Accuracy`, None without labels.
        ranges: {entry of the float graph: (low, high)} as calibrated.
        graph: the float `Graph` with BatchNorm folded in and weights rounded to what 8 bits hold.
        int8: the `Graph` of 8-bit operators.
        details: fields of `Metadata`.
    """
    block: mx.gluon.HybridBlock
    layers: Tuple[str, ...]
    excluded: Tuple[str, ...]
    accuracy: Optional[Accuracy]
    ranges: Dict[Tuple[str, int], Tuple[float, float]]
    graph: Graph
    int8: Graph
    details: Dict[str, object]
    sample: np.ndarray

    def __call__(self, x):
        return self.block(x)

    def save(self, prefix, force=False, *, metadata=None):
        """Write PREFIX-symbol.json, PREFIX-0000.params and PREFIX.json, about a quarter of the float export's size.

        The files are read back by `load_symbol` and compared before they get their names.

        Args:
            prefix, force, metadata: as for `to_symbol`.
        Returns: Exported.
        Raises: ExportError when a file is there, or what is read back gives other outputs; no file is left then.
        """
        return write(self.block, self.int8, packed(self.int8, self.graph, self.excluded), self.details, prefix, force, metadata)

    def to_onnx(self, path, force=False, *, metadata=None):
        """Write an ONNX file with QuantizeLinear and DequantizeLinear nodes, which onnxruntime runs in 8 bits.

        The batch is free, the image's size is that of the calibration. The file is run by onnxruntime on calibration images
        before it gets its name: its outputs may be no farther from the float network's than `quantize_check.BOUND` allows.

        Args: path: ending in .onnx. force: replace a file that is there. metadata: as for `to_symbol`.
        Returns: `OnnxExport`; its difference is from the float network.
        Raises: ExportError when onnx or onnxruntime is missing, a file is there, or it does not compute this network.
        """
        from .quantize_check import write_onnx
        return write_onnx(self, path, force, Metadata(**checked_metadata(self.details, self.graph.output_names, metadata)))


def quantize(net, images, *, method="naive", labels=None, max_drop=None, input_shape=None, exclude=()):
    """An 8-bit copy of a network for inference on the processor; the network itself is not changed.

    Args:
        net: an initialised HybridBlock of one input, in float32.
        images: what it will see, normalised as in its training: an array (N, C, H, W), or something that gives batches of such
            each time it is iterated (a list, a loader; no generator). Some hundreds do.
        method: how ranges are found: "naive" (the largest value), "percentile" (99.99 percent of the values) or "entropy"
            (least information lost).
        labels: (N,) class numbers of the images; with them, the accuracy of both networks is measured on all images.
        max_drop: points of accuracy that may be lost. Layers are left in float32, the most harmful first (the one which, alone
            in 8 bits, moves the outputs farthest), until no more is lost.
        input_shape: (C, H, W), when the images do not tell.
        exclude: names of layers to leave in float32 in any case ("output", "features.conv1").
    Returns: Quantized.
    Raises: UserError for bad images, labels or names; ExportError for a network that cannot be quantized (not initialised, not
        float32, with binary activations), or when even all layers in float32 lose more than max_drop.
    """
    images = Images(images)
    if input_shape is not None and tuple(input_shape) != images.shape:
        raise UserError(f"input_shape is {tuple(input_shape)} and the images are {images.shape}; expected the same")
    if max_drop is not None and not (isinstance(max_drop, (int, float)) and max_drop >= 0 and labels is not None):
        raise UserError(f"max_drop is {max_drop!r}, labels {'given' if labels is not None else 'not given'}; expected a number "
                        "of points of at least 0, and labels to measure it")
    labels = _labels(labels)
    graph, ctx, details = inference_source(net, images.shape)
    if uses(graph, *STEPS):
        raise ExportError("the network has binary activations (signs): 8 bits in the layers between them change signs and win "
                          "nothing; expected a network without")
    graph = fold_norms(drop_identities(graph))
    known = layers(graph)
    unknown = [name for name in exclude if name not in known]
    if isinstance(exclude, str) or unknown:
        raise UserError(f"exclude names {unknown[:1] or exclude!r}, no layer of the network; its layers are {', '.join(known)}")
    maker = _Maker(net, graph, calibrate(graph, images, method), ctx)
    if labels is not None and len(labels) != images.count:
        raise UserError(f"{len(labels)} labels for {images.count} images; expected one for each")
    excluded, accuracy = list(exclude) + [name for name in too_small(graph, maker.ranges) if name not in exclude], None
    block, made = maker.block(excluded)
    if labels is not None:
        fp32 = _accuracy(FusedBlock(graph, net, ctx), images, labels, ctx)
        accuracy = Accuracy(fp32, _accuracy(block, images, labels, ctx), images.count)
        order = None
        while max_drop is not None and accuracy.drop > max_drop:
            order = maker.by_harm(images, excluded) if order is None else order
            if not order:
                raise ExportError(f"with all layers in float32 {accuracy.drop:.2f} points are lost; at most {max_drop} may be")
            excluded.append(order.pop(0))
            block, made = maker.block(excluded)
            accuracy = Accuracy(fp32, _accuracy(block, images, labels, ctx), images.count)
    sample = next(images.batches(_SAMPLE))
    return Quantized(block, tuple(known), tuple(excluded), accuracy, maker.ranges,
                     round_weights(graph.copy(), set(known) - set(excluded)), made, details, sample)


class _Maker:
    """Makes 8-bit blocks of one calibrated network."""

    def __init__(self, net, graph, ranges, ctx):
        self.net, self.graph, self.ranges, self.ctx = net, graph, ranges, ctx
        self.names = list(layers(graph))

    def block(self, excluded):
        """(block, its graph) with these layers in float32."""
        rounded = round_weights(self.graph.copy(), set(self.names) - set(excluded))
        made = to_int8(rounded, self.ranges, excluded)
        block = FusedBlock(made, self.net, self.ctx)
        block.hybridize(static_alloc=True)
        return block, made

    def by_harm(self, images, excluded):
        """Names of the layers not excluded, the one first that alone in 8 bits moves the outputs farthest."""
        sample = mx.nd.array(next(images.batches(_SAMPLE)), ctx=self.ctx)
        expected = _first(FusedBlock(self.graph, self.net, self.ctx)(sample))
        harm = {}
        for name in self.names:
            if name not in excluded:
                block, _ = self.block([other for other in self.names if other != name])
                harm[name] = float(np.square(_first(block(sample)) - expected).mean())
        return sorted(harm, key=lambda name: -harm[name])


def _first(outputs):
    """The first output as NumPy."""
    return (outputs[0] if isinstance(outputs, (list, tuple)) else outputs).asnumpy()


def _labels(labels):
    if labels is None:
        return None
    labels = labels.asnumpy() if isinstance(labels, mx.nd.NDArray) else np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iuf" or not np.array_equal(labels, np.rint(labels)):
        raise UserError(f"labels is of shape {labels.shape} and type {labels.dtype}; expected class numbers (N,)")
    return labels.astype(np.int64)


def _accuracy(block, images, labels, ctx):
    """Percent of the images whose largest first output is the label's."""
    right = count = 0
    for batch in images.batches(_BATCH):
        scores = _first(block(mx.nd.array(batch, ctx=ctx)))
        scores = scores.reshape(scores.shape[:2] + (-1,)).mean(axis=2)
        right += int((scores.argmax(axis=1) == labels[count:count + len(batch)]).sum())
        count += len(batch)
    return 100.0 * right / count
