"""RecordIO, the format of MXNet's image files (.rec and .idx), read and written in plain Python.

A .rec file is a sequence of records, each of one or more parts. A part is: the magic number 0xced7230a; a 32-bit number whose
upper 3 bits are 0 (a whole record), 1 (its first part), 2 (one in the middle) or 3 (its last), and whose lower 29 bits are the
length of what follows; the bytes; zeros up to a multiple of 4. All numbers are little-endian. A record is parted where the
magic number itself stands at a multiple of 4 in it; the number is left out there and put back when the parts are joined.

An image record begins with its header: `flag` (uint32), `label` (float32), `id` and `id2` (uint64). With flag 0 `label` is
the label; with flag n, n labels of float32 follow the header. The rest is an image file's bytes.

A .idx file has a line "key<TAB>offset" for each record; a .lst file "key<TAB>label[<TAB>label ...]<TAB>path".

Source: dmlc-core `recordio.h` and MXNet's `recordio.py` and `im2rec` (format only). Differences: none known.
"""
import os
import struct
from collections import namedtuple

import numpy as np

from .records_files import Bytes, RecordError, read_index, read_list, wrong

__all__ = ["RecordError", "Record", "RecordFile", "RecordWriter", "pack_record", "unpack_record", "frame", "read_list",
           "read_index"]

MAGIC = 0xced7230a
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_HEADER = struct.Struct("<IfQQ")
_PART = struct.Struct("<II")
#: A part's length has 29 bits.
LONGEST = (1 << 29) - 1
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_KINDS = ("a whole record", "a record's first part", "a record's middle part", "a record's last part")


Record = namedtuple("Record", ["id", "labels", "data"])
Record.__doc__ = """An image record. id: int. labels: (L,) float32, L at least 1. data: the image file's bytes."""


def pack_record(number, labels, data):
    """A record's bytes: header and image file.

    Args: number: its id; labels: one number or several; data: the image file's bytes.
    """
    labels = np.asarray(labels, dtype="<f4").reshape(-1)
    if len(labels) == 1:
        return _HEADER.pack(0, labels[0], number, 0) + data
    return _HEADER.pack(len(labels), 0.0, number, 0) + labels.tobytes() + data


def unpack_record(payload, name="record", offset=0):
    """The `Record` in a record's bytes. Raises: RecordError when they are too few for the header."""
    if len(payload) < _HEADER.size:
        raise wrong(name, offset, f"an image record of at least {_HEADER.size} bytes", f"{len(payload)} bytes")
    flag, label, number, _ = _HEADER.unpack_from(payload)
    if flag == 0:
        return Record(number, np.array([label], dtype=np.float32), payload[_HEADER.size:])
    start = _HEADER.size + 4 * flag
    if len(payload) < start:
        raise wrong(name, offset, f"{flag} labels in an image record", f"{len(payload)} bytes in all")
    return Record(number, np.frombuffer(payload, "<f4", flag, _HEADER.size).astype(np.float32), payload[start:])


def frame(payload):
    """A record as it stands in a .rec file: magic numbers, lengths, padding.

    Raises: RecordError when a part of it would be of 2^29 bytes or more.
    """
    if len(payload) > LONGEST:
        raise RecordError(f"a record of {len(payload)} bytes: the format has room for {LONGEST}")
    cuts, at = [], payload.find(_MAGIC_BYTES)
    while at >= 0:
        if at % 4 == 0:
            cuts.append(at)
        at = payload.find(_MAGIC_BYTES, at + (4 if at % 4 == 0 else 1))
    parts, start = [], 0
    for number, cut in enumerate(cuts):
        parts += [_PART.pack(MAGIC, (_FIRST if number == 0 else _MIDDLE) << 29 | cut - start), payload[start:cut]]
        start = cut + 4
    parts += [_PART.pack(MAGIC, (_LAST if cuts else _WHOLE) << 29 | len(payload) - start), payload[start:],
              b"\0" * (-len(payload) % 4)]
    return b"".join(parts)


def _parts(name, stored, offset):
    """(kind, start, stop) of the parts of the record that stands at the beginning of some bytes, and where it ends."""
    at, parts = 0, []
    while True:
        if at + _PART.size > len(stored):
            raise wrong(name, offset + at, "a record's magic number and length", f"the end after {len(stored) - at} bytes")
        magic, word = _PART.unpack_from(stored, at)
        kind, length = word >> 29, word & LONGEST
        if magic != MAGIC:
            raise wrong(name, offset + at, f"magic number 0x{MAGIC:08x}", f"0x{magic:08x}")
        if kind not in ((_MIDDLE, _LAST) if parts else (_WHOLE, _FIRST)):
            raise wrong(name, offset + at, "a record's next part" if parts else "a record's beginning",
                         _KINDS[kind] if kind < 4 else f"an unknown part {kind}")
        start = at + _PART.size
        at = start + (length + 3) // 4 * 4
        if start + length > len(stored):
            raise wrong(name, offset + start, f"{length} bytes of a record", f"the end after {len(stored) - start} bytes")
        parts.append((kind, start, start + length))
        if kind in (_WHOLE, _LAST):
            return parts, at


def _joined(stored, parts):
    if len(parts) == 1:
        return bytes(stored[parts[0][1]:parts[0][2]])
    return _MAGIC_BYTES.join(bytes(stored[start:stop]) for _, start, stop in parts)


class RecordWriter:
    """Writes a .rec and a .idx file. Both are made anew; a context manager.

    Args: path: of the .rec file; index: of the .idx file, by default beside it.
    """

    def __init__(self, path, index=None):
        self.path = str(path)
        self._file = open(self.path, "wb")
        self._index = open(index or os.path.splitext(self.path)[0] + ".idx", "w", encoding="ascii", newline="\n")
        self._at = 0

    def write(self, number, labels, data):
        """Add an image record. Args as of `pack_record`; `number` is its key in the index too."""
        framed = frame(pack_record(number, labels, data))
        self._index.write(f"{number}\t{self._at}\n")
        self._file.write(framed)
        self._at += len(framed)

    def close(self):
        """Close both files."""
        self._file.close()
        self._index.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class RecordFile(Bytes):
    """Records by their number in the file. Several threads may read at once.

    Attributes: path; keys, offsets, ends: (N,) int64, in the order of the file; size: of the file in bytes.
    Args: path: of the .rec file. index: of the .idx file; by default the one beside it. Where there is none the records are
        found by going through the file once.
    Raises: RecordError when the file cannot be read, is cut short, or does not fit the index.
    """

    def __init__(self, path, index=None):
        super().__init__(path)
        if self.size == 0:
            raise wrong(self.path, 0, "records", "an empty file")
        beside = os.path.splitext(self.path)[0] + ".idx"
        if index or os.path.exists(beside):
            self._take_index(str(index or beside))
        else:
            self._scan()

    def _take_index(self, index):
        keys, offsets = read_index(index)
        if len(keys) == 0:
            raise RecordError(f"{index}: expected a line for each record of {self.path} ({self.size} bytes), found none")
        order = np.argsort(offsets, kind="stable")
        self.keys, self.offsets = keys[order], offsets[order]
        self.ends = np.append(self.offsets[1:], self.size)
        if self.offsets[-1] >= self.size:
            beyond = int(np.flatnonzero(self.offsets >= self.size)[0])
            raise RecordError(f"{index}: record {self.keys[beyond]} begins at byte {self.offsets[beyond]}; {self.path} ends at "
                              f"byte {self.size}: it is cut short, or the index is of another file")
        if self.offsets[0] != 0:
            raise RecordError(f"{index}: the first record begins at byte {self.offsets[0]} of {self.path}; expected byte 0")
        same = np.flatnonzero(np.diff(self.offsets) == 0)
        if len(same):
            raise RecordError(f"{index}: records {self.keys[same[0]]} and {self.keys[same[0] + 1]} both begin at byte "
                              f"{self.offsets[same[0]]}")
        # What damage is common, a file cut short or another file's index, shows at the ends.
        for position in {0, len(self) - 1}:
            self.payload(position)

    def _scan(self):
        at, first, offsets, inside = 0, 0, [], False
        while at < self.size:
            word = os.pread(self._descriptor, _PART.size, at)
            if len(word) < _PART.size:
                raise wrong(self.path, at, "a record's magic number and length", f"the end after {len(word)} bytes")
            magic, word = _PART.unpack(word)
            kind, length = word >> 29, word & LONGEST
            if magic != MAGIC:
                raise wrong(self.path, at, f"magic number 0x{MAGIC:08x}", f"0x{magic:08x}")
            if kind not in ((_MIDDLE, _LAST) if inside else (_WHOLE, _FIRST)):
                raise wrong(self.path, at, "a record's next part" if inside else "a record's beginning",
                             _KINDS[kind] if kind < 4 else f"an unknown part {kind}")
            first = first if inside else at
            at += _PART.size + (length + 3) // 4 * 4
            if at > self.size:
                raise wrong(self.path, at - (length + 3) // 4 * 4, f"{length} bytes of a record",
                             f"the end at byte {self.size}: the file is cut short")
            inside = kind in (_FIRST, _MIDDLE)
            if not inside:
                offsets.append(first)
        if inside:
            raise wrong(self.path, self.size, "a record's last part", "the end of the file: it is cut short")
        self.offsets = np.array(offsets, dtype=np.int64)
        self.ends = np.append(self.offsets[1:], self.size)
        self.keys = np.arange(len(offsets), dtype=np.int64)

    def __len__(self):
        return len(self.offsets)

    def payload(self, position, stored=None):
        """A record's bytes, its parts joined. stored: its bytes in the file, where they have been read already.

        Raises: RecordError when it is damaged or does not end where the next one begins.
        """
        start, stop = int(self.offsets[position]), int(self.ends[position])
        stored = self.stored(start, stop) if stored is None else stored
        try:
            parts, end = _parts(self.path, stored, start)
        except RecordError as error:
            raise RecordError(f"{error} (record {self.keys[position]}, bytes {start} to {stop} by the index and the file's "
                              "size)") from None
        if end != len(stored):
            raise RecordError(f"{self.path}: record {self.keys[position]} at byte {start} ends at byte {start + end}; by the "
                              f"index the next one begins at byte {stop}: the index is of another file")
        return _joined(stored, parts)

    def read(self, position, stored=None):
        """The `Record` with this number in the file. Raises: RecordError as `payload`."""
        return unpack_record(self.payload(position, stored), self.path, int(self.offsets[position]))

    def read_labels(self, position):
        """A record's labels, (L,) float32, without reading its image."""
        start, stop = int(self.offsets[position]), int(self.ends[position])
        head = self.stored(start, min(stop, start + 4096))
        magic, word = _PART.unpack_from(head) if len(head) >= _PART.size else (0, 0)
        flag = _HEADER.unpack_from(head, _PART.size)[0] if len(head) >= _PART.size + _HEADER.size else 1 << 30
        if magic != MAGIC or word >> 29 != _WHOLE or _PART.size + _HEADER.size + 4 * flag > len(head):
            return self.read(position).labels
        return unpack_record(head[_PART.size:], self.path, start).labels
