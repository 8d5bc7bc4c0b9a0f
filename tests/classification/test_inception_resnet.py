"""Inception-ResNet-v1 and -v2: grids, units and their scales, which convolutions have a bias, the heads."""
import json

import gluonzoo
from gluonzoo.classification.inception_resnet import InceptionResidualUnit
from gluonzoo.layers import features
from gluonzoo.summary import count_parameters

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

NAMES = ("inception_resnet_v1", "inception_resnet_v2")


def operators(name, kind):
    nodes = json.loads(gluonzoo.get_model(name)(mx.sym.var("data")).tojson())["nodes"]
    return [node.get("attrs", {}) for node in nodes if node["op"] == kind]


def map_shapes(name, size):
    net = gluonzoo.get_model(name)
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:] for shape in maps.infer_shape(data=(1, 3) + size)[1]]


def units(net, stage):
    return [block for block in getattr(net.features, stage)._children.values() if isinstance(block, InceptionResidualUnit)]


@pytest.mark.parametrize("name, grids", [
    ("inception_resnet_v1", [(64, 147, 147), (192, 71, 71), (256, 35, 35), (896, 17, 17), (1792, 8, 8)]),
    ("inception_resnet_v2", [(64, 147, 147), (192, 71, 71), (320, 35, 35), (1088, 17, 17), (2080, 8, 8), (1536, 8, 8)])])
def test_grids(name, grids):
    assert map_shapes(name, (299, 299)) == grids
    assert map_shapes(name, (75, 76))[-1][1:] == (1, 1)
    with pytest.raises(mx.MXNetError):
        map_shapes(name, (75, 74))


@pytest.mark.parametrize("name, convolutions, dense, numbers", [
    ("inception_resnet_v1", 132, 2, (5, 10, 6)), ("inception_resnet_v2", 244, 1, (10, 20, 10))])
def test_layers(name, convolutions, dense, numbers):
    found, net = operators(name, "Convolution"), gluonzoo.get_model(name)
    assert len(found) == convolutions and len(operators(name, "FullyConnected")) == dense
    assert tuple(len(units(net, stage)) for stage in ("stage1", "stage2", "stage3")) == numbers
    # Only the 1x1 convolutions at the end of the units have a bias, and those have no BatchNorm.
    biased = [attributes for attributes in found if attributes["no_bias"] == "False"]
    assert len(biased) == sum(numbers)
    assert {(attributes["kernel"], attributes["num_filter"]) for attributes in biased} == {
        ("(1, 1)", str(channels)) for channels, _, _ in map_shapes(name, (75, 75))[2:5]}
    norms = operators(name, "BatchNorm")
    assert len(norms) == convolutions - sum(numbers) + dense - 1
    assert {attributes["eps"] for attributes in norms} == {"0.001"}


@pytest.mark.parametrize("name", NAMES)
def test_scales(name):
    net = gluonzoo.get_model(name)
    for stage, scale in (("stage1", 0.17), ("stage2", 0.10), ("stage3", 0.20)):
        found = [(unit._scale, unit._relu) for unit in units(net, stage)]
        last = [(1.0, False)] if stage == "stage3" else []
        assert found == [(scale, True)] * (len(found) - len(last)) + last


@pytest.mark.parametrize("relu", [True, False])
def test_a_unit_adds_the_scaled_branches(relu):
    unit = InceptionResidualUnit(4, {"one": [(3, 1)], "other": [(2, 1)]}, 0.25, relu)
    unit.initialize(mx.init.Normal(1))
    unit.project.bias.set_data(mx.nd.array([1, -2, 3, 0.5]))
    x = np.random.RandomState(1).normal(size=(2, 4, 3, 5)).astype("float32")

    def conv(maps, layer):
        return np.einsum("oc,nchw->nohw", layer.weight.data().asnumpy()[:, :, 0, 0], maps)

    # A new BatchNorm in inference divides by the root of 1 and its epsilon.
    branches = [np.maximum(conv(x, branch.conv1.conv) / np.sqrt(1.001), 0)
                for branch in (unit.branches.one, unit.branches.other)]
    expected = x + 0.25 * (conv(np.concatenate(branches, 1), unit.project)
                           + np.array([1, -2, 3, 0.5]).reshape((1, 4, 1, 1)))
    np.testing.assert_allclose(unit(mx.nd.array(x)).asnumpy(), np.maximum(expected, 0) if relu else expected,
                               rtol=1e-4, atol=1e-5)


def test_v1s_head():
    net = gluonzoo.get_model("inception_resnet_v1")
    inside, head = count_parameters(net.features), count_parameters(net.bottleneck) + count_parameters(net.output)
    assert (inside, head, inside + head) == (22564096, 1431528, 23995624)
    assert inside + 1792 * 1000 + 1000 == 24357096
    # No ReLU: half of the 512 normalised features are negative.
    net.bottleneck.initialize()
    with autograd.train_mode():
        found = net.bottleneck(mx.nd.random.uniform(shape=(8, 1792))).asnumpy()
    assert found.shape == (8, 512) and abs(found.mean()) < 1e-3 and 0.3 < (found < 0).mean() < 0.7


def test_v2s_pooling_leaves_the_padding_out():
    means = [attributes for attributes in operators("inception_resnet_v2", "Pooling") if attributes["pool_type"] == "avg"]
    assert [attributes["count_include_pad"] for attributes in means] == ["False"]
    assert not any(attributes["pool_type"] == "avg" for attributes in operators("inception_resnet_v1", "Pooling"))
    pool = gluonzoo.get_model("inception_resnet_v2").features.stage1.split1.branch_pool.fixed1
    np.testing.assert_allclose(pool(mx.nd.ones((1, 1, 4, 3))).asnumpy(), np.ones((1, 1, 4, 3)))


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights(name):
    mx.random.seed(4)
    net = gluonzoo.get_model(name)
    unit = units(net, "stage2")[0]
    for layer in (unit.project, unit.branches.branch7x7.conv2.conv, net.output):
        layer.initialize()
        shape = layer.weight.shape
        area = int(np.prod(shape[2:]))
        bound = np.sqrt(6 / (area * (shape[0] + shape[1])))
        weights = layer.weight.data().asnumpy()
        assert 0.999 * bound < np.abs(weights).max() <= bound * 1.0001
        assert abs(weights.std() / bound * np.sqrt(3) - 1) < 0.01
