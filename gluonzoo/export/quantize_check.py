"""The ONNX file of a quantized network: written, run by onnxruntime, and kept when it is that network."""
import numpy as np

from .check import Difference
from .metadata import ExportError
from .onnx import OnnxExport, _beside, _check_target, to_model
from .onnx_session import OnnxNetwork, package
from .quantize_mxnet import layers
from .quantize_onnx import insert_qdq

__all__ = ["BOUND", "write_onnx"]

#: How much farther (root mean square) onnxruntime's outputs may be from the float network's than MXNet's 8-bit outputs are: it
#: rounds in other places, and more of them. To twice that distance comes this share of the outputs' own size.
BOUND = 0.02


def write_onnx(quantized, path, force, metadata):
    """See `Quantized.to_onnx`."""
    package("onnx")
    package("onnxruntime")
    import onnx

    _check_target(path, None, force)
    graph, shape = quantized.graph, tuple(metadata.input_shape)
    model, names = to_model(graph, [(1,) + shape, (3,) + shape], metadata)
    wanted = {node.inputs[1][0] for name, node in layers(graph).items() if name not in quantized.excluded}
    insert_qdq(model, {names[entry]: limits for entry, limits in quantized.ranges.items() if entry in names}, wanted)
    onnx.checker.check_model(model)
    with _beside(path) as beside:
        onnx.save(model, beside)
        difference = _compare(quantized, OnnxNetwork(beside))
    free = tuple(item.dim_value or None for item in model.graph.input[0].type.tensor_type.shape.dim)
    return OnnxExport(path, difference, model.opset_import[0].version, free)


def _compare(quantized, network):
    """The largest distance from the float network's outputs on calibration images.

    Raises: ExportError when the file is no 8-bit form of the network.
    """
    import mxnet as mx

    data = quantized.sample
    expected = quantized.graph.run(data)[0]
    eight = quantized.block(mx.nd.array(data))
    eight = (eight[0] if isinstance(eight, (list, tuple)) else eight).asnumpy()
    found = network.run({network.inputs[0]: data})[0]
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise ExportError(f"onnxruntime gives outputs of shape {found.shape} (finite: {bool(np.isfinite(found).all())}); the "
                          f"network gives {expected.shape}; nothing was kept")

    def rms(values):
        return float(np.sqrt(np.square(values, dtype=np.float64).mean()))

    bound = 2 * rms(eight - expected) + BOUND * rms(expected)
    if rms(found - expected) > bound:
        raise ExportError(f"onnxruntime's outputs are {rms(found - expected):.3g} (root mean square) from the float network's; "
                          f"MXNet's 8-bit outputs are {rms(eight - expected):.3g} from them, and at most {bound:.3g} passes; "
                          "nothing was kept")
    largest = float(np.abs(found - expected).max())
    scale = float(np.abs(expected).max())
    return Difference(largest, largest / scale if scale else 0.0)
