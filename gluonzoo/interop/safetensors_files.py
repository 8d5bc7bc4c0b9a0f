"""`.safetensors` files, through the safetensors package; the header is checked before the package sees the file."""
import json
import math
import os

import numpy as np

from ..arrays import FormatError
from ..errors import UserError
from .files import check_same, write_beside

__all__ = ["read", "write"]

_MOST_HEADER = 100_000_000  # The package's own limit.
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bf16", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
          "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}


def _package():
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise UserError("the safetensors package is needed for .safetensors files: pip install 'gluonzoo[interop]'") from None
    return safetensors


def _no_repeats(pairs):
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name occurs twice")
    return values


def _header(path):
    """(entries, bytes of data), every size checked. Raises: FormatError."""
    total = os.path.getsize(path)
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= min(total - 8, _MOST_HEADER):
            raise FormatError(path, 0, f"a header of at most {min(total - 8, _MOST_HEADER)} bytes", f"{size} bytes")
        raw = file.read(size)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors.
        raise FormatError(path, 8, "a header in JSON", str(error)[:120]) from None
    if not isinstance(header, dict):
        raise FormatError(path, 8, "a JSON object of arrays", type(header).__name__)
    header.pop("__metadata__", None)
    return header, total - 8 - size


def _check(path, header, left):
    """Each entry says where its elements are; together they fill the data without gap or overlap."""
    spans = []
    for name, entry in header.items():
        wanted = f"{name!r} with dtype, shape and data_offsets"
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise FormatError(path, 8, wanted, str(entry)[:80])
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(kind, str) or kind not in _TYPES:
            raise FormatError(path, 8, f"{name!r} of a type among {', '.join(_TYPES)}", str(kind)[:40])
        for numbers in (shape, offsets):
            if not isinstance(numbers, list) or not all(type(size) is int and size >= 0 for size in numbers):
                raise FormatError(path, 8, wanted, str(numbers)[:80])
        size = math.prod(shape) * (2 if kind == "BF16" else np.dtype(_TYPES[kind]).itemsize)
        if len(shape) > 32 or len(offsets) != 2 or offsets[1] - offsets[0] != size or offsets[1] > left:
            raise FormatError(path, 8, f"{name!r}: {size} bytes for shape {str(shape)[:60]} among {left} bytes",
                              f"offsets {str(offsets)[:60]}")
        spans.append(tuple(offsets))
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise FormatError(path, 8, f"the next array's elements from offset {end} on", f"from {start}")
        end = stop
    if end != left:
        raise FormatError(path, 8, f"{left} bytes of arrays", f"{end} bytes")


def read(path):
    """{name: array}; bfloat16 as float32.

    Raises: FormatError for a damaged file; UserError when the package is missing; OSError.
    """
    package = _package()
    header, left = _header(path)
    _check(path, header, left)
    with open(path, "rb") as file:
        content = file.read()
    try:
        found = dict(package.deserialize(content))
    except Exception as error:  # Its own check is stricter still, for instance about spaces.
        raise FormatError(path, 8, "a sound safetensors file", str(error)[:120]) from None
    values = {}
    for name, entry in header.items():
        kind = _TYPES[entry["dtype"]]
        array = np.frombuffer(found[name]["data"], dtype="<u2" if kind == "bf16" else kind).reshape(entry["shape"])
        values[name] = (array.astype(np.uint32) << 16).view(np.float32) if kind == "bf16" else array
    return values


def write(path, values):
    """Write arrays, read back and compared. Raises: UserError when the package is missing; OSError."""
    content = _package().numpy.save({name: np.ascontiguousarray(value).reshape(value.shape) for name, value in values.items()})

    def put(beside):
        with open(beside, "wb") as file:
            file.write(content)
        check_same(path, values, read(beside))

    write_beside(path, put)
