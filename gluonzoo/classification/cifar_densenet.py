"""DenseNet for CIFAR: three dense blocks of equal length, plain or with bottlenecks and compression (BC).

Source: G. Huang, Z. Liu, L. van der Maaten, K. Weinberger, Densely Connected Convolutional Networks, 2016,
arXiv:1608.06993, section 3 ("Implementation Details") and table 2.
- `_lL_kK`: L layers, growth K; 16 channels in the stem, and transitions that keep all channels (theta = 1).
- `_bc_lL_kK`: bottlenecks, 2 K channels in the stem, transitions that keep half of the channels (theta = 0.5).
Differences: none known in structure. gluoncv2's and pytorchcv's plain networks halve the channels too, and are smaller
than the paper's. Initial weights: see `gluonzoo.layers.dense_block`; the classifier's as `densenet`'s. `dropout` is 0,
as for the paper's augmented data sets (C10+, C100+); for those without augmentation the paper takes 0.2.
"""
import functools

import mxnet as mx
from mxnet.gluon import nn

from ..layers import (
    DenseBlock,
    DenseTransition,
    GlobalAveragePool,
    Network,
    NormReLU,
    Stages,
    check_positive,
    he_conv,
)
from ..registry import ModelSpec, register

__all__ = ["CifarDenseNet", "cifar_densenet_bc_l100_k12", "cifar_densenet_bc_l190_k40", "cifar_densenet_bc_l250_k24",
           "cifar_densenet_l100_k12", "cifar_densenet_l100_k24", "cifar_densenet_l40_k12"]

#: Dense blocks; between two of them the size is halved.
BLOCKS = 3


class CifarDenseNet(Network):
    """DenseNet for small images. Takes images from 4x4 upwards; 32x32 is the standard.

    Args:
        layers: 4 more than a multiple of 3 (of 6 with bottlenecks): the stem, two transitions, the classifier.
        growth: channels that each layer of a block adds.
        bottleneck: DenseNet-BC: bottlenecks, compression by half, and a stem of 2 x growth channels.
        dropout: share of every convolution's values but the first's that training sets to zero.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    Raises: ValueError for a number of layers that does not divide into blocks.
    """

    def __init__(self, layers, growth, bottleneck, classes=10, in_channels=3, dropout=0.0):
        check_positive(layers=layers, growth=growth)
        step = BLOCKS * (2 if bottleneck else 1)
        if layers <= 4 or (layers - 4) % step:
            raise ValueError(f"layers is {layers}; expected 4 more than a multiple of {step}")
        super().__init__(classes, in_channels, min_size=(4, 4))
        count = (layers - 4) // step
        channels = 2 * growth if bottleneck else 16
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                            # N x 3 x 32 x 32; 40 layers, growth 12:
                self.features.stem = he_conv(in_channels, channels, 3)                          # N x 16 x 32 x 32
                for number in range(1, BLOCKS + 1):         # N x 160 x 32 x 32, 304 x 16 x 16, 448 x 8 x 8
                    if number > 1:                          # N x 160 x 16 x 16, 304 x 8 x 8
                        kept = channels // 2 if bottleneck else channels
                        setattr(self.features, f"transition{number - 1}",
                                DenseTransition(channels, kept, dropout, prefix=f"transition{number - 1}_"))
                        channels = kept
                    setattr(self.features, f"block{number}",
                            DenseBlock(count, channels, growth, bottleneck, dropout, prefix=f"block{number}_"))
                    channels += count * growth
                self.features.norm = NormReLU(channels, prefix="norm_")                         # N x 448 x 8 x 8
            self._channels = channels
            self.pool = GlobalAveragePool()                                                     # N x 448
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._channels, prefix="output_",
                        weight_initializer=mx.init.Xavier("uniform", factor_type="in", magnitude=1))

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


_spec = functools.partial(
    ModelSpec, task="classification", family="DenseNet-CIFAR", year=2016, classes=10, input_shape=(3, 32, 32),
    paper="Densely Connected Convolutional Networks", link="arXiv:1608.06993")


@register(_spec(params=1019722, macs=264812928))
def cifar_densenet_l40_k12(classes=10, in_channels=3, dropout=0.0):
    """DenseNet with 40 layers and growth 12."""
    return CifarDenseNet(40, 12, False, classes, in_channels, dropout)


@register(_spec(params=6979642, macs=1769516448))
def cifar_densenet_l100_k12(classes=10, in_channels=3, dropout=0.0):
    """DenseNet with 100 layers and growth 12."""
    return CifarDenseNet(100, 12, False, classes, in_channels, dropout)


@register(_spec(params=27249082, macs=6889347744))
def cifar_densenet_l100_k24(classes=10, in_channels=3, dropout=0.0):
    """DenseNet with 100 layers and growth 24."""
    return CifarDenseNet(100, 24, False, classes, in_channels, dropout)


@register(_spec(params=769162, macs=287929692))
def cifar_densenet_bc_l100_k12(classes=10, in_channels=3, dropout=0.0):
    """DenseNet-BC with 100 layers and growth 12."""
    return CifarDenseNet(100, 12, True, classes, in_channels, dropout)


@register(_spec(params=15324406, macs=5418785724))
def cifar_densenet_bc_l250_k24(classes=10, in_channels=3, dropout=0.0):
    """DenseNet-BC with 250 layers and growth 24."""
    return CifarDenseNet(250, 24, True, classes, in_channels, dropout)


@register(_spec(params=25624430, macs=9301945740))
def cifar_densenet_bc_l190_k40(classes=10, in_channels=3, dropout=0.0):
    """DenseNet-BC with 190 layers and growth 40."""
    return CifarDenseNet(190, 40, True, classes, in_channels, dropout)
