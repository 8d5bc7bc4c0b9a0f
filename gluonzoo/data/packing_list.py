"""What goes into a record file, and in which order: from a folder of class folders, a .lst file, or ImageNet's tar files."""
import os
from collections import namedtuple

import numpy as np

from ..errors import UserError
from . import draws, images, sources
from .records import read_list

__all__ = ["Entry", "Listing", "from_folder", "from_list", "from_imagenet", "split"]

Entry = namedtuple("Entry", ["key", "labels", "path", "offset", "size"])
Entry.__doc__ = """An image to pack.

key: its number in the list. labels: list of floats. path: of the image file, relative to the listing's root; in a tar file its
name. offset, size: where it lies in the tar file; -1 for files.
"""

Listing = namedtuple("Listing", ["root", "classes", "entries"])
Listing.__doc__ = """root: a folder, or a tar file; classes: names, or [] where they are not known; entries: list of `Entry`."""


def _shuffled(entries, seed):
    """Entries in the random order that a seed decides, numbered anew; as they are where seed is None."""
    if seed is not None:
        entries = [entries[place] for place in draws.order(len(entries), seed, 0)]
    return [entry._replace(key=key) for key, entry in enumerate(entries)]


def from_folder(folder, seed=0, classes=None):
    """A folder with a folder for each class, whose names sorted are the classes.

    Args: seed: of the order; None: by class and name. classes: their names where the folder may lack some of them.
    Raises: UserError when it is no such folder.
    """
    opened = sources.Folder(folder)
    classes = classes or images.list_classes(opened, "")
    names, labels = images.list_images(opened, "", classes)
    entries = [Entry(0, [float(label)], name.lstrip("/"), -1, -1) for name, label in zip(names, labels.tolist())]
    for entry in entries:
        if "\t" in entry.path or "\n" in entry.path:
            raise UserError(f"{opened.label(entry.path)!r}: a name with a tab or a line break cannot be written into a list")
    return Listing(os.path.abspath(folder), classes, _shuffled(entries, seed))


def from_list(path, root, seed=None):
    """A .lst file, by default in its own order and with its own keys.

    Args: root: the folder that its paths are relative to.
    Raises: UserError when a line is broken or a key comes twice.
    """
    keys, labels, paths = read_list(path)
    if not keys:
        raise UserError(f"{path}: expected a line for each image, found none")
    twice = np.flatnonzero(np.diff(np.sort(keys)) == 0)
    if len(twice):
        raise UserError(f"{path}: the key {np.sort(keys)[twice[0]]} comes twice")
    if min(keys) < 0:
        raise UserError(f"{path}: expected keys from 0 on, found {min(keys)}")
    entries = [Entry(key, list(label), name, -1, -1) for key, label, name in zip(keys, labels, paths)]
    if seed is not None:
        entries = [entries[place] for place in draws.order(len(entries), seed, 0)]
    return Listing(os.path.abspath(root), [], entries)


def from_imagenet(folder, train, seed=0, check="md5"):
    """The training or validation images in ImageNet's tar files. Raises: UserError as `imagenet.load_imagenet`."""
    from . import imagenet
    name = imagenet.TRAINING if train else imagenet.VALIDATION
    imagenet.check_files(folder, check, (name, imagenet.DEVKIT))
    wnids, names, rows, labels = imagenet.training_files(folder, check) if train else imagenet.validation_files(folder)
    entries = [Entry(0, [float(label)], *row) for label, row in zip(labels.tolist(), rows)]
    return Listing(os.path.abspath(os.path.join(folder, name)), [names[wnid] for wnid in wnids], _shuffled(entries, seed))


def split(listing, train_ratio, test_ratio=0.0):
    """{"train", "val" and, with a test_ratio, "test": `Listing`}, parts of a listing in its order.

    The first share of the images is for testing, the next for training, the rest for validation, as im2rec divides them; keys
    are kept. An image is in one part only. A part without images is an error.
    """
    count = len(listing.entries)
    tests, trainings = int(count * test_ratio), int(count * train_ratio)
    parts = {"train": listing.entries[tests:tests + trainings], "val": listing.entries[tests + trainings:]}
    if test_ratio:
        parts["test"] = listing.entries[:tests]
    for name, entries in parts.items():
        if not entries:
            raise UserError(f"--train-ratio {train_ratio:g} leaves no image of {count} for {name}")
    return {name: listing._replace(entries=entries) for name, entries in parts.items()}
