"""Augmentation that takes something out of an image (cutout) or mixes two, labels too (mixup, CutMix)."""
import math

import numpy as np

from . import draws

__all__ = ["Mixing", "cutout"]

_STREAM_DOWN, _STREAM_ACROSS = 96, 97
_STREAM_WHETHER, _STREAM_WHICH, _STREAM_TOP, _STREAM_LEFT, _STREAM_SHARE = 100, 101, 102, 103, 1000


def cutout(planes, side, seed, epoch, indices):
    """Set a square of each image to 0, which after normalisation is the mean; in place.

    The square's centre is anywhere in the image, so that part of the square may lie outside.

    Shape: (N, C, H, W) float32. Args: side: of the square, in pixels; None: half the shorter side of the image.
    Source: T. DeVries, G. Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017,
        arXiv:1708.04552, section 3.2 (16 for CIFAR-10, 8 for CIFAR-100, of 32).
    """
    height, width = planes.shape[2:]
    side = side or max(1, min(height, width) // 2)
    tops = draws.integers(seed, epoch, indices, _STREAM_DOWN, height) - side // 2
    lefts = draws.integers(seed, epoch, indices, _STREAM_ACROSS, width) - side // 2
    for image, top, left in zip(planes, tops.tolist(), lefts.tolist()):
        image[:, max(top, 0):top + side, max(left, 0):left + side] = 0
    return planes


class Mixing:
    """mixup and CutMix of ready images with one-hot labels.

    An image's partner is the one that follows it in the epoch's random order (after the last comes the first). So the
    partner depends on (seed, epoch, index) alone, a worker reads one image more than its part of a batch, and N workers see the
    very images of one worker with N times the batch. Where both are asked for, each image is given one of them, by lot.

    Args: mixup, cutmix: (alpha, probability), or None for neither. seed: of the draws.
    Source: mixup: H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018,
        arXiv:1710.09412, section 2. CutMix: S. Yun and others, "CutMix: Regularization Strategy to Train Strong Classifiers
        with Localizable Features", ICCV 2019, arXiv:1905.04899, section 3.1. Differences: a share lambda for each image, not
        one for the batch; the partner as above, not from a permutation of the batch.
    """

    def __init__(self, mixup=None, cutmix=None, seed=0):
        self.mixup, self.cutmix, self.seed = mixup, cutmix, int(seed)

    def shares(self, indices, epoch, height, width):
        """What happens to each image: [(share of its own, box of the partner's pixels or None for all of them)].

        box: (top, left, bottom, right) in whole pixels; share: in [0, 1], after a box was cut at the borders.
        """
        def draw(stream):
            return draws.uniform(self.seed, epoch, indices, stream).tolist()

        both = self.mixup is not None and self.cutmix is not None
        pasted = [which < 0.5 if both else self.mixup is None for which in draw(_STREAM_WHICH)]
        betas = {ways[0]: draws.beta(self.seed, epoch, indices, _STREAM_SHARE, ways[0]).tolist()
                 for ways in (self.mixup, self.cutmix) if ways is not None}
        places = list(zip(draw(_STREAM_WHETHER), draw(_STREAM_TOP), draw(_STREAM_LEFT)))
        found = []
        for row, (whether, top, left) in enumerate(places):
            alpha, probability = self.cutmix if pasted[row] else self.mixup
            if whether >= probability:
                found.append((1.0, None))
            elif pasted[row]:
                found.append(_box(betas[alpha][row], top, left, height, width))
            else:
                found.append((betas[alpha][row], None))
        return found

    def __call__(self, images, labels, indices, epoch, classes):
        """Mix each image with the one after it; the last one of `images` is only a partner.

        Shape: images (n + 1, C, H, W) float32, labels (n + 1,) whole numbers, indices (n,) of the first n -> images (n, C, H, W),
            in the same memory, and labels (n, classes) float32, rows that sum to 1.
        """
        count = len(indices)
        if len(images) != count + 1 or len(labels) != count + 1:
            raise ValueError(f"{len(images)} images with {len(labels)} labels came for {count} indices; expected one more, the "
                             "last one's partner")
        soft = np.zeros((count, classes), dtype=np.float32)
        for row, (share, box) in enumerate(self.shares(indices, epoch, *images.shape[2:])):
            own, other = images[row], images[row + 1]  # The next one is not mixed yet.
            if box is not None:
                place = (slice(None), slice(box[0], box[2]), slice(box[1], box[3]))
                own[place] = other[place]
            elif share < 1.0:
                own *= np.float32(share)
                own += np.float32(1.0 - share) * other
            soft[row, labels[row]] += share
            soft[row, labels[row + 1]] += 1.0 - share
        return images[:count], soft


def _box(share, top, left, height, width):
    """CutMix's rectangle, its centre anywhere, and the share of the image that is left outside of it."""
    tall, wide = (int(size * math.sqrt(1.0 - share)) for size in (height, width))
    top, left = int(top * height) - tall // 2, int(left * width) - wide // 2
    box = max(top, 0), max(left, 0), min(top + tall, height), min(left + wide, width)
    return 1.0 - (box[2] - box[0]) * (box[3] - box[1]) / (height * width), box
