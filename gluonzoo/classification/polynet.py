"""PolyNet: residual units that are polynomials of Inception blocks; the Very Deep PolyNet.

Source: X. Zhang, Z. Li, C. C. Loy, D. Lin, PolyNet: A Pursuit of Structural Diversity in Very Deep Networks, 2016,
arXiv:1611.05725, section 3.1 (the units) and the Very Deep PolyNet: stage A has 10 2-way units, stages B and C have 10 and
5 pairs of a poly-3 unit and a 2-way unit, that is 10, 20 and 10 units. The paper leaves the widths and the scales of what
is added open; they are those of the authors' Caffe network as gluoncv2 and pytorchcv have it. There the three blocks
of a poly-3 unit share all convolutions but the last one.
Differences: none known in structure. Dropout of 0.2 as in gluoncv2. The paper starts from a trained network with fewer units
("initialization by insertion"); here the last BatchNorm of every Inception block starts from a scale of 0.02 instead, so
that each unit starts near the identity: with 1 the first gradients are 1e5 and nothing is learned. Weights have variance
2 / fan_in, the last layer starts from N(0, 0.01). Leaving out whole blocks at random late in training ("stochastic
paths") is not part of the network.
"""
import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..layers import ConvNorm, GlobalAveragePool, Inception, Network, Stages, concat_channels, conv_chain, he_conv
from ..layers.inception import reducing_max_pool
from ..registry import ModelSpec, register

__all__ = ["PolyNet", "PolyUnit", "TwoWayUnit", "polynet"]

# Steps as in `layers.conv_chain`: (channels, kernel_size[, strides[, padding]]).
#: Inception-v4's stem, the reduction to 39x39 in the first stage. The comments are the outputs for the standard input.
STEM = {                                                                                    # N x 3 x 331 x 331
    "stem1": [(32, 3, 2, 0), (32, 3, 1, 0), (64, 3)],                                       # N x 64 x 163 x 163
    "stem2": [{"branch_pool": [reducing_max_pool], "branch3x3": [(96, 3, 2, 0)]},           # N x 160 x 81 x 81
              {"branch3x3": [(64, 1), (96, 3, 1, 0)],                                       # N x 192 x 79 x 79
               "branch7x7": [(64, 1), (64, (7, 1)), (64, (1, 7)), (96, 3, 1, 0)]}],
}
#: Stage -> (the reduction, branches of the units' blocks, kinds of the units).
STAGES = {
    "stage1": ({"branch_pool": [reducing_max_pool], "branch3x3": [(192, 3, 2, 0)]},         # N x 384 x 39 x 39
               {"branch3x3dbl": [(32, 1), (48, 3), (64, 3)], "branch3x3": [(32, 1), (32, 3)], "branch1x1": [(32, 1)]},
               10 * ["two_way"]),
    "stage2": ({"branch3x3dbl": [(256, 1), (256, 3), (384, 3, 2, 0)],                       # N x 1152 x 19 x 19
                "branch3x3": [(384, 3, 2, 0)],
                "branch_pool": [reducing_max_pool]},
               {"branch7x7": [(128, 1), (160, (1, 7)), (192, (7, 1))], "branch1x1": [(192, 1)]},
               10 * ["poly", "two_way"]),
    "stage3": ({"branch3x3dbl": [(256, 1), (256, 3), (256, 3, 2, 0)],                       # N x 2048 x 9 x 9
                "branch3x3a": [(256, 1), (256, 3, 2, 0)],
                "branch3x3b": [(256, 1), (384, 3, 2, 0)],
                "branch_pool": [reducing_max_pool]},
               {"branch3x3": [(192, 1), (224, (1, 3)), (256, (3, 1))], "branch1x1": [(192, 1)]},
               5 * ["poly", "two_way"]),
}
#: What a unit adds is scaled by this, evenly from 1 (first unit) to 0.7 (last one).
SCALES = [round(1 - 0.3 * unit / 39, 6) for unit in range(40)]
#: What the scales of the blocks' last BatchNorms start from.
SMALL = mx.init.Constant(0.02)


def projection(in_channels, channels, prefix=None):
    """The end of an Inception block: a 1x1 convolution and a BatchNorm that starts from a small scale."""
    block = ConvNorm(in_channels, channels, 1, relu=False, prefix=prefix)
    block.norm.gamma.init = SMALL
    return block


class TwoWayUnit(HybridBlock):
    """2-way unit: I + F + G, two Inception blocks side by side and the shortcut, then ReLU.

    Args:
        branches: {name: steps} of an Inception block, see `layers.Inception`; a 1x1 convolution back to `in_channels` with
            BatchNorm follows.
        scale: of what is added to the input.
    Shape: (N, in_channels, H, W) -> the same.
    """

    def __init__(self, in_channels, branches, scale, prefix=None):
        super().__init__(prefix=prefix)
        self._scale = scale
        with self.name_scope():
            for name in ("block1", "block2"):
                block = Stages(prefix=f"{name}_")
                with block.name_scope():
                    block.branches = Inception(in_channels, branches, prefix="branches_")
                    block.project = projection(block.branches.channels, in_channels, prefix="project_")
                setattr(self, name, block)

    def hybrid_forward(self, F, x):
        x = x + self._scale * (self.block1(x) + self.block2(x))
        return F.Activation(x, act_type="relu")


class SharedConv(HybridBlock):
    """A convolution that several blocks share, with a BatchNorm for each of them, then ReLU.

    Called with the input and the number of the block, from 0.
    Shape: (N, in_channels, H, W) -> (N, channels, H, W).
    """

    def __init__(self, in_channels, channels, kernel_size, blocks, prefix=None):
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.conv = he_conv(in_channels, channels, kernel_size)
            self.norms = nn.HybridSequential(prefix="norms_")
            with self.norms.name_scope():
                self.norms.add(*(nn.BatchNorm(in_channels=channels) for _ in range(blocks)))

    def hybrid_forward(self, F, x, block):
        return F.Activation(self.norms[block](self.conv(x)), act_type="relu")


class PolyUnit(HybridBlock):
    """Poly-3 unit: I + F + F^2 + F^3, where F is an Inception block, then ReLU.

    The three F share their branches' convolutions; each has its own BatchNorms and its own last 1x1 convolution.

    Args:
        branches: {name: [(channels, kernel_size), ...]} of the Inception block.
        scale: of what is added to the input.
        order: the polynomial's degree.
    Shape: (N, in_channels, H, W) -> the same.
    """

    def __init__(self, in_channels, branches, scale, order=3, prefix=None):
        super().__init__(prefix=prefix)
        self._scale, self._widths = scale, {}
        with self.name_scope():
            for name, steps in branches.items():
                branch, channels = nn.HybridSequential(prefix=f"{name}_"), in_channels
                with branch.name_scope():
                    for width, kernel_size in steps:
                        branch.add(SharedConv(channels, width, kernel_size, order))
                        channels = width
                setattr(self, name, branch)
                self._widths[name] = channels
            self.projects = nn.HybridSequential(prefix="projects_")
            with self.projects.name_scope():
                for _ in range(order):
                    self.projects.add(projection(sum(self._widths.values()), in_channels))

    def hybrid_forward(self, F, x):
        total = x
        for block, project in enumerate(self.projects):
            parts = []
            for name in self._widths:
                part = x
                for conv in getattr(self, name):
                    part = conv(part, block)
                parts.append(part)
            x = project(concat_channels(F, parts, list(self._widths.values())))
            total = total + self._scale * x
            x = F.Activation(x, act_type="relu")
        return F.Activation(total, act_type="relu")


class PolyNet(Network):
    """Very Deep PolyNet. Takes images of 75x75 pixels or more; 331x331 is the standard.

    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, classes=1000, in_channels=3):
        super().__init__(classes, in_channels, min_size=(75, 75))
        channels, scales = self.in_channels, iter(SCALES)
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():
                for name, steps in STEM.items():
                    stage, channels = conv_chain(channels, steps, prefix=f"{name}_")
                    setattr(self.features, name, stage)
                for name, (reduction, branches, kinds) in STAGES.items():
                    stage, channels = conv_chain(channels, [reduction], prefix=f"{name}_")
                    with stage.name_scope():
                        for number, kind in enumerate(kinds, 1):
                            unit = PolyUnit if kind == "poly" else TwoWayUnit
                            setattr(stage, f"unit{number}", unit(channels, branches, next(scales), prefix=f"unit{number}_"))
                    setattr(self.features, name, stage)
            self._channels = channels
            self.pool = GlobalAveragePool()                                                 # N x 2048
            self.dropout = nn.Dropout(0.2)
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._channels, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.dropout(self.pool(self.features(x))))


_spec = functools.partial(
    ModelSpec, task="classification", family="PolyNet", year=2016, classes=1000, input_shape=(3, 331, 331),
    paper="PolyNet: A Pursuit of Structural Diversity in Very Deep Networks", link="arXiv:1611.05725")


@register(_spec(params=95366600, macs=34699493472, learning_rate=0.002))
def polynet(classes=1000, in_channels=3):
    """Very Deep PolyNet: 10 2-way units, then 15 pairs of a poly-3 and a 2-way unit. 331x331 inputs, at least 75x75."""
    return PolyNet(classes, in_channels)
