"""Images in, classes with probabilities out, from an export alone: no network's code is imported."""
import glob
import os
from dataclasses import dataclass
from typing import Optional

import mxnet as mx
import numpy as np

from ..data import Transform, decode
from ..data.images import EXTENSIONS
from .check import flatten
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
    """A loaded export that takes images of any size, grey or RGB.

    Args:
        source: what `load_symbol` takes: a prefix, one of the export's files, or its folder.
        ctx: the device; the default is the processor.
    Raises: ExportError for a damaged export, or one that does not say how images become inputs.
    """

    def __init__(self, source, ctx=None):
        self._block, self.metadata = load_symbol(source, ctx)
        self._ctx = ctx or mx.cpu()
        if self.metadata is None or self.metadata.mean is None:
            raise ExportError(f"{source}: does not say how pixels are normalised; export it again with mean and std")
        if self.metadata.transform["name"] != TRANSFORM["name"]:
            raise ExportError(f"{source}: fits images by {self.metadata.transform['name']!r}; this gluonzoo knows "
                              f"{TRANSFORM['name']!r}")
        self._transform = Transform(self.metadata.input_shape, self.metadata.mean, self.metadata.std, train=False)

    def probabilities(self, images):
        """Softmax of the first output.

        Shape: N images (h, w, 1) or (h, w, 3) uint8 -> (N, K) float32.
        """
        inputs = mx.nd.array(self._transform(list(images)), ctx=self._ctx)
        return mx.nd.softmax(flatten(self._block(inputs))[0][1]).asnumpy()

    def predict(self, images, top=5):
        """The likeliest classes of each image: a list of at most `top` `Prediction`s, the likeliest first."""
        names = self.metadata.classes
        lists = []
        for row in self.probabilities(images):
            order = np.argsort(-row, kind="stable")[:top]
            lists.append([Prediction(int(i), names[i] if names and i < len(names) else None, float(row[i]))
                          for i in order])
        return lists


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
