"""DenseNet for ImageNet: each layer of a block sees what all layers before it gave.

Source: G. Huang, Z. Liu, L. van der Maaten, K. Weinberger, Densely Connected Convolutional Networks, 2016,
arXiv:1608.06993, table 1 (DenseNet-BC: bottlenecks, and transitions that halve the channels). DenseNet-161
stands in the authors' release, https://github.com/liuzhuang13/DenseNet.
Differences: none known in structure. Initial weights: see `gluonzoo.layers.dense_block`; the classifier's are uniform
between -1 and 1 over the root of its inputs (Torch's default, which the authors use), its bias starts at 0.
"""
import functools

import mxnet as mx
from mxnet.gluon import nn

from ..layers import ConvNorm, DenseBlock, DenseTransition, GlobalAveragePool, Network, NormReLU, Stages
from ..registry import ModelSpec, register

__all__ = ["DenseNet", "densenet121", "densenet161", "densenet169", "densenet201"]

#: Table 1: layers -> (growth k, layers in the four blocks); the stem has 2k channels.
CONFIGURATIONS = {
    121: (32, (6, 12, 24, 16)),
    169: (32, (6, 12, 32, 32)),
    201: (32, (6, 12, 48, 32)),
    161: (48, (6, 12, 36, 24)),
}


class DenseNet(Network):
    """DenseNet-BC with 121 to 201 layers. Takes images from 29x29 upwards; 224x224 is the standard.

    Args:
        layers: a key of `CONFIGURATIONS`.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, layers, classes=1000, in_channels=3):
        if layers not in CONFIGURATIONS:
            raise ValueError(f"layers is {layers!r}; expected one of {', '.join(map(str, CONFIGURATIONS))}")
        # The stem quarters the size and rounds up, three transitions halve it and round down: 29, 8, 4, 2, 1.
        super().__init__(classes, in_channels, min_size=(29, 29))
        growth, blocks = CONFIGURATIONS[layers]
        channels = 2 * growth
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                            # N x 3 x 224 x 224; 121 layers:
                self.features.stem = nn.HybridSequential(prefix="stem_")                # N x 64 x 56 x 56
                with self.features.stem.name_scope():
                    self.features.stem.add(ConvNorm(in_channels, channels, 7, 2, prefix="conv1_"),
                                           nn.MaxPool2D(3, 2, padding=1))
                for number, count in enumerate(blocks, 1):  # N x 256 x 56 x 56, 512 x 28 x 28, 1024 x 14 x 14, 1024 x 7 x 7
                    if number > 1:                          # N x 128 x 28 x 28, 256 x 14 x 14, 512 x 7 x 7
                        setattr(self.features, f"transition{number - 1}",
                                DenseTransition(channels, channels // 2, prefix=f"transition{number - 1}_"))
                        channels //= 2
                    setattr(self.features, f"block{number}", DenseBlock(count, channels, growth, prefix=f"block{number}_"))
                    channels += count * growth
                self.features.norm = NormReLU(channels, prefix="norm_")                 # N x 1024 x 7 x 7
            self._channels = channels
            self.pool = GlobalAveragePool()                                             # N x 1024
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._channels, prefix="output_",
                        weight_initializer=mx.init.Xavier("uniform", factor_type="in", magnitude=1))

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


_spec = functools.partial(
    ModelSpec, task="classification", family="DenseNet", year=2016, classes=1000, input_shape=(3, 224, 224),
    paper="Densely Connected Convolutional Networks", link="arXiv:1608.06993")


@register(_spec(params=7978856, macs=2834161664))
def densenet121(classes=1000, in_channels=3):
    """DenseNet-121, growth 32."""
    return DenseNet(121, classes, in_channels)


@register(_spec(params=14149480, macs=3359843328))
def densenet169(classes=1000, in_channels=3):
    """DenseNet-169, growth 32."""
    return DenseNet(169, classes, in_channels)


@register(_spec(params=20013928, macs=4291365888))
def densenet201(classes=1000, in_channels=3):
    """DenseNet-201, growth 32."""
    return DenseNet(201, classes, in_channels)


@register(_spec(params=28681000, macs=7727907072))
def densenet161(classes=1000, in_channels=3):
    """DenseNet-161, growth 48."""
    return DenseNet(161, classes, in_channels)
