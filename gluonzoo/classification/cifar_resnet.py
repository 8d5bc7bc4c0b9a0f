"""ResNet for CIFAR: 6n + 2 layers in three stages of 16, 32 and 64 channels.

Source: K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385,
section 4.2 and table 6.
- `_v1_a`: the paper's; zero-padding shortcuts (A), without parameters.
- `_v1_b`: projection shortcuts (B), as GluonCV's and PyTorchCV's networks have. GluonCV's (20, 56 and 110 layers) have no ReLU
  behind the stem's BatchNorm: `stem_relu=False` is for its weights.
Differences: none known in structure. The last layer starts from N(0, 0.01), which the paper leaves open.
"""
import functools

import mxnet as mx
from mxnet.gluon import nn

from ..layers import BasicUnit, ConvNorm, GlobalAveragePool, Network, Stages, check_flag, residual_stage
from ..registry import ModelSpec, register

__all__ = ["CifarResNet", "cifar_resnet20_v1_a", "cifar_resnet20_v1_b", "cifar_resnet32_v1_a", "cifar_resnet32_v1_b",
           "cifar_resnet44_v1_a", "cifar_resnet44_v1_b", "cifar_resnet56_v1_a", "cifar_resnet56_v1_b",
           "cifar_resnet110_v1_a", "cifar_resnet110_v1_b", "cifar_resnet1202_v1_a", "cifar_resnet1202_v1_b"]

#: Table 6: layers -> n, the units in each of the three stages.
CONFIGURATIONS = {20: 3, 32: 5, 44: 7, 56: 9, 110: 18, 1202: 200}


class CifarResNet(Network):
    """ResNet for small images. Takes images of any size; 32x32 is the standard.

    Args:
        layers: a key of `CONFIGURATIONS`.
        shortcut: "a" (zeros) or "b" (projection) where the channels change.
        stem_relu: whether there is a ReLU behind the first BatchNorm.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, layers, classes=10, in_channels=3, shortcut="a", stem_relu=True):
        super().__init__(classes, in_channels)
        check_flag(stem_relu=stem_relu)
        if layers not in CONFIGURATIONS:
            raise ValueError(f"layers is {layers!r}; expected one of {', '.join(map(str, CONFIGURATIONS))}")
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 3 x 32 x 32
                make = functools.partial(residual_stage, BasicUnit, CONFIGURATIONS[layers], shortcut=shortcut)
                self.features.stem = ConvNorm(in_channels, 16, 3, relu=stem_relu, prefix="stem_")  # N x 16 x 32 x 32
                self.features.stage1 = make(16, 16, 1, "stage1_")                           # N x 16 x 32 x 32
                self.features.stage2 = make(16, 32, 2, "stage2_")                           # N x 32 x 16 x 16
                self.features.stage3 = make(32, 64, 2, "stage3_")                           # N x 64 x 8 x 8
            self.pool = GlobalAveragePool()                                                 # N x 64
            self.output = self.make_output(classes)
        self._expect_variances()

    def _expect_variances(self):
        """Let running variances begin about where training finds them; with 1, 1202 layers overflow before any training.

        Every unit adds about 1 to the mean square of what goes around it, and the first convolution doubles that.
        """
        for stage in (self.features.stage1, self.features.stage2, self.features.stage3):
            square = 0.5
            for unit in stage:
                unit.conv1.norm.running_var.init = mx.init.Constant(2 * square)
                square = 1 + (square if unit.shortcut is None else 0.5)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=64, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


_spec = functools.partial(
    ModelSpec, task="classification", family="ResNet-CIFAR", year=2015, classes=10, input_shape=(3, 32, 32),
    paper="Deep Residual Learning for Image Recognition", link="arXiv:1512.03385")


@register(_spec(params=269722, macs=40551040))
def cifar_resnet20_v1_a(classes=10, in_channels=3):
    """ResNet-20 for CIFAR with zero-padding shortcuts (A), as in the paper."""
    return CifarResNet(20, classes, in_channels, shortcut="a")


@register(_spec(params=272474, macs=40813184))
def cifar_resnet20_v1_b(classes=10, in_channels=3, stem_relu=True):
    """ResNet-20 for CIFAR with projection shortcuts (B); `stem_relu=False` for GluonCV's weights."""
    return CifarResNet(20, classes, in_channels, shortcut="b", stem_relu=stem_relu)


@register(_spec(params=464154, macs=68862592))
def cifar_resnet32_v1_a(classes=10, in_channels=3):
    """ResNet-32 for CIFAR with zero-padding shortcuts (A), as in the paper."""
    return CifarResNet(32, classes, in_channels, shortcut="a")


@register(_spec(params=466906, macs=69124736))
def cifar_resnet32_v1_b(classes=10, in_channels=3):
    """ResNet-32 for CIFAR with projection shortcuts (B)."""
    return CifarResNet(32, classes, in_channels, shortcut="b")


@register(_spec(params=658586, macs=97174144))
def cifar_resnet44_v1_a(classes=10, in_channels=3):
    """ResNet-44 for CIFAR with zero-padding shortcuts (A), as in the paper."""
    return CifarResNet(44, classes, in_channels, shortcut="a")


@register(_spec(params=661338, macs=97436288))
def cifar_resnet44_v1_b(classes=10, in_channels=3):
    """ResNet-44 for CIFAR with projection shortcuts (B)."""
    return CifarResNet(44, classes, in_channels, shortcut="b")


@register(_spec(params=853018, macs=125485696))
def cifar_resnet56_v1_a(classes=10, in_channels=3):
    """ResNet-56 for CIFAR with zero-padding shortcuts (A), as in the paper."""
    return CifarResNet(56, classes, in_channels, shortcut="a")


@register(_spec(params=855770, macs=125747840))
def cifar_resnet56_v1_b(classes=10, in_channels=3, stem_relu=True):
    """ResNet-56 for CIFAR with projection shortcuts (B); `stem_relu=False` for GluonCV's weights."""
    return CifarResNet(56, classes, in_channels, shortcut="b", stem_relu=stem_relu)


@register(_spec(params=1727962, macs=252887680))
def cifar_resnet110_v1_a(classes=10, in_channels=3):
    """ResNet-110 for CIFAR with zero-padding shortcuts (A), as in the paper."""
    return CifarResNet(110, classes, in_channels, shortcut="a")


@register(_spec(params=1730714, macs=253149824))
def cifar_resnet110_v1_b(classes=10, in_channels=3, stem_relu=True):
    """ResNet-110 for CIFAR with projection shortcuts (B); `stem_relu=False` for GluonCV's weights."""
    return CifarResNet(110, classes, in_channels, shortcut="b", stem_relu=stem_relu)


@register(_spec(params=19421274, macs=2829238912))
def cifar_resnet1202_v1_a(classes=10, in_channels=3):
    """ResNet-1202 for CIFAR with zero-padding shortcuts (A), as in the paper."""
    return CifarResNet(1202, classes, in_channels, shortcut="a")


@register(_spec(params=19424026, macs=2829501056))
def cifar_resnet1202_v1_b(classes=10, in_channels=3):
    """ResNet-1202 for CIFAR with projection shortcuts (B)."""
    return CifarResNet(1202, classes, in_channels, shortcut="b")
