"""ShuffleNet V2: half of the channels pass each unit untouched, and no convolution but the depthwise is grouped.

Source: N. Ma, X. Zhang, H.-T. Zheng, J. Sun, ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design,
2018, arXiv:1807.11164, table 5 and figure 3 (c, d); initial weights and the widest network's dropout from the authors'
PyTorch code, https://github.com/megvii-model/ShuffleNet-Series. The same networks as torchvision's.
Differences
- The widest network's channels are 244, 488 and 976, as table 5 and torchvision have them; gluoncv2's and pytorchcv's
  of widths 1.5 and 2.0 differ.
- The authors' code shuffles at the beginning of a unit, the paper at its end: the same up to the order of channels.
- The classifier has a bias, as torchvision's; the authors' code has none. BatchNorm's beta starts at 0, theirs at 0.0001.
"""
import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..layers import ChannelShuffle, ConvNorm, GlobalAveragePool, Network, Stages, concat_channels, make_dropout
from ..registry import ModelSpec, register

__all__ = ["ShuffleNetV2", "ShuffleUnitV2", "shufflenet_v2_0_5", "shufflenet_v2_1_0", "shufflenet_v2_1_5",
           "shufflenet_v2_2_0"]

#: Table 5: width -> channels of stages 2, 3 and 4, and of conv5.
CONFIGURATIONS = {0.5: (48, 96, 192, 1024), 1.0: (116, 232, 464, 1024), 1.5: (176, 352, 704, 1024),
                  2.0: (244, 488, 976, 2048)}
#: Table 5: units in stages 2, 3 and 4; the first of each has stride 2.
UNITS = (4, 8, 4)


def _conv(in_channels, channels, kernel_size, strides=1, groups=1, **options):
    """ConvNorm with the authors' initial weights: the deviation is 1 over the channels that a filter sees."""
    return ConvNorm(in_channels, channels, kernel_size, strides, groups=groups,
                    weight_initializer=mx.init.Normal(groups / in_channels), **options)


class ShuffleUnitV2(HybridBlock):
    """Two paths that are concatenated and shuffled.

    At stride 1 the first path is one half of the channels as it is; at stride 2 both paths see all channels, and the
    first is a depthwise and a 1x1 convolution. The second path is 1x1, depthwise 3x3, 1x1 in both.

    Args:
        strides: 1 or 2. With 1, in_channels and channels are the same.
    Shape: (N, in_channels, H, W) -> (N, channels, ceil(H / strides), ceil(W / strides)).
    """

    def __init__(self, in_channels, channels, strides=1, prefix=None):
        super().__init__(prefix=prefix)
        self._half, seen = channels // 2, channels // 2 if strides == 1 else in_channels
        with self.name_scope():
            self.shortcut = None
            if strides == 2:
                self.shortcut = nn.HybridSequential(prefix="shortcut_")
                with self.shortcut.name_scope():
                    self.shortcut.add(_conv(seen, seen, 3, 2, groups=seen, relu=False, prefix="depthwise_"),
                                      _conv(seen, self._half, 1, prefix="pointwise_"))
            self.conv1 = _conv(seen, self._half, 1, prefix="conv1_")
            self.depthwise = _conv(self._half, self._half, 3, strides, groups=self._half, relu=False,
                                   prefix="depthwise_")
            self.conv2 = _conv(self._half, self._half, 1, prefix="conv2_")
            self.shuffle = ChannelShuffle(channels, 2)

    def hybrid_forward(self, F, x):
        if self.shortcut is None:
            around = F.slice_axis(x, axis=1, begin=0, end=self._half)
            x = F.slice_axis(x, axis=1, begin=self._half, end=None)
        else:
            around = self.shortcut(x)
        branch = self.conv2(self.depthwise(self.conv1(x)))
        return self.shuffle(concat_channels(F, [around, branch], (self._half, self._half)))


def _stage(units, in_channels, channels, prefix):
    stage = nn.HybridSequential(prefix=prefix)
    with stage.name_scope():
        stage.add(ShuffleUnitV2(in_channels, channels, 2, prefix="unit1_"))
        for index in range(1, units):
            stage.add(ShuffleUnitV2(channels, channels, prefix=f"unit{index + 1}_"))
    return stage


class ShuffleNetV2(Network):
    """ShuffleNet V2. Takes images of any size; 224x224 is the standard.

    Args:
        width: a key of `CONFIGURATIONS`.
        dropout: share of the pooled values that training sets to zero.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, width, classes=1000, in_channels=3, dropout=0.0):
        if width not in CONFIGURATIONS:
            raise ValueError(f"width is {width!r}; expected one of {', '.join(map(str, CONFIGURATIONS))}")
        super().__init__(classes, in_channels)
        stage2, stage3, stage4, self._channels = CONFIGURATIONS[width]
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                            # N x 3 x 224 x 224; the channels of 1.0:
                self.features.stem = nn.HybridSequential(prefix="stem_")                        # N x 24 x 56 x 56
                with self.features.stem.name_scope():
                    self.features.stem.add(ConvNorm(in_channels, 24, 3, 2, prefix="conv1_",
                                                    weight_initializer=mx.init.Normal(0.01)),
                                           nn.MaxPool2D(3, 2, padding=1))
                self.features.stage2 = _stage(UNITS[0], 24, stage2, "stage2_")                  # N x 116 x 28 x 28
                self.features.stage3 = _stage(UNITS[1], stage2, stage3, "stage3_")              # N x 232 x 14 x 14
                self.features.stage4 = _stage(UNITS[2], stage3, stage4, "stage4_")              # N x 464 x 7 x 7
                self.features.conv5 = _conv(stage4, self._channels, 1, prefix="conv5_")         # N x 1024 x 7 x 7
            self.pool = GlobalAveragePool()                                                     # N x 1024
            self.dropout = make_dropout(dropout)
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._channels, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        x = self.pool(self.features(x))
        return self.output(x if self.dropout is None else self.dropout(x))


_spec = functools.partial(
    ModelSpec, task="classification", family="ShuffleNet", year=2018, classes=1000, input_shape=(3, 224, 224),
    paper="ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", link="arXiv:1807.11164")


@register(_spec(params=1366792, macs=40476448))
def shufflenet_v2_0_5(classes=1000, in_channels=3, dropout=0.0):
    """ShuffleNet V2 0.5x."""
    return ShuffleNetV2(0.5, classes, in_channels, dropout)


@register(_spec(params=2278604, macs=144907992))
def shufflenet_v2_1_0(classes=1000, in_channels=3, dropout=0.0):
    """ShuffleNet V2 1x."""
    return ShuffleNetV2(1.0, classes, in_channels, dropout)


@register(_spec(params=3503624, macs=295759392))
def shufflenet_v2_1_5(classes=1000, in_channels=3, dropout=0.0):
    """ShuffleNet V2 1.5x."""
    return ShuffleNetV2(1.5, classes, in_channels, dropout)


@register(_spec(params=7393996, macs=583253464))
def shufflenet_v2_2_0(classes=1000, in_channels=3, dropout=0.2):
    """ShuffleNet V2 2x, with dropout before the classifier."""
    return ShuffleNetV2(2.0, classes, in_channels, dropout)
