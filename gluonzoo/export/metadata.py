"""The small JSON beside an export: what a program must know to use the two other files without the network's code."""
import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

from .._version import __version__
from ..errors import UserError

__all__ = ["ExportError", "Metadata", "sha256"]

_FORMAT = "gluonzoo-export"
_VERSION = 1
#: `gluonzoo.data.Transform` without training: all it needs beside this is input_shape, mean and std.
TRANSFORM = {"name": "gluonzoo.data.Transform", "pixels": "(uint8 / 255 - mean) / std", "layout": "NCHW",
             "channels": "RGB, or luma for one"}


class ExportError(UserError):
    """An export that cannot be made, or one that cannot be trusted or read. The message names the file or parameter."""


def sha256(path):
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


@dataclass(frozen=True)
class Metadata:
    """What an export says of itself.

    Args:
        input_shape: (C, H, W) of one standard input.
        model: the registered name, or None for a network of the user's own.
        model_kwargs: what the builder was given.
        outputs: a name for each output, in order.
        classes: a name for each class, or None when they are not known.
        mean, std: of pixels in [0, 1], subtracted and divided by; one number for each channel of the network or of the
            images. None when not known.
        transform: how images become inputs; "name" says by whose rules they are fitted to the size and the channels.
        dataset: the data set it was trained on, or None.
        files: {"symbol" or "parameters": (file name, SHA-256)}; files lie beside the metadata.
        gluonzoo: the version that wrote it.
    """
    input_shape: Tuple[int, ...]
    model: Optional[str] = None
    model_kwargs: Dict[str, object] = field(default_factory=dict)
    outputs: Tuple[str, ...] = ("output",)
    classes: Optional[Tuple[str, ...]] = None
    mean: Optional[Tuple[float, ...]] = None
    std: Optional[Tuple[float, ...]] = None
    transform: Dict[str, object] = field(default_factory=lambda: dict(TRANSFORM))
    dataset: Optional[str] = None
    files: Dict[str, Tuple[str, str]] = field(default_factory=dict)
    gluonzoo: str = __version__

    def __post_init__(self):
        for name, check, expected in _RULES:
            value = getattr(self, name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, name, value)
            if not check(value):
                raise ExportError(f"{name} is {value!r}; expected {expected}")
        if (self.mean is None) != (self.std is None):
            raise ExportError(f"mean is {self.mean} and std is {self.std}; expected both or neither")
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and len(value) not in (1, 3, self.input_shape[0]):
                raise ExportError(f"{name} has {len(value)} numbers; expected 1, 3 or {self.input_shape[0]} (channels)")

    def write(self, path):
        """Write the JSON file and flush it to the disk."""
        values = dict(dataclasses.asdict(self), format=_FORMAT, version=_VERSION)
        values["files"] = {role: {"name": name, "sha256": digest} for role, (name, digest) in self.files.items()}
        # What went into the network's builder may be anything; what JSON cannot hold is told in Python's words.
        text = json.dumps(values, indent=2, sort_keys=True, default=repr, ensure_ascii=False)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def read(cls, path):
        """Read what `write` wrote.

        Raises: ExportError naming the file, and what in it is not as expected; OSError when it cannot be read.
        """
        values = read_json(path)
        if not isinstance(values, dict) or values.pop("format", None) != _FORMAT:
            raise ExportError(f"{path}: expected the JSON of a gluonzoo export (\"format\": \"{_FORMAT}\")")
        version = values.pop("version", None)
        if version != _VERSION:
            raise ExportError(f"{path}: expected version {_VERSION} of the format, found {version!r}")
        known = {item.name for item in dataclasses.fields(cls)}
        if "input_shape" not in values or set(values) - known:
            raise ExportError(f"{path}: expected input_shape and some of {', '.join(sorted(known))}; "
                              f"found {', '.join(sorted(values))}")
        try:
            files = values.get("files", {})
            values["files"] = {role: (entry["name"], entry["sha256"]) for role, entry in files.items()}
        except (AttributeError, TypeError, KeyError):
            raise ExportError(f"{path}: files is {files!r}; expected a name and a sha256 for each") from None
        try:
            return cls(**values)
        except ExportError as error:
            raise ExportError(f"{path}: {error}") from None


def read_json(path):
    """The value a JSON file holds; ExportError naming the file when it is no JSON."""
    with open(path, "rb") as file:
        raw = file.read()
    try:
        return json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path}: not a JSON file: {error}") from None


def _numbers(value):
    return all(isinstance(item, (int, float)) and not isinstance(item, bool) and math.isfinite(item) for item in value)


def _texts(value):
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


def _plain_name(name):
    return isinstance(name, str) and name not in ("", ".", "..") and not set("/\\\0") & set(name)


_RULES = (
    ("input_shape", lambda v: isinstance(v, tuple) and len(v) > 0 and all(type(n) is int and n > 0 for n in v),
     "whole numbers of at least 1, such as (3, 224, 224)"),
    ("model", lambda v: v is None or isinstance(v, str), "a network's name"),
    ("model_kwargs", lambda v: isinstance(v, dict), "the builder's arguments by name"),
    ("outputs", lambda v: _texts(v) and v != (), "a name for each output"),
    ("classes", lambda v: v is None or _texts(v), "a name for each class"),
    ("mean", lambda v: v is None or isinstance(v, tuple) and _numbers(v), "numbers"),
    ("std", lambda v: v is None or isinstance(v, tuple) and _numbers(v) and all(n > 0 for n in v), "numbers above 0"),
    ("transform", lambda v: isinstance(v, dict) and isinstance(v.get("name"), str), "an object with a name"),
    ("dataset", lambda v: v is None or isinstance(v, str), "a data set's name"),
    ("files", lambda v: isinstance(v, dict) and all(
        len(entry) == 2 and _plain_name(entry[0]) and isinstance(entry[1], str) for entry in v.values()),
     "file names without folders, each with its SHA-256"),
    ("gluonzoo", lambda v: isinstance(v, str), "a version"),
)
