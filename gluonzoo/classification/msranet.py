"""MSRA-net: VGG-like networks with PReLU, a first 7x7 convolution and spatial pyramid pooling.

Source: K. He, X. Zhang, S. Ren, J. Sun, Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet
Classification, 2015, arXiv:1502.01852, table 3 and section 3: models A, B and C.
Differences
- Every PReLU has one slope a channel ("channel-wise"), also those after fc6 and fc7; slopes start at 0.25 and have no weight
  decay (section 2.1). With one slope a layer model A would have 178,017,402 parameters.
- Weights start from the variance 2 / ((1 + 0.25^2) fan_in) of equation 15, biases from 0. The last layer starts from
  N(0, 0.01), which keeps the first loss near that of chance.
- Max pooling leaves out odd last rows, which 224x224 images do not have.
"""
import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..errors import UserError
from ..layers import Network, PReLU, SpatialPyramidPool, Stages
from ..registry import ModelSpec, register

__all__ = ["MSRANet", "Rectified", "msra_net_a", "msra_net_b", "msra_net_c"]

#: Table 3: convolutions in each of three stacks, and their channels.
CONFIGURATIONS = {
    "A": (5, (256, 512, 512)),
    "B": (6, (256, 512, 512)),
    "C": (6, (384, 768, 896)),
}
SLOPE = 0.25
HE = mx.init.MSRAPrelu(factor_type="in", slope=SLOPE)


class Rectified(HybridBlock):
    """A layer and its PReLU with one slope for each of `channels`; `dims` as in `PReLU`."""

    def __init__(self, layer, channels, dims=2):
        super().__init__()
        with self.name_scope():
            self.layer = layer
            self.prelu = PReLU(channels, SLOPE, dims)

    def hybrid_forward(self, F, x):
        return self.prelu(self.layer(x))


class MSRANet(Network):
    """A 7x7 convolution, three stacks of 3x3 convolutions, a spatial pyramid of 7x7, 3x3, 2x2 and 1x1 bins, three dense layers.

    Takes images of 15x15 and larger; 224x224 is the standard. Channels in the comments are those of model A.

    Args:
        configuration: a key of `CONFIGURATIONS`.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, configuration, classes=1000, in_channels=3):
        if configuration not in CONFIGURATIONS:
            raise UserError(f"configuration is {configuration!r}; expected one of {', '.join(CONFIGURATIONS)}")
        super().__init__(classes, in_channels, min_size=(15, 15))
        layers, widths = CONFIGURATIONS[configuration]
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 3 x 224 x 224
                self.features.conv1 = _conv(in_channels, 96, 7, 2)                          # N x 96 x 112 x 112
                in_channels = 96
                for number, channels in enumerate(widths, 2):                               # N x 256 x 56 x 56
                    setattr(self.features, f"pool{number - 1}", nn.MaxPool2D(2))            # N x 512 x 28 x 28
                    for index in range(layers):                                             # N x 512 x 14 x 14
                        setattr(self.features, f"conv{number}_{index + 1}", _conv(in_channels, channels, 3))
                        in_channels = channels
            self.pyramid = SpatialPyramidPool((7, 3, 2, 1))                                 # N x 512 * 63
            self.fc6 = _dense(in_channels * self.pyramid.total)                             # N x 4096
            self.fc7 = _dense(4096)                                                         # N x 4096
            self.dropout = nn.Dropout(0.5)
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=4096, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        x = self.pyramid(self.features(x))
        return self.output(self.dropout(self.fc7(self.dropout(self.fc6(x)))))


def _conv(in_channels, channels, kernel_size, strides=1):
    return Rectified(nn.Conv2D(channels, kernel_size, strides, kernel_size // 2, in_channels=in_channels,
                               weight_initializer=HE), channels)


def _dense(in_units):
    return Rectified(nn.Dense(4096, in_units=in_units, weight_initializer=HE), 4096, dims=0)


_spec = functools.partial(
    ModelSpec, task="classification", family="MSRA-net", year=2015, classes=1000, input_shape=(3, 224, 224),
    paper="Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet Classification",
    link="arXiv:1502.01852", learning_rate=0.01)


@register(_spec(params=178032072, macs=19058106368))
def msra_net_a(classes=1000, in_channels=3):
    """Model A of table 3: 19 layers with weights."""
    return MSRANet("A", classes, in_channels)


@register(_spec(params=183343048, macs=23219904512))
def msra_net_b(classes=1000, in_channels=3):
    """Model B of table 3: 22 layers with weights."""
    return MSRANet("B", classes, in_channels)


@register(_spec(params=330623944, macs=53463130112))
def msra_net_c(classes=1000, in_channels=3):
    """Model C of table 3: 22 layers with weights, more channels."""
    return MSRANet("C", classes, in_channels)
