"""ResNeXt for CIFAR: 29 layers, three stages of three units.

Source: S. Xie, R. Girshick, P. Dollar, Z. Tu, K. He, Aggregated Residual Transformations for Deep Neural Networks, 2016,
arXiv:1611.05431, section 5.3 and table 7; github.com/facebookresearch/ResNeXt. Convolutions start as in arXiv:1502.01852.
- 8x64d and 16x64d are the paper's; 32x4d is GluonCV's and gluoncv2's.
Differences: none known in structure. The last layer starts from N(0, 0.01), which the paper leaves open.
"""
import functools

import mxnet as mx
from mxnet.gluon import nn

from ..layers import ConvNorm, GlobalAveragePool, Network, ResNeXtUnit, Stages, residual_stage
from ..registry import ModelSpec, register

__all__ = ["CifarResNeXt", "cifar_resnext29_8x64d", "cifar_resnext29_16x64d", "cifar_resnext29_32x4d"]

#: Section 5.3: units in each of the three stages of the 29 layers.
UNITS = 3


class CifarResNeXt(Network):
    """ResNeXt-29 for small images. Takes images of any size; 32x32 is the standard.

    Args:
        groups: cardinality: groups of every 3x3 convolution.
        group_width: channels of one group in the first stage; twice as many in each stage after it.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, groups, group_width, classes=10, in_channels=3):
        super().__init__(classes, in_channels)
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 3 x 32 x 32
                make = functools.partial(residual_stage, ResNeXtUnit, UNITS, groups=groups, group_width=group_width)
                self.features.stem = ConvNorm(in_channels, 64, 3, prefix="stem_")           # N x 64 x 32 x 32
                self.features.stage1 = make(64, 64, 1, prefix="stage1_")                    # N x 256 x 32 x 32
                self.features.stage2 = make(256, 128, 2, prefix="stage2_")                  # N x 512 x 16 x 16
                self.features.stage3 = make(512, 256, 2, prefix="stage3_")                  # N x 1024 x 8 x 8
            self.pool = GlobalAveragePool()                                                 # N x 1024
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=1024, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


_spec = functools.partial(
    ModelSpec, task="classification", family="ResNeXt", year=2016, classes=10, input_shape=(3, 32, 32),
    paper="Aggregated Residual Transformations for Deep Neural Networks", link="arXiv:1611.05431")


@register(_spec(params=34426698, macs=5387266048))
def cifar_resnext29_8x64d(classes=10, in_channels=3):
    """ResNeXt-29 for CIFAR: 8 groups, 64 channels wide in the first stage."""
    return CifarResNeXt(8, 64, classes, in_channels)


@register(_spec(params=68155210, macs=10688866304))
def cifar_resnext29_16x64d(classes=10, in_channels=3):
    """ResNeXt-29 for CIFAR: 16 groups, 64 channels wide in the first stage."""
    return CifarResNeXt(16, 64, classes, in_channels)


@register(_spec(params=4775754, macs=774055936))
def cifar_resnext29_32x4d(classes=10, in_channels=3):
    """ResNeXt-29 for CIFAR: 32 groups, 4 channels wide in the first stage."""
    return CifarResNeXt(32, 4, classes, in_channels)
