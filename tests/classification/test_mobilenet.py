"""MobileNets v1 and v2: the papers' tables, rounded widths, blocks, and MXNet's own MobileNets with the same weights."""
import json

import gluonzoo
from gluonzoo.classification.mobilenet_v1 import MobileNet
from gluonzoo.classification.mobilenet_v2 import ConvNormReLU6, InvertedResidual, MobileNetV2, round_channels
from gluonzoo.errors import UserError
from gluonzoo.layers import features

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon.model_zoo import vision


def nodes(net, operator):
    return [node for node in json.loads(net(mx.sym.var("data")).tojson())["nodes"] if node["op"] == operator]


def map_shapes(name, size=224):
    net = gluonzoo.get_model(name)
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:3] for shape in maps.infer_shape(data=(1, 3, size, size))[1]]


def randomise(parameters, seed=1):
    """Weights that keep the signal's size, running statistics that are not the trivial ones."""
    random = np.random.RandomState(seed)
    for parameter in parameters:
        if parameter.name.endswith(("gamma", "running_var")):
            value = random.uniform(0.5, 1.0, parameter.shape)
        else:
            scale = 0.1 if len(parameter.shape) == 1 else np.sqrt(2 / np.prod(parameter.shape[1:]))
            value = random.normal(0, scale, parameter.shape)
        parameter.set_data(mx.nd.array(value))


def test_v1_is_table_1():
    assert map_shapes("mobilenet_v1_1_0") == [(32, 112), (64, 112), (128, 56), (256, 28), (512, 14), (1024, 7)]
    net = gluonzoo.get_model("mobilenet_v1_1_0")
    convolutions = [node["attrs"] for node in nodes(net, "Convolution")]
    assert len(convolutions) == 27 and len(nodes(net, "FullyConnected")) == 1
    assert all(attributes["no_bias"] == "True" for attributes in convolutions)
    assert len(nodes(net, "Activation")) == 27 and not nodes(net, "clip")
    depthwise = convolutions[1::2]
    assert len(depthwise) == 13 and all(attributes["num_group"] == attributes["num_filter"] for attributes in depthwise)
    assert [attributes["stride"] for attributes in depthwise] == [
        f"({s}, {s})" for s in (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)]
    assert all((attributes["kernel"], attributes["num_group"]) == ("(1, 1)", "1") for attributes in convolutions[2::2])


@pytest.mark.parametrize("name, channels", [
    ("mobilenet_v1_0_75", (24, 48, 96, 192, 384, 768)), ("mobilenet_v1_0_5", (16, 32, 64, 128, 256, 512)),
    ("mobilenet_v1_0_25", (8, 16, 32, 64, 128, 256))])
def test_v1_widths(name, channels):
    assert tuple(shape[0] for shape in map_shapes(name)) == channels


@pytest.mark.parametrize("name, channels", [
    ("mobilenet_v2_1_0", (32, 16, 24, 32, 64, 96, 160, 320, 1280)),
    ("mobilenet_v2_0_75", (24, 16, 24, 24, 48, 72, 120, 240, 1280)),
    ("mobilenet_v2_0_5", (16, 8, 16, 16, 32, 48, 80, 160, 1280)),
    ("mobilenet_v2_1_4", (48, 24, 32, 48, 88, 136, 224, 448, 1792))])
def test_v2_widths(name, channels):
    found = map_shapes(name)
    assert tuple(shape[0] for shape in found) == channels
    assert [shape[1] for shape in found] == [112, 112, 56, 28, 14, 14, 7, 7, 7]


def test_rounding_by_hand():
    # To the nearest multiple, halves upwards; not below 90 %: 18 would become 16; at least 8.
    assert [round_channels(value) for value in (32, 33.6, 12, 11.9, 22.4, 18, 3, 8, 44.8)] == [
        32, 32, 16, 16, 24, 24, 8, 8, 48]
    assert round_channels(30, divisor=4) == 32


def test_v2_is_table_2():
    net = gluonzoo.get_model("mobilenet_v2_1_0")
    convolutions = [node["attrs"] for node in nodes(net, "Convolution")]
    assert len(convolutions) == 52 and all(attributes["no_bias"] == "True" for attributes in convolutions)
    classifier, = nodes(net, "FullyConnected")
    assert classifier["attrs"]["no_bias"] == "False"
    # The first bottleneck has no expansion: after the stem comes a depthwise convolution of 32 channels.
    assert (convolutions[1]["num_filter"], convolutions[1]["num_group"], convolutions[1]["kernel"]) == ("32", "32", "(3, 3)")
    bottlenecks = [block for stage in net.stages[1:-1] for block in getattr(net.features, stage)]
    assert len(bottlenecks) == 17 and [block.expand is None for block in bottlenecks] == [True] + [False] * 16
    # A ReLU6 behind the stem, the head, 17 depthwise and 16 expanding convolutions; none behind a projection.
    assert len(nodes(net, "clip")) == 35 and not nodes(net, "Activation")
    assert all((float(node["attrs"]["a_min"]), float(node["attrs"]["a_max"])) == (0, 6) for node in nodes(net, "clip"))
    assert len(nodes(net, "elemwise_add")) == 10
    strided = [attributes["num_filter"] for attributes in convolutions if attributes["stride"] == "(2, 2)"]
    assert strided == ["32", "96", "144", "192", "576"]


def test_conv_norm_relu6():
    block = ConvNormReLU6(2, 3, 1)
    mx.random.seed(3)
    block.initialize(mx.init.Normal(5))
    x = mx.nd.random.normal(shape=(2, 2, 20, 20))
    linear = np.einsum("nchw,kc->nkhw", x.asnumpy(), block.conv.weight.data().asnumpy()[:, :, 0, 0])
    expected = np.minimum(np.maximum(linear / np.sqrt(1 + 1e-5), 0), 6)
    assert (expected == 0).any() and (expected == 6).any()
    np.testing.assert_allclose(block(x).asnumpy(), expected, rtol=1e-4, atol=1e-5)


def test_shortcut_only_where_the_shape_stays():
    x = mx.nd.random.normal(shape=(1, 8, 6, 6))
    for arguments, expected, shortcut in (((8, 8), (1, 8, 6, 6), True), ((8, 8, 2), (1, 8, 3, 3), False),
                                          ((8, 12), (1, 12, 6, 6), False)):
        block = InvertedResidual(*arguments)
        block.initialize()
        block.project.norm.gamma.set_data(mx.nd.zeros((arguments[1],)))  # Leaves the shortcut alone.
        y = block(x).asnumpy()
        np.testing.assert_array_equal(y, x.asnumpy() if shortcut else np.zeros(expected))


@pytest.mark.parametrize("name, theirs", [("mobilenet_v1_1_0", vision.mobilenet1_0), ("mobilenet_v1_0_25", vision.mobilenet0_25)])
def test_v1_equals_the_model_zoo_of_mxnet(name, theirs):
    ours, theirs = gluonzoo.get_model(name, classes=7), theirs(classes=7)
    x = mx.nd.random.normal(shape=(2, 3, 65, 50))
    ours.initialize()
    theirs.initialize()
    theirs(x)
    randomise(ours.collect_params().values())
    assert len(ours.collect_params().keys()) == len(theirs.collect_params().keys())
    for parameter, other in zip(ours.collect_params().values(), theirs.collect_params().values()):
        other.set_data(parameter.data())
    expected = theirs(x).asnumpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(ours(x).asnumpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_v2_equals_the_model_zoo_of_mxnet_with_an_expansion_that_does_nothing():
    ours, theirs = gluonzoo.get_model("mobilenet_v2_1_0", classes=7), vision.mobilenet_v2_1_0(classes=7)
    x = mx.nd.random.normal(shape=(2, 3, 65, 50))
    ours.initialize()
    theirs.initialize()
    theirs(x)
    randomise(ours.collect_params().values())
    ours.output.bias.set_data(mx.nd.zeros((7,)))
    others = list(theirs.collect_params().values())
    # Their first bottleneck expands 32 channels to 32; what it gets already lies between 0 and 6.
    neutral = (np.eye(32)[:, :, None, None], np.ones(32), np.zeros(32), np.zeros(32), np.full(32, 1 - 1e-5))
    for parameter, value in zip(others[5:10], neutral):
        parameter.set_data(mx.nd.array(value))
    copied = list(ours.collect_params().values())[:-1]
    assert len(copied) == len(others) - 5
    for parameter, other in zip(copied, others[:5] + others[10:]):
        other.set_data(parameter.data().reshape(other.shape))
    expected = theirs(x).asnumpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(ours(x).asnumpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["mobilenet_v1_0_5", "mobilenet_v2_0_5"])
def test_initial_weights_are_the_releases(name):
    net = gluonzoo.get_model(name)
    net.initialize()
    for key, parameter in net.collect_params().items():
        value = parameter.data().asnumpy()
        if key.endswith("weight"):
            assert np.abs(value).max() <= 0.1801, key
            if value.size > 5000:
                assert value.std() == pytest.approx(0.88 * 0.09, rel=0.05), key
    assert not net.output.bias.data().asnumpy().any()


def test_dropout_of_v2():
    assert gluonzoo.get_model("mobilenet_v2_1_0").dropout._rate == 0.2
    assert gluonzoo.get_model("mobilenet_v2_1_0", dropout=0).dropout is None
    with pytest.raises(UserError, match="dropout is -1"):
        gluonzoo.get_model("mobilenet_v2_1_0", dropout=-1)


def test_unknown_widths():
    with pytest.raises(ValueError, match="width is 0.3; expected one of 1.0, 0.75, 0.5, 0.25"):
        MobileNet(0.3)
    with pytest.raises(ValueError, match="width is 2; expected one of 1.0, 0.75, 0.5, 1.4"):
        MobileNetV2(2)
