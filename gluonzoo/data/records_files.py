"""Files read at any place by several threads, and the texts beside a record file: its index and its list of images."""
import os

import numpy as np

from ..errors import UserError

__all__ = ["RecordError", "Bytes", "read_index", "read_list", "wrong"]


class RecordError(UserError):
    """A record file that is damaged, cut short, or does not fit its index. The message has the file and the offset."""


def wrong(path, offset, expected, found):
    """A `RecordError` about a place in a file."""
    return RecordError(f"{path}: at byte {offset}: expected {expected}, found {found}")


class Bytes:
    """A file that several threads may read at once. Attributes: path; size: in bytes.

    Raises: RecordError when it cannot be read.
    """

    def __init__(self, path):
        self._descriptor, self.path = None, str(path)
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise RecordError(f"{self.path}: cannot be read: {error.strerror}") from None
        self.size = os.fstat(self._descriptor).st_size

    def stored(self, start, stop):
        """The file's bytes from start to stop. Raises: RecordError when it has become shorter."""
        pieces, at = [], start
        while at < stop:
            try:
                piece = os.pread(self._descriptor, stop - at, at)  # Linux gives at most 2 GB at once.
            except OSError as error:
                raise RecordError(f"{self.path}: at byte {at}: cannot be read: {error.strerror}") from None
            if not piece:
                raise wrong(self.path, at, f"{stop - at} more bytes", "the end of the file: it is cut short")
            pieces.append(piece)
            at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self):
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self):
        self.close()


def _lines(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from None


def read_index(path):
    """Keys and offsets of a .idx file.

    Shape: -> (N,) int64, (N,) int64.
    Raises: RecordError naming the line that is not "key<TAB>offset".
    """
    text = _lines(path)
    words = text.split()
    if len(words) != 2 * (text.count(b"\n") + (not text.endswith(b"\n") and bool(text))) or not all(map(bytes.isdigit, words)):
        for number, line in enumerate(text.splitlines(), start=1):
            if len(line.split()) != 2 or not all(map(bytes.isdigit, line.split())):
                raise RecordError(f"{path}: line {number}: expected a key and an offset, found {line[:60]!r}")
    table = np.array([int(word) for word in words], dtype=np.int64).reshape(-1, 2)
    return table[:, 0].copy(), table[:, 1].copy()


def read_list(path):
    """The lines of a .lst file: (keys, labels, paths); labels are tuples of floats, at least one each.

    Raises: RecordError naming the line that is not "key<TAB>label[<TAB>label ...]<TAB>path".
    """
    keys, labels, paths = [], [], []
    for number, line in enumerate(_lines(path).split(b"\n"), start=1):
        line = line.rstrip(b"\r")
        if not line.strip():
            continue
        fields = line.split(b"\t")
        try:
            if len(fields) < 3 or not fields[-1]:
                raise ValueError
            keys.append(int(fields[0]))
            labels.append(tuple(float(word) for word in fields[1:-1]))
            paths.append(os.fsdecode(fields[-1]))
        except ValueError:
            raise RecordError(f"{path}: line {number}: expected a key, labels and a path with tabs between, "
                              f"found {line[:80]!r}") from None
    return keys, labels, paths
