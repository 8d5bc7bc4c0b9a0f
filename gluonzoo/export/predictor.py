"""Images in, classes with probabilities out. From an export it works alone: no network's code is imported."""
import glob
import os
from dataclasses import dataclass
from typing import Optional

import mxnet as mx
import numpy as np

from ..data import Transform, decode
from ..data.images import EXTENSIONS
from .check import flatten
from .crops import check_crops, for_any_size, ten_crops, whole_images
from .metadata import TRANSFORM, ExportError
from .symbol import load_symbol

__all__ = ["Prediction", "Predictor", "find_images", "read_images"]

#: Files taken from a folder. A file named outright may have any name.
IMAGE_ENDINGS = EXTENSIONS + (".npy",)


@dataclass(frozen=True)
class Prediction:
    """One guess: number of the class, its name (None when not known), its probability in [0, 1]."""
    index: int
    name: Optional[str]
    probability: float


class Predictor:
    """A loaded export, or a live network, that takes images of any size, grey or RGB.

    Args:
        source: what `load_symbol` takes: a prefix, one of the export's files, or its folder.
        ctx: the device; the default is the processor.
    Raises: ExportError for a damaged export, or one that does not say how images become inputs.
    """

    def __init__(self, source, ctx=None):
        block, metadata = load_symbol(source, ctx)
        if metadata is None or metadata.mean is None:
            raise ExportError(f"{source}: does not say how pixels are normalised; export it again with mean and std")
        if metadata.transform["name"] != TRANSFORM["name"]:
            raise ExportError(f"{source}: fits images by {metadata.transform['name']!r}; this gluonzoo knows "
                              f"{TRANSFORM['name']!r}")
        self._set(block, metadata, ctx)

    @classmethod
    def of(cls, net, metadata, ctx=None):
        """A predictor of a live network.

        Args: net: initialised; metadata: a `Metadata` with at least input_shape, mean and std.
        """
        made = cls.__new__(cls)
        made._set(net, metadata, ctx)
        return made

    def _set(self, block, metadata, ctx):
        self.block, self.metadata, self._ctx, self._dense = block, metadata, ctx or mx.cpu(), None
        self.transform = Transform(metadata.input_shape, metadata.mean, metadata.std, train=False)

    def _logits(self, block, inputs):
        """The first output as NumPy: (N, K), or (N, K, h, w) of a fully convolutional network."""
        return flatten(block(mx.nd.array(inputs, ctx=self._ctx)))[0][1].asnumpy()

    def probabilities(self, images, crops="1", mirror=False):
        """Softmax of the first output.

        Shape: N images (h, w, 1) or (h, w, 3) uint8 -> (N, K) float32.
        Args:
            crops: "1", the centre; "10", the softmax averaged over four corners and the centre, mirrored too; "dense", the
                whole larger image at once: class scores averaged over positions, then softmax.
            mirror: average the softmax of the image and its mirror image ("10" does in any case).
        Raises: UserError when `crops` is none of these, or "dense" and the network takes one size only.
        """
        crops, images = check_crops(crops), list(images)
        if crops == "10":
            stacks = ten_crops(images, self.transform)
            return np.stack([_softmax(self._logits(self.block, stack)).mean(axis=0) for stack in stacks])
        if crops == "1":
            return self._with_mirror(self.block, self.transform(images), mirror)
        block = self._dense_block()
        return np.concatenate([self._with_mirror(block, image, mirror) for image in whole_images(images, self.transform)])

    def _with_mirror(self, block, inputs, mirror):
        views = [inputs] + [np.ascontiguousarray(inputs[..., ::-1])] * bool(mirror)
        scores = [self._logits(block, view) for view in views]
        return np.mean([_softmax(score.reshape(score.shape[:2] + (-1,)).mean(axis=2)) for score in scores], axis=0)

    def _dense_block(self):
        """A block for images larger than the standard."""
        if self._dense is None:
            self._dense = for_any_size(self.block, self.metadata.input_shape, self.metadata.model)
        return self._dense

    def predict(self, images, top=5, crops="1", mirror=False):
        """The likeliest classes of each image: a list of at most `top` `Prediction`s, the likeliest first.

        Args: crops, mirror: as in `probabilities`.
        """
        names = self.metadata.classes
        lists = []
        for row in self.probabilities(images, crops, mirror):
            order = np.argsort(-row, kind="stable")[:top]
            lists.append([Prediction(int(i), names[i] if names and i < len(names) else None, float(row[i]))
                          for i in order])
        return lists


def _softmax(scores):
    """Of the last axis, as float32."""
    return mx.nd.softmax(mx.nd.array(scores)).asnumpy()


def find_images(paths):
    """The image files that paths, folders (searched to the bottom) and patterns stand for, in order.

    Raises: ExportError naming the path that is missing, or the folder or pattern without images.
    """
    files = []
    for path in paths:
        if os.path.isdir(path):
            found = sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names
                           if name.lower().endswith(IMAGE_ENDINGS))
        elif os.path.exists(path):
            found = [path]
        elif glob.has_magic(path):
            found = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
        else:
            raise ExportError(f"{path}: no such file")
        if not found:
            raise ExportError(f"{path}: no images there (files ending in {', '.join(IMAGE_ENDINGS)})")
        files += found
    return files


def read_images(path):
    """The images in a file: one, or all of a NumPy array (N, h, w, c).

    Shape: -> list of (h, w, 3) uint8 RGB; from .npy also (h, w, 1), as it was saved.
    Raises: UserError naming the file when it cannot be read as an image.
    """
    try:
        if path.lower().endswith(".npy"):
            return _from_array(path, np.load(path, allow_pickle=False))
        with open(path, "rb") as file:
            raw = file.read()
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise ExportError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    # Colour in any case: the transform turns it into the luma it was trained on.
    return [decode(raw, path)]


def _from_array(path, array):
    if not isinstance(array, np.ndarray):
        raise ExportError(f"{path}: expected one array, found an archive of several")
    if array.dtype != np.uint8:
        raise ExportError(f"{path}: expected pixels of uint8, found {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape:
        raise ExportError(f"{path}: expected an array (h, w), (h, w, c) or (N, h, w, c) with c 1 or 3, "
                          f"found {array.shape}")
    return list(array)
