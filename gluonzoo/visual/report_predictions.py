"""What a run's network said of every test image: found beside the run or computed, and what it shows of the errors."""
import os

import numpy as np

from ..errors import UserError
from ..evaluation.predictions import read_predictions, write_predictions

__all__ = ["FILE", "find", "compute", "test_images", "transform_of", "confusion", "pairs", "reliability"]

#: In a run's folder; the format is described in `gluonzoo.evaluation`.
FILE = "predictions.npz"
#: Bins of confidence. Source: Guo et al., 2017, section 4.
BINS = 15


def find(run):
    """The saved `evaluation.Predictions` of a `RunFacts`, or None.

    Raises: UserError when the file is broken, empty, or of another checkpoint than the run's newest.
    """
    path = os.path.join(run.path, FILE)
    if not os.path.exists(path):
        return None
    found = read_predictions(path)
    if not len(found.labels):
        raise UserError(f"{path} holds no predictions")
    if not (np.isfinite(found.confidence).all() and np.isfinite(found.likelihood).all()):
        raise UserError(f"{path}: not every probability in it is finite")
    newest = run.checkpoint.state["step"] if run.checkpoint is not None else found.step
    if found.step not in (-1, newest):
        raise UserError(f"{path} is of update {found.step}, the newest checkpoint of update {newest}")
    return found


def test_images(run, data_dir=None, split="test"):
    """The test set that a run's checkpoint was validated on; nothing is downloaded.

    Raises: UserError when it cannot be found, or its classes are others.
    """
    from .. import data

    config = run.checkpoint.config
    dataset = data.load(config["dataset"], train=split == "train", data_dir=data_dir or config.get("data_dir"), download=False)
    if config.get("classes") and list(config["classes"]) != list(dataset.classes):
        raise UserError(f"{run.path} was trained on {len(config['classes'])} other classes than the {len(dataset.classes)} of "
                        f"{dataset.name}; expected the same")
    return dataset


def transform_of(run, dataset):
    """The `Transform` that makes a run's input of its test images."""
    from .. import data

    config = run.checkpoint.config
    mean, std = (config.get(name) or getattr(dataset, name) for name in ("mean", "std"))
    return data.Transform(config["input_shape"], mean, std, train=False)


def compute(run, net, dataset, batch_size=64):
    """Run a test set through the network of a run's checkpoint, and save what it says beside the run.

    Returns: `evaluation.Predictions`.
    Raises: UserError when its outputs are not finite.
    """
    from .. import evaluation

    result = evaluation.evaluate([evaluation.Member(net, transform_of(run, dataset))], dataset, batch_size=batch_size,
                                 predictions=True)
    found = result.predictions
    if not np.isfinite(found.likelihood).all():
        raise UserError(f"{run.checkpoint.path}: the network's outputs are not finite; nothing to show of its predictions")
    found.step = int(run.checkpoint.state["step"])
    try:
        write_predictions(os.path.join(run.path, FILE), found)
    except UserError as error:
        run.problems.append(f"its predictions were not saved: {error}")
    return found


def confusion(predictions):
    """Counts, a row for each true class and a column for each answer: (K, K) int64."""
    size = len(predictions.classes)
    return np.bincount(predictions.labels * size + predictions.guesses, minlength=size * size).reshape(size, size)


def pairs(predictions, most):
    """The classes confused most often: [(true, answer, rows of their images, the surest error first)]."""
    counts = confusion(predictions)
    np.fill_diagonal(counts, 0)
    found = []
    for place in np.argsort(-counts, axis=None, kind="stable")[:most]:
        true, guess = divmod(int(place), len(counts))
        if counts[true, guess]:
            rows = np.flatnonzero((predictions.labels == true) & (predictions.guesses == guess))
            found.append((true, guess, rows[np.argsort(-predictions.confidence[rows], kind="stable")]))
    return found


def reliability(predictions):
    """How far confidence is from accuracy.

    Returns: (expected calibration error, [(mean confidence, share of right answers) of each bin with samples]).
    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 5.
    """
    right = (predictions.labels == predictions.guesses).astype(np.float64)
    bins = np.clip(np.ceil(predictions.confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        sure = np.bincount(bins, predictions.confidence, BINS) / counts
        share = np.bincount(bins, right, BINS) / counts
    there = counts > 0
    error = float((counts[there] * np.abs(sure[there] - share[there])).sum() / counts.sum())
    return error, list(zip(sure[there].tolist(), share[there].tolist()))
