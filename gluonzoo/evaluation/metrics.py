"""Metrics of classification, summed up sample by sample, so that sums of several workers are those of one.

Everything is kept as whole numbers: counts, and losses as wholes and fractions in units of 2^-36. Such sums do not depend on the
order or the grouping in which samples come, so that any number of workers arrives at the same figures to the last bit.
"""
from collections import namedtuple

import numpy as np

from ..errors import UserError

__all__ = ["Calibration", "Metrics"]

#: Bins of confidence, from 0 to 1. Source: Guo et al., 2017, section 4 (M = 15).
BINS = 15
_UNIT = 2.0 ** 36
#: A loss of this or more counts as infinite.
_LARGEST = 2.0 ** 30
#: Words sent at a time between workers, so that messages stay small with many of them.
_PIECE = 1 << 16

Calibration = namedtuple("Calibration", ["ece", "mce", "edges", "counts", "confidence", "accuracy"])
Calibration.__doc__ = """How far a network's confidence is from how often it is right.

ece: expected calibration error, the mean over samples of the distance between confidence and accuracy of their bin; mce: the
largest such distance of a bin with samples. edges: (B + 1,) of the bins, each without its lower and with its upper edge. counts:
(B,) samples; confidence, accuracy: (B,) means, NaN for bins without samples: the reliability diagram.
"""


class Metrics:
    """Sums over samples; `add` them batch by batch, then read the figures.

    Args: classes: number of classes, K. confusion: also count every pair of label and guess, K x K numbers. bins: of
        confidence.
    """

    def __init__(self, classes, confusion=False, bins=BINS):
        self.classes, self.bins = int(classes), int(bins)
        # Samples, top-1, top-5, not numbers, infinite losses; then wholes and units of the losses and of the Brier scores.
        self._totals = np.zeros(9, dtype=np.int64)
        self._labels, self._right, self._guesses = (np.zeros(self.classes, dtype=np.int64) for _ in range(3))
        # Samples, right ones, confidence in units.
        self._bins = np.zeros((3, self.bins), dtype=np.int64)
        self._confusion = np.zeros((self.classes, self.classes), dtype=np.int64) if confusion else None

    def _parts(self):
        parts = [self._totals, self._labels, self._right, self._guesses, self._bins]
        return parts + [self._confusion] * (self._confusion is not None)

    def add(self, log_probabilities, labels):
        """Count a batch.

        Shape: log_probabilities (N, K), natural logarithms; labels (N,) whole numbers.
        Returns: (guesses (N,) int64, their probabilities (N,) float64, the labels' (N,) float64). Equal probabilities fall to the
            class of the lower number.
        Raises: UserError when a label is none of the classes.
        """
        scores, labels = np.asarray(log_probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
        if scores.ndim != 2 or scores.shape != (len(labels), self.classes):
            raise UserError(f"outputs of shape {scores.shape} for {len(labels)} samples of {self.classes} classes; expected "
                            f"({len(labels)}, {self.classes})")
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.classes:
            raise UserError(f"labels go from {labels.min()} to {labels.max()}; expected 0 to {self.classes - 1}")
        rows = np.arange(len(labels))
        # A sample with NaN is of no class: nothing of it is right, and nothing of it goes into sums.
        finite = ~np.isnan(scores).any(axis=1)
        known = np.where(finite[:, None], scores, 0.0)
        guesses = known.argmax(axis=1)
        own, best = known[rows, labels], known[rows, guesses]
        probabilities = np.exp(known)
        right = (guesses == labels) & finite
        # How many classes come before the label; of equals the lower number does.
        before = (known > own[:, None]).sum(axis=1) + ((known == own[:, None]) & (np.arange(self.classes) < labels[:, None])).sum(
            axis=1)
        squares = (probabilities ** 2).sum(axis=1) - 2 * probabilities[rows, labels] + 1
        unbounded = finite & (own <= -_LARGEST)
        self._totals += [len(labels), right.sum(), ((before < 5) & finite).sum(), (~finite).sum(), unbounded.sum(),
                         *_units(-own[finite & ~unbounded]), *_units(squares[finite])]
        for counts, which in ((self._labels, labels), (self._right, labels[right]), (self._guesses, guesses[finite])):
            counts += np.bincount(which, minlength=self.classes)
        confidence = np.where(finite, np.exp(best), 0.0)
        places = np.clip(np.ceil(confidence * self.bins).astype(np.int64) - 1, 0, self.bins - 1)
        for place in np.unique(places[finite]):
            here = finite & (places == place)
            self._bins[:, place] += [here.sum(), (here & right).sum(), sum(_units(confidence[here]) * (int(_UNIT), 1))]
        if self._confusion is not None:
            np.add.at(self._confusion, (labels[finite], guesses[finite]), 1)
        guesses = np.where(finite, guesses, 0)
        return guesses, confidence, np.where(finite, probabilities[rows, labels], 0.0)

    def gather(self, store):
        """Sum over the workers of a job, exactly; every worker must call it. store: a `distributed.KVStore`, or None."""
        if store is None or store.num_workers == 1:
            return
        flat = np.concatenate([part.ravel() for part in self._parts()])
        for start in range(0, len(flat), _PIECE):
            piece = np.zeros(_PIECE if len(flat) > _PIECE else len(flat), dtype=np.int64)
            piece[:len(flat) - start] = flat[start:start + _PIECE]
            flat[start:start + _PIECE] = store.gather(piece).sum(axis=0)[:len(flat) - start]
        for part in self._parts():
            part[...], flat = flat[:part.size].reshape(part.shape), flat[part.size:]

    @property
    def samples(self):
        """Number of samples."""
        return int(self._totals[0])

    def _mean(self, place, parts=1):
        total = int(self._totals[place]) + (int(self._totals[place + 1]) / _UNIT if parts == 2 else 0)
        return total / max(self.samples, 1)

    @property
    def top1(self):
        """Share of samples whose likeliest class is the label."""
        return self._mean(1)

    @property
    def top5(self):
        """Share of samples whose label is among the five likeliest classes."""
        return self._mean(2)

    @property
    def loss(self):
        """Negative log likelihood, the mean over samples; NaN when outputs were NaN, infinite when a probability was zero."""
        if self._totals[3]:
            return float("nan")
        return float("inf") if self._totals[4] else self._mean(5, 2)

    @property
    def not_finite(self):
        """Number of samples with outputs that were no numbers (NaN); they count as wrong."""
        return int(self._totals[3])

    @property
    def brier(self):
        """Brier score: the mean over samples of the squared distance between the probabilities and the one-hot label, 0 to 2.

        Source: G. Brier, "Verification of forecasts expressed in terms of probability", 1950.
        """
        return self._mean(7, 2) if not self._totals[3] else float("nan")

    def confusion(self):
        """Counts of samples, a row for each label, a column for each guess: (K, K) int64."""
        if self._confusion is None:
            raise UserError("the confusion matrix was not counted; expected Metrics(..., confusion=True)")
        return self._confusion.copy()

    def per_class(self):
        """Each class in numbers: {"samples", "right", "guesses", "accuracy" (right of its samples), "precision" (right of the
        guesses of it)}, arrays (K,); NaN where there are no samples or guesses."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"samples": self._labels.copy(), "right": self._right.copy(), "guesses": self._guesses.copy(),
                    "accuracy": self._right / self._labels, "precision": self._right / self._guesses}

    def calibration(self):
        """The `Calibration` of the likeliest classes' probabilities.

        Source: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
        arXiv:1706.04599, equations 2 to 5.
        """
        counts, right, confidence = self._bins
        with np.errstate(divide="ignore", invalid="ignore"):
            accuracy, confidence = right / counts, confidence / _UNIT / counts
        gaps = np.where(counts > 0, np.abs(np.nan_to_num(accuracy) - np.nan_to_num(confidence)), 0.0)
        return Calibration(float((gaps * counts).sum() / max(counts.sum(), 1)), float(gaps.max()),
                           np.linspace(0, 1, self.bins + 1), counts.copy(), confidence, accuracy)


def _units(values):
    """The sum of float64 values: their whole parts, and the rest in units. (2,) int64."""
    values = np.asarray(values, dtype=np.float64)
    whole = np.floor(values)
    return np.array([whole.sum(), np.rint((values - whole) * _UNIT).sum()]).astype(np.int64)
