"""Darknet-19 and Darknet-53: the papers' tables by their layers, the units, odd sizes, and the initial weights."""
import json

import gluonzoo
from gluonzoo.classification.darknet import DarknetConv, DarknetUnit
from gluonzoo.layers import features

import mxnet as mx
import numpy as np
import pytest

NAMES = ("darknet19", "darknet53")


def operators(name, kind):
    nodes = json.loads(gluonzoo.get_model(name)(mx.sym.var("data")).tojson())["nodes"]
    return [node.get("attrs", {}) for node in nodes if node["op"] == kind]


def map_shapes(name, size):
    net = gluonzoo.get_model(name)
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:] for shape in maps.infer_shape(data=(1, 3) + size)[1]]


@pytest.mark.parametrize("name", NAMES)
def test_maps(name):
    assert map_shapes(name, (256, 256)) == [
        (32, 256, 256), (64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 16, 16), (1024, 8, 8)]


@pytest.mark.parametrize("name, smallest", [("darknet19", 17), ("darknet53", 1)])
def test_sizes_are_halved_upwards(name, smallest):
    assert gluonzoo.get_model(name).min_size == (smallest, smallest)
    for size in ((smallest, smallest), (97, 45), (40, 63)):
        halves = list(size)
        for shape in map_shapes(name, size):
            assert list(shape[1:]) == halves
            halves = [-(-length // 2) for length in halves]
    if smallest > 1:
        with pytest.raises(mx.MXNetError):
            map_shapes(name, (smallest, smallest - 1))


def test_table_6_of_yolo9000():
    found = operators("darknet19", "Convolution")
    assert [(int(attributes["num_filter"]), attributes["kernel"][1]) for attributes in found] == [
        (32, "3"), (64, "3"), (128, "3"), (64, "1"), (128, "3"), (256, "3"), (128, "1"), (256, "3"),
        (512, "3"), (256, "1"), (512, "3"), (256, "1"), (512, "3"),
        (1024, "3"), (512, "1"), (1024, "3"), (512, "1"), (1024, "3"), (1000, "1")]
    # The last layer has a bias, no BatchNorm and no activation.
    assert [attributes["no_bias"] for attributes in found] == 18 * ["True"] + ["False"]
    assert len(operators("darknet19", "BatchNorm")) == len(operators("darknet19", "LeakyReLU")) == 18
    assert len(operators("darknet19", "Pooling")) == 5 and not operators("darknet19", "FullyConnected")


def test_table_1_of_yolov3():
    found = operators("darknet53", "Convolution")
    assert len(found) == 52 and len(operators("darknet53", "FullyConnected")) == 1
    assert sum(attributes["stride"] == "(2, 2)" for attributes in found) == 5 and not operators("darknet53", "Pooling")
    assert all(attributes["no_bias"] == "True" for attributes in found)
    net = gluonzoo.get_model("darknet53")
    numbers = [sum(isinstance(block, DarknetUnit) for block in getattr(net.features, name)) for name in net.stages[1:]]
    assert numbers == [1, 2, 8, 8, 4]
    assert len(operators("darknet53", "BatchNorm")) == len(operators("darknet53", "LeakyReLU")) == 52


@pytest.mark.parametrize("name", NAMES)
def test_slopes_and_epsilons(name):
    assert {(attributes["act_type"], float(attributes["slope"])) for attributes in operators(name, "LeakyReLU")} == {
        ("leaky", 0.1)}
    assert {float(attributes["eps"]) for attributes in operators(name, "BatchNorm")} == {1e-5}


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


def weight_of(block):
    return block.conv.weight.data().asnumpy()


def test_unit_adds_and_does_nothing_more():
    unit = DarknetUnit(4)
    unit.initialize(mx.init.Normal(1), force_reinit=True)
    x = np.random.RandomState(3).normal(size=(2, 4, 1, 1)).astype("float32")
    # On one pixel only the middle of a 3x3 kernel sees anything.
    first = leaky(x[:, :, 0, 0] @ weight_of(unit.conv1)[:, :, 0, 0].T / np.sqrt(1 + 1e-5))
    second = leaky(first @ weight_of(unit.conv2)[:, :, 1, 1].T / np.sqrt(1 + 1e-5))
    assert first.shape == (2, 2) and (x[:, :, 0, 0] + second).min() < 0
    np.testing.assert_allclose(unit(mx.nd.array(x)).asnumpy()[:, :, 0, 0], x[:, :, 0, 0] + second, rtol=1e-4, atol=1e-5)


def test_conv_with_stride():
    block = DarknetConv(3, 5, 3, 2)
    _, (shape,), _ = block(mx.sym.var("data")).infer_shape(data=(1, 3, 7, 8))
    assert shape == (1, 5, 4, 4)


def test_darknet19s_output_is_the_mean_of_the_pixels_scores():
    net = gluonzoo.get_model("darknet19", classes=6)
    net.output.initialize(mx.init.Normal(0.1))
    net.output[0].bias.set_data(mx.nd.arange(6))
    x = np.random.RandomState(4).normal(size=(2, 1024, 3, 2)).astype("float32")
    expected = x.mean((2, 3)) @ net.output[0].weight.data().asnumpy()[:, :, 0, 0].T + np.arange(6)
    np.testing.assert_allclose(net.output(mx.nd.array(x)).asnumpy(), expected, rtol=1e-3, atol=1e-4)


def test_initial_weights():
    mx.random.seed(12)
    net, other = gluonzoo.get_model("darknet19"), gluonzoo.get_model("darknet53")
    for layer, fan_in in ((net.features.stage3[1].conv, 128 * 9), (net.output[0], 1024), (other.output, 1024),
                          (other.features.stage4[2].conv2.conv, 256 * 9)):
        layer.initialize()
        assert abs(layer.weight.data().asnumpy().std() / np.sqrt(2 / fan_in) - 1) < 0.02
        assert layer.bias is None or not layer.bias.data().asnumpy().any()
