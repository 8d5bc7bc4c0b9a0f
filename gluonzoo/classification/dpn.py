"""Dual path networks: every unit adds to the first channels, as ResNet does, and appends new ones, as DenseNet does.

Source: Y. Chen, J. Li, H. Xiao, X. Jin, S. Yan, J. Feng, Dual Path Networks, 2017, arXiv:1707.01629, section 3.3, figure 2
(d) and table 1; the authors' github.com/cypw/DPNs (settings/), which alone has DPN-68 and DPN-107, and BatchNorm's epsilon,
1e-3. Convolutions start from variance 2 / fan_in (arXiv:1502.01852), which the paper leaves open.
Differences: the classifier is a 1x1 convolution behind the pooling, as timm's and gluoncv2's: the numbers of the authors'
dense layer in another shape. The last layer starts from N(0, 0.01), which the paper leaves open.
"""
import collections
import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..layers import ConvNorm, Network, Stages, concat_channels, he_conv, plain_layout
from ..registry import ModelSpec, register

__all__ = ["DPN", "DualPathUnit", "dpn68", "dpn92", "dpn98", "dpn107", "dpn131"]

Configuration = collections.namedtuple("Configuration", "stem, kernel, residual, middle, groups, units, growth")
#: Table 1 (92, 98, 131) and the authors' settings: layers -> channels and kernel of the stem; channels of the residual path
#: and in the middle of a unit in the first stage (twice as many in each after it), groups of the 3x3 convolutions; units and
#: growth of the dense path in each stage.
CONFIGURATIONS = {
    68: Configuration(10, 3, 64, 128, 32, (3, 4, 12, 3), (16, 32, 32, 64)),
    92: Configuration(64, 7, 256, 96, 32, (3, 4, 20, 3), (16, 32, 24, 128)),
    98: Configuration(96, 7, 256, 160, 40, (3, 6, 20, 3), (16, 32, 32, 128)),
    107: Configuration(128, 7, 256, 200, 50, (4, 8, 20, 3), (20, 64, 64, 128)),
    131: Configuration(128, 7, 256, 160, 40, (4, 8, 28, 3), (16, 32, 32, 128)),
}
#: BatchNorm's, everywhere.
EPSILON = 1e-3


class NormConv(HybridBlock):
    """BatchNorm, ReLU and convolution.

    Shape: (N, in_channels, H, W) -> (N, channels, ceil(H / strides), ceil(W / strides)).
    """

    def __init__(self, in_channels, channels, kernel_size, strides=1, groups=1, prefix=None):
        super().__init__(prefix=prefix)
        self._grouped = groups > 1
        with self.name_scope():
            self.norm = nn.BatchNorm(in_channels=in_channels, epsilon=EPSILON)
            self.conv = he_conv(in_channels, channels, kernel_size, strides, groups=groups)

    def hybrid_forward(self, F, x):
        x = F.Activation(self.norm(x), act_type="relu")
        return plain_layout(F, self.conv(plain_layout(F, x))) if self._grouped else self.conv(x)


class DualPathUnit(HybridBlock):
    """1x1, grouped 3x3 and 1x1 convolutions; what comes out is added to one path and appended to the other.

    Both paths come and go as one map, the residual path's channels first. The first unit of a stage makes both paths anew
    from all channels of its input, the dense one with twice `growth`.

    Args:
        residual, middle, growth: channels of the residual path, between the convolutions, and new ones of the dense path.
        first: whether the unit is the first of its stage; only then may it have a stride.
    Shape: (N, in_channels, H, W) -> (N, out_channels, ceil(H / strides), ceil(W / strides)).
    """

    def __init__(self, in_channels, residual, middle, growth, groups, strides=1, first=False, prefix=None):
        super().__init__(prefix=prefix)
        if not first and (strides != 1 or in_channels <= residual):
            raise ValueError(f"a unit that is not the first of its stage has strides {strides} and {in_channels} channels; "
                             f"expected 1, and more than the residual path's {residual}")
        dense = 2 * growth if first else in_channels - residual
        self._residual, self._widths = residual, (residual, dense, growth)
        #: Channels of the output.
        self.out_channels = sum(self._widths)
        with self.name_scope():
            self.conv1 = NormConv(in_channels, middle, 1, prefix="conv1_")
            self.conv2 = NormConv(middle, middle, 3, strides, groups=groups, prefix="conv2_")
            self.conv3 = NormConv(middle, residual + growth, 1, prefix="conv3_")
            self.projection = NormConv(in_channels, residual + dense, 1, strides, prefix="projection_") if first else None

    def hybrid_forward(self, F, x):
        new = self.conv3(self.conv2(self.conv1(x)))
        old = x if self.projection is None else self.projection(x)
        old_sum, old_dense = _split(F, old, self._residual)
        new_sum, new_dense = _split(F, new, self._residual)
        return concat_channels(F, [F.elemwise_add(old_sum, new_sum), old_dense, new_dense], self._widths)


def _split(F, x, channels):
    """The first channels and the others."""
    return F.slice_axis(x, axis=1, begin=0, end=channels), F.slice_axis(x, axis=1, begin=channels, end=None)


class DPN(Network):
    """Dual path network with 68 to 131 layers. Takes images of any size; 224x224 is the standard.

    The maps of `stage1` to `stage4` are both paths, as the next unit takes them; `norm` is the BatchNorm and ReLU behind
    the last one.

    Args:
        layers: a key of `CONFIGURATIONS`.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, layers, classes=1000, in_channels=3):
        super().__init__(classes, in_channels)
        if layers not in CONFIGURATIONS:
            raise ValueError(f"layers is {layers!r}; expected one of {', '.join(map(str, CONFIGURATIONS))}")
        table = CONFIGURATIONS[layers]
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # DPN-92: N x 3 x 224 x 224
                self.features.stem = nn.HybridSequential(prefix="stem_")                    # N x 64 x 56 x 56
                with self.features.stem.name_scope():
                    self.features.stem.add(
                        ConvNorm(in_channels, table.stem, table.kernel, 2, epsilon=EPSILON, prefix="conv1_"),
                        nn.MaxPool2D(3, 2, padding=1))
                channels = table.stem
                for index in range(4):      # N x 336 x 56 x 56, N x 704 x 28 x 28, N x 1552 x 14 x 14, N x 2688 x 7 x 7
                    stage, channels = _stage(table, index, channels)
                    setattr(self.features, f"stage{index + 1}", stage)
                self.features.norm = nn.HybridSequential(prefix="norm_")
                with self.features.norm.name_scope():
                    self.features.norm.add(nn.BatchNorm(in_channels=channels, epsilon=EPSILON), nn.Activation("relu"))
            self._channels = channels
            self.pool = nn.GlobalAvgPool2D()                                                # N x 2688 x 1 x 1
            self.output = self.make_output(classes)

    def make_output(self, classes):
        output = nn.HybridSequential(prefix="output_")
        with output.name_scope():
            output.add(nn.Conv2D(classes, 1, in_channels=self._channels, weight_initializer=mx.init.Normal(0.01)),
                       nn.Flatten())
        return output

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


def _stage(table, index, channels):
    """The units of one stage, and the channels of the last one's output."""
    stage = nn.HybridSequential(prefix=f"stage{index + 1}_")
    with stage.name_scope():
        for number in range(table.units[index]):
            first = number == 0
            stage.add(DualPathUnit(channels, table.residual * 2**index, table.middle * 2**index, table.growth[index],
                                   table.groups, 2 if first and index > 0 else 1, first, prefix=f"unit{number + 1}_"))
            channels = stage[-1].out_channels
    return stage, channels


_spec = functools.partial(
    ModelSpec, task="classification", family="DPN", year=2017, classes=1000, input_shape=(3, 224, 224),
    paper="Dual Path Networks", link="arXiv:1707.01629")


@register(_spec(params=12611602, macs=2326163456))
def dpn68(classes=1000, in_channels=3):
    """DPN-68."""
    return DPN(68, classes, in_channels)


@register(_spec(params=37668392, macs=6501684224))
def dpn92(classes=1000, in_channels=3):
    """DPN-92."""
    return DPN(92, classes, in_channels)


@register(_spec(params=61570728, macs=11671217152))
def dpn98(classes=1000, in_channels=3):
    """DPN-98."""
    return DPN(98, classes, in_channels)


@register(_spec(params=86917800, macs=18298764288))
def dpn107(classes=1000, in_channels=3):
    """DPN-107."""
    return DPN(107, classes, in_channels)


@register(_spec(params=79254504, macs=16013648896))
def dpn131(classes=1000, in_channels=3):
    """DPN-131."""
    return DPN(131, classes, in_channels)
