"""AlexNet: the network of 2012 with its two towers, the same without the towers, and the single tower of 2014.

Source: A. Krizhevsky, I. Sutskever, G. E. Hinton, ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012,
section 3 and figure 2. `alexnet_owt`: A. Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014,
arXiv:1404.5997, with the widths of torchvision's and MXNet's AlexNet, which the paper does not list.

Differences
- The paper says 224x224 images; its 55x55 maps need 227x227, which `alexnet` and `alexnet_ungrouped` take.
- The two towers are groups of conv2, conv4 and conv5, as in Caffe's bvlc_alexnet. Caffe's normalization has k = 1 and averages
  the squares: `lrn="caffe"` is for its weights. (bvlc_reference_caffenet also pools before it normalizes: not this network.)
- Initial weights are the paper's (section 5): N(0, 0.01); biases 1 in conv2, conv4, conv5, fc6 and fc7, 0 elsewhere. The paper
  of 2014 gives none; the same are taken.
- Dropout comes after fc6 and fc7; torchvision has it before them.
"""
import functools

import mxnet as mx
from mxnet.gluon import nn

from ..errors import UserError
from ..layers import LRN, DenseHeadNetwork, Stages
from ..registry import ModelSpec, register

__all__ = ["AlexNet", "alexnet", "alexnet_ungrouped", "alexnet_owt"]

#: Section 3.5: image size, padding of conv1, channels and groups of conv1 to conv5, normalization, pooling of partial windows.
CONFIGURATIONS = {
    "2012": (227, 0, (96, 256, 384, 384, 256), (1, 2, 1, 2, 2), True, True),
    "2012 ungrouped": (227, 0, (96, 256, 384, 384, 256), (1, 1, 1, 1, 1), True, True),
    "2014": (224, 2, (64, 192, 384, 256, 256), (1, 1, 1, 1, 1), False, False),
}

#: Constants of the normalization: section 3.3 of the paper; Caffe's.
NORMALIZATIONS = {"paper": {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0},
                  "caffe": {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0, "average": True}}

NORMAL = mx.init.Normal(0.01)


class AlexNet(DenseHeadNetwork):
    """Five convolutions and three dense layers. Sizes in the comments are those of 2012.

    Args:
        configuration: a key of `CONFIGURATIONS`.
        lrn: a key of `NORMALIZATIONS`; not used by the network of 2014.
    Shape: (N, in_channels, 227, 227), of 2014 (N, in_channels, 224, 224) -> (N, classes), logits.
    """
    hidden = ("fc6", "fc7")
    dropout_rate = 0.5

    def __init__(self, configuration="2012", classes=1000, in_channels=3, lrn="paper"):
        for name, value, known in (("configuration", configuration, CONFIGURATIONS), ("lrn", lrn, NORMALIZATIONS)):
            if value not in known:
                raise UserError(f"{name} is {value!r}; expected one of {', '.join(map(repr, known))}")
        size, padding, channels, groups, normalized, ceil = CONFIGURATIONS[configuration]
        super().__init__(classes, in_channels, (size, size))
        widths = (in_channels,) + channels

        def conv(number, kernel_size, strides=1, padding=None):
            return nn.Conv2D(channels[number - 1], kernel_size, strides, kernel_size // 2 if padding is None else padding,
                             groups=groups[number - 1], activation="relu", in_channels=widths[number - 1],
                             weight_initializer=NORMAL, bias_initializer="ones" if number in (2, 4, 5) else "zeros")

        with self.name_scope():
            self.features = stages = Stages(prefix="features_")
            with stages.name_scope():                                                       # N x 3 x 227 x 227
                stages.conv1 = conv(1, 11, 4, padding)                                      # N x 96 x 55 x 55
                if normalized:
                    stages.norm1 = LRN(**NORMALIZATIONS[lrn])
                stages.pool1 = nn.MaxPool2D(3, 2, ceil_mode=ceil)                           # N x 96 x 27 x 27
                stages.conv2 = conv(2, 5)                                                   # N x 256 x 27 x 27
                if normalized:
                    stages.norm2 = LRN(**NORMALIZATIONS[lrn])
                stages.pool2 = nn.MaxPool2D(3, 2, ceil_mode=ceil)                           # N x 256 x 13 x 13
                stages.conv3 = conv(3, 3)                                                   # N x 384 x 13 x 13
                stages.conv4 = conv(4, 3)                                                   # N x 384 x 13 x 13
                stages.conv5 = conv(5, 3)                                                   # N x 256 x 13 x 13
                stages.pool5 = nn.MaxPool2D(3, 2, ceil_mode=ceil)                           # N x 256 x 6 x 6
            dense = functools.partial(nn.Dense, 4096, "relu", weight_initializer=NORMAL, bias_initializer="ones")
            self.fc6 = dense(in_units=256 * 6 * 6, prefix="fc6_")                           # N x 4096
            self.fc7 = dense(in_units=4096, prefix="fc7_")                                  # N x 4096
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=4096, weight_initializer=NORMAL, prefix="output_")


_spec = functools.partial(
    ModelSpec, task="classification", family="AlexNet", year=2012, classes=1000, input_shape=(3, 227, 227),
    paper="ImageNet Classification with Deep Convolutional Neural Networks", link="NIPS 2012", learning_rate=0.01)


@register(_spec(params=60965224, macs=724406816))
def alexnet(classes=1000, in_channels=3, lrn="paper"):
    """AlexNet of 2012 with two towers; `lrn="caffe"` for Caffe's weights. 227x227 inputs."""
    return AlexNet("2012", classes, in_channels, lrn)


@register(_spec(params=62378344, macs=1135256096))
def alexnet_ungrouped(classes=1000, in_channels=3, lrn="paper"):
    """AlexNet of 2012 without groups: every map sees all maps before it. 227x227 inputs."""
    return AlexNet("2012 ungrouped", classes, in_channels, lrn)


@register(_spec(params=61100840, macs=714188480, year=2014, input_shape=(3, 224, 224), link="arXiv:1404.5997",
                paper="One weird trick for parallelizing convolutional neural networks"))
def alexnet_owt(classes=1000, in_channels=3):
    """The single tower of 2014, without normalization: what torchvision and MXNet call AlexNet. 224x224 inputs."""
    return AlexNet("2014", classes, in_channels)
