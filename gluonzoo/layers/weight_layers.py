"""Which parameters of a network are the weights of its convolutions and dense layers."""
from ..errors import UserError

__all__ = ["weight_names"]


def weight_names(net, skip=()):
    """Structural names of the weights of convolutions and dense layers, in the order of the layers.

    Not among them: biases, BatchNorm's parameters, and whatever else is no array of two or more axes called ``weight``.

    Args: skip: layers that are left out: "first", "last" (the network's `output`, or the last one where it has none), or
        beginnings of structural names, such as "features.stem"; a list or a text with commas.
    Raises: UserError for a name that fits no such layer, or when none is left.
    """
    skip = [part.strip() for part in (skip.split(",") if isinstance(skip, str) else skip) if part.strip()]
    names = [name for name, parameter in net._collect_params_with_prefix().items()
             if name.rpartition(".")[2] == "weight" and len(parameter.shape) >= 2]
    if not names:
        raise UserError(f"{type(net).__name__} has no weights of convolutions or dense layers")
    left_out = set()
    for part in skip:
        if part == "first":
            found = names[:1]
        elif part == "last":
            found = [name for name in names if name.startswith("output.")] or names[-1:]
        else:
            found = [name for name in names if name == part or name.startswith(part + ".")]
        if not found:
            raise UserError(f"no layer is called {part!r}; expected first, last or the beginning of one of "
                            f"{', '.join(name[:-len('.weight')] for name in names)}")
        left_out.update(found)
    kept = [name for name in names if name not in left_out]
    if not kept:
        raise UserError(f"{','.join(skip)} leaves out every layer; expected at least one that stays")
    return kept
