"""Files of tensors as PyTorch and safetensors write them, made byte by byte, sound and broken, without those packages."""
import io
import json
import struct
import zipfile

import numpy as np

KINDS = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "int64": "LongStorage",
         "int32": "IntStorage", "int8": "CharStorage", "uint8": "ByteStorage", "bool": "BoolStorage"}
SAFE_KINDS = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64", "int32": "I32", "uint8": "U8", "bool": "BOOL"}


class Raw(bytes):
    """Instructions of a pickle that are taken as they are."""


def name(module, attribute):
    return Raw(f"c{module}\n{attribute}\n".encode())


def call(function, arguments):
    return Raw(function + encode(arguments) + b"R")


def encode(value):
    """A value as instructions of a pickle of protocol 2."""
    if isinstance(value, Raw):
        return value
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        if -1 << 31 <= value < 1 << 31:
            return b"J" + struct.pack("<i", value)
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, tuple):
        return b"(" + b"".join(map(encode, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(encode, value)) + b"e"
    return b"}(" + b"".join(encode(key) + encode(entry) for key, entry in value.items()) + b"u"


def pickle(value):
    return b"\x80\x02" + encode(value) + b"."


def tensor(array, key, kind=None, elements=None, offset=0, shape=None, strides=None, legacy=False):
    """The call that makes a tensor; what is given replaces what is true."""
    kind = kind or KINDS[array.dtype.name]
    elements = array.size if elements is None else elements
    storage = ("storage", name("torch", kind), str(key), "cpu", elements) + ((None,) if legacy else ())
    if strides is None:
        strides = tuple(step // array.itemsize for step in np.ascontiguousarray(array).strides) if array.ndim else ()
    return call(name("torch._utils", "_rebuild_tensor_v2"), (
        Raw(encode(storage) + b"Q"), offset, array.shape if shape is None else shape, strides, False,
        call(name("collections", "OrderedDict"), ())))


def torch_zip(values, wrap=lambda state: state, compress=False, data=None, members=None, root="archive", order=b"little", **lies):
    """torch.save's archive of {name: array}; `lies` go to the first tensor, `data` replaces data.pkl, `members` adds others."""
    state = {key: tensor(array, index, **(lies if index == 0 else {})) for index, (key, array) in enumerate(values.items())}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{root}/data.pkl", pickle(wrap(state)) if data is None else data)
        archive.writestr(f"{root}/byteorder", order)
        for index, array in enumerate(values.values()):
            archive.writestr(f"{root}/data/{index}", np.ascontiguousarray(array).tobytes())
        for member, raw in (members or {}).items():
            archive.writestr(member, raw)
        archive.writestr(f"{root}/version", b"3\n")
    return content.getvalue()


def torch_legacy(values, wrap=lambda state: state, keys=None, counts=None, **lies):
    """torch.save's file before PyTorch 1.6."""
    state = {key: tensor(array, index, legacy=True, **(lies if index == 0 else {}))
             for index, (key, array) in enumerate(values.items())}
    parts = [pickle(0x1950A86A20F9469CFC6C), pickle(1001), pickle({"protocol_version": 1001, "little_endian": True}),
             pickle(wrap(state)), pickle([str(index) for index in range(len(values))] if keys is None else keys)]
    for index, array in enumerate(values.values()):
        parts.append(struct.pack("<q", array.size if counts is None else counts[index]))
        parts.append(np.ascontiguousarray(array).tobytes())
    return b"".join(parts)


def safetensors(values, header=None, kinds=None, size=None, tail=b""):
    """A .safetensors file; `kinds` replaces types by name, `header` updates it, `size` is its length as the file says it."""
    entries, place = {}, 0
    for key, array in values.items():
        entries[key] = {"dtype": (kinds or {}).get(key) or SAFE_KINDS[array.dtype.name], "shape": list(array.shape),
                        "data_offsets": [place, place + array.nbytes]}
        place += array.nbytes
    entries.update(header or {})
    raw = json.dumps(entries).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw) if size is None else size) + raw + b"".join(
        np.ascontiguousarray(array).tobytes() for array in values.values()) + tail


def sample(seed=0):
    """Arrays of several types and ranks."""
    rng = np.random.RandomState(seed)
    return {"conv.weight": rng.randn(4, 3, 3, 3).astype("float32"), "norm.running_var": rng.rand(4).astype("float64"),
            "half": rng.randn(5).astype("float16"), "count": np.array(7, dtype="int64"), "flag": np.array([True, False]),
            "byte": np.arange(6, dtype="uint8").reshape(2, 3)}
