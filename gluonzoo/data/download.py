"""Downloads that end as the right file or not at all, with one download for all processes of a machine."""
import contextlib
import hashlib
import os
import re
import sys
import time
import urllib.parse
import zlib

from ..errors import UserError

try:
    import fcntl
except ImportError:  # Windows has none; there every process downloads for itself.
    fcntl = None

__all__ = ["fetch", "locked"]

TRIES = 3
#: Seconds before the second try; doubled for each further one.
BACKOFF = 1.0
#: Seconds for a connection to stand, and for the next bytes to come.
TIMEOUT = (6.0, 30.0)
_BLOCK = 1 << 16


class _Failed(Exception):
    """One try that failed; `final` when another try at the same address is pointless."""

    def __init__(self, reason, final=False):
        super().__init__(reason)
        self.final = final


def _shown(url):
    """An address without user name and password."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _lock(handle, folder):
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another process that downloads to {folder}", file=sys.stderr)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        pass  # A file system without locks: the worst is that two processes download the same file.


@contextlib.contextmanager
def locked(folder):
    """Make a folder and hold its lock: one process at a time is inside. The lock goes with the process, however it
    ends. Where the platform has no fcntl, it is not held. What was made and is empty in the end is removed.
    """
    while True:
        made, parent = [], os.path.abspath(folder)
        while not os.path.isdir(parent):
            made.append(parent)
            parent = os.path.dirname(parent)
        os.makedirs(folder, exist_ok=True)
        if fcntl is None:
            handle = None
            break
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # Removed in this moment by a process whose download failed.
            continue
        _lock(handle, folder)
        # The process before us may have removed the folder that we waited for.
        if os.path.isdir(folder) and os.path.samestat(os.fstat(handle), os.stat(folder)):
            break
        os.close(handle)
    try:
        yield
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                os.rmdir(path)
        if handle is not None:
            os.close(handle)


def _plain_digest(path):
    """SHA-256 of what a gzip file unpacks to, or None when it is not whole."""
    import gzip
    digest = hashlib.sha256()
    try:
        with gzip.open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except (OSError, EOFError, zlib.error):
        return None
    return digest.hexdigest()


def _receive(url, part, resource):
    """Write what an address sends to the file `part`; its SHA-256 and size. Raises: _Failed, OSError."""
    import requests
    from tqdm import tqdm
    from urllib3.exceptions import HTTPError
    digest, size, promised = hashlib.sha256(), 0, None
    most = 2 * resource.size + (1 << 20)  # A server that never stops must not fill the disk.
    try:
        with requests.get(url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}) as response:
            if response.status_code != 200:
                raise _Failed(f"the server answered {response.status_code} {response.reason}",
                              final=400 <= response.status_code < 500 and response.status_code not in (408, 425, 429))
            promised = response.headers.get("Content-Length", "")
            promised = int(promised) if promised.isdigit() else None
            # Said only now, so that a data set that cannot be had at all is one line, the error.
            print(f"downloading {resource.file} ({resource.size / 1e6:.1f} MB) to {os.path.dirname(part)}", file=sys.stderr)
            bar = tqdm(total=promised, desc=resource.file, unit="B", unit_scale=True, disable=None, leave=False)
            with open(part, "wb") as file, bar:
                for block in iter(lambda: response.raw.read(_BLOCK), b""):
                    file.write(block)
                    digest.update(block)
                    size += len(block)
                    bar.update(len(block))
                    if size > most:
                        raise _Failed(f"expected {resource.size} bytes, found more than {most}", final=True)
                file.flush()
                os.fsync(file.fileno())
    except (requests.RequestException, HTTPError) as error:
        if not size:
            raise _Failed(_reason(error)) from error
    if promised is not None and size != promised:
        raise _Failed(f"cut short: expected {promised} bytes, found {size}")
    return digest.hexdigest(), size


def _reason(error):
    """The innermost words of a nested network error, in one line."""
    while isinstance(getattr(error, "reason", None) or (error.args[:1] or [None])[0], BaseException):
        error = getattr(error, "reason", None) or error.args[0]
    # The messages of urllib3 begin with the connection's representation.
    text = re.sub(r"^<?[\w.]*Connection\w*(\(.*?\)| object at \w+)>?: ", "", " ".join(str(error).split()))
    return text[:160] or type(error).__name__


def _try_once(url, part, resource):
    found, size = _receive(url, part, resource)
    if found == resource.sha256:
        return
    # Mirrors sometimes compress the files anew; then what is in them decides.
    if resource.plain and _plain_digest(part) == resource.plain:
        return
    raise _Failed(f"corrupted: expected SHA-256 {resource.sha256} ({resource.size} bytes), "
                  f"found {found} ({size} bytes)")


def _try_all(urls, part, resource):
    """Try the addresses in turn, `TRIES` times; the reasons of the last round, by address, or None on success."""
    reasons = {}
    hopeless = set()
    for attempt in range(TRIES):
        for url in urls:
            if url in hopeless:
                continue
            try:
                _try_once(url, part, resource)
                return None
            except _Failed as failure:
                reasons[url] = str(failure)
                if failure.final:
                    hopeless.add(url)
        if len(hopeless) == len(urls):
            break
        if attempt < TRIES - 1:
            time.sleep(BACKOFF * 2 ** attempt)
    return reasons


def fetch(resource, folder, urls):
    """Download a published file into a folder, unless it is there; its path.

    It is written beside as `.part` and renamed only when its SHA-256 is right, so that a wrong or half file never has
    the final name. Tries every address up to three times. Several processes may call at once: one downloads, the others
    wait for it.

    Args: resource: `catalog.Resource`; folder: made when absent; urls: full addresses, tried in this order.
    Raises: UserError when no address gave the right file (it names the file and each address with what was expected and
        found), or when the folder cannot be written.
    """
    path = os.path.join(folder, resource.file)
    part = f"{path}.part" if fcntl else f"{path}.part-{os.getpid()}"
    try:
        with locked(folder):
            if os.path.isfile(path):
                return path
            try:
                reasons = _try_all(urls, part, resource)
                if reasons is None:
                    os.replace(part, path)
                    return path
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(part)
    except OSError as error:
        raise UserError(f"{folder}: cannot hold the download of {resource.file}: {error.strerror or error}") from error
    raise UserError(f"{resource.file} could not be downloaded: "
                    + "; ".join(f"{_shown(url)}: {reason}" for url, reason in reasons.items()))
