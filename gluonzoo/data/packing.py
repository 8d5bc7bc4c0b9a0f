"""Packing images into a record file (.rec, .idx, .lst) with several processes, so that a pack interrupted at any moment goes on.

The list of images is cut into chunks. Processes write a file for each chunk and, after it, what is known of it; this process
appends the chunks in their order. Everything unfinished lies in PREFIX.packing; what is whole there is found by its SHA-256, so
the files in the end are the same, to the bit, however often the work was interrupted and however many processes did it. The
finished files are renamed to their places, the manifest PREFIX.json last.
"""
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import namedtuple

from ..errors import UserError
from .packing_worker import chunk_files

try:
    import fcntl
except ImportError:  # Windows has none; there two packs of the same files at once are not noticed.
    fcntl = None

__all__ = ["Packed", "OPTIONS", "ENDINGS", "pack"]

#: Images of a chunk. Part of the format of PREFIX.packing, not of what is made.
CHUNK = 256
FORMAT = "gluonzoo records 1"
#: In the order in which they come to their places.
ENDINGS = (".rec", ".idx", ".lst", ".broken.txt", ".json")
OPTIONS = {"resize": None, "quality": 95, "encoding": "keep"}

Packed = namedtuple("Packed", ["images", "broken", "size", "new"])
Packed.__doc__ = """images: in the file; broken: left out; size: of the .rec file in bytes; new: False: it was there already."""


class _Workers:
    """Packing processes: `pack` chunks in any order, ended whole by `close`."""

    def __init__(self, count, setup, chunks, ready, window):
        self._chunks, self._ready, self._window = chunks, ready, window
        self._waiting, self.error = sorted(set(range(len(chunks))) - ready), None
        self.changed, self.appended, self._closed = threading.Condition(), 0, False
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        environment = {**os.environ, "GLUONZOO_LIGHT_SERVER": "1", "OMP_NUM_THREADS": "1",
                       "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
        self._processes, self._threads, self._said = [], [], []
        for _ in range(min(count, len(self._waiting))):
            # A pipe that nobody empties would stop a process that warns a lot.
            self._said.append(tempfile.TemporaryFile())
            process = subprocess.Popen([sys.executable, "-m", "gluonzoo.data.packing_worker"], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=self._said[-1], env=environment)
            self._processes.append(process)
            self._threads.append(threading.Thread(target=self._serve, args=(process, setup), daemon=True))
        for thread in self._threads:
            thread.start()

    def _next(self):
        """The next chunk to pack, or None when there is none. Waits while the appending is far behind."""
        with self.changed:
            while not self._closed and self._waiting and self._waiting[0] >= self.appended + self._window:
                self.changed.wait()
            return None if self._closed or not self._waiting else self._waiting.pop(0)

    def _serve(self, process, setup):
        chunk = None
        try:
            process.stdin.write(json.dumps(setup).encode() + b"\n")
            chunk = self._next()
            while chunk is not None:
                process.stdin.write(json.dumps({"chunk": chunk, "entries": self._chunks[chunk]}).encode() + b"\n")
                process.stdin.flush()
                answer = json.loads(process.stdout.readline() or b"{}")
                if answer.get("chunk") != chunk:
                    raise UserError(answer.get("error") or self._ending(process, chunk))
                with self.changed:
                    self._ready.add(chunk)
                    self.changed.notify_all()
                chunk = self._next()
        except Exception as error:
            with self.changed:
                if isinstance(error, OSError):  # A broken pipe: the process has ended.
                    error = UserError(self._ending(process, chunk))
                self.error = self.error or error
                self.changed.notify_all()

    def _ending(self, process, chunk):
        process.wait()
        with self.changed:
            file = self._said[self._processes.index(process)]
            file.seek(0)
            said = file.read().decode(errors="replace").strip().splitlines()
        where = f" at the images from {self._chunks[chunk][0][2]} on" if chunk is not None else ""
        return (f"a packing process ended with exit code {process.returncode}{where}{': ' + said[-1] if said else ''}; "
                "the same command goes on where it was")

    def wait_for(self, chunk):
        """Wait until a chunk is packed. Raises: UserError when it cannot be."""
        with self.changed:
            self.appended = chunk
            self.changed.notify_all()
            while chunk not in self._ready:
                if self.error is not None:
                    raise self.error
                self.changed.wait()

    def close(self):
        with self.changed:
            self._closed = True
            self.changed.notify_all()
        for process in self._processes:
            process.kill()
        for process, thread, said in zip(self._processes, self._threads, self._said):
            thread.join()
            process.wait()
            for stream in (process.stdin, process.stdout, said):
                with contextlib.suppress(OSError):
                    stream.close()


def _write(path, text):
    made = f"{path}.new"
    with open(made, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(made, path)


def _read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def _digest(path, start=0, size=None):
    """SHA-256 of a part of a file, or None when it has no such part."""
    digest, left = hashlib.sha256(), os.path.getsize(path) - start if size is None else size
    with open(path, "rb") as file:
        file.seek(start)
        while left > 0:
            block = file.read(min(left, 1 << 20))
            if not block:
                return None
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _plan(listing, options):
    entries = json.dumps([listing.classes, listing.entries]).encode()
    return {"format": FORMAT, "options": options, "list": hashlib.sha256(entries).hexdigest()}


def _there(prefix, plan, overwrite):
    """What is at the prefix already: the `Packed` when it is this very pack, None when there is nothing.

    Raises: UserError when there is something else.
    """
    present = [prefix + ending for ending in ENDINGS if os.path.exists(prefix + ending)]
    manifest = _read_json(prefix + ".json")
    if isinstance(manifest, dict) and all(manifest.get(key) == value for key, value in plan.items()):
        sizes = {name: facts["bytes"] for name, facts in manifest["files"].items()}
        folder = os.path.dirname(prefix)
        if all(os.path.isfile(os.path.join(folder, name)) and os.path.getsize(os.path.join(folder, name)) == size
               for name, size in sizes.items()):
            return Packed(manifest["images"], manifest["broken"], sizes[os.path.basename(prefix) + ".rec"], False)
    if present and not overwrite:
        raise UserError(f"{', '.join(present)}: exists and is not what this command makes; give another -o PREFIX, or "
                        "--overwrite to replace it when the new one is whole")
    return None


@contextlib.contextmanager
def _work_folder(prefix, plan):
    """PREFIX.packing, held by this process alone. Raises: UserError when it is of another pack or in use."""
    folder = prefix + ".packing"
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "a") as lock:
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is packing here") from None
        before = _read_json(os.path.join(folder, "plan.json"))
        if before is None:
            _write(os.path.join(folder, "plan.json"), json.dumps(plan))
        elif before != plan:
            what = "list of images" if before.get("options") == plan["options"] else "options"
            raise UserError(f"{folder} holds an unfinished pack with another {what}; finish it with the command that began it, "
                            "or remove the folder")
        yield folder
        shutil.rmtree(folder)


def _facts(folder, number):
    """What is known about a chunk, or None."""
    found = _read_json(chunk_files(folder, number)[1])
    return found if isinstance(found, dict) and "sha256" in found else None


def _whole_so_far(folder, target, count):
    """(chunks appended, bytes of them) of an interrupted pack; what follows in the file is cut off."""
    number = at = 0
    if os.path.exists(target):
        while number < count:
            facts = _facts(folder, number)
            if facts is None or _digest(target, at, facts["size"]) != facts["sha256"]:
                break
            number, at = number + 1, at + facts["size"]
        with open(target, "rb+") as file:
            file.truncate(at)
    return number, at


def _ready(folder, number):
    facts, path = _facts(folder, number), chunk_files(folder, number)[0]
    return facts is not None and os.path.exists(path) and os.path.getsize(path) == facts["size"] and (
        _digest(path) == facts["sha256"])


def _append(folder, target, chunks, setup, processes, tick):
    """Have the chunks packed and append them in their order."""
    done, _ = _whole_so_far(folder, target, len(chunks))
    tick(sum(map(len, chunks[:done])))
    ready = set(range(done)) | {number for number in range(done, len(chunks)) if _ready(folder, number)}
    workers = _Workers(processes, setup, chunks, ready, window=4 * processes + 4)
    try:
        with open(target, "ab") as file:
            for number in range(done, len(chunks)):
                workers.wait_for(number)
                path = chunk_files(folder, number)[0]
                with open(path, "rb") as chunk:
                    shutil.copyfileobj(chunk, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
                os.unlink(path)
                tick(len(chunks[number]))
    finally:
        workers.close()


def _finish(folder, prefix, listing, plan, count):
    """Write the index, the list and the manifest, and then that all is there."""
    name, index, lines, broken, at = os.path.basename(prefix), [], [], [], 0
    for number in range(count):
        facts = _facts(folder, number)
        for key, offset, labels, path in facts["records"]:
            index.append(f"{key}\t{at + offset}\n")
            lines.append("\t".join([str(key), *(f"{label:.6f}" for label in labels), path]) + "\n")
        broken += ["\t".join(pair) + "\n" for pair in facts["broken"]]
        at += facts["size"]
    if not index:
        raise UserError(f"none of {len(broken)} images can be read; the first: {broken[0].strip()}" if broken else "no image")
    for ending, rows in ((".idx", index), (".lst", lines), (".broken.txt", broken)):
        if rows or ending != ".broken.txt":
            _write(os.path.join(folder, ending), "".join(rows))
    files = {name + ending: {"bytes": os.path.getsize(os.path.join(folder, ending)),
                             "sha256": _digest(os.path.join(folder, ending))}
             for ending in ENDINGS[:-1] if os.path.exists(os.path.join(folder, ending))}
    manifest = {**plan, "images": len(index), "broken": len(broken), "classes": listing.classes, "files": files}
    _write(os.path.join(folder, ".json"), json.dumps(manifest, indent=1) + "\n")
    _write(os.path.join(folder, "finished"), "")


def _move(folder, prefix):
    """Rename the finished files to their places, the manifest last."""
    for ending in ENDINGS:
        made = os.path.join(folder, ending)
        if os.path.exists(made):
            os.replace(made, prefix + ending)
        elif ending == ".broken.txt" and os.path.exists(os.path.join(folder, ".json")):
            with contextlib.suppress(FileNotFoundError):  # Of an older pack that is being replaced.
                os.unlink(prefix + ending)


def pack(listing, prefix, options=None, processes=1, overwrite=False, tick=lambda images: None):
    """Pack the images of a listing into PREFIX.rec, .idx, .lst and .json, and list broken ones in PREFIX.broken.txt.

    Args: listing: a `packing_list.Listing`. options: as of `packing_worker.make_record`, over `OPTIONS`. tick: called with the
        number of images done since the last call.
    Returns: `Packed`. The same call again changes nothing; after an interruption it goes on.
    Raises: UserError when something else is there, another process packs to the same place, or no image can be read.
    """
    options = {**OPTIONS, **(options or {})}
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise UserError("packing needs Pillow, which is not installed: pip install -e '.[data]'") from None
    prefix = os.path.abspath(prefix)
    plan = _plan(listing, options)
    try:
        os.makedirs(os.path.dirname(prefix), exist_ok=True)
    except OSError as error:
        raise UserError(f"-o {prefix}: the folder cannot be made: {error.strerror}") from None
    work = os.path.join(prefix + ".packing", "finished")
    if not os.path.exists(work):
        found = _there(prefix, plan, overwrite)
        if found is not None:
            # What a kill left of the folder while it was removed.
            if _read_json(os.path.join(prefix + ".packing", "plan.json")) in (None, plan):
                shutil.rmtree(prefix + ".packing", ignore_errors=True)
            return found
    chunks = [[list(entry) for entry in listing.entries[at:at + CHUNK]] for at in range(0, len(listing.entries), CHUNK)]
    with _work_folder(prefix, plan) as folder:
        if not os.path.exists(work):
            setup = {"root": listing.root, "folder": folder, "options": options}
            _append(folder, os.path.join(folder, ".rec"), chunks, setup, processes, tick)
            _finish(folder, prefix, listing, plan, len(chunks))
        _move(folder, prefix)
    return _there(prefix, plan, overwrite=True)._replace(new=True)
