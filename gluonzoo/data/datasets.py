"""Data sets by name."""
import difflib
import os

import numpy as np

from ..errors import UserError
from . import images, sources
from .base import ArrayDataset, FolderDataset
from .catalog import PUBLISHED
from .imagenet import load_imagenet
from .published import default_roots, load_published
from .records_dataset import load_records

__all__ = ["load", "names"]

_NAMES = ("digits",) + tuple(PUBLISHED) + ("imagefolder", "records", "imagenet")

#: Of photographs. Source: the training images of ILSVRC 2012, as torchvision, GluonCV and others use them.
PHOTO_MEAN, PHOTO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Every this many samples of a class of scikit-learn's digits, one is a test sample.
_DIGITS_TEST_EVERY = 5


def names():
    """The names that `load` knows."""
    return _NAMES


def load(name, train=True, data_dir=None, download=True):
    """A data set's training images (`train`), or those to test with.

    Args: name: one of `names()`: digits (of scikit-learn), mnist, fashion_mnist, cifar10, cifar100, imagefolder
            (`data_dir/train/<class>/*`, and `val`, `valid` or `test` beside it; or a zip file of that), records (packed
            images, see `records_dataset.find_records`), imagenet (its published tar files, see `gluonzoo.data.imagenet`).
        data_dir: where to look first, and where to download to; a folder, or a zip or tar file. Then come
            `$GLUONZOO_DATA` and MXNet's own folder; `gluonzoo.data.published` says in which forms.
        download: get what is absent; False: an error instead.
    Returns: `ArrayDataset`; for imagefolder `FolderDataset`, for records `RecordDataset`, for imagenet `TarDataset`.
    Raises: UserError when the name is unknown, when the files are absent (it says where it looked and how to get them),
        cut short, damaged or of another kind. Files are never changed or removed.
    """
    if name not in _NAMES:
        near = difflib.get_close_matches(str(name).lower().replace("-", "_"), _NAMES, n=3, cutoff=0.4)
        raise UserError(f"data set {name!r} is not known; expected one of {', '.join(_NAMES)}"
                        + (f"; nearest: {', '.join(near)}" if near else ""))
    data_dir = os.path.expanduser(os.fspath(data_dir)) if data_dir else None
    if name == "digits":
        return _load_digits(train)
    if name == "imagefolder":
        return _load_imagefolder(train, data_dir)
    if name == "records":
        return load_records(data_dir, train)
    if name == "imagenet":
        return load_imagenet(data_dir, train)
    return load_published(PUBLISHED[name], train, data_dir, download)


def _load_digits(train):
    """scikit-learn's 1,797 digits of 8x8 pixels, their 17 grey levels stretched to 0..255.

    The split never changes: of every class, in scikit-learn's order, samples 0, 5, 10 ... are the test set (364
    images), the others the training set (1,433). The same writers are in both.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("digits come with scikit-learn, which is not installed: pip install -e '.[demo]'") from error
    digits = load_digits()
    labels = digits.target.astype(np.int32)
    place = np.empty(len(labels), dtype=np.int64)  # Number of the sample within its class.
    for label in range(10):
        members = np.flatnonzero(labels == label)
        place[members] = np.arange(len(members))
    chosen = (place % _DIGITS_TEST_EVERY != 0) == bool(train)
    data = np.rint(digits.images * (255 / 16)).astype(np.uint8)[chosen][..., None]
    return ArrayDataset(data, "digits", "train" if train else "test", map(str, range(10)), labels[chosen], (1, 8, 8),
                        (0.3055,), (0.3761,), "none", "scikit-learn")


def _load_imagefolder(train, data_dir):
    """Image files by class. The classes are the sorted folders below train, for all splits."""
    roots = [data_dir] if data_dir else [
        path for _, root in default_roots() for path in (root, os.path.join(root, "imagefolder"))]
    for root in roots:
        if not os.path.exists(root):
            continue
        opened = sources.open_source(root)
        # A zip file often holds one folder with everything in it.
        training = images.find_split(opened, ("train",), depth=0 if os.path.isdir(root) else 2)
        if training is None:
            continue
        classes = images.list_classes(opened, training)
        split = training if train else images.split_beside(opened, training, ("val", "valid", "test"))
        files, labels = images.list_images(opened, split, classes)
        return FolderDataset(files, opened, "imagefolder", "train" if train else "test", classes, labels, None,
                             PHOTO_MEAN, PHOTO_STD, "resized_crop+flip", root, published=False)
    looked = ", ".join(root + ("" if os.path.exists(root) else " (does not exist)") for root in roots)
    raise UserError(f"imagefolder: expected a folder train with a folder for each class in it, found none in {looked}; "
                    f"name the folder above train, or a zip file of it, with --data-dir")
