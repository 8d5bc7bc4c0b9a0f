"""What a task adds to the loop: a forward pass that gives losses, and metrics."""
import mxnet as mx
import numpy as np

__all__ = ["Classification"]


class Classification:
    """Softmax cross-entropy and top-1 accuracy.

    A batch on one device is a pair (images (N, C, H, W) float32, labels (N,) int32).
    """

    metric = "accuracy"

    def __init__(self):
        self._loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
        self._loss.hybridize()

    def forward(self, net, images, labels):
        """Returns: ({loss name: (N,) NDArray, one value a sample}, outputs (N, classes))."""
        outputs = net(images)
        return {"cross_entropy": self._loss(outputs, labels)}, outputs

    def score(self, losses, outputs, labels):
        """Sums over samples as float64 (2,): all losses together, correct predictions. Waits for the arrays."""
        loss = sum(float(value.asnumpy().astype(np.float64).sum()) for value in losses.values())
        correct = int((outputs.asnumpy().argmax(axis=1) == labels).sum())
        return np.array([loss, correct], dtype=np.float64)
