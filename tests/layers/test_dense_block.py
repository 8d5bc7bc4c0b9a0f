"""Dense layer, dense block and transition, against NumPy."""
from gluonzoo.errors import UserError
from gluonzoo.layers import DenseBlock, DenseLayer, DenseTransition
from gluonzoo.summary import count_parameters

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import nn


def randomised(block, seed=1):
    mx.random.seed(seed)
    block.initialize()
    for name, parameter in block.collect_params().items():
        if not name.endswith("weight"):
            parameter.set_data(mx.nd.random.uniform(0.5, 1.5, parameter.shape))
    return block


def norm_relu(norm, x):
    gamma, beta, mean, var = (p.data().asnumpy()[:, None, None]
                              for p in (norm.gamma, norm.beta, norm.running_mean, norm.running_var))
    return np.maximum((x - mean) / np.sqrt(var + 1e-5) * gamma + beta, 0)


def convolved(convolution, x):
    """At stride 1, padded by half of the kernel."""
    weight = convolution.weight.data().asnumpy()
    half = weight.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (half, half), (half, half)))
    return sum(np.einsum("nchw,kc->nkhw", padded[:, :, i:i + x.shape[2], j:j + x.shape[3]], weight[:, :, i, j])
               for i in range(weight.shape[2]) for j in range(weight.shape[3]))


def normed_convolution(block, x):
    return convolved(block.conv, norm_relu(block.norm, x))


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("hybrid", [False, True])
def test_dense_layer(bottleneck, hybrid):
    layer = randomised(DenseLayer(5, 3, bottleneck))
    layer.hybridize(hybrid)
    x = np.random.RandomState(0).normal(size=(2, 5, 4, 6)).astype("float32")
    y = layer(mx.nd.array(x)).asnumpy()
    between = normed_convolution(layer.conv1x1, x) if bottleneck else x
    assert between.shape[1] == (12 if bottleneck else 5)
    np.testing.assert_array_equal(y[:, :5], x)
    np.testing.assert_allclose(y[:, 5:], normed_convolution(layer.conv3x3, between), rtol=1e-4, atol=1e-4)


def test_every_layer_of_a_block_sees_all_before_it():
    block = randomised(DenseBlock(3, 6, 4))
    x = mx.nd.random.normal(shape=(1, 6, 5, 5))
    y = block(x).asnumpy()
    assert y.shape == (1, 18, 5, 5)
    for index, layer in enumerate(block):
        seen = 6 + 4 * index
        assert layer.conv1x1.conv.weight.shape == (16, seen, 1, 1)
        np.testing.assert_array_equal(layer(mx.nd.array(y[:, :seen])).asnumpy(), y[:, :seen + 4])


def test_parameters_of_a_block_by_hand():
    # Per layer with c channels before it: BN 2c, 1x1 conv 48c, BN 96, 3x3 conv 9 x 48 x 12; c = 24 and 36.
    assert count_parameters(DenseBlock(2, 24, 12)) == 50 * (24 + 36) + 2 * (96 + 9 * 48 * 12)
    assert count_parameters(DenseBlock(2, 24, 12, bottleneck=False)) == (2 + 9 * 12) * (24 + 36)


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_transition(size):
    transition = randomised(DenseTransition(6, 3))
    x = np.random.RandomState(0).normal(size=(2, 6) + size).astype("float32")
    full = normed_convolution(transition.conv1x1, x)[:, :, :size[0] // 2 * 2, :size[1] // 2 * 2]
    expected = (full[:, :, ::2, ::2] + full[:, :, 1::2, ::2] + full[:, :, ::2, 1::2] + full[:, :, 1::2, 1::2]) / 4
    np.testing.assert_allclose(transition(mx.nd.array(x)).asnumpy(), expected, rtol=1e-4, atol=1e-4)


def dropouts(block):
    found = []
    block.apply(lambda child: found.append(child) if isinstance(child, nn.Dropout) else None)
    return found


def test_dropout_follows_every_convolution():
    assert not dropouts(DenseBlock(2, 8, 4))
    assert [layer._rate for layer in dropouts(DenseBlock(2, 8, 4, dropout=0.2))] == [0.2] * 4
    assert len(dropouts(DenseBlock(2, 8, 4, bottleneck=False, dropout=0.2))) == 2
    assert len(dropouts(DenseTransition(8, 4, dropout=0.2))) == 1


def test_dropout_spares_what_is_handed_on():
    layer = randomised(DenseLayer(8, 16, dropout=0.5))
    x = mx.nd.random.normal(shape=(1, 8, 9, 9))
    with autograd.train_mode():
        y = layer(x).asnumpy()
    np.testing.assert_array_equal(y[:, :8], x.asnumpy())
    assert np.mean(y[:, 8:] == 0) == pytest.approx(0.5, abs=0.1)
    with pytest.raises(UserError, match="dropout is 1"):
        DenseLayer(8, 16, dropout=1)


def test_initial_weights_are_hes():
    block = DenseBlock(1, 512, 64)
    block.initialize()
    layer = block[0]
    assert layer.conv1x1.conv.weight.data().asnumpy().std() == pytest.approx(np.sqrt(2 / 512), rel=0.02)
    assert layer.conv3x3.conv.weight.data().asnumpy().std() == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.02)
    assert not any(name.endswith("bias") for name in block.collect_params())
