"""The channel shuffle, against NumPy, and in a graph that is trained."""
from gluonzoo.errors import UserError
from gluonzoo.layers import ChannelShuffle, he_conv

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import HybridBlock


def test_order_by_hand():
    x = mx.nd.array(np.arange(6).reshape((1, 6, 1, 1)))
    assert ChannelShuffle(6, 2)(x).asnumpy().ravel().tolist() == [0, 3, 1, 4, 2, 5]
    assert ChannelShuffle(6, 3)(x).asnumpy().ravel().tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("channels, groups", [(12, 3), (12, 4), (12, 12), (40, 8)])
def test_values_and_gradient(channels, groups, hybrid):
    block = ChannelShuffle(channels, groups)
    block.hybridize(hybrid)
    for shape in ((2, channels, 3, 5), (3, channels, 1, 1)):  # The same block, other batches and sizes.
        x = mx.nd.random.normal(shape=shape)
        x.attach_grad()
        with autograd.record():
            y = block(x)
        rows = x.asnumpy().reshape((shape[0], groups, channels // groups) + shape[2:])
        np.testing.assert_array_equal(y.asnumpy(), rows.transpose((0, 2, 1, 3, 4)).reshape(shape))
        weights = mx.nd.random.normal(shape=shape)
        y.backward(weights)
        # Shuffling with the other number of groups is the way back.
        np.testing.assert_array_equal(x.grad.asnumpy(), ChannelShuffle(channels, channels // groups)(weights).asnumpy())


def test_one_group_stays():
    x = mx.nd.random.normal(shape=(2, 6, 3, 3))
    assert ChannelShuffle(6, 1)(x) is x


def test_shapes_are_inferred_for_any_size():
    symbol = ChannelShuffle(24, 3)(mx.sym.var("data"))
    for shape in ((1, 24, 7, 9), (5, 24, 28, 28)):
        assert symbol.infer_shape(data=shape)[1] == [shape]


class BetweenConvolutions(HybridBlock):
    """A shuffle whose output goes into two convolutions: its gradient is their sum, in oneDNN's own layout."""

    def __init__(self, channels, groups):
        super().__init__()
        self.before = he_conv(8, channels, 1)
        self.shuffle = ChannelShuffle(channels, groups)
        self.left, self.right = he_conv(channels, 16, 3), he_conv(channels, 16, 1)

    def hybrid_forward(self, F, x):
        x = self.shuffle(self.before(x))
        return F.elemwise_add(self.left(x), self.right(x))


@pytest.mark.parametrize("channels, groups", [(24, 3), (32, 2), (232, 2)])
def test_trains_between_convolutions(channels, groups):
    net = BetweenConvolutions(channels, groups)
    net.initialize()
    x, found = mx.nd.random.normal(shape=(2, 8, 6, 6)), []
    for hybrid in (False, True):
        net.hybridize(hybrid)
        with autograd.record():
            y = net(x).square().mean()
        y.backward()
        found.append([parameter.grad().asnumpy() for parameter in net.collect_params().values()])
    for eager, hybridized in zip(*found):
        assert np.abs(eager).max() > 0
        np.testing.assert_allclose(hybridized, eager, rtol=1e-4, atol=1e-5 * np.abs(eager).max())


@pytest.mark.parametrize("channels, groups, message", [
    (10, 3, "10 channels in 3 groups; expected a multiple"), (12, 0, "groups is 0"), (0, 1, "channels is 0"),
    (12, 2.0, "groups is 2.0")])
def test_bad_arguments(channels, groups, message):
    with pytest.raises(UserError, match=message):
        ChannelShuffle(channels, groups)
