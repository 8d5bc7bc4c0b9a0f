"""Inception-ResNet-v1 and -v2: Inception units whose output is scaled down and added to their input.

Source: C. Szegedy, S. Ioffe, V. Vanhoucke, A. Alemi, Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning, 2016, arXiv:1602.07261, figures 10 to 20 and section 3.3 (scaling); for v2 the authors'
implementation (tensorflow/models, slim/nets/inception_resnet_v2.py), from which come the scales 0.17, 0.10 and 0.20,
BatchNorm's epsilon of 0.001, and Glorot's uniform initialisation of every layer, TF-slim's default.
Differences
- v2 is the authors' implementation, which departs from the paper's figures: the stem is Inception-v3's with one
  Inception unit behind it, units have 320, 1088 and 2080 channels (the figures: 384, 1154, 2048), and the last
  unit is not scaled and has no ReLU, and a 1x1 convolution to 1536 channels follows. Average pooling
  leaves the padding out of the mean; gluoncv2 counts it in.
- v1 is not in the authors' implementation. The last of its units, a sixth Inception-ResNet-C (the paper: five), is
  not scaled and has no ReLU, as in v2. Before the last layer there are 1792 -> 512 features with BatchNorm,
  without ReLU; with the paper's plain 1792 -> 1000 layer the network would have 24,357,096 parameters.
  The two additions are those of gluoncv2, and before it of D. Sandberg's FaceNet.
- BatchNorm has a scale, which the authors' implementation leaves out. Its auxiliary head, which the paper does not
  mention, is left out.
"""
import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..layers import ConvNorm, GlobalAveragePool, Inception, Network, Stages, VectorBatchNorm, conv_chain, drop_branch, he_conv
from ..layers.inception import average_pool, reducing_max_pool
from ..registry import ModelSpec, register

__all__ = ["InceptionResNetV1", "InceptionResNetV2", "InceptionResidualUnit",
           "inception_resnet_v1", "inception_resnet_v2"]

#: What all layers start from.
GLOROT = mx.init.Xavier()
#: Makes every convolution with BatchNorm.
conv_norm = functools.partial(ConvNorm, epsilon=0.001, weight_initializer=GLOROT)
#: 3x3 average pooling of stride 1, which leaves the padding out of the mean.
mean_pool = functools.partial(average_pool, count_include_pad=False)

# Steps as in `layers.conv_chain`: (channels, kernel_size[, strides[, padding]]); padding 0 is the figures' V.
#: Figure 14's, which v2 has too. The comments are the outputs for the standard input.
STEM = {                                                                                    # N x 3 x 299 x 299
    "stem1": [(32, 3, 2, 0), (32, 3, 1, 0), (64, 3)],                                       # N x 64 x 147 x 147
    "stem2": [reducing_max_pool, (80, 1), (192, 3, 1, 0)],                                  # N x 192 x 71 x 71
}
MIXED_5B = {"branch1x1": [(96, 1)],
            "branch5x5": [(48, 1), (64, 5)],
            "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
            "branch_pool": [mean_pool, (64, 1)]}


def reduction_a(first, second, third, alone):
    """Branches of the reduction to 17x17, figure 7; the widths are table 1's k, l, m, n."""
    return {"branch3x3": [(alone, 3, 2, 0)],
            "branch3x3dbl": [(first, 1), (second, 3), (third, 3, 2, 0)],
            "branch_pool": [reducing_max_pool]}


def reduction_b(second, third, fourth):
    """Branches of the reduction to 8x8, figures 12 and 18, where they differ in these widths."""
    return {"branch3x3a": [(256, 1), (384, 3, 2, 0)],
            "branch3x3b": [(256, 1), (second, 3, 2, 0)],
            "branch3x3dbl": [(256, 1), (third, 3), (fourth, 3, 2, 0)],
            "branch_pool": [reducing_max_pool]}


#: Stage -> (steps before the units, branches of a unit, scale of each unit).
V1 = {
    "stage1": ([(256, 3, 2, 0)],                                                            # N x 256 x 35 x 35
               {"branch1x1": [(32, 1)], "branch3x3": [(32, 1), (32, 3)], "branch3x3dbl": [(32, 1), (32, 3), (32, 3)]},
               5 * [0.17]),
    "stage2": ([reduction_a(192, 192, 256, 384)],                                           # N x 896 x 17 x 17
               {"branch1x1": [(128, 1)], "branch7x7": [(128, 1), (128, (1, 7)), (128, (7, 1))]},
               10 * [0.10]),
    "stage3": ([reduction_b(256, 256, 256)],                                                # N x 1792 x 8 x 8
               {"branch1x1": [(192, 1)], "branch3x3": [(192, 1), (192, (1, 3)), (192, (3, 1))]},
               5 * [0.20] + [1.0]),
}
V2 = {
    "stage1": ([reducing_max_pool, MIXED_5B],                                               # N x 320 x 35 x 35
               {"branch1x1": [(32, 1)], "branch3x3": [(32, 1), (32, 3)], "branch3x3dbl": [(32, 1), (48, 3), (64, 3)]},
               10 * [0.17]),
    "stage2": ([reduction_a(256, 256, 384, 384)],                                           # N x 1088 x 17 x 17
               {"branch1x1": [(192, 1)], "branch7x7": [(128, 1), (160, (1, 7)), (192, (7, 1))]},
               20 * [0.10]),
    "stage3": ([reduction_b(288, 288, 320)],                                                # N x 2080 x 8 x 8
               {"branch1x1": [(192, 1)], "branch3x3": [(192, 1), (224, (1, 3)), (256, (3, 1))]},
               9 * [0.20] + [1.0]),
}


class InceptionResidualUnit(HybridBlock):
    """Branches, a 1x1 convolution back to the input's channels (with bias, without BatchNorm), times `scale`, plus
    the input, then ReLU unless `relu` is False.

    Args:
        branches: {name: steps}, see `layers.Inception`.
        scale: of what is added to the input.
    Shape: (N, in_channels, H, W) -> the same.
    """
    #: Chance to take part in training (`layers.stochastic_depth`).
    survival = 1.0

    def __init__(self, in_channels, branches, scale, relu=True, prefix=None):
        super().__init__(prefix=prefix)
        self._scale, self._relu = scale, relu
        with self.name_scope():
            self.branches = Inception(in_channels, branches, conv_norm, prefix="branches_")
            self.project = he_conv(self.branches.channels, in_channels, 1, use_bias=True, weight_initializer=GLOROT)

    def hybrid_forward(self, F, x):
        x = x + self._scale * drop_branch(F, self.project(self.branches(x)), self.survival)
        return F.Activation(x, act_type="relu") if self._relu else x


def residual_inception_stages(in_channels, configuration):
    """The stem and the stages of a configuration, and the number of their output's channels."""
    features = Stages(prefix="features_")
    with features.name_scope():
        for name, steps in STEM.items():
            stage, in_channels = conv_chain(in_channels, steps, conv_norm, prefix=f"{name}_")
            setattr(features, name, stage)
        for name, (steps, branches, scales) in configuration.items():
            stage, in_channels = conv_chain(in_channels, steps, conv_norm, prefix=f"{name}_")
            with stage.name_scope():
                for number, scale in enumerate(scales, 1):
                    # The one unit without scaling is the last one, which has no ReLU either.
                    unit = InceptionResidualUnit(in_channels, branches, scale, scale != 1.0, prefix=f"unit{number}_")
                    setattr(stage, f"unit{number}", unit)
            setattr(features, name, stage)
    return features, in_channels


class InceptionResNetV1(Network):
    """Inception-ResNet-v1. Takes images of 75x75 pixels or more; 299x299 is the standard.

    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, classes=1000, in_channels=3):
        super().__init__(classes, in_channels, min_size=(75, 75))
        with self.name_scope():
            self.features, channels = residual_inception_stages(self.in_channels, V1)
            self.pool = GlobalAveragePool()                                                 # N x 1792
            self.dropout = nn.Dropout(0.2)
            self.bottleneck = nn.HybridSequential(prefix="bottleneck_")                     # N x 512
            with self.bottleneck.name_scope():
                self.bottleneck.add(nn.Dense(512, use_bias=False, in_units=channels, weight_initializer=GLOROT),
                                    VectorBatchNorm(in_channels=512, epsilon=0.001))
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=512, weight_initializer=GLOROT, prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.bottleneck(self.dropout(self.pool(self.features(x)))))


class InceptionResNetV2(Network):
    """Inception-ResNet-v2. Takes images of 75x75 pixels or more; 299x299 is the standard.

    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, classes=1000, in_channels=3):
        super().__init__(classes, in_channels, min_size=(75, 75))
        with self.name_scope():
            self.features, channels = residual_inception_stages(self.in_channels, V2)
            with self.features.name_scope():
                self.features.final = conv_norm(channels, 1536, 1, prefix="final_")         # N x 1536 x 8 x 8
            self.pool = GlobalAveragePool()                                                 # N x 1536
            self.dropout = nn.Dropout(0.2)
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=1536, weight_initializer=GLOROT, prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.dropout(self.pool(self.features(x))))


_spec = functools.partial(
    ModelSpec, task="classification", family="Inception", year=2016, classes=1000, input_shape=(3, 299, 299),
    paper="Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning", link="arXiv:1602.07261")


@register(_spec(params=23995624, macs=6308235360))
def inception_resnet_v1(classes=1000, in_channels=3):
    """Inception-ResNet-v1 with 512 features before the last layer. 299x299 inputs, at least 75x75."""
    return InceptionResNetV1(classes, in_channels)


@register(_spec(params=55843464, macs=13155794016))
def inception_resnet_v2(classes=1000, in_channels=3):
    """Inception-ResNet-v2 as its authors implemented it. 299x299 inputs, at least 75x75."""
    return InceptionResNetV2(classes, in_channels)
