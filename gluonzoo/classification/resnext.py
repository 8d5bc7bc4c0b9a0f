"""ResNeXt for ImageNet: residual units whose 3x3 convolution works in many groups.

Source: S. Xie, R. Girshick, P. Dollar, Z. Tu, K. He, Aggregated Residual Transformations for Deep Neural Networks, 2016,
arXiv:1611.05431, table 1 and figure 3 (c); the stride on the 3x3 convolution is that of the authors'
github.com/facebookresearch/ResNeXt. Convolutions start as in arXiv:1502.01852, which section 4 names.
Differences: none known in structure. The last layer starts from N(0, 0.01), which the paper leaves open.
"""
import functools

import mxnet as mx
from mxnet.gluon import nn

from ..layers import ConvNorm, Network, ResNeXtUnit, Stages, residual_stage
from ..registry import ModelSpec, register

__all__ = ["ResNeXt", "resnext50_32x4d", "resnext101_32x4d", "resnext101_64x4d"]

#: Table 1 and section 5.1: layers -> units in conv2, conv3, conv4, conv5.
CONFIGURATIONS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class ResNeXt(Network):
    """ResNeXt with 50 or 101 layers. Takes images of any size; 224x224 is the standard.

    Args:
        layers: a key of `CONFIGURATIONS`.
        groups: cardinality: groups of every 3x3 convolution.
        group_width: channels of one group in the first stage; twice as many in each stage after it.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, layers, groups, group_width, classes=1000, in_channels=3):
        super().__init__(classes, in_channels)
        if layers not in CONFIGURATIONS:
            raise ValueError(f"layers is {layers!r}; expected one of {', '.join(map(str, CONFIGURATIONS))}")
        units = CONFIGURATIONS[layers]
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 3 x 224 x 224
                self.features.stem = nn.HybridSequential(prefix="stem_")                    # N x 64 x 56 x 56
                with self.features.stem.name_scope():
                    self.features.stem.add(ConvNorm(in_channels, 64, 7, 2, prefix="conv1_"),
                                           nn.MaxPool2D(3, 2, padding=1))
                make = functools.partial(residual_stage, ResNeXtUnit, groups=groups, group_width=group_width)
                self.features.stage1 = make(units[0], 64, 64, 1, prefix="stage1_")          # N x 256 x 56 x 56
                self.features.stage2 = make(units[1], 256, 128, 2, prefix="stage2_")        # N x 512 x 28 x 28
                self.features.stage3 = make(units[2], 512, 256, 2, prefix="stage3_")        # N x 1024 x 14 x 14
                self.features.stage4 = make(units[3], 1024, 512, 2, prefix="stage4_")       # N x 2048 x 7 x 7
            self.pool = nn.GlobalAvgPool2D()                                                # N x 2048 x 1 x 1
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=2048, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


_spec = functools.partial(
    ModelSpec, task="classification", family="ResNeXt", year=2016, classes=1000, input_shape=(3, 224, 224),
    paper="Aggregated Residual Transformations for Deep Neural Networks", link="arXiv:1611.05431")


@register(_spec(params=25028904, macs=4230479872))
def resnext50_32x4d(classes=1000, in_channels=3):
    """ResNeXt-50: 32 groups, 4 channels wide in the first stage."""
    return ResNeXt(50, 32, 4, classes, in_channels)


@register(_spec(params=44177704, macs=7969996800))
def resnext101_32x4d(classes=1000, in_channels=3):
    """ResNeXt-101: 32 groups, 4 channels wide in the first stage."""
    return ResNeXt(101, 32, 4, classes, in_channels)


@register(_spec(params=83455272, macs=15460270080))
def resnext101_64x4d(classes=1000, in_channels=3):
    """ResNeXt-101: 64 groups, 4 channels wide in the first stage."""
    return ResNeXt(101, 64, 4, classes, in_channels)
