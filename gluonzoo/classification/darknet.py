"""Darknet-19 and Darknet-53: the classifiers that YOLOv2 and YOLOv3 start from.

Source: J. Redmon, A. Farhadi, YOLO9000: Better, Faster, Stronger, 2016, arXiv:1612.08242, table 6, and YOLOv3: An
Incremental Improvement, 2018, arXiv:1804.02767, table 1; the authors' framework (pjreddie/darknet, cfg/darknet19.cfg
and darknet53.cfg, src/maxpool_layer.c, convolutional_layer.c), from which come the leaky ReLU's slope of 0.1, BatchNorm's
epsilon of 1e-5, pooling that keeps odd last rows and columns, and weights from N(0, 2 / fan_in).
The standard input has 256x256 pixels, as in the framework's configurations; table 6 is for 224x224.
Differences: none known. The last layer of Darknet-53, a 1x1 convolution behind the global pooling in the framework's
file, is the dense layer that the paper's table calls it; the weights are the same.
"""
import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..layers import ConvNorm, GlobalAveragePool, Network, Stages, drop_branch, he_conv
from ..registry import ModelSpec, register

__all__ = ["Darknet19", "Darknet53", "DarknetConv", "DarknetUnit", "darknet19", "darknet53"]

#: YOLO9000, table 6: widths of a stage's convolutions, in turn 3x3 and 1x1; a pooling stands between two stages.
DARKNET19 = {                                                                               # N x 3 x 256 x 256
    "stem": (32,),                                                                          # N x 32 x 256 x 256
    "stage1": (64,),                                                                        # N x 64 x 128 x 128
    "stage2": (128, 64, 128),                                                               # N x 128 x 64 x 64
    "stage3": (256, 128, 256),                                                              # N x 256 x 32 x 32
    "stage4": (512, 256, 512, 256, 512),                                                    # N x 512 x 16 x 16
    "stage5": (1024, 512, 1024, 512, 1024),                                                 # N x 1024 x 8 x 8
}
#: YOLOv3, table 1: stage -> (width, residual units).
DARKNET53 = {                                                                               # N x 32 x 256 x 256
    "stage1": (64, 1),                                                                      # N x 64 x 128 x 128
    "stage2": (128, 2),                                                                     # N x 128 x 64 x 64
    "stage3": (256, 8),                                                                     # N x 256 x 32 x 32
    "stage4": (512, 8),                                                                     # N x 512 x 16 x 16
    "stage5": (1024, 4),                                                                    # N x 1024 x 8 x 8
}
HE = mx.init.MSRAPrelu(factor_type="in", slope=0)


class DarknetConv(ConvNorm):
    """Convolution, BatchNorm and leaky ReLU with slope 0.1.

    Shape: (N, in_channels, H, W) -> (N, channels, ceil(H / strides), ceil(W / strides)).
    """

    def __init__(self, in_channels, channels, kernel_size, strides=1, prefix=None):
        super().__init__(in_channels, channels, kernel_size, strides, relu=False, prefix=prefix)

    def hybrid_forward(self, F, x):
        return F.LeakyReLU(super().hybrid_forward(F, x), act_type="leaky", slope=0.1)


class DarknetUnit(HybridBlock):
    """A 1x1 convolution to half the channels and a 3x3 one back, plus the input; nothing after the addition.

    Shape: (N, channels, H, W) -> the same.
    """
    #: Chance to take part in training (`layers.stochastic_depth`).
    survival = 1.0

    def __init__(self, channels, prefix=None):
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.conv1 = DarknetConv(channels, channels // 2, 1, prefix="conv1_")
            self.conv2 = DarknetConv(channels // 2, channels, 3, prefix="conv2_")

    def hybrid_forward(self, F, x):
        return F.elemwise_add(x, drop_branch(F, self.conv2(self.conv1(x)), self.survival))


class Darknet19(Network):
    """Darknet-19. Takes images of 17x17 pixels or more; 256x256 is the standard.

    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, classes=1000, in_channels=3):
        super().__init__(classes, in_channels, min_size=(17, 17))
        channels = self.in_channels
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():
                for name, widths in DARKNET19.items():
                    stage = nn.HybridSequential(prefix=f"{name}_")
                    with stage.name_scope():
                        if name != "stem":
                            stage.add(nn.MaxPool2D(2, ceil_mode=True))
                        for index, width in enumerate(widths):
                            stage.add(DarknetConv(channels, width, 1 if index % 2 else 3))
                            channels = width
                    setattr(self.features, name, stage)
            self._channels = channels
            self.output = self.make_output(classes)

    def make_output(self, classes):
        """A score of every class at every pixel, then the mean over the pixels."""
        output = nn.HybridSequential(prefix="output_")
        with output.name_scope():
            output.add(he_conv(self._channels, classes, 1, use_bias=True), GlobalAveragePool())
        return output

    def hybrid_forward(self, F, x):
        return self.output(self.features(x))


class Darknet53(Network):
    """Darknet-53. Takes images of any size; 256x256 is the standard.

    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, classes=1000, in_channels=3):
        super().__init__(classes, in_channels)
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():
                self.features.stem = DarknetConv(self.in_channels, 32, 3, prefix="stem_")
                channels = 32
                for name, (width, units) in DARKNET53.items():
                    stage = nn.HybridSequential(prefix=f"{name}_")
                    with stage.name_scope():
                        stage.add(DarknetConv(channels, width, 3, 2))
                        for _ in range(units):
                            stage.add(DarknetUnit(width))
                    setattr(self.features, name, stage)
                    channels = width
            self._channels = channels
            self.pool = GlobalAveragePool()                                                 # N x 1024
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._channels, weight_initializer=HE, prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


_spec = functools.partial(ModelSpec, task="classification", family="YOLO", classes=1000, input_shape=(3, 256, 256))


@register(_spec(params=20842376, macs=3645374464, year=2016, paper="YOLO9000: Better, Faster, Stronger",
                link="arXiv:1612.08242"))
def darknet19(classes=1000, in_channels=3):
    """Darknet-19: 3x3 convolutions with 1x1 ones between them, no dense layer."""
    return Darknet19(classes, in_channels)


@register(_spec(params=41609928, macs=9285115904, year=2018, paper="YOLOv3: An Incremental Improvement",
                link="arXiv:1804.02767"))
def darknet53(classes=1000, in_channels=3):
    """Darknet-53: residual units of a 1x1 and a 3x3 convolution."""
    return Darknet53(classes, in_channels)
