"""From uint8 images to a network's input: size, channels, augmentation, normalisation.

All of it is NumPy, vectorised over the batch where the images come as one array.
"""
import math

import numpy as np

from ..errors import UserError
from . import augment_policies, draws
from .augment import parse
from .augment_color import IMAGENET_LIGHTING, Lighting, color_jitter, lighting_shifts
from .augment_mix import Mixing, cutout
from .planes import Buffers, look_up, normalise_image, normalising_table
from .resizing import LUMA, part, resize, to_grey

__all__ = ["Transform", "resize", "to_grey"]

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
CROP_RATIO, CROP_TRIES = (3 / 4, 4 / 3), 10
#: Values worked on at a time, so that they stay in the processor's cache from step to step.
AT_ONCE = 1 << 18
#: Pixels from which on an image's are looked up rather than computed.
LARGE = 4096
_LEVELS = np.arange(256, dtype=np.float32)
_STREAM_DOWN, _STREAM_ACROSS, _STREAM_FLIP, _STREAM_SCALE, _STREAM_BOX = 0, 1, 2, 8, 16


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

    Augmentation, only with `train`: names joined by "+" as in `gluonzoo.data.augment`, for example "crop+flip" or
    "resized_crop+flip+color_jitter:0.4". What is drawn for an image is a pure function of (seed, epoch, index). mixup and
    CutMix need a second image and the labels, so that the caller mixes, with `mixing` (`Loader` does).

    Args: input_shape: (C, H, W), C 1 or 3.
        mean, std: of pixels in [0, 1], one number for each channel of the images or of the network.
        train: augment.
        augment: names of `AUGMENTATIONS` with their numbers, or "none".
        seed: of the augmentation, any whole number.
        lighting: for "pca_lighting:own" the data set's `augment_color.Lighting`, of `augment_color.lighting_of`.
    Attributes: mixing: an `augment_mix.Mixing`, or None where labels stay as they are.
    Raises: UserError when an argument is out of range.
    """

    def __init__(self, input_shape, mean, std, train=False, augment="none", seed=0, lighting=None):
        shape = tuple(input_shape)
        if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
            raise UserError(f"input_shape is {shape}; expected (C, H, W) with C 1 or 3 and H and W at least 1")
        steps = parse(augment)
        self.input_shape = tuple(int(number) for number in shape)
        self.train, self.augment, self.seed = bool(train), augment, int(seed)
        self.steps = steps if train else {}
        self.lighting = self._checked_lighting(lighting)
        self.mixing = None
        if "mixup" in self.steps or "cutmix" in self.steps:
            self.mixing = Mixing(self.steps.get("mixup"), self.steps.get("cutmix"), self.seed)
        self.mean = self._per_channel("mean", mean, lambda values: float(np.dot(values, LUMA)) / 65536)
        # Exact for the deviation of luma only if the channels move together, which they mostly do in photographs.
        self.std = self._per_channel("std", std, lambda values: float(np.mean(values)))
        if min(self.std) <= 0:
            raise UserError(f"std is {tuple(std)}; expected numbers above 0")
        self._buffers = Buffers()
        self._scale = (1.0 / (255.0 * np.asarray(self.std))).astype(np.float32)
        self._shift = (-np.asarray(self.mean) / np.asarray(self.std)).astype(np.float32)
        self._table = normalising_table(self._scale, self._shift)

    def _per_channel(self, name, values, to_one):
        values = tuple(float(value) for value in np.ravel(values))
        channels = self.input_shape[0]
        if len(values) not in (1, 3) or not np.all(np.isfinite(values)):
            raise UserError(f"{name} is {values}; expected 1 or 3 finite numbers")
        if len(values) == channels:
            return values
        return (to_one(values),) if channels == 1 else values * 3

    def _checked_lighting(self, lighting):
        """The components that "pca_lighting" is along, or None without it."""
        if "pca_lighting" not in self.steps:
            return None
        if not self.steps["pca_lighting"][1]:
            return IMAGENET_LIGHTING
        if lighting is None:
            raise UserError("augmentation pca_lighting:own needs the data set's components; expected the argument lighting")
        size = len(lighting[0])
        if size not in (1, 3) or np.shape(lighting[1]) != (size, size):
            raise UserError(f"lighting has {size} eigenvalues and eigenvectors of shape {np.shape(lighting[1])}; expected 3 and "
                            "(3, 3), or 1 and (1, 1)")
        return Lighting(*lighting)

    @property
    def own_lighting(self):
        """The data set's components that "pca_lighting:own" is along, as JSON can hold them; None without it."""
        if self.lighting is None or not self.steps["pca_lighting"][1]:
            return None
        values, vectors = self.lighting
        return {"eigenvalues": [float(value) for value in values], "eigenvectors": [[float(v) for v in row] for row in vectors]}

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
        if not isinstance(images, np.ndarray) and {"resized_crop", "scale_jitter", "flip"}.issuperset(self.steps):
            return self._photographs(images, indices, epoch)
        margin = self.steps["crop"][0] if "crop" in self.steps else 0
        out = self._buffers.take((count,) + self.input_shape)
        together = None
        if isinstance(images, np.ndarray) and images.ndim == 4 and not {"resized_crop", "scale_jitter"} & set(self.steps):
            together = self._fit_array(self._channels(images), margin)
        most = max(1, AT_ONCE // out[0].size)
        for start in range(0, count, most):
            here = slice(start, min(start + most, count))
            fitted = together[here] if together is not None else np.concatenate([
                self._fit_image(self._channels(images[i][None]), indices, i, epoch, margin) for i in range(count)[here]])
            self._augment(fitted, None if indices is None else indices[here], epoch, out[here])
        return out

    def _augment(self, fitted, indices, epoch, out):
        """Images that fit, through all the other steps into their place: (n, H + 2 margin, W + 2 margin, c) uint8 ->
        out (n, C, H, W) float32."""
        planes = fitted.transpose(0, 3, 1, 2)
        if "crop" in self.steps:
            planes = self._crop(planes, indices, epoch)
        if "flip" in self.steps:
            planes = self._flip(planes, indices, epoch)
        if "randaugment" in self.steps:
            planes = augment_policies.randaugment(planes, *self.steps["randaugment"], self.mean, self.seed, epoch, indices)
        if "trivialaugment" in self.steps:
            planes = augment_policies.trivialaugment(planes, self.mean, self.seed, epoch, indices)
        if "color_jitter" in self.steps:
            planes = color_jitter(planes, self.steps["color_jitter"], self.seed, epoch, indices)
        shifts = None
        if "pca_lighting" in self.steps:
            shifts = lighting_shifts(self.lighting, self.steps["pca_lighting"][0], self.input_shape[0], self.seed, epoch, indices)
        self._normalise(planes, shifts, out)
        if "cutout" in self.steps:
            cutout(out, self.steps["cutout"][0], self.seed, epoch, indices)

    def _photographs(self, images, indices, epoch):
        """`__call__` for images of any sizes and the usual augmentation: one at a time, while it is in the processor's cache."""
        out = self._buffers.take((len(images),) + self.input_shape)
        flipped = np.zeros(len(images), dtype=bool)
        if "flip" in self.steps:
            flipped = draws.uniform(self.seed, epoch, indices, _STREAM_FLIP) < 0.5
        for i, image in enumerate(images):
            fitted = self._fit_image(self._channels(image[None]), indices, i, epoch, 0)
            normalise_image(fitted[0], self._table, flipped[i], out[i])
        return out

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

    def shown(self, rows, columns):
        """The size (height, width) in pixels that an image of an array has in the input, centred on black where smaller."""
        return self._inner(rows, columns) or self.input_shape[1:]

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
            return part(image, height, width, self._random_box(rows, columns, int(indices[i]), epoch))
        if "scale_jitter" in self.steps:
            return part(image, height, width, self._jittered_box(rows, columns, int(indices[i]), epoch))
        if self._inner(rows, columns):
            return self._fit_array(image, margin)
        share = 1.0 if "crop" in self.steps else CENTRE_SHARE
        fitted = part if self.steps else resize
        image = fitted(image, height, width, _centre_box(rows, columns, height, width, share))
        return _place(image, height + 2 * margin, width + 2 * margin)

    def _jittered_box(self, rows, columns, index, epoch):
        """The part of an image that a crop shows after the image was resized at random: (top, left, bottom, right) in pixels.

        Source: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014,
        arXiv:1409.1556, section 3.1 (training scale S uniform in [256, 512], the shorter side; crop of 224).
        """
        low, high = self.steps["scale_jitter"]
        size, down, across = (draws.uniform_at(self.seed, epoch, index, _STREAM_SCALE + k) for k in range(3))
        share = 224 / (low + (high - low) * size)
        height, width = self.input_shape[1:]
        scale = share * min(rows / height, columns / width)
        tall, wide = scale * height, scale * width
        top, left = down * (rows - tall), across * (columns - wide)
        return top, left, top + tall, left + wide

    def _random_box(self, rows, columns, index, epoch):
        """A random part of an image: (top, left, bottom, right) in whole pixels."""
        smallest, largest = self.steps["resized_crop"]
        for attempt in range(CROP_TRIES):
            area, ratio, down, across = (
                draws.uniform_at(self.seed, epoch, index, _STREAM_BOX + 4 * attempt + k) for k in range(4))
            area = rows * columns * (smallest + (largest - smallest) * area)
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
        """(N, c, H + 2 padding, W + 2 padding) -> (N, c, H, W), a window anywhere.

        Source: K. He and others, "Deep Residual Learning", 2015, section 4.2 (padding 4).
        """
        places = 2 * self.steps["crop"][0] + 1
        down = draws.integers(self.seed, epoch, indices, _STREAM_DOWN, places)
        across = draws.integers(self.seed, epoch, indices, _STREAM_ACROSS, places)
        height, width = self.input_shape[1:]
        out = np.empty(planes.shape[:2] + (height, width), dtype=np.uint8)
        for image, source, top, left in zip(out, planes, down.tolist(), across.tolist()):
            image[...] = source[:, top:top + height, left:left + width]
        return out

    def _flip(self, planes, indices, epoch):
        flipped = draws.uniform(self.seed, epoch, indices, _STREAM_FLIP) < 0.5
        planes = planes if planes.flags.writeable and planes.flags.owndata else planes.copy()
        planes[flipped] = planes[flipped][..., ::-1]
        return planes

    def _normalise(self, planes, shifts, out):
        """(N, c, H, W) uint8 or float32 -> out (N, C, H, W) float32: one multiplication and one addition for a pixel.

        shifts: (N, C), added to pixels in [0, 1] of each image; or None.
        """
        large = planes.dtype == np.uint8 and planes[0, 0].size >= LARGE
        for channel in range(self.input_shape[0]):
            source, target = planes[:, channel % planes.shape[1]], out[:, channel]
            scale, shift = self._scale[channel], self._shift[channel]
            if shifts is not None:
                shift = (shift + shifts[:, channel] / np.float32(self.std[channel]))[:, None, None]
            if large:
                # The same numbers, looked up: there are only 256 of them.
                table = self._table[channel]
                for i in range(len(source)):
                    look_up(source[i], table if shifts is None else _LEVELS * scale + shift[i, 0, 0], target[i])
                continue
            np.multiply(source, scale, out=target, dtype=np.float32, casting="unsafe")
            target += shift
