"""Global average pooling that does not slow training down."""
from mxnet.gluon import HybridBlock

__all__ = ["GlobalAveragePool"]


class GlobalAveragePool(HybridBlock):
    """The mean over all pixels of each channel.

    Written as a mean, not as a pooling: the backward pass of MXNet 1.9.1's global pooling runs oneDNN's reference kernel
    and leaves the gradient in the plain memory layout, with which BatchNorms before it fall to their reference kernels
    too. The training of a CIFAR ResNet-20 was 1.8 times as fast with the mean.

    Shape: (N, C, H, W) -> (N, C).
    """

    def hybrid_forward(self, F, x):
        return F.mean(x, axis=(2, 3))
