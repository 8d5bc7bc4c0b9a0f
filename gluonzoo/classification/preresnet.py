"""ResNet v2 for ImageNet: BatchNorm and ReLU before each convolution, and nothing on the way around a unit.

Source: K. He, X. Zhang, S. Ren, J. Sun, Identity Mappings in Deep Residual Networks, 2016, arXiv:1603.05027, figure 4 (e),
section 5 and the appendix; the units of a depth are those of arXiv:1512.03385, table 1; ResNet-200's those of
github.com/facebookarchive/fb.resnet.torch (models/preresnet.lua). Convolutions start as in arXiv:1502.01852.
- `_v2`: a bottleneck's stride is on its 3x3 convolution, as in MXNet's, GluonCV's and fb.resnet.torch's networks.
- `_v2_stride1x1`, and `resnet200_v2`: it is on the first 1x1, as in arXiv:1512.03385 and the authors' CIFAR networks
  (github.com/KaimingHe/resnet-1k-layers).
Differences: the stem has a BatchNorm and ReLU, and the first unit, behind the pooling, has its own; by the appendix one pair
serves both (128 parameters fewer). MXNet's, GluonCV's and gluoncv2's networks are built so, and so is the table of counts.
MXNet's and GluonCV's also begin with a BatchNorm of the image, without scale or shift (`input_norm=True`); timm's resnetv2 has no
BatchNorm in the stem. The last layer starts from N(0, 0.01), which the paper leaves open.
"""
import functools

import mxnet as mx
from mxnet.gluon import nn

from ..layers import ConvNorm, Network, NormReLU, PreBasicUnit, PreBottleneckUnit, Stages, check_flag, residual_stage
from ..registry import ModelSpec, register

__all__ = ["PreResNet", "resnet18_v2", "resnet34_v2", "resnet50_v2", "resnet50_v2_stride1x1", "resnet101_v2",
           "resnet101_v2_stride1x1", "resnet152_v2", "resnet152_v2_stride1x1", "resnet200_v2"]

#: Table 1 of arXiv:1512.03385, and preresnet.lua for 200: layers -> (unit, units in conv2_x, conv3_x, conv4_x, conv5_x).
CONFIGURATIONS = {
    18: (PreBasicUnit, (2, 2, 2, 2)),
    34: (PreBasicUnit, (3, 4, 6, 3)),
    50: (PreBottleneckUnit, (3, 4, 6, 3)),
    101: (PreBottleneckUnit, (3, 4, 23, 3)),
    152: (PreBottleneckUnit, (3, 8, 36, 3)),
    200: (PreBottleneckUnit, (3, 24, 36, 3)),
}


class PreResNet(Network):
    """ResNet v2 with 18 to 200 layers. Takes images of any size; 224x224 is the standard.

    The maps of `stage1` to `stage4` are the sums, as the next unit takes them; `norm` is the BatchNorm and ReLU behind the
    last one.

    Args:
        layers: a key of `CONFIGURATIONS`.
        input_norm: whether a BatchNorm of the image comes first.
        options: of the unit (`stride_on_3x3` of a bottleneck).
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, layers, classes=1000, in_channels=3, input_norm=False, **options):
        super().__init__(classes, in_channels)
        check_flag(input_norm=input_norm)
        if layers not in CONFIGURATIONS:
            raise ValueError(f"layers is {layers!r}; expected one of {', '.join(map(str, CONFIGURATIONS))}")
        unit, units = CONFIGURATIONS[layers]
        wide = unit.expansion
        self._channels = 512 * wide
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 3 x 224 x 224
                if input_norm:
                    self.features.input_norm = nn.BatchNorm(scale=False, center=False, in_channels=in_channels)
                self.features.stem = nn.HybridSequential(prefix="stem_")                    # N x 64 x 56 x 56
                with self.features.stem.name_scope():
                    self.features.stem.add(ConvNorm(in_channels, 64, 7, 2, prefix="conv1_"),
                                           nn.MaxPool2D(3, 2, padding=1))
                make = functools.partial(residual_stage, unit, **options)
                self.features.stage1 = make(units[0], 64, 64, 1, "stage1_")                 # N x 64 (256) x 56 x 56
                self.features.stage2 = make(units[1], 64 * wide, 128, 2, "stage2_")         # N x 128 (512) x 28 x 28
                self.features.stage3 = make(units[2], 128 * wide, 256, 2, "stage3_")        # N x 256 (1024) x 14 x 14
                self.features.stage4 = make(units[3], 256 * wide, 512, 2, "stage4_")        # N x 512 (2048) x 7 x 7
                self.features.norm = NormReLU(512 * wide, prefix="norm_")
            self.pool = nn.GlobalAvgPool2D()                                                # N x 512 (2048) x 1 x 1
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._channels, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


_spec = functools.partial(
    ModelSpec, task="classification", family="PreResNet", year=2016, classes=1000, input_shape=(3, 224, 224),
    paper="Identity Mappings in Deep Residual Networks", link="arXiv:1603.05027")


@register(_spec(params=11687848, macs=1814073344))
def resnet18_v2(classes=1000, in_channels=3, input_norm=False):
    """ResNet-18 with pre-activation."""
    return PreResNet(18, classes, in_channels, input_norm)


@register(_spec(params=21796008, macs=3663761408))
def resnet34_v2(classes=1000, in_channels=3, input_norm=False):
    """ResNet-34 with pre-activation."""
    return PreResNet(34, classes, in_channels, input_norm)


@register(_spec(params=25549480, macs=4089184256))
def resnet50_v2(classes=1000, in_channels=3, input_norm=False):
    """ResNet-50 with pre-activation and the stride on the 3x3 convolution."""
    return PreResNet(50, classes, in_channels, input_norm, stride_on_3x3=True)


@register(_spec(params=25549480, macs=3857973248))
def resnet50_v2_stride1x1(classes=1000, in_channels=3):
    """ResNet-50 with pre-activation and the stride on the first 1x1 convolution."""
    return PreResNet(50, classes, in_channels)


@register(_spec(params=44541608, macs=7801405440))
def resnet101_v2(classes=1000, in_channels=3, input_norm=False):
    """ResNet-101 with pre-activation and the stride on the 3x3 convolution."""
    return PreResNet(101, classes, in_channels, input_norm, stride_on_3x3=True)


@register(_spec(params=44541608, macs=7570194432))
def resnet101_v2_stride1x1(classes=1000, in_channels=3):
    """ResNet-101 with pre-activation and the stride on the first 1x1 convolution."""
    return PreResNet(101, classes, in_channels)


@register(_spec(params=60185256, macs=11513626624))
def resnet152_v2(classes=1000, in_channels=3, input_norm=False):
    """ResNet-152 with pre-activation and the stride on the 3x3 convolution."""
    return PreResNet(152, classes, in_channels, input_norm, stride_on_3x3=True)


@register(_spec(params=60185256, macs=11282415616))
def resnet152_v2_stride1x1(classes=1000, in_channels=3):
    """ResNet-152 with pre-activation and the stride on the first 1x1 convolution."""
    return PreResNet(152, classes, in_channels)


@register(_spec(params=64666280, macs=14776270848))
def resnet200_v2(classes=1000, in_channels=3):
    """ResNet-200 with pre-activation and the stride on the first 1x1 convolution."""
    return PreResNet(200, classes, in_channels)
