"""BN-Inception: the Inception network with which batch normalization was introduced, also called Inception-v2 by some.

Source: S. Ioffe, C. Szegedy, Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
Shift, 2015, arXiv:1502.03167, figure 5. J. Hu, L. Shen, G. Sun, Squeeze-and-Excitation Networks, 2017,
arXiv:1709.01507, and the authors' models/SE-BN-Inception.prototxt.
- `bn_inception`: convolutions keep their biases although a BatchNorm follows, as in the Caffe network that the packages
  share (gluoncv2, pytorchcv).
- `se_bn_inception`: each of the ten modules, the strided ones too, ends in a squeeze-and-excitation gate: a sixteenth of
  the channels, rounded down, inside, both layers with biases. The other convolutions have none.
Differences: the figure prints 576 output channels for 4c and 4d and 1024 for 4e, but its branches add up to 608 and 1056;
the branches are followed, as by Caffe's network. MXNet's inception-bn keeps 576, with 96 channels for the pooling branch.
The average poolings count the zeros outside the map, as Caffe does. Max poolings round sizes up, as Caffe's; where a
module halves an odd size, its pooling and its convolutions differ by one pixel in Caffe: here the pooling gives
(size + 1) / 2 as they do, so that images of any size can be taken. The weights' distribution is not in the paper:
variance 2 / fan_in, as the authors of the SE network advise; the last layer's N(0, 0.01).

A stage begins with the strided module that leads to its resolution: the paper's 3c is `features.inception4.reduction`,
its 4e `features.inception5.reduction`.
"""
import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..layers import ConvNorm, GlobalAveragePool, Inception, Network, SqueezeExcite, Stages
from ..layers.inception import average_pool, conv_chain, inception_stage, max_pool
from ..registry import ModelSpec, register

__all__ = ["BNInception", "GatedInception", "HalvingMaxPool", "bn_inception", "se_bn_inception"]

#: Figure 5: stage -> module -> (1x1, (3x3 reduce, 3x3), (double 3x3 reduce, double 3x3), pooling, its projection).
#: Modules without 1x1 and projection have stride 2.
CONFIGURATION = {
    "inception3": {"a": (64, (64, 64), (64, 96), "average", 32),
                   "b": (64, (64, 96), (64, 96), "average", 64)},
    "inception4": {"reduction": (None, (128, 160), (64, 96), "max", None),
                   "a": (224, (64, 96), (96, 128), "average", 128),
                   "b": (192, (96, 128), (96, 128), "average", 128),
                   "c": (160, (128, 160), (128, 160), "average", 128),
                   "d": (96, (128, 192), (160, 192), "average", 128)},
    "inception5": {"reduction": (None, (128, 192), (192, 256), "max", None),
                   "a": (352, (192, 320), (160, 224), "average", 128),
                   "b": (352, (192, 320), (192, 224), "max", 128)},
}


class HalvingMaxPool(HybridBlock):
    """Max pooling over 3x3 pixels with stride 2 from the first pixel on; windows may reach beyond the last one.

    For even sizes it is Caffe's pooling. The pixels outside are zeros: the input must not be negative.

    Shape: (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)).
    """

    def hybrid_forward(self, F, x):
        x = F.pad(x, mode="constant", constant_value=0, pad_width=(0, 0, 0, 0, 0, 2, 0, 2))
        return F.Pooling(x, kernel=(3, 3), stride=(2, 2), pool_type="max")


class GatedInception(Inception):
    """An Inception module whose output goes through a squeeze-and-excitation block.

    Args: as `Inception`.
    Shape: as `Inception`.
    """

    def __init__(self, in_channels, branches, unit=ConvNorm, prefix=None):
        super().__init__(in_channels, branches, unit, prefix)
        with self.name_scope():
            self.gate = SqueezeExcite(self.channels, prefix="gate_")

    def hybrid_forward(self, F, x):
        return self.gate(super().hybrid_forward(F, x))


def make_branches(single, reduce_3x3, reduce_double, pool, projection):
    """A row of the figure as the branches of an `Inception` module."""
    strides = 2 if single is None else 1
    (inner, wide), (inner_double, double) = reduce_3x3, reduce_double
    branches = {"branch3x3": [(inner, 1), (wide, 3, strides)],
                "branch_double3x3": [(inner_double, 1), (double, 3), (double, 3, strides)]}
    if single is None:
        return dict(branches, branch_pool=[HalvingMaxPool])
    pools = {"average": average_pool, "max": max_pool}
    return dict({"branch1x1": [(single, 1)]}, **branches, branch_pool=[pools[pool], (projection, 1)])


class BNInception(Network):
    """BN-Inception, plain or with gates. Takes images of any size from `min_size`; 224x224 is the standard.

    Args:
        gates: whether the modules are gated, and the convolutions have no biases.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, classes=1000, in_channels=3, gates=False):
        super().__init__(classes, in_channels, min_size=(11, 11))  # The stem's poolings need 3 pixels: 11 -> 6 -> 3 -> 1.
        unit = functools.partial(ConvNorm, use_bias=not gates)
        pool = functools.partial(nn.MaxPool2D, 3, 2, ceil_mode=True)
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 3 x 224 x 224
                # 64 x 112 x 112, 64 x 56 x 56, 192 x 56 x 56, 192 x 28 x 28
                steps = [(64, 7, 2), pool, (64, 1), (192, 3), pool]
                self.features.stem, channels = conv_chain(in_channels, steps, unit, prefix="stem_")
                for stage, rows in CONFIGURATION.items():  # 320 x 28 x 28, 608 x 14 x 14, 1024 x 7 x 7
                    modules = {name: make_branches(*row) for name, row in rows.items()}
                    block, channels = inception_stage(channels, modules, unit, GatedInception if gates else Inception,
                                                      prefix=f"{stage}_")
                    setattr(self.features, stage, block)
            self.pool = GlobalAveragePool()                                                 # N x 1024
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=1024, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


_spec = functools.partial(ModelSpec, task="classification", classes=1000, input_shape=(3, 224, 224))


@register(_spec(params=11295240, macs=2032600064, family="Inception", year=2015, link="arXiv:1502.03167",
                paper="Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift"))
def bn_inception(classes=1000, in_channels=3):
    """BN-Inception; its convolutions have biases."""
    return BNInception(classes, in_channels)


@register(_spec(params=11931622, macs=2033239424, family="SENet", year=2017, link="arXiv:1709.01507",
                paper="Squeeze-and-Excitation Networks"))
def se_bn_inception(classes=1000, in_channels=3):
    """BN-Inception with a squeeze-and-excitation gate in every module."""
    return BNInception(classes, in_channels, gates=True)
