"""MSRA-net: table 3 of its paper, its PReLUs, its pyramid on images of any size, its initialisation."""
import json

import gluonzoo
from gluonzoo.classification.msranet import MSRANet, Rectified
from gluonzoo.errors import UserError
from gluonzoo.layers import PReLU, SpatialPyramidPool, features
from gluonzoo.summary import count_parameters, summarize

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn


@pytest.mark.parametrize("name, layers, widths", [
    ("msra_net_a", 5, (256, 512, 512)), ("msra_net_b", 6, (256, 512, 512)), ("msra_net_c", 6, (384, 768, 896))])
def test_table_3(name, layers, widths):
    net = gluonzoo.get_model(name)
    stacks = [[f"conv{number}_{index}" for index in range(1, layers + 1)] for number in (2, 3, 4)]
    assert list(net.stages) == ["conv1", "pool1"] + stacks[0] + ["pool2"] + stacks[1] + ["pool3"] + stacks[2]
    last = ["conv1"] + [stack[-1] for stack in stacks]
    maps = mx.sym.Group(features(net, last)(mx.sym.var("data")))
    assert [shape[1:] for shape in maps.infer_shape(data=(1, 3, 224, 224))[1]] == [
        (96, 112, 112), (widths[0], 56, 56), (widths[1], 28, 28), (widths[2], 14, 14)]
    nodes = json.loads(net(mx.sym.var("data")).tojson())["nodes"]
    found = [node["attrs"] for node in nodes if node["op"] == "Convolution"]
    assert [(one["kernel"], one["stride"]) for one in found] == [("(7, 7)", "(2, 2)")] + [("(3, 3)", "(1, 1)")] * 3 * layers
    assert [node["attrs"]["pooled_size"] for node in nodes if node["op"] == "ROIPooling"] == [
        "(7, 7)", "(3, 3)", "(2, 2)", "(1, 1)"]
    assert net.fc6.layer.weight.shape == (4096, widths[2] * 63)


def slopes(net):
    found = []
    net.apply(lambda block: found.append(block) if isinstance(block, PReLU) else None)
    return [block.alpha for block in found]


@pytest.mark.parametrize("name, one_slope, relu", [
    ("msra_net_a", 178017402, 178017384), ("msra_net_b", 183327101, 183327080), ("msra_net_c", 330603389, 330603368)])
def test_one_slope_for_each_channel(name, one_slope, relu):
    # The counts of the two other activations are those that the table of networks gives.
    net = gluonzoo.get_model(name)
    parameters = count_parameters(net)
    alphas = slopes(net)
    assert parameters - sum(alpha.shape[0] for alpha in alphas) == relu
    assert relu + len(alphas) == one_slope
    assert all(alpha.wd_mult == 0 for alpha in alphas)


def test_rectified_has_a_slope_of_its_own_in_each_channel():
    block = Rectified(nn.Conv2D(3, 1, in_channels=3, weight_initializer=mx.init.Zero()), 3)
    block.initialize()
    block.layer.weight.set_data(mx.nd.array(np.eye(3).reshape(3, 3, 1, 1)))
    x = mx.nd.array(np.array([-4, -4, -4, 4, 4, 4]).reshape(2, 3, 1, 1))
    np.testing.assert_allclose(block(x).asnumpy().ravel(), [-1, -1, -1, 4, 4, 4])
    block.prelu.alpha.set_data(mx.nd.array([0, 0.5, 1]))
    np.testing.assert_allclose(block(x).asnumpy().ravel(), [0, -2, -4, 4, 4, 4])


def test_initial_weights():
    mx.random.seed(1)
    net = gluonzoo.get_model("msra_net_a", classes=20)
    layers = ((net.features.conv1, 49 * 3), (net.features.conv3_2, 9 * 512), (net.fc7, 4096))
    net.output.initialize()
    for layer, fan_in in layers:
        layer.initialize()
        deviation = np.sqrt(2 / ((1 + 0.25 ** 2) * fan_in))
        assert abs(layer.layer.weight.data().asnumpy().std() / deviation - 1) < 0.02
        assert (layer.prelu.alpha.data().asnumpy() == 0.25).all() and not layer.layer.bias.data().asnumpy().any()
    assert net.fc6.layer.weight.init is net.fc7.layer.weight.init
    assert abs(net.output.weight.data().asnumpy().std() / 0.01 - 1) < 0.02


@pytest.mark.parametrize("size", [(15, 15), (33, 250), (224, 224), (300, 180)])
def test_any_size(size):
    summary = summarize(gluonzoo.get_model("msra_net_b"), (3,) + size)
    rows = {row.name: row.output_shape for row in summary.rows}
    assert rows["pyramid"] == (512 * 63,) and summary.rows[-1].output_shape == (1000,)


def test_smaller_images_are_refused():
    with pytest.raises(UserError, match="at least 15x15; the input has 14x15"):
        gluonzoo.get_model("msra_net_a").check_input((1, 3, 14, 15))


def test_a_hybridized_trunk_and_pyramid_take_other_sizes():
    # Without the dense layers, whose 140 million weights take longer than all else.
    trunk = nn.HybridSequential()
    trunk.add(gluonzoo.get_model("msra_net_a").features, SpatialPyramidPool())
    trunk.initialize()
    inputs = [mx.nd.random.normal(shape=(1, 3) + size) for size in ((32, 32), (47, 64), (15, 15))]
    expected = [trunk(x).asnumpy() for x in inputs]
    trunk.hybridize()
    for x, values in zip(inputs, expected):
        assert values.shape == (1, 512 * 63) and np.isfinite(values).all() and values.std() > 0
        np.testing.assert_array_equal(trunk(x).asnumpy(), values)


def test_unknown_configuration():
    with pytest.raises(UserError, match="configuration is 'D'; expected one of A, B, C"):
        MSRANet("D")
