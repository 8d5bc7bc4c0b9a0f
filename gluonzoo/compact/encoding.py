"""One array as streams of bytes: where its elements other than zero are, and what they are, each in the smallest way.

Positions: "all" of them; "bitmap", a bit for each element; "gaps", distances between elements (`bits.gaps`).
Values: "raw"; "codebook", each different value once and an index of 1 to 8 bits for each element; "signs", a scale for each
slice along the first axis and one bit for each element, 1 for minus.
Streams are plain or deflated (zlib), which puts Huffman's code, the last stage of Deep Compression, behind indices and gaps.
Zero means all bits zero: -0.0 is an element, so that every array comes back to the bit.
"""
import zlib

import numpy as np

from .bits import best_gap_bits, gaps, pack, packed_size, positions, unpack

__all__ = ["TYPES", "encode", "decode", "described", "entropy"]

#: Types of arrays that can be stored.
TYPES = ("float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool")

#: Different values that a codebook may have.
_MOST_CODES = 256


def entropy(numbers):
    """Shannon's entropy of the numbers, in bits each: what no code of single numbers, Huffman's included, goes below."""
    if not len(numbers):
        return 0.0
    shares = np.bincount(numbers) / len(numbers)
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _bits_of(array):
    """The elements as unsigned numbers of the same bits, flat."""
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
    return flat.view(f"<u{array.dtype.itemsize}")


def _stream(raw):
    """(coding, bytes) of a plain stream, deflated where that is smaller."""
    raw = bytes(raw)
    deflated = zlib.compress(raw, 9)
    return ("deflate", deflated, len(raw)) if len(deflated) < len(raw) else ("plain", raw, len(raw))


def _smaller(numbers, bits):
    """(bits, stream) of whole numbers: packed tightly, or a byte each and deflated."""
    packed, loose = bytes(pack(numbers, bits)), zlib.compress(bytes(numbers), 9)
    if len(loose) < len(packed):
        return 8, ("deflate", loose, len(numbers))
    return bits, ("plain", packed, len(packed))


def _signs(array, flat):
    """(scales, signs) of a float32 array of constant size and no zero along its first axis; None of any other."""
    if array.dtype != np.float32 or array.ndim < 2 or not array.size:
        return None
    sizes = (flat & np.uint32(0x7FFFFFFF)).reshape((array.shape[0], -1))
    if sizes.shape[1] < 2 or (sizes != sizes[:, :1]).any() or not sizes[:, 0].all():
        return None
    return sizes[:, 0].copy(), (flat >> np.uint32(31)).astype(np.uint8)


def _values(elements):
    """Candidates for the values of elements: (entry, streams)."""
    yield {"kind": "raw"}, [_stream(elements.tobytes())]
    codes, indices = np.unique(elements, return_inverse=True)
    if 1 < len(codes) <= _MOST_CODES or len(codes) == 1 and len(elements) > 1:
        bits, stream = _smaller(indices.reshape(-1).astype(np.uint8), max(1, int(len(codes) - 1).bit_length()))
        yield {"kind": "codebook", "codes": len(codes), "bits": bits}, [_stream(codes.tobytes()), stream]


def _positions(flat):
    """Candidates for the positions: (entry, streams, positions or None for all)."""
    yield {"kind": "all"}, [], None
    places = np.flatnonzero(flat)
    if len(places) < len(flat):
        yield {"kind": "bitmap"}, [_stream(np.packbits(flat != 0, bitorder="little"))], places
        width, _ = best_gap_bits(places)
        numbers = gaps(places, width)
        bits, stream = _smaller(numbers, width)
        # The numbers are those of the width they were made for, however wide they are stored.
        yield {"kind": "gaps", "width": width, "bits": bits, "count": len(numbers)}, [stream], places


def encode(array):
    """The smallest of all ways to store an array.

    Returns: ({"dtype", "shape", "elements", "positions": {...}, "values": {...}}, [(coding, bytes, size when decoded)]).
    Raises: TypeError for an array of another type than `TYPES`.
    """
    if array.dtype.name not in TYPES:
        raise TypeError(f"expected an array of one of {', '.join(TYPES)}, received {array.dtype}")
    flat, found = _bits_of(array), []
    signs = _signs(array, flat)
    if signs is not None:
        bits, stream = _smaller(signs[1], 1)
        found.append(({"positions": {"kind": "all"}, "values": {"kind": "signs", "bits": bits}, "elements": len(flat)},
                      [_stream(signs[0].tobytes()), stream]))
    for where, streams, places in _positions(flat):
        elements = flat if places is None else flat[places]
        for what, more in _values(elements):
            found.append(({"positions": where, "values": what, "elements": len(elements)}, streams + more))
    entry, streams = min(found, key=lambda pair: sum(len(raw) for _, raw, _ in pair[1]))
    return {"dtype": array.dtype.name, "shape": list(array.shape), **entry}, streams


def decode(entry, streams):
    """The array that `encode` stored.

    Args: streams: the decoded bytes of the entry's streams, in order.
    Raises: ValueError that says what does not fit.
    """
    dtype, shape = np.dtype(entry["dtype"]).newbyteorder("<"), tuple(entry["shape"])
    size = 1
    for length in shape:
        size *= length
    unsigned, streams = np.dtype(f"<u{dtype.itemsize}"), iter(streams)
    where, what, count = entry["positions"], entry["values"], entry["elements"]
    if where["kind"] == "all":
        places = None
    elif where["kind"] == "bitmap":
        raw = _exactly(next(streams), packed_size(size, 1), "a bitmap")
        places = np.flatnonzero(np.unpackbits(raw, count=size, bitorder="little"))
    else:
        raw = _exactly(next(streams), packed_size(where["count"], where["bits"]), "gaps")
        places = positions(unpack(raw, where["count"], where["bits"]), where["width"])
        if len(places) and places[-1] >= size:
            raise ValueError(f"an element at {places[-1]} of {size}")
    if count != (size if places is None else len(places)):
        raise ValueError(f"{count} elements for {size if places is None else len(places)} positions")
    elements = _decoded_values(what, streams, count, shape, unsigned)
    if places is None:
        flat = elements
    else:
        flat = np.zeros(size, unsigned)
        flat[places] = elements
    if dtype.kind == "b" and flat.size and flat.max() > 1:
        raise ValueError("booleans other than 0 and 1")
    return flat.view(dtype).astype(dtype.newbyteorder("="), copy=False).reshape(shape)


def _decoded_values(what, streams, count, shape, unsigned):
    if what["kind"] == "raw":
        return np.frombuffer(_exactly(next(streams), count * unsigned.itemsize, "values"), unsigned).copy()
    if what["kind"] == "signs":
        if unsigned.itemsize != 4 or len(shape) < 2 or not shape[0]:
            raise ValueError("signs for an array that has no float32 slices")
        scales = np.frombuffer(_exactly(next(streams), 4 * shape[0], "scales"), unsigned)
        minus = unpack(_exactly(next(streams), packed_size(count, what["bits"]), "signs"), count, what["bits"])
        if minus.size and minus.max() > 1:
            raise ValueError("signs other than 0 and 1")
        return np.repeat(scales, count // shape[0]) | (minus.astype(unsigned) << unsigned.type(31))
    codes = np.frombuffer(_exactly(next(streams), what["codes"] * unsigned.itemsize, "a codebook"), unsigned)
    indices = unpack(_exactly(next(streams), packed_size(count, what["bits"]), "indices"), count, what["bits"])
    if indices.size and indices.max() >= len(codes):
        raise ValueError(f"an index of {indices.max()} into a codebook of {len(codes)}")
    return codes[indices]


def _exactly(raw, size, what):
    if len(raw) != size:
        raise ValueError(f"{what} of {len(raw)} bytes where {size} belong")
    return np.frombuffer(raw, np.uint8)


def described(entry):
    """How an entry is stored, in few words."""
    where, what = entry["positions"], entry["values"]
    text = {"raw": "values", "signs": "signs and scales"}.get(what["kind"]) or f"{what['codes']} codes"
    return text + {"all": "", "bitmap": ", bitmap", "gaps": f", gaps of {where.get('width')} bits"}[where["kind"]]
