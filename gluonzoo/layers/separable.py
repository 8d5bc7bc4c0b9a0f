"""The depthwise separable convolution of MobileNets.

Source: A. Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017,
arXiv:1704.04861, section 3.1 and figure 3 (right). Differences: none known.
"""
from mxnet.gluon import HybridBlock

from .residual import ConvNorm

__all__ = ["DepthwiseSeparable"]


class DepthwiseSeparable(HybridBlock):
    """A convolution of each channel by itself, then a 1x1 convolution across channels, each with BatchNorm and ReLU.

    Args:
        kernel_size, strides: of the depthwise convolution.
        options: of both `ConvNorm`s: `epsilon`, `weight_initializer`.
    Shape: (N, in_channels, H, W) -> (N, channels, ceil(H / strides), ceil(W / strides)).
    """

    def __init__(self, in_channels, channels, kernel_size=3, strides=1, prefix=None, **options):
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.depthwise = ConvNorm(in_channels, in_channels, kernel_size, strides, groups=in_channels,
                                      prefix="depthwise_", **options)
            self.pointwise = ConvNorm(in_channels, channels, 1, prefix="pointwise_", **options)

    def hybrid_forward(self, F, x):
        return self.pointwise(self.depthwise(x))
