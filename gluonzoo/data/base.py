"""The two kinds of data sets: images in memory, and image files."""
import numpy as np

from . import images

__all__ = ["ArrayDataset", "FolderDataset"]


class _Dataset:
    """What all data sets have.

    name, split: "train" or "test".
    classes: names in the order of the labels. labels: (N,) int32.
    image_shape: (C, H, W), or None where sizes differ.
    mean, std: of pixels in [0, 1], one number for each channel, for `Transform`.
    default_augment: the usual augmentation for training, names as of `gluonzoo.data.augment`.
    source: where it was read from. published: whether from the published files (image files may be lossy, or few).
    coarse_labels: CIFAR-100's 20 superclasses, (N,) int32; None for other sets.
    in_memory: whether `images` needs no decoding.
    """

    def __init__(self, name, split, classes, labels, image_shape, mean, std, default_augment, source, published=True):
        self.name, self.split, self.classes = name, split, tuple(classes)
        self.labels, self.image_shape = labels, image_shape
        self.mean, self.std, self.default_augment = mean, std, default_augment
        self.source, self.published, self.coarse_labels = str(source), published, None

    def __len__(self):
        return len(self.labels)

    def __repr__(self):
        size = "x".join(map(str, self.image_shape)) if self.image_shape else "images of any size"
        kind = "" if self.published else " (not the published files)"
        return f"{self.name} {self.split}: {len(self)} x {size}, {len(self.classes)} classes, from {self.source}{kind}"


class ArrayDataset(_Dataset):
    """Images of one size, in memory. `data`: (N, H, W, C) uint8."""

    in_memory = True

    def __init__(self, data, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.data = data

    def images(self, indices):
        """The images with these numbers: (n, H, W, C) uint8, a copy."""
        return self.data[np.asarray(indices, dtype=np.int64)]


class FolderDataset(_Dataset):
    """Image files by class, decoded when they are asked for. `files`: their paths in the folder or zip file."""

    in_memory = False

    def __init__(self, files, opened, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.files, self._opened = files, opened

    def images(self, indices):
        """The images with these numbers: a list of (h, w, 3) uint8, RGB.

        Raises: UserError that names the file when one cannot be read.
        """
        return [images.read(self._opened, self.files[index]) for index in indices]
