"""Small files of parameters: sparse, shared and binary arrays stored in as few bits as they need, and read back to the bit.

    from gluonzoo import compact
    report = compact.save("net.compact", arrays, {"model": "lenet_caffe"})
    arrays, facts = compact.load("net.compact")

Nothing is lost on the way: what makes arrays small is done to them before (`training.pruning`, `sharing`, binary layers), and
here only how they are written follows from what is in them. `interop.load_weights` reads these files like any others, and
`tools/compress.py` makes them. No part of a file is ever unpickled.

(The compression of gradients between workers is another matter: `gluonzoo.training.compression`.)
"""
from .files import Report, Row, load, measure, save
from .networks import binary_weights, facts_of, one_shot, open_compact
from .sharing import INITS, Shared, share

__all__ = ["save", "load", "measure", "Report", "Row", "open_compact", "facts_of", "one_shot", "binary_weights", "share",
           "Shared", "INITS"]
