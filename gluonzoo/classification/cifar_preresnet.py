"""ResNet v2 for CIFAR: pre-activation units in three stages, up to 1001 layers.

Source: K. He, X. Zhang, S. Ren, J. Sun, Identity Mappings in Deep Residual Networks, 2016, arXiv:1603.05027, tables 2 to 4
and the appendix; the authors' github.com/KaimingHe/resnet-1k-layers. Convolutions start as in arXiv:1502.01852.
- 20 to 110 layers: 6n + 2, basic units of 16, 32 and 64 channels; 164 and 1001: 9n + 2, bottlenecks of 64, 128 and 256.
Differences: the stride of a bottleneck is on its 3x3 convolution, as in gluoncv2's and PyTorchCV's networks and in the
table of counts; the authors' code has it on the first 1x1, which `CifarPreResNet(164, stride_on_3x3=False)` builds (the same
parameters, 1.3 % fewer multiply-adds). GluonCV's networks of 20, 56 and 110 layers begin with a BatchNorm of the image without
scale or shift, and their shortcuts begin before a unit's BatchNorm and ReLU: `input_norm=True, active_shortcut=False`. The last
layer starts from N(0, 0.01), which the paper leaves open.
"""
import functools

import mxnet as mx
from mxnet.gluon import nn

from ..layers import (
    GlobalAveragePool,
    Network,
    NormReLU,
    PreBasicUnit,
    PreBottleneckUnit,
    Stages,
    check_flag,
    expect_variances,
    he_conv,
    residual_stage,
)
from ..registry import ModelSpec, register

__all__ = ["CifarPreResNet", "cifar_resnet20_v2", "cifar_resnet56_v2", "cifar_resnet110_v2", "cifar_resnet164_v2",
           "cifar_resnet1001_v2"]

#: Tables 2 to 4: layers -> (unit, units in each of the three stages).
CONFIGURATIONS = {
    20: (PreBasicUnit, 3),
    56: (PreBasicUnit, 9),
    110: (PreBasicUnit, 18),
    164: (PreBottleneckUnit, 18),
    1001: (PreBottleneckUnit, 111),
}


class CifarPreResNet(Network):
    """ResNet v2 for small images. Takes images of any size; 32x32 is the standard.

    The maps of `stage1` to `stage3` are the sums, as the next unit takes them; `norm` is the BatchNorm and ReLU behind the
    last one.

    Args:
        layers: a key of `CONFIGURATIONS`.
        input_norm: whether a BatchNorm of the image comes first.
        options: of the unit (`active_shortcut`; `stride_on_3x3` of a bottleneck).
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, layers, classes=10, in_channels=3, input_norm=False, **options):
        super().__init__(classes, in_channels)
        check_flag(input_norm=input_norm)
        if layers not in CONFIGURATIONS:
            raise ValueError(f"layers is {layers!r}; expected one of {', '.join(map(str, CONFIGURATIONS))}")
        unit, units = CONFIGURATIONS[layers]
        wide = unit.expansion
        self._channels = 64 * wide
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 3 x 32 x 32
                make = functools.partial(residual_stage, unit, units, **options)
                if input_norm:
                    self.features.input_norm = nn.BatchNorm(scale=False, center=False, in_channels=in_channels)
                self.features.stem = he_conv(in_channels, 16, 3)                            # N x 16 x 32 x 32
                self.features.stage1 = make(16, 16, 1, "stage1_")                           # N x 16 (64) x 32 x 32
                self.features.stage2 = make(16 * wide, 32, 2, "stage2_")                    # N x 32 (128) x 16 x 16
                self.features.stage3 = make(32 * wide, 64, 2, "stage3_")                    # N x 64 (256) x 8 x 8
                self.features.norm = NormReLU(64 * wide, prefix="norm_")
            stages = self.features.stage1, self.features.stage2, self.features.stage3
            expect_variances(stages, self.features.norm.norm, 2)  # No ReLU before the stem: 2 / fan_in doubles the image's.
            self.pool = GlobalAveragePool()                                                 # N x 64 (256)
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._channels, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


_spec = functools.partial(
    ModelSpec, task="classification", family="ResNet-CIFAR", year=2016, classes=10, input_shape=(3, 32, 32),
    paper="Identity Mappings in Deep Residual Networks", link="arXiv:1603.05027")


@register(_spec(params=272282, macs=40813184))
def cifar_resnet20_v2(classes=10, in_channels=3, input_norm=False, active_shortcut=True):
    """ResNet-20 for CIFAR with pre-activation; the last two keywords are for GluonCV's weights."""
    return CifarPreResNet(20, classes, in_channels, input_norm, active_shortcut=active_shortcut)


@register(_spec(params=855578, macs=125747840))
def cifar_resnet56_v2(classes=10, in_channels=3, input_norm=False, active_shortcut=True):
    """ResNet-56 for CIFAR with pre-activation; the last two keywords are for GluonCV's weights."""
    return CifarPreResNet(56, classes, in_channels, input_norm, active_shortcut=active_shortcut)


@register(_spec(params=1730522, macs=253149824))
def cifar_resnet110_v2(classes=10, in_channels=3, input_norm=False, active_shortcut=True):
    """ResNet-110 for CIFAR with pre-activation; the last two keywords are for GluonCV's weights."""
    return CifarPreResNet(110, classes, in_channels, input_norm, active_shortcut=active_shortcut)


@register(_spec(params=1703258, macs=247646720))
def cifar_resnet164_v2(classes=10, in_channels=3):
    """ResNet-164 for CIFAR with pre-activation and bottlenecks."""
    return CifarPreResNet(164, classes, in_channels, stride_on_3x3=True)


@register(_spec(params=10327706, macs=1490995712))
def cifar_resnet1001_v2(classes=10, in_channels=3):
    """ResNet-1001 for CIFAR with pre-activation and bottlenecks."""
    return CifarPreResNet(1001, classes, in_channels, stride_on_3x3=True)
