"""RandAugment and TrivialAugment, with Pillow's operations.

Why not a library: those that have them need torch (torchvision, timm), a newer NumPy than MXNet 1.9.1 bears on Python below
3.12 (albumentations from 1.4 on; its successor is under the AGPL), or an older one than 3.13 has (imgaug, not kept up).

Source: E. Cubuk, B. Zoph, J. Shlens, Q. Le, "RandAugment: Practical automated data augmentation with a reduced search space",
2019, arXiv:1909.13719, section 3 and figure 2 (the 14 operations; magnitudes on a scale of 10); ranges: AutoAugment, 2018,
arXiv:1805.09501, table 6, translation as in the authors' code, 100 of 224 pixels. S. Müller, F. Hutter, "TrivialAugment:
Tuning-free Yet State-of-the-Art Data Augmentation", ICCV 2021, arXiv:2103.10158, algorithm 1 and the wide ranges of its table.
Differences: a larger magnitude is always a stronger change (in AutoAugment's ranges colours go from 0.1 to 1.9 times, so that
magnitude 5 changes nothing); pixels from outside the image have the data set's mean colour.
"""
from collections import namedtuple

import numpy as np

from ..errors import UserError
from . import draws

__all__ = ["OPERATIONS", "apply", "randaugment", "trivialaugment"]

_Range = namedtuple("_Range", "narrow wide signed")
_Range.__doc__ = """The largest strength: RandAugment's at magnitude 10, TrivialAugment's; whether its sign is drawn."""

#: Strengths: of shear the tangent, of translations a share of the side (wide: pixels), of rotation degrees, of the enhancements
#: the distance from 1, of posterize the bits taken away, of solarize how far the threshold is below 256.
OPERATIONS = {
    "identity": _Range(0, 0, False), "autocontrast": _Range(0, 0, False), "equalize": _Range(0, 0, False),
    "rotate": _Range(30.0, 135.0, True), "solarize": _Range(256.0, 256.0, False), "color": _Range(0.9, 0.99, True),
    "posterize": _Range(4.0, 6.0, False), "contrast": _Range(0.9, 0.99, True), "brightness": _Range(0.9, 0.99, True),
    "sharpness": _Range(0.9, 0.99, True), "shear_x": _Range(0.3, 0.99, True), "shear_y": _Range(0.3, 0.99, True),
    "translate_x": _Range(100 / 224, 32.0, True), "translate_y": _Range(100 / 224, 32.0, True),
}
_NAMES = tuple(OPERATIONS)
#: TrivialAugment's strengths are whole steps of this many.
_STRENGTHS = 31

_STREAM = 128


def _pillow():
    try:
        from PIL import Image, ImageEnhance, ImageOps
    except ImportError:
        raise UserError("randaugment and trivialaugment need Pillow: pip install -e '.[visual]'") from None
    return Image, ImageEnhance, ImageOps


def apply(image, name, strength, fill, modules=None):
    """One operation on a Pillow image of mode L or RGB. Args: strength: see `OPERATIONS`, translations in pixels; fill: the
    colour of pixels from outside, whole numbers, one a channel."""
    image_module, enhance, ops = modules or _pillow()
    if name == "identity" or name in ("color",) and image.mode == "L":
        return image
    if name == "autocontrast":
        return ops.autocontrast(image)
    if name == "equalize":
        return ops.equalize(image)
    if name == "solarize":
        return ops.solarize(image, 256 - int(strength))
    if name == "posterize":
        return ops.posterize(image, 8 - int(strength))
    if name in ("color", "contrast", "brightness", "sharpness"):
        return getattr(enhance, name.capitalize())(image).enhance(1.0 + strength)
    if name == "rotate":
        return image.rotate(strength, resample=image_module.BILINEAR, fillcolor=fill)
    matrix = {"shear_x": (1, strength, 0, 0, 1, 0), "shear_y": (1, 0, 0, strength, 1, 0),
              "translate_x": (1, 0, strength, 0, 1, 0), "translate_y": (1, 0, 0, 0, 1, strength)}[name]
    return image.transform(image.size, image_module.AFFINE, matrix, resample=image_module.BILINEAR, fillcolor=fill)


def _every(planes, plan, mean, seed, epoch, indices):
    """Each image through the operations that `plan(draw, size)` names. (N, c, H, W) uint8 -> the same, a copy."""
    modules = _pillow()
    grey = planes.shape[1] == 1
    fill = tuple(int(round(255 * min(max(value, 0.0), 1.0))) for value in mean[:planes.shape[1]])
    out = np.empty(planes.shape, dtype=np.uint8)
    for row, index in enumerate(np.asarray(indices).tolist()):
        pixels = planes[row, 0] if grey else planes[row].transpose(1, 2, 0)
        image = modules[0].fromarray(np.ascontiguousarray(pixels))
        for name, strength in plan(lambda stream, at=index: draws.uniform_at(seed, epoch, at, _STREAM + stream), image.size):
            image = apply(image, name, strength, fill[0] if grey else fill, modules)
        changed = np.asarray(image)
        out[row] = changed if grey else changed.transpose(2, 0, 1)
    return out


def randaugment(planes, operations, magnitude, mean, seed, epoch, indices):
    """`operations` of the 14, drawn with equal chances, one after another, each of the same magnitude.

    Shape: (N, c, H, W) uint8 -> the same.
    Args: magnitude: on the paper's scale of 10; more, to 30, extrapolates. (torchvision's scale is 30: its 9 is 3 here.)
        mean: of pixels in [0, 1], one a channel: the colour of what comes in from outside.
    """
    def plan(draw, size):
        for number in range(operations):
            name = _NAMES[int(draw(2 * number) * len(_NAMES))]
            entry = OPERATIONS[name]
            strength = entry.narrow * magnitude / 10
            if name.startswith("translate"):
                strength *= size[0] if name.endswith("x") else size[1]
            yield name, _limited(name, -strength if entry.signed and draw(2 * number + 1) < 0.5 else strength)
    return _every(planes, plan, mean, seed, epoch, indices)


def trivialaugment(planes, mean, seed, epoch, indices):
    """One of the 14 operations with equal chances, at one of 31 strengths from none to the widest.

    Shape: (N, c, H, W) uint8 -> the same. Args: mean: as in `randaugment`.
    """
    def plan(draw, size):
        name = _NAMES[int(draw(0) * len(_NAMES))]
        strength = OPERATIONS[name].wide * int(draw(1) * _STRENGTHS) / (_STRENGTHS - 1)
        yield name, _limited(name, -strength if OPERATIONS[name].signed and draw(2) < 0.5 else strength)
    return _every(planes, plan, mean, seed, epoch, indices)


def _limited(name, strength):
    """Magnitudes above 10 must not ask for what there is not: fewer than one bit, a negative threshold or colour."""
    if name == "posterize":
        return min(strength, 7.0)
    if name == "solarize":
        return min(strength, 256.0)
    return max(strength, -1.0) if name in ("color", "contrast", "brightness", "sharpness") else strength
