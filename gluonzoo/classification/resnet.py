"""ResNet for ImageNet: residual learning with shortcuts around two or three convolutions.

Source: K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385, table 1.
- `_v1`: the paper's; a bottleneck's stride is on its first 1x1 convolution, new shapes have projection shortcuts (B).
- `_v1b`: the stride is on the 3x3 convolution (S. Gross, M. Wilber, Training and investigating Residual Nets, 2016).
  18 and 34 layers have no bottlenecks: `_v1b` is the same network as `_v1`.
- `_v1_a`: zero-padding shortcuts (A), without parameters.
Differences: none known in structure. No convolution has a bias (MXNet's and GluonCV's resnet50_v1 have some). The last
layer starts from N(0, 0.01), which the paper leaves open.
"""
import functools

import mxnet as mx
from mxnet.gluon import nn

from ..layers import BasicUnit, BottleneckUnit, ConvNorm, Network, Stages, residual_stage
from ..registry import ModelSpec, register

__all__ = ["ResNet", "resnet18_v1", "resnet18_v1_a", "resnet18_v1b", "resnet34_v1", "resnet34_v1_a", "resnet34_v1b",
           "resnet50_v1", "resnet50_v1b", "resnet101_v1", "resnet101_v1b", "resnet152_v1", "resnet152_v1b"]

#: Table 1: layers -> (unit, units in conv2_x, conv3_x, conv4_x, conv5_x).
CONFIGURATIONS = {
    18: (BasicUnit, (2, 2, 2, 2)),
    34: (BasicUnit, (3, 4, 6, 3)),
    50: (BottleneckUnit, (3, 4, 6, 3)),
    101: (BottleneckUnit, (3, 4, 23, 3)),
    152: (BottleneckUnit, (3, 8, 36, 3)),
}


class ResNet(Network):
    """ResNet with 18 to 152 layers. Takes images of any size; 224x224 is the standard.

    Args:
        layers: a key of `CONFIGURATIONS`.
        options: of the unit (`shortcut`, `stride_on_3x3`).
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, layers, classes=1000, in_channels=3, **options):
        super().__init__(classes, in_channels)
        if layers not in CONFIGURATIONS:
            raise ValueError(f"layers is {layers!r}; expected one of {', '.join(map(str, CONFIGURATIONS))}")
        unit, units = CONFIGURATIONS[layers]
        wide = unit.expansion
        self._channels = 512 * wide
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 3 x 224 x 224
                self.features.stem = nn.HybridSequential(prefix="stem_")                    # N x 64 x 56 x 56
                with self.features.stem.name_scope():
                    self.features.stem.add(ConvNorm(in_channels, 64, 7, 2, prefix="conv1_"),
                                           nn.MaxPool2D(3, 2, padding=1))
                make = functools.partial(residual_stage, unit, **options)
                self.features.stage1 = make(units[0], 64, 64, 1, "stage1_")                 # N x 64 (256) x 56 x 56
                self.features.stage2 = make(units[1], 64 * wide, 128, 2, "stage2_")         # N x 128 (512) x 28 x 28
                self.features.stage3 = make(units[2], 128 * wide, 256, 2, "stage3_")        # N x 256 (1024) x 14 x 14
                self.features.stage4 = make(units[3], 256 * wide, 512, 2, "stage4_")        # N x 512 (2048) x 7 x 7
            self.pool = nn.GlobalAvgPool2D()                                                # N x 512 (2048) x 1 x 1
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._channels, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


_spec = functools.partial(
    ModelSpec, task="classification", family="ResNet", year=2015, classes=1000, input_shape=(3, 224, 224),
    paper="Deep Residual Learning for Image Recognition", link="arXiv:1512.03385")


@register(_spec(params=11689512, macs=1814073344))
def resnet18_v1(classes=1000, in_channels=3):
    """ResNet-18 as in the paper: projection shortcuts."""
    return ResNet(18, classes, in_channels)


@register(_spec(params=11515688, macs=1794805760))
def resnet18_v1_a(classes=1000, in_channels=3):
    """ResNet-18 with zero-padding shortcuts (A)."""
    return ResNet(18, classes, in_channels, shortcut="a")


@register(_spec(params=11689512, macs=1814073344))
def resnet18_v1b(classes=1000, in_channels=3):
    """ResNet-18 under its other name: the same network as `resnet18_v1`."""
    return ResNet(18, classes, in_channels)


@register(_spec(params=21797672, macs=3663761408))
def resnet34_v1(classes=1000, in_channels=3):
    """ResNet-34 as in the paper: projection shortcuts."""
    return ResNet(34, classes, in_channels)


@register(_spec(params=21623848, macs=3644493824))
def resnet34_v1_a(classes=1000, in_channels=3):
    """ResNet-34 with zero-padding shortcuts (A)."""
    return ResNet(34, classes, in_channels, shortcut="a")


@register(_spec(params=21797672, macs=3663761408))
def resnet34_v1b(classes=1000, in_channels=3):
    """ResNet-34 under its other name: the same network as `resnet34_v1`."""
    return ResNet(34, classes, in_channels)


@register(_spec(params=25557032, macs=3857973248))
def resnet50_v1(classes=1000, in_channels=3):
    """ResNet-50 as in the paper: projection shortcuts, stride on the first 1x1."""
    return ResNet(50, classes, in_channels)


@register(_spec(params=25557032, macs=4089184256))
def resnet50_v1b(classes=1000, in_channels=3):
    """ResNet-50 with the stride on the 3x3 convolution (also called v1.5)."""
    return ResNet(50, classes, in_channels, stride_on_3x3=True)


@register(_spec(params=44549160, macs=7570194432))
def resnet101_v1(classes=1000, in_channels=3):
    """ResNet-101 as in the paper: projection shortcuts, stride on the first 1x1."""
    return ResNet(101, classes, in_channels)


@register(_spec(params=44549160, macs=7801405440))
def resnet101_v1b(classes=1000, in_channels=3):
    """ResNet-101 with the stride on the 3x3 convolution (also called v1.5)."""
    return ResNet(101, classes, in_channels, stride_on_3x3=True)


@register(_spec(params=60192808, macs=11282415616))
def resnet152_v1(classes=1000, in_channels=3):
    """ResNet-152 as in the paper: projection shortcuts, stride on the first 1x1."""
    return ResNet(152, classes, in_channels)


@register(_spec(params=60192808, macs=11513626624))
def resnet152_v1b(classes=1000, in_channels=3):
    """ResNet-152 with the stride on the 3x3 convolution (also called v1.5)."""
    return ResNet(152, classes, in_channels, stride_on_3x3=True)
