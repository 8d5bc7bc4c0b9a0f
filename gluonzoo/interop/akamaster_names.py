"""CIFAR ResNets as Y. Idelbayev's PyTorch implementation names them (github.com/akamaster/pytorch_resnet_cifar10).

Its files are `{"state_dict": {"module.conv1.weight": ...}, ...}`.
Differences: its shortcut A puts half of the new channels' zeros before the old channels and half behind them, ours all of
them behind. The channels of stages 2 and 3 therefore come in another order there; every array that has such channels is put
in order on the way in and on the way out, so that the outputs are the same.
"""
import re

import numpy as np

from .torch_layout import torch_layout

__all__ = ["layout", "counterparts"]

_NETWORK = re.compile(r"cifar_resnet(\d+)_v1_([ab])")
_UNIT = r"features\.stage(\d)\.(\d+)\."
_RULES = [
    (r"features\.stem\.conv", "conv1"), (r"features\.stem\.norm", "bn1"),
    (_UNIT + r"conv(\d)\.conv", r"layer\1.\2.conv\3"), (_UNIT + r"conv(\d)\.norm", r"layer\1.\2.bn\3"),
    (_UNIT + r"shortcut\.conv", r"layer\1.\2.shortcut.0"), (_UNIT + r"shortcut\.norm", r"layer\1.\2.shortcut.1"),
    (r"output", "linear"),
]


def _orders():
    """{stage: for each of our channels the place of theirs}, of the maps between units with shortcut A."""
    orders = {1: np.arange(16)}
    for stage, channels in ((2, 32), (3, 64)):
        quarter = channels // 4
        old = quarter + orders[stage - 1]
        orders[stage] = np.concatenate([old, np.setdiff1d(np.arange(channels), old)])
    return orders


def _places(name, orders):
    """(axis, order) for each axis of one of our parameters whose channels are in another order there."""
    if name == "output.weight":
        return [(1, orders[3])]
    match = re.match(_UNIT + r"conv(\d)\.(conv|norm)", name)
    if match is None:
        return []
    stage, unit, number = int(match[1]), int(match[2]), int(match[3])
    if number == 1:  # Its outputs stay inside the unit.
        return [(1, orders[stage if unit else max(stage - 1, 1)])] if match[4] == "conv" else []
    return [(0, orders[stage])]


def _reordered(piece, orders):
    places = [(axis, order) for axis, order in _places(piece.ours, orders) if not np.array_equal(order, np.sort(order))]
    if not places:
        return piece
    (axis, order), = places
    return piece._replace(read=lambda array: np.take(array, order, axis),
                          write=lambda array: (np.take(array, np.argsort(order), axis),))


def layout(net, found=None):
    """See `styles`."""
    match = _NETWORK.fullmatch(net.model_name or "")
    if match is None:
        return None
    made = torch_layout(net, f"akamaster's resnet{match[1]}", _RULES)
    if match[2] == "b":
        return made
    orders = _orders()
    return made.replace(pieces=tuple(_reordered(piece, orders) for piece in made.pieces))


def counterparts():
    return {f"cifar_resnet{layers}_v1_{option}": f"resnet{layers}" for layers in (20, 32, 44, 56, 110, 1202) for option in "ab"}
