"""The mlpconv block against a multilayer perceptron that NumPy slides over the image."""
from gluonzoo.errors import UserError
from gluonzoo.layers import MLPConv

import mxnet as mx
import numpy as np
import pytest


def perceptron(block, x, kernel_size, strides, padding):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    rows, columns = ((length - kernel_size) // strides + 1 for length in x.shape[2:])
    layers = [(layer.weight.data().asnumpy(), layer.bias.data().asnumpy()) for layer in block._children.values()]
    out = np.empty((x.shape[0], layers[-1][0].shape[0], rows, columns))
    for row in range(rows):
        for column in range(columns):
            patch = x[:, :, row * strides:row * strides + kernel_size, column * strides:column * strides + kernel_size]
            values = patch.reshape(len(x), -1)
            for weight, bias in layers:
                values = np.maximum(values @ weight.reshape(len(weight), -1).T + bias, 0)
            out[:, :, row, column] = values
    return out


@pytest.mark.parametrize("channels, kernel_size, strides, padding", [
    ((6, 5, 4), 3, 1, None), ((4, 3), 5, 2, 0), ((5,), 1, 1, None), ((3, 4, 2, 3), 3, 2, 2)])
@pytest.mark.parametrize("hybrid", [False, True])
def test_is_a_sliding_perceptron(channels, kernel_size, strides, padding, hybrid):
    mx.random.seed(3)
    block = MLPConv(2, channels, kernel_size, strides, padding, mx.init.Normal(0.5))
    block.initialize()
    for parameter in block.collect_params().values():
        if parameter.name.endswith("bias"):
            parameter.set_data(mx.nd.random.normal(0, 0.5, parameter.shape))
    block.hybridize(hybrid)
    x = mx.nd.random.normal(shape=(2, 2, 9, 7))
    expected = perceptron(block, x.asnumpy(), kernel_size, strides, kernel_size // 2 if padding is None else padding)
    assert expected.max() > 0
    np.testing.assert_allclose(block(x).asnumpy(), expected, atol=1e-4)


def test_names_and_initial_weights():
    mx.random.seed(2)
    block = MLPConv(64, (100, 90, 80), 3, weight_initializer=[mx.init.Normal(0.1), mx.init.Normal(0.2), mx.init.One()])
    block.initialize()
    assert list(block._collect_params_with_prefix()) == [
        f"{layer}.{kind}" for layer in ("conv", "cccp1", "cccp2") for kind in ("weight", "bias")]
    assert abs(block.conv.weight.data().asnumpy().std() / 0.1 - 1) < 0.02
    assert abs(block.cccp1.weight.data().asnumpy().std() / 0.2 - 1) < 0.03
    assert (block.cccp2.weight.data().asnumpy() == 1).all() and not block.conv.bias.data().asnumpy().any()


def test_bad_arguments():
    with pytest.raises(UserError, match="channels is empty"):
        MLPConv(3, (), 3)
    with pytest.raises(UserError, match="2 initializers for 3 layers"):
        MLPConv(3, (4, 4, 4), 3, weight_initializer=[mx.init.One(), mx.init.One()])
