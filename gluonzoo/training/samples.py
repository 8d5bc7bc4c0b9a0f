"""A log of which samples went into which update: files that always show the final history, and their reader.

One file a worker, ``worker-RANK.jsonl``; a line an update:

    {"update": 12, "epoch": 0, "step": 12, "samples": [17, 4, ...]}

`update` and `epoch` count from 0, `step` is the number within the epoch. A run that is resumed cuts the lines of the updates
that it makes again, in the files of workers that are no longer there too. A kill in mid-line leaves half a line, which is cut
likewise. An update that ``--on-nan skip`` left out has ``"left_out": true``.
"""
import json
import os
import re
from collections import namedtuple

from ..errors import UserError

__all__ = ["SampleLog", "Update", "read"]

_FILE = re.compile(r"worker-(\d+)\.jsonl")

Update = namedtuple("Update", ["epoch", "step", "samples", "left_out"])
Update.__doc__ = """One update of all workers.

epoch, step: its epoch and its number in it, from 0. samples: list of ints, joined in the order of ranks. left_out: bool.
"""


def _files(folder):
    """{rank: path} of the log's files."""
    found = ((_FILE.fullmatch(name), name) for name in os.listdir(folder))
    return {int(match.group(1)): os.path.join(folder, name) for match, name in found if match}


def _cut(path, update):
    """Drop the lines of an update and all later ones, and whatever follows the first line that is not whole."""
    keep = 0
    with open(path, "rb+") as file:
        for line in file:
            try:
                if not line.endswith(b"\n") or json.loads(line)["update"] >= update:
                    break
            except (ValueError, KeyError, TypeError):
                break
            keep += len(line)
        file.truncate(keep)


class SampleLog:
    """One worker's file of the log.

    Args: folder: made when it is not there; rank: whose file; update: the next update's number, where the run stands;
        workers: how many there are. Rank 0 cuts the files of the workers beyond them.
    """

    def __init__(self, folder, rank, update, workers):
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"worker-{rank}.jsonl")
        self._file = open(path, "ab")
        _cut(path, update)
        if rank == 0:
            for other, place in _files(folder).items():
                if other >= workers:
                    _cut(place, update)

    def write(self, update, epoch, step, samples, left_out=False):
        """Add a line."""
        line = {"update": update, "epoch": epoch, "step": step, "samples": [int(sample) for sample in samples]}
        self._file.write(json.dumps({**line, "left_out": True} if left_out else line).encode() + b"\n")
        # Given to the system at once: a killed process must not take along lines of updates that a checkpoint holds.
        self._file.flush()

    def close(self):
        """Close the file."""
        self._file.close()


def read(folder):
    """The history that a run's sample log shows.

    Returns: {update: `Update`}, in the order of updates.
    Raises: UserError when the folder holds no log, or a line is broken or contradicts another worker's.
    """
    try:
        files = _files(folder)
    except OSError as error:
        raise UserError(f"sample log {folder}: {error.strerror}") from None
    if not files:
        raise UserError(f"sample log {folder}: no file is called worker-N.jsonl")
    updates = {}
    for rank in sorted(files):
        with open(files[rank], encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                where = f"sample log {files[rank]}, line {number}"
                try:
                    entry = json.loads(line)
                    place = Update(entry["epoch"], entry["step"], [], entry.get("left_out", False))
                    update, samples = entry["update"], entry["samples"]
                except (ValueError, KeyError, TypeError):
                    raise UserError(f"{where} is not an update's: {line[:80]!r}") from None
                known = updates.setdefault(update, place)
                if known[:2] != place[:2]:
                    raise UserError(f"{where} has update {update} at epoch {place.epoch}, step {place.step}; another worker "
                                    f"has it at epoch {known.epoch}, step {known.step}")
                known.samples.extend(samples)
    return dict(sorted(updates.items()))
