"""Test protocols: one centre crop, ten crops, or the whole image at once (dense).

Source: A. Krizhevsky, I. Sutskever, G. E. Hinton, ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012,
section 4.1 (ten crops, predictions averaged); K. Simonyan, A. Zisserman, Very Deep Convolutional Networks, 2014,
arXiv:1409.1556, section 3.2 (dense: class scores averaged over positions, then over the image and its mirror image).
"""
import numpy as np

from ..data import Transform
from ..data.transforms import CENTRE_SHARE, resize
from ..errors import UserError

__all__ = ["CROPS", "check_crops", "framed", "ten_crops", "whole_images"]

#: The protocols by name.
CROPS = ("1", "10", "dense")


def check_crops(crops):
    """The name of a protocol. Raises: UserError for anything else."""
    if str(crops) not in CROPS:
        raise UserError(f"crops is {crops!r}; expected one of {', '.join(CROPS)}")
    return str(crops)


def _frame(size):
    """The shorter side of the image that crops of this size are taken from: 256 for 224."""
    return round(size / CENTRE_SHARE)


def _scaled(image, height, width):
    """A uint8 image resized so that it just covers height x width, its aspect kept."""
    rows, columns = image.shape[:2]
    scale = max(height / rows, width / columns)
    return resize(image[None], max(height, round(rows * scale)), max(width, round(columns * scale)))[0]


def framed(images, transform):
    """The centres of images, larger than the transform's input by 256 / 224, normalised.

    Shape: N images (h, w, c) uint8 -> (N, C, H', W') float32.
    """
    height, width = (_frame(size) for size in transform.input_shape[1:])
    frames = []
    for image in images:
        image = _scaled(image, height, width)
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        frames.append(image[top:top + height, left:left + width])
    return _normalised(frames, transform)


def _normalised(images, transform):
    """Images of one size, normalised at that size."""
    height, width = images[0].shape[:2]
    # A transform for exactly this size only normalises, and makes grey of colour or the reverse.
    fitting = Transform((transform.input_shape[0], height, width), transform.mean, transform.std)
    return fitting(list(images))


def ten_crops(images, transform):
    """The four corners and the centre of each image, and the same mirrored.

    Shape: N images (h, w, c) uint8 -> (N, 10, C, H, W) float32.
    """
    planes = framed(images, transform)
    height, width = transform.input_shape[1:]
    down, across = planes.shape[2] - height, planes.shape[3] - width
    places = [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]
    crops = np.stack([planes[:, :, top:top + height, left:left + width] for top, left in places], axis=1)
    return np.concatenate([crops, crops[..., ::-1]], axis=1)


def whole_images(images, transform):
    """Each whole image with its shorter side as large as crops are taken from, normalised; none is cut.

    Shape: N images (h, w, c) uint8 -> N arrays (1, C, H', W') float32.
    """
    height, width = (_frame(size) for size in transform.input_shape[1:])
    return [_normalised([_scaled(image, height, width)], transform) for image in images]
