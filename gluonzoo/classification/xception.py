"""Xception: Inception's branches taken to their limit, depthwise separable convolutions.

Source: F. Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, 2016, arXiv:1610.02357, figure 5 and
section 4 (dropout of 0.5 before the last layer). Table 3 gives the number of parameters.
What the paper leaves open: pooling pads by one pixel on each side, BatchNorm's epsilon is 1e-5; weights have variance
2 / fan_in, those of depthwise convolutions 1 / fan_in, as no ReLU follows them; the last layer starts from N(0, 0.01).
Differences: none known in structure. Keras's Xception pads an even map (the 74x74 one) at the end only, has an epsilon
of 0.001 and Glorot's uniform initialisation. GluonCV's `xception` is another network, of DeepLab's 65 layers.
"""
import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..layers import ConvNorm, GlobalAveragePool, Network, Stages, he_conv
from ..registry import ModelSpec, register

__all__ = ["Xception", "XceptionUnit", "SeparableConvNorm", "xception"]

#: Figure 5: stage -> for each unit the widths of its separable convolutions, and its stride.
STAGES = {                                                                                  # N x 64 x 147 x 147
    "stage1": [((128, 128), 2)],                                                            # N x 128 x 74 x 74
    "stage2": [((256, 256), 2)],                                                            # N x 256 x 37 x 37
    "stage3": [((728, 728), 2)] + 8 * [((728, 728, 728), 1)],                               # N x 728 x 19 x 19
    "stage4": [((728, 1024), 2)],                                                           # N x 1024 x 10 x 10
}
#: Widths of the separable convolutions that end the exit flow.
LAST = (1536, 2048)


class SeparableConvNorm(HybridBlock):
    """A depthwise 3x3 convolution, a 1x1 convolution, BatchNorm; nothing between the convolutions.

    Shape: (N, in_channels, H, W) -> (N, channels, H, W).
    """

    def __init__(self, in_channels, channels, prefix=None):
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.depthwise = he_conv(in_channels, in_channels, 3, groups=in_channels,
                                     weight_initializer=mx.init.Xavier("gaussian", "in", magnitude=1))
            self.pointwise = he_conv(in_channels, channels, 1)
            self.norm = nn.BatchNorm(in_channels=channels)

    def hybrid_forward(self, F, x):
        return self.norm(self.pointwise(self.depthwise(x)))


class XceptionUnit(HybridBlock):
    """ReLU and a separable convolution, twice or three times, and the shortcut around them; no ReLU after the addition.

    Args:
        widths: channels of each separable convolution.
        strides: 2 for a 3x3 max pooling at the end, and a shortcut that is a 1x1 convolution of this stride.
        first_relu: False where the input comes from a ReLU.
    Shape: (N, in_channels, H, W) -> (N, widths[-1], ceil(H / strides), ceil(W / strides)).
    """

    def __init__(self, in_channels, widths, strides=1, first_relu=True, prefix=None):
        super().__init__(prefix=prefix)
        self._first_relu = first_relu
        same = strides == 1 and in_channels == widths[-1]
        with self.name_scope():
            self.shortcut = None if same else ConvNorm(in_channels, widths[-1], 1, strides, relu=False,
                                                       prefix="shortcut_")
            self.convs = nn.HybridSequential(prefix="convs_")
            with self.convs.name_scope():
                for width in widths:
                    self.convs.add(SeparableConvNorm(in_channels, width))
                    in_channels = width
            self.pool = nn.MaxPool2D(3, strides, padding=1) if strides != 1 else None

    def hybrid_forward(self, F, x):
        shortcut = x if self.shortcut is None else self.shortcut(x)
        for index, conv in enumerate(self.convs):
            x = conv(F.Activation(x, act_type="relu") if index or self._first_relu else x)
        return F.elemwise_add(x if self.pool is None else self.pool(x), shortcut)


class Xception(Network):
    """Xception. Takes images of 7x7 pixels or more; 299x299 is the standard.

    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, classes=1000, in_channels=3):
        super().__init__(classes, in_channels, min_size=(7, 7))
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 3 x 299 x 299
                self.features.stem = nn.HybridSequential(prefix="stem_")                    # N x 64 x 147 x 147
                with self.features.stem.name_scope():
                    self.features.stem.add(ConvNorm(self.in_channels, 32, 3, 2, padding=0),
                                           ConvNorm(32, 64, 3, padding=0))
                channels = 64
                for name, units in STAGES.items():
                    stage = nn.HybridSequential(prefix=f"{name}_")
                    with stage.name_scope():
                        for widths, strides in units:
                            stage.add(XceptionUnit(channels, widths, strides, first_relu=name != "stage1"))
                            channels = widths[-1]
                    setattr(self.features, name, stage)
                with self.features.stage4.name_scope():                                     # N x 2048 x 10 x 10
                    for width in LAST:
                        self.features.stage4.add(SeparableConvNorm(channels, width), nn.Activation("relu"))
                        channels = width
            self._channels = channels
            self.pool = GlobalAveragePool()                                                 # N x 2048
            self.dropout = nn.Dropout(0.5)
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._channels, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.dropout(self.pool(self.features(x))))


_spec = functools.partial(
    ModelSpec, task="classification", family="Xception", year=2016, classes=1000, input_shape=(3, 299, 299),
    paper="Xception: Deep Learning with Depthwise Separable Convolutions", link="arXiv:1610.02357")


@register(_spec(params=22855952, macs=8357403496))
def xception(classes=1000, in_channels=3):
    """Xception: 36 convolutions, 34 of them separable, in 14 modules. 299x299 inputs, at least 7x7."""
    return Xception(classes, in_channels)
