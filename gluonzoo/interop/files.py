"""Files of named arrays, read by what is in them and written by their ending; the formats' modules do the parsing."""
import importlib
import os
from typing import Any, Callable, Dict, NamedTuple

import numpy as np

from .. import arrays
from ..errors import UserError

__all__ = ["Contents", "Format", "FORMATS", "WRITERS", "read", "write"]

#: Wrappers that put one word before every name: DataParallel, torch.compile, MXNet's export.
PREFIXES = ("module.", "_orig_mod.")
_HEAD = 64


class Contents(NamedTuple):
    """What a file holds: its arrays, floating point ones as float32, and the name of its format."""
    arrays: Dict[str, Any]
    format: str


class Format(NamedTuple):
    """A format: its name, recognise(first 64 bytes, size of the file), and the module of this package with `read(path)`."""
    name: str
    recognise: Callable
    module: str


def _is_params(head, size):
    return head[:8] == b"\x12\x01\0\0\0\0\0\0"


def _is_torch(head, size):
    # A zip archive, or, before PyTorch 1.6, a pickle of protocol 2.
    return head[:4] == b"PK\x03\x04" or head[:1] == b"\x80"


def _is_safetensors(head, size):
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size


def _is_onnx(head, size):
    # A protobuf message without magic too: the version of the format, then the producer's name or another of its fields.
    return head[:1] == b"\x08" and 1 <= head[1] <= 32 and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x28", b"\x32", b"\x3a")


def _is_compact(head, size):
    return head[:8] == b"GZCOMPCT"


def _is_caffe(head, size):
    # A protobuf message has no magic: it begins with a network's name, an old layer or a layer.
    return head[:1] in (b"\x0a", b"\x12") or head[:2] == b"\xa2\x06"


#: In the order in which they are tried.
FORMATS = (
    Format("params", _is_params, "params_files"),
    Format("torch", _is_torch, "torch_files"),
    Format("safetensors", _is_safetensors, "safetensors_files"),
    Format("compact", _is_compact, "compact_files"),
    Format("onnx", _is_onnx, "onnx"),
    Format("caffe", _is_caffe, "caffe_format"),
)

#: Ending of a file's name -> module with `write(path, {name: array})`.
WRITERS = {".params": "params_files", ".safetensors": "safetensors_files",
           ".pth": "torch_files", ".pt": "torch_files", ".th": "torch_files",
           ".compact": "compact_files"}


def read(path, allow_nonfinite=False):
    """Read a file of named arrays; its format is found by content, not by its name.

    Floating point arrays become float32. A prefix that all names share because of a wrapper ("module.") is taken off.

    Returns: Contents.
    Raises: UserError when the file cannot be read, is of no known format, damaged, holds code or other objects, no
        arrays, or (unless `allow_nonfinite`) NaN or infinity; the message names the array.
    """
    path = os.fspath(path)
    form = _format_of(path)
    try:
        found = importlib.import_module(f".{form.module}", __package__).read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not found:
        raise UserError(f"{path}: expected arrays, found none")
    values = {name: _as_float32(array, path, name, allow_nonfinite) for name, array in found.items()}
    return Contents(_without_prefix(values), form.name)


def _format_of(path):
    try:
        with open(path, "rb") as file:
            head, size = file.read(_HEAD), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    for form in FORMATS:
        if form.recognise(head, size):
            return form
    known = ", ".join(form.name for form in FORMATS)
    raise UserError(f"{path}: expected a file of one of the formats {known}, found {size} bytes that begin with {head[:16]!r}")


def _as_float32(array, path, name, allow_nonfinite):
    """Any floating point array as float32; whole numbers and booleans as they are."""
    if array.dtype.names:  # MXNet's bfloat16 is a record of one 16-bit word, the upper half of a float32.
        array = (array[array.dtype.names[0]].astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.asarray(array, dtype=np.float32)
    if not allow_nonfinite and not np.isfinite(array).all():
        bad = array.size - np.count_nonzero(np.isfinite(array))
        raise UserError(f"{path}: {name}: expected finite float32 numbers, found {bad} of {array.size} that are NaN or infinite")
    return array


def _without_prefix(values):
    for prefix in PREFIXES * 2:
        if all(name.startswith(prefix) for name in values):
            values = {name[len(prefix):]: array for name, array in values.items()}
    return values


def write(path, values):
    """Write named arrays in the format that the name's ending says, beside and renamed, after reading them back.

    Raises: UserError for another ending, or a package that is not installed; OSError when the disk refuses.
    """
    path = os.fspath(path)
    ending = os.path.splitext(path)[1].lower()
    if ending not in WRITERS:
        raise UserError(f"{path}: expected a name that ends in {', '.join(WRITERS)}, received {ending or 'none'}")
    importlib.import_module(f".{WRITERS[ending]}", __package__).write(path, values)


def write_beside(path, put):
    """Let `put(path beside)` write a file, flush it, and give it its name; nothing is left behind on a failure."""
    beside = f"{path}.tmp-{os.getpid()}"
    try:
        put(beside)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        if os.path.exists(beside):
            os.unlink(beside)


def check_same(path, written, found):
    """Raise OSError unless what was read back is what was written."""
    for name, array in written.items():
        if name not in found or found[name].dtype != array.dtype or found[name].shape != array.shape \
                or not np.array_equal(found[name].view(np.uint8) if array.ndim else found[name],
                                      array.view(np.uint8) if array.ndim else array):
            raise OSError(f"{path}: {name} read back differs from what was written")


FormatError = arrays.FormatError
