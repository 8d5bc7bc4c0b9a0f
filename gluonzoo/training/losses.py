"""Cross-entropy of class numbers or of soft labels, with label smoothing."""
import mxnet as mx

from ..errors import UserError

__all__ = ["cross_entropy", "smooth"]


def smooth(labels, classes, smoothing):
    """Labels with a share of their weight spread evenly over all classes: (1 - smoothing) q + smoothing / K.

    Shape: (N,) class numbers or (N, K) weights that sum to 1 -> (N, K) float32.
    Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015, section 7, with u(k) = 1 / K.
    """
    weights = mx.nd.one_hot(labels, classes) if labels.ndim == 1 else labels.astype("float32")
    return weights * (1 - smoothing) + smoothing / classes if smoothing else weights


def cross_entropy(outputs, labels, smoothing=0.0):
    """-sum over k of q'(k) log softmax(outputs)(k), one value a sample.

    Shape: outputs (N, K), labels (N,) class numbers or (N, K) weights (mixup, CutMix, distillation) -> (N,) float32.
    Args: smoothing: of the labels, as in `smooth`; at least 0 and below 1.
    Raises: UserError for labels of another shape or smoothing out of range.
    """
    classes = outputs.shape[1]
    if labels.shape not in ((outputs.shape[0],), outputs.shape):
        raise UserError(f"labels have shape {labels.shape}; expected ({outputs.shape[0]},) class numbers or "
                        f"{outputs.shape} weights")
    if not 0 <= smoothing < 1:
        raise UserError(f"label smoothing is {smoothing}; expected at least 0 and below 1")
    logs = mx.nd.log_softmax(outputs.astype("float32"), axis=1)
    if labels.ndim == 2:
        return -mx.nd.sum(logs * smooth(labels, classes, smoothing), axis=1)
    loss = -mx.nd.pick(logs, labels, axis=1)
    # The smoothed labels' sum, split into the part of the label and that of all classes: no (N, K) array of labels is made.
    return (1 - smoothing) * loss - smoothing * mx.nd.mean(logs, axis=1) if smoothing else loss
