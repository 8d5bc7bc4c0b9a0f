"""GoogLeNet: nine Inception modules, no dense layer but the last, and two auxiliary classifiers in the middle.

Source: C. Szegedy et al., Going Deeper with Convolutions, 2014, arXiv:1409.4842, table 1, figure 3 and section 5 (the
auxiliary heads). What they leave open is as in BVLC/caffe, models/bvlc_googlenet (a replication, not the authors'
files): pooling that rounds sizes up, local response normalisation over 5 channels (alpha 1e-4, beta 0.75, k 1), uniform
weights of variance 1 / fan_in, biases that start at 0.2.
- `googlenet`: the paper's. Convolutions have biases, nothing is batch-normalised, the third branch has 5x5 convolutions.
- `googlenet_bn`: torchvision's variant: BatchNorm (epsilon 1e-3) instead of biases and of local response normalisation,
  3x3 convolutions where the paper has 5x5, 2x2 instead of 3x3 in the last max pooling, dropout of 0.2 instead of 0.4,
  truncated normal weights of 0.01, and in the auxiliary heads four by four averages over windows that adapt to the map
  (MXNet's exporter to ONNX does not know them). GluonCV's googlenet is this network too, without auxiliary heads.

With `aux=True` the network returns (output, aux1, aux2), aux1 after module 4a and aux2 after 4d, in every mode; the paper
adds their losses with a weight of 0.3. The paper's heads average 5x5 pixels every 3 and end in dense layers for maps of
4x4, so `googlenet(aux=True)` takes 224x224 images only. The heads of `googlenet_bn` take maps of any size.

The paper's network starts slowly, as nothing normalises it: on 64-pixel CIFAR images SGD at 0.01 (Caffe's rate) stays at
chance for the first hundred steps, where Adam at 3e-4 already learns.

Modules are named by stage and letter: the paper's inception (3a) is `features.inception3.a`. A stage begins with the max
pooling that leads to its resolution.
"""
import functools

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..layers import LRN, ConvNorm, GlobalAveragePool, Network, Stages, TruncatedNormal, check_flag
from ..layers.inception import conv_chain, inception_stage, max_pool
from ..registry import ModelSpec, register

__all__ = ["GoogLeNet", "GoogLeNetHead", "googlenet", "googlenet_bn"]

#: Table 1: stage -> module -> (1x1, (3x3 reduce, 3x3), (5x5 reduce, 5x5), pool proj).
CONFIGURATION = {
    "inception3": {"a": (64, (96, 128), (16, 32), 32),
                   "b": (128, (128, 192), (32, 96), 64)},
    "inception4": {"a": (192, (96, 208), (16, 48), 64),
                   "b": (160, (112, 224), (24, 64), 64),
                   "c": (128, (128, 256), (24, 64), 64),
                   "d": (112, (144, 288), (32, 64), 64),
                   "e": (256, (160, 320), (32, 128), 128)},
    "inception5": {"a": (256, (160, 320), (32, 128), 128),
                   "b": (384, (192, 384), (48, 128), 128)},
}

#: Variance 1 / fan_in, uniform: Caffe's "xavier" filler.
XAVIER = mx.init.Xavier("uniform", factor_type="in", magnitude=3)


def make_branches(widths, kernel_size):
    """A row of the table as the branches of an `Inception` module; `kernel_size` is the third branch's."""
    single, (reduce3, wide3), (reduce5, wide5), pool = widths
    return {"branch1x1": [(single, 1)],
            "branch3x3": [(reduce3, 1), (wide3, 3)],
            "branch5x5": [(reduce5, 1), (wide5, kernel_size)],
            "branch_pool": [max_pool, (pool, 1)]}


class ConvRelu(HybridBlock):
    """Convolution with bias, then ReLU.

    Shape: (N, in_channels, H, W) -> (N, channels, ceil(H / strides), ceil(W / strides)) with the default padding.
    """

    def __init__(self, in_channels, channels, kernel_size, strides=1, padding=None, prefix=None):
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.conv = nn.Conv2D(channels, kernel_size, strides, in_channels=in_channels,
                                  padding=kernel_size // 2 if padding is None else padding,
                                  weight_initializer=XAVIER, bias_initializer=mx.init.Constant(0.2))

    def hybrid_forward(self, F, x):
        return F.Activation(self.conv(x), act_type="relu")


class AdaptiveAveragePool(HybridBlock):
    """Averages over 4x4 windows that adapt to the map.

    Shape: (N, C, H, W) -> (N, C, 4, 4).
    """

    def hybrid_forward(self, F, x):
        return F.contrib.AdaptiveAvgPooling2D(x, output_size=(4, 4))


class GoogLeNetHead(HybridBlock):
    """An auxiliary classifier: a pooling to 4x4 pixels, a 1x1 convolution, two dense layers.

    Args:
        pool: block that makes maps of 4x4.
        unit: makes the convolution, as for `layers.Inception`.
        weight: initialiser of the dense layers' weights; `bias`: of the first one's biases.
    Shape: (N, in_channels, H, W) -> (N, classes), logits.
    """

    def __init__(self, in_channels, classes, pool, unit, weight, bias, prefix=None):
        super().__init__(prefix=prefix)
        self._weight = weight
        with self.name_scope():
            self.pool = pool                                                                # N x in_channels x 4 x 4
            self.conv = unit(in_channels, 128, 1, prefix="conv_")                           # N x 128 x 4 x 4
            self.dense = nn.Dense(1024, activation="relu", in_units=128 * 4 * 4,            # N x 1024
                                  weight_initializer=weight, bias_initializer=bias)
            self.dropout = nn.Dropout(0.7)
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=1024, weight_initializer=self._weight, prefix="output_")

    def hybrid_forward(self, F, x):
        return self.output(self.dropout(self.dense(self.conv(self.pool(x)))))


class GoogLeNet(Network):
    """GoogLeNet, the paper's or with BatchNorm. Takes images of any size from `min_size`; 224x224 is the standard.

    Args:
        aux: whether there are auxiliary heads; without BatchNorm the images must then be 224x224.
        batch_norm: whether it is torchvision's variant.
    Shape: (N, in_channels, H, W) -> (N, classes), logits; with `aux` three of them, named output, aux1, aux2.
    """

    def __init__(self, classes=1000, in_channels=3, aux=False, batch_norm=False):
        check_flag(aux=aux, batch_norm=batch_norm)
        # No pooling may be larger than its map: 47 -> 24 -> 12 -> 6 -> 3 -> 1; a last one of 2x2: 31 -> 16 -> 8 -> 4 -> 2 -> 1.
        smallest = 31 if batch_norm else 47
        fixed = aux and not batch_norm
        super().__init__(classes, in_channels, min_size=(224, 224) if fixed else (smallest, smallest), fixed_size=fixed)
        self._weight = TruncatedNormal(0.01) if batch_norm else XAVIER
        unit = functools.partial(ConvNorm, epsilon=1e-3, weight_initializer=self._weight) if batch_norm else ConvRelu
        pool = functools.partial(nn.MaxPool2D, 3, 2, ceil_mode=True)
        pools = {"inception4": pool, "inception5": functools.partial(nn.MaxPool2D, 2 if batch_norm else 3, 2, ceil_mode=True)}
        norm = [] if batch_norm else [functools.partial(LRN, 5, 1e-4, 0.75, k=1, average=True)]
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 3 x 224 x 224
                # 64 x 112 x 112, 64 x 56 x 56, 192 x 56 x 56, 192 x 28 x 28
                steps = [(64, 7, 2), pool] + norm + [(64, 1), (192, 3)] + norm + [pool]
                self.features.stem, channels = conv_chain(in_channels, steps, unit, prefix="stem_")
                for stage, rows in CONFIGURATION.items():  # 480 x 28 x 28, 832 x 14 x 14, 1024 x 7 x 7
                    modules = {"pool": pools[stage]} if stage in pools else {}
                    modules.update((name, make_branches(row, 3 if batch_norm else 5)) for name, row in rows.items())
                    block, channels = inception_stage(channels, modules, unit, prefix=f"{stage}_")
                    setattr(self.features, stage, block)
            self.pool = GlobalAveragePool()                                                 # N x 1024
            self.dropout = nn.Dropout(0.2 if batch_norm else 0.4)
            self.output = self.make_output(classes)
            if aux:
                self._add_heads(classes, unit, batch_norm)

    def _add_heads(self, classes, unit, batch_norm):
        """Set `aux1` and `aux2`."""
        bias = "zeros" if batch_norm else mx.init.Constant(0.2)
        for name, tap in (("aux1", "a"), ("aux2", "d")):
            pool = AdaptiveAveragePool() if batch_norm else nn.AvgPool2D(5, 3)
            channels = getattr(self.features.inception4, tap).channels
            setattr(self, name, GoogLeNetHead(channels, classes, pool, unit, self._weight, bias, prefix=f"{name}_"))
        self.name_auxiliary("aux1", "aux2")

    def make_output(self, classes):
        return nn.Dense(classes, in_units=1024, weight_initializer=self._weight, prefix="output_")

    def hybrid_forward(self, F, x):
        if not self.auxiliary:
            return self.output(self.dropout(self.pool(self.features(x))))
        x = self.features.inception3(self.features.stem(x))
        maps = {}
        for name, module in self.features.inception4._children.items():
            x = maps[name] = module(x)
        x = self.pool(self.features.inception5(x))
        return [self.output(self.dropout(x)), self.aux1(maps["a"]), self.aux2(maps["d"])]


_spec = functools.partial(
    ModelSpec, task="classification", family="Inception", year=2014, classes=1000, input_shape=(3, 224, 224),
    paper="Going Deeper with Convolutions", link="arXiv:1409.4842")


@register(_spec(params=6998552, macs=1582671872, learning_rate=0.01))
def googlenet(classes=1000, in_channels=3, aux=False):
    """GoogLeNet as in the paper; with `aux=True` (13,378,280 parameters) images must be 224x224."""
    return GoogLeNet(classes, in_channels, aux)


@register(_spec(params=6624904, macs=1498376192))
def googlenet_bn(classes=1000, in_channels=3, aux=False):
    """GoogLeNet with BatchNorm, torchvision's; with `aux=True` 13,004,888 parameters."""
    return GoogLeNet(classes, in_channels, aux, batch_norm=True)
