"""MobileNetV2: inverted residuals, thin at both ends and wide in the middle, with linear bottlenecks.

Source: M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen, MobileNetV2: Inverted Residuals and Linear Bottlenecks,
2018, arXiv:1801.04381, tables 1 and 2; rounding of channels, initial weights (truncated normal of 0.09) and dropout
before the classifier from the authors' TensorFlow-Slim release. The same networks as torchvision's and timm's.
Differences
- The first bottleneck (t = 1) has no expansion convolution, and the classifier is a dense layer with bias; MXNet's model
  zoo and gluoncv2's `mobilenetv2_w*` keep the one and leave out the other, and they do not round channels to multiples
  of 8. The width multiplier leaves the last convolution's 1280 channels alone below 1.
- Slim's epsilon of BatchNorm is 0.001; here 1e-5, as torchvision's.
"""
import functools

from mxnet.gluon import HybridBlock, nn

from ..layers import ConvNorm, GlobalAveragePool, Network, Stages, TruncatedNormal, drop_branch, make_dropout
from ..registry import ModelSpec, register

__all__ = ["ConvNormReLU6", "InvertedResidual", "MobileNetV2", "mobilenet_v2_0_5", "mobilenet_v2_0_75",
           "mobilenet_v2_1_0", "mobilenet_v2_1_4", "round_channels"]

#: Table 2: (expansion t, channels c, bottlenecks n, stride s of the first) of each stage.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
#: Width multipliers of section 5 and of the release.
WIDTHS = (1.0, 0.75, 0.5, 1.4)


def round_channels(channels, divisor=8):
    """The multiple of `divisor` next to a number of channels, at least `divisor`, and not below 90 % of the number."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


class ConvNormReLU6(ConvNorm):
    """Convolution, BatchNorm, and ReLU6: what is above 6 is cut off as well.

    Shape: (N, in_channels, H, W) -> (N, channels, ceil(H / strides), ceil(W / strides)).
    """

    def __init__(self, in_channels, channels, kernel_size, strides=1, **options):
        super().__init__(in_channels, channels, kernel_size, strides, relu=False, **options)

    def hybrid_forward(self, F, x):
        return F.clip(super().hybrid_forward(F, x), 0, 6)


class InvertedResidual(HybridBlock):
    """1x1 convolution to `expansion` times the channels, depthwise 3x3, linear 1x1; a shortcut where the shape stays.

    Args:
        expansion: 1 leaves the first convolution out.
    Shape: (N, in_channels, H, W) -> (N, channels, ceil(H / strides), ceil(W / strides)).
    """

    def __init__(self, in_channels, channels, strides=1, expansion=6, prefix=None):
        super().__init__(prefix=prefix)
        self._shortcut = strides == 1 and in_channels == channels
        if self._shortcut:
            self.survival = 1.0  # Chance to take part in training (`layers.stochastic_depth`).
        width, weights = in_channels * expansion, TruncatedNormal(0.09)
        with self.name_scope():
            self.expand = None if expansion == 1 else ConvNormReLU6(in_channels, width, 1, prefix="expand_",
                                                                    weight_initializer=weights)
            self.depthwise = ConvNormReLU6(width, width, 3, strides, groups=width, prefix="depthwise_",
                                           weight_initializer=weights)
            self.project = ConvNorm(width, channels, 1, relu=False, prefix="project_", weight_initializer=weights)

    def hybrid_forward(self, F, x):
        branch = self.project(self.depthwise(x if self.expand is None else self.expand(x)))
        return F.elemwise_add(x, drop_branch(F, branch, self.survival)) if self._shortcut else branch


def _stage(expansion, in_channels, channels, units, strides, prefix):
    stage = nn.HybridSequential(prefix=prefix)
    with stage.name_scope():
        for index in range(units):
            stage.add(InvertedResidual(channels if index else in_channels, channels, 1 if index else strides, expansion,
                                       prefix=f"unit{index + 1}_"))
    return stage


class MobileNetV2(Network):
    """MobileNetV2. Takes images of any size; 224x224 is the standard.

    The maps before each halving, and the last: `stage1`, `stage2`, `stage3`, `stage5`, `head`.

    Args:
        width: the multiplier of the numbers of channels, one of `WIDTHS`.
        dropout: share of the pooled values that training sets to zero.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, width=1.0, classes=1000, in_channels=3, dropout=0.2):
        if width not in WIDTHS:
            raise ValueError(f"width is {width!r}; expected one of {', '.join(map(str, WIDTHS))}")
        super().__init__(classes, in_channels)
        channels, self._channels = round_channels(32 * width), round_channels(1280 * max(1, width))
        weights = TruncatedNormal(0.09)
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                            # N x 3 x 224 x 224; the widths of 1.0:
                self.features.stem = ConvNormReLU6(in_channels, channels, 3, 2, prefix="stem_",    # N x 32 x 112 x 112
                                                   weight_initializer=weights)
                for number, (expansion, full, units, strides) in enumerate(STAGES, 1):  # N x 16 x 112 x 112, 24 x 56 x 56,
                    last, channels = channels, round_channels(full * width)             # 32 x 28 x 28, 64 x 14 x 14,
                    setattr(self.features, f"stage{number}",                            # 96 x 14 x 14, 160 x 7 x 7, 320
                            _stage(expansion, last, channels, units, strides, f"stage{number}_"))
                self.features.head = ConvNormReLU6(channels, self._channels, 1, prefix="head_",    # N x 1280 x 7 x 7
                                                   weight_initializer=weights)
            self.pool = GlobalAveragePool()                                                        # N x 1280
            self.dropout = make_dropout(dropout)
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._channels, weight_initializer=TruncatedNormal(0.09), prefix="output_")

    def hybrid_forward(self, F, x):
        x = self.pool(self.features(x))
        return self.output(x if self.dropout is None else self.dropout(x))


_spec = functools.partial(
    ModelSpec, task="classification", family="MobileNet", year=2018, classes=1000, input_shape=(3, 224, 224),
    paper="MobileNetV2: Inverted Residuals and Linear Bottlenecks", link="arXiv:1801.04381")


@register(_spec(params=3504872, macs=300774272))
def mobilenet_v2_1_0(classes=1000, in_channels=3, dropout=0.2):
    """MobileNetV2 of full width."""
    return MobileNetV2(1.0, classes, in_channels, dropout)


@register(_spec(params=2636424, macs=209069792))
def mobilenet_v2_0_75(classes=1000, in_channels=3, dropout=0.2):
    """MobileNetV2 with three quarters of the channels."""
    return MobileNetV2(0.75, classes, in_channels, dropout)


@register(_spec(params=1968680, macs=97131840))
def mobilenet_v2_0_5(classes=1000, in_channels=3, dropout=0.2):
    """MobileNetV2 with half of the channels."""
    return MobileNetV2(0.5, classes, in_channels, dropout)


@register(_spec(params=6108776, macs=582195824))
def mobilenet_v2_1_4(classes=1000, in_channels=3, dropout=0.2):
    """MobileNetV2 with 1.4 times the channels."""
    return MobileNetV2(1.4, classes, in_channels, dropout)
