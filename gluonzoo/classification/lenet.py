"""LeNet-5 as its paper has it, as most people write it today, and as Caffe ships it.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-Based Learning Applied to Document Recognition,
Proc. IEEE 86(11), 1998, section II.B, figures 2 and 3, table I, appendices A and B.
Caffe's network: BVLC/caffe, examples/mnist/lenet.prototxt.

Differences from the paper
- `lenet5_1998`: the bitmaps of the output codes are redrawn after the idea of figure 3 (digits of 7x12 pixels, ink +1,
  paper -1); they are not the paper's, pixel by pixel. The output is minus the squared distance, see `RBFOutput`.
  C5 is written as a full connection, which it is at 32x32. Biases start at 0.
- `lenet5`: C3 sees all maps of S2, the pooling has no parameters and no squashing, the output is linear.
- `lenet_caffe`: 28x28 inputs, max pooling, a ReLU after the first dense layer only.
"""
import functools

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock, nn

from ..layers import DenseHeadNetwork, Stages
from ..registry import ModelSpec, register

__all__ = ["LeNet5", "LeNet5Paper", "LeNetCaffe", "ScaledTanh", "Subsampling", "SparseC3", "RBFOutput",
           "lenet5", "lenet5_1998", "lenet_caffe"]

#: Table I, by columns: the maps of S2 that each of the 16 maps of C3 sees, 60 in all.
C3_TABLE = ((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1),
            (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2),
            (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5))

#: The digits 0 to 9 side by side, 7 columns and 12 rows each.
BITMAPS = """
..###.. ...##.. .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
.#...#. ..###.. ##...## ##...## ...###. ##..... .##.... ##...## ##...## ##...##
##...## .####.. ##...## .....## ...###. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## ..####. ##..... ##..... ....##. ##...## ##...##
##...## ...##.. .....## .....## ..#.##. ##..... ##..... ....##. .##.##. ##...##
##...## ...##.. ....##. ..####. .##.##. ######. ######. ...##.. ..###.. .######
##...## ...##.. ...##.. .....## .#..##. .....## ##...## ...##.. .##.##. .....##
##...## ...##.. ..##... .....## ####### .....## ##...## ...##.. ##...## .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... ##...## ....##. .....## ##...## ..##... ##...## .....##
.#...#. ...##.. ##..... ##...## ....##. ##...## ##...## ..##... ##...## ....##.
..###.. .###### ####### .#####. ....##. .#####. .#####. ..##... .#####. .####..
"""


#: Variance 1 / fan_in, uniform: Caffe's "xavier" filler, and what LeCun et al., Efficient BackProp (1998), advise.
FAN_IN = mx.init.Xavier("uniform", factor_type="in", magnitude=3)


def paper_uniform(fan_in):
    """The paper's initialisation (appendix A): uniform between -2.4 / fan_in and 2.4 / fan_in."""
    return mx.init.Uniform(2.4 / fan_in)


class ScaledTanh(HybridBlock):
    """The paper's squashing function f(a) = 1.7159 tanh(2/3 a) (appendix A): f(1) = 1 and f(-1) = -1.

    Shape: any -> the same.
    """

    def hybrid_forward(self, F, x):
        return 1.7159 * F.Activation(x * (2.0 / 3.0), act_type="tanh")


class Subsampling(HybridBlock):
    """Trainable subsampling of layers S2 and S4: the sum of 2x2 inputs, times one coefficient a map, plus one bias.

    Written as the convolution that it is, of one input map each, whose four weights are the same coefficient.

    Shape: (N, channels, H, W) -> (N, channels, H / 2, W / 2), odd last rows and columns left out.
    """

    def __init__(self, channels):
        super().__init__()
        self._channels = channels
        with self.name_scope():
            # A unit has four inputs, which the initialisation below cannot see in the coefficient's shape.
            self.coefficient = self.params.get("coefficient", shape=(channels, 1, 1, 1), init=mx.init.Uniform(2.4 / 4))
            self.bias = self.params.get("bias", shape=(channels,), init="zeros")

    def hybrid_forward(self, F, x, coefficient, bias):
        weight = F.broadcast_axis(coefficient, axis=(2, 3), size=(2, 2))
        return F.Convolution(x, weight, bias, kernel=(2, 2), stride=(2, 2), num_filter=self._channels,
                             num_group=self._channels)


class SparseC3(HybridBlock):
    """Layer C3: 16 maps, each of 5x5 convolutions over the maps of S2 that table I gives it.

    Only existing connections have weights: 1,516 parameters with the biases, not 2,416. The 60 kernels are put into
    their places among zeros, where one dense convolution is far quicker than grouped ones.

    Shape: (N, 6, H, W) -> (N, 16, H - 4, W - 4).
    """
    #: Weights that exist, for `gluonzoo.summary`: the zeros are no connections.
    kernel_weights = 60 * 25

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.weight = self.params.get("weight", shape=(60, 5, 5), init=C3Uniform())
            self.bias = self.params.get("bias", shape=(16,), init="zeros")
            self.places = self.params.get("places", shape=(96,), init=C3Places(), grad_req="null")

    def hybrid_forward(self, F, x, weight, bias, places):
        zero = F.zeros_like(F.slice_axis(weight, axis=0, begin=0, end=1))
        kernels = F.take(F.concat(zero, weight, dim=0), places, axis=0)
        return F.Convolution(x, F.reshape(kernels, shape=(16, 6, 5, 5)), bias, kernel=(5, 5), num_filter=16)


@mx.init.register
class C3Uniform(mx.init.Initializer):
    """The paper's initialisation of C3's packed kernels, whose units have 75, 100 or 150 inputs."""

    def _init_weight(self, name, array):
        scale = mx.nd.array([2.4 / (25 * len(maps)) for maps in C3_TABLE for _ in maps], ctx=array.context)
        array[:] = mx.nd.random.uniform(-1, 1, array.shape, ctx=array.context) * scale.reshape((-1, 1, 1))


@mx.init.register
class C3Places(mx.init.Initializer):
    """For each of 16x6 kernels of C3 the number of its packed kernel, or 0 where there is no connection."""

    def _init_weight(self, name, array):
        places = np.zeros((16, 6), dtype="float32")
        packed = [(row, index) for row, maps in enumerate(C3_TABLE) for index in maps]
        for number, place in enumerate(packed, 1):
            places[place] = number
        array[:] = places.ravel()


class RBFOutput(HybridBlock):
    """Euclidean radial basis functions with fixed +-1 codes: minus the squared distance of x to each class's code.

    The paper's output is the squared distance, which the right class has smallest. With the sign turned round `argmax`
    gives the class, and softmax cross entropy is the paper's MAP criterion (equation 9) without its constant e^-j.
    The codes are parameters without gradient: saved, but not trained and not counted. Ten classes have the digits'
    bitmaps; any other number has random codes from a fixed seed, the paper's alternative.

    Shape: (N, 84) -> (N, classes).
    """

    def __init__(self, classes, prefix=None):
        super().__init__(prefix=prefix)
        self._classes = classes
        with self.name_scope():
            self.codes = self.params.get("codes", shape=(classes, 84), init=RBFCodes(), grad_req="null")

    def hybrid_forward(self, F, x, codes):
        product = F.FullyConnected(x, codes, num_hidden=self._classes, no_bias=True)
        lengths = F.expand_dims(F.sum(F.square(codes), axis=1), axis=0)
        return F.broadcast_sub(F.broadcast_sub(2 * product, F.sum(F.square(x), axis=1, keepdims=True)), lengths)

    def as_convolution(self, shape):
        """For `gluonzoo.to_fully_convolutional`: see `RBFMaps`."""
        return RBFMaps(self._classes), (self._classes,) + shape[1:]


class RBFMaps(RBFOutput):
    """`RBFOutput` at every pixel: the space displacement network of the paper's section VII.

    Shape: (N, 84, H, W) -> (N, classes, H, W).
    """

    def hybrid_forward(self, F, x, codes):
        kernel = F.reshape(codes, shape=(0, 0, 1, 1))
        product = F.Convolution(x, kernel, kernel=(1, 1), num_filter=self._classes, no_bias=True)
        lengths = F.expand_dims(F.sum(F.square(kernel), axis=1), axis=0)
        return F.broadcast_sub(F.broadcast_sub(2 * product, F.sum(F.square(x), axis=1, keepdims=True)), lengths)


@mx.init.register
class RBFCodes(mx.init.Initializer):
    """Fills (classes, 84) with the codes of `RBFOutput`; always the same for the same number of classes."""

    def _init_weight(self, name, array):
        if array.shape[0] == 10:
            rows = BITMAPS.split()
            codes = [[1 if pixel == "#" else -1 for row in rows[digit::10] for pixel in row] for digit in range(10)]
        else:
            codes = np.random.RandomState(1998).randint(2, size=array.shape) * 2 - 1
        array[:] = np.array(codes, dtype="float32")


def _squashed(layer):
    block = nn.HybridSequential()
    block.add(layer, ScaledTanh())
    return block


class LeNet5Paper(DenseHeadNetwork):
    """LeNet-5 as the paper has it: sparse C3, trainable subsampling, RBF output.

    The squared distances are of the order of 100, so the steps must be small: plain SGD with momentum 0.9 and softmax
    cross entropy trains with learning rates of 0.001 to 0.003.

    Shape: (N, in_channels, 32, 32) -> (N, classes), minus squared distances.
    """
    hidden = ("c5", "f6")

    def __init__(self, classes=10, in_channels=1):
        super().__init__(classes, in_channels, (32, 32))
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 1 x 32 x 32
                self.features.c1 = _squashed(nn.Conv2D(6, 5, in_channels=in_channels,       # N x 6 x 28 x 28
                                                       weight_initializer=paper_uniform(25 * in_channels)))
                self.features.s2 = _squashed(Subsampling(6))                                # N x 6 x 14 x 14
                self.features.c3 = _squashed(SparseC3())                                    # N x 16 x 10 x 10
                self.features.s4 = _squashed(Subsampling(16))                               # N x 16 x 5 x 5
            self.c5 = _squashed(nn.Dense(120, in_units=400, weight_initializer=paper_uniform(400)))
            self.f6 = _squashed(nn.Dense(84, in_units=120, weight_initializer=paper_uniform(120)))
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return RBFOutput(classes, prefix="output_")


class LeNet5(DenseHeadNetwork):
    """LeNet-5 as most people write it: C3 sees all maps, plain average pooling, linear output.

    The squashing function is the paper's, after every convolution and dense layer but the last. It trains best with
    variance-preserving weights (`FAN_IN`): the paper's own are made for its second-order step sizes.

    Shape: (N, in_channels, 32, 32) -> (N, classes), logits.
    """
    hidden = ("c5", "f6")

    def __init__(self, classes=10, in_channels=1):
        super().__init__(classes, in_channels, (32, 32))
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 1 x 32 x 32
                self.features.c1 = _squashed(nn.Conv2D(6, 5, in_channels=in_channels, weight_initializer=FAN_IN))
                self.features.s2 = nn.AvgPool2D(2)                                          # N x 6 x 14 x 14
                self.features.c3 = _squashed(nn.Conv2D(16, 5, in_channels=6, weight_initializer=FAN_IN))
                self.features.s4 = nn.AvgPool2D(2)                                          # N x 16 x 5 x 5
            self.c5 = _squashed(nn.Dense(120, in_units=400, weight_initializer=FAN_IN))
            self.f6 = _squashed(nn.Dense(84, in_units=120, weight_initializer=FAN_IN))
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=84, weight_initializer=FAN_IN, prefix="output_")


class LeNetCaffe(DenseHeadNetwork):
    """Caffe's LeNet: 20 and 50 maps, max pooling, 500 hidden units.

    Shape: (N, in_channels, 28, 28) -> (N, classes), logits.
    """
    hidden = ("ip1",)

    def __init__(self, classes=10, in_channels=1):
        super().__init__(classes, in_channels, (28, 28))
        with self.name_scope():
            self.features = Stages(prefix="features_")
            with self.features.name_scope():                                                # N x 1 x 28 x 28
                self.features.conv1 = nn.Conv2D(20, 5, in_channels=in_channels, weight_initializer=FAN_IN)
                self.features.pool1 = nn.MaxPool2D(2)                                       # N x 20 x 12 x 12
                self.features.conv2 = nn.Conv2D(50, 5, in_channels=20, weight_initializer=FAN_IN)
                self.features.pool2 = nn.MaxPool2D(2)                                       # N x 50 x 4 x 4
            self.ip1 = nn.Dense(500, activation="relu", in_units=800, weight_initializer=FAN_IN)
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=500, weight_initializer=FAN_IN, prefix="output_")


_spec = functools.partial(
    ModelSpec, task="classification", family="LeNet", year=1998, classes=10, input_shape=(1, 32, 32),
    paper="Gradient-Based Learning Applied to Document Recognition", link="Proc. IEEE 86(11)")


@register(_spec(params=61706, macs=416520))
def lenet5(classes=10, in_channels=1):
    """LeNet-5 with full C3, average pooling and a linear output; see `LeNet5`. 32x32 inputs."""
    return LeNet5(classes, in_channels)


@register(_spec(params=60000, macs=340908, counting="connections", learning_rate=0.002))
def lenet5_1998(classes=10, in_channels=1):
    """LeNet-5 as in the paper; see `LeNet5Paper`. 32x32 inputs."""
    return LeNet5Paper(classes, in_channels)


@register(_spec(params=431080, macs=2293000, input_shape=(1, 28, 28)))
def lenet_caffe(classes=10, in_channels=1):
    """Caffe's LeNet; see `LeNetCaffe`. 28x28 inputs."""
    return LeNetCaffe(classes, in_channels)
