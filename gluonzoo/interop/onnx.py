"""Parameters from ONNX files: the initializers of a graph, under their own names. The graph is not looked at."""
import math

import numpy as np

from .. import arrays
from ..arrays import FormatError
from ..errors import UserError

__all__ = ["read"]

#: The key of the parameters' SHA-256 in the properties of files that `gluonzoo.export.to_onnx` wrote.
_DIGEST = "parameters_sha256"
_MOST_RANK = 32  # NumPy below 2.0 knows no more.
#: Element types: ONNX's number -> (name, NumPy's type of the raw bytes).
_TYPES = {1: ("float32", "<f4"), 2: ("uint8", "u1"), 3: ("int8", "i1"), 4: ("uint16", "<u2"), 5: ("int16", "<i2"),
          6: ("int32", "<i4"), 7: ("int64", "<i8"), 9: ("bool", "?"), 10: ("float16", "<f2"), 11: ("float64", "<f8"),
          12: ("uint32", "<u4"), 13: ("uint64", "<u8"), 16: ("bfloat16", "<u2")}
#: The typed fields that may hold elements in place of raw bytes, for the types that are read from them.
_FIELDS = {1: "float_data", 6: "int32_data", 7: "int64_data", 11: "double_data"}


def _parse(path, content):
    try:
        import onnx
    except ImportError as error:
        raise UserError(f"{path}: ONNX files need the package onnx, which cannot be imported ({error}): "
                        "pip install 'gluonzoo[export]'") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's classes differ from version to version.
        raise FormatError(path, 0, "a sound ONNX model", " ".join(str(error).split())[:120]) from None
    return model


def _array(path, tensor):
    """The elements of a tensor, once their number is known to be that of its shape."""
    name, shape = tensor.name[:80], tuple(tensor.dims)
    if tensor.data_location == 1 or tensor.external_data:
        raise UserError(f"{path}: {name!r} lies in another file (external data); expected a file that holds all its arrays")
    if tensor.data_type not in _TYPES:
        raise FormatError(path, 0, f"{name!r} of a type among {', '.join(label for label, _ in _TYPES.values())}",
                          f"type {tensor.data_type}")
    if len(shape) > _MOST_RANK or any(size < 0 for size in shape):
        raise FormatError(path, 0, f"{name!r} with at most {_MOST_RANK} axes of sizes from 0 on", f"{str(shape)[:80]}")
    kind, dtype = _TYPES[tensor.data_type][0], np.dtype(_TYPES[tensor.data_type][1])
    expected, elements = math.prod(shape), ()
    if tensor.HasField("raw_data"):
        expected, elements = expected * dtype.itemsize, tensor.raw_data
    elif tensor.data_type in _FIELDS:
        elements = getattr(tensor, _FIELDS[tensor.data_type])
    if len(elements) != expected:
        unit = "bytes" if isinstance(elements, bytes) else "elements"
        raise FormatError(path, 0, f"{name!r} with {expected} {unit} for shape {str(shape)[:60]} of {kind}", str(len(elements)))
    try:
        array = (np.frombuffer(elements, dtype) if isinstance(elements, bytes) else np.array(elements, dtype)).reshape(shape)
    except ValueError:  # One axis is 0, and the others overflow NumPy's index.
        raise FormatError(path, 0, f"{name!r} of a shape NumPy can hold", str(shape)[:80]) from None
    return (array.astype(np.uint32) << 16).view(np.float32) if kind == "bfloat16" else array


def read(path):
    """{name: array} of a file's initializers; bfloat16 as float32.

    Raises: FormatError for a damaged file, or one whose parameters are not those that were written (SHA-256, where the file
        says it); UserError when the package is missing, or arrays lie in other files or are sparse; OSError.
    """
    with open(path, "rb") as file:
        model = _parse(path, file.read())
    if model.graph.sparse_initializer:
        raise UserError(f"{path}: holds sparse arrays; expected dense ones")
    values = {}
    for tensor in model.graph.initializer:
        if not tensor.name or tensor.name in values:
            raise FormatError(path, 0, "initializers with a name each", f"{tensor.name[:80]!r} again")
        values[tensor.name] = _array(path, tensor)
    expected = [item.value for item in model.metadata_props if item.key == _DIGEST]
    if expected and expected != [arrays.digest(values)]:
        raise FormatError(path, 0, f"parameters with the SHA-256 {expected[0][:12]}...", f"{arrays.digest(values)[:12]}...")
    return values
