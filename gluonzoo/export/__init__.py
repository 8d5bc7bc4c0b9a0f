"""Ways to leave MXNet: a trained block as files that are checked against the live block before they are kept."""
from .bundle import bundle
from .check import Difference, compare
from .metadata import ExportError, Metadata
from .onnx import OnnxExport, to_onnx
from .onnx_session import OnnxNetwork, load_onnx
from .symbol import Exported, load_symbol, to_symbol

__all__ = ["to_symbol", "load_symbol", "to_onnx", "load_onnx", "bundle", "compare", "Exported", "OnnxExport", "OnnxNetwork",
           "Metadata", "Difference", "ExportError"]
