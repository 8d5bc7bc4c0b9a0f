"""XNOR-Net and Binary-Weight-Network: AlexNet and ResNet-18 with binary filters, and with binary inputs to them.

Source: M. Rastegari, V. Ordonez, J. Redmon, A. Farhadi, XNOR-Net: ImageNet Classification Using Binary Convolutional
Neural Networks, 2016, arXiv:1603.05279, sections 3 and 4; the authors' AlexNets: allenai/XNOR-Net, models/alexnet.lua
(Binary-Weight-Network) and models/alexnetxnor.lua. First and last layer have real weights. A Binary-Weight-Network is
Conv-BatchNorm-ReLU, an XNOR-Network BatchNorm-Sign-Conv without ReLUs (figure 3). Binary filters are scaled by the mean of
their absolute weights; the scale K of the inputs (equation 11) is left out as in the authors' code, and
`gluonzoo.layers.BinaryConv2D` has it. Weights start from N(0, 2 / fan_in), biases from 0, the authors' initialisation.
Differences
- AlexNet: as the authors' files, not the paper of 2012: no towers, no LRN, dense layers as convolutions, BatchNorm with their
  epsilons, and every convolution has a bias. Dropout of whole maps with their 0.1 in the Binary-Weight-Network only.
- ResNet-18: neither paper nor code gives its layers, only "shortcut type B". Chosen here: ResNet's own topology without
  biases; all 3x3 convolutions are binary; stem, 1x1 shortcuts (with their BatchNorm) and the last layer are real, as is
  common since. In `xnor_resnet18` each binary convolution has BatchNorm and sign before it, so that BatchNorms are as wide as
  the inputs, and BatchNorm and ReLU stand once before the pooling, as at the end of the authors' AlexNet: 128 parameters
  more than ResNet-18. `bwn_resnet18` is ResNet-18 with binary filters, to the parameter; it is not in the registry.
- What the authors' training loop does to the weights: see `gluonzoo.layers.binary`.
"""
import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..layers import (
    BasicUnit,
    BinaryConv2D,
    BinaryWeightConv2D,
    ConvNorm,
    GlobalAveragePool,
    Network,
    Stages,
    make_shortcut,
    residual_stage,
)
from ..registry import ModelSpec, register

__all__ = ["BinaryAlexNet", "BinaryResNet", "BinaryWeightUnit", "XNORUnit", "xnor_alexnet", "bwn_alexnet", "xnor_resnet18",
           "bwn_resnet18"]

#: The authors' files: binary layer -> (channels, kernel, padding, max pooling after it); conv1 and conv8 are real.
ALEXNET = {"conv2": (256, 5, 2, True), "conv3": (384, 3, 1, False), "conv4": (384, 3, 1, False), "conv5": (256, 3, 1, True),
           "conv6": (4096, 6, 0, False), "conv7": (4096, 1, 0, False)}

#: ResNet-18: stage -> (channels, stride), two units each.
RESNET18 = {"stage1": (64, 1), "stage2": (128, 2), "stage3": (256, 2), "stage4": (512, 2)}

HE = mx.init.MSRAPrelu(factor_type="in", slope=0)


def _sequence(prefix, *blocks):
    sequence = nn.HybridSequential(prefix=prefix)
    sequence.add(*blocks)
    return sequence


def _xnor_layer(in_channels, channels, kernel_size, padding, pool):
    """BatchNorm, sign and binary convolution."""
    blocks = [nn.BatchNorm(in_channels=in_channels, epsilon=1e-4),
              BinaryConv2D(in_channels, channels, kernel_size, padding=padding, use_bias=True)]
    return blocks + [nn.MaxPool2D(3, 2)] * pool


def _binary_weight_layer(in_channels, channels, kernel_size, padding, pool):
    """Convolution with binary filters, BatchNorm and ReLU."""
    blocks = [BinaryWeightConv2D(in_channels, channels, kernel_size, padding=padding, use_bias=True),
              nn.BatchNorm(in_channels=channels, epsilon=1e-3), nn.Activation("relu")]
    return blocks + [nn.MaxPool2D(3, 2)] * pool


class BinaryAlexNet(Network):
    """AlexNet with binary filters (a Binary-Weight-Network), or with binary inputs as well (an XNOR-Network).

    Args:
        binary_inputs: an XNOR-Network.
        dropout: rate of dropped maps before conv6 and conv7, in a Binary-Weight-Network only.
    Shape: (N, in_channels, 224, 224) -> (N, classes), logits.
    """

    def __init__(self, classes=1000, in_channels=3, binary_inputs=True, dropout=0.1):
        super().__init__(classes, in_channels, min_size=(224, 224), fixed_size=True)
        make, epsilon = (_xnor_layer, 1e-5) if binary_inputs else (_binary_weight_layer, 1e-3)
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                        # N x 3 x 224 x 224
                self.features.conv1 = _sequence(                                                    # N x 96 x 27 x 27
                    "conv1_", nn.Conv2D(96, 11, 4, 2, in_channels=in_channels, weight_initializer=HE),
                    nn.BatchNorm(in_channels=96, epsilon=epsilon), nn.Activation("relu"), nn.MaxPool2D(3, 2))
                width = 96
                for name, (channels, kernel_size, padding, pool) in ALEXNET.items():
                    # N x 256 x 13 x 13, 384 x 13 x 13 twice, 256 x 6 x 6, 4096 x 1 x 1 twice
                    blocks = make(width, channels, kernel_size, padding, pool)
                    if not binary_inputs and name in ("conv6", "conv7"):
                        blocks.insert(0, nn.Dropout(dropout, axes=(2, 3)))
                    if binary_inputs and name == "conv7":
                        blocks += [nn.BatchNorm(in_channels=channels, epsilon=1e-3), nn.Activation("relu")]
                    setattr(self.features, name, _sequence(f"{name}_", *blocks))
                    width = channels
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return _sequence("output_", nn.Conv2D(classes, 1, in_channels=4096, weight_initializer=HE), nn.Flatten())

    def hybrid_forward(self, F, x):
        return self.output(self.features(x))


class BinaryWeightUnit(BasicUnit):
    """Residual unit of two 3x3 convolutions with binary filters, each with its BatchNorm and ReLU as in ResNet.

    Shape: (N, in_channels, H, W) -> (N, width, ceil(H / strides), ceil(W / strides)).
    """

    def __init__(self, in_channels, width, strides=1, prefix=None):
        super().__init__(in_channels, width, strides, prefix=prefix)
        with self.name_scope():
            self.conv1.conv = BinaryWeightConv2D(in_channels, width, 3, strides, 1)
            self.conv2.conv = BinaryWeightConv2D(width, width, 3, 1, 1)


class XNORUnit(HybridBlock):
    """Residual unit of two times BatchNorm, sign and binary 3x3 convolution; nothing after the sum.

    Shape: (N, in_channels, H, W) -> (N, width, ceil(H / strides), ceil(W / strides)).
    """
    expansion = 1

    def __init__(self, in_channels, width, strides=1, prefix=None):
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.norm1 = nn.BatchNorm(in_channels=in_channels)
            self.conv1 = BinaryConv2D(in_channels, width, 3, strides, 1)
            self.norm2 = nn.BatchNorm(in_channels=width)
            self.conv2 = BinaryConv2D(width, width, 3, 1, 1)
            self.shortcut = make_shortcut("b", in_channels, width, strides)

    def hybrid_forward(self, F, x):
        y = self.conv2(self.norm2(self.conv1(self.norm1(x))))
        return F.elemwise_add(y, x if self.shortcut is None else self.shortcut(x))


class BinaryResNet(Network):
    """ResNet-18 with binary filters, or with binary inputs as well. Takes images of any size; 224x224 is the standard.

    Args:
        binary_inputs: an XNOR-Network.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, classes=1000, in_channels=3, binary_inputs=True):
        super().__init__(classes, in_channels)
        unit, width = XNORUnit if binary_inputs else BinaryWeightUnit, 64
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                        # N x 3 x 224 x 224
                self.features.stem = _sequence("stem_", ConvNorm(in_channels, 64, 7, 2, prefix="conv1_"),
                                               nn.MaxPool2D(3, 2, padding=1))                       # N x 64 x 56 x 56
                for name, (channels, strides) in RESNET18.items():
                    # N x 64 x 56 x 56, 128 x 28 x 28, 256 x 14 x 14, 512 x 7 x 7
                    setattr(self.features, name, residual_stage(unit, 2, width, channels, strides, f"{name}_"))
                    width = channels
                if binary_inputs:
                    self.features.stage4.add(nn.BatchNorm(in_channels=512), nn.Activation("relu"))
            self.pool = GlobalAveragePool()                                                         # N x 512
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=512, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


_spec = functools.partial(
    ModelSpec, task="classification", family="XNOR-Net", year=2016, classes=1000, input_shape=(3, 224, 224),
    paper="XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks", link="arXiv:1603.05279")


@register(_spec(params=62397672, macs=1135256096, learning_rate=0.001))
def xnor_alexnet(classes=1000, in_channels=3):
    """AlexNet with binary filters and inputs; see `BinaryAlexNet`. 224x224 inputs."""
    return BinaryAlexNet(classes, in_channels)


@register(_spec(params=62397480, macs=1135256096, learning_rate=0.001))
def bwn_alexnet(classes=1000, in_channels=3):
    """AlexNet with binary filters; see `BinaryAlexNet`. 224x224 inputs."""
    return BinaryAlexNet(classes, in_channels, binary_inputs=False)


@register(_spec(params=11689640, macs=1814073344, notes="ResNet-18 has 11,689,512; the BatchNorms stand elsewhere"))
def xnor_resnet18(classes=1000, in_channels=3):
    """ResNet-18 with binary filters and inputs; see `BinaryResNet`."""
    return BinaryResNet(classes, in_channels)


def bwn_resnet18(classes=1000, in_channels=3):
    """ResNet-18 with binary filters; see `BinaryResNet`."""
    return BinaryResNet(classes, in_channels, binary_inputs=False)
