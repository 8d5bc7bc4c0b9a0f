"""Packed images (.rec, .idx, .lst) as a data set: those of tools/pack.py and of MXNet's im2rec."""
import glob
import json
import os

import numpy as np

from ..errors import UserError
from . import images
from .base import _Dataset
from .records import RecordError, RecordFile, read_list
from .records_reader import ReadAhead

__all__ = ["RecordDataset", "AheadImages", "blocks_of", "load_records", "find_records"]

#: What is read together and what is shuffled together, in bytes of the file. With photographs of 110 kB some 2,400 of 128
#: places of the file are mixed.
BLOCK_BYTES, BUFFER_BYTES = 2 << 20, 256 << 20

#: Names of the files for training and for validation, ours first: im2rec --train-ratio and --test-ratio write the same.
_TRAINING, _VALIDATION = ("train",), ("val", "valid", "validation", "test")


def blocks_of(file, block_bytes):
    """(samples in a block, blocks shuffled together) for a file whose samples are of so many bytes in the mean."""
    size = max(1, round(block_bytes * len(file.offsets) / file.size))
    return size, BUFFER_BYTES // block_bytes


def _metadata(path):
    """What tools/pack.py wrote beside a .rec file; {} where there is nothing."""
    path = os.path.splitext(path)[0] + ".json"
    if not os.path.exists(path):
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        if not isinstance(found, dict) or not str(found.get("format", "")).startswith("gluonzoo records"):
            return {}  # Somebody's file of the same name.
        if not isinstance(found.get("classes"), list):
            raise ValueError("a list of classes was expected")
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read: {error}") from None
    return found


class RecordDataset(_Dataset):
    """Images of a record file, decoded when they are asked for. Sample i is the i-th record in the file.

    blocks: (samples in a block, blocks shuffled together) for `ShardedBatches`, by the mean size of a record.
    record_file: the `RecordFile`.

    Args: path: of the .rec file. classes: names; by default those in the .json file that tools/pack.py writes, else numbers.
        split: "train" or "test".
    Raises: RecordError when the file is damaged or does not fit its index, or a label is not one of the classes.
    """

    in_memory = False

    def __init__(self, path, classes=None, split="train"):
        from .datasets import PHOTO_MEAN, PHOTO_STD
        self.record_file = RecordFile(path)
        labels = self._labels()
        if classes is None:
            classes = _metadata(path).get("classes") or [str(number) for number in range(int(labels.max()) + 1)]
        beyond = np.flatnonzero(labels >= len(classes))
        if len(beyond):
            raise self._wrong_label(beyond[0], f"a label from 0 to {len(classes) - 1}", int(labels[beyond[0]]))
        super().__init__("records", split, classes, labels, None, PHOTO_MEAN, PHOTO_STD, "resized_crop+flip", path,
                         published=False)
        self.blocks = blocks_of(self.record_file, BLOCK_BYTES)

    def _wrong_label(self, position, expected, found):
        file = self.record_file
        return RecordError(f"{file.path}: record {file.keys[position]} at byte {file.offsets[position]}: expected {expected}, "
                           f"found {found}")

    def _labels(self):
        """(N,) int32, from the list beside the file, or where it has not all of them from the records."""
        file, listed = self.record_file, {}
        path = os.path.splitext(file.path)[0] + ".lst"
        if os.path.exists(path):
            keys, labels, _ = read_list(path)
            listed = dict(zip(keys, labels))
        wanted = file.keys.tolist()
        if any(key not in listed for key in wanted):
            listed = None
        labels = np.empty(len(file), dtype=np.int32)
        for position, key in enumerate(wanted):
            found = listed[key] if listed is not None else file.read_labels(position)
            if len(found) != 1:
                raise self._wrong_label(position, "one label, the number of a class", f"{len(found)} labels")
            label = float(found[0])
            if not (label >= 0 and label == int(label) and label < 2 ** 31):
                raise self._wrong_label(position, "a label that is a whole number from 0 on", f"{label:g}")
            labels[position] = int(label)
        return labels

    def _image(self, position, stored=None):
        position = int(position)
        record = self.record_file.read(position, stored)
        if len(record.labels) != 1 or record.labels[0] != self.labels[position]:
            raise self._wrong_label(position, f"label {self.labels[position]} as in the list", f"{record.labels.tolist()}")
        name = f"{self.record_file.path}: record {self.record_file.keys[position]} at byte {self.record_file.offsets[position]}"
        return images.decode(record.data, name)

    def images(self, indices):
        """The images with these numbers: a list of (h, w, 3) uint8, RGB.

        Raises: RecordError, or UserError that names the record whose image cannot be decoded.
        """
        return [self._image(index) for index in indices]

    def read_ahead(self, groups):
        """Images of an epoch, read before they are asked for: an object with `images` and `close`.

        Args: groups: as of `ShardedBatches.groups`.
        """
        return AheadImages(self._image, self.record_file, groups)


class AheadImages:
    """`images` of a data set through a `ReadAhead`. Args: decode: function of (number, its bytes in the file) -> image."""

    def __init__(self, decode, file, groups):
        self._decode, self._reader = decode, ReadAhead(file, groups, BUFFER_BYTES)

    def images(self, indices):
        """As the data set's own."""
        return [self._decode(index, self._reader.stored(int(index))) for index in indices]

    def close(self):
        """End the reading."""
        self._reader.close()


def _beside(training):
    """The validation file that belongs to a training file by its name, or None."""
    folder, name = os.path.split(training)
    stem = name[:-len(".rec")]
    for word in _TRAINING:
        if stem == word or stem.endswith(("_" + word, "-" + word)):
            for other in _VALIDATION:
                path = os.path.join(folder, stem[:-len(word)] + other + ".rec")
                if os.path.isfile(path):
                    return path
    return None


def find_records(data_dir):
    """(training file, validation file or None) that ``--data-dir`` means.

    Args: data_dir: a .rec file; two of them with a comma between; what comes before "_train.rec" or ".rec"; or a folder with
        one training file in it.
    Raises: UserError that says what was looked for.
    """
    if not data_dir:
        raise UserError("records: name a .rec file, or the prefix that tools/pack.py wrote to, with --data-dir")
    parts = data_dir.split(",") if data_dir.count(",") == 1 and not os.path.exists(data_dir) else [data_dir]
    if len(parts) == 2:
        for part in parts:
            if not os.path.isfile(part):
                raise UserError(f"records: --data-dir names {part}, which is not a file; expected TRAIN.rec,VALIDATION.rec")
        return tuple(parts)
    if os.path.isfile(data_dir):
        return data_dir, _beside(data_dir)
    if os.path.isdir(data_dir):
        found = sorted(glob.glob(os.path.join(glob.escape(data_dir), "*.rec")))
        training = [path for path in found if _beside(path)] or found
        if len(training) != 1:
            raise UserError(f"records: expected one training file in {data_dir} (train.rec with val.rec beside it), found "
                            f"{images.shortened(map(os.path.basename, training)) if training else 'no .rec file'}")
        return training[0], _beside(training[0])
    looked = [data_dir + ending for ending in ("_train.rec", "-train.rec", ".rec")]
    for path in looked:
        if os.path.isfile(path):
            return path, _beside(path)
    raise UserError(f"records: no file {', '.join(looked)}; expected one that tools/pack.py or MXNet's im2rec made")


def load_records(data_dir, train):
    """The training or the validation images of ``--dataset records``. Raises: UserError as `find_records`."""
    training, validation = find_records(data_dir)
    if train:
        return RecordDataset(training)
    if validation is None:
        raise UserError(f"records: no validation images beside {training}; expected a file that ends in _val.rec where it "
                        "ends in _train.rec (tools/pack.py --train-ratio makes both), or --data-dir TRAIN.rec,VALIDATION.rec")
    # The classes are those of training, for all splits; where they have no names, their number is in its labels.
    names = _metadata(training).get("classes") or RecordDataset(training).classes
    own = _metadata(validation).get("classes") or names
    if list(own) != list(names):
        raise UserError(f"{validation}: its classes ({images.shortened(own)}) are not those of {training} "
                        f"({images.shortened(names)})")
    return RecordDataset(validation, names, "test")
