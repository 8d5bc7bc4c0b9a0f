"""Reading ahead in a record file: a group of blocks at a time, from front to back, by a thread of its own."""
import threading

import numpy as np

from .records import RecordError

__all__ = ["ReadAhead"]

#: Records with at most so many bytes between them are read together: passing over them costs less than another seek.
GAP = 1 << 17
#: Bytes of one read.
PIECE = 8 << 20


def _bounded(file, groups, most):
    """Groups of at most so many bytes, in the same order: larger ones in pieces (but never less than a record)."""
    for group in groups:
        sizes = np.cumsum(file.ends[group] - file.offsets[group])
        cuts = np.searchsorted(sizes, np.arange(most, sizes[-1], most), side="right")
        yield from (part for part in np.split(group, np.unique(cuts)) if len(part))


class ReadAhead:
    """A worker's records of an epoch, read before they are asked for; a context manager.

    Each group's records are read in the order of the file, so that a disk's head moves forward; another worker's records are
    passed over where there are many between. The group after the one that is being used is read meanwhile; so two groups of
    this worker's records are in memory at most, and what was used is dropped.

    Args: file: a `RecordFile`; groups: arrays of record numbers, as of `ShardedBatches.groups`. most: bytes of one group; a
        larger one is taken for several.
    """

    def __init__(self, file, groups, most=256 << 20):
        self._file, self._groups = file, list(_bounded(file, groups, most))
        self._group_of = np.full(len(file.offsets), -1, dtype=np.int64)
        for number, group in enumerate(self._groups):
            self._group_of[group] = number
        self._held, self._done, self._asked = {}, -1, 0
        self._error, self._closed = None, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="gluonzoo-loader-read-ahead", daemon=True)
        self._thread.start()

    def _run(self):
        try:
            for number, group in enumerate(self._groups):
                with self._changed:
                    while not self._closed and number > self._asked + 1:
                        self._changed.wait()
                for first, last, members in self._pieces(np.sort(group)):
                    if self._closed:
                        return
                    stored = self._file.stored(first, last)
                    found = {member: stored[start - first:stop - first] for member, start, stop in members}
                    with self._changed:
                        self._held.update(found)
                        self._changed.notify_all()
                with self._changed:
                    self._done = number
                    self._changed.notify_all()
        except BaseException as error:  # Raised again where a record is asked for.
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _pieces(self, numbers):
        """(first byte, last byte, [(number, its first byte, its last)]) of reads for records in the order of the file."""
        starts, ends = self._file.offsets[numbers].tolist(), self._file.ends[numbers].tolist()
        members = []
        for number, start, end in zip(numbers.tolist(), starts, ends):
            if members and (start - members[-1][2] > GAP or end - members[0][1] > PIECE):
                yield members[0][1], members[-1][2], members
                members = []
            members.append((number, start, end))
        if members:
            yield members[0][1], members[-1][2], members

    def stored(self, number):
        """A record's bytes in the file, as soon as they have been read. A record is held until it is asked for once."""
        group = int(self._group_of[number])
        if group >= 0:
            with self._changed:
                if group > self._asked:
                    self._asked = group
                    self._changed.notify_all()
                self._changed.wait_for(lambda: number in self._held or self._done >= group or self._error or self._closed)
                if number in self._held:
                    return self._held.pop(number)
                if self._error is not None:
                    raise RecordError(str(self._error)) from self._error
        # Not in this worker's part of the epoch, or asked for before: an image that is mixed into another.
        return self._file.stored(int(self._file.offsets[number]), int(self._file.ends[number]))

    def close(self):
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._held.clear()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
