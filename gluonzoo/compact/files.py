"""A file of arrays in the encodings of `encoding`, written beside its name, read back, compared, then renamed.

Layout: 8 bytes "GZCOMPCT"; the header's length (u64, little-endian) and SHA-256 (32 bytes); the header, JSON in UTF-8; the
streams one after another. The header has "format", "version", "facts" (what the caller said of the network), "arrays" (entries of
`encoding.encode` with "name" and "streams": [coding, stored bytes, decoded bytes]), "sha256" of all that follows it, and
"digest", `arrays.digest` of the arrays.
"""
import hashlib
import json
import os
import zlib
from dataclasses import dataclass

import numpy as np

from .. import arrays as plain_files
from ..errors import UserError
from .encoding import TYPES, decode, described, encode, entropy

__all__ = ["Report", "Row", "measure", "save", "load", "read_facts", "recognise"]

MAGIC, FORMAT, VERSION = b"GZCOMPCT", "gluonzoo-compact", 1

#: Elements in all that a file may claim: 16 times the largest network here. Few bytes can stand for many zeros.
_MOST_ELEMENTS = 1 << 31
_MOST_HEADER = 1 << 26
_LIMITS = {"bits": (1, 8), "width": (1, 8), "codes": (1, 256), "count": (0, _MOST_ELEMENTS), "elements": (0, _MOST_ELEMENTS)}


@dataclass(frozen=True)
class Row:
    """How one array is stored.

    name, shape; zeros: share of elements that are 0; different: number of different values other than 0; stored: in words;
    before, after: bytes; bits_each: Shannon's entropy of the values that are not 0, in bits, None with over 256 different ones.
    """

    name: str
    shape: tuple
    zeros: float
    different: int
    stored: str
    before: int
    after: int
    bits_each: float


@dataclass(frozen=True)
class Report:
    """What `save` wrote: path; rows, a `Row` for each array; before, bytes of the arrays; after, bytes of the file."""

    path: str
    rows: tuple
    before: int
    after: int


def _row(name, array, entry, streams):
    values = array[array != 0]
    different, indices = np.unique(values, return_inverse=True)
    bits_each = entropy(indices.reshape(-1)) if len(different) <= 256 else None
    return Row(name, array.shape, 1 - values.size / max(array.size, 1), len(different), described(entry), array.nbytes,
               sum(len(raw) for _, raw, _ in streams), bits_each)


def _image(arrays, facts, where):
    """(the file's head, its streams, `Row`s) of arrays in native order."""
    entries, streams, rows = [], [], []
    for name, array in arrays.items():
        try:
            entry, mine = encode(array)
        except TypeError as error:
            raise UserError(f"{where}{name}: {error}") from None
        rows.append(_row(name, array, entry, mine))
        entries.append({"name": name, **entry, "streams": [[coding, len(raw), size] for coding, raw, size in mine]})
        streams += [raw for _, raw, _ in mine]
    body = b"".join(streams)
    header = json.dumps({"format": FORMAT, "version": VERSION, "facts": facts or {}, "arrays": entries,
                         "sha256": hashlib.sha256(body).hexdigest(), "digest": plain_files.digest(arrays)},
                        separators=(",", ":")).encode()
    return MAGIC + len(header).to_bytes(8, "little") + hashlib.sha256(header).digest() + header, body, tuple(rows)


def _native(arrays):
    return {name: np.asarray(array, array.dtype.newbyteorder("="), order="C") for name, array in arrays.items()}


def measure(arrays, facts=None):
    """What `save` would write: a `Report` whose path is None. Raises: as `save`."""
    head, body, rows = _image(_native(arrays), facts, "")
    return Report(None, rows, sum(row.before for row in rows), len(head) + len(body))


def save(path, arrays, facts=None):
    """Write named arrays as small as their content allows.

    Args: arrays: {name: NumPy array of `encoding.TYPES`}; facts: what JSON can hold; kept beside them.
    Returns: `Report`.
    Raises: UserError for an array of another type; OSError when the disk refuses or what is read back differs; whatever had the
        name before is still there then.
    """
    path, arrays = os.fspath(path), _native(arrays)
    head, body, rows = _image(arrays, facts, f"{path}: ")
    from ..interop.files import check_same, write_beside

    def put(beside):
        with open(beside, "wb") as file:
            file.write(head + body)
        found = load(beside)[0]
        if list(found) != list(arrays):
            raise OSError(f"{path}: the names read back differ from those written")
        check_same(path, arrays, found)

    write_beside(path, put)
    return Report(path, rows, sum(row.before for row in rows), os.path.getsize(path))


def recognise(head):
    """Whether a file's first bytes are those of this format."""
    return head[:8] == MAGIC


def _open(path):
    """(header as a dict, the streams' bytes) of a file whose every byte is right."""
    def wrong(found):
        return plain_files.FormatError(path, 0, "a whole compact file of gluonzoo", found)

    with open(path, "rb") as file:
        head = file.read(48)
        if len(head) < 48 or not recognise(head):
            raise wrong(f"{len(head)} bytes that begin with {head[:8]!r}")
        length = int.from_bytes(head[8:16], "little")
        if length > min(_MOST_HEADER, os.fstat(file.fileno()).st_size - 48):
            raise wrong(f"a header of {length} bytes")
        raw = file.read(length)
        if hashlib.sha256(raw).digest() != head[16:]:
            raise wrong("a header that was changed (its SHA-256 does not match)")
        body = file.read()
    try:
        header = json.loads(raw.decode())
        version, facts, sha256 = header["version"], header["facts"], header["sha256"]
        _check_entries(header["arrays"], len(body))
        if header["format"] != FORMAT or not isinstance(facts, dict):
            raise ValueError(f"format {header['format']!r}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise wrong(f"a header that says otherwise: {type(error).__name__} {error}") from None
    if version != VERSION:
        raise plain_files.FormatError(path, 48, f"version {VERSION}", version)
    if hashlib.sha256(body).hexdigest() != sha256:
        raise wrong(f"{len(body)} bytes of arrays that were changed (their SHA-256 does not match)")
    return header, body


def _check_entries(entries, body):
    """Raise ValueError, KeyError or TypeError unless every size in the entries is possible."""
    total, stored, names = 0, 0, set()
    for entry in entries:
        size = 1
        for length in entry["shape"]:
            if not isinstance(length, int) or length < 0:
                raise ValueError(f"shape {entry['shape']}")
            size *= length
        total += size
        if total > _MOST_ELEMENTS or len(entry["shape"]) > 32:
            raise ValueError(f"shape {entry['shape']}: more than {_MOST_ELEMENTS} elements in all, or 32 axes")
        if not isinstance(entry["name"], str) or entry["name"] in names or entry["dtype"] not in TYPES:
            raise ValueError(f"name {entry['name']!r}, type {entry['dtype']!r}")
        names.add(entry["name"])
        where, what = entry["positions"], entry["values"]
        if where["kind"] not in ("all", "bitmap", "gaps") or what["kind"] not in ("raw", "codebook", "signs"):
            raise ValueError(f"kinds {where['kind']!r}, {what['kind']!r}")
        needed = {"gaps": 1, "bitmap": 1}.get(where["kind"], 0) + (1 if what["kind"] == "raw" else 2)
        for part, keys in ((entry, ("elements",)), (where, ("width", "bits", "count") if where["kind"] == "gaps" else ()),
                           (what, {"raw": (), "signs": ("bits",), "codebook": ("bits", "codes")}[what["kind"]])):
            for key in keys:
                low, high = _LIMITS[key]
                if not isinstance(part[key], int) or not low <= part[key] <= high:
                    raise ValueError(f"{key} {part[key]!r}")
        if len(entry["streams"]) != needed or entry["elements"] > size:
            raise ValueError(f"{len(entry['streams'])} streams for {needed}, {entry['elements']} elements of {size}")
        for coding, length, decoded in entry["streams"]:
            if coding not in ("plain", "deflate") or not all(isinstance(n, int) and n >= 0 for n in (length, decoded)):
                raise ValueError(f"stream {coding!r} of {length!r} bytes")
            # A deflated stream is at most 1032 times as long decoded.
            if decoded > (length if coding == "plain" else 1032 * length + 64) or coding == "plain" and decoded != length:
                raise ValueError(f"stream of {length} bytes for {decoded}")
            stored += length
    if stored != body:
        raise ValueError(f"{body} bytes of arrays where {stored} belong")


def _inflated(coding, raw, size):
    if coding == "plain":
        return raw
    worker = zlib.decompressobj()
    try:
        found = worker.decompress(raw, size + 1)
    except zlib.error as error:
        raise ValueError(f"deflated bytes: {error}") from None
    if len(found) != size or not worker.eof or worker.unused_data:
        raise ValueError(f"{len(found)} inflated bytes where {size} belong")
    return found


def load(path):
    """Read what `save` wrote.

    Returns: ({name: NumPy array}, facts).
    Raises: arrays.FormatError when a byte is missing, foreign or changed, or a size impossible; OSError.
    """
    header, body = _open(os.fspath(path))
    found, offset = {}, 0
    for entry in header["arrays"]:
        streams = []
        try:
            for coding, length, size in entry["streams"]:
                streams.append(_inflated(coding, body[offset:offset + length], size))
                offset += length
            found[entry["name"]] = decode(entry, streams)
        except ValueError as error:
            raise plain_files.FormatError(path, 0, f"{entry['name']} whole", str(error)) from None
    if plain_files.digest(found) != header["digest"]:
        raise plain_files.FormatError(path, 0, "the arrays that were written", "others (their digest does not match)")
    return found, header["facts"]


def read_facts(path):
    """The facts of a file, without its arrays. Raises: as `load`."""
    return _open(os.fspath(path))[0]["facts"]
