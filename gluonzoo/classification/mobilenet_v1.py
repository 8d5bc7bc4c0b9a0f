"""MobileNet: a chain of depthwise separable convolutions, in four widths.

Source: A. Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017,
arXiv:1704.04861, table 1; initial weights (truncated normal of 0.09) from the authors' TensorFlow-Slim release.
Differences
- ReLU, as the paper says and MXNet's model zoo has; the release and timm have ReLU6.
- The last depthwise convolution has stride 1: the "s2" in table 1 contradicts its sizes.
- Slim's epsilon of BatchNorm is 0.001, and it drops 0.1 % of the pooled values; here 1e-5, as MXNet's zoo, and none.
"""
import functools

from mxnet.gluon import nn

from ..layers import ConvNorm, DepthwiseSeparable, GlobalAveragePool, Network, Stages, TruncatedNormal
from ..registry import ModelSpec, register

__all__ = ["MobileNet", "mobilenet_v1_0_25", "mobilenet_v1_0_5", "mobilenet_v1_0_75", "mobilenet_v1_1_0"]

#: Table 1: (depthwise separable convolutions, channels, stride of the first) of each stage.
STAGES = ((1, 64, 1), (2, 128, 2), (2, 256, 2), (6, 512, 2), (2, 1024, 2))
#: Width multipliers of section 3.3 and table 6.
WIDTHS = (1.0, 0.75, 0.5, 0.25)


def _stage(units, in_channels, channels, strides, prefix):
    stage = nn.HybridSequential(prefix=prefix)
    with stage.name_scope():
        for index in range(units):
            stage.add(DepthwiseSeparable(channels if index else in_channels, channels, strides=1 if index else strides,
                                         prefix=f"unit{index + 1}_", weight_initializer=TruncatedNormal(0.09)))
    return stage


class MobileNet(Network):
    """MobileNet (v1). Takes images of any size; 224x224 is the standard.

    Args:
        width: the multiplier of all numbers of channels, one of `WIDTHS`.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, width=1.0, classes=1000, in_channels=3):
        if width not in WIDTHS:
            raise ValueError(f"width is {width!r}; expected one of {', '.join(map(str, WIDTHS))}")
        super().__init__(classes, in_channels)
        channels = int(32 * width)
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                            # N x 3 x 224 x 224; the widths of 1.0:
                self.features.stem = ConvNorm(in_channels, channels, 3, 2, prefix="stem_",     # N x 32 x 112 x 112
                                              weight_initializer=TruncatedNormal(0.09))
                for number, (units, full, strides) in enumerate(STAGES, 1):     # N x 64 x 112 x 112, 128 x 56 x 56,
                    last, channels = channels, int(full * width)                # 256 x 28 x 28, 512 x 14 x 14, 1024 x 7 x 7
                    setattr(self.features, f"stage{number}", _stage(units, last, channels, strides, f"stage{number}_"))
            self._channels = channels
            self.pool = GlobalAveragePool()                                                    # N x 1024
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._channels, weight_initializer=TruncatedNormal(0.09), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


_spec = functools.partial(
    ModelSpec, task="classification", family="MobileNet", year=2017, classes=1000, input_shape=(3, 224, 224),
    paper="MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", link="arXiv:1704.04861")


@register(_spec(params=4231976, macs=568740352))
def mobilenet_v1_1_0(classes=1000, in_channels=3):
    """MobileNet of full width."""
    return MobileNet(1.0, classes, in_channels)


@register(_spec(params=2585560, macs=325400448))
def mobilenet_v1_0_75(classes=1000, in_channels=3):
    """MobileNet with three quarters of the channels."""
    return MobileNet(0.75, classes, in_channels)


@register(_spec(params=1331592, macs=149497088))
def mobilenet_v1_0_5(classes=1000, in_channels=3):
    """MobileNet with half of the channels."""
    return MobileNet(0.5, classes, in_channels)


@register(_spec(params=470072, macs=41030272))
def mobilenet_v1_0_25(classes=1000, in_channels=3):
    """MobileNet with a quarter of the channels."""
    return MobileNet(0.25, classes, in_channels)
