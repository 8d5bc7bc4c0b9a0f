"""Inception-v4: the figures' grids and kernels, where the pooling stands, and the initial weights."""
import collections
import json

import gluonzoo
from gluonzoo.layers import features

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn


def operators(kind):
    nodes = json.loads(gluonzoo.get_model("inception_v4")(mx.sym.var("data")).tojson())["nodes"]
    return [node.get("attrs", {}) for node in nodes if node["op"] == kind]


def map_shapes(size):
    net = gluonzoo.get_model("inception_v4")
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:] for shape in maps.infer_shape(data=(1, 3) + size)[1]]


def test_grids_of_figure_9():
    assert map_shapes((299, 299)) == [(64, 147, 147), (192, 71, 71), (384, 35, 35), (1024, 17, 17), (1536, 8, 8)]
    net = gluonzoo.get_model("inception_v4")
    assert [[block.channels for block in getattr(net.features, stage)._children.values()] for stage in net.stages[1:]] == [
        [160, 192], [384] * 5, [1024] * 8, [1536] * 4]


def test_smallest_size_is_the_smallest():
    assert map_shapes((75, 76))[-1] == (1536, 1, 1)
    with pytest.raises(mx.MXNetError):
        map_shapes((74, 75))


def test_149_convolutions_each_with_a_norm():
    found = operators("Convolution")
    assert len(found) == 149 and all(attributes["no_bias"] == "True" for attributes in found)
    norms = operators("BatchNorm")
    assert len(norms) == 149 and {attributes["eps"] for attributes in norms} == {"0.001"}
    assert len(operators("FullyConnected")) == 1
    # 1x1: 2 in the stem, 4 in each of 14 units, 1 and 2 in the reductions; 3x3: 7 in the stem, 3 in each of 4 units, 3 and 2;
    # 1x7 and 7x1: 1 in the stem, 3 in each of 7 units, 1 in Reduction-B; 1x3 and 3x1: 3 in each of 3 units.
    kernels = collections.Counter(attributes["kernel"] for attributes in found)
    assert kernels == {"(1, 1)": 61, "(3, 3)": 24, "(1, 7)": 23, "(7, 1)": 23, "(1, 3)": 9, "(3, 1)": 9}
    assert sum(attributes["stride"] == "(2, 2)" for attributes in found) == 7


def test_poolings():
    poolings = operators("Pooling")
    largest = [attributes for attributes in poolings if attributes["pool_type"] == "max"]
    means = [attributes for attributes in poolings if attributes["pool_type"] == "avg"]
    assert [attributes["stride"] for attributes in largest] == ["(2, 2)"] * 4
    assert len(means) == 14 and {(attributes["kernel"], attributes["pad"], attributes["count_include_pad"])
                                 for attributes in means} == {("(3, 3)", "(1, 1)", "False")}


@pytest.mark.parametrize("stage, module, channels, place", [
    ("stem2", "mixed_3a", 64, slice(0, 64)), ("stage1", "mixed_5a", 192, slice(192, 384)),
    ("stage2", "mixed_6a", 384, slice(640, 1024)), ("stage3", "mixed_7a", 1024, slice(512, 1536))])
def test_where_a_reduction_puts_its_input(stage, module, channels, place):
    block = getattr(getattr(gluonzoo.get_model("inception_v4").features, stage), module)
    block.initialize()
    x = np.random.RandomState(0).normal(size=(1, channels, 5, 6)).astype("float32")
    largest = np.stack([[x[:, :, i:i + 3, j:j + 3].max((2, 3)) for j in (0, 2)] for i in (0, 2)])
    np.testing.assert_array_equal(block(mx.nd.array(x)).asnumpy()[:, place], largest.transpose(2, 3, 0, 1))


def test_the_forks_of_inception_c():
    block = gluonzoo.get_model("inception_v4").features.stage3.mixed_7d
    parameters = block._collect_params_with_prefix()
    shapes = [parameters[name].shape for name in parameters if name.endswith("conv.weight")]
    assert shapes == [
        (256, 1536, 1, 1), (384, 1536, 1, 1), (256, 384, 1, 3), (256, 384, 3, 1), (384, 1536, 1, 1), (448, 384, 3, 1),
        (512, 448, 1, 3), (256, 512, 1, 3), (256, 512, 3, 1), (256, 1536, 1, 1)]


def test_initial_weights():
    mx.random.seed(3)
    net = gluonzoo.get_model("inception_v4")
    conv = net.features.stage1.mixed_5a.branch3x3.conv1.conv
    conv.initialize()
    net.output.initialize()
    assert abs(conv.weight.data().asnumpy().std() / np.sqrt(2 / (192 * 9)) - 1) < 0.02
    bound, weights = np.sqrt(6 / 2536), net.output.weight.data().asnumpy()
    assert 0.999 * bound < weights.max() <= bound and abs(weights.std() / bound * np.sqrt(3) - 1) < 0.01
    assert (net.output.bias.shape, isinstance(net.dropout, nn.Dropout), net.dropout._rate) == ((1000,), True, 0.2)
