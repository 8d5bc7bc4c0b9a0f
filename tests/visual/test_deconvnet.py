"""The deconvnet against gradients and against unpooling, filters and scales worked out in NumPy."""
import gluonzoo
from gluonzoo.errors import UserError
from gluonzoo.layers import LRN, ConvNorm, MLPConv
from gluonzoo.visual import deconvnet, deconvnet_picture

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn


def chain(*layers):
    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(*layers)
    net.initialize(mx.init.Normal(0.5))
    return net


def image(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape).astype("float32")


def gradient(net, x, channel, position):
    """Of one value of the output by the input, times that value."""
    x = mx.nd.array(x[None])
    x.attach_grad()
    with mx.autograd.record(train_mode=False):
        value = net(x)[0, channel, position[0], position[1]]
    value.backward(train_mode=False)
    return x.grad.asnumpy()[0] * float(value.asscalar())


@pytest.mark.parametrize("layers, shape", [
    ([nn.Conv2D(4, 3, in_channels=2)], (2, 9, 9)),
    ([nn.Conv2D(4, 5, strides=2, padding=1, in_channels=2), nn.Conv2D(3, 2, in_channels=4)], (2, 12, 11)),
    ([nn.Conv2D(6, 3, groups=3, in_channels=3), nn.Conv2D(4, 3, groups=2, dilation=2, in_channels=6)], (3, 11, 12)),
    ([nn.Conv2D(4, (3, 1), strides=(2, 3), in_channels=2, use_bias=False), nn.Dropout(0.5)], (2, 9, 10)),
])
def test_of_a_linear_chain_it_is_the_gradient(layers, shape):
    net = chain(*layers)
    for layer in layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.set_data(mx.nd.array(image(layer.bias.shape[0], seed=5)))
    x = image(*shape)
    for found in deconvnet(net, x, str(len(layers) - 1), top=3):
        np.testing.assert_allclose(found.pixels, gradient(net, x, found.channel, found.position), rtol=1e-4, atol=1e-5)
        assert found.activation == net(mx.nd.array(x[None])).asnumpy()[0, found.channel].max()


def test_batchnorm_scales_by_what_it_has_learnt():
    net = chain(nn.Conv2D(3, 3, in_channels=2), nn.BatchNorm(in_channels=3), nn.Conv2D(2, 2, in_channels=3))
    norm = net[1]
    for parameter in (norm.gamma, norm.beta, norm.running_mean, norm.running_var):
        parameter.set_data(mx.nd.array(np.abs(image(3, seed=len(parameter.name))) + 0.5))
    x = image(2, 8, 8)
    found, = deconvnet(net, x, "2", channel=1)
    np.testing.assert_allclose(found.pixels, gradient(net, x, 1, found.position), rtol=1e-4, atol=1e-5)
    plain = chain(nn.BatchNorm(in_channels=2, scale=False, epsilon=0.5))
    plain[0].gamma.set_data(mx.nd.array([7, 7]))  # Not used: the layer was made without a scale.
    plain[0].running_var.set_data(mx.nd.array([3.5, 3.5]))
    found, = deconvnet(plain, x, "0", channel=0)
    np.testing.assert_allclose(found.pixels[0][found.position], found.activation / 2, rtol=1e-5)


def unpooled(x, size, strides, pad, ceil, channel, place, value):
    """The value at the maximum of its window, as pooling by hand finds it."""
    top, left = place[0] * strides - pad, place[1] * strides - pad
    window = {(row, column): x[channel, row, column] for row in range(max(top, 0), min(top + size, x.shape[1]))
              for column in range(max(left, 0), min(left + size, x.shape[2]))}
    out = np.zeros_like(x)
    out[(channel,) + max(window, key=window.get)] = value
    assert max(window.values()) == pytest.approx(value)
    return out


@pytest.mark.parametrize("size, strides, pad, ceil, shape", [
    (2, 2, 0, False, (2, 8, 8)), (3, 2, 0, False, (2, 9, 11)), (3, 2, 0, True, (3, 8, 8)), (3, 2, 1, False, (2, 8, 7)),
    (3, 1, 1, True, (2, 5, 5))])
def test_unpooling_puts_values_where_the_maximum_was(size, strides, pad, ceil, shape):
    net = chain(nn.MaxPool2D(size, strides, pad, ceil_mode=ceil))
    x = np.random.RandomState(3).permutation(int(np.prod(shape))).reshape(shape).astype("float32") + 1
    found = deconvnet(net, x, "0", top=shape[0])
    assert sorted(projection.channel for projection in found) == list(range(shape[0]))
    for projection in found:
        expected = unpooled(x, size, strides, pad, ceil, projection.channel, projection.position, projection.activation)
        np.testing.assert_array_equal(projection.pixels, expected)
        row, column = np.argwhere(expected[projection.channel])[0]
        assert projection.box == (row, column, row + 1, column + 1)


def test_where_windows_overlap_what_they_bring_back_is_added():
    # One value, the maximum of all four windows; the filter after it adds the four places up.
    net = chain(nn.MaxPool2D(3, 1), nn.Conv2D(1, 2, in_channels=1, use_bias=False))
    net[1].weight.set_data(mx.nd.array([[[[1, 2], [3, 4]]]]))
    x = np.zeros((1, 4, 4), "float32")
    x[0, 1, 2] = 5
    found, = deconvnet(net, x, "1")
    expected = np.zeros_like(x)
    expected[0, 1, 2] = 50 * (1 + 2 + 3 + 4)
    np.testing.assert_allclose(found.pixels, expected)


@pytest.mark.parametrize("relu", ["layer", "argument"])
def test_relu_lets_only_positive_signals_back(relu):
    layers = [nn.Conv2D(2, 1, in_channels=1, use_bias=False, activation="relu" if relu == "argument" else None)]
    layers += [nn.Activation("relu")] * (relu == "layer") + [nn.Conv2D(1, 1, in_channels=2, use_bias=False)]
    net = chain(*layers)
    net[0].weight.set_data(mx.nd.array([2.0, 3.0]).reshape((2, 1, 1, 1)))
    net[-1].weight.set_data(mx.nd.array([5.0, -1.0]).reshape((1, 2, 1, 1)))
    x = np.array([[[1.0, 4.0], [2.0, -3.0]]], "float32")
    found, = deconvnet(net, x, str(len(net) - 1))
    # Forward 5 * 8 - 12 = 28 at the 4. Back: channel 0 gets 140, channel 1 -28, which ReLU stops; 140 * 2.
    assert found.activation == 28
    np.testing.assert_allclose(found.pixels, [[[0, 280], [0, 0]]])


def test_normalisation_across_channels_is_passed_through():
    with_lrn, without = chain(nn.Conv2D(3, 3, in_channels=2), LRN()), chain(nn.Conv2D(3, 3, in_channels=2))
    x = image(2, 6, 6)
    found, = deconvnet(with_lrn, x, "1", channel=2)
    plain, = deconvnet(without, x, "0", channel=2)
    assert found.position == plain.position and found.activation < plain.activation
    np.testing.assert_allclose(found.pixels, plain.pixels * found.activation / plain.activation, rtol=1e-4, atol=1e-6)


def test_strongest_channels_and_strongest_images():
    net = chain(nn.MaxPool2D(2))
    images = np.zeros((3, 4, 4, 4), "float32")
    for index, channel, value in ((0, 1, 5), (1, 1, 9), (2, 1, 7), (0, 2, 8), (2, 3, 1)):
        images[index, channel, 2, 3] = value
    found = [(p.index, p.channel, p.position, p.activation) for p in deconvnet(net, images, "0", top=2)]
    assert found == [(1, 1, (1, 1), 9), (0, 2, (1, 1), 8)]
    found = [(p.index, p.channel, p.activation) for p in deconvnet(net, mx.nd.array(images), "0", channel=1, top=5)]
    assert found == [(1, 1, 9), (2, 1, 7), (0, 1, 5)]


def test_known_blocks_are_chains_of_their_layers():
    x = image(2, 8, 8)
    block = chain(ConvNorm(2, 3, 3), MLPConv(3, (4, 2), 3))
    single = nn.HybridSequential()
    conv, perceptron = block[0], block[1]
    single.add(conv.conv, conv.norm, nn.Activation("relu"), perceptron.conv, perceptron.cccp1)
    for ours, theirs in zip(deconvnet(block, x, "1", top=2), deconvnet(single, x, "4", top=2)):
        np.testing.assert_allclose(ours.pixels, theirs.pixels, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name, stage, options", [("lenet_caffe", "pool2", {}), ("alexnet", "conv3", {}), ("zfnet", "conv2", {})])
def test_registered_networks(name, stage, options):
    net = gluonzoo.get_model(name, classes=2, **options)
    net.features.initialize(mx.init.Xavier())
    spec = gluonzoo.model_spec(name)
    found = deconvnet(net, image(*spec.input_shape), stage, top=2)
    assert len(found) == 2 and found[0].activation >= found[1].activation
    for projection in found:
        assert projection.pixels.shape == spec.input_shape and np.isfinite(projection.pixels).all()
        top, left, bottom, right = projection.box
        outside = projection.pixels.copy()
        outside[:, top:bottom, left:right] = 0
        assert projection.pixels.any() and not outside.any()


@pytest.mark.parametrize("name, stage, words", [
    ("resnet18_v1", "stage1", ["features.stage1.0", "BasicUnit"]), ("lenet5", "s2", ["features.c1.1", "ScaledTanh"]),
    ("lenet_caffe", "conv3", ["lenet_caffe", "conv3", "conv1, pool1, conv2, pool2"])])
def test_what_it_cannot_go_back_through_is_named(name, stage, words):
    net = gluonzoo.get_model(name)
    net.initialize()
    with pytest.raises(UserError) as caught:
        deconvnet(net, np.zeros(gluonzoo.model_spec(name).input_shape, "float32"), stage)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("options, words", [
    ({"channel": 20}, ["no channel 20", "0 to 19"]), ({"channel": -1}, ["-1"]), ({"top": 0}, ["top is 0"]),
    ({"top": True}, ["top is True"])])
def test_bad_arguments(options, words):
    net = gluonzoo.get_model("lenet_caffe")
    net.initialize()
    with pytest.raises(UserError) as caught:
        deconvnet(net, np.zeros((1, 28, 28), "float32"), "conv1", **options)
    assert all(word in str(caught.value) for word in words)
    with pytest.raises(UserError, match="1 channels"):
        deconvnet(net, np.zeros((3, 28, 28), "float32"), "conv1")
    with pytest.raises(UserError, match="Dense"):
        deconvnet(nn.Dense(3, in_units=3), np.zeros((1, 3, 3), "float32"), "0")
    with pytest.raises(UserError, match="tanh"):
        deconvnet(chain(nn.Conv2D(1, 1, in_channels=1, activation="tanh")), np.zeros((1, 3, 3), "float32"), "0")


def test_a_network_in_use_is_not_changed(tmp_path):
    net = gluonzoo.get_model("lenet_caffe")
    net.initialize()
    net.hybridize(static_alloc=True)
    x = mx.nd.array(image(2, 1, 28, 28))
    before = net(x).asnumpy()
    deconvnet(net, x, "conv2", top=4)
    np.testing.assert_array_equal(net(x).asnumpy(), before)


@pytest.mark.parametrize("count, channel", [(1, None), (3, None), (3, 4), (1, 2)])
def test_the_picture(tmp_path, count, channel):
    pytest.importorskip("matplotlib")
    net = gluonzoo.get_model("lenet_caffe")
    net.initialize()
    path = tmp_path / "d.png"
    found = deconvnet_picture(net, image(count, 1, 28, 28), "conv2", path, channel, top=5)
    assert len(found) == (5 if channel is None else min(5, count))
    assert path.read_bytes().startswith(b"\x89PNG") and [item.name for item in tmp_path.iterdir()] == ["d.png"]


def test_a_silent_map_has_an_empty_projection(tmp_path):
    pytest.importorskip("matplotlib")
    net = chain(nn.Conv2D(2, 3, in_channels=1, activation="relu"))
    found = deconvnet_picture(net, np.zeros((1, 6, 6), "float32"), "0", tmp_path / "d.png", top=2)
    assert [projection.activation for projection in found] == [0, 0] and not found[0].pixels.any()
    assert found[0].box == (0, 0, 6, 6)
