"""Augmentations by name: what ``--augment`` may say, and the numbers that go with each.

Names are joined by "+", their numbers follow a colon: ``resized_crop+flip+color_jitter:0.4+cutout:16``. Whatever the order in
which they are named, they are applied in that of `AUGMENTATIONS`: geometry, colour, normalisation, then what is cut out of the
normalised image or mixed into it.

What is drawn for an image is a pure function of (seed, epoch, index): it does not depend on the batch, the thread or the worker.
"""
import difflib
from collections import namedtuple

from ..errors import UserError

__all__ = ["AUGMENTATIONS", "parse", "resolve", "describe"]

_Number = namedtuple("_Number", "name default low high whole")
_Number.__doc__ = """One number of an augmentation. low, high: both allowed; whole: whole numbers only."""

_Augmentation = namedtuple("_Augmentation", "numbers words group help")
_Augmentation.__doc__ = """What an augmentation takes. words: texts allowed beside the numbers; group: only one of a group may be
named."""


def _number(name, default, low, high, whole=False):
    return _Number(name, default, low, high, whole)


_ONE = _number("probability", 1.0, 0.0, 1.0)

#: All names, in the order in which they are applied.
AUGMENTATIONS = {
    "crop": _Augmentation((_number("padding", 4, 1, 64, True),), (), "place",
                          "so many black pixels on every side, then a crop of the input's size anywhere"),
    "resized_crop": _Augmentation((_number("smallest area", 0.08, 0.001, 1.0), _number("largest area", 1.0, 0.001, 1.0)), (),
                                  "place", "a part of 8 % to 100 % of the area and of aspect 3/4 to 4/3, resized to the input"),
    "scale_jitter": _Augmentation((_number("smallest side", 256.0, 224.0, 4096.0), _number("largest side", 512.0, 224.0, 4096.0)),
                                  (), "place", "VGG's: the shorter side made 256 to 512 pixels long, then a crop of 224 "
                                  "anywhere; the numbers are for an input of 224 and scale with it"),
    "flip": _Augmentation((), (), None, "left and right exchanged for one image in two"),
    "randaugment": _Augmentation((_number("operations", 2, 1, 16, True), _number("magnitude", 9.0, 0.0, 30.0)), (), "policy",
                                 "so many of 14 operations, each of a magnitude on the scale of 10"),
    "trivialaugment": _Augmentation((), (), "policy", "one of 14 operations at a random strength"),
    "color_jitter": _Augmentation((_number("brightness", 0.4, 0.0, 10.0), _number("contrast", None, 0.0, 10.0),
                                   _number("saturation", None, 0.0, 10.0)), (), None,
                                  "brightness, contrast and saturation times 1 - x to 1 + x, in random order; one number is for "
                                  "all three"),
    "pca_lighting": _Augmentation((_number("deviation", 0.1, 0.0, 10.0),), ("own",), None,
                                  "AlexNet's, along the principal components of RGB: ImageNet's, or with `own` the data set's"),
    "cutout": _Augmentation((_number("side", None, 1, 4096, True),), (), None,
                            "a square of so many pixels set to the mean; default: half the input"),
    "mixup": _Augmentation((_number("alpha", 0.2, 0.001, 100.0), _ONE), (), None,
                           "image and label mixed with another's by a share drawn from Beta(alpha, alpha)"),
    "cutmix": _Augmentation((_number("alpha", 1.0, 0.001, 100.0), _ONE), (), None,
                            "a rectangle of another image pasted in, and as much of its label"),
}


def describe():
    """All names with their numbers and what they do, a line each, for a help text."""
    lines = []
    for name, entry in AUGMENTATIONS.items():
        numbers = ",".join(number.name.replace(" ", "_").upper() for number in entry.numbers)
        lines.append(f"{name}{':' + numbers if numbers else ''}{''.join(',' + word for word in entry.words)}: {entry.help}")
    return lines


def resolve(text, default):
    """`text` with the word "default" replaced by the data set's own augmentation; checked.

    Raises: UserError as `parse`.
    """
    parts = [default if part.strip() == "default" else part.strip() for part in str(text).split("+")]
    if len(parts) > 1:
        parts = [part for part in parts if part != "none"] or ["none"]
    joined = "+".join(parts)
    parse(joined)
    return joined


def parse(text):
    """What a text of names asks for.

    Returns: {name: tuple of its numbers, then True or False for each of its words}, in the order of application.
    Raises: UserError naming a name that is not known and the nearest ones, a number out of range, or two names that exclude
        each other.
    """
    text = str(text).strip()
    if text == "none":
        return {}
    found = {}
    for part in text.split("+"):
        name, _, numbers = part.strip().partition(":")
        if name not in AUGMENTATIONS:
            near = difflib.get_close_matches(name, AUGMENTATIONS, n=2)
            raise UserError(f"augmentation {name!r} is not known; expected one or more of {', '.join(['none', *AUGMENTATIONS])}, "
                            f"joined by +" + (f"; did you mean {' or '.join(near)}?" if near else ""))
        if name in found:
            raise UserError(f"augmentation {text!r} names {name} twice")
        group = AUGMENTATIONS[name].group
        for other in found if group else ():
            if AUGMENTATIONS[other].group == group:
                raise UserError(f"augmentation {text!r}: {other} and {name} exclude each other")
        found[name] = _values(name, numbers if _ else None)
    return {name: found[name] for name in AUGMENTATIONS if name in found}


def _values(name, text):
    entry = AUGMENTATIONS[name]
    given = [] if text is None else [part.strip() for part in text.split(",")]
    words = tuple(word in given for word in entry.words)
    given = [part for part in given if part not in entry.words]
    if len(given) > len(entry.numbers) or text == "":
        allowed = [number.name for number in entry.numbers] + [f"the word {word!r}" for word in entry.words]
        takes = ", ".join(allowed) if allowed else "no numbers"
        raise UserError(f"augmentation {name}:{text} has {len(given)} numbers; {name} takes {takes}")
    values = []
    for place, number in enumerate(entry.numbers):
        if place >= len(given):
            values.append(number.default)
            continue
        try:
            value = float(given[place])
            if not number.low <= value <= number.high or number.whole and value != int(value):
                raise ValueError
        except (ValueError, OverflowError):
            kind = "a whole number" if number.whole else "a number"
            raise UserError(f"augmentation {name}: {number.name} is {given[place]!r}; expected {kind} from {number.low:g} to "
                            f"{number.high:g}") from None
        values.append(int(value) if number.whole else value)
    if name == "color_jitter" and len(given) < 2:
        values = values[:1] * 3
    elif name == "color_jitter":
        values = [value or 0.0 for value in values]
    if name in ("resized_crop", "scale_jitter") and values[0] > values[1]:
        raise UserError(f"augmentation {name}: from {values[0]:g} to {values[1]:g}; expected a rising range")
    return (*values, *words)
