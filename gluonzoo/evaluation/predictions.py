"""What a network said of every sample, and its file (the format is described in `gluonzoo.evaluation`)."""
import csv
import os
from dataclasses import dataclass
from typing import Tuple

import numpy as np

from ..errors import UserError

__all__ = ["Predictions", "read_predictions", "write_confusion", "write_per_class", "write_predictions"]

_ARRAYS = ("index", "labels", "guesses", "confidence", "likelihood")


@dataclass
class Predictions:
    """Shape: index, labels, guesses (N,) int64; confidence, likelihood (N,) float64. The rest: see `gluonzoo.evaluation`."""

    index: np.ndarray
    labels: np.ndarray
    guesses: np.ndarray
    confidence: np.ndarray
    likelihood: np.ndarray
    classes: Tuple[str, ...]
    dataset: str
    split: str = "test"
    step: int = -1

    def most_wrong(self, most=24):
        """Rows of the wrong samples, those first to whose class the network gave the least probability."""
        wrong = np.flatnonzero(self.labels != self.guesses)
        return wrong[np.lexsort((-self.confidence[wrong], self.likelihood[wrong]))][:most]


def _beside(path, mode, write, **options):
    """Write a file beside its name, flush it to the disk, and rename it."""
    path = os.fspath(path)
    temporary = f"{path}.tmp-{os.getpid()}"
    try:
        with open(temporary, mode, **options) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def write_predictions(path, predictions):
    """Write `Predictions`; an earlier file of that name is replaced when the new one is whole.

    Raises: UserError naming the path when it cannot be written.
    """
    values = {name: getattr(predictions, name) for name in _ARRAYS}
    _beside(path, "wb", lambda file: np.savez_compressed(
        file, classes=np.array(predictions.classes, dtype=str), dataset=np.array(predictions.dataset),
        split=np.array(predictions.split), step=np.array(predictions.step, dtype=np.int64), **values))


def read_predictions(path):
    """Read what `write_predictions` wrote. Raises: UserError naming the file when it is damaged or of another kind."""
    try:
        with np.load(path, allow_pickle=False) as file:
            values = {name: file[name] for name in (*_ARRAYS, "classes", "dataset", "split", "step")}
        found = Predictions(*(values[name] for name in _ARRAYS), tuple(map(str, values["classes"])), str(values["dataset"]),
                            str(values["split"]), int(values["step"]))
        count, classes = len(found.index), len(found.classes)
        if any(getattr(found, name).shape != (count,) for name in _ARRAYS) or any(
                values.dtype.kind not in "iu" or count and not 0 <= values.min() <= values.max() < classes
                for values in (found.labels, found.guesses)):
            raise ValueError("its arrays do not fit each other")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # Whatever a broken zip or array makes NumPy raise.
        raise UserError(f"{path}: expected a file of predictions: {error}") from None
    return found


def write_confusion(path, confusion, classes):
    """Write a confusion matrix as CSV: a line for each true class, a column for each guess, names first."""
    def write(file):
        rows = csv.writer(file)
        rows.writerow(["label \\ guess", *classes])
        rows.writerows([name, *map(int, counts)] for name, counts in zip(classes, confusion))
    _beside(path, "w", write, encoding="utf-8", newline="")


def write_per_class(path, per_class, classes):
    """Write `Metrics.per_class` as CSV, a line for each class; an accuracy or precision of nothing is left empty."""
    def write(file):
        rows = csv.writer(file)
        rows.writerow(["class", *per_class])
        for number, name in enumerate(classes):
            row = [values[number] for values in per_class.values()]
            rows.writerow([name, *("" if value != value else value.item() for value in row)])
    _beside(path, "w", write, encoding="utf-8", newline="")
