"""What a task adds to the loop: a forward pass that gives losses, and metrics."""
import mxnet as mx
import numpy as np

from .losses import cross_entropy

__all__ = ["Classification"]


class Classification:
    """Softmax cross-entropy and top-1 accuracy.

    A batch on one device is a pair (images (N, C, H, W) float32, labels (N,) int32 or, mixed, (N, classes) float32).

    Args:
        label_smoothing: as in `losses.smooth`, in training only.
        aux_weight: of the loss of each auxiliary head (a network built with ``aux=True``), in training only: 0.3 in
            Szegedy et al., "Going Deeper with Convolutions", 2014, section 5.
        half: run the network on float16 images, and give losses float32 outputs.
    """

    metric = "accuracy"

    def __init__(self, label_smoothing=0.0, aux_weight=0.3, half=False):
        self._smoothing, self._aux_weight, self._half = label_smoothing, aux_weight, half
        self._loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
        self._loss.hybridize()

    def forward(self, net, images, labels):
        """Returns: ({loss name: (N,) NDArray, one value a sample}, outputs (N, classes), the main head's)."""
        training = mx.autograd.is_training()
        outputs = net(images.astype("float16") if self._half else images)
        heads = dict(zip(outputs._fields[1:], outputs[1:])) if hasattr(outputs, "_fields") else {}
        if heads:
            outputs = outputs[0]
        if self._half:
            outputs = outputs.astype("float32")
        losses = {"cross_entropy": self._cross_entropy(outputs, labels, training)}
        if training:
            for name, head in heads.items():
                losses[name] = self._aux_weight * self._cross_entropy(head, labels, training)
        return losses, outputs

    def _cross_entropy(self, outputs, labels, training):
        if labels.ndim == 1 and not (training and self._smoothing):
            return self._loss(outputs, labels)
        return cross_entropy(outputs, labels, self._smoothing if training else 0.0)

    def score(self, losses, outputs, labels):
        """Sums over samples as float64 (2,): all losses together, correct predictions. Waits for the arrays.

        Of soft labels the largest counts as the right one.
        """
        loss = sum(float(value.asnumpy().astype(np.float64).sum()) for value in losses.values())
        labels = labels.argmax(axis=1) if labels.ndim == 2 else labels
        correct = int((outputs.asnumpy().argmax(axis=1) == labels).sum())
        return np.array([loss, correct], dtype=np.float64)
