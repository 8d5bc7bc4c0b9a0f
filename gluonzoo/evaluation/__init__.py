"""How good a trained network is: metrics, test protocols, predictions by sample, speed.

    from gluonzoo import data, evaluation
    member = evaluation.Member(net, data.Transform((1, 32, 32), test_set.mean, test_set.std))
    result = evaluation.evaluate([member], test_set, evaluation.Protocol(crops="10"))
    result.figures["top1"], result.metrics.per_class(), result.metrics.calibration()

The predictions file (`write_predictions`, `read_predictions`; ``tools/evaluate.py RUN --predictions RUN/predictions.npz``) is a
NumPy archive (.npz) without pickled objects, N samples in the order of the data set's split:

    index       (N,) int64    number of the sample, what `dataset.images([index])` takes
    labels      (N,) int64    number of its class
    guesses     (N,) int64    number of the likeliest class
    confidence  (N,) float64  probability of the guess, in [0, 1]
    likelihood  (N,) float64  probability of the label, in [0, 1]
    classes     (K,) texts    names of the classes
    dataset     ()   text     the data set's name
    split       ()   text     "test" or "train"
    step        ()   int64    the checkpoint's update; -1 where that is not known

The most wrong images are those with the lowest likelihood. `tools/report.py` shows the predictions.npz in a run's folder.
"""
from .metrics import Calibration, Metrics
from .predictions import Predictions, read_predictions, write_predictions
from .run import Member, Result, evaluate
from .timing import measure_speed
from .views import Protocol

__all__ = ["Calibration", "Member", "Metrics", "Predictions", "Protocol", "Result", "evaluate", "measure_speed",
           "read_predictions", "write_predictions"]
