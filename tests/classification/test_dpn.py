"""Dual path networks: the paper's table, and a unit against two separate paths."""
import json

import gluonzoo
from gluonzoo.classification.dpn import DPN, DualPathUnit
from gluonzoo.layers import features

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn


def convolutions(net):
    nodes = json.loads(net(mx.sym.var("data")).tojson())["nodes"]
    return [node["attrs"] for node in nodes if node["op"] == "Convolution"]


def map_shapes(name, size):
    net = gluonzoo.get_model(name)
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:] for shape in maps.infer_shape(data=(1, 3) + size)[1]]


@pytest.mark.parametrize("name, layers, groups", [
    ("dpn68", 72, 32), ("dpn92", 96, 32), ("dpn98", 102, 40), ("dpn107", 111, 50), ("dpn131", 135, 40)])
def test_convolutions(name, layers, groups):
    net = gluonzoo.get_model(name)
    found = convolutions(net)
    assert len(found) == layers
    assert [attributes["no_bias"] for attributes in found] == ["True"] * (layers - 1) + ["False"]  # The classifier.
    units = sum(len(getattr(net.features, f"stage{index}")) for index in (1, 2, 3, 4))
    grouped = [attributes for attributes in found if attributes["num_group"] != "1"]
    assert len(grouped) == units
    assert {(attributes["num_group"], attributes["kernel"]) for attributes in grouped} == {(str(groups), "(3, 3)")}


@pytest.mark.parametrize("name, stem, channels", [
    ("dpn68", 10, (144, 320, 704, 832)), ("dpn92", 64, (336, 704, 1552, 2688)), ("dpn98", 96, (336, 768, 1728, 2688)),
    ("dpn107", 128, (376, 1152, 2432, 2688)), ("dpn131", 128, (352, 832, 1984, 2688))])
def test_map_sizes(name, stem, channels):
    sizes = [56, 56, 28, 14, 7, 7]
    assert map_shapes(name, (224, 224)) == [
        (count, size, size) for count, size in zip((stem,) + channels + channels[-1:], sizes)]


def test_widths_of_table_1():
    net = gluonzoo.get_model("dpn92")
    stages = [getattr(net.features, f"stage{index}") for index in (1, 2, 3, 4)]
    assert [len(stage) for stage in stages] == [3, 4, 20, 3]
    assert [stage[0].conv2.conv.weight.shape for stage in stages] == [
        (96, 3, 3, 3), (192, 6, 3, 3), (384, 12, 3, 3), (768, 24, 3, 3)]
    assert [stage[0].conv3.conv.weight.shape[0] for stage in stages] == [256 + 16, 512 + 32, 1024 + 24, 2048 + 128]
    assert [stage[0].projection.conv.weight.shape[0] for stage in stages] == [256 + 32, 512 + 64, 1024 + 48, 2048 + 256]
    assert all(unit.projection is None for stage in stages for unit in list(stage)[1:])


@pytest.mark.parametrize("size", [(1, 1), (37, 50), (3, 8)])
def test_any_size(size):
    halves = list(size)
    for index, shape in enumerate(map_shapes("dpn68", size)[:-1]):
        for _ in range(2 if index == 0 else 1 if index > 1 else 0):
            halves = [-(-length // 2) for length in halves]
        assert list(shape[1:]) == halves


def test_where_the_stride_is():
    strided = [(attributes["kernel"], attributes["num_group"])
               for attributes in convolutions(gluonzoo.get_model("dpn68")) if attributes["stride"] == "(2, 2)"]
    assert sorted(strided) == sorted([("(3, 3)", "1")] + [("(3, 3)", "32"), ("(1, 1)", "1")] * 3)


def test_epsilon_of_every_norm():
    found = []
    gluonzoo.get_model("dpn68").apply(lambda block: found.append(block) if isinstance(block, nn.BatchNorm) else None)
    assert len(found) == 72 and all(norm._kwargs["eps"] == 1e-3 for norm in found)


def randomised(block, seed=3):
    mx.random.seed(seed)
    block.initialize()
    for name, parameter in block.collect_params().items():
        if name.endswith(("gamma", "running_var")):
            parameter.set_data(mx.nd.random.uniform(0.5, 1, parameter.shape))
        elif not name.endswith("weight"):
            parameter.set_data(mx.nd.random.normal(0, 0.3, parameter.shape))
    return block


def applied(layer, x, strides=1, groups=1):
    """BatchNorm, ReLU and convolution, from the layer's parameters."""
    norm, weight = layer.norm, layer.conv.weight.data()
    gamma, beta, mean, var = (p.data().reshape((1, -1, 1, 1))
                              for p in (norm.gamma, norm.beta, norm.running_mean, norm.running_var))
    x = mx.nd.relu((x - mean) / (var + 1e-3).sqrt() * gamma + beta)
    kernel = weight.shape[2:]
    return mx.nd.Convolution(x, weight, kernel=kernel, stride=(strides, strides), num_filter=weight.shape[0],
                             pad=(kernel[0] // 2,) * 2, num_group=groups, no_bias=True)


@pytest.mark.parametrize("hybrid", [False, True])
def test_first_unit_makes_two_paths_and_the_next_continues_them(hybrid):
    first = randomised(DualPathUnit(10, 16, 8, 3, 4, strides=2, first=True))
    second = randomised(DualPathUnit(25, 16, 8, 3, 4), seed=4)
    assert (first.out_channels, second.out_channels) == (16 + 3 * 3, 16 + 4 * 3)
    x = mx.nd.random.normal(shape=(2, 10, 7, 6))
    new = applied(first.conv3, applied(first.conv2, applied(first.conv1, x), 2, 4)).asnumpy()
    made = applied(first.projection, x, 2).asnumpy()
    total, dense = made[:, :16] + new[:, :16], np.concatenate([made[:, 16:], new[:, 16:]], axis=1)
    for unit in (first, second):
        unit.hybridize(hybrid)
    found = first(x)
    np.testing.assert_allclose(found.asnumpy(), np.concatenate([total, dense], axis=1), rtol=1e-4, atol=1e-5)
    new = applied(second.conv3, applied(second.conv2, applied(second.conv1, found), 1, 4)).asnumpy()
    expected = np.concatenate([total + new[:, :16], dense, new[:, 16:]], axis=1)
    np.testing.assert_allclose(second(found).asnumpy(), expected, rtol=1e-4, atol=1e-4)


def test_classifier_is_a_1x1_convolution_behind_the_pooling():
    net = gluonzoo.get_model("dpn68", classes=7)
    assert isinstance(net.output[0], nn.Conv2D) and net.output[0].weight.shape == (7, 832, 1, 1)
    net.initialize()
    x = mx.nd.random.normal(shape=(2, 3, 40, 33))
    means = net.features(x).asnumpy().mean(axis=(2, 3))
    expected = means @ net.output[0].weight.data().asnumpy()[:, :, 0, 0].T + net.output[0].bias.data().asnumpy()
    assert means.min() >= 0  # The last of the features is a ReLU.
    np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_initialisation_needs_no_arguments():
    mx.random.seed(2)
    net = gluonzoo.get_model("dpn68")
    net.initialize()
    weights = net.features.stage3[0].conv2.conv.weight.data().asnumpy()
    assert abs(weights.std() / np.sqrt(2 / (16 * 9)) - 1) < 0.03
    assert abs(net.output[0].weight.data().asnumpy().std() / 0.01 - 1) < 0.05


@pytest.mark.parametrize("make, message", [
    (lambda: DPN(69), "layers is 69; expected one of 68, 92, 98, 107, 131"),
    (lambda: DualPathUnit(25, 16, 8, 3, 4, strides=2), "strides 2 and 25 channels"),
    (lambda: DualPathUnit(16, 16, 8, 3, 4), "strides 1 and 16 channels; expected 1, and more than the residual path's 16")])
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
