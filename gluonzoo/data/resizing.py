"""Resizing of uint8 images, and grey from RGB."""
import math

import numpy as np

from .planes import opencv

__all__ = ["LUMA", "part", "resize", "to_grey"]

#: Weights of red, green and blue in grey (ITU-R BT.601), in 65536ths as image libraries round them.
LUMA = (19595, 38470, 7471)


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
    if (bottom - top, right - left) == (height, width) and top == int(top) and left == int(left):
        # Whole pixels at their own size.
        return images[..., int(top):int(bottom), int(left):int(right), :].copy()
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


def _pillow():
    try:
        from PIL import Image
    except ImportError:
        return None
    return Image


def part(image, height, width, box):
    """A part of one image resized, for training, in the quickest way that is installed.

    OpenCV where the box is of whole pixels, which are cut out first: bilinear without widening where it shrinks to more than
    half, as MXNet's own iterators, else the mean of the area. Then Pillow, within a grey level or two of `resize`; then `resize`.

    Shape: (1, h, w, c) uint8 -> (1, height, width, c) uint8. Args: box: as in `resize`.
    """
    cv2 = opencv()
    if cv2 is not None and all(side == int(side) for side in box):
        top, left, bottom, right = map(int, box)
        shrinks = max((bottom - top) / height, (right - left) / width) >= 2
        made = cv2.resize(image[0, top:bottom, left:right], (width, height),
                          interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return made.reshape(1, height, width, image.shape[3])
    image_module = _pillow()
    if image_module is None:
        return resize(image, height, width, box)
    top, left, bottom, right = box
    grey = image.shape[3] == 1
    source = image_module.fromarray(np.ascontiguousarray(image[0, ..., 0] if grey else image[0]))
    # Rounding must not put the box a hair outside of the image, which Pillow refuses.
    place = max(left, 0), max(top, 0), min(right, source.size[0]), min(bottom, source.size[1])
    made = np.asarray(source.resize((width, height), image_module.BILINEAR, box=place))
    return made.reshape(1, height, width, image.shape[3])


def to_grey(images):
    """Luma of RGB images, as image libraries compute it.

    Shape: (..., 3) uint8 -> (..., 1) uint8.
    """
    red, green, blue = LUMA
    wide = images.astype(np.uint32)
    grey = (wide[..., 0] * red + wide[..., 1] * green + wide[..., 2] * blue + 0x8000) >> 16
    return grey.astype(np.uint8)[..., None]
