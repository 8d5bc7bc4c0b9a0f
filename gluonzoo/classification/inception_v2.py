"""Inception-v2 of the Rethinking paper: factorised convolutions on the grid of its table 1.

Source: C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna, Rethinking the Inception Architecture for Computer Vision,
2015, arXiv:1512.00567, table 1 and figures 5, 6, 7 and 10.
Fixed by the paper, and followed: the stem, layer by layer; three modules of figure 5 on 35x35x288, five of figure 6 with
n = 7 on 17x17x768, two of figure 7 on 8x8, of which the first sees 1280 channels and the last gives 2048; between them
the two reductions of figure 10. Table 3 gives 3.8e9 multiply-adds for the base network, the text below 25 million parameters.
Left open by the paper, and chosen here: the width of every branch. The branches' outputs are those of Inception-v3 at
17x17 and 8x8 (192 each; 320, 768, 768, 192), as are those of the reductions (384 and 96; 320 and 192). At 35x35 they are
64, 64, 64 and 96. The channels inside the branches are fewer than Inception-v3's, so that the sum is near table 3: the
stem of table 1 alone takes 1.6e9, and with Inception-v3's widths the network would take 6e9. Weights, epsilon, dropout and
pooling are Inception-v3's. There is no auxiliary head: with one (and a BatchNorm in it) the paper calls it Inception-v3.
Differences: others call BN-Inception (arXiv:1502.03167) Inception-v2; that is `bn_inception`.

Stages are named as in `inception_v3`.
"""
import functools

from mxnet.gluon import nn

from ..layers import ConvNorm, GlobalAveragePool, Network, Stages, TruncatedNormal
from ..layers.inception import average_pool, conv_chain, inception_stage, reducing_max_pool
from ..registry import ModelSpec, register

__all__ = ["InceptionV2", "inception_v2"]

#: Figure 5: two 3x3 convolutions instead of a 5x5.
MODULE_35 = {"branch1x1": [(64, 1)],
             "branch3x3": [(48, 1), (64, 3)],
             "branch_double3x3": [(48, 1), (64, 3), (64, 3)],
             "branch_pool": [average_pool, (96, 1)]}

#: Figure 6: 7x7 convolutions as 1x7 and 7x1.
MODULE_17 = {"branch1x1": [(192, 1)],
             "branch7x7": [(64, 1), (64, (1, 7)), (192, (7, 1))],
             "branch_double7x7": [(64, 1), (64, (1, 7)), (64, (7, 1)), (64, (1, 7)), (192, (7, 1))],
             "branch_pool": [average_pool, (192, 1)]}

#: Figure 7: the last 3x3 convolution of a branch as 1x3 and 3x1 side by side.
SPLIT = {"conv1x3": [(384, (1, 3))], "conv3x1": [(384, (3, 1))]}
MODULE_8 = {"branch1x1": [(320, 1)],
            "branch3x3": [(192, 1), SPLIT],
            "branch_double3x3": [(192, 1), (192, 3), SPLIT],
            "branch_pool": [average_pool, (192, 1)]}

#: Figure 10: the grid is halved by convolutions and a pooling side by side.
REDUCTION_35 = {"branch3x3": [(64, 1), (384, 3, 2, 0)],
                "branch_double3x3": [(64, 1), (96, 3), (96, 3, 2, 0)],
                "branch_pool": [reducing_max_pool]}
REDUCTION_17 = {"branch3x3": [(128, 1), (320, 3, 2, 0)],
                "branch_double3x3": [(128, 1), (192, 3), (192, 3, 2, 0)],
                "branch_pool": [reducing_max_pool]}

#: Table 1: the stem's maps are 149, 147, 147, 73, 71, 35 and 35 pixels wide.
STEM = [(32, 3, 2, 0), (32, 3, 1, 0), (64, 3), reducing_max_pool, (80, 3, 1, 0), (192, 3, 2, 0), (288, 3)]
STAGES = {
    "inception3": {"a": MODULE_35, "b": MODULE_35, "c": MODULE_35},                             # N x 288 x 35 x 35
    "inception4": {"reduction": REDUCTION_35, "a": MODULE_17, "b": MODULE_17, "c": MODULE_17,
                   "d": MODULE_17, "e": MODULE_17},                                             # N x 768 x 17 x 17
    "inception5": {"reduction": REDUCTION_17, "a": MODULE_8, "b": MODULE_8},                    # N x 2048 x 8 x 8
}

make_unit = functools.partial(ConvNorm, epsilon=1e-3, weight_initializer=TruncatedNormal(0.1))


class InceptionV2(Network):
    """Inception-v2. Takes images of any size from `min_size`; 299x299 is the standard.

    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, classes=1000, in_channels=3):
        super().__init__(classes, in_channels, min_size=(75, 75))
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

    def make_output(self, classes):
        return nn.Dense(classes, in_units=2048, weight_initializer=TruncatedNormal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.dropout(self.pool(self.features(x))))


@register(ModelSpec(
    task="classification", family="Inception", year=2015, classes=1000, input_shape=(3, 299, 299), params=13615656,
    macs=3935004768, paper="Rethinking the Inception Architecture for Computer Vision", link="arXiv:1512.00567",
    notes="table 1's grid; the paper leaves the branches' widths open, see the file"))
def inception_v2(classes=1000, in_channels=3):
    """Inception-v2 of the Rethinking paper, with widths of our choice; see the head of the file."""
    return InceptionV2(classes, in_channels)
