"""MATLAB's .mat files of level 5: enough of the format for tables of texts and numbers, as ImageNet's meta.mat is one.

Source: The MathWorks, "MAT-File Format", Level 5 MAT-files (header, data elements, small elements, compressed elements, numeric,
character, cell and structure arrays). Differences: sparse arrays, objects, function handles and imaginary parts are refused.
"""
import struct
import zlib

import numpy as np

from ..errors import UserError

__all__ = ["read_mat"]

_HEADER = 128
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8", 16: "u1", 17: "u2",
            18: "u4"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC = range(6, 16)
_COMPLEX = 0x0800
#: Far above what a table of classes needs; a damaged file must not fill the memory.
_MOST_BYTES = 1 << 28


class _Reader:
    """Goes through the elements of a block of bytes."""

    def __init__(self, name, data, order):
        self.name, self.data, self.order, self.at = name, data, order, 0

    def fail(self, reason):
        raise UserError(f"{self.name}: cannot be read as a MATLAB file of level 5: {reason}")

    def element(self):
        """(type, bytes) of the next element."""
        if self.at + 8 > len(self.data):
            self.fail(f"an element was expected at byte {self.at}, the data ends at byte {len(self.data)}")
        kind, size = struct.unpack_from(self.order + "II", self.data, self.at)
        if kind >> 16:  # A small element: size and up to four bytes beside its type.
            kind, size = kind & 0xFFFF, kind >> 16
            start, self.at = self.at + 4, self.at + 8
            if size > 4:
                self.fail(f"a small element of {size} bytes at byte {start - 4}")
        else:
            start = self.at + 8
            self.at = start + (size if kind == _COMPRESSED else (size + 7) // 8 * 8)
        if start + size > len(self.data):
            self.fail(f"an element at byte {start} of {size} bytes, the data ends at byte {len(self.data)}: it is cut short")
        return kind, self.data[start:start + size]

    def numbers(self):
        """The next element as an array."""
        kind, data = self.element()
        if kind not in _NUMBERS:
            self.fail(f"numbers were expected, found an element of type {kind}")
        kind = np.dtype(self.order + _NUMBERS[kind])
        if len(data) % kind.itemsize:
            self.fail(f"{len(data)} bytes of numbers of {kind.itemsize} bytes")
        return np.frombuffer(data, kind)

    def matrix(self):
        """(name, value) of the next element, which is an array."""
        kind, data = self.element()
        if kind != _MATRIX:
            self.fail(f"an array was expected, found an element of type {kind}")
        return _Reader(self.name, data, self.order).array() if data else ("", np.zeros((0, 0)))

    def array(self):
        flags, size, name = self.numbers(), self.numbers(), bytes(self.element()[1]).decode("latin-1")
        if len(flags) != 2 or len(size) < 2 or (size < 0).any():
            self.fail(f"an array {name!r} without kind or size")
        kind, shape = int(flags[0]) & 0xFF, tuple(int(number) for number in size)
        count = int(np.prod(shape, dtype=object))
        if int(flags[0]) & _COMPLEX:
            self.fail(f"complex numbers in {name!r}")
        if kind in (_CELL, _STRUCT) and count * 8 > len(self.data):
            self.fail(f"{count} elements of {name!r} in {len(self.data)} bytes")
        if kind == _CELL:
            return name, [self.matrix()[1] for _ in range(count)]
        if kind == _STRUCT:
            width, names = int(self.numbers()[0]), bytes(self.element()[1])
            fields = [names[start:start + width].split(b"\0")[0].decode("latin-1")
                      for start in range(0, len(names), max(width, 1))]
            return name, [{field: self.matrix()[1] for field in fields} for _ in range(count)]
        if kind == _CHAR:
            stored, data = self.element()
            encoding = {16: "utf-8", 17: "utf-16-le" if self.order == "<" else "utf-16-be", 4: "utf-16-le" if self.order == "<"
                        else "utf-16-be"}.get(stored, "latin-1")
            # Several rows lie in memory by columns; texts of one row are all that is needed.
            return name, bytes(data).decode(encoding, "replace") if shape[0] <= 1 else None
        if kind in _NUMERIC:
            values = self.numbers()
            if len(values) != count:
                self.fail(f"{count} numbers were expected in {name!r}, found {len(values)}")
            return name, values.reshape(shape, order="F")
        return self.fail(f"{name!r} is of a kind ({kind}) that is not read")


def read_mat(name, data):
    """The variables of a .mat file.

    Args: name: of the file, for messages; data: its bytes.
    Returns: {variable: value}. Numbers are arrays, texts str, cell arrays lists, structure arrays lists of dicts, both by
        columns.
    Raises: UserError when the data is of another kind, damaged or cut short.
    """
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise UserError(f"{name}: expected a MATLAB file of level 5, found {len(data)} bytes beginning {bytes(data[:20])!r}")
    order = "<" if data[126:128] == b"IM" else ">"
    reader, found = _Reader(name, memoryview(data), order), {}
    reader.at = _HEADER
    while reader.at < len(data):
        begun = reader.at
        kind, content = reader.element()
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            try:
                content = unpacker.decompress(bytes(content), _MOST_BYTES)
            except zlib.error as error:
                reader.fail(f"damaged compression at byte {begun} ({error})")
            if not unpacker.eof:
                reader.fail(f"the compressed data at byte {begun} is cut short or larger than {_MOST_BYTES} bytes")
            variable, value = _Reader(name, memoryview(content), order).matrix()
        elif kind == _MATRIX:
            variable, value = _Reader(name, content, order).array()
        else:
            continue
        found[variable] = value
    return found
