"""Binary convolutions: values and straight-through gradients against NumPy."""
import json

from gluonzoo.layers import BinaryConv2D, BinaryWeightConv2D, binarize, sign
from gluonzoo.summary import count_macs

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from mxnet.gluon import nn


def convolve(x, weight, strides, padding):
    """Plain convolution, window by window."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    channels, _, high, wide = weight.shape
    rows, columns = (x.shape[2] - high) // strides + 1, (x.shape[3] - wide) // strides + 1
    y = np.zeros((x.shape[0], channels, rows, columns))
    for row in range(rows):
        for column in range(columns):
            window = x[:, :, row * strides:row * strides + high, column * strides:column * strides + wide]
            y[:, :, row, column] = np.tensordot(window, weight, axes=([1, 2, 3], [1, 2, 3]))
    return y


def scaled_signs(weight):
    return np.abs(weight).mean(axis=(1, 2, 3), keepdims=True) * np.sign(weight)


def filled(block, seed=0):
    """The block with weights on both sides of -1 and 1, and with a bias."""
    block.initialize()
    random = np.random.RandomState(seed)
    for parameter in block.collect_params().values():
        parameter.set_data(mx.nd.array(random.randn(*parameter.shape)))
    return block


@pytest.mark.parametrize("F", [mx.nd, mx.sym])
def test_sign_and_its_gradient(F):
    values = mx.nd.array([-3, -1, -0.5, 0, 0.25, 1, 1.5])
    gradient = mx.nd.zeros(7)
    if F is mx.nd:
        values.attach_grad()
        with autograd.record():
            y = sign(mx.nd, values)
        y.backward(mx.nd.arange(1, 8))
        gradient = values.grad
    else:
        executor = sign(mx.sym, mx.sym.var("x")).bind(mx.cpu(), {"x": values}, {"x": gradient})
        y = executor.forward(is_train=True)[0]
        executor.backward(mx.nd.arange(1, 8))
    assert y.asnumpy().tolist() == [-1, -1, -1, 0, 1, 1, 1]
    assert gradient.asnumpy().tolist() == [0, 2, 3, 4, 5, 6, 0]


def test_binarize_by_hand():
    weight = mx.nd.array([[[[0.5, -1.5]], [[2, 0]]], [[[-1, 1]], [[-1, 0.2]]]])
    weight.attach_grad()
    with autograd.record():
        y = binarize(mx.nd, weight, 4)
    assert y.asnumpy().tolist() == np.array(
        [[[[1, -1]], [[1, 0]]], [[[-0.8, 0.8]], [[-0.8, 0.8]]]], "float32").tolist()
    y.backward(mx.nd.ones((2, 2, 1, 2)))
    # 1 / n = 0.25 everywhere, and alpha (1 and 0.8) where |W| <= 1.
    np.testing.assert_allclose(weight.grad.asnumpy(), [[[[1.25, 0.25]], [[0.25, 1.25]]], [[[1.05, 1.05]], [[1.05, 1.05]]]],
                               rtol=1e-6)


def test_binarize_has_the_papers_gradient():
    random = np.random.RandomState(2)
    weight = mx.nd.array(random.randn(5, 3, 3, 3))
    outer = random.randn(5, 3, 3, 3).astype("float32")
    weight.attach_grad()
    with autograd.record():
        y = binarize(mx.nd, weight, 27)
    y.backward(mx.nd.array(outer))
    w = weight.asnumpy()
    alpha = np.abs(w).mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(weight.grad.asnumpy(), outer * (1 / 27 + alpha * (np.abs(w) <= 1)), rtol=1e-5)
    assert (np.abs(w) > 1).any() and all(len(np.unique(np.abs(one))) == 1 for one in y.asnumpy())


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("strides, padding", [(1, 1), (2, 0), (2, 1)])
def test_binary_weights(strides, padding, hybrid):
    block = filled(BinaryWeightConv2D(3, 4, 3, strides, padding, use_bias=True))
    block.hybridize(hybrid)
    x = mx.nd.random.normal(shape=(2, 3, 6, 7))
    expected = convolve(x.asnumpy(), scaled_signs(block.weight.data().asnumpy()), strides, padding)
    expected += block.bias.data().asnumpy().reshape((1, -1, 1, 1))
    np.testing.assert_allclose(block(x).asnumpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("input_scale", [False, True])
@pytest.mark.parametrize("strides, padding", [(1, 1), (2, 0)])
def test_binary_inputs(strides, padding, input_scale, use_bias, hybrid):
    block = filled(BinaryConv2D(3, 4, 3, strides, padding, use_bias=use_bias, input_scale=input_scale))
    block.hybridize(hybrid)
    data = mx.nd.random.normal(shape=(2, 3, 6, 7))
    x = data.asnumpy()
    expected = convolve(np.sign(x), scaled_signs(block.weight.data().asnumpy()), strides, padding)
    if input_scale:  # K of equation 11: the channels' mean, averaged over the window.
        expected *= convolve(np.abs(x).mean(axis=1, keepdims=True), np.full((1, 1, 3, 3), 1 / 9), strides, padding)
    else:
        np.testing.assert_array_equal(block(7 * data).asnumpy(), block(data).asnumpy())
    if use_bias:
        expected += block.bias.data().asnumpy().reshape((1, -1, 1, 1))
    np.testing.assert_allclose(block(data).asnumpy(), expected, rtol=1e-4, atol=1e-5)


def test_gradients_pass_straight_through():
    """Those of a plain convolution of the binary values, masked and scaled."""
    block = filled(BinaryConv2D(3, 4, 3, 2, 1))
    data = mx.nd.random.normal(shape=(2, 3, 7, 7))
    outer = mx.nd.random.normal(shape=(2, 4, 4, 4))
    w = block.weight.data().asnumpy()
    signs, kernels = mx.nd.sign(data), mx.nd.array(scaled_signs(w))
    for array in (data, signs, kernels):
        array.attach_grad()
    with autograd.record():
        y = block(data)
    y.backward(outer)
    with autograd.record():
        plain = mx.nd.Convolution(signs, kernels, kernel=(3, 3), stride=(2, 2), pad=(1, 1), num_filter=4, no_bias=True)
    plain.backward(outer)
    np.testing.assert_allclose(y.asnumpy(), plain.asnumpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.grad.asnumpy(), signs.grad.asnumpy() * (np.abs(data.asnumpy()) <= 1), rtol=1e-4, atol=1e-6)
    alpha = np.abs(w).mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(block.weight.grad().asnumpy(), kernels.grad.asnumpy() * (1 / 27 + alpha * (np.abs(w) <= 1)),
                               rtol=1e-4, atol=1e-5)


def test_the_input_scale_has_a_gradient_too():
    block = filled(BinaryConv2D(2, 1, 1, input_scale=True))
    data = mx.nd.array([[[[2]], [[-4]]]])
    data.attach_grad()
    with autograd.record():
        y = block(data)
    y.backward()
    response = float((scaled_signs(block.weight.data().asnumpy()) * [[[[1]], [[-1]]]]).sum())
    assert y.asnumpy().item() == pytest.approx(3 * response)
    # Both inputs are beyond 1: only K = (|2| + |-4|) / 2 moves.
    np.testing.assert_allclose(data.grad.asnumpy().ravel(), [response / 2, -response / 2], rtol=1e-5)


def test_multiply_adds_are_counted_once():
    for block in (BinaryWeightConv2D(16, 32, 3, 2, 1), BinaryConv2D(16, 32, 3, 2, 1, use_bias=True),
                  BinaryConv2D(16, 32, 3, 2, 1, input_scale=True)):
        assert count_macs(block, (16, 10, 8)) == 32 * 5 * 4 * 16 * 9


def test_initial_weights():
    mx.random.seed(3)
    block = BinaryConv2D(64, 128, 3)
    block.initialize()
    weight = block.weight.data().asnumpy()
    assert weight.std() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02) and abs(weight.mean()) < 1e-3
    assert block.bias is None


@pytest.mark.filterwarnings("ignore:Cannot decide type")
def test_export(tmp_path):
    net = nn.HybridSequential()
    net.add(nn.BatchNorm(in_channels=3), BinaryConv2D(3, 5, 3, 1, 1, use_bias=True, input_scale=True),
            BinaryWeightConv2D(5, 4, 1))
    net.initialize()
    net.hybridize()
    x = mx.nd.random.normal(shape=(2, 3, 6, 6))
    expected = net(x).asnumpy()
    net.export(str(tmp_path / "net"))
    with open(tmp_path / "net-symbol.json") as file:
        assert "Custom" not in {node["op"] for node in json.load(file)["nodes"]}
    imported = gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params"))
    np.testing.assert_array_equal(imported(x).asnumpy(), expected)


def test_learns_the_signs_of_a_filter():
    mx.random.seed(11)
    target, block = BinaryWeightConv2D(4, 1, 3), BinaryWeightConv2D(4, 1, 3)
    for one in (target, block):
        one.initialize()
    trainer = gluon.Trainer(block.collect_params(), "adam", {"learning_rate": 0.02})
    before = (np.sign(block.weight.data().asnumpy()) == np.sign(target.weight.data().asnumpy())).mean()
    for _ in range(150):
        x = mx.nd.random.normal(shape=(16, 4, 6, 6))
        with autograd.record():
            loss = (block(x) - target(x)).square().mean()
        loss.backward()
        trainer.step(1)
    after = (np.sign(block.weight.data().asnumpy()) == np.sign(target.weight.data().asnumpy())).mean()
    assert before < 0.8 and after == 1


@pytest.mark.parametrize("block", [BinaryWeightConv2D, BinaryConv2D])
def test_bad_arguments(block):
    with pytest.raises(ValueError, match="in_channels is 0"):
        block(0, 4, 3)
    with pytest.raises(ValueError, match="channels is 2.5"):
        block(4, 2.5, 3)
    with pytest.raises(TypeError, match="groups"):
        block(4, 4, 3, groups=2)
