"""Test protocols: which views of an image a network is shown, and how what it says of them becomes one answer.

Of crops the softmax outputs are averaged, of a whole image (dense) first the class scores over all positions; then over scales,
mirror images and networks the softmax outputs.

Sources: ten crops: A. Krizhevsky and others, "ImageNet Classification with Deep Convolutional Neural Networks", 2012, section
4.1; 144 crops: C. Szegedy and others, "Going Deeper with Convolutions", 2014, arXiv:1409.4842, section 7; dense, several scales,
and crops on a regular grid (50 a scale, 5 x 5 with their mirror images): K. Simonyan, A. Zisserman, "Very Deep Convolutional
Networks for Large-Scale Image Recognition", 2014, arXiv:1409.1556, sections 3.2 and 4.3.
"""
import math
from dataclasses import dataclass
from typing import Tuple

import numpy as np

from ..data.transforms import CENTRE_SHARE, resize
from ..errors import UserError
from ..export.crops import normalised, scaled

__all__ = ["Protocol", "Views", "grid"]

#: Shorter sides of GoogLeNet's four scales, for an input of 224.
GOOGLENET_SCALES = (256, 288, 320, 352)
MOST_CROPS = 10000


@dataclass(frozen=True)
class Protocol:
    """How each test image is shown to the networks.

    Args:
        crops: "1": the centre; "10": four corners and the centre of the central frame, and the same mirrored; "144": GoogLeNet's
            (of each scale three squares, of each square its corners, its centre and all of it, mirrored too); "dense": the whole
            image; any other number: crops on a grid over the whole image, an even number is half of them and the same mirrored.
        scales: shorter sides in pixels that images are resized to, each shown with all crops; () is the standard one: 256 for an
            input of 224, in the same relation for others; with "144" the four of GoogLeNet.
        mirror: with "1", "dense" or an odd number: also the mirror image of each.
    Raises: UserError when crops is none of these, or a scale is no whole number of at least 1.
    """

    crops: str = "1"
    scales: Tuple[int, ...] = ()
    mirror: bool = False

    def __post_init__(self):
        crops = str(self.crops)
        if crops != "dense" and not (crops.isdigit() and 1 <= int(crops) <= MOST_CROPS):
            raise UserError(f"crops is {self.crops!r}; expected dense, or a number from 1 to {MOST_CROPS}")
        crops = crops if crops == "dense" else str(int(crops))
        if any(isinstance(scale, bool) or scale != int(scale) or scale < 1 for scale in self.scales):
            raise UserError(f"scales are {self.scales}; expected whole numbers of at least 1, pixels of the shorter side")
        object.__setattr__(self, "crops", crops)
        object.__setattr__(self, "scales", tuple(int(scale) for scale in self.scales))

    @property
    def plain(self):
        """Whether each image is shown once, as in training's validation."""
        return self.crops == "1" and not self.scales

    @property
    def mirrored(self):
        """Whether mirror images are shown too."""
        return self.crops != "dense" and int(self.crops) % 2 == 0 or self.mirror

    def views_of_an_image(self):
        """How many views each image has."""
        if self.crops in ("1", "dense") or int(self.crops) % 2:
            places = (1 if self.crops == "dense" else int(self.crops)) * (2 if self.mirror else 1)
            return places * max(1, len(self.scales))
        if self.crops == "144":
            return 36 * (len(self.scales) or len(GOOGLENET_SCALES))
        return int(self.crops) * max(1, len(self.scales))

    def check(self, input_shape):
        """Raise UserError when images of one of the scales would be smaller than a crop of this input."""
        side = min(input_shape[1:])
        for scale in self.scales:
            if scale < side and self.crops != "dense":
                raise UserError(f"scale {scale} is smaller than the crops, {'x'.join(map(str, input_shape[1:]))}; expected at "
                                f"least {side}, or crops dense")

    def sides(self, input_shape):
        """The shorter sides that images are resized to."""
        side = min(input_shape[1:])
        if self.scales:
            return self.scales
        if self.crops == "144":
            return tuple(round(side * scale / 224) for scale in GOOGLENET_SCALES)
        return (round(side / CENTRE_SHARE),)


class Views:
    """Makes what a protocol shows of images; called by a `Loader` in the place of a transform.

    Shape: N images (h, w, c) uint8 -> for each transform a list of (planes (M, C, H, W) float32, owners (M,) int64), views of one
    size and the number in the batch of the image each is of.
    """

    def __init__(self, protocol, transforms):
        self.protocol, self.transforms = protocol, list(transforms)
        for transform in self.transforms:
            protocol.check(transform.input_shape)

    def __call__(self, images, indices=None, epoch=0):
        return [self._views(images, transform) for transform in self.transforms]

    def _views(self, images, transform):
        owners = np.arange(len(images))
        if not len(images):
            return []
        if self.protocol.plain:
            groups = [(transform(images), owners)]
        elif self.protocol.crops == "dense":
            groups = list(self._whole(images, transform))
        else:
            crops = [np.stack(self._crops(image, transform.input_shape)) for image in images]
            planes = normalised(np.concatenate(crops) if len({stack.shape for stack in crops}) == 1 else
                                [crop for stack in crops for crop in stack], transform)
            groups = [(planes, np.repeat(owners, len(crops[0])))]
        if not self.protocol.mirrored:
            return groups
        return [(np.concatenate([planes, planes[..., ::-1]]), np.concatenate([owners, owners])) for planes, owners in groups]

    def _whole(self, images, transform):
        """Whole images, those of one size together."""
        height, width = transform.input_shape[1:]
        for side in self.protocol.sides(transform.input_shape):
            by_size = {}
            for owner, image in enumerate(images):
                image = scaled(image, round(height * side / min(height, width)), round(width * side / min(height, width)))
                by_size.setdefault(image.shape[:2], []).append((owner, image))
            for members in by_size.values():
                yield normalised([image for _, image in members], transform), np.array([owner for owner, _ in members])

    def _crops(self, image, input_shape):
        """All crops of one image, unmirrored: arrays (H, W, c) uint8."""
        height, width = input_shape[1:]
        crops = []
        for side in self.protocol.sides(input_shape):
            frame = round(height * side / min(height, width)), round(width * side / min(height, width))
            image_here = scaled(image, *frame)
            if self.protocol.crops == "144":
                crops += _googlenet(image_here, frame, height, width)
                continue
            if self.protocol.crops in ("1", "10"):
                down, across = (size - part for size, part in zip(image_here.shape, frame))
                image_here = _window(image_here, down // 2, across // 2, *frame)
            rows, columns = image_here.shape[:2]
            if self.protocol.crops == "10":
                places = _corners_and_centre(rows - height, columns - width)
            else:
                count = int(self.protocol.crops)
                places = grid(count // 2 if count % 2 == 0 else count, rows - height, columns - width)
            crops += [_window(image_here, top, left, height, width) for top, left in places]
        return crops


def _window(image, top, left, height, width):
    return image[top:top + height, left:left + width]


def _corners_and_centre(down, across):
    return [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]


def _googlenet(image, frame, height, width):
    """The 18 unmirrored crops of one scale: three squares, of each four corners, the centre, and all of it made smaller."""
    rows, columns = image.shape[:2]
    crops = []
    for part in (0.0, 0.5, 1.0):
        square = _window(image, int(part * (rows - frame[0])), int(part * (columns - frame[1])), *frame)
        crops += [_window(square, top, left, height, width)
                  for top, left in _corners_and_centre(frame[0] - height, frame[1] - width)]
        crops.append(resize(square, height, width))
    return crops


def grid(count, down, across):
    """Evenly spread places of `count` windows that may be moved by `down` and `across` pixels: [(top, left)].

    In as many rows as the root of count, rounded up, as equal in length as can be, each spread from edge to edge (one alone in
    the middle); a square number gives a square grid.
    """
    rows = math.ceil(math.sqrt(count))
    # Symmetric: the longer rows first from both ends inwards.
    lengths = [count // rows] * rows
    inwards = sorted(range(rows), key=lambda row: min(row, rows - 1 - row))
    for row in inwards[:count % rows]:
        lengths[row] += 1
    return [(round(_spread(row, rows) * down), round(_spread(column, length) * across))
            for row, length in enumerate(lengths) for column in range(length)]


def _spread(number, count):
    return number / (count - 1) if count > 1 else 0.5
