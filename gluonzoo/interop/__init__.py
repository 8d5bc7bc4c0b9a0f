"""Weights in and out: parameter files of MXNet, PyTorch and others, by name and full shape.

`load_weights` puts a file's arrays into a network of this package, `save_weights` writes them under another package's
names, `read` gives a file's arrays as they are. Nothing in a file is ever executed.
"""
from .files import Contents, read
from .load import Report, WeightsError, load_weights, save_weights
from .pretrained import add_to_index, list_pretrained, load_pretrained
from .styles import counterparts, styles

__all__ = ["Contents", "read", "Report", "WeightsError", "load_weights", "save_weights", "add_to_index", "list_pretrained",
           "load_pretrained", "counterparts", "styles"]
