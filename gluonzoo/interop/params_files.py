"""MXNet's `.params` files, of `save_parameters`, checkpoints and exports."""
from .. import arrays
from ..arrays import FormatError

__all__ = ["read", "write"]

_EXPORT = ("arg:", "aux:")


def read(path):
    """{name: array}, without the "arg:" and "aux:" of exports where all names have one.

    Raises: arrays.FormatError, OSError.
    """
    found = arrays.load(path)
    if not found or not all(name.startswith(_EXPORT) for name in found):
        return found
    values = {name[4:]: value for name, value in found.items()}
    if len(values) != len(found):
        twice = next(name[4:] for name in found if "arg:" + name[4:] in found and "aux:" + name[4:] in found)
        raise FormatError(path, 0, "each name once", f"arg:{twice} and aux:{twice}")
    return values


def write(path, values):
    arrays.save(path, values)
