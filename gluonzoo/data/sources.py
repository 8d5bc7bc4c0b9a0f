"""Folders, zip and tar files behind one small interface: what is in it, and the bytes of a file.

Nothing is ever unpacked on disk, and no file is changed.
"""
import gzip
import os
import posixpath
import tarfile
import threading
import zipfile
import zlib

from ..errors import UserError

__all__ = ["Folder", "Zip", "read_tar", "open_source"]


def _visible(name):
    return not name.startswith(".") and name != "__MACOSX"


class Folder:
    """Files below a folder, by their path relative to it."""

    def __init__(self, path):
        self.path = str(path)

    def label(self, name):
        """How a file is called in a message."""
        return os.path.join(self.path, *name.split("/"))

    def children(self, name=""):
        """Sorted names of (folders, files) directly in a folder; hidden ones are left out."""
        folders, files = [], []
        path = self.label(name) if name else self.path
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if _visible(entry.name):
                        (folders if entry.is_dir() else files).append(entry.name)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        return sorted(folders), sorted(files)

    def find(self, names):
        """The first of these file names that is directly in the folder, or None."""
        return next((name for name in names if os.path.isfile(self.label(name))), None)

    def read(self, name):
        """The bytes of a file. Raises: UserError when it cannot be read."""
        try:
            with open(self.label(name), "rb") as file:
                return file.read()
        except OSError as error:
            raise UserError(f"{self.label(name)}: cannot be read: {error.strerror}") from error


class Zip:
    """Files in a zip file, by their path in it."""

    def __init__(self, path):
        self.path = str(path)
        # Python's zipfile loses its place when several threads read at once (bpo-42369, seen on 3.8).
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(self.path)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror}") from error
        except zipfile.BadZipFile as error:
            raise UserError(f"{self.path}: expected a zip file, found one that is damaged or of another kind "
                            f"({str(error)[:80]}; {os.path.getsize(self.path)} bytes)") from error
        self._tree = {"": (set(), set())}
        for name in self._zip.namelist():
            parts = name.split("/")
            if not all(_visible(part) for part in parts):
                continue
            for depth in range(len(parts)):
                folders, files = self._tree.setdefault("/".join(parts[:depth]), (set(), set()))
                if depth < len(parts) - 1:
                    folders.add(parts[depth])
                elif parts[depth]:  # The entry of a folder ends in a slash.
                    files.add(parts[depth])

    def label(self, name):
        """How a file is called in a message."""
        return f"{self.path}:{name}"

    def children(self, name=""):
        """Sorted names of (folders, files) directly in a folder; hidden ones are left out."""
        folders, files = self._tree.get(name, ((), ()))
        return sorted(folders), sorted(files)

    def find(self, names):
        """The path of the first of these file names that is anywhere in the zip file, or None."""
        for wanted in names:
            for folder in sorted(self._tree, key=lambda path: (path.count("/"), path)):
                if wanted in self._tree[folder][1]:
                    return posixpath.join(folder, wanted)
        return None

    def read(self, name):
        """The bytes of a file. Raises: UserError when its checksum is wrong or it is cut short."""
        try:
            with self._lock:
                return self._zip.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise UserError(f"{self.label(name)}: cannot be read from the zip file: {str(error)[:120]}") from error


def read_tar(path, names):
    """Files of a tar file (gzip or not) by their names without folders: {name: bytes}, read in one pass.

    Raises: UserError when the tar file is damaged or a file is missing in it.
    """
    found = {}
    try:
        with open(path, "rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            stream = gzip.GzipFile(fileobj=file) if packed else file
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    name = posixpath.basename(member.name)
                    if member.isfile() and name in names and name not in found:
                        found[name] = tar.extractfile(member).read()
            while stream.read(1 << 20):  # tarfile stops quietly at damage; gzip's checksum, at the end, does not.
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}: expected a whole tar file, found one that is damaged or cut short at "
                        f"{os.path.getsize(path)} bytes ({error})") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{path}: expected {', '.join(missing)} in it, found none of that name")
    return found


def open_source(path):
    """A `Folder` or `Zip` for a path that exists."""
    return Folder(path) if os.path.isdir(path) else Zip(path)
