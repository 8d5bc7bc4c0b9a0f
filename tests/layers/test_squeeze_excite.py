"""The squeeze-and-excitation block, against NumPy."""
from gluonzoo.errors import UserError
from gluonzoo.layers import SqueezeExcite

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd


def randomised(block, seed=3):
    mx.random.seed(seed)
    block.initialize()
    for parameter in block.collect_params().values():
        parameter.set_data(mx.nd.random.normal(0, 0.5, parameter.shape))
    return block


def excited(block, x):
    """The block's output, and its gates."""
    reduce, expand = ((layer.weight.data().asnumpy()[:, :, 0, 0], layer.bias.data().asnumpy())
                      for layer in (block.reduce, block.expand))
    hidden = np.maximum(x.mean(axis=(2, 3)) @ reduce[0].T + reduce[1], 0)
    gates = 1 / (1 + np.exp(-(hidden @ expand[0].T + expand[1])))
    return x * gates[:, :, None, None], gates


@pytest.mark.parametrize("channels, reduction, size", [(32, 16, (5, 4)), (6, 3, (1, 1)), (7, 2, (3, 8)), (4, 4, (2, 2))])
@pytest.mark.parametrize("hybrid", [False, True])
def test_values(channels, reduction, size, hybrid):
    block = randomised(SqueezeExcite(channels, reduction))
    block.hybridize(hybrid)
    x = mx.nd.random.normal(1, 1, shape=(3, channels) + size)
    expected, gates = excited(block, x.asnumpy().astype("float64"))
    assert gates.std() > 0.01
    np.testing.assert_allclose(block(x).asnumpy(), expected, rtol=1e-4, atol=1e-5)


def test_gradient_of_the_input():
    block = randomised(SqueezeExcite(8, 2))
    x = mx.nd.random.normal(1, 1, shape=(2, 8, 3, 3))
    x.attach_grad()
    weights = np.random.RandomState(0).normal(size=x.shape)
    with autograd.record():
        y = block(x)
    y.backward(mx.nd.array(weights))
    value, step = x.asnumpy().astype("float64"), 1e-4
    for index in ((0, 0, 0, 0), (1, 3, 2, 1), (0, 7, 1, 2)):
        moved = value.copy()
        moved[index] += step
        slope = ((excited(block, moved)[0] - excited(block, value)[0]) * weights).sum() / step
        assert abs(x.grad[index].asscalar() - slope) < 1e-2 * max(1, abs(slope))


def test_parameters_of_the_paper():
    block = SqueezeExcite(256)
    shapes = {name: parameter.shape for name, parameter in block._collect_params_with_prefix().items()}
    assert shapes == {"reduce.weight": (16, 256, 1, 1), "reduce.bias": (16,),
                      "expand.weight": (256, 16, 1, 1), "expand.bias": (256,)}
    block.initialize()
    assert not block.reduce.bias.data().asnumpy().any()
    assert abs(block.expand.weight.data().asnumpy().std() / np.sqrt(2 / 16) - 1) < 0.1


@pytest.mark.parametrize("channels, reduction, message", [
    (15, 16, "15 channels with reduction 16"), (0, 16, "channels is 0"), (32, 0, "reduction is 0"),
    (32, 2.5, "reduction is 2.5")])
def test_bad_arguments(channels, reduction, message):
    with pytest.raises(UserError, match=message):
        SqueezeExcite(channels, reduction)
