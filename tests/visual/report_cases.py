"""Runs for the tests of the report: logs made by hand, predictions made by hand, and one small trained run."""
import json

from gluonzoo.evaluation import Predictions, write_predictions

import numpy as np

__all__ = ["epoch", "step", "write_log", "write_answers", "HOSTILE"]

#: A class that would be a program, were it not escaped.
HOSTILE = "<script>window.hit = 1</script>\" onload='x' & \u0001"


def epoch(number, accuracy=0.9, loss=0.5, **more):
    return dict({"event": "epoch", "epoch": number, "step": 10 * (number + 1), "train_loss": loss, "train_accuracy": accuracy,
                 "val_loss": loss + 0.1, "val_accuracy": accuracy - 0.02, "lr": 0.1 / (number + 1), "seconds": 30.0,
                 "images_per_second": 100.0 + number, "data_wait": 0.25}, **more)


def step(number, loss=0.5, **more):
    return dict({"event": "step", "epoch": (number - 1) // 10, "step": number, "loss": loss, "lr": 0.1,
                 "images_per_second": 90.0 + number, "time": 1000.0 + 3 * number}, **more)


def write_log(folder, records, tail=""):
    """A run's folder with nothing but a log."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + tail)
    return folder


def write_answers(folder, labels, guesses, classes, confidence=None, likelihood=None, **more):
    """A run's saved predictions."""
    count = len(labels)
    values = {"index": np.arange(count), "labels": np.array(labels), "guesses": np.array(guesses),
              "confidence": np.array(confidence or [0.9] * count), "likelihood": np.array(likelihood or [0.1] * count)}
    write_predictions(folder / "predictions.npz", Predictions(**values, classes=tuple(classes), dataset="made up", **more))
