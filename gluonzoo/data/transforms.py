"""From uint8 images to a network's input: size, channels, augmentation, normalisation.

All of it is NumPy, vectorised over the batch where the images come as one array.
"""
import math

import numpy as np

from ..errors import UserError
from . import draws

__all__ = ["AUGMENTATIONS", "Transform", "resize", "to_grey"]

#: Names for the argument `augment` of `Transform`, and the steps they stand for.
AUGMENTATIONS = {
    "none": (),
    "crop": ("crop",),
    "flip": ("flip",),
    "crop+flip": ("crop", "flip"),
    "resized_crop+flip": ("resized_crop", "flip"),
}

#: Zero pixels on every side before a random crop. Source: He et al., "Deep Residual Learning", 2015, section 4.2.
CROP_PADDING = 4
#: An image at most this much smaller than the input is padded with zeros, not resized (28 -> 32 as in LeNet-5).
LARGEST_PADDING = 8
#: Inputs up to this size count as small: above, padding is never used in place of resizing.
LARGEST_SMALL = 64
#: Images up to this size are resized to `TINY_SHARE` of the input and padded: 8 -> 24 -> 32. scikit-learn's digits fill
#: their frame; with about the margin of MNIST's, LeNet-5 makes a quarter fewer errors than with none.
TINY, TINY_SHARE = 16, 0.75
#: Evaluation on photographs: the shorter side becomes size * 256 / 224, then the centre is taken.
CENTRE_SHARE = 224 / 256
#: Random resized crop. Source: C. Szegedy et al., "Going Deeper with Convolutions", 2014, section 6: 8 % to 100 % of
#: the area, aspect ratio 3/4 to 4/3.
CROP_AREA, CROP_RATIO, CROP_TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10
#: Weights of red, green and blue in grey (ITU-R BT.601), in 65536ths as image libraries round them.
LUMA = (19595, 38470, 7471)

_STREAM_DOWN, _STREAM_ACROSS, _STREAM_FLIP, _STREAM_BOX = 0, 1, 2, 16


def _taps(size, out, start, stop):
    """Source pixels and weights of every output pixel along one axis, for the interval start..stop of the source.

    Shape: -> (out, taps) int64 pixels, (out, taps) float32 weights that sum to 1.
    """
    scale = (stop - start) / out
    support = max(scale, 1.0)  # The triangle widens when shrinking, so that every source pixel counts.
    centre = start + (np.arange(out) + 0.5) * scale
    first = np.floor(centre - support).astype(np.int64)
    pixels = first[:, None] + np.arange(2 * math.ceil(support) + 1)
    weights = np.maximum(0.0, 1.0 - np.abs(pixels + 0.5 - centre[:, None]) / support)
    weights[(pixels < 0) | (pixels >= size)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(pixels, 0, size - 1), weights.astype(np.float32)


def _mix_rows(values, pixels, weights):
    """Weighted sums of rows: (..., n, m), (out, taps), (out, taps) -> (..., out, m) float32.

    Element by element and in a fixed order, so that an image's result does not depend on the batch it is in.
    """
    total = part = None
    for tap in range(pixels.shape[1]):
        weight = weights[:, tap, None]
        if not weight.any():
            continue
        if total is None:
            total = np.take(values, pixels[:, tap], axis=-2).astype(np.float32, copy=False)
            total *= weight
            part = np.empty_like(total)
            continue
        if values.dtype == np.float32:
            np.take(values, pixels[:, tap], axis=-2, out=part, mode="clip")  # Any other mode would buffer `out`.
        else:
            part[...] = np.take(values, pixels[:, tap], axis=-2)
        part *= weight
        total += part
    return total


def resize(images, height, width, box=None):
    """Bilinear resize with a triangle filter that widens when shrinking, as Pillow's BILINEAR.

    Shape: (..., h, w, C) uint8 -> (..., height, width, C) uint8.
    Args: box: (top, left, bottom, right) in pixels of the source, fractions allowed: the part to show.
    """
    rows, columns, channels = images.shape[-3:]
    batch = images.shape[:-3]
    top, left, bottom, right = box or (0, 0, rows, columns)
    values = images
    if (rows, top, bottom) != (height, 0, height):
        values = _mix_rows(values.reshape(batch + (rows, columns * channels)), *_taps(rows, height, top, bottom))
        values = values.reshape(batch + (height, columns, channels))
    if (columns, left, right) != (width, 0, width):
        # Columns become rows, which lie together in memory.
        turned = np.ascontiguousarray(np.swapaxes(values, -3, -2)).reshape(batch + (columns, height * channels))
        values = _mix_rows(turned, *_taps(columns, width, left, right))
        values = np.swapaxes(values.reshape(batch + (width, height, channels)), -3, -2)
    return values.copy() if values.dtype == np.uint8 else np.rint(values).astype(np.uint8)


def to_grey(images):
    """Luma of RGB images, as image libraries compute it.

    Shape: (..., 3) uint8 -> (..., 1) uint8.
    """
    red, green, blue = LUMA
    wide = images.astype(np.uint32)
    grey = (wide[..., 0] * red + wide[..., 1] * green + wide[..., 2] * blue + 0x8000) >> 16
    return grey.astype(np.uint8)[..., None]


def _centre_box(rows, columns, height, width, share):
    """The centred part with the aspect of height x width whose larger relation to the image is `share` of it."""
    scale = share * min(rows / height, columns / width)
    tall, wide = scale * height, scale * width
    top, left = (rows - tall) / 2, (columns - wide) / 2
    return top, left, top + tall, left + wide


def _place(images, height, width):
    """Images centred on black: (N, h, w, C) uint8 -> (N, height, width, C) uint8."""
    rows, columns = images.shape[1:3]
    if (rows, columns) == (height, width):
        return images
    canvas = np.zeros((len(images), height, width, images.shape[3]), dtype=np.uint8)
    top, left = (height - rows) // 2, (width - columns) // 2
    canvas[:, top:top + rows, left:left + columns] = images
    return canvas


class Transform:
    """Makes a network's input from images: fits them to its size and channels, augments, normalises.

    Shape: uint8 (N, h, w, c), or N images (h, w, c) of any sizes -> (N, C, H, W) float32. c is 1 (grey) or 3 (RGB).

    Fitting: an image up to 8 pixels smaller than a small input (at most 64) is centred on black (28 -> 32, as LeNet-5's
    paper places its digits); a tiny one (at most 16, scikit-learn's digits) is resized to 3/4 of the input and then
    centred on black; otherwise it is resized. From an array of equal sizes the whole image is shown; of image files the
    shorter side becomes the input's size * 256 / 224 and the centre is taken. Grey is repeated into three channels,
    and RGB becomes luma for one.

    Augmentation, only with `train`: "crop": 4 black pixels on every side, then a crop of the input's size anywhere in
    it; "flip": left and right exchanged for one image in two; "crop+flip": both; "resized_crop+flip": a part of 8 % to
    100 % of the area and of aspect 3/4 to 4/3, resized to the input, and the flip. What is drawn for an image is a pure
    function of (seed, epoch, index).

    Args: input_shape: (C, H, W), C 1 or 3.
        mean, std: of pixels in [0, 1], one number for each channel of the images or of the network.
        train: augment.
        augment: a name of `AUGMENTATIONS`.
        seed: of the augmentation, any whole number.
    Raises: UserError when an argument is out of range.
    """

    def __init__(self, input_shape, mean, std, train=False, augment="none", seed=0):
        shape = tuple(input_shape)
        if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
            raise UserError(f"input_shape is {shape}; expected (C, H, W) with C 1 or 3 and H and W at least 1")
        if augment not in AUGMENTATIONS:
            raise UserError(f"augmentation {augment!r} is not known; expected one of {', '.join(AUGMENTATIONS)}")
        self.input_shape = tuple(int(number) for number in shape)
        self.train, self.augment, self.seed = bool(train), augment, int(seed)
        self.steps = AUGMENTATIONS[augment] if train else ()
        self.mean = self._per_channel("mean", mean, lambda values: float(np.dot(values, LUMA)) / 65536)
        # Exact for the deviation of luma only if the channels move together, which they mostly do in photographs.
        self.std = self._per_channel("std", std, lambda values: float(np.mean(values)))
        if min(self.std) <= 0:
            raise UserError(f"std is {tuple(std)}; expected numbers above 0")
        self._scale = (1.0 / (255.0 * np.asarray(self.std))).astype(np.float32)
        self._shift = (-np.asarray(self.mean) / np.asarray(self.std)).astype(np.float32)

    def _per_channel(self, name, values, to_one):
        values = tuple(float(value) for value in np.ravel(values))
        channels = self.input_shape[0]
        if len(values) not in (1, 3) or not np.all(np.isfinite(values)):
            raise UserError(f"{name} is {values}; expected 1 or 3 finite numbers")
        if len(values) == channels:
            return values
        return (to_one(values),) if channels == 1 else values * 3

    def __call__(self, images, indices=None, epoch=0):
        """Transform images; `indices` are their numbers in the data set, needed for augmentation."""
        count = len(images)
        if count == 0:
            return np.zeros((0,) + self.input_shape, dtype=np.float32)
        if self.steps:
            if indices is None or len(indices) != count:
                raise ValueError(f"{count} images came with {'no' if indices is None else len(indices)} indices; "
                                 f"augmentation needs one for each image")
            indices = np.asarray(indices, dtype=np.int64)
        margin = CROP_PADDING if "crop" in self.steps else 0
        if isinstance(images, np.ndarray) and images.ndim == 4 and "resized_crop" not in self.steps:
            fitted = self._fit_array(self._channels(images), margin)
        else:
            fitted = np.concatenate([self._fit_image(self._channels(image[None]), indices, i, epoch, margin)
                                     for i, image in enumerate(images)])
        planes = fitted.transpose(0, 3, 1, 2)
        if "crop" in self.steps:
            planes = self._crop(planes, indices, epoch)
        if "flip" in self.steps:
            planes = self._flip(planes, indices, epoch)
        return self._normalise(planes)

    def _channels(self, images):
        """Check images (N, h, w, c) and make c 1 where the network wants grey."""
        if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
            raise ValueError(f"an image of shape {images.shape[1:]} and type {images.dtype} was given; "
                             f"expected (h, w, 1) or (h, w, 3) of uint8")
        return to_grey(images) if self.input_shape[0] == 1 and images.shape[3] == 3 else images

    def _inner(self, rows, columns):
        """The size an image gets before it is centred on black, or None where the image is not of a small kind."""
        height, width = self.input_shape[1:]
        if (rows, columns) == (height, width):
            return rows, columns
        if max(height, width) <= LARGEST_SMALL and all(
                0 <= room <= LARGEST_PADDING for room in (height - rows, width - columns)):
            return rows, columns
        if max(rows, columns) <= TINY and rows < height and columns < width:
            return round(height * TINY_SHARE), round(width * TINY_SHARE)
        return None

    def _fit_array(self, images, margin):
        """(N, h, w, c) -> (N, H + 2 margin, W + 2 margin, c), the whole image shown."""
        height, width = self.input_shape[1:]
        inner = self._inner(*images.shape[1:3]) or (height, width)
        if images.shape[1:3] != inner:
            images = resize(images, *inner)
        return _place(images, height + 2 * margin, width + 2 * margin)

    def _fit_image(self, image, indices, i, epoch, margin):
        """One photograph: (1, h, w, c) -> (1, H + 2 margin, W + 2 margin, C)."""
        rows, columns, channels = image.shape[1:]
        height, width = self.input_shape[1:]
        if channels < self.input_shape[0]:  # Grey and RGB files may meet in one batch.
            image = np.repeat(image, self.input_shape[0], axis=3)
        if "resized_crop" in self.steps:
            return resize(image, height, width, self._random_box(rows, columns, int(indices[i]), epoch))
        if self._inner(rows, columns):
            return self._fit_array(image, margin)
        share = 1.0 if "crop" in self.steps else CENTRE_SHARE
        image = resize(image, height, width, _centre_box(rows, columns, height, width, share))
        return _place(image, height + 2 * margin, width + 2 * margin)

    def _random_box(self, rows, columns, index, epoch):
        """A random part of an image: (top, left, bottom, right) in whole pixels."""
        for attempt in range(CROP_TRIES):
            area, ratio, down, across = (
                draws.uniform_at(self.seed, epoch, index, _STREAM_BOX + 4 * attempt + k) for k in range(4))
            area = rows * columns * (CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * area)
            ratio = CROP_RATIO[0] * (CROP_RATIO[1] / CROP_RATIO[0]) ** ratio  # Uniform in the logarithm.
            wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= columns and 0 < tall <= rows:
                top, left = int(down * (rows - tall + 1)), int(across * (columns - wide + 1))
                return top, left, top + tall, left + wide
        # A very long image: its centre, as wide or tall as the ratios allow.
        tall, wide = min(rows, columns / CROP_RATIO[0]), min(columns, rows * CROP_RATIO[1])
        top, left = (rows - tall) / 2, (columns - wide) / 2
        return top, left, top + tall, left + wide

    def _crop(self, planes, indices, epoch):
        """(N, c, H + 8, W + 8) -> (N, c, H, W), a window anywhere."""
        places = 2 * CROP_PADDING + 1
        down = draws.integers(self.seed, epoch, indices, _STREAM_DOWN, places)
        across = draws.integers(self.seed, epoch, indices, _STREAM_ACROSS, places)
        windows = np.lib.stride_tricks.sliding_window_view(planes, self.input_shape[1:], axis=(2, 3))
        return windows[np.arange(len(planes)), :, down, across]

    def _flip(self, planes, indices, epoch):
        flipped = draws.uniform(self.seed, epoch, indices, _STREAM_FLIP) < 0.5
        planes = planes if planes.flags.writeable and planes.flags.owndata else planes.copy()
        planes[flipped] = planes[flipped][..., ::-1]
        return planes

    def _normalise(self, planes):
        """(N, c, H, W) uint8 -> (N, C, H, W) float32: one multiplication and one addition for a pixel."""
        channels = self.input_shape[0]
        out = np.empty((len(planes),) + self.input_shape, dtype=np.float32)
        for channel in range(channels):
            source, target = planes[:, channel % planes.shape[1]], out[:, channel]
            scale, shift = self._scale[channel], self._shift[channel]
            np.multiply(source, scale, out=target, dtype=np.float32, casting="unsafe")
            target += shift
        return out
