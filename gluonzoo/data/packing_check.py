"""Whether packed files are what their manifest says, and whole."""
import json
import os

from ..errors import UserError
from . import images
from .packing import ENDINGS, FORMAT, _digest
from .records import RecordError, RecordFile, read_list

__all__ = ["verify"]


def _manifest(prefix):
    path = prefix + ".json"
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}, expected {FORMAT!r}")
        return {name: (facts["bytes"], facts["sha256"]) for name, facts in found["files"].items()}, len(found["classes"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read as a manifest of tools/pack.py: {error}") from None


def verify(prefix, decode=False, tick=lambda records: None):
    """Check PREFIX.rec, .idx and .lst: digests where there is a manifest, then every record against index and list.

    Args: prefix: without ending, or the .rec file. decode: decode every image too. tick: called for every record.
    Returns: (records, whether there was a manifest).
    Raises: UserError for the first thing that is wrong, with file and byte.
    """
    prefix = prefix[:-len(".rec")] if prefix.endswith(".rec") else prefix
    folder, known, classes = os.path.dirname(os.path.abspath(prefix)), os.path.exists(prefix + ".json"), 0
    if known:
        files, classes = _manifest(prefix)
        for name, (size, digest) in files.items():
            path = os.path.join(folder, name)
            if not os.path.isfile(path):
                raise UserError(f"{path}: does not exist; the manifest {prefix}.json has it")
            if os.path.getsize(path) != size:
                raise UserError(f"{path}: expected {size} bytes by the manifest, found {os.path.getsize(path)}")
            found = _digest(path)
            if found != digest:
                raise UserError(f"{path}: expected SHA-256 {digest} by the manifest, found {found}: it was changed or is damaged")
    file, listed = RecordFile(prefix + ".rec"), None
    if os.path.exists(prefix + ENDINGS[2]):
        keys, labels, _ = read_list(prefix + ENDINGS[2])
        listed = dict(zip(keys, labels))
    for position in range(len(file)):
        record, key, offset = file.read(position), int(file.keys[position]), int(file.offsets[position])
        where = f"{file.path}: record {key} at byte {offset}"
        found = tuple(record.labels.tolist())
        # Text of six decimals in the list, float32 in the record.
        if listed is not None and key in listed and not (len(found) == len(listed[key]) and all(
                abs(a - b) <= 1e-6 + 1e-6 * abs(b) for a, b in zip(found, listed[key]))):
            raise RecordError(f"{where}: expected labels {listed[key]} as in the list, found {found}")
        if classes and not 0 <= found[0] < classes:
            raise RecordError(f"{where}: expected a label from 0 to {classes - 1}, found {found[0]:g}")
        if decode:
            images.decode(record.data, where)
        tick(1)
    return len(file), known
