"""Weights by a network's name, from a folder or a server that the user names; this package offers none of its own.

A place for weights is a folder, or the address of one on a web server, with the files and an `index.json`:
``{"resnet18_v1": {"file": "resnet18_v1-1a2b3c4d.params", "sha256": "...", "size": 46800000, "classes": 1000}, ...}``.
An entry's "options", where it has them, are keywords of the builder that the weights were trained with.
It is named by `root=` or $GLUONZOO_WEIGHTS. Files of a server are kept in $GLUONZOO_HOME (default ~/.cache/gluonzoo). A file is
used only when its SHA-256 is the index's, each time it is loaded.
"""
import hashlib
import json
import os
import re
import urllib.parse

from ..data.catalog import Resource
from ..data.download import TIMEOUT, fetch, locked
from ..errors import UserError
from ..registry import get_model, list_models
from .files import write_beside
from .load import WeightsError, load_weights

__all__ = ["list_pretrained", "load_pretrained", "build_pretrained", "add_to_index"]

INDEX = "index.json"
_MOST_INDEX = 1 << 20
_FIELDS = {"file": str, "sha256": str, "size": int, "classes": int}


def _root(root):
    root = os.fspath(root) if root else os.environ.get("GLUONZOO_WEIGHTS", "")
    return root.rstrip("/") if root.startswith(("http://", "https://")) else os.path.expanduser(root)


def _is_url(root):
    return root.startswith(("http://", "https://"))


def _shown(url):
    """An address without user name and password."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _index(root):
    """The checked entries of a place. Raises: UserError when there is no index, or it is no index."""
    where = f"{_shown(root)}/{INDEX}" if _is_url(root) else os.path.join(root, INDEX)
    text = _download(f"{root}/{INDEX}") if _is_url(root) else _read_text(where)
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: expected JSON: {str(error)[:100]}") from None
    if not isinstance(entries, dict):
        raise UserError(f"{where}: expected an object of networks, found {type(entries).__name__}")
    for name, entry in entries.items():
        _check_entry(f"{where}: {name[:60]}", entry)
    return entries


def _check_entry(what, entry):
    for field, kind in _FIELDS.items():
        if not isinstance(entry, dict) or type(entry.get(field)) is not kind:
            raise UserError(f"{what}: expected {field} as {kind.__name__}, found {str(entry)[:100]}")
    if not isinstance(entry.get("options", {}), dict):
        raise UserError(f"{what}: expected options as an object of keywords, found {str(entry['options'])[:80]}")
    if not re.fullmatch(r"[A-Za-z0-9][\w.\-]*", entry["file"], re.ASCII):
        raise UserError(f"{what}: expected the plain name of a file in the same folder, found {entry['file'][:80]!r}")
    if not re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]):
        raise UserError(f"{what}: expected a SHA-256 of 64 digits, found {entry['sha256'][:80]!r}")
    if entry["size"] < 1 or entry["classes"] < 1:
        raise UserError(f"{what}: expected size and classes of at least 1, found {entry['size']} and {entry['classes']}")


def _read_text(path):
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_INDEX + 1)[:_MOST_INDEX].decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _download(url):
    import requests
    try:
        with requests.get(url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}) as response:
            if response.status_code != 200:
                raise UserError(f"{_shown(url)}: the server answered {response.status_code} {response.reason}")
            content = response.raw.read(_MOST_INDEX + 1)
    except requests.RequestException as error:
        raise UserError(f"{_shown(url)}: cannot be had: {type(error).__name__}") from None
    if len(content) > _MOST_INDEX:
        raise UserError(f"{_shown(url)}: expected an index of at most {_MOST_INDEX} bytes, found more")
    return content.decode("utf-8", errors="replace")


def list_pretrained(root=None):
    """{network: entry of the index} of the weights that can really be had from `root` or $GLUONZOO_WEIGHTS.

    Left out: networks that are not registered, and files that are not there or of another size. Empty where no place is named.
    Raises: UserError when the place has no sound index.
    """
    root = _root(root)
    if not root:
        return {}
    known = set(list_models())
    return {name: entry for name, entry in sorted(_index(root).items()) if name in known and _is_there(root, entry)}


def _is_there(root, entry):
    if not _is_url(root):
        path = os.path.join(root, entry["file"])
        return os.path.isfile(path) and os.path.getsize(path) == entry["size"]
    import requests
    try:
        response = requests.head(f"{root}/{entry['file']}", timeout=TIMEOUT, allow_redirects=True,
                                 headers={"Accept-Encoding": "identity"})
    except requests.RequestException:
        return False
    return response.status_code == 200 and response.headers.get("Content-Length", str(entry["size"])) == str(entry["size"])


def _digest(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _file(root, entry):
    """Path of an entry's file, whose SHA-256 is right; downloaded where the place is a server."""
    if not _is_url(root):
        path = os.path.join(root, entry["file"])
        if not os.path.isfile(path):
            raise UserError(f"{path}: the index offers it, but there is no such file")
        found = _digest(path)
        if found != entry["sha256"]:
            raise UserError(f"{path}: expected SHA-256 {entry['sha256']}, found {found}")
        return path
    home = os.environ.get("GLUONZOO_HOME") or os.path.join(os.path.expanduser("~"), ".cache", "gluonzoo")
    folder = os.path.join(home, "weights", entry["sha256"][:16])
    path = os.path.join(folder, entry["file"])
    if os.path.isfile(path) and _digest(path) != entry["sha256"]:
        os.unlink(path)  # Damaged since it was downloaded.
    resource = Resource(file=entry["file"], size=entry["size"], sha256=entry["sha256"])
    return fetch(resource, folder, [f"{root}/{entry['file']}"])


def load_pretrained(net, path=None, root=None, ctx=None):
    """Load published weights into a network that `get_model` built: those that the index has under its name.

    Where the network has another number of classes than the weights, all but the last layers are loaded.

    Args:
        path: a file of weights, of any format and names that `load_weights` knows, instead of an index's.
        root: folder or address; by default $GLUONZOO_WEIGHTS.
        ctx: context or contexts on which an uninitialised network is initialised.
    Returns: Report.
    Raises: UserError when there are none, naming what is offered; when the file is damaged or does not fit.
    """
    if path is not None:
        return load_weights(net, path, ctx=ctx)
    root = _root(root)
    if not root:
        raise UserError("no place for weights: set GLUONZOO_WEIGHTS, or root=, to a folder or an address with an index.json; "
                        "gluonzoo has no weights of its own")
    entries = _index(root)
    name = getattr(net, "model_name", None)
    if name not in entries:
        offered = ", ".join(sorted(entries)) or "nothing"
        raise UserError(f"{_shown(root) if _is_url(root) else root}: no weights of {name}; it offers {offered}")
    entry = entries[name]
    report = load_weights(net, _file(root, entry), skip_output=entry["classes"] != net.classes, ctx=ctx)
    options = {key: value for key, value in entry.get("options", {}).items() if net.model_kwargs.get(key) != value}
    if options:
        net.adapt(**options)
    return report


def build_pretrained(name, pretrained, root, ctx, options):
    """`registry.get_model` with weights: `pretrained` is True or the path of a file.

    With a file and `classes` among the options, last layers of another number of classes are left out.
    """
    net = get_model(name, **options)
    if pretrained is True:
        load_pretrained(net, root=root, ctx=ctx)
        return net
    if not isinstance(pretrained, (str, os.PathLike)):
        raise UserError(f"pretrained is {pretrained!r}; expected True, False or the path of a file")
    if root is not None:
        raise UserError(f"root {root} goes with pretrained=True; pretrained names the file {pretrained} itself")
    try:
        load_weights(net, pretrained, ctx=ctx)
    except WeightsError as error:
        if "classes" not in options:
            raise
        try:
            load_weights(net, pretrained, skip_output=True, ctx=ctx)
        except WeightsError:
            raise error from None
    return net


def add_to_index(folder, name, path, classes, options=None):
    """Enter a file that lies in `folder` into its index, with size and SHA-256; an older entry of the name is replaced.

    Args:
        options: keywords of the builder that the weights were trained with, if other than its defaults.
    Returns: the entry. Raises: UserError when the file lies elsewhere, or the index there is none.
    """
    folder, path = os.path.abspath(folder), os.path.abspath(path)
    if os.path.dirname(path) != folder:
        raise UserError(f"{path}: expected a file in {folder}")
    entry = {"file": os.path.basename(path), "sha256": _digest(path), "size": os.path.getsize(path), "classes": int(classes)}
    if options:
        entry["options"] = dict(options)
    _check_entry(name, entry)
    index = os.path.join(folder, INDEX)
    with locked(folder):
        entries = _index(folder) if os.path.exists(index) else {}
        entries[name] = entry

        def put(beside):
            with open(beside, "w", encoding="utf-8") as file:
                json.dump(entries, file, indent=1, sort_keys=True)

        write_beside(index, put)
    return entry
