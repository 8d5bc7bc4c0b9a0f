"""A packing process: python -m gluonzoo.data.packing_worker, started by `gluonzoo.data.packing`.

Reads a JSON object a line: first what is the same for all chunks, then a chunk at a time; answers each chunk with a line. Ends at
the end of its input, so also when whoever started it was killed.
"""
import hashlib
import io
import json
import os
import signal
import sys

from ..errors import UserError
from . import images
from .records import RecordError, frame, pack_record
from .records_files import Bytes

__all__ = ["make_record", "chunk_files", "main"]

#: Kinds of image files that MXNet and every other reader of such records decode, by their first bytes.
_KEPT = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")


def chunk_files(folder, number):
    """Paths of a chunk's records and of what is known about them."""
    return os.path.join(folder, f"{number:07d}.rec"), os.path.join(folder, f"{number:07d}.json")


def make_record(data, name, options):
    """The image file's bytes that go into the record: those given, or made anew where the options or the kind ask for it.

    Args: data: an image file's bytes. options: {"resize": length of the shorter side or None, "quality": of JPEG, 1 to 100,
        "encoding": "keep", "jpg" or "png"}; quality 0: keep.
    Raises: UserError when the image cannot be decoded.
    """
    # Decoded in any case: a file that looks whole may be damaged within.
    pixels = images.decode(data, name, decoder="pillow")
    shorter = min(pixels.shape[:2])
    resized = options["resize"] is not None and shorter != options["resize"]
    if options["encoding"] == "keep" and not resized and data.startswith(_KEPT):
        return data
    from PIL import Image
    picture = Image.fromarray(pixels)
    if resized:
        scale = options["resize"] / shorter
        size = [max(1, round(side * scale)) for side in picture.size]
        # Lanczos when shrinking, as its filter widens; bicubic does not ring on pixels drawn large.
        picture = picture.resize(size, Image.LANCZOS if scale < 1 else Image.BICUBIC)
    made = io.BytesIO()
    # What is kept apart from resizing stays lossless unless it was lossy before.
    png = options["encoding"] == "png" or options["encoding"] == "keep" and not data.startswith(_KEPT[0])
    if png:
        picture.save(made, "PNG")
    else:
        picture.save(made, "JPEG", quality=options["quality"])
    return made.getvalue()


class _Source:
    """Bytes of the entries of a listing."""

    def __init__(self, root):
        self._root = root
        self._tar = Bytes(root) if os.path.isfile(root) else None

    def read(self, path, offset, size):
        if self._tar is not None:
            return self._tar.stored(offset, offset + size)
        try:
            with open(os.path.join(self._root, path), "rb") as file:
                return file.read()
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _write(path, data):
    made = f"{path}.{os.getpid()}"
    with open(made, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(made, path)


def pack_chunk(folder, number, entries, source, options, goes_on=lambda: True):
    """Write a chunk's records and, after them, what is known about them."""
    made, placed, broken, at = [], [], [], 0
    for key, labels, path, offset, size in entries:
        if not goes_on():
            return
        try:
            data = source.read(path, offset, size)
            framed = frame(pack_record(key, labels, make_record(data, path, options)))
        except UserError as error:
            broken.append([path, " ".join(str(error).split())])
            continue
        made.append(framed)
        placed.append([key, at, labels, path])
        at += len(framed)
    if not goes_on():
        return
    data = b"".join(made)
    records, facts = chunk_files(folder, number)
    _write(records, data)
    _write(facts, json.dumps({"size": at, "sha256": hashlib.sha256(data).hexdigest(), "records": placed,
                              "broken": broken}).encode())


def main():
    # Ctrl-C reaches all processes of a terminal; the one that started us decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    setup = json.loads(sys.stdin.readline())
    try:
        source = _Source(setup["root"])
        for line in sys.stdin:
            task = json.loads(line)
            pack_chunk(setup["folder"], task["chunk"], task["entries"], source, setup["options"],
                       lambda: os.getppid() == parent)
            print(json.dumps({"chunk": task["chunk"]}), flush=True)
    except (OSError, RecordError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
