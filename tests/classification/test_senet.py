"""Networks with squeeze-and-excitation: the authors' models, and ResNets of other files with the same weights."""
import json

import gluonzoo
from gluonzoo.classification.senet import SENet
from gluonzoo.layers import SqueezeExcite, features

import mxnet as mx
import numpy as np
import pytest

#: The same network without SE.
WITHOUT = {"se_resnet18": "resnet18_v1", "se_resnet50_b": "resnet50_v1b", "se_resnext50_32x4d": "resnext50_32x4d"}


def nodes_of(net):
    return json.loads(net(mx.sym.var("data")).tojson())["nodes"]


def convolutions(net):
    return [node["attrs"] for node in nodes_of(net) if node["op"] == "Convolution"]


def map_shapes(name, size):
    net = gluonzoo.get_model(name)
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:] for shape in maps.infer_shape(data=(1, 3) + size)[1]]


def blocks(net, kind):
    found = []
    net.apply(lambda block: found.append(block) if isinstance(block, kind) else None)
    return found


@pytest.mark.parametrize("name, layers, units", [
    ("se_resnet18", 36, 8), ("se_resnet34", 68, 16), ("se_resnet50", 85, 16), ("se_resnet50_b", 85, 16),
    ("se_resnet101", 170, 33), ("se_resnet152", 255, 50), ("se_resnext50_32x4d", 85, 16), ("se_resnext101_32x4d", 170, 33),
    ("senet154", 257, 50)])
def test_convolutions_and_where_biases_are(name, layers, units):
    net = gluonzoo.get_model(name)
    found = convolutions(net)
    assert len(found) == layers
    assert sum(attributes["no_bias"] == "False" for attributes in found) == 2 * units
    excited = blocks(net, SqueezeExcite)
    assert len(excited) == units
    for block in excited:
        hidden, channels = block.reduce.weight.shape[:2]
        assert channels == 16 * hidden and block.reduce.bias is not None and block.expand.bias is not None


@pytest.mark.parametrize("name, padded", [
    ("se_resnet18", False), ("se_resnet50", False), ("se_resnet50_b", True), ("se_resnext50_32x4d", False), ("senet154", False)])
def test_first_pooling(name, padded):
    pooling = next(node["attrs"] for node in nodes_of(gluonzoo.get_model(name)) if node["op"] == "Pooling")
    assert (pooling["pool_type"], pooling["kernel"], pooling["stride"]) == ("max", "(3, 3)", "(2, 2)")
    assert (pooling["pad"], pooling["pooling_convention"]) == (("(1, 1)", "valid") if padded else ("(0, 0)", "full"))


@pytest.mark.parametrize("name", ["se_resnet50", "se_resnet50_b", "senet154"])
def test_map_sizes(name):
    stem = 128 if name == "senet154" else 64
    assert map_shapes(name, (224, 224)) == [
        (stem, 56, 56), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]
    assert gluonzoo.get_model(name).min_size == ((1, 1) if name == "se_resnet50_b" else (5, 5))


@pytest.mark.parametrize("name", ["se_resnet18", "senet154"])
def test_smaller_images_than_the_smallest_have_no_map(name):
    assert map_shapes(name, (5, 5))[-1][1:] == (1, 1)
    with pytest.raises(mx.MXNetError):
        map_shapes(name, (4, 5))


@pytest.mark.parametrize("name, kernel", [
    ("se_resnet50", "(1, 1)"), ("se_resnet50_b", "(3, 3)"), ("se_resnext101_32x4d", "(3, 3)")])
def test_where_the_stride_is(name, kernel):
    strided = [attributes["kernel"] for attributes in convolutions(gluonzoo.get_model(name))
               if attributes["stride"] == "(2, 2)"]
    assert sorted(strided) == sorted(["(7, 7)"] + [kernel] * 3 + ["(1, 1)"] * 3)


def test_senet154():
    net = gluonzoo.get_model("senet154")
    stages = [getattr(net.features, f"stage{index}") for index in (1, 2, 3, 4)]
    assert [len(stage) for stage in stages] == [3, 8, 36, 3]
    stem = [block.conv.weight.shape for block in net.features.stem if hasattr(block, "conv")]
    assert stem == [(64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3)]
    # The first 1x1 has half the width of the 3x3, which has 64 groups.
    assert [stage[1].conv1.conv.weight.shape for stage in stages] == [
        (128, 256, 1, 1), (256, 512, 1, 1), (512, 1024, 1, 1), (1024, 2048, 1, 1)]
    assert [stage[1].conv2.conv.weight.shape for stage in stages] == [
        (256, 2, 3, 3), (512, 4, 3, 3), (1024, 8, 3, 3), (2048, 16, 3, 3)]
    assert [stage[0].shortcut.conv.weight.shape[2] for stage in stages] == [1, 3, 3, 3]
    assert all(stage[1].shortcut is None for stage in stages)
    assert net.dropout._rate == 0.2 and gluonzoo.get_model("se_resnet50").dropout is None


@pytest.mark.parametrize("name", WITHOUT)
def test_open_gates_leave_the_network_without_se(name):
    ours, other = gluonzoo.get_model(name, classes=10), gluonzoo.get_model(WITHOUT[name], classes=10)
    ours.initialize()
    other.initialize()
    mine = {key: parameter for key, parameter in ours._collect_params_with_prefix().items() if ".se." not in key}
    assert set(mine) == set(other._collect_params_with_prefix())
    for key, parameter in other._collect_params_with_prefix().items():
        mine[key].set_data(parameter.data())
    for block in blocks(ours, SqueezeExcite):
        block.expand.weight.set_data(mx.nd.zeros(block.expand.weight.shape))
        block.expand.bias.set_data(mx.nd.full(block.expand.bias.shape, 30))  # sigmoid(30) is 1 in float32.
    # At odd sizes, 33x45 here, both kinds of pooling see different pixels: ours replaces the other's stem.
    x = mx.nd.random.normal(shape=(2, 3, 66, 90))
    expected = ours.features.stem(x)
    for stage in other.stages[1:]:
        expected = getattr(other.features, stage)(expected)
    expected = other.output(other.pool(expected)).asnumpy()
    assert expected.std() > 0
    np.testing.assert_allclose(ours(x).asnumpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    same_stem = np.array_equal(other.features.stem(x).asnumpy(), ours.features.stem(x).asnumpy())
    assert same_stem == (name == "se_resnet50_b")


def test_initialisation_needs_no_arguments():
    mx.random.seed(2)
    net = gluonzoo.get_model("se_resnet18")
    net.initialize()
    weights = net.features.stage3[0].conv1.conv.weight.data().asnumpy()
    assert abs(weights.std() / np.sqrt(2 / (128 * 9)) - 1) < 0.03
    reduce = net.features.stage4[1].se.reduce
    assert abs(reduce.weight.data().asnumpy().std() / np.sqrt(2 / 512) - 1) < 0.05
    assert not reduce.bias.data().asnumpy().any()
    assert abs(net.output.weight.data().asnumpy().std() / 0.01 - 1) < 0.05


def test_unknown_configuration():
    with pytest.raises(ValueError, match="name is 'se_resnet20'; expected one of se_resnet18, se_resnet34"):
        SENet("se_resnet20")
