"""ZFNet: AlexNet's layers with smaller filters and strides at the bottom, found by looking at its features.

Source: M. D. Zeiler, R. Fergus, Visualizing and Understanding Convolutional Networks, 2013, arXiv:1311.2901, figure 3 and
section 3; `zfnet_b`: table 2, the row with layers 3, 4, 5 of 512, 1024, 512 maps.
Differences
- The contrast normalization across maps has the constants of AlexNet's response normalization; the paper gives none. It comes
  after the pooling, as in figure 3 (gluoncv2's and pytorchcv's come before it).
- conv1 has a padding of 1 and the pooling takes partial windows, which the map sizes of figure 3 need.
- Initial weights are N(0, 0.01), the paper's 10^-2; biases 0 (section 3.1).
"""
import functools

import mxnet as mx
from mxnet.gluon import nn

from ..layers import LRN, DenseHeadNetwork, Stages
from ..registry import ModelSpec, register

__all__ = ["ZFNet", "zfnet", "zfnet_b"]

NORMAL = mx.init.Normal(0.01)


class ZFNet(DenseHeadNetwork):
    """Five convolutions and three dense layers.

    Args:
        channels: of conv3, conv4 and conv5.
    Shape: (N, in_channels, 224, 224) -> (N, classes), logits.
    """
    hidden = ("fc6", "fc7")
    dropout_rate = 0.5

    def __init__(self, channels=(384, 384, 256), classes=1000, in_channels=3):
        super().__init__(classes, in_channels, (224, 224))
        conv = functools.partial(nn.Conv2D, activation="relu", weight_initializer=NORMAL)
        pool = functools.partial(nn.MaxPool2D, 3, 2, ceil_mode=True)
        third, fourth, fifth = channels
        with self.name_scope():
            self.features = stages = Stages(prefix="features_")
            with stages.name_scope():                                                       # N x 3 x 224 x 224
                stages.conv1 = conv(96, 7, 2, padding=1, in_channels=in_channels)           # N x 96 x 110 x 110
                stages.pool1 = pool()                                                       # N x 96 x 55 x 55
                stages.norm1 = LRN()
                stages.conv2 = conv(256, 5, 2, in_channels=96)                              # N x 256 x 26 x 26
                stages.pool2 = pool()                                                       # N x 256 x 13 x 13
                stages.norm2 = LRN()
                stages.conv3 = conv(third, 3, padding=1, in_channels=256)                   # N x 384 (512) x 13 x 13
                stages.conv4 = conv(fourth, 3, padding=1, in_channels=third)                # N x 384 (1024) x 13 x 13
                stages.conv5 = conv(fifth, 3, padding=1, in_channels=fourth)                # N x 256 (512) x 13 x 13
                stages.pool5 = pool()                                                       # N x 256 (512) x 6 x 6
            dense = functools.partial(nn.Dense, 4096, "relu", weight_initializer=NORMAL)
            self.fc6 = dense(in_units=fifth * 6 * 6, prefix="fc6_")                         # N x 4096
            self.fc7 = dense(in_units=4096, prefix="fc7_")                                  # N x 4096
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=4096, weight_initializer=NORMAL, prefix="output_")


_spec = functools.partial(
    ModelSpec, task="classification", family="ZFNet", year=2013, classes=1000, input_shape=(3, 224, 224),
    paper="Visualizing and Understanding Convolutional Networks", link="arXiv:1311.2901", learning_rate=0.01)


@register(_spec(params=62357608, macs=1168032896))
def zfnet(classes=1000, in_channels=3):
    """ZFNet of figure 3. 224x224 inputs."""
    return ZFNet(classes=classes, in_channels=in_channels)


@register(_spec(params=107627624, macs=2476704896))
def zfnet_b(classes=1000, in_channels=3):
    """ZFNet with 512, 1024 and 512 maps in conv3, conv4 and conv5. 224x224 inputs."""
    return ZFNet((512, 1024, 512), classes, in_channels)
