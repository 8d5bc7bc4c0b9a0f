"""What the PyTorch packages have in common: names of a BatchNorm's parameters, its counter, its epsilon."""
import numpy as np
from mxnet.gluon import nn

from .mapping import Layout, fold_epsilon, rename

__all__ = ["torch_layout", "COUNTERS"]

#: PyTorch counts the batches that a BatchNorm has seen; with a fixed momentum nothing uses the number.
COUNTERS = (r"(.*\.)?num_batches_tracked", "a counter that a BatchNorm with fixed momentum does not use")


def torch_layout(net, title, rules, shapes=(), ignored=(), notes=(), epsilon=1e-5):
    """A Layout of renamed parameters, with counters to be written, and BatchNorm's epsilon reckoned with.

    Args:
        rules, shapes: as in `mapping.rename`.
        epsilon: of their BatchNorms. Where ours is another, the running variances are shifted by the difference, both
            ways, so that the outputs are equal.
    """
    pieces, extra, shifts = [], {}, set()
    epsilons = _epsilons(net)
    for piece in rename(net, rules, shapes=shapes):
        path, _, leaf = piece.ours.rpartition(".")
        if leaf == "running_mean":
            extra[piece.theirs[0].rpartition(".")[0] + ".num_batches_tracked"] = np.array(0, dtype=np.int64)
        if leaf == "running_var" and epsilons[path] != epsilon:
            piece = fold_epsilon(piece, epsilon, epsilons[path])
            shifts.add(epsilons[path])
        pieces.append(piece)
    if shifts:
        notes = (*notes, f"their BatchNorms add {epsilon:g}, ours {', '.join(f'{ours:g}' for ours in sorted(shifts))}; the "
                         "difference goes into the running variances, so that the outputs are equal")
    return Layout(title, tuple(pieces), (COUNTERS, *ignored), extra, tuple(notes))


def _epsilons(block, path=""):
    """{path of a BatchNorm: its epsilon} of a network."""
    if isinstance(block, nn.BatchNorm):
        return {path: block._kwargs["eps"]}
    found = {}
    for name, child in block._children.items():
        found.update(_epsilons(child, f"{path}.{name}" if path else name))
    return found
