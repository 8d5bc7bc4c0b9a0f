"""PReLU against NumPy, and its gradients where MXNet's own operator gets them wrong."""
from gluonzoo.errors import UserError
from gluonzoo.layers import PReLU

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from mxnet.gluon import nn


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (4, 5), (2, 5, 7)])
@pytest.mark.parametrize("hybrid", [False, True])
def test_values_and_gradients(shape, hybrid):
    block = PReLU(5, dims=len(shape) - 2)
    block.initialize()
    block.hybridize(hybrid)
    slopes = np.array([0.25, 0, 1, -0.5, 3], "float32")
    block.alpha.set_data(mx.nd.array(slopes))
    x, weight = (np.random.RandomState(seed).normal(size=shape).astype("float32") for seed in (1, 2))
    array = mx.nd.array(x)
    array.attach_grad()
    with autograd.record():
        y = block(array)
    y.backward(mx.nd.array(weight))
    broad = slopes.reshape((1, 5) + (1,) * (len(shape) - 2))
    np.testing.assert_allclose(y.asnumpy(), np.where(x > 0, x, broad * x), rtol=1e-6)
    np.testing.assert_allclose(array.grad.asnumpy(), weight * np.where(x > 0, 1, broad), rtol=1e-5, atol=1e-6)
    axes = (0,) + tuple(range(2, len(shape)))
    np.testing.assert_allclose(block.alpha.grad().asnumpy(), (weight * np.minimum(x, 0)).sum(axes), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("behind", [lambda: nn.MaxPool2D(2), lambda: nn.Dense(8, in_units=96 * 28 * 28),
                                    lambda: nn.Conv2D(8, 3, in_channels=96)])
def test_hybridized_gradients_between_other_layers(behind):
    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(96, 7, 2, 3, in_channels=3), PReLU(96), behind())
    net.initialize()
    x, found = mx.nd.random.normal(shape=(2, 3, 56, 56)), []
    weight = mx.nd.random.normal(shape=net(x).shape)
    for hybrid in (False, True):
        net.hybridize(hybrid)
        with autograd.record():
            y = net(x)
        y.backward(weight)
        found.append(net[1].alpha.grad().asnumpy())
    # Central difference of the first slope, in inference.
    slopes, sums = net[1].alpha.data().copy(), []
    for change in (0.01, -0.01):
        changed = slopes.copy()
        changed[0] += change
        net[1].alpha.set_data(changed)
        sums.append((net(x) * weight).asnumpy().astype("float64").sum())
    assert abs(found[0]).min() > 0
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-4 * abs(found[0]).max())
    np.testing.assert_allclose((sums[0] - sums[1]) / 0.02, found[0][0], rtol=0.05, atol=0.02 * abs(found[0]).max())


def test_slopes_start_and_decay():
    block = PReLU(3, slope=0.1)
    block.initialize()
    np.testing.assert_allclose(block.alpha.data().asnumpy(), 0.1)
    trainer = gluon.Trainer(block.collect_params(), "sgd", {"learning_rate": 1.0, "wd": 0.5}, kvstore=None)
    with autograd.record():
        y = block(mx.nd.ones((1, 3, 2, 2))).sum()
    y.backward()
    trainer.step(1)
    np.testing.assert_allclose(block.alpha.data().asnumpy(), 0.1)  # Nothing negative, so no gradient, and no decay.
    with pytest.raises(UserError, match="channels is 0"):
        PReLU(0)
