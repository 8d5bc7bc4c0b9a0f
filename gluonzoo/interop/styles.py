"""The name styles: which modules know how another package names the parameters of a network.

A style is a module of this package with `layout(net, found=None)`, which gives a `mapping.Layout` or None for a network
it does not know (`found`: {name: shape} of the arrays in a file, None for writing), and `counterparts()`, which gives
{our name: the package's name of the network}. `WRITES = False` in it says that it can only be read.
"""
import importlib

from ..errors import UserError

__all__ = ["MODULES", "styles", "style", "counterparts"]

#: What people write as `source=` and `style=` -> module, in the order in which "auto" tries them.
MODULES = {
    "gluonzoo": "native",
    "torchvision": "torchvision_names",
    "timm": "timm_names",
    "akamaster": "akamaster_names",
    "mxnet": "mxnet_names",
    "caffe": "caffe",
}


def styles(writing=False):
    """Names of the styles, of those that can be written with `writing`."""
    return tuple(name for name in MODULES if not writing or getattr(style(name), "WRITES", True))


def style(name):
    """The module of a style. Raises: UserError for an unknown name, with the known ones."""
    if name not in MODULES:
        raise UserError(f"no name style is called {name!r}; there are {', '.join(MODULES)}")
    return importlib.import_module(f".{MODULES[name]}", __package__)


def counterparts(name):
    """{our name: that package's name} of the networks whose parameters a style can carry over."""
    return style(name).counterparts()
