"""BN-Inception: figure 5, halving of odd sizes, and the gates of the SE network."""
import json

import gluonzoo
from gluonzoo.classification.bn_inception import GatedInception, HalvingMaxPool
from gluonzoo.layers import features

import mxnet as mx
import numpy as np
import pytest


def operators(name, kind):
    nodes = json.loads(gluonzoo.get_model(name)(mx.sym.var("data")).tojson())["nodes"]
    return [node.get("attrs", {}) for node in nodes if node["op"] == kind]


def modules(name):
    """(paper's name, block) of the ten modules."""
    stages = gluonzoo.get_model(name).features
    paper = {("inception4", "reduction"): "3c", ("inception5", "reduction"): "4e"}
    return [(paper.get((stage, key), stage[-1] + key), block) for stage in ("inception3", "inception4", "inception5")
            for key, block in getattr(stages, stage)._children.items()]


def map_shapes(name, size):
    net = gluonzoo.get_model(name)
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:] for shape in maps.infer_shape(data=(1, 3) + size)[1]]


@pytest.mark.parametrize("name, layers, with_bias", [("bn_inception", 69, 69), ("se_bn_inception", 89, 20)])
def test_layers(name, layers, with_bias):
    found = operators(name, "Convolution")
    assert len(found) == layers and sum(attributes["no_bias"] == "False" for attributes in found) == with_bias
    norms = operators(name, "BatchNorm")
    assert len(norms) == 69 and {float(n["eps"]) for n in norms} == {1e-5}
    assert len(operators(name, "FullyConnected")) == 1
    assert [a["kernel"] for a in found if a["stride"] == "(2, 2)"] == ["(7, 7)"] + ["(3, 3)"] * 4


@pytest.mark.parametrize("name", ["bn_inception", "se_bn_inception"])
def test_widths_of_figure_5(name):
    assert [(paper, block.channels) for paper, block in modules(name)] == [
        ("3a", 256), ("3b", 320), ("3c", 576), ("4a", 576), ("4b", 576), ("4c", 608), ("4d", 608), ("4e", 1056), ("5a", 1024),
        ("5b", 1024)]
    assert map_shapes(name, (224, 224)) == [(192, 28, 28), (320, 28, 28), (608, 14, 14), (1024, 7, 7)]


def test_poolings_of_figure_5():
    pools = operators("bn_inception", "Pooling")
    kinds = [(p["pool_type"], p["stride"]) for p in pools]
    halving, average, keeping = ("max", "(2, 2)"), ("avg", "(1, 1)"), ("max", "(1, 1)")
    assert kinds == [halving] * 2 + [average] * 2 + [halving] + [average] * 4 + [halving, average, keeping]
    assert {p["count_include_pad"] for p in pools if p["pool_type"] == "avg"} == {"True"}
    assert [p["pooling_convention"] for p in pools[:2]] == ["full", "full"]


@pytest.mark.parametrize("size", [(1, 2), (3, 3), (4, 6), (5, 8), (7, 7)])
def test_halving(size):
    x = np.random.RandomState(0).uniform(0, 1, (2, 3) + size).astype("float32")
    found = HalvingMaxPool()(mx.nd.array(x)).asnumpy()
    rows, columns = -(-size[0] // 2), -(-size[1] // 2)
    assert found.shape == (2, 3, rows, columns)
    for i in range(rows):
        for j in range(columns):
            window = x[:, :, 2 * i:2 * i + 3, 2 * j:2 * j + 3]
            np.testing.assert_array_equal(found[:, :, i, j], window.max(axis=(2, 3)))


@pytest.mark.parametrize("size", [(14, 28), (4, 4), (6, 10)])
def test_halving_of_even_sizes_is_caffes(size):
    x = mx.nd.random.uniform(shape=(1, 2) + size)
    caffe = mx.nd.Pooling(x, kernel=(3, 3), stride=(2, 2), pool_type="max", pooling_convention="full")
    np.testing.assert_array_equal(HalvingMaxPool()(x).asnumpy(), caffe.asnumpy())


@pytest.mark.parametrize("size", [(11, 11), (13, 61), (57, 100), (225, 230)])
def test_any_size(size):
    shapes = [shape[1:] for shape in map_shapes("bn_inception", size)]
    for before, after in zip(shapes[1:], shapes[2:]):
        assert after == tuple(-(-length // 2) for length in before)


def test_smallest_size_is_the_smallest():
    assert gluonzoo.get_model("bn_inception").min_size == (11, 11)
    with pytest.raises(mx.MXNetError, match="kernel size"):
        map_shapes("bn_inception", (10, 11))


def test_every_module_is_gated_with_a_sixteenth_of_its_channels():
    """The numbers of outputs of the authors' `_1x1_down` layers."""
    found = modules("se_bn_inception")
    assert all(isinstance(block, GatedInception) for _, block in found)
    assert [block.gate.reduce.weight.shape[0] for _, block in found] == [16, 20, 36, 36, 36, 38, 38, 66, 64, 64]
    for _, block in found:
        assert block.gate.reduce.weight.shape[1] == block.gate.expand.weight.shape[0] == block.channels


def test_the_gate_weighs_the_joined_branches():
    mx.random.seed(1)
    module = GatedInception(8, {"a": [(10, 1)], "b": [(22, 3)]})
    module.initialize()
    for parameter in module.gate.collect_params().values():  # The biases too, and whatever the ReLU would leave at zero.
        parameter.set_data(mx.nd.random.normal(0.5, 1, parameter.shape))
    x = mx.nd.random.normal(shape=(2, 8, 5, 6))
    joined = mx.nd.concat(module.a(x), module.b(x), dim=1).asnumpy()
    down, up = ([p.data().asnumpy().squeeze() for p in (layer.weight, layer.bias)]
                for layer in (module.gate.reduce, module.gate.expand))
    hidden = np.maximum(joined.mean(axis=(2, 3)) @ down[0].T + down[1], 0)
    factors = 1 / (1 + np.exp(-(hidden @ up[0].T + up[1])))
    assert factors.std() > 0
    np.testing.assert_allclose(module(x).asnumpy(), joined * factors[:, :, None, None], rtol=1e-4, atol=1e-6)


def test_initial_weights():
    mx.random.seed(3)
    net = gluonzoo.get_model("bn_inception")
    net.initialize()
    conv = net.features.inception5.a.branch_double3x3.conv3.conv
    assert conv.weight.data().asnumpy().std() == pytest.approx(np.sqrt(2 / (224 * 9)), rel=0.02)
    assert (conv.bias.data().asnumpy() == 0).all()
    assert net.output.weight.data().asnumpy().std() == pytest.approx(0.01, rel=0.02)
