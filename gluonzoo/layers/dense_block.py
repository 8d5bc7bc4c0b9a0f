"""The dense block of DenseNets, its layers, and the transition between two blocks.

Source: G. Huang, Z. Liu, L. van der Maaten, K. Weinberger, Densely Connected Convolutional Networks, 2016,
arXiv:1608.06993, section 3 and figure 2; dropout: section 4.2. Weights start as K. He et al., 2015, arXiv:1502.01852,
equation 10 has them. Differences: the authors' Torch code starts from 2 / fan_out instead; before the first training
step such a signal doubles at every layer.
"""
from mxnet.gluon import HybridBlock, nn

from .concat import concat_channels
from .dropout import make_dropout
from .residual import he_conv

__all__ = ["DenseBlock", "DenseLayer", "DenseTransition", "NormReLU", "NormReLUConv"]

#: A bottleneck gives so many times the growth (section 3, "Bottleneck layers").
BOTTLENECK = 4


class NormReLU(HybridBlock):
    """BatchNorm and ReLU.

    Shape: (N, channels, H, W) -> the same.
    """

    def __init__(self, channels, prefix=None):
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.norm = nn.BatchNorm(in_channels=channels)

    def hybrid_forward(self, F, x):
        return F.Activation(self.norm(x), act_type="relu")


class NormReLUConv(NormReLU):
    """BatchNorm, ReLU and a convolution without bias, and dropout where it is asked for.

    Args:
        dropout: share of the values that training sets to zero.
    Shape: (N, in_channels, H, W) -> (N, channels, H, W).
    """

    def __init__(self, in_channels, channels, kernel_size, dropout=0.0, prefix=None):
        super().__init__(in_channels, prefix=prefix)
        with self.name_scope():
            self.conv = he_conv(in_channels, channels, kernel_size)
            self.dropout = make_dropout(dropout)

    def hybrid_forward(self, F, x):
        x = self.conv(super().hybrid_forward(F, x))
        return x if self.dropout is None else self.dropout(x)


class DenseLayer(HybridBlock):
    """Gives `growth` new channels and hands them on behind those it got.

    Args:
        bottleneck: a 1x1 convolution to 4 x growth channels comes before the 3x3 convolution (DenseNet-B).
        dropout: after each convolution.
    Shape: (N, in_channels, H, W) -> (N, in_channels + growth, H, W).
    """

    def __init__(self, in_channels, growth, bottleneck=True, dropout=0.0, prefix=None):
        super().__init__(prefix=prefix)
        self._widths = in_channels, growth
        width = BOTTLENECK * growth if bottleneck else in_channels
        with self.name_scope():
            self.conv1x1 = NormReLUConv(in_channels, width, 1, dropout, prefix="conv1x1_") if bottleneck else None
            self.conv3x3 = NormReLUConv(width, growth, 3, dropout, prefix="conv3x3_")

    def hybrid_forward(self, F, x):
        new = self.conv3x3(x if self.conv1x1 is None else self.conv1x1(x))
        return concat_channels(F, [x, new], self._widths)


class DenseBlock(nn.HybridSequential):
    """`layers` dense layers, each of which sees the input and what all layers before it gave.

    Args:
        bottleneck, dropout: of `DenseLayer`.
    Shape: (N, in_channels, H, W) -> (N, in_channels + layers x growth, H, W).
    """

    def __init__(self, layers, in_channels, growth, bottleneck=True, dropout=0.0, prefix=None):
        super().__init__(prefix=prefix)
        with self.name_scope():
            for index in range(layers):
                self.add(DenseLayer(in_channels + index * growth, growth, bottleneck, dropout,
                                    prefix=f"layer{index + 1}_"))


class DenseTransition(HybridBlock):
    """BatchNorm, ReLU, 1x1 convolution, and average pooling that halves the size.

    Shape: (N, in_channels, H, W) -> (N, channels, H // 2, W // 2).
    """

    def __init__(self, in_channels, channels, dropout=0.0, prefix=None):
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.conv1x1 = NormReLUConv(in_channels, channels, 1, dropout, prefix="conv1x1_")
            self.pool = nn.AvgPool2D(2)

    def hybrid_forward(self, F, x):
        return self.pool(self.conv1x1(x))
