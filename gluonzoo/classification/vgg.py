"""VGG: stacks of 3x3 convolutions, 11 to 19 layers with weights.

Source: K. Simonyan, A. Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014, arXiv:1409.1556,
table 1: configurations A (`vgg11`), B (`vgg13`), C (`vgg16_c`), D (`vgg16`), E (`vgg19`).
Differences
- The paper trained A from N(0, 0.01) and began the deeper nets with its layers; section 3.1 adds that the initialisation of
  Glorot and Bengio (2010) makes that unnecessary. That one is used here for all layers; biases are 0.
- `_bn` is not in the paper: BatchNorm after every convolution, which keeps its bias, as in torchvision and MXNet (gluoncv2's
  bn_vggN without b has no biases). Weights start as in MXNet's: variance 2 / fan_out, dense layers N(0, 0.01).
- A-LRN is left out: it brought nothing (section 4).
"""
import functools

import mxnet as mx
from mxnet.gluon import nn

from ..errors import UserError
from ..layers import ConvNorm, DenseHeadNetwork, Stages
from ..registry import ModelSpec, register

__all__ = ["VGG", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg16_c", "vgg19", "vgg19_bn"]

#: Table 1: the kernels of each stack of convolutions.
CONFIGURATIONS = {
    "A": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "B": ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
    "C": ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    "D": ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "E": ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
}
CHANNELS = (64, 128, 256, 512, 512)

GLOROT = mx.init.Xavier("uniform", factor_type="avg", magnitude=3)
HE_OUT = mx.init.Xavier("gaussian", factor_type="out", magnitude=2)


class VGG(DenseHeadNetwork):
    """Five stacks of convolutions, each ended by max pooling, and three dense layers.

    Args:
        configuration: a key of `CONFIGURATIONS`.
        batch_norm: whether a BatchNorm follows every convolution.
    Shape: (N, in_channels, 224, 224) -> (N, classes), logits.
    """
    hidden = ("fc6", "fc7")
    dropout_rate = 0.5

    def __init__(self, configuration, classes=1000, in_channels=3, batch_norm=False):
        if configuration not in CONFIGURATIONS:
            raise UserError(f"configuration is {configuration!r}; expected one of {', '.join(CONFIGURATIONS)}")
        super().__init__(classes, in_channels, (224, 224))
        self._initializer = mx.init.Normal(0.01) if batch_norm else GLOROT
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 3 x 224 x 224
                for number, (kernels, channels) in enumerate(zip(CONFIGURATIONS[configuration], CHANNELS), 1):
                    for index, kernel_size in enumerate(kernels, 1):
                        name = f"conv{number}_{index}"
                        setattr(self.features, name, _conv(in_channels, channels, kernel_size, batch_norm, f"{name}_"))
                        in_channels = channels
                    setattr(self.features, f"pool{number}", nn.MaxPool2D(2))
                # pool1 to pool5: N x 64 x 112 x 112, 128 x 56 x 56, 256 x 28 x 28, 512 x 14 x 14, 512 x 7 x 7
            dense = functools.partial(nn.Dense, 4096, "relu", weight_initializer=self._initializer)
            self.fc6 = dense(in_units=512 * 7 * 7, prefix="fc6_")                           # N x 4096
            self.fc7 = dense(in_units=4096, prefix="fc7_")                                  # N x 4096
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=4096, weight_initializer=self._initializer, prefix="output_")


def _conv(in_channels, channels, kernel_size, batch_norm, prefix):
    """A convolution that keeps the size, and a ReLU."""
    if batch_norm:
        return ConvNorm(in_channels, channels, kernel_size, use_bias=True, weight_initializer=HE_OUT, prefix=prefix)
    return nn.Conv2D(channels, kernel_size, padding=kernel_size // 2, activation="relu", in_channels=in_channels,
                     weight_initializer=GLOROT, prefix=prefix)


_spec = functools.partial(
    ModelSpec, task="classification", family="VGG", year=2014, classes=1000, input_shape=(3, 224, 224),
    paper="Very Deep Convolutional Networks for Large-Scale Image Recognition", link="arXiv:1409.1556", learning_rate=0.01)


@register(_spec(params=132863336, macs=7609090048))
def vgg11(classes=1000, in_channels=3):
    """VGG-11, configuration A. 224x224 inputs."""
    return VGG("A", classes, in_channels)


@register(_spec(params=132868840, macs=7609090048))
def vgg11_bn(classes=1000, in_channels=3):
    """VGG-11 with BatchNorm. 224x224 inputs."""
    return VGG("A", classes, in_channels, batch_norm=True)


@register(_spec(params=133047848, macs=11308466176))
def vgg13(classes=1000, in_channels=3):
    """VGG-13, configuration B. 224x224 inputs."""
    return VGG("B", classes, in_channels)


@register(_spec(params=133053736, macs=11308466176))
def vgg13_bn(classes=1000, in_channels=3):
    """VGG-13 with BatchNorm. 224x224 inputs."""
    return VGG("B", classes, in_channels, batch_norm=True)


@register(_spec(params=138357544, macs=15470264320))
def vgg16(classes=1000, in_channels=3):
    """VGG-16, configuration D. 224x224 inputs."""
    return VGG("D", classes, in_channels)


@register(_spec(params=138365992, macs=15470264320))
def vgg16_bn(classes=1000, in_channels=3):
    """VGG-16 with BatchNorm. 224x224 inputs."""
    return VGG("D", classes, in_channels, batch_norm=True)


@register(_spec(params=133638952, macs=11770888192))
def vgg16_c(classes=1000, in_channels=3):
    """VGG-16 of configuration C: the third convolutions of the last three stacks are 1x1. 224x224 inputs."""
    return VGG("C", classes, in_channels)


@register(_spec(params=143667240, macs=19632062464))
def vgg19(classes=1000, in_channels=3):
    """VGG-19, configuration E. 224x224 inputs."""
    return VGG("E", classes, in_channels)


@register(_spec(params=143678248, macs=19632062464))
def vgg19_bn(classes=1000, in_channels=3):
    """VGG-19 with BatchNorm. 224x224 inputs."""
    return VGG("E", classes, in_channels, batch_norm=True)
