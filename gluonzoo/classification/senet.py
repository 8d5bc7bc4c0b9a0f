"""ResNets and ResNeXts with squeeze-and-excitation, and SENet-154.

Source: J. Hu, L. Shen, S. Albanie, G. Sun, E. Wu, Squeeze-and-Excitation Networks, 2017, arXiv:1709.01507, table 1 and
figure 3; the authors' models, github.com/hujie-frank/SENet: the first pooling has no padding and rounds sizes up, SE layers
reduce by 16 and have biases, ResNeXts have the stride on the 3x3 convolution and SE-ResNets on the first 1x1. SENet-154:
three 3x3 convolutions as the stem, 64 groups, a first 1x1 of half the width, 3x3 shortcuts where the size changes, dropout
of 0.2. Convolutions start as in arXiv:1502.01852.
- `se_resnet18`, `se_resnet34`: not published; ResNet's units, SE as in the others.
- `se_resnet50_b`: the stride on the 3x3 convolution and ResNet's padded pooling, as in gluoncv2 and timm's seresnet50.
Differences: none known in structure. gluoncv2, PyTorchCV and GluonCV pad the first pooling everywhere: `padded_pool=True` is
for their weights. GluonCV's SE-ResNets have biases on 1x1 convolutions and none in SE; timm's legacy_seresnet18 and 34
have a ReLU before SE. The last layer starts from N(0, 0.01), which the paper leaves open.
"""
import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..layers import ConvNorm, GroupedConvNorm, Network, SqueezeExcite, Stages, check_flag, drop_branch
from ..registry import ModelSpec, register

__all__ = ["SENet", "SEUnit", "se_resnet18", "se_resnet34", "se_resnet50", "se_resnet50_b", "se_resnet101", "se_resnet152",
           "se_resnext50_32x4d", "se_resnext101_32x4d", "senet154"]

#: Convolutions of a unit of `width` channels (64 to 512): (times the width, kernel, has the stride, groups) of each.
BASIC = ((1, 3, True, 1), (1, 3, False, 1))
BOTTLENECK = ((1, 1, True, 1), (1, 3, False, 1), (4, 1, False, 1))
BOTTLENECK_B = ((1, 1, False, 1), (1, 3, True, 1), (4, 1, False, 1))
RESNEXT = ((2, 1, False, 1), (2, 3, True, 32), (4, 1, False, 1))
SENET = ((2, 1, False, 1), (4, 3, True, 64), (4, 1, False, 1))

#: Table 1 and the authors' models: name -> (convolutions of a unit, units in conv2_x, conv3_x, conv4_x, conv5_x).
CONFIGURATIONS = {
    "se_resnet18": (BASIC, (2, 2, 2, 2)),
    "se_resnet34": (BASIC, (3, 4, 6, 3)),
    "se_resnet50": (BOTTLENECK, (3, 4, 6, 3)),
    "se_resnet50_b": (BOTTLENECK_B, (3, 4, 6, 3)),
    "se_resnet101": (BOTTLENECK, (3, 4, 23, 3)),
    "se_resnet152": (BOTTLENECK, (3, 8, 36, 3)),
    "se_resnext50_32x4d": (RESNEXT, (3, 4, 6, 3)),
    "se_resnext101_32x4d": (RESNEXT, (3, 4, 23, 3)),
    "senet154": (SENET, (3, 8, 36, 3)),
}


class SEUnit(HybridBlock):
    """Two or three convolutions, squeeze-and-excitation, and the shortcut around all of them.

    Args:
        convolutions: (times the width, kernel, has the stride, groups) of each; no ReLU behind the last.
        shortcut_kernel: of the convolution around the unit, where the shape changes.
    Shape: (N, in_channels, H, W) -> (N, C, ceil(H / strides), ceil(W / strides)), C the last convolution's channels.
    """
    #: Chance to take part in training (`layers.stochastic_depth`).
    survival = 1.0

    def __init__(self, in_channels, width, strides, convolutions, shortcut_kernel=1, prefix=None):
        super().__init__(prefix=prefix)
        self._names, channels = [f"conv{index + 1}" for index in range(len(convolutions))], in_channels
        with self.name_scope():
            for name, (times, kernel, strided, groups) in zip(self._names, convolutions):
                block = GroupedConvNorm if groups > 1 else ConvNorm
                setattr(self, name, block(channels, times * width, kernel, strides if strided else 1, groups=groups,
                                          relu=name != self._names[-1], prefix=f"{name}_"))
                channels = times * width
            self.se = SqueezeExcite(channels, 16, prefix="se_")
            self.shortcut = None
            if strides > 1 or in_channels != channels:
                self.shortcut = ConvNorm(in_channels, channels, shortcut_kernel, strides, relu=False, prefix="shortcut_")

    def hybrid_forward(self, F, x):
        branch = x
        for name in self._names:
            branch = getattr(self, name)(branch)
        shortcut = x if self.shortcut is None else self.shortcut(x)
        branch = drop_branch(F, self.se(branch), self.survival)
        return F.Activation(F.elemwise_add(branch, shortcut), act_type="relu")


class SENet(Network):
    """A network of `SEUnit`s. Takes images of 5x5 pixels and more (`se_resnet50_b`: any size); 224x224 is the standard.

    Args:
        name: a key of `CONFIGURATIONS`.
        padded_pool: whether the first pooling is ResNet's, by default only in `se_resnet50_b`.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, name, classes=1000, in_channels=3, padded_pool=False):
        if name not in CONFIGURATIONS:
            raise ValueError(f"name is {name!r}; expected one of {', '.join(CONFIGURATIONS)}")
        check_flag(padded_pool=padded_pool)
        convolutions, units = CONFIGURATIONS[name]
        large, padded = convolutions is SENET, padded_pool or convolutions is BOTTLENECK_B
        # The first pooling needs maps of its own size, 3x3, unless it is padded.
        super().__init__(classes, in_channels, min_size=(1, 1) if padded else (5, 5))
        wide = convolutions[-1][0]
        self._channels = 512 * wide
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 3 x 224 x 224
                self.features.stem = _stem(in_channels, large, padded)                      # N x 64 (128) x 56 x 56
                channels = 128 if large else 64
                for index, count in enumerate(units):       # N x 64 (256) x 56 x 56 to N x 512 (2048) x 7 x 7
                    width, kernel = 64 * 2**index, 3 if large and index > 0 else 1
                    stage = _stage(count, channels, width, 1 if index == 0 else 2, convolutions, kernel, f"stage{index + 1}_")
                    setattr(self.features, f"stage{index + 1}", stage)
                    channels = width * wide
            self.pool = nn.GlobalAvgPool2D()                                                # N x 512 (2048) x 1 x 1
            self.dropout = nn.Dropout(0.2) if large else None
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=self._channels, weight_initializer=mx.init.Normal(0.01), prefix="output_")

    def hybrid_forward(self, F, x):
        x = self.pool(self.features(x))
        return self.output(x if self.dropout is None else self.dropout(x))


def _stem(in_channels, large, padded):
    stem = nn.HybridSequential(prefix="stem_")
    with stem.name_scope():
        if large:
            stem.add(ConvNorm(in_channels, 64, 3, 2, prefix="conv1_"), ConvNorm(64, 64, 3, prefix="conv2_"),
                     ConvNorm(64, 128, 3, prefix="conv3_"))
        else:
            stem.add(ConvNorm(in_channels, 64, 7, 2, prefix="conv1_"))
        stem.add(nn.MaxPool2D(3, 2, padding=1) if padded else nn.MaxPool2D(3, 2, ceil_mode=True))
    return stem


def _stage(count, in_channels, width, strides, convolutions, shortcut_kernel, prefix):
    stage = nn.HybridSequential(prefix=prefix)
    with stage.name_scope():
        for index in range(count):
            stage.add(SEUnit(in_channels, width, strides if index == 0 else 1, convolutions, shortcut_kernel,
                             prefix=f"unit{index + 1}_"))
            in_channels = width * convolutions[-1][0]
    return stage


_spec = functools.partial(
    ModelSpec, task="classification", family="SENet", year=2017, classes=1000, input_shape=(3, 224, 224),
    paper="Squeeze-and-Excitation Networks", link="arXiv:1709.01507")


@register(_spec(params=11778592, macs=1814160384))
def se_resnet18(classes=1000, in_channels=3, padded_pool=False):
    """ResNet-18 with squeeze-and-excitation."""
    return SENet("se_resnet18", classes, in_channels, padded_pool)


@register(_spec(params=21958868, macs=3663918592))
def se_resnet34(classes=1000, in_channels=3, padded_pool=False):
    """ResNet-34 with squeeze-and-excitation."""
    return SENet("se_resnet34", classes, in_channels, padded_pool)


@register(_spec(params=28088024, macs=3860488192))
def se_resnet50(classes=1000, in_channels=3, padded_pool=False):
    """ResNet-50 with squeeze-and-excitation: stride on the first 1x1."""
    return SENet("se_resnet50", classes, in_channels, padded_pool)


@register(_spec(params=28088024, macs=4091699200))
def se_resnet50_b(classes=1000, in_channels=3):
    """ResNet-50 with squeeze-and-excitation and the stride on the 3x3 convolution."""
    return SENet("se_resnet50_b", classes, in_channels)


@register(_spec(params=49326872, macs=7574937600))
def se_resnet101(classes=1000, in_channels=3, padded_pool=False):
    """ResNet-101 with squeeze-and-excitation: stride on the first 1x1."""
    return SENet("se_resnet101", classes, in_channels, padded_pool)


@register(_spec(params=66821848, macs=11288993792))
def se_resnet152(classes=1000, in_channels=3, padded_pool=False):
    """ResNet-152 with squeeze-and-excitation: stride on the first 1x1."""
    return SENet("se_resnet152", classes, in_channels, padded_pool)


@register(_spec(params=27559896, macs=4232994816))
def se_resnext50_32x4d(classes=1000, in_channels=3, padded_pool=False):
    """ResNeXt-50 32x4d with squeeze-and-excitation."""
    return SENet("se_resnext50_32x4d", classes, in_channels, padded_pool)


@register(_spec(params=48955416, macs=7974739968))
def se_resnext101_32x4d(classes=1000, in_channels=3, padded_pool=False):
    """ResNeXt-101 32x4d with squeeze-and-excitation."""
    return SENet("se_resnext101_32x4d", classes, in_channels, padded_pool)


@register(_spec(params=115088984, macs=20688363520))
def senet154(classes=1000, in_channels=3, padded_pool=False):
    """SENet-154: the network of the ILSVRC 2017 entry."""
    return SENet("senet154", classes, in_channels, padded_pool)
