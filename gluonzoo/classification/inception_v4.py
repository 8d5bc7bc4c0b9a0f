"""Inception-v4: a uniform Inception network, with a new stem and no residual connections.

Source: C. Szegedy, S. Ioffe, V. Vanhoucke, A. Alemi, Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning, 2016, arXiv:1602.07261, figures 3 to 9; where the figures leave something open, the authors'
implementation (tensorflow/models, slim/nets/inception_v4.py): order and widths of the 1x7 and 7x1 convolutions, order
in which branches are joined, the pooling's mean without the padding, BatchNorm's epsilon of 0.001, and weights of
variance 2 / fan_in (a normal distribution here, a truncated one of the same variance there), Glorot's uniform for the
last layer.
Differences: BatchNorm has a scale, which the authors' implementation leaves out, as every package that loads
its weights does. Its auxiliary head, which the paper does not mention, is left out.
"""
import functools

import mxnet as mx
from mxnet.gluon import nn

from ..layers import ConvNorm, GlobalAveragePool, Network, Stages, conv_chain, inception_stage
from ..layers.inception import average_pool, reducing_max_pool
from ..registry import ModelSpec, register

__all__ = ["InceptionV4", "inception_v4"]

#: 3x3 average pooling of stride 1, which leaves the padding out of the mean.
mean_pool = functools.partial(average_pool, count_include_pad=False)

# Steps as in `layers.conv_chain`: (channels, kernel_size[, strides[, padding]]); padding 0 is the figures' V.
#: Figure 3, in the authors' names.
MIXED_3A = {"branch_pool": [reducing_max_pool], "branch3x3": [(96, 3, 2, 0)]}
MIXED_4A = {"branch3x3": [(64, 1), (96, 3, 1, 0)], "branch7x7": [(64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, 1, 0)]}
MIXED_5A = {"branch3x3": [(192, 3, 2, 0)], "branch_pool": [reducing_max_pool]}
#: Figure 4.
INCEPTION_A = {"branch1x1": [(96, 1)],
               "branch3x3": [(64, 1), (96, 3)],
               "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
               "branch_pool": [mean_pool, (96, 1)]}
#: Figure 7, with table 1's k, l, m, n = 192, 224, 256, 384.
REDUCTION_A = {"branch3x3": [(384, 3, 2, 0)],
               "branch3x3dbl": [(192, 1), (224, 3), (256, 3, 2, 0)],
               "branch_pool": [reducing_max_pool]}
#: Figure 5.
INCEPTION_B = {"branch1x1": [(384, 1)],
               "branch7x7": [(192, 1), (224, (1, 7)), (256, (7, 1))],
               "branch7x7dbl": [(192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))],
               "branch_pool": [mean_pool, (128, 1)]}
#: Figure 8.
REDUCTION_B = {"branch3x3": [(192, 1), (192, 3, 2, 0)],
               "branch7x7x3": [(256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2, 0)],
               "branch_pool": [reducing_max_pool]}
#: Figure 6: two branches split at their ends.
SPLIT = {"conv1x3": [(256, (1, 3))], "conv3x1": [(256, (3, 1))]}
INCEPTION_C = {"branch1x1": [(256, 1)],
               "branch3x3": [(384, 1), SPLIT],
               "branch3x3dbl": [(384, 1), (448, (3, 1)), (512, (1, 3)), SPLIT],
               "branch_pool": [mean_pool, (256, 1)]}

#: Figure 3's first layers. The comments are the outputs for the standard input.
STEM1 = [(32, 3, 2, 0), (32, 3, 1, 0), (64, 3)]                                             # N x 64 x 147 x 147
#: Figures 3 and 9: stage -> its modules by the authors' names.
STAGES = {
    "stem2": {"mixed_3a": MIXED_3A, "mixed_4a": MIXED_4A},                                  # N x 192 x 71 x 71
    "stage1": {"mixed_5a": MIXED_5A,                                                        # N x 384 x 35 x 35
               **dict.fromkeys((f"mixed_5{letter}" for letter in "bcde"), INCEPTION_A)},
    "stage2": {"mixed_6a": REDUCTION_A,                                                     # N x 1024 x 17 x 17
               **dict.fromkeys((f"mixed_6{letter}" for letter in "bcdefgh"), INCEPTION_B)},
    "stage3": {"mixed_7a": REDUCTION_B,                                                     # N x 1536 x 8 x 8
               **dict.fromkeys((f"mixed_7{letter}" for letter in "bcd"), INCEPTION_C)},
}
#: Makes every convolution.
unit = functools.partial(ConvNorm, epsilon=0.001)


class InceptionV4(Network):
    """Inception-v4. Takes images of 75x75 pixels or more; 299x299 is the standard.

    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, classes=1000, in_channels=3):
        super().__init__(classes, in_channels, min_size=(75, 75))
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():
                self.features.stem1, channels = conv_chain(self.in_channels, STEM1, unit, prefix="stem1_")
                for name, modules in STAGES.items():
                    stage, channels = inception_stage(channels, modules, unit, prefix=f"{name}_")
                    setattr(self.features, name, stage)
            self._channels = channels
            self.pool = GlobalAveragePool()                                                 # N x 1536
            self.dropout = nn.Dropout(0.2)
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._channels, weight_initializer=mx.init.Xavier(), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.dropout(self.pool(self.features(x))))


_spec = functools.partial(
    ModelSpec, task="classification", family="Inception", year=2016, classes=1000, input_shape=(3, 299, 299),
    paper="Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning", link="arXiv:1602.07261")


@register(_spec(params=42679816, macs=12253974624))
def inception_v4(classes=1000, in_channels=3):
    """Inception-v4: 4 Inception-A, 7 Inception-B and 3 Inception-C units. 299x299 inputs, at least 75x75."""
    return InceptionV4(classes, in_channels)
