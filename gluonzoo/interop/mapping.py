"""How the arrays of a foreign file become a network's parameters: rules over names, with every shape written down."""
import dataclasses
import re
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

__all__ = ["Piece", "Layout", "MappingError", "NO_WRITE", "TORCH_LEAVES", "modules", "rename", "fold_epsilon"]

#: What modules of PyTorch call the parameters of Gluon's layers.
TORCH_LEAVES = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "running_mean": "running_mean",
                "running_var": "running_var"}


class MappingError(Exception):
    """The rules of a style do not fit the network they are for: a mistake in this package, not of its caller."""


class Piece(NamedTuple):
    """One parameter of ours, and the arrays of a file that it is made of.

    Args:
        ours: structural name of the parameter.
        theirs: names in the file, usually one. An array may occur in several pieces.
        shapes: their shapes, compared exactly with the file's.
        read: their arrays -> ours; by default the only array with its elements in the same order and our shape.
        write: our array -> tuple of theirs; by default the same elements in `shapes[0]`; `NO_WRITE` when it cannot be.
    """
    ours: str
    theirs: Tuple[str, ...]
    shapes: Tuple[Tuple[int, ...], ...]
    read: Optional[Callable] = None
    write: Optional[Callable] = None


def NO_WRITE(array):
    """Stands for a piece that can be read only."""
    raise NotImplementedError("this piece can only be read")


@dataclasses.dataclass(frozen=True)
class Layout:
    """A network's parameters in another package's file.

    Args:
        title: whose, for messages: "torchvision's resnet50".
        pieces: one for each parameter of ours.
        ignored: (regular expression of whole names, reason): arrays that may be in the file and have no place.
        extra: arrays written beside the pieces on saving.
        notes: what the reader of a report should know.
        options: constructor's keywords that the weights ask for; the network is adapted to them (`Network.adapt`).
    """
    title: str
    pieces: Tuple[Piece, ...]
    ignored: Tuple[Tuple[str, str], ...] = ()
    extra: Dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: Tuple[str, ...] = ()
    options: Dict[str, Any] = dataclasses.field(default_factory=dict)

    def replace(self, **fields):
        """The same with other values of some fields."""
        return dataclasses.replace(self, **fields)

    def why_ignored(self, name):
        """The reason why an array of this name has no place, or None when it should have one."""
        return next((reason for pattern, reason in self.ignored if re.fullmatch(pattern, name)), None)


def modules(net):
    """{path of a layer: {name of its parameter: shape}} of a network, in its order."""
    found = {}
    for name, parameter in net._collect_params_with_prefix().items():
        path, _, leaf = name.rpartition(".")
        found.setdefault(path, {})[leaf] = tuple(parameter.shape)
    return found


def rename(net, rules, leaves=TORCH_LEAVES, shapes=()):
    """Pieces for all parameters of a network, by rules over the paths of its layers.

    Args:
        rules: (regular expression of a whole path, replacement as in `re.sub`, or a function of the match); the first
            that matches is taken.
        leaves: {our name of a layer's parameter: theirs}.
        shapes: (regular expression of our whole parameter name, function of our shape -> their shape), where they
            differ. The elements keep their order.
    Raises: MappingError when no rule matches, or two parameters get one name.
    """
    pieces, taken = [], {}
    for path, parameters in modules(net).items():
        their_path = _their_path(path, rules)
        for leaf, shape in parameters.items():
            if leaf not in leaves:
                raise MappingError(f"{path}.{leaf}: the rules know no such parameter")
            ours, theirs = f"{path}.{leaf}", f"{their_path}.{leaves[leaf]}"
            if theirs in taken:
                raise MappingError(f"{ours} and {taken[theirs]} are both called {theirs}")
            taken[theirs] = ours
            change = next((change for pattern, change in shapes if re.fullmatch(pattern, ours)), None)
            pieces.append(Piece(ours, (theirs,), (tuple(change(shape)) if change else shape,)))
    return pieces


def _their_path(path, rules):
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, path)
        if match:
            return replacement(match) if callable(replacement) else match.expand(replacement)
    raise MappingError(f"{path}: no rule matches this layer")


def fold_epsilon(piece, theirs, ours):
    """A running variance between networks whose BatchNorms add another epsilon: in inference nothing changes.

    variance + epsilon is kept, so that ours = theirs + (their epsilon - our epsilon), and back.
    """
    shift, shape = theirs - ours, piece.shapes[0]
    return piece._replace(read=lambda variance: variance.reshape(shape) + shift, write=lambda variance: (variance - shift,))
