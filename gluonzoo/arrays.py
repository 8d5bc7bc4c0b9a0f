"""MXNet's own list-of-arrays file (``.params``), read and written in Python without a call into MXNet.

`save` writes the bytes that ``mx.nd.save(path, dict)`` of MXNet 1.9.1 writes for arrays on the processor; `load` reads
those, the older layouts (1.0 to 1.2, and 0.x with 32-bit sizes) and NumPy-shape arrays. Every size in a file is
checked against the file's length before memory is taken, so a broken or hostile file costs an error, not a crash.

Layout, all little-endian: u64 0x112, u64 0, u64 count, the arrays, u64 count, the names (u64 length, UTF-8).
One array: u32 0xF993FAC9, i32 storage type, i32 rank, i64 sizes, i32 device type, i32 device number, i32 element type,
the elements.

Source: MXNet 1.9.1, ``src/ndarray/ndarray.cc`` (NDArray::Save, Load, LegacyLoad) and ``include/mxnet/tuple.h``.
Differences: an array without data, sparse arrays, and bytes after the names (which MXNet ignores) are refused.
"""
import hashlib
import os
import struct

import numpy as np

from .errors import UserError

__all__ = ["FormatError", "save", "load", "digest"]

_LIST_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA  # 64-bit sizes; storage type added; NumPy shape semantics
_MAX_RANK = 32  # NumPy below 2.0 knows no more.
_DEVICES = {1: "cpu", 2: "gpu", 3: "cpu_pinned", 5: "cpu_shared"}
_STORAGE = {0: "dense", 1: "row_sparse", 2: "csr"}
_CHUNK = 1 << 22
# How MXNet shows bfloat16 in Python: a record of one 16-bit word.
_BFLOAT16 = np.dtype([("bfloat16", "<u2")])
_TYPES = {0: np.dtype("<f4"), 1: np.dtype("<f8"), 2: np.dtype("<f2"), 3: np.dtype("u1"), 4: np.dtype("<i4"),
          5: np.dtype("i1"), 6: np.dtype("<i8"), 7: np.dtype("?"), 12: _BFLOAT16}
_FLAGS = {dtype: flag for flag, dtype in _TYPES.items()}


class FormatError(UserError):
    """A file that is not what it should be: names the file, the offset, what was expected and what was found."""

    def __init__(self, path, offset, expected, found):
        super().__init__(f"{path}: at byte {offset}: expected {expected}, found {found}")
        self.path, self.offset, self.expected, self.found = path, offset, expected, found


def save(path, arrays):
    """Write named arrays so that either the whole new file or the untouched old one is there, whatever happens.

    Written beside `path`, flushed to the disk, read back and compared, then renamed.

    Shape: arrays is a mapping from name to NumPy array of any shape: float16, float32, float64, uint8, int8, int32,
        int64, bool (and MXNet's bfloat16 record). An array of rank 0 is stored in NumPy-shape form, which MXNet reads
        only under ``mx.util.np_shape``; all others are read by ``mx.nd.load`` as they are.
    Raises: TypeError for a name that is no string, a value that is no NumPy array or an element type MXNet lacks;
        ValueError for rank above 32 or a name that UTF-8 cannot hold; OSError when the disk is full or the file read
        back differs (the old file stays).
    """
    path = os.fspath(path)
    pieces = list(_pieces(arrays))  # Complains before anything is written. Holds views, not copies.
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path}: expected the name of a file, found a directory")
    beside = f"{path}.tmp-{os.getpid()}"
    try:
        with open(beside, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        _verify(beside, pieces)
        os.replace(beside, path)
    except BaseException:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
    _sync_directory(os.path.dirname(path) or ".")


def load(path):
    """Read a file of named arrays.

    Shape: returns a dict, in the file's order, from name to NumPy array (own memory, native byte order).
    Raises: FormatError when the file is malformed in any way, holds sparse arrays, or arrays without names;
        OSError when it cannot be opened or read.
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        reader = _Reader(path, file)
        magic = reader.number("<Q", "the first 8 bytes of a parameter file")
        if magic != _LIST_MAGIC:
            raise FormatError(path, 0, f"the magic number {_LIST_MAGIC:#x} of an MXNet parameter file", f"{magic:#x}")
        reserved = reader.number("<Q", "8 reserved bytes")
        if reserved != 0:
            raise FormatError(path, 8, "8 reserved bytes of zero", f"{reserved:#x}")
        count = reader.count("arrays", smallest=4)
        values = [_read_array(reader, f"array {index} of {count}") for index in range(count)]
        names = _read_names(reader, count)
        if reader.left:
            raise FormatError(path, reader.offset, "the end of the file", f"{reader.left} more bytes")
    return dict(zip(names, values))


def digest(arrays):
    """The SHA-256, in hexadecimal, of named arrays: of names, types, shapes and elements, in the order of the names.

    The same in whatever file, and in whatever order, the arrays are kept.
    """
    found = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name], dtype=arrays[name].dtype.newbyteorder("<"))
        found.update(f"{name}\0{value.dtype.str}\0{arrays[name].shape}\0".encode())
        found.update(memoryview(value.reshape(-1).view(np.uint8)))
    return found.hexdigest()


class _Reader:
    """A file read from front to back that knows how many bytes are left, and says where it stood when they run out."""

    def __init__(self, path, file):
        self.path, self._file, self.offset = path, file, 0
        self.left = os.fstat(file.fileno()).st_size

    def need(self, size, what):
        """Raise FormatError unless `size` more bytes are in the file."""
        if size > self.left:
            raise FormatError(self.path, self.offset, f"{what} ({size} bytes)", f"{self.left} bytes up to the end")

    def bytes(self, size, what):
        self.need(size, what)
        return self.into(bytearray(size), what)

    def into(self, buffer, what):
        """Fill a writable buffer of bytes; its size has been checked."""
        view = memoryview(buffer)
        got = self._file.readinto(view)
        if got != len(view):  # The file shrank after it was opened.
            raise FormatError(self.path, self.offset, f"{what} ({len(view)} bytes)", f"{got} bytes")
        self.offset += got
        self.left -= got
        return buffer

    def numbers(self, form, what):
        return struct.unpack(form, self.bytes(struct.calcsize(form), what))

    def number(self, form, what):
        return self.numbers(form, what)[0]

    def count(self, what, smallest):
        """A 64-bit number of things that take at least `smallest` bytes each."""
        offset, value = self.offset, self.number("<Q", f"the number of {what}")
        if value * smallest > self.left:
            raise FormatError(self.path, offset, f"a number of {what} that {self.left} bytes can hold", value)
        return value


def _read_shape(reader, form, rank, what):
    """Sizes of `rank` axes, each in the struct format `form`."""
    offset = reader.offset
    if not 0 <= rank <= _MAX_RANK:
        raise FormatError(reader.path, offset, f"{what} with 0 to {_MAX_RANK} axes", f"{rank} axes")
    shape = reader.numbers(f"<{rank}{form}", f"the shape of {what}")
    if any(size < 0 for size in shape):
        raise FormatError(reader.path, offset, f"{what} with sizes of at least 0", f"shape {shape}")
    return shape


def _read_array(reader, what):
    """One array in whichever of the four layouts its first word announces."""
    start = reader.offset
    magic = reader.number("<I", f"the start of {what}")
    if magic in (_V2, _V3):
        offset, storage = reader.offset, reader.number("<i", f"the storage type of {what}")
        if storage != 0:
            raise FormatError(reader.path, offset, f"{what} with dense storage (0)",
                              f"storage type {storage} ({_STORAGE.get(storage, 'unknown')})")
    if magic in (_V1, _V2, _V3):
        shape = _read_shape(reader, "q", reader.number("<i", f"the number of axes of {what}"), what)
    elif magic <= _MAX_RANK:  # MXNet 0.x: the first word is the number of axes.
        shape = _read_shape(reader, "I", magic, what)
    else:
        raise FormatError(reader.path, start, f"{what} to begin with {_V1:#x}, {_V2:#x}, {_V3:#x} or its number of "
                          "axes", f"{magic:#x}")
    if not shape and magic != _V3:
        raise FormatError(reader.path, start, f"{what} with data", "an array without shape and data")
    offset = reader.offset
    device, _, flag = reader.numbers("<iii", f"the device and element type of {what}")
    if device not in _DEVICES:
        raise FormatError(reader.path, offset, f"{what} on a device of type {sorted(_DEVICES)}", f"type {device}")
    if flag not in _TYPES:
        raise FormatError(reader.path, offset + 8, f"{what} with an element type of {sorted(_TYPES)}", f"type {flag}")
    return _read_elements(reader, shape, _TYPES[flag], what)


def _read_elements(reader, shape, dtype, what):
    size = dtype.itemsize
    for length in shape:
        size *= length
    offset = reader.offset
    reader.need(size, f"{what}: shape {shape} of {dtype.names[0] if dtype.names else dtype.name}")
    try:
        value = np.empty(shape, dtype)
    except ValueError:  # One axis is 0, so the file can hold it, but the others overflow NumPy's index.
        raise FormatError(reader.path, offset, f"{what} with a shape NumPy can hold", f"shape {shape}") from None
    if size:
        raw = reader.into(value.reshape(-1).view(np.uint8), what)
        if dtype.kind == "b" and raw.max() > 1:
            where = int(np.argmax(raw > 1))
            raise FormatError(reader.path, offset + where, f"{what} with booleans of 0 or 1", int(raw[where]))
    return value.astype(dtype.newbyteorder("="), copy=False)


def _read_names(reader, count):
    offset, number = reader.offset, reader.count("names", smallest=8)
    if number != count:
        raise FormatError(reader.path, offset, f"{count} names, one for each array", f"{number} names")
    names = {}
    for index in range(count):
        offset = reader.offset
        length = reader.number("<Q", f"the length of name {index}")
        raw = bytes(reader.bytes(length, f"name {index}"))
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError(reader.path, offset + 8, f"name {index} in UTF-8", repr(raw[:40])) from None
        if name in names:
            raise FormatError(reader.path, offset + 8, "each name once", f"{name!r} again")
        names[name] = index
    return names


def _pieces(arrays):
    """The file as a sequence of byte strings and views of the arrays' own memory."""
    if not hasattr(arrays, "items"):
        raise TypeError(f"arrays: expected a mapping from name to NumPy array, received {type(arrays).__name__}")
    yield struct.pack("<QQQ", _LIST_MAGIC, 0, len(arrays))
    names = []
    for name, value in arrays.items():
        if not isinstance(name, str):
            raise TypeError(f"array name {name!r}: expected str, received {type(name).__name__}")
        if not isinstance(value, np.ndarray):
            raise TypeError(f"array {name!r}: expected a NumPy array, received {type(value).__name__}")
        dtype = value.dtype.newbyteorder("<")
        if dtype not in _FLAGS:
            known = ", ".join(sorted(kind.name for kind in _FLAGS if kind.names is None))
            raise TypeError(f"array {name!r}: expected one of {known}, received {value.dtype}")
        if value.ndim > _MAX_RANK:
            raise ValueError(f"array {name!r}: expected at most {_MAX_RANK} axes, received {value.ndim}")
        try:
            names.append(name.encode("utf-8"))
        except UnicodeEncodeError:
            raise ValueError(f"array name {name!r}: expected text that UTF-8 can hold") from None
        # MXNet's second layout drops the value of an array without axes; its third keeps it.
        magic = _V2 if value.ndim else _V3
        yield struct.pack(f"<Iii{value.ndim}qiii", magic, 0, value.ndim, *value.shape, 1, 0, _FLAGS[dtype])
        if value.size:
            # (ascontiguousarray turns rank 0 into rank 1, which is harmless here.)
            yield memoryview(np.ascontiguousarray(value, dtype=dtype).reshape(-1).view(np.uint8))
    yield struct.pack("<Q", len(names)) + b"".join(struct.pack("<Q", len(name)) + name for name in names)


def _verify(path, pieces):
    """Compare a file with what was written to it, byte for byte."""
    with open(path, "rb") as file:
        offset = 0
        for piece in pieces:
            for start in range(0, len(piece), _CHUNK):
                part = piece[start:start + _CHUNK]
                if file.read(len(part)) != part:
                    raise OSError(f"{path}: what was read back differs from what was written, after byte {offset}")
                offset += len(part)
        if file.read(1):
            raise OSError(f"{path}: longer than what was written ({offset} bytes)")


def _sync_directory(path):
    """Make a rename in this directory last through a power cut, where the system can."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no directories.
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
