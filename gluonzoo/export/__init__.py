"""Ways to leave MXNet: a trained block as files that are checked against the live block before they are kept."""
from .check import Difference, compare
from .metadata import ExportError, Metadata
from .symbol import Exported, load_symbol, to_symbol

__all__ = ["to_symbol", "load_symbol", "compare", "Exported", "Metadata", "Difference", "ExportError"]
