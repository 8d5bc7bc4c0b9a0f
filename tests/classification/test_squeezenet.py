"""SqueezeNets: table 1, Caffe's poolings, initial weights, and MXNet's own SqueezeNets with the same weights."""
import json

import gluonzoo
from gluonzoo.classification.squeezenet import Fire, SqueezeNet
from gluonzoo.errors import UserError
from gluonzoo.layers import features

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon.model_zoo import vision


def nodes(net, operator):
    return [node for node in json.loads(net(mx.sym.var("data")).tojson())["nodes"] if node["op"] == operator]


def map_shapes(net, size):
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return dict(zip(net.stages, (shape[1:] for shape in maps.infer_shape(data=(1, 3, size, size))[1])))


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_26_convolutions_with_bias_and_nothing_dense(name):
    net = gluonzoo.get_model(name)
    convolutions = nodes(net, "Convolution")
    assert len(convolutions) == 26 and not nodes(net, "FullyConnected")
    assert all(node["attrs"]["no_bias"] == "False" for node in convolutions)
    assert len(nodes(net, "Activation")) == 26  # Conv10 has one too.


def test_map_sizes_of_table_1_are_those_of_227_pixels():
    shapes = map_shapes(gluonzoo.get_model("squeezenet1_0"), 227)
    assert list(shapes.items()) == [
        ("conv1", (96, 111, 111)), ("pool1", (96, 55, 55)), ("fire2", (128, 55, 55)), ("fire3", (128, 55, 55)),
        ("fire4", (256, 55, 55)), ("pool4", (256, 27, 27)), ("fire5", (256, 27, 27)), ("fire6", (384, 27, 27)),
        ("fire7", (384, 27, 27)), ("fire8", (512, 27, 27)), ("pool8", (512, 13, 13)), ("fire9", (512, 13, 13))]
    # At 224, pool1 sees 109 rows and pool4 54: rounding down would give 53 rows and 26.
    assert [shape[1] for shape in map_shapes(gluonzoo.get_model("squeezenet1_0"), 224).values()] == (
        [109] + [54] * 4 + [27] * 5 + [13] * 2)


def test_1_1_pools_earlier():
    shapes = map_shapes(gluonzoo.get_model("squeezenet1_1"), 224)
    assert [name for name in shapes if name.startswith("pool")] == ["pool1", "pool3", "pool5"]
    assert [shape[1] for shape in shapes.values()] == [111] + [55] * 3 + [27] * 3 + [13] * 5
    assert shapes["conv1"][0] == 64 and shapes["fire9"][0] == 512


@pytest.mark.parametrize("name, size", [("squeezenet1_0", 29), ("squeezenet1_1", 25)])
def test_smallest_size_is_true(name, size):
    net = gluonzoo.get_model(name)
    assert net.min_size == (size, size) and list(map_shapes(net, size).values())[-1] == (512, 1, 1)
    with pytest.raises((mx.MXNetError, ValueError)):
        map_shapes(net, size - 1)


def test_fire():
    fire = Fire(4, 2, 3, 5)
    fire.initialize(mx.init.Normal(1))
    for parameter in fire.collect_params().values():
        parameter.set_data(mx.nd.random.normal(shape=parameter.shape))
    x = np.random.RandomState(0).normal(size=(2, 4, 5, 6))

    def weights(layer):
        return layer.weight.data().asnumpy(), layer.bias.data().asnumpy()[:, None, None]

    def pointwise(layer, x):
        weight, bias = weights(layer)
        return np.maximum(np.einsum("nchw,kc->nkhw", x, weight[:, :, 0, 0]) + bias, 0)
    squeezed = pointwise(fire.squeeze, x)
    padded = np.pad(squeezed, ((0, 0), (0, 0), (1, 1), (1, 1)))
    weight, bias = weights(fire.expand3x3)
    wide = sum(np.einsum("nchw,kc->nkhw", padded[:, :, i:i + 5, j:j + 6], weight[:, :, i, j])
               for i in range(3) for j in range(3)) + bias
    expected = np.concatenate([pointwise(fire.expand1x1, squeezed), np.maximum(wide, 0)], axis=1)
    np.testing.assert_allclose(fire(mx.nd.array(x)).asnumpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name, theirs", [("squeezenet1_0", vision.squeezenet1_0), ("squeezenet1_1", vision.squeezenet1_1)])
def test_equals_the_model_zoo_of_mxnet(name, theirs):
    ours, theirs = gluonzoo.get_model(name, classes=7), theirs(classes=7)
    x = mx.nd.random.normal(shape=(2, 3, 67, 50))
    ours.initialize()
    theirs.initialize()
    theirs(mx.nd.zeros((1, 3, 224, 224)))
    random = np.random.RandomState(1)
    assert len(ours.collect_params().keys()) == len(theirs.collect_params().keys()) == 52
    for parameter, other in zip(ours.collect_params().values(), theirs.collect_params().values()):
        scale = 0.1 if len(parameter.shape) == 1 else np.sqrt(2 / np.prod(parameter.shape[1:]))
        parameter.set_data(mx.nd.array(random.normal(0, scale, parameter.shape)))
        other.set_data(parameter.data())
    # Their last pooling takes 13x13 maps only.
    expected = theirs.output[1](theirs.output[0](theirs.features(x))).mean(axis=(2, 3)).asnumpy()
    assert expected.std() > 0.01 and expected.min() >= 0
    np.testing.assert_allclose(ours(x).asnumpy(), expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_initial_weights_are_the_releases():
    net = gluonzoo.get_model("squeezenet1_0")
    net.initialize()
    fire, last = net.features.fire9, net.output[0].weight.data().asnumpy()
    for layer, fan_in in ((net.features.conv1, 147), (fire.squeeze, 512), (fire.expand3x3, 9 * 64)):
        weight = layer.weight.data().asnumpy()
        assert weight.std() == pytest.approx(np.sqrt(1 / fan_in), rel=0.03)
        assert np.abs(weight).max() <= np.sqrt(3 / fan_in) * 1.001
    assert last.std() == pytest.approx(0.01, rel=0.02) and np.abs(last).max() > 0.03
    assert not net.output[0].bias.data().asnumpy().any()


def test_half_of_fire9_is_dropped_in_training():
    net = gluonzoo.get_model("squeezenet1_1", classes=3)
    assert net.dropout._rate == 0.5 and gluonzoo.get_model("squeezenet1_1", dropout=0).dropout is None
    net.initialize()
    x = mx.nd.random.normal(shape=(1, 3, 25, 25))
    np.testing.assert_array_equal(net(x).asnumpy(), net(x).asnumpy())
    with autograd.train_mode():
        assert np.abs(net(x).asnumpy() - net(x).asnumpy()).max() > 0


def test_bad_arguments():
    with pytest.raises(ValueError, match="version is '1.2'; expected one of 1.0, 1.1"):
        SqueezeNet("1.2")
    with pytest.raises(UserError, match="dropout is 1.5"):
        gluonzoo.get_model("squeezenet1_0", dropout=1.5)
