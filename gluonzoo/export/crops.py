"""Test protocols: one centre crop, ten crops, or the whole image at once (dense).

Source: A. Krizhevsky, I. Sutskever, G. E. Hinton, ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012,
section 4.1 (ten crops, predictions averaged); K. Simonyan, A. Zisserman, Very Deep Convolutional Networks, 2014,
arXiv:1409.1556, section 3.2 (dense: class scores averaged over positions, then over the image and its mirror image).
"""
import mxnet as mx
import numpy as np

from ..data import Transform
from ..data.transforms import CENTRE_SHARE, resize
from ..errors import UserError
from .metadata import ExportError

__all__ = ["CROPS", "check_crops", "for_any_size", "framed", "normalised", "scaled", "ten_crops", "whole_images"]

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


def scaled(image, height, width):
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
        image = scaled(image, height, width)
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        frames.append(image[top:top + height, left:left + width])
    return normalised(frames, transform)


def normalised(images, transform):
    """Images of one size, normalised at that size.

    Shape: N images (h, w, c) uint8, a list or an array -> (N, C, h, w) float32.
    """
    height, width = images[0].shape[:2]
    # A transform for exactly this size only normalises, and makes grey of colour or the reverse.
    fitting = Transform((transform.input_shape[0], height, width), transform.mean, transform.std)
    return fitting(images)


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
    return [normalised([scaled(image, height, width)], transform) for image in images]


def for_any_size(block, input_shape, name=None):
    """The block itself where it takes any size, else a fully convolutional copy.

    Args: input_shape: (C, H, W) of its standard images; name: its name, for messages.
    Raises: UserError for a network that takes one size only.
    """
    name = name or type(block).__name__
    fixed = getattr(block, "fixed_size", None)
    if isinstance(block, mx.gluon.SymbolBlock) or fixed is None:
        larger = tuple(2 * size for size in input_shape[1:])
        symbol = block(mx.sym.var("data"))
        try:
            fits = symbol.infer_shape(data=(1, input_shape[0]) + larger)[1] is not None
        except mx.MXNetError:
            fits = False
        if not fits:
            kind = "the export of " if isinstance(block, mx.gluon.SymbolBlock) else ""
            raise ExportError(f"dense: {kind}{name} takes {'x'.join(map(str, input_shape[1:]))} only, and a graph's dense layers "
                              "cannot be made convolutions; use a network of gluonzoo with its weights")
        return block
    if not fixed:
        return block
    from ..layers.dense_head import to_fully_convolutional
    return to_fully_convolutional(block)
