"""Writes Caffe's files: the bytes of ``.caffemodel`` by hand, from the field numbers of caffe.proto, and prototxt's text."""
import struct

import numpy as np

V1_TYPES = {"Convolution": 4, "InnerProduct": 14, "BatchNorm": 0, "Scale": 0}


def varint(value):
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def field(number, content):
    """One field: text and bytes with their length, whole numbers as varints."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array, legacy=False, packed=True):
    array = np.asarray(array, "<f4")
    if legacy:  # num, channels, height, width
        shape = (1,) * (4 - array.ndim) + array.shape
        head = b"".join(field(number + 1, size) for number, size in enumerate(shape))
    else:
        head = field(7, field(1, b"".join(varint(size) for size in array.shape)))
    if packed:
        return head + field(5, array.tobytes())
    return head + b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in array.ravel())


def caffemodel(layers, generation=2):
    """The bytes of a network. layers: [(name, type, [arrays])]; generation 0, 1 or 2 as Caffe's messages are called."""
    out = field(1, "net")
    for name, kind, arrays in layers:
        if generation == 2:
            out += field(100, field(1, name) + field(2, kind) + b"".join(field(7, blob(array)) for array in arrays))
        elif generation == 1:
            out += field(2, field(4, name) + field(5, V1_TYPES[kind]) + b"".join(field(6, blob(array, True)) for array in arrays))
        else:
            kind = {"Convolution": "conv", "InnerProduct": "innerproduct"}[kind]
            inner = field(1, name) + field(2, kind) + b"".join(field(50, blob(array, True)) for array in arrays)
            out += field(2, field(1, inner))
    return out


def layer_text(name, kind, bottoms, top, **settings):
    """One layer of a prototxt; settings are nested dicts, lists repeat their field."""
    lines = [f'  name: "{name}"', f'  type: "{kind}"'] + [f'  bottom: "{bottom}"' for bottom in bottoms] + [f'  top: "{top}"']
    return "\n".join(["layer {"] + lines + _settings(settings, "  ") + ["}"])


def _settings(values, indent):
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key} {{"] + _settings(value, indent + "  ") + [indent + "}"]
        else:
            for item in value if isinstance(value, list) else [value]:
                text = str(item).lower() if isinstance(item, bool) else str(item)
                lines.append(f"{indent}{key}: {text}")
    return lines
