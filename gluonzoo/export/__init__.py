"""Ways to leave MXNet: a trained block as files that are checked against the live block before they are kept."""
import importlib

from .bundle import bundle
from .check import Difference, compare
from .metadata import ExportError, Metadata
from .onnx import OnnxExport, to_onnx
from .onnx_session import OnnxNetwork, load_onnx
from .symbol import Exported, load_symbol, to_symbol

__all__ = ["to_symbol", "load_symbol", "to_onnx", "load_onnx", "bundle", "Pool", "fuse", "quantize", "to_bf16", "train_in_bf16",
           "compare", "Exported", "OnnxExport", "OnnxNetwork", "Metadata", "Difference", "ExportError"]

#: Imported when first asked for: {name: module}.
_LAZY = {"Pool": "pool", "fuse": "fusion", "quantize": "quantization", "to_bf16": "bf16", "train_in_bf16": "bf16"}


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Importing a module sets its own name here, which two of these functions have as well.
    value = globals()[name] = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    return value
