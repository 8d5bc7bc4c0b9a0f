"""C.ReLU against NumPy: values, and the gradients of input, scale and shift."""
from gluonzoo.layers import CReLU
from gluonzoo.summary import count_parameters

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import nn


def test_values_by_hand():
    block = CReLU(2)
    block.initialize()
    x = mx.nd.array([[[[1, -2]], [[0, 3]]]])
    assert block(x).asnumpy().tolist() == [[[[1, 0]], [[0, 3]], [[0, 2]], [[0, 0]]]]
    assert not block.collect_params().keys()


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("channels", [3, 16, 24])
def test_scale_and_shift(channels, hybrid):
    block = CReLU(channels, scale=True)
    block.initialize()
    assert count_parameters(block) == 4 * channels
    assert set(block.scale.data().asnumpy().ravel()) == {1} and set(block.shift.data().asnumpy().ravel()) == {0}
    random = np.random.RandomState(channels)
    scale, shift = (random.randn(1, 2 * channels, 1, 1).astype("float32") for _ in range(2))
    block.scale.set_data(mx.nd.array(scale))
    block.shift.set_data(mx.nd.array(shift))
    block.hybridize(hybrid)
    x = random.randn(2, channels, 5, 4).astype("float32")
    data = mx.nd.array(x)
    data.attach_grad()
    with autograd.record():
        y = block(data)
    both = np.concatenate([x, -x], axis=1)
    before = both * scale + shift
    np.testing.assert_allclose(y.asnumpy(), np.maximum(before, 0), rtol=1e-6, atol=1e-6)
    weights = random.randn(*y.shape).astype("float32")
    y.backward(mx.nd.array(weights))
    passed = weights * (before > 0)
    np.testing.assert_allclose(block.shift.grad().asnumpy(), passed.sum((0, 2, 3), keepdims=True), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(block.scale.grad().asnumpy(), (passed * both).sum((0, 2, 3), keepdims=True),
                               rtol=1e-4, atol=1e-5)
    halves = passed * scale
    np.testing.assert_allclose(data.grad.asnumpy(), halves[:, :channels] - halves[:, channels:], rtol=1e-4, atol=1e-5)


def test_trains_between_convolutions():
    """What Concat alone cannot do in a hybridized network with such numbers of channels."""
    net = nn.HybridSequential()
    net.add(nn.Conv2D(24, 3, in_channels=3), CReLU(24), nn.Conv2D(8, 3, in_channels=48))
    net.initialize()
    net.hybridize()
    x = mx.nd.random.normal(shape=(2, 3, 9, 9))
    with autograd.record():
        loss = net(x).square().sum()
    loss.backward()
    assert all(np.abs(parameter.grad().asnumpy()).max() > 0 for parameter in net.collect_params().values())


@pytest.mark.parametrize("bad", [0, -1, 2.5, None])
def test_bad_channels(bad):
    with pytest.raises(ValueError, match="channels is"):
        CReLU(bad)
