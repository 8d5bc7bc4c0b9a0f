"""PVANet: a deep and thin network of C.ReLU and Inception modules, with the classifier it was pre-trained with.

Source: K.-H. Kim, S. Hong, B. Roh, Y. Cheon, M. Park, PVANET: Deep but Lightweight Neural Networks for Real-time Object
Detection, 2016, arXiv:1608.08021, table 1 and figures 1 to 3; the authors' ImageNet network pva9.1_preAct of
sanghoon/pva-faster-rcnn, models/pvanet/imagenet, which gives what the table does not: biases, pre-activation, the classifier.
Weights start as in that file: uniform with variance 1 / fan_in, biases of 0.1.
Differences: table 1 is the older network 9.0; 9.1 applies BatchNorm and ReLU before each block instead of after it, and adds
them once more after the last. Caffe pools with rounding up, and so does this: 96 -> 48 -> 24 -> 12 -> 6 pixels.
"""
import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..layers import ConvNorm, CReLU, Network, NormReLU, Stages, VectorBatchNorm, concat_channels
from ..registry import ModelSpec, register

__all__ = ["PVANet", "ModifiedCReLU", "InceptionUnit", "pvanet_cls"]

#: Table 1, mCReLU: stage -> (blocks, channels of the 1x1, 3x3 and 1x1 convolution, stride of the first block).
MCRELU = {"conv2": (3, (24, 24, 64), 1), "conv3": (4, (48, 48, 128), 2)}

#: Table 1, Inception: stage -> (1x1, 3x3 branch, 5x5 branch, pooling branch of the first block, output channels). The first
#: block of conv4 reduces to 48 channels before its 3x3, the others to 64.
INCEPTION = {"conv4": (64, (64, 128), (24, 48, 48), 128, 256), "conv5": (64, (96, 192), (32, 64, 64), 128, 384)}
FIRST_REDUCTION = {"conv4": 48, "conv5": 96}

#: Caffe's "xavier" filler.
FAN_IN = mx.init.Xavier("uniform", factor_type="in", magnitude=3)


def _conv(in_channels, channels, kernel_size=1, strides=1, use_bias=True):
    return nn.Conv2D(channels, kernel_size, strides, padding=kernel_size // 2, in_channels=in_channels, use_bias=use_bias,
                     weight_initializer=FAN_IN, bias_initializer=mx.init.Constant(0.1))


def _norm_crelu(channels):
    """BatchNorm without parameters of its own, and C.ReLU with a scale and a shift for each half (figure 1)."""
    block = nn.HybridSequential()
    block.add(nn.BatchNorm(in_channels=channels, center=False, scale=False), CReLU(channels, scale=True))
    return block


class ModifiedCReLU(HybridBlock):
    """mCReLU: 1x1, 3x3 and, after C.ReLU, 1x1 convolution around a shortcut, with activations before the convolutions.

    The shortcut is the input, or a 1x1 convolution of the activated input where the shape changes.

    Args:
        widths: channels of the three convolutions.
        activated: whether the input has been through a ReLU already.
    Shape: (N, in_channels, H, W) -> (N, widths[2], ceil(H / strides), ceil(W / strides)).
    """

    def __init__(self, in_channels, widths, strides=1, activated=False, prefix=None):
        super().__init__(prefix=prefix)
        first, second, channels = widths
        with self.name_scope():
            self.before1 = None if activated else NormReLU(in_channels)
            self.conv1 = _conv(in_channels, first, 1, strides)
            self.before2 = NormReLU(first)
            self.conv2 = _conv(first, second, 3)
            self.before3 = _norm_crelu(second)
            self.conv3 = _conv(2 * second, channels)
            self.shortcut = None if (in_channels, strides) == (channels, 1) else _conv(in_channels, channels, 1, strides)

    def hybrid_forward(self, F, x):
        y = x if self.before1 is None else self.before1(x)
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = self.conv3(self.before3(self.conv2(self.before2(self.conv1(y)))))
        return F.elemwise_add(y, shortcut)


class InceptionUnit(HybridBlock):
    """Residual Inception module: 1x1, 3x3 and two 3x3 (for 5x5), with stride 2 also max pooling; BatchNorm and ReLU first.

    Args:
        pooled: channels of the pooling branch, 0 for none.
        last: BatchNorm after the module, and BatchNorm and ReLU after the sum.
    Shape: (N, in_channels, H, W) -> (N, channels, H / strides, W / strides), H and W multiples of the stride.
    """

    def __init__(self, in_channels, single, three, five, pooled, channels, strides=1, last=False, prefix=None):
        super().__init__(prefix=prefix)
        conv = functools.partial(ConvNorm, weight_initializer=FAN_IN)
        self._widths = [single, three[1], five[2]] + [pooled] * bool(pooled)
        with self.name_scope():
            self.before = NormReLU(in_channels)
            self.branch1x1 = conv(in_channels, single, 1, strides)
            self.branch3x3 = nn.HybridSequential()
            self.branch3x3.add(conv(in_channels, three[0], 1, strides), conv(three[0], three[1], 3))
            self.branch5x5 = nn.HybridSequential()
            self.branch5x5.add(conv(in_channels, five[0], 1, strides), conv(five[0], five[1], 3), conv(five[1], five[2], 3))
            self.branch_pool = nn.HybridSequential() if pooled else None
            if pooled:
                self.branch_pool.add(nn.MaxPool2D(3, strides, ceil_mode=True), conv(in_channels, pooled, 1))
            self.join = _conv(sum(self._widths), channels, use_bias=not last)
            self.join_norm = nn.BatchNorm(in_channels=channels) if last else None
            self.shortcut = None if (in_channels, strides) == (channels, 1) else _conv(in_channels, channels, 1, strides)
            self.after = NormReLU(channels) if last else None

    def hybrid_forward(self, F, x):
        y = self.before(x)
        parts = [self.branch1x1(y), self.branch3x3(y), self.branch5x5(y)]
        if self.branch_pool is not None:
            parts.append(self.branch_pool(y))
        y = self.join(concat_channels(F, parts, self._widths))
        if self.join_norm is not None:
            y = self.join_norm(y)
        y = F.elemwise_add(y, x if self.shortcut is None else self.shortcut(x))
        return y if self.after is None else self.after(y)


def _mcrelu_stage(stage, in_channels, activated):
    blocks, widths, strides = MCRELU[stage]
    block = nn.HybridSequential(prefix=f"{stage}_")
    with block.name_scope():
        block.add(ModifiedCReLU(in_channels, widths, strides, activated))
        for _ in range(blocks - 1):
            block.add(ModifiedCReLU(widths[2], widths))
    return block


def _inception_stage(stage, in_channels, last=False):
    single, three, five, pooled, channels = INCEPTION[stage]
    block = nn.HybridSequential(prefix=f"{stage}_")
    with block.name_scope():
        block.add(InceptionUnit(in_channels, single, (FIRST_REDUCTION[stage], three[1]), five, pooled, channels, 2))
        for index in range(3):
            block.add(InceptionUnit(channels, single, three, five, 0, channels, last=last and index == 2))
    return block


def _dense(in_units, units):
    """Dense layer, BatchNorm, dropout and ReLU, in the order of the authors' file."""
    block = nn.HybridSequential()
    block.add(nn.Dense(units, in_units=in_units, weight_initializer=FAN_IN, bias_initializer=mx.init.Constant(0.1)),
              VectorBatchNorm(in_channels=units), nn.Dropout(0.5), nn.Activation("relu"))
    return block


class PVANet(Network):
    """PVANet 9.1 with its ImageNet classifier; the maps of conv2 to conv4 are sums, before BatchNorm and ReLU.

    Shape: (N, in_channels, 192, 192) -> (N, classes), logits.
    """

    def __init__(self, classes=1000, in_channels=3):
        super().__init__(classes, in_channels, min_size=(192, 192), fixed_size=True)
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                        # N x 3 x 192 x 192
                self.features.conv1 = nn.HybridSequential(prefix="conv1_")                          # N x 32 x 96 x 96
                with self.features.conv1.name_scope():
                    self.features.conv1.add(
                        nn.Conv2D(16, 7, 2, 3, in_channels=in_channels, use_bias=False, weight_initializer=FAN_IN),
                        _norm_crelu(16))
                self.features.pool1 = nn.MaxPool2D(3, 2, ceil_mode=True)                            # N x 32 x 48 x 48
                self.features.conv2 = _mcrelu_stage("conv2", 32, activated=True)                    # N x 64 x 48 x 48
                self.features.conv3 = _mcrelu_stage("conv3", 64, activated=False)                   # N x 128 x 24 x 24
                self.features.conv4 = _inception_stage("conv4", 128)                                # N x 256 x 12 x 12
                self.features.conv5 = _inception_stage("conv5", 256, last=True)                     # N x 384 x 6 x 6
            self.fc6 = _dense(384 * 6 * 6, 4096)
            self.fc7 = _dense(4096, 4096)
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=4096, weight_initializer=FAN_IN, bias_initializer=mx.init.Constant(0.1),
                        prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.fc7(self.fc6(self.features(x))))


@register(ModelSpec(
    task="classification", family="PVANet", year=2016, classes=1000, input_shape=(3, 192, 192), params=80427000,
    macs=452993024, paper="PVANET: Deep but Lightweight Neural Networks for Real-time Object Detection",
    link="arXiv:1608.08021", learning_rate=0.001, notes="the authors' ImageNet pre-training network, pva9.1"))
def pvanet_cls(classes=1000, in_channels=3):
    """PVANet 9.1 with its ImageNet classifier; see `PVANet`. 192x192 inputs."""
    return PVANet(classes, in_channels)
