"""What MXNet's 8-bit operators get wrong, and the graphs that are made for them put right; by hand where a sum can be."""
from gluonzoo.export import ExportError, quantize
from gluonzoo.export.quantize_mxnet import in_8_bits, quantized_weight, real_weight

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn


class Sum(mx.gluon.HybridBlock):
    """Values of channels 0 to 7 and of 8 to 15, each through a 1x1 convolution that only copies, added up in some way."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        with self.name_scope():
            self.a, self.b, self.again = (nn.Conv2D(16, 1, in_channels=16, use_bias=bias) for bias in (False, True, False))
        self.initialize()
        for layer, begin in ((self.a, 0), (self.b, 8), (self.again, 0)):
            weight = np.zeros((16, 16, 1, 1), np.float32)
            for channel in range(8):
                weight[channel, begin + channel] = 1
            layer.weight.set_data(mx.nd.array(weight))

    def hybrid_forward(self, F, x):
        return self.again(self.how(F, self.a(x), self.b(x), x))


def relu(F, x):
    return F.Activation(x, act_type="relu")


#: (as a network, in NumPy)
SUMS = {
    "signed, with ReLU": (lambda F, a, b, x: relu(F, a + b), lambda a, b: np.maximum(a + b, 0)),
    "signed, without": (lambda F, a, b, x: a + b, lambda a, b: a + b),
    "unsigned, with ReLU": (lambda F, a, b, x: relu(F, a + relu(F, b)), lambda a, b: np.maximum(a + np.maximum(b, 0), 0)),
    "unsigned, without": (lambda F, a, b, x: a + relu(F, b), lambda a, b: a + np.maximum(b, 0)),
    "two unsigned": (lambda F, a, b, x: relu(F, a) + relu(F, b), lambda a, b: np.maximum(a, 0) + np.maximum(b, 0)),
    "two unsigned, with ReLU": (lambda F, a, b, x: relu(F, relu(F, a) + relu(F, b)),
                                lambda a, b: np.maximum(a, 0) + np.maximum(b, 0)),
    "the input": (lambda F, a, b, x: relu(F, a + x), lambda a, b: np.maximum(2 * a, 0)),
    "not by a layer, with ReLU": (lambda F, a, b, x: relu(F, relu(F, a) + b * 0.5), lambda a, b: np.maximum(
        np.maximum(a, 0) + 0.5 * b, 0)),
    "not by a layer, without": (lambda F, a, b, x: relu(F, a) + b * 0.5, lambda a, b: np.maximum(a, 0) + 0.5 * b),
}


@pytest.mark.parametrize("kind", SUMS)
def test_sums_of_signed_and_unsigned_numbers(kind):
    network, by_hand = SUMS[kind]
    a, b = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9), indexing="ij")
    x = np.zeros((1, 16, 9, 9), np.float32)
    x[0, :8], x[0, 8:] = a, b
    result = quantize(Sum(network), x)
    expected = by_hand(a, b)
    # A step of the widest range, 2 in 127 or less, for each rounding on the way.
    np.testing.assert_allclose(result(mx.nd.array(x)).asnumpy()[0, 0], expected, atol=4 * 2 / 127)
    assert sum(in_8_bits(node) for node in result.int8.operators) == len(result.layers) >= 2


def test_what_mxnet_cannot_join_is_an_error():
    with pytest.raises(ExportError, match="MXNet cannot join"):
        quantize(Sum(lambda F, a, b, x: relu(F, a + b) + b), np.ones((1, 16, 2, 2), np.float32))


def test_the_shortcut_keeps_its_steps():
    """Shifted, not halved: a signed tensor in an unsigned sum is as exact as it was."""
    network, by_hand = SUMS["signed, with ReLU"]
    rng = np.random.RandomState(0)
    x = rng.uniform(-1, 1, (1, 16, 40, 40)).astype(np.float32)
    result = quantize(Sum(network), x)
    assert any(node.attrs.get("with_sum") for node in result.int8.operators)
    error = result(mx.nd.array(x)).asnumpy()[0, :8] - by_hand(x[0, :8], x[0, 8:])
    # Two inputs in steps of 1/127, and a sum twice in steps of at most 2/255: the roots of sums of step^2 / 12.
    assert np.sqrt(np.square(error).mean()) < 1.2 * np.sqrt((3 / 127 ** 2 + 2 * (2 / 255) ** 2) / 12)


def gain(block, net, x):
    a, b = (f(mx.nd.array(x)).asnumpy().ravel().astype(np.float64) for f in (net, block))
    return a @ b / (a @ a), np.sqrt(np.square(a - b).mean() / np.square(a).mean())


@pytest.mark.parametrize("layer", [lambda: nn.Conv2D(32, 3, in_channels=32), lambda: nn.Conv2D(32, 3, in_channels=32, groups=32),
                                   lambda: nn.Dense(32, in_units=32 * 64)])
def test_weights_have_no_gain(layer):
    """MXNet divides by 127.5 where the weights' scale is 127: 0.4 percent in each layer, 10 in SqueezeNet's 26."""
    mx.random.seed(0)
    net = nn.HybridSequential()
    net.add(layer())
    net.initialize(mx.init.Xavier())
    x = np.random.RandomState(0).uniform(0, 1, (64, 32, 8, 8)).astype(np.float32)
    ratio, error = gain(quantize(net, x), net, x)
    assert abs(ratio - 1) < 2e-3 and error < 0.015


def test_a_files_weights_are_the_blocks_to_the_bit():
    """A last bit turned some roundings: MobileNet's outputs then differed by a percent from those of its own file."""
    mx.random.seed(0)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(512, 1, in_channels=8), nn.Conv2D(8, 1, in_channels=512))
    net.initialize(mx.init.Xavier())
    result = quantize(net, np.ones((1, 8, 2, 2), np.float32))
    for name in ("0.weight", "1.weight"):
        value = result.int8.parameters[name]
        np.testing.assert_array_equal(real_weight(*quantized_weight(value)), value)


@pytest.mark.parametrize("kernel", [1, 3])
def test_grouped_convolutions(kernel):
    """MXNet takes the weights' scales of other channels; such layers run in float32, and are stored in 8 bits."""
    mx.random.seed(0)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(32, 1, in_channels=32), nn.Conv2D(64, kernel, padding=kernel // 2, in_channels=32, groups=4),
            nn.Conv2D(8, 1, in_channels=64))
    net.initialize(mx.init.Xavier())
    x = np.random.RandomState(0).uniform(0, 1, (4, 32, 8, 8)).astype(np.float32)
    result = quantize(net, x)
    assert result.excluded == () and sum(in_8_bits(node) for node in result.int8.operators) == 2
    ratio, error = gain(result, net, x)
    assert abs(ratio - 1) < 5e-3 and error < 0.03


def test_a_mean_over_the_map_is_not_rounded_to_the_maps_steps():
    class Mean(mx.gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.conv = nn.Conv2D(16, 1, in_channels=16, use_bias=False)
                self.output = nn.Dense(16, in_units=16, use_bias=False)

        def hybrid_forward(self, F, x):
            x = F.Activation(self.conv(x), act_type="relu")
            return self.output(F.Pooling(x, global_pool=True, pool_type="avg", kernel=(1, 1)))

    mx.random.seed(0)
    net = Mean()
    net.initialize(mx.init.Xavier())
    x = np.zeros((4, 16, 16, 16), np.float32)  # But for four pixels, so that a mean is some steps of the map's range.
    x[:, :, 3:5, 3:5] = np.random.RandomState(1).uniform(0.5, 1, (4, 16, 2, 2))
    result = quantize(net, x)
    assert not any(node.op == "_contrib_quantized_pooling" for node in result.int8.operators)
    assert gain(result, net, x)[1] < 0.03


@pytest.mark.parametrize("excluded", [(), ("first",)])
def test_layers_that_share_a_weight(excluded):
    class Twice(mx.gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.first = nn.Conv2D(16, 3, padding=1, in_channels=16)
                self.output = nn.Conv2D(4, 1, in_channels=16)

        def hybrid_forward(self, F, x):
            return self.output(relu(F, self.first(relu(F, self.first(x)))))

    mx.random.seed(0)
    net = Twice()
    net.initialize(mx.init.Xavier())
    x = np.random.RandomState(0).uniform(0, 1, (4, 16, 8, 8)).astype(np.float32)
    result = quantize(net, x, exclude=excluded)
    assert sum(in_8_bits(node) for node in result.int8.operators) == (1 if excluded else 3)
    ratio, error = gain(result, net, x)
    assert abs(ratio - 1) < 5e-3 and error < 0.03
