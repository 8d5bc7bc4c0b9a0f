"""ImageNet (ILSVRC 2012) from its published tar files, read where they lie: nothing is unpacked.

One folder holds ILSVRC2012_img_train.tar (a tar file of a tar file for each class, nXXXXXXXX.tar), ILSVRC2012_img_val.tar and
ILSVRC2012_devkit_t12.tar.gz. The first use notes where every image lies, in an index beside each tar file, or where that cannot
be written in ~/.cache/gluonzoo.

The classes are the synsets without children in the devkit's meta.mat, sorted by their WordNet number (wnid), as other zoos
number them; ILSVRC2012_ID, by which the validation's ground truth counts, is another order.

Source: O. Russakovsky and others, "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, and the readme of the devkit.
The data set can be had from https://image-net.org/download-images after registration only.
"""
import hashlib
import json
import os
import tarfile

import numpy as np

from ..errors import UserError
from . import images
from .base import _Dataset
from .matlab import read_mat
from .records_dataset import AheadImages, blocks_of
from .records_files import Bytes
from .sources import read_tar

__all__ = ["TRAINING", "VALIDATION", "DEVKIT", "CHECKS", "TarDataset", "load_imagenet", "check_files", "read_devkit"]

TRAINING, VALIDATION, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
#: Size in bytes and MD5 of the published files.
_PUBLISHED = {TRAINING: (147897477120, "1d675b47d978889d74fa0da5fadfb00e"),
              VALIDATION: (6744924160, "29b22e2961454d5413ddabcf34fc5622"),
              DEVKIT: (2568145, "fa75699e90414af021442c21a62c3abf")}
CHECKS = ("md5", "size", "none")
_META, _TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
#: The tar file is sorted by class, so smaller blocks than of packed records: more classes are shuffled together.
_BLOCK_BYTES = 1 << 20


def check_files(folder, check="size", files=(TRAINING, VALIDATION, DEVKIT)):
    """Raise UserError unless the published files are in a folder and are what was published.

    Args: check: "md5" (reads all of them), "size", or "none" (only that they are there).
    """
    if check not in CHECKS:
        raise UserError(f"the check of ImageNet's files is {check!r}; expected one of {', '.join(CHECKS)}")
    if not folder or not os.path.isdir(folder):
        raise UserError(f"imagenet: {folder or 'no folder'!r} is not a folder; name the one that holds {', '.join(_PUBLISHED)} "
                        "with --data-dir")
    for name in files:
        path, (size, digest) = os.path.join(folder, name), _PUBLISHED[name]
        if not os.path.isfile(path):
            raise UserError(f"imagenet: {path} does not exist; expected {', '.join(files)} in this folder, from "
                            "https://image-net.org/download-images")
        found = os.path.getsize(path)
        if check != "none" and found != size:
            raise UserError(f"{path}: expected the published file of {size} bytes, found {found} bytes"
                            f"{': it is cut short' if found < size else ''} ($GLUONZOO_IMAGENET_CHECK=none takes it as it is)")
        if check == "md5":
            found = _md5(path)
            if found != digest:
                raise UserError(f"{path}: expected the published file with MD5 {digest}, found {found}: it is damaged")


def _md5(path):
    from tqdm import tqdm
    digest = hashlib.md5()
    with open(path, "rb") as file, tqdm(total=os.path.getsize(path), desc=f"checking {os.path.basename(path)}", unit="B",
                                        unit_scale=True, disable=None, leave=False) as bar:
        for block in iter(lambda: file.read(8 << 20), b""):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def read_devkit(path):
    """What the devkit says.

    Returns: (wnids sorted, {wnid: name}, {wnid: training images}, (N,) int32 labels of the validation images in their order).
    Raises: UserError when the file is damaged or its parts contradict each other.
    """
    found = read_tar(path, (_META, _TRUTH))
    table = read_mat(f"{path}:{_META}", found[_META]).get("synsets")
    try:
        leaves = {row["WNID"]: (int(row["ILSVRC2012_ID"].item()), row["words"], int(row["num_train_images"].item()))
                  for row in table if int(row["num_children"].item()) == 0}
    except (TypeError, KeyError, ValueError, AttributeError):
        raise UserError(f"{path}:{_META}: expected a table synsets with ILSVRC2012_ID, WNID, words, num_children and "
                        "num_train_images") from None
    wnids = sorted(leaves)
    number = {leaves[wnid][0]: label for label, wnid in enumerate(wnids)}
    labels = []
    for line, word in enumerate(found[_TRUTH].split(), start=1):
        if not word.isdigit() or int(word) not in number:
            raise UserError(f"{path}:{_TRUTH}: line {line}: expected the ILSVRC2012_ID of one of {len(wnids)} classes, found "
                            f"{word[:20]!r}")
        labels.append(number[int(word)])
    return (wnids, {wnid: f"{wnid} {leaves[wnid][1].split(',')[0].strip()}" for wnid in wnids},
            {wnid: leaves[wnid][2] for wnid in wnids}, np.array(labels, dtype=np.int32))


class _Window:
    """A part of a file as a file of its own, for tarfile."""

    def __init__(self, file, start, size):
        self._file, self._start, self._size, self._at = file, start, size, 0

    def tell(self):
        return self._at

    def seek(self, to):
        self._at = to
        return to

    def read(self, count=-1):
        left = max(0, self._size - self._at)
        self._file.seek(self._start + self._at)
        data = self._file.read(left if count < 0 else min(count, left))
        self._at += len(data)
        return data


def _members(path, file, start, size):
    """(name, offset in the file, size) of the files in a tar file that is a part of a file."""
    try:
        with tarfile.open(fileobj=_Window(file, start, size), mode="r:") as tar:
            for member in tar:
                if member.isfile():
                    yield os.path.basename(member.name), start + member.offset_data, member.size
                tar.members = []  # tarfile would keep a million of them.
    except tarfile.TarError as error:
        raise UserError(f"{path}: at byte {start}: expected a whole tar file of {size} bytes, found one that is damaged or cut "
                        f"short ({error})") from None


def _scan(path):
    """(name, offset, size) of every image in a tar file; of a tar file in it the images are in "its name/image"."""
    from tqdm import tqdm
    size, found = os.path.getsize(path), []
    with open(path, "rb") as file, tqdm(total=size, desc=f"indexing {os.path.basename(path)}", unit="B", unit_scale=True,
                                        disable=None, leave=False) as bar:
        for name, offset, length in _members(path, file, 0, size):
            if name.endswith(".tar"):
                found += [(f"{name[:-4]}/{inner}", at, long) for inner, at, long in _members(path, file, offset, length)]
            else:
                found.append((name, offset, length))
            bar.update(offset + length - bar.n)
    return found


def _index_places(path):
    """Where the index of a tar file may lie."""
    tag = hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return [path + ".index", os.path.join(cache, "gluonzoo", f"{os.path.basename(path)}-{tag}.index")]


def tar_index(path):
    """(name, offset, size) of every image in a tar file, in its order; from the index of an earlier use where that is of this
    very file. Raises: UserError when the tar file is damaged."""
    state = os.stat(path)
    identity = {"size": state.st_size, "modified": state.st_mtime_ns}
    for place in _index_places(path):
        try:
            with open(place, encoding="utf-8") as file:
                head = json.loads(file.readline())
                if {key: head.get(key) for key in identity} != identity:
                    continue
                rows = [line.rstrip("\n").rsplit("\t", 2) for line in file]
            rows = [(name, int(offset), int(size)) for name, offset, size in rows]
            if len(rows) == head["images"]:
                return rows
        except (OSError, ValueError, AttributeError, KeyError):
            continue  # Not there, or not whole: made anew.
    rows = _scan(path)
    for place in _index_places(path):
        made = f"{place}.{os.getpid()}"
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(made, "w", encoding="utf-8") as file:
                file.write(json.dumps({**identity, "images": len(rows)}) + "\n")
                file.writelines(f"{name}\t{offset}\t{size}\n" for name, offset, size in rows)
            os.replace(made, place)
            break
        except OSError:
            continue  # A folder that cannot be written: the cache's turn.
    return rows


def training_files(folder, check="size"):
    """(wnids, names, rows, labels): classes and every training image's (name, offset, size) and label, in the file's order."""
    wnids, names, counts, _ = read_devkit(os.path.join(folder, DEVKIT))
    path = os.path.join(folder, TRAINING)
    rows = tar_index(path)
    number = {wnid: label for label, wnid in enumerate(wnids)}
    found = {}
    for name, _, _ in rows:
        wnid = name.rpartition("/")[0]
        found[wnid] = found.get(wnid, 0) + 1
    for wnid in sorted(set(found) | set(number)):
        expected = counts.get(wnid)
        if expected is None or (check != "none" and found.get(wnid, 0) != expected) or wnid not in found:
            raise UserError(f"{path}: expected {expected or 0} images of class {wnid or 'none'} as the devkit says, found "
                            f"{found.get(wnid, 0)}")
    return wnids, names, rows, np.array([number[name.rpartition("/")[0]] for name, _, _ in rows], dtype=np.int32)


def validation_files(folder):
    """As `training_files`, of the validation images, whose names sort in the order of the ground truth."""
    wnids, names, _, truth = read_devkit(os.path.join(folder, DEVKIT))
    path = os.path.join(folder, VALIDATION)
    rows = tar_index(path)
    if len(rows) != len(truth):
        raise UserError(f"{path}: expected {len(truth)} images, as many as the ground truth has lines, found {len(rows)}")
    label = dict(zip(sorted(name for name, _, _ in rows), truth.tolist()))
    return wnids, names, rows, np.array([label[name] for name, _, _ in rows], dtype=np.int32)


class TarDataset(_Dataset):
    """Images in a tar file, decoded when they are asked for, in the order of the file. `files`: (name, offset, size) of each."""

    in_memory = False

    def __init__(self, path, rows, name, split, classes, labels, mean, std):
        super().__init__(name, split, classes, labels, None, mean, std, "resized_crop+flip", path)
        order = sorted(range(len(rows)), key=lambda place: rows[place][1])
        self.files, self.labels = [rows[place] for place in order], np.asarray(labels)[order]
        self.tar_file = Bytes(path)
        self.tar_file.offsets = np.array([offset for _, offset, _ in self.files], dtype=np.int64)
        self.tar_file.ends = self.tar_file.offsets + np.array([size for _, _, size in self.files], dtype=np.int64)
        self.blocks = blocks_of(self.tar_file, _BLOCK_BYTES)

    def _image(self, index, stored=None):
        name, offset, size = self.files[int(index)]
        data = self.tar_file.stored(offset, offset + size) if stored is None else stored
        return images.decode(data, f"{self.tar_file.path}:{name}")

    def images(self, indices):
        """The images with these numbers: a list of (h, w, 3) uint8, RGB. Raises: UserError that names the image."""
        return [self._image(index) for index in indices]

    def read_ahead(self, groups):
        """As `RecordDataset.read_ahead`."""
        return AheadImages(self._image, self.tar_file, groups)


def load_imagenet(data_dir, train, check=None):
    """The training or the validation images of ILSVRC 2012 as a `TarDataset`.

    Args: data_dir: the folder with the three published files. check: as of `check_files`; by default
        $GLUONZOO_IMAGENET_CHECK, else "size".
    Raises: UserError when a file is absent, is not the published one, or is damaged.
    """
    from .datasets import PHOTO_MEAN, PHOTO_STD
    check = check or os.environ.get("GLUONZOO_IMAGENET_CHECK") or "size"
    name = TRAINING if train else VALIDATION
    check_files(data_dir, check, (name, DEVKIT))
    wnids, names, rows, labels = training_files(data_dir, check) if train else validation_files(data_dir)
    return TarDataset(os.path.join(data_dir, name), rows, "imagenet", "train" if train else "test",
                      [names[wnid] for wnid in wnids], labels, PHOTO_MEAN, PHOTO_STD)
