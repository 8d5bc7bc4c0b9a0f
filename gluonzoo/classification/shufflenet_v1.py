"""ShuffleNet: residual units of grouped 1x1 convolutions, with a channel shuffle between the groups.

Source: X. Zhang, X. Zhou, M. Lin, J. Sun, ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
Devices, 2017, arXiv:1707.01083, table 1 and figure 2; order of the concatenated parts (shortcut first) and initial
weights from the authors' PyTorch code, https://github.com/megvii-model/ShuffleNet-Series.
- `_g1` to `_g8`: number of groups; `_1_0` to `_0_25`: the scale of the numbers of channels (section 3.3).
Differences
- The narrow networks' stem is scaled too, as in the authors' code; the paper leaves it open.
- The classifier has a bias, as gluoncv2's; the authors' code has none. BatchNorm's beta starts at 0, theirs at 0.0001.
- gluoncv2 puts the shortcut behind the branch; GluonCV's `shufflenet_v1` has other widths.
"""
import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..layers import ChannelShuffle, ConvNorm, GlobalAveragePool, Network, Stages, concat_channels
from ..registry import ModelSpec, register

__all__ = ["ShuffleNet", "ShuffleUnit", "shufflenet_v1_g1_0_25", "shufflenet_v1_g1_0_5", "shufflenet_v1_g1_0_75",
           "shufflenet_v1_g1_1_0", "shufflenet_v1_g2_1_0", "shufflenet_v1_g3_0_25", "shufflenet_v1_g3_0_5",
           "shufflenet_v1_g3_0_75", "shufflenet_v1_g3_1_0", "shufflenet_v1_g4_1_0", "shufflenet_v1_g8_1_0"]

#: Table 1: groups -> channels of stage 2; each later stage has twice those of the one before.
WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
#: Table 1: units in stages 2, 3 and 4; the first of each has stride 2.
UNITS = (4, 8, 4)
#: Scales of section 3.3 and table 2, and 0.75 of gluoncv2.
SCALES = (1.0, 0.75, 0.5, 0.25)


def _conv(in_channels, channels, kernel_size, strides=1, groups=1, **options):
    """ConvNorm with the authors' initial weights: the deviation is 1 over the channels that a filter sees."""
    return ConvNorm(in_channels, channels, kernel_size, strides, groups=groups,
                    weight_initializer=mx.init.Normal(groups / in_channels), **options)


class ShuffleUnit(HybridBlock):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, and the shortcut, which is added, or concatenated at stride 2.

    Args:
        strides: 1 or 2. With 1, in_channels and channels are the same.
        first_groups: groups of the first convolution, where they differ.
    Shape: (N, in_channels, H, W) -> (N, channels, ceil(H / strides), ceil(W / strides)).
    """

    def __init__(self, in_channels, channels, groups, strides=1, first_groups=None, prefix=None):
        super().__init__(prefix=prefix)
        width, new = channels // 4, channels - in_channels if strides == 2 else channels
        self._widths = in_channels, new
        with self.name_scope():
            self.squeeze = _conv(in_channels, width, 1, groups=first_groups or groups, prefix="squeeze_")
            self.shuffle = ChannelShuffle(width, groups)
            self.depthwise = _conv(width, width, 3, strides, groups=width, relu=False, prefix="depthwise_")
            self.expand = _conv(width, new, 1, groups=groups, relu=False, prefix="expand_")
            self.pool = nn.AvgPool2D(3, 2, padding=1) if strides == 2 else None

    def hybrid_forward(self, F, x):
        branch = self.expand(self.depthwise(self.shuffle(self.squeeze(x))))
        if self.pool is None:
            joined = F.elemwise_add(x, branch)
        else:
            joined = concat_channels(F, [self.pool(x), branch], self._widths)
        return F.Activation(joined, act_type="relu")


def _stage(units, in_channels, channels, groups, first_groups, prefix):
    stage = nn.HybridSequential(prefix=prefix)
    with stage.name_scope():
        stage.add(ShuffleUnit(in_channels, channels, groups, 2, first_groups, prefix="unit1_"))
        for index in range(1, units):
            stage.add(ShuffleUnit(channels, channels, groups, prefix=f"unit{index + 1}_"))
    return stage


class ShuffleNet(Network):
    """ShuffleNet (v1). Takes images of any size; 224x224 is the standard.

    Args:
        groups: of the 1x1 convolutions, a key of `WIDTHS`.
        scale: of all numbers of channels, one of `SCALES`.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, groups, scale=1.0, classes=1000, in_channels=3):
        if groups not in WIDTHS:
            raise ValueError(f"groups is {groups!r}; expected one of {', '.join(map(str, WIDTHS))}")
        if scale not in SCALES:
            raise ValueError(f"scale is {scale!r}; expected one of {', '.join(map(str, SCALES))}")
        super().__init__(classes, in_channels)
        stem, width = int(24 * scale), int(WIDTHS[groups] * scale)
        self._channels = 4 * width
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                            # N x 3 x 224 x 224; three groups, scale 1:
                self.features.stem = nn.HybridSequential(prefix="stem_")                            # N x 24 x 56 x 56
                with self.features.stem.name_scope():
                    self.features.stem.add(ConvNorm(in_channels, stem, 3, 2, prefix="conv1_",
                                                    weight_initializer=mx.init.Normal(0.01)),
                                           nn.MaxPool2D(3, 2, padding=1))
                # Stage 2's input is too thin for groups in its first convolution (section 3.3).
                self.features.stage2 = _stage(UNITS[0], stem, width, groups, 1, "stage2_")          # N x 240 x 28 x 28
                self.features.stage3 = _stage(UNITS[1], width, 2 * width, groups, None, "stage3_")  # N x 480 x 14 x 14
                self.features.stage4 = _stage(UNITS[2], 2 * width, 4 * width, groups, None, "stage4_")  # N x 960 x 7 x 7
            self.pool = GlobalAveragePool()                                                         # N x 960
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._channels, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


_spec = functools.partial(
    ModelSpec, task="classification", family="ShuffleNet", year=2017, classes=1000, input_shape=(3, 224, 224),
    paper="ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices", link="arXiv:1707.01083")


@register(_spec(params=1531936, macs=143078976))
def shufflenet_v1_g1_1_0(classes=1000, in_channels=3):
    """ShuffleNet 1x with one group."""
    return ShuffleNet(1, 1.0, classes, in_channels)


@register(_spec(params=1733848, macs=140836512))
def shufflenet_v1_g2_1_0(classes=1000, in_channels=3):
    """ShuffleNet 1x with two groups."""
    return ShuffleNet(2, 1.0, classes, in_channels)


@register(_spec(params=1865728, macs=137460672))
def shufflenet_v1_g3_1_0(classes=1000, in_channels=3):
    """ShuffleNet 1x with three groups."""
    return ShuffleNet(3, 1.0, classes, in_channels)


@register(_spec(params=1968344, macs=134339776))
def shufflenet_v1_g4_1_0(classes=1000, in_channels=3):
    """ShuffleNet 1x with four groups."""
    return ShuffleNet(4, 1.0, classes, in_channels)


@register(_spec(params=2434768, macs=138365952))
def shufflenet_v1_g8_1_0(classes=1000, in_channels=3):
    """ShuffleNet 1x with eight groups."""
    return ShuffleNet(8, 1.0, classes, in_channels)


@register(_spec(params=975214, macs=82542672))
def shufflenet_v1_g1_0_75(classes=1000, in_channels=3):
    """ShuffleNet 0.75x with one group."""
    return ShuffleNet(1, 0.75, classes, in_channels)


@register(_spec(params=1238266, macs=79740144))
def shufflenet_v1_g3_0_75(classes=1000, in_channels=3):
    """ShuffleNet 0.75x with three groups."""
    return ShuffleNet(3, 0.75, classes, in_channels)


@register(_spec(params=534484, macs=38517408))
def shufflenet_v1_g1_0_5(classes=1000, in_channels=3):
    """ShuffleNet 0.5x with one group."""
    return ShuffleNet(1, 0.5, classes, in_channels)


@register(_spec(params=718324, macs=37589856))
def shufflenet_v1_g3_0_5(classes=1000, in_channels=3):
    """ShuffleNet 0.5x with three groups."""
    return ShuffleNet(3, 0.5, classes, in_channels)


@register(_spec(params=209746, macs=11003184))
def shufflenet_v1_g1_0_25(classes=1000, in_channels=3):
    """ShuffleNet 0.25x with one group."""
    return ShuffleNet(1, 0.25, classes, in_channels)


@register(_spec(params=305902, macs=11009808))
def shufflenet_v1_g3_0_25(classes=1000, in_channels=3):
    """ShuffleNet 0.25x with three groups."""
    return ShuffleNet(3, 0.25, classes, in_channels)
