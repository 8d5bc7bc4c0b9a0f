"""SqueezeNet: fire modules that squeeze to few channels before they expand, and no dense layer.

Source: F. Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size, 2016,
arXiv:1602.07360, table 1; poolings, initial weights (Caffe's "xavier", conv10 from N(0, 0.01)) and the whole of 1.1
from the authors' release, https://github.com/forresti/SqueezeNet.
- `squeezenet1_0`: the paper's. `squeezenet1_1`: smaller first convolution, earlier poolings; not in the paper.
Differences
- The sizes in table 1 belong to images of 227 pixels, with which the authors trained; 224 gives conv1 109 of 111 rows.
- Poolings round up, as Caffe's do. The authors' conv10 of 1.0 pads by a pixel, which only adds a border of biases to
  the average; here as in table 1 (13x13), torchvision and MXNet's model zoo it does not.
- conv10 has a ReLU, as in the authors' release: no logit is negative.
"""
import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..layers import GlobalAveragePool, Network, Stages, concat_channels, make_dropout
from ..registry import ModelSpec, register

__all__ = ["Fire", "SqueezeNet", "squeezenet1_0", "squeezenet1_1"]

#: Version -> (channels and kernel of conv1, fire modules after which a pooling comes).
CONFIGURATIONS = {"1.0": (96, 7, (4, 8)), "1.1": (64, 3, (3, 5))}
#: Table 1: fire2 to fire9 -> (channels of the squeeze layer, of each of the two expand layers).
FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}
#: Caffe's "xavier" filler: uniform, of variance 1 / fan_in.
XAVIER = mx.init.Xavier("uniform", factor_type="in", magnitude=3)


def _conv(in_channels, channels, kernel_size, strides=1, padding=0, prefix=None, weight_initializer=XAVIER):
    return nn.Conv2D(channels, kernel_size, strides, padding, activation="relu", in_channels=in_channels, prefix=prefix,
                     weight_initializer=weight_initializer)


class Fire(HybridBlock):
    """A 1x1 convolution that squeezes; a 1x1 and a 3x3 convolution that expand what it gives, side by side.

    Shape: (N, in_channels, H, W) -> (N, expand1x1 + expand3x3, H, W).
    """

    def __init__(self, in_channels, squeeze, expand1x1, expand3x3, prefix=None):
        super().__init__(prefix=prefix)
        self._widths = expand1x1, expand3x3
        with self.name_scope():
            self.squeeze = _conv(in_channels, squeeze, 1, prefix="squeeze_")
            self.expand1x1 = _conv(squeeze, expand1x1, 1, prefix="expand1x1_")
            self.expand3x3 = _conv(squeeze, expand3x3, 3, padding=1, prefix="expand3x3_")

    def hybrid_forward(self, F, x):
        x = self.squeeze(x)
        return concat_channels(F, [self.expand1x1(x), self.expand3x3(x)], self._widths)


class SqueezeNet(Network):
    """SqueezeNet. Takes images from 29x29 (1.0) or 25x25 (1.1) upwards; 224x224 is the standard.

    Args:
        version: a key of `CONFIGURATIONS`.
        dropout: share of fire9's values that training sets to zero.
    Shape: (N, in_channels, H, W) -> (N, classes), logits of at least 0.
    """

    def __init__(self, version, classes=1000, in_channels=3, dropout=0.5):
        if version not in CONFIGURATIONS:
            raise ValueError(f"version is {version!r}; expected one of {', '.join(CONFIGURATIONS)}")
        channels, kernel_size, pooled = CONFIGURATIONS[version]
        # Below, the last pooling has fewer than its three rows: conv1 must give 12.
        super().__init__(classes, in_channels, min_size=(kernel_size + 22,) * 2)
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # 1.0: N x 3 x 224 x 224
                self.features.conv1 = _conv(in_channels, channels, kernel_size, 2, prefix="conv1_")  # N x 96 x 109 x 109
                self.features.pool1 = nn.MaxPool2D(3, 2, ceil_mode=True)                    # N x 96 x 54 x 54
                for number, (squeeze, expand) in FIRES.items():     # N x 256 x 54 x 54, 512 x 27 x 27, 512 x 13 x 13
                    fire = Fire(channels, squeeze, expand, expand, prefix=f"fire{number}_")
                    setattr(self.features, f"fire{number}", fire)
                    if number in pooled:
                        setattr(self.features, f"pool{number}", nn.MaxPool2D(3, 2, ceil_mode=True))
                    channels = 2 * expand
            self.dropout = make_dropout(dropout)
            self.output = self.make_output(classes)

    def make_output(self, classes):
        output = nn.HybridSequential(prefix="output_")
        with output.name_scope():
            output.add(_conv(512, classes, 1, prefix="conv10_", weight_initializer=mx.init.Normal(0.01)),
                       GlobalAveragePool())
        return output

    def hybrid_forward(self, F, x):
        x = self.features(x)
        return self.output(x if self.dropout is None else self.dropout(x))


_spec = functools.partial(
    ModelSpec, task="classification", family="SqueezeNet", year=2016, classes=1000, input_shape=(3, 224, 224),
    paper="SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size", link="arXiv:1602.07360")


@register(_spec(params=1248424, macs=818924576))
def squeezenet1_0(classes=1000, in_channels=3, dropout=0.5):
    """SqueezeNet 1.0, the paper's."""
    return SqueezeNet("1.0", classes, in_channels, dropout)


@register(_spec(params=1235496, macs=349151936))
def squeezenet1_1(classes=1000, in_channels=3, dropout=0.5):
    """SqueezeNet 1.1 of the authors' release: as accurate, with 2.3 times fewer multiply-adds."""
    return SqueezeNet("1.1", classes, in_channels, dropout)
