"""Network in Network: mlpconv layers, and global average pooling in place of dense layers.

Source: M. Lin, Q. Chen, S. Yan, Network In Network, 2013, arXiv:1312.4400, section 3 and figure 2. The paper does not tabulate
its networks; the sizes are those of the authors' releases: cuda-convnet's and Caffe's configurations for CIFAR-10, Caffe's for
ImageNet.
Differences
- As in the releases, the last 1x1 convolution has a ReLU too, so no output is negative. The second pooling for CIFAR-10 is an
  average, and both take partial windows without padding (gluoncv2's nin_cifar10 pads by 1 instead).
- For ImageNet pooling leaves out partial windows, as most ports of it do: maps of 54, 26, 12 and 5 pixels at 224x224. Caffe's
  pooling takes them, and has 54, 27, 13 and 6. At 227x227 both have 55, 27, 13 and 6 and are the same network.
- Weights start from N(0, 0.05), as in Caffe's CIFAR-10 network (the cuda-convnet one has 0.001 and 0.01, made for its long
  schedule), for ImageNet too; biases 0.
- The global average is taken at any image size; the releases have a fixed 8x8 and 6x6.
"""
import functools

import mxnet as mx
from mxnet.gluon import nn

from ..layers import GlobalAveragePool, MLPConv, Network, Stages
from ..registry import ModelSpec, register

__all__ = ["NiN", "nin_cifar10", "nin_imagenet"]

MAX_POOL = functools.partial(nn.MaxPool2D, 3, 2)
#: Poolings that take partial windows; an average is then that of the pixels in the window.
MAX_POOL_PARTIAL = functools.partial(MAX_POOL, ceil_mode=True)
AVERAGE_POOL_PARTIAL = functools.partial(nn.AvgPool2D, 3, 2, ceil_mode=True, count_include_pad=False)

#: Each mlpconv layer: channels, kernel, stride and padding, the pooling behind it and the dropout behind that. The last 1x1
#: convolution, whose channels are the classes, is not in the table.
CONFIGURATIONS = {
    "cifar10": (((192, 160, 96), 5, 1, 2, MAX_POOL_PARTIAL, 0.5), ((192, 192, 192), 5, 1, 2, AVERAGE_POOL_PARTIAL, 0.5),
                ((192, 192), 3, 1, 1, None, 0)),
    "imagenet": (((96, 96, 96), 11, 4, 0, MAX_POOL, 0), ((256, 256, 256), 5, 1, 2, MAX_POOL, 0),
                 ((384, 384, 384), 3, 1, 1, MAX_POOL, 0.5), ((1024, 1024), 3, 1, 1, None, 0)),
}
NORMAL = mx.init.Normal(0.05)


class NiN(Network):
    """Three or four mlpconv layers with 3x3 pooling of stride 2 between them, and the mean of one map for each class.

    Args:
        configuration: a key of `CONFIGURATIONS`.
        min_size: side of the smallest image whose maps every pooling window fits into.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, configuration, classes, in_channels, min_size):
        super().__init__(classes, in_channels, min_size=(min_size, min_size))
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():
                for number, (channels, kernel_size, strides, padding, pool, dropout) in enumerate(
                        CONFIGURATIONS[configuration], 1):
                    setattr(self.features, f"mlpconv{number}", MLPConv(
                        in_channels, channels, kernel_size, strides, padding, NORMAL, prefix=f"mlpconv{number}_"))
                    if pool:
                        setattr(self.features, f"pool{number}", _pool(pool, dropout))
                    in_channels = channels[-1]
            self._channels = in_channels
            self.output = self.make_output(classes)

    def make_output(self, classes):
        output = nn.HybridSequential(prefix="output_")
        with output.name_scope():
            output.add(nn.Conv2D(classes, 1, activation="relu", in_channels=self._channels, weight_initializer=NORMAL),
                       GlobalAveragePool())
        return output

    def hybrid_forward(self, F, x):
        return self.output(self.features(x))


def _pool(make, dropout):
    if not dropout:
        return make()
    blocks = nn.HybridSequential()
    blocks.add(make(), nn.Dropout(dropout))
    return blocks


_spec = functools.partial(
    ModelSpec, task="classification", family="NiN", year=2013, paper="Network In Network", link="arXiv:1312.4400")


@register(_spec(params=966986, macs=222486528, classes=10, input_shape=(3, 32, 32)))
def nin_cifar10(classes=10, in_channels=3):
    """Network in Network for CIFAR-10: three mlpconv layers. Images of 6x6 and larger; 32x32 is the standard."""
    return NiN("cifar10", classes, in_channels, min_size=6)


@register(_spec(params=7595176, macs=969460864, classes=1000, input_shape=(3, 224, 224), learning_rate=0.01))
def nin_imagenet(classes=1000, in_channels=3):
    """Network in Network for ImageNet: four mlpconv layers. Images of 67x67 and larger; 224x224 is the standard."""
    return NiN("imagenet", classes, in_channels, min_size=67)
