"""Inception-v3: factorised convolutions, wide but cheap, and an auxiliary classifier.

Source: C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna, Rethinking the Inception Architecture for Computer Vision,
2015, arXiv:1512.00567, table 1, figures 5 to 8, 10; and the authors' code, tensorflow/models, inception/slim/
inception_model.py, which fixes what the paper leaves open: all widths, epsilon 1e-3, truncated normal weights of 0.1 (in the
auxiliary head 0.01 and 0.001, in the last layer 0.01), dropout of 0.2.
Differences
- The code is followed where table 1 says something else: a 1x1 convolution to 80 channels and a pooling after the one to
  192, 5x5 convolutions kept at 35x35, four modules and a reduction at 17x17.
- The code's BatchNorm has no gamma, which leaves 23,817,352 parameters (Chollet counts 23,626,728); here, as in
  torchvision, it has one.
- The average poolings count the zeros outside the map, as in torchvision, MXNet and GluonCV; TensorFlow leaves them out.
- torchvision and MXNet drop 0.5.

With `aux=True` the network returns (output, aux1), the head after the last module at 17x17, in every mode; the head needs
that map to be 17x17 at least, so images must then be 299x299 at least. The code weighs its loss with 0.4.

Stages are numbered by their stride as GoogLeNet's, 2^3 to 2^5, and begin with the reduction that leads to their
resolution: torchvision's Mixed_5b to 5d are `features.inception3.a` to `c`, Mixed_6a is `features.inception4.reduction`.
"""
import functools

from mxnet.gluon import HybridBlock, nn

from ..layers import ConvNorm, GlobalAveragePool, Network, Stages, TruncatedNormal, check_flag
from ..layers.inception import average_pool, conv_chain, inception_stage, reducing_max_pool
from ..registry import ModelSpec, register

__all__ = ["InceptionV3", "InceptionV3Head", "inception_v3"]


def module_35(pool):
    """At 35x35 (figure 5, with the 5x5 convolution kept); `pool` is the width of the pooling branch."""
    return {"branch1x1": [(64, 1)],
            "branch5x5": [(48, 1), (64, 5)],
            "branch_double3x3": [(64, 1), (96, 3), (96, 3)],
            "branch_pool": [average_pool, (pool, 1)]}


def module_17(width):
    """At 17x17 (figure 6): 7x7 convolutions as 1x7 and 7x1, `width` channels inside."""
    return {"branch1x1": [(192, 1)],
            "branch7x7": [(width, 1), (width, (1, 7)), (192, (7, 1))],
            "branch_double7x7": [(width, 1), (width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7))],
            "branch_pool": [average_pool, (192, 1)]}


def split(width):
    """The ends of figure 7: a 3x3 convolution as 1x3 and 3x1 side by side."""
    return {"conv1x3": [(width, (1, 3))], "conv3x1": [(width, (3, 1))]}


#: At 8x8 (figure 7).
MODULE_8 = {"branch1x1": [(320, 1)],
            "branch3x3": [(384, 1), split(384)],
            "branch_double3x3": [(448, 1), (384, 3), split(384)],
            "branch_pool": [average_pool, (192, 1)]}

#: From 35x35 to 17x17 and from 17x17 to 8x8 (figure 10).
REDUCTION_35 = {"branch3x3": [(384, 3, 2, 0)],
                "branch_double3x3": [(64, 1), (96, 3), (96, 3, 2, 0)],
                "branch_pool": [reducing_max_pool]}
REDUCTION_17 = {"branch3x3": [(192, 1), (320, 3, 2, 0)],
                "branch7x7x3": [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, 0)],
                "branch_pool": [reducing_max_pool]}

#: Table 1: the stem's maps are 149, 147, 147, 73, 73, 71 and 35 pixels wide.
STEM = [(32, 3, 2, 0), (32, 3, 1, 0), (64, 3), reducing_max_pool, (80, 1), (192, 3, 1, 0), reducing_max_pool]
STAGES = {
    "inception3": {"a": module_35(32), "b": module_35(64), "c": module_35(64)},                 # N x 288 x 35 x 35
    "inception4": {"reduction": REDUCTION_35, "a": module_17(128), "b": module_17(160),
                   "c": module_17(160), "d": module_17(192)},                                   # N x 768 x 17 x 17
    "inception5": {"reduction": REDUCTION_17, "a": MODULE_8, "b": MODULE_8},                    # N x 2048 x 8 x 8
}

make_unit = functools.partial(ConvNorm, epsilon=1e-3, weight_initializer=TruncatedNormal(0.1))


class InceptionV3Head(HybridBlock):
    """The auxiliary classifier (figure 8).

    Shape: (N, in_channels, H, W) -> (N, classes), logits; H and W are 17 at least.
    """

    def __init__(self, in_channels, classes, prefix=None):
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.pool = nn.AvgPool2D(5, 3)                                                      # N x 768 x 5 x 5
            self.conv1 = make_unit(in_channels, 128, 1, prefix="conv1_")                        # N x 128 x 5 x 5
            self.conv2 = make_unit(128, 768, 5, padding=0, weight_initializer=TruncatedNormal(0.01), prefix="conv2_")
            self.global_pool = GlobalAveragePool()                                              # N x 768
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=768, weight_initializer=TruncatedNormal(0.001), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.global_pool(self.conv2(self.conv1(self.pool(x)))))


class InceptionV3(Network):
    """Inception-v3. Takes images of any size from `min_size`; 299x299 is the standard.

    Args:
        aux: whether there is the auxiliary head; images must then be 299x299 at least.
    Shape: (N, in_channels, H, W) -> (N, classes), logits; with `aux` two of them, named output, aux1.
    """

    def __init__(self, classes=1000, in_channels=3, aux=False):
        check_flag(aux=aux)
        smallest = 299 if aux else 75
        super().__init__(classes, in_channels, min_size=(smallest, smallest))
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                    # N x 3 x 299 x 299
                self.features.stem, channels = conv_chain(in_channels, STEM, make_unit, prefix="stem_")
                for stage, modules in STAGES.items():
                    block, channels = inception_stage(channels, modules, make_unit, prefix=f"{stage}_")
                    setattr(self.features, stage, block)
            self.pool = GlobalAveragePool()                                                     # N x 2048
            self.dropout = nn.Dropout(0.2)
            self.output = self.make_output(classes)
            if aux:
                self.aux1 = InceptionV3Head(self.features.inception4.d.channels, classes, prefix="aux1_")
                self.name_auxiliary("aux1")

    def make_output(self, classes):
        return nn.Dense(classes, in_units=2048, weight_initializer=TruncatedNormal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        if not self.auxiliary:
            return self.output(self.dropout(self.pool(self.features(x))))
        maps = self.features.inception4(self.features.inception3(self.features.stem(x)))
        x = self.pool(self.features.inception5(maps))
        return [self.output(self.dropout(x)), self.aux1(maps)]


@register(ModelSpec(
    task="classification", family="Inception", year=2015, classes=1000, input_shape=(3, 299, 299), params=23834568,
    macs=5713216096, paper="Rethinking the Inception Architecture for Computer Vision", link="arXiv:1512.00567"))
def inception_v3(classes=1000, in_channels=3, aux=False):
    """Inception-v3; with `aux=True` (27,161,264 parameters) images must be 299x299 at least."""
    return InceptionV3(classes, in_channels, aux)
