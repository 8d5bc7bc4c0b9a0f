"""This package's own names: the structure, as `save_parameters`, checkpoints and exports have them."""
from ..registry import list_models
from .mapping import Layout, Piece

__all__ = ["layout", "counterparts"]


def layout(net, found=None):
    """Every network's parameters under their structural names."""
    pieces = tuple(Piece(name, (name,), (tuple(parameter.shape),))
                   for name, parameter in net._collect_params_with_prefix().items())
    return Layout(f"gluonzoo's {net_name(net)}", pieces)


def net_name(net):
    """How a network is called in messages."""
    return getattr(net, "model_name", None) or type(net).__name__


def counterparts():
    return {name: name for name in list_models()}
