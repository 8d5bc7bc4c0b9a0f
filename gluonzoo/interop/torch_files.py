"""PyTorch's files of tensors (`.pth`, `.pt`, `.th`), since 1.6 a zip archive, before that a row of pickles.

They are read without unpickling and without PyTorch (`stack_machine`): `torch.load(weights_only=True)`, which gives the same
arrays, could be made to execute code up to PyTorch 2.5.1 (CVE-2025-32434), the newest for Python 3.8 is 2.4, and it takes memory
before it knows that a file holds what it says. Writing needs PyTorch.
"""
import collections
import io
import math
import struct
import zipfile
import zlib

import numpy as np

from ..arrays import FormatError
from ..errors import UserError
from .files import check_same, write_beside
from .stack_machine import Tensor, follow

__all__ = ["read", "write"]

#: Keys under which training programs keep the state_dict, in order of preference.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MOST_PICKLE = 64 << 20
_MOST_RANK = 32  # NumPy below 2.0 knows no more.
_STORED, _ENCRYPTED = zipfile.ZIP_STORED, 1


def read(path):
    """{name: array} of a state_dict, or of one in a wrapper such as {"state_dict": ..., "epoch": ...}.

    Raises: FormatError for a damaged file; UserError for one that holds other things than tensors; OSError.
    """
    with open(path, "rb") as file:
        content = file.read()
    value, storages, raw = (_read_zip if content[:4] == b"PK\x03\x04" else _read_legacy)(path, content)
    tensors = _state_dict(path, value)
    used = {tensor.storage for tensor in tensors.values()}
    blocks = {storage.key: _storage(path, storage, raw) for storage in storages.values() if storage in used}
    room = 4 * len(content)  # Tensors may share a storage, but not so often that a small file fills the memory.
    values = {}
    for name, tensor in tensors.items():
        values[name] = _array(path, name, tensor, blocks[tensor.storage.key])
        room -= values[name].nbytes
        if room < 0:
            raise UserError(f"{path}: expected tensors of at most {4 * len(content)} bytes in all, found more")
    return values


def _state_dict(path, value):
    """The dict of tensors in what a file holds."""
    keys = ()
    while isinstance(value, dict) and not any(isinstance(entry, Tensor) for entry in value.values()):
        keys = [key for key in WRAPPERS if isinstance(value.get(key), dict)]
        if not keys:
            break
        value = value[keys[0]]
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a state_dict, a dict of tensors, found {type(value).__name__}")
    for name, entry in value.items():
        if not isinstance(name, str) or not isinstance(entry, Tensor):
            raise UserError(f"{path}: expected a dict of tensors, or one under {', '.join(WRAPPERS)}; found {str(name)[:60]!r} "
                            f"with a {type(entry).__name__}")
    return value


def _read_zip(path, content):
    members = _members(path, content)
    pickles = [name for name in members if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError(f"{path}: expected a zip archive of torch.save, with one data.pkl, found {len(pickles)} among "
                        f"{len(members)} members")
    root = pickles[0][:-len("data.pkl")]
    if root + "constants.pkl" in members:
        raise UserError(f"{path}: expected a state_dict, found a TorchScript program, which is refused; save its state_dict()")
    if root + "byteorder" in members and bytes(members[root + "byteorder"]) != b"little":
        raise UserError(f"{path}: expected little-endian tensors, found {bytes(members[root + 'byteorder'])[:10]!r}")
    pickle = members[pickles[0]]
    if len(pickle) > _MOST_PICKLE:
        raise UserError(f"{path}: expected data.pkl of at most {_MOST_PICKLE} bytes, found {len(pickle)}")
    value, storages = follow(io.BytesIO(bytes(pickle)), path)
    raw = {}
    for key in storages:
        if f"{root}data/{key}" not in members:
            raise UserError(f"{path}: expected {root}data/{key} in the archive, which data.pkl speaks of; it is missing")
        raw[key] = members[f"{root}data/{key}"]
    return value, storages, raw


def _members(path, content):
    """{name: memoryview} of a zip archive's members, which must be stored as they are, without compression."""
    try:
        # From memory, where a lie about a size reads less, not more.
        infos = zipfile.ZipFile(io.BytesIO(content)).infolist()
    except Exception as error:  # zipfile raises a dozen kinds for damaged files.
        raise FormatError(path, 0, "a sound zip archive", f"{type(error).__name__}: {error}"[:120]) from None
    members, total = {}, 0
    for info in infos:
        if info.compress_type != _STORED or info.flag_bits & _ENCRYPTED or info.compress_size != info.file_size:
            raise UserError(f"{path}: {info.filename[:60]!r}: expected a member without compression, as torch.save writes, found "
                            f"{info.compress_size} bytes for {info.file_size}")
        total += info.file_size
        if total > len(content) or info.filename in members:
            raise UserError(f"{path}: expected members of {len(content)} bytes together, each once; found more at "
                            f"{info.filename[:60]!r}")
        members[info.filename] = _member(path, content, info)
    return members


def _member(path, content, info):
    start = info.header_offset
    header = content[start:start + 30] if start >= 0 else b""
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise FormatError(path, start, f"the zip member {info.filename[:60]!r}", repr(header[:4]))
    start += 30 + sum(struct.unpack("<HH", header[26:30]))
    view = memoryview(content)[start:start + info.file_size]
    if len(view) != info.file_size:
        raise FormatError(path, start, f"{info.filename[:60]!r} ({info.file_size} bytes)", f"{len(view)} bytes up to the end")
    if zlib.crc32(view) != info.CRC:
        raise FormatError(path, start, f"{info.filename[:60]!r} with checksum {info.CRC:#x}", f"{zlib.crc32(view):#x}")
    return view


def _read_legacy(path, content):
    source = io.BytesIO(content)
    if follow(source, path)[0] != _LEGACY_MAGIC:
        raise FormatError(path, 0, "a file of torch.save", "another pickle, which is not read")
    version, system = follow(source, path)[0], follow(source, path)[0]
    if version != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise FormatError(path, 13, "torch.save's protocol 1001, little-endian", f"{str(version)[:20]}, {str(system)[:80]}")
    value, storages = follow(source, path)
    place = source.tell()
    keys, _ = follow(source, path)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise FormatError(path, place, f"a list of the {len(storages)} storages", str(keys)[:80])
    raw, place, view = {}, source.tell(), memoryview(content)
    for key in keys:
        size = storages[key].elements * _itemsize(storages[key])
        if place + 8 + size > len(content):
            raise FormatError(path, place, f"storage {key[:40]!r} ({8 + size} bytes)", f"{len(content) - place} bytes to the end")
        elements = struct.unpack_from("<q", content, place)[0]
        if elements != storages[key].elements:
            raise FormatError(path, place, f"{storages[key].elements} elements in storage {key[:40]!r}", elements)
        raw[key] = view[place + 8:place + 8 + size]
        place += 8 + size
    return value, storages, raw


def _itemsize(storage):
    return 2 if storage.kind == "bf16" else np.dtype(storage.kind).itemsize


def _storage(path, storage, raw):
    """A storage's elements as a flat array on the file's memory; bfloat16 as its 16 bits."""
    block, size = raw[storage.key], storage.elements * _itemsize(storage)
    if len(block) != size:
        raise UserError(f"{path}: storage {storage.key[:40]!r}: expected {size} bytes for {storage.elements} elements, found "
                        f"{len(block)}")
    kind = {"bf16": "u2", "?": "u1"}.get(storage.kind, storage.kind)
    return np.frombuffer(block, dtype=np.dtype(kind).newbyteorder("<"))


def _array(path, name, tensor, block):
    """The tensor as an array, after a check that it lies within its storage."""
    shape, strides, offset = tensor.shape, tensor.strides, tensor.offset
    numbers = (offset,) + shape + strides
    if len(shape) != len(strides) or len(shape) > _MOST_RANK or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
        raise UserError(f"{path}: {name}: expected offset, shape and strides of one rank, found "
                        f"{str((offset, shape, strides))[:120]}")
    count = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
    if count > block.size or (count and last >= block.size):
        raise UserError(f"{path}: {name}: expected a shape within its storage of {block.size} elements, found {str(shape)[:80]} "
                        f"at {offset} with strides {str(strides)[:80]}")
    if count == 0 and max(shape, default=0) > 1 << 31:
        raise UserError(f"{path}: {name}: expected a shape that NumPy can hold, found {str(shape)[:80]}")
    if count == 0:
        array = np.zeros(shape, block.dtype)
    else:
        array = np.lib.stride_tricks.as_strided(block[offset:], shape, [stride * block.itemsize for stride in strides])
        array = array.copy() if array.ndim == 0 else np.ascontiguousarray(array)
    if tensor.storage.kind == "bf16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array != 0 if tensor.storage.kind == "?" else array


def write(path, values):
    """Write a state_dict, read back and compared. Raises: UserError when PyTorch is missing; OSError."""
    try:
        import torch
    except ImportError:
        raise UserError(f"{path}: PyTorch is needed to write this format: pip install 'gluonzoo[torch]'; without it, write "
                        ".safetensors") from None
    tensors = collections.OrderedDict((name, torch.from_numpy(np.array(value))) for name, value in values.items())

    def put(beside):
        torch.save(tensors, beside)
        check_same(path, values, read(beside))

    write_beside(path, put)
