"""Augmentation of colour: brightness, contrast and saturation, and AlexNet's lighting along the principal components of RGB."""
import itertools
from collections import namedtuple

import numpy as np

from ..errors import UserError
from . import draws
from .augment import parse

__all__ = ["IMAGENET_LIGHTING", "Lighting", "color_jitter", "lighting_for", "lighting_of", "lighting_shifts"]

Lighting = namedtuple("Lighting", ["eigenvalues", "eigenvectors"])
Lighting.__doc__ = """Principal components of the pixels of a data set, in units of pixels in [0, 1].

eigenvalues: (c,) of the covariance, falling. eigenvectors: (c, c), a row a channel, a column a component. c: 3, or 1 for grey.
"""

#: Of the RGB pixels of ImageNet's training images. Source: the constants of the ResNet training code published by Facebook AI
#: Research (fb.resnet.torch, datasets/imagenet.lua), which MXNet's own training scripts use too, there times 255.
IMAGENET_LIGHTING = Lighting((0.2175, 0.0188, 0.0045), ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140),
                                                        (-0.5836, -0.6948, 0.4203)))
#: At most so many images, evenly spread over a random order, give a data set's covariance: in memory, and of files.
MOST_IN_MEMORY, MOST_FILES = 10000, 2000
#: Weights of red, green and blue in grey (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)

_STREAM_FACTORS, _STREAM_ORDER, _STREAM_LIGHTING = 64, 67, 80
_ORDERS = tuple(itertools.permutations(range(3)))
_CHUNK = 1 << 18  # Values worked on at a time, so that they stay in the processor's cache.


def _brightness(values, factors):
    values *= factors
    np.clip(values, 0.0, 255.0, out=values)


def _grey(values):
    if values.shape[1] == 1:
        return values.copy()
    grey = values[:, :1] * np.float32(LUMA[0])
    for channel in (1, 2):
        grey += values[:, channel:channel + 1] * np.float32(LUMA[channel])
    return grey


def _contrast(values, factors):
    grey = _grey(values)
    mean = grey.reshape(len(grey), -1).mean(axis=1).reshape(-1, 1, 1, 1)
    values *= factors
    values += (1 - factors) * mean
    np.clip(values, 0.0, 255.0, out=values)


def _saturation(values, factors):
    if values.shape[1] == 1:
        return
    grey = _grey(values)
    grey *= 1 - factors
    values *= factors
    values += grey
    np.clip(values, 0.0, 255.0, out=values)


_STEPS = (_brightness, _contrast, _saturation)


def color_jitter(planes, strengths, seed, epoch, indices):
    """Brightness, contrast and saturation of each image times a number of its own, in a random order of its own.

    Each is uniform in [max(0, 1 - strength), 1 + strength]. Brightness: the pixels times it. Contrast: their distance from the
    mean grey of the image. Saturation: their distance from their own grey; nothing for grey images. After each, what is outside
    of [0, 255] is cut, as image libraries do.

    Shape: (N, c, H, W) uint8 or float32, 0 to 255 -> the same, float32, not rounded.
    Args: strengths: of brightness, contrast and saturation; 0 leaves one out.
    Source: A. Howard, "Some Improvements on Deep Convolutional Neural Network Based Image Classification", 2013,
        arXiv:1312.5402, section 2 (the three manipulations in random order).
    """
    factors = np.stack([
        np.maximum(1 - strength, 0) + draws.uniform(seed, epoch, indices, _STREAM_FACTORS + number)
        * (1 + strength - max(1 - strength, 0)) for number, strength in enumerate(strengths)]).astype(np.float32)
    orders = draws.integers(seed, epoch, indices, _STREAM_ORDER, len(_ORDERS))
    out = np.empty(planes.shape, dtype=np.float32)
    most = max(1, _CHUNK // max(planes[0].size, 1))
    for number, order in enumerate(_ORDERS):
        members = np.flatnonzero(orders == number)
        for start in range(0, len(members), most):
            part = members[start:start + most]
            values = planes[part].astype(np.float32)
            for which in order:
                if strengths[which]:
                    _STEPS[which](values, factors[which, part].reshape(-1, 1, 1, 1))
            out[part] = values
    return out


def lighting_shifts(lighting, deviation, channels, seed, epoch, indices):
    """What is added to every pixel of an image, one number a channel: the sum over components of eigenvector times eigenvalue
    times alpha, alpha from a normal distribution, drawn once an image.

    The paper does not give the unit of its pixels. An eigenvalue has that unit's square, so that it matters: here pixels are
    in [0, 1], as in the published constants; of pixels in [0, 255] the shifts would be larger than any pixel.

    Shape: (N,) indices -> (N, channels) float32, for pixels in [0, 1].
    Args: lighting: a `Lighting`; deviation: standard deviation of alpha, 0.1 in the paper; channels: the network's, 1 or 3.
    Source: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012,
        section 4.1.
    """
    size = len(lighting.eigenvalues)
    alphas = [deviation * draws.normal(seed, epoch, indices, _STREAM_LIGHTING + 2 * k) for k in range(size)]
    shifts = [sum(lighting.eigenvectors[channel][k] * lighting.eigenvalues[k] * alphas[k] for k in range(size))
              for channel in range(size)]
    if channels == 1 and size == 3:
        shifts = [sum(weight * shift for weight, shift in zip(LUMA, shifts))]
    elif channels == 3 and size == 1:
        shifts *= 3
    return np.stack(shifts, axis=1).astype(np.float32)


def lighting_of(dataset, most=None):
    """The principal components of a data set's pixels.

    Args: dataset: of `gluonzoo.data.load`; most: how many of its images to look at, chosen evenly from a fixed random order; by
        default 10,000 in memory, 2,000 of image files. The same data set gives the same components.
    Returns: `Lighting` of plain floats.
    Raises: UserError when the images are not all grey, or not all RGB.
    """
    if most is None:
        most = MOST_IN_MEMORY if getattr(dataset, "in_memory", True) else MOST_FILES
    chosen = np.sort(draws.order(len(dataset), 0, 0)[:most])
    count, total, products = 0, 0.0, 0.0
    for start in range(0, len(chosen), 100):
        for image in dataset.images(chosen[start:start + 100]):
            # Whole numbers below 2^53: their sums are exact, in whatever order they are made, and so the same on all workers.
            pixels = image.reshape(-1, image.shape[-1]).astype(np.float64)
            if count and pixels.shape[1] != len(total):
                raise UserError(f"pca_lighting: {dataset.name} has images of {len(total)} and of {pixels.shape[1]} channels; "
                                "expected one kind")
            count, total, products = count + len(pixels), total + pixels.sum(axis=0), products + pixels.T @ pixels
    mean = total / count
    values, vectors = np.linalg.eigh((products / count - np.outer(mean, mean)) / 255 ** 2)
    # Falling, as in the paper; an eigenvector's sign is free.
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    vectors = vectors * np.where(vectors.sum(axis=0) < 0, -1.0, 1.0)
    return Lighting(tuple(map(float, values)), tuple(tuple(map(float, row)) for row in vectors))


def lighting_for(augment, dataset, saved=None):
    """The components that a run's augmentation needs: None, unless it says "pca_lighting:own".

    Args: saved: what an earlier part of the run used, {"eigenvalues", "eigenvectors"}; taken as it is, so that a resumed run
        goes on with the same.
    """
    if not parse(augment).get("pca_lighting", (0, False))[1]:
        return None
    return Lighting(saved["eigenvalues"], saved["eigenvectors"]) if saved else lighting_of(dataset)
