"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100: found on disk in any of their forms, or downloaded.

Places are searched in this order: `data_dir`, `$GLUONZOO_DATA`, and MXNet's own folder (`$MXNET_HOME/datasets`,
`~/.mxnet/datasets`). In each, first the set's own folder (`mnist`; `fashion_mnist` or `fashion-mnist`; `cifar10` or
`cifar-10-batches-bin`; `cifar100` or `cifar-100-binary`), then the place itself. There, in this order: the published
files (idx, gzip or not; CIFAR's .bin), CIFAR's published .tar.gz, a zip file named after the set, and image files by
class (`train/<class>/*`, `test/<class>/*`). `data_dir` may also be a zip or tar file itself. What is absent is
downloaded, from `$GLUONZOO_DATA_URL` (`<base>/<set>/<file>`) if that is set, and else from where it is published.

MNIST and Fashion-MNIST have the same file names. Directly in `$GLUONZOO_DATA` or in MXNet's folder they are taken only
when the digest of the labels is that of the set asked for; in `data_dir` or in a folder with the set's name they are
refused when it is that of the other set. A `train.bin` or images by class directly in the two shared places could be
anybody's and are not taken.
"""
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .. import runtime
from ..errors import UserError
from . import download, formats, images, sources
from .base import ArrayDataset
from .catalog import PUBLISHED

__all__ = ["default_roots", "load_published"]


def default_roots():
    """(origin, folder) of the places that are always searched."""
    roots = []
    if os.environ.get("GLUONZOO_DATA"):
        roots.append(("$GLUONZOO_DATA", os.path.expanduser(os.environ["GLUONZOO_DATA"])))
    home = os.environ.get("MXNET_HOME") or os.path.join("~", ".mxnet")
    roots.append(("MXNet's folder", os.path.join(os.path.expanduser(home), "datasets")))
    return roots


def load_published(published, train, data_dir, may_download):
    """A split of a published set as an `ArrayDataset`. Raises: UserError as `gluonzoo.data.load` says."""
    search = _Search(published, train)
    dataset = search.everywhere(data_dir)
    if dataset is not None:
        return dataset
    failure = ""
    if may_download:
        folder = _download_folder(published, data_dir)
        try:
            for resource in search.resources:
                download.fetch(resource, folder, _urls(published, resource))
        except UserError as error:
            failure = f"{error}; "
        else:
            return search.in_folder(folder, own=True)
    unset = "" if os.environ.get("GLUONZOO_DATA") else " ($GLUONZOO_DATA is not set)"
    notes = "".join(f"; {note}" for note in search.notes)
    files = " and ".join(resource.file for resource in search.resources)
    raise UserError(f"{published.name} ({search.split}) was not found: {failure}looked in {', '.join(search.looked)}"
                    f"{unset}{notes}; get {files} from {published.mirrors[0]} into a folder and name it with "
                    f"--data-dir, or set $GLUONZOO_DATA to the folder above {published.folders[0]}")


def _download_folder(published, data_dir):
    """Where a set is downloaded to: below `data_dir`, else the first of the usual places that can be written."""
    if data_dir:
        if os.path.exists(data_dir) and not os.path.isdir(data_dir):
            raise UserError(f"{data_dir}: expected a folder to download to, found a file")
        return os.path.join(data_dir, published.folders[0])
    roots = default_roots()
    for origin, root in roots:
        if origin == "$GLUONZOO_DATA" and os.path.isdir(root) and os.access(root, os.W_OK):
            return os.path.join(root, published.folders[0])
    # MXNet's own name of the folder, so that its data sets find the files too.
    own = "fashion-mnist" if published.name == "fashion_mnist" else published.name
    return os.path.join(roots[-1][1], own)


def _urls(published, resource):
    base = os.environ.get("GLUONZOO_DATA_URL")
    if base:
        return [f"{base.rstrip('/')}/{published.name}/{resource.file}"]
    return [mirror + resource.file for mirror in published.mirrors]


def _idx_names(resource):
    """Names under which an idx file is found: packed, unpacked, and with the dot that some unpackers write."""
    plain = resource.file[:-len(".gz")]
    dotted = plain.replace("-idx", ".idx")
    return [resource.file, plain, dotted + ".gz", dotted]


def _owner(name, data):
    """The published set that a labels file belongs to, or None. Raises: UserError when it is damaged gzip."""
    digest = hashlib.sha256(formats.plain_bytes(name, data, 1 << 20)).hexdigest()
    for candidate in PUBLISHED.values():
        for resources in candidate.resources:
            if digest == resources[-1].plain:
                return candidate.name
    return None


def _bare(name):
    return re.sub("[^a-z0-9]", "", name.lower())


class _Search:
    """Looks for one split of a published set; remembers where it looked and what it passed over."""

    def __init__(self, published, train):
        self.set, self.train, self.split = published, train, "train" if train else "test"
        self.resources = published.resources[0 if train else 1]
        self.members = published.files[0 if train else 1]
        self.looked, self.notes = [], []

    def everywhere(self, data_dir):
        """The set from the first place that has it, or None."""
        if data_dir:
            if os.path.isfile(data_dir):
                return self.in_archive(data_dir)
            found = self.in_root(data_dir, named=True)
            if found is None and self.set.pickled:
                self._refuse_pickled(data_dir)
            if found is not None:
                return found
        for _, root in default_roots():
            found = self.in_root(root, named=False)
            if found is not None:
                return found
        return None

    def _refuse_pickled(self, data_dir):
        """Who names a folder with the Python version should hear why it is not read, not get a download beside it."""
        for folder in (data_dir, os.path.join(data_dir, self.set.folders[0])):
            for name in self.set.pickled:
                path = os.path.join(folder, name)
                if os.path.exists(path):
                    raise UserError(self._pickled(path))

    def _pickled(self, path):
        file = self.resources[0].file
        return (f"{path} is the Python version of {self.set.title}, which is not read because unpickling a file can "
                f"run any code; put the binary version {self.set.mirrors[0]}{file} into {os.path.dirname(path)}")

    def in_root(self, root, named):
        """Search a place: the folders with the set's name in it, then the place itself.

        Args: named: the user named this very place for this very set, so that files directly in it are meant.
        """
        self.looked += [os.path.join(root, self.set.folders[0]), root]
        for sub in self.set.folders:
            found = self.in_folder(os.path.join(root, *sub.split("/")), own=True)
            if found is not None:
                return found
        return self.in_folder(root, own=named)

    def in_folder(self, folder, own):
        """Search one folder. `own`: it belongs to the set, so that even what has a general name in it is the set's."""
        if not os.path.isdir(folder):
            return None
        opened = sources.Folder(folder)
        found = self._published_files(opened, own)
        if found is not None:
            return found
        files = opened.children()[1]
        archives = [self.resources[0].file] if self.set.cifar else []
        archives += [name for name in files if re.fullmatch(self.set.zips, name, re.IGNORECASE)]
        for name in archives:
            if name in files:
                return self.in_archive(os.path.join(folder, name))
        return self._by_class(opened, "train") if own and images.find_split(opened, ("train",), depth=0) else None

    def in_archive(self, path):
        """The set from a zip or tar file that is named after it, or that the user named."""
        if os.path.basename(path) in self.set.pickled:
            raise UserError(self._pickled(path))
        if not path.lower().endswith(".zip"):
            if not self.set.cifar:
                raise UserError(f"{path}: expected a folder or a zip file with {self.set.title}, found another file")
            found = sources.read_tar(path, self.members)
            return self._from_cifar(path, [(f"{path}:{name}", found[name]) for name in self.members])
        opened = sources.Zip(path)
        found = self._published_files(opened, own=True)
        if found is None:
            training = images.find_split(opened, ("train",))
            found = self._by_class(opened, training) if training else None
        if found is None:
            raise UserError(f"{path}: expected {self.set.title} in it, as the published files or as images in "
                            f"train/<class>, found neither")
        return found

    def _published_files(self, opened, own):
        """The set from its published files in a source, or None when they are not all there."""
        if self.set.cifar:
            wanted = [[name] for name in self.members]
        else:
            wanted = [_idx_names(resource) for resource in self.resources]
        paths = [opened.find(names) for names in wanted]
        if None in paths:
            if own and any(paths):
                self.notes.append(f"{opened.path} has {next(filter(None, paths))}, but not "
                                  f"{wanted[paths.index(None)][0]}")
            return None
        if not own and len(self.set.cifar) > 1:
            return None
        files = [(opened.label(path), opened.read(path)) for path in paths]
        return self._from_cifar(opened.path, files) if self.set.cifar else self._from_idx(opened.path, files, own)

    def _from_idx(self, source, files, own):
        owner = _owner(*files[1])
        if owner != self.set.name and not own:
            return None
        if owner not in (self.set.name, None):
            raise UserError(f"{files[1][0]}: expected the labels of {self.set.title}, found those of "
                            f"{PUBLISHED[owner].title}")
        pixels = formats.read_idx_images(*files[0], shape=self.set.image_shape[1:])
        labels = formats.read_idx_labels(*files[1], classes=len(self.set.classes))
        if len(pixels) != len(labels):
            raise UserError(f"{files[1][0]}: at byte 4: expected {len(pixels)} labels, one for each image in "
                            f"{files[0][0]}, found {len(labels)}")
        return self._dataset(pixels, labels, source, published=owner is not None)

    def _from_cifar(self, source, files):
        counts = tuple(count for _, count in self.set.cifar)
        records = self.set.records[0 if self.train else 1] // len(files)
        parts = [formats.read_cifar(name, data, counts, records) for name, data in files]
        pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts))
        dataset = self._dataset(pixels, np.ascontiguousarray(labels[:, -1]), source)
        if len(counts) > 1:
            dataset.coarse_labels = np.ascontiguousarray(labels[:, 0])
        return dataset

    def _by_class(self, opened, training):
        """Image files by class that stand for the published set; classes and sizes must be its own."""
        split = training if self.train else images.split_beside(opened, training, ("test", "val", "valid"))
        files, labels = images.list_images(opened, split, self._class_folders(opened, split))
        channels, height, width = self.set.image_shape
        with ThreadPoolExecutor(runtime.default_threads()) as pool:
            pixels = list(pool.map(lambda name: images.read(opened, name, channels), files))
        for name, image in zip(files, pixels):
            if image.shape[:2] != (height, width):
                raise UserError(f"{opened.label(name)}: expected {width}x{height} pixels as {self.set.title} has, "
                                f"found {image.shape[1]}x{image.shape[0]}")
        return self._dataset(np.stack(pixels), labels, opened.path, published=False)

    def _class_folders(self, opened, split):
        """Names of the class folders in the order of the set's labels; they are the set's own names or numbers."""
        folders = images.list_classes(opened, split)
        wanted = [_bare(name) for name in self.set.classes]
        bare = {_bare(name): name for name in folders}
        if len(folders) == len(bare) and sorted(bare) == sorted(wanted):
            return [bare[name] for name in wanted]
        if all(name.isdigit() for name in folders) and sorted(map(int, folders)) == list(range(len(wanted))):
            return sorted(folders, key=int)
        raise UserError(f"{opened.label(split)}: expected the {len(wanted)} classes of {self.set.title} "
                        f"({images.shortened(self.set.classes)}), found {len(folders)} ({images.shortened(folders)})")

    def _dataset(self, pixels, labels, source, published=True):
        return ArrayDataset(pixels, self.set.name, self.split, self.set.classes, labels, self.set.image_shape,
                            self.set.mean, self.set.std, self.set.augment, source, published)
