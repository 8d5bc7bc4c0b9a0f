"""ResNets v2: the papers' facts, the variants' differences, and MXNet's own ResNets v2 with the same weights."""
import json

import gluonzoo
from gluonzoo.classification.cifar_preresnet import CifarPreResNet
from gluonzoo.classification.preresnet import PreResNet
from gluonzoo.layers import features
from gluonzoo.summary import count_macs, count_parameters

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision


def nodes_of(net):
    return json.loads(net(mx.sym.var("data")).tojson())["nodes"]


def convolutions(net):
    return [node["attrs"] for node in nodes_of(net) if node["op"] == "Convolution"]


def map_shapes(name, size):
    net = gluonzoo.get_model(name)
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:] for shape in maps.infer_shape(data=(1, 3) + size)[1]]


@pytest.mark.parametrize("name, layers", [
    ("resnet18_v2", 20), ("resnet34_v2", 36), ("resnet50_v2", 53), ("resnet50_v2_stride1x1", 53), ("resnet101_v2", 104),
    ("resnet152_v2_stride1x1", 155), ("resnet200_v2", 203), ("cifar_resnet20_v2", 21), ("cifar_resnet56_v2", 57),
    ("cifar_resnet110_v2", 111), ("cifar_resnet164_v2", 166)])
def test_number_of_convolutions_none_with_bias(name, layers):
    found = convolutions(gluonzoo.get_model(name))
    assert len(found) == layers and all(attributes["no_bias"] == "True" for attributes in found)


def test_1001_layers():
    net = gluonzoo.get_model("cifar_resnet1001_v2")
    units = [len(getattr(net.features, name)) for name in ("stage1", "stage2", "stage3")]
    assert units == [111, 111, 111]  # 333 units of three convolutions, the stem and the dense layer are 1001.
    convolutional = [block for block in blocks(net) if isinstance(block, nn.Conv2D)]
    assert len(convolutional) == 1003


def blocks(net):
    found = []
    net.apply(found.append)
    return found


@pytest.mark.parametrize("name", ["resnet18_v2", "resnet50_v2_stride1x1", "cifar_resnet20_v2", "cifar_resnet164_v2"])
def test_every_convolution_but_the_stem_follows_a_norm_and_relu(name):
    nodes = nodes_of(gluonzoo.get_model(name))
    sources = []
    for node in (node for node in nodes if node["op"] == "Convolution"):
        before = nodes[node["inputs"][0][0]]
        sources.append((before["op"], nodes[before["inputs"][0][0]]["op"] if before["inputs"] else ""))
    assert sources[0][0] == "null" and set(sources[1:]) == {("Activation", "BatchNorm")}
    # Sums meet sums: nothing but the projections stands on the way around a unit.
    added = [sorted(nodes[source]["op"] for source, *_ in node["inputs"]) for node in nodes if node["op"] == "elemwise_add"]
    projections = sum(attributes["kernel"] == "(1, 1)" for attributes in convolutions(gluonzoo.get_model("resnet18_v2")))
    assert projections == 3 and all("Convolution" in operators for operators in added)
    assert not any("Activation" in operators or "BatchNorm" in operators for operators in added)


def test_map_sizes():
    assert map_shapes("resnet18_v2", (224, 224)) == [
        (64, 56, 56), (64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7), (512, 7, 7)]
    assert map_shapes("resnet200_v2", (224, 224)) == [
        (64, 56, 56), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7), (2048, 7, 7)]
    assert map_shapes("cifar_resnet20_v2", (32, 32)) == [
        (16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8), (64, 8, 8)]
    assert map_shapes("cifar_resnet164_v2", (32, 32)) == [
        (16, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (256, 8, 8)]


@pytest.mark.parametrize("name", ["resnet18_v2", "resnet50_v2", "resnet50_v2_stride1x1"])
@pytest.mark.parametrize("size", [(225, 193), (1, 1), (33, 64), (7, 2)])
def test_any_size(name, size):
    halves, shapes = list(size), map_shapes(name, size)
    for index, shape in enumerate(shapes[:-1]):
        for _ in range(2 if index == 0 else 1 if index > 1 else 0):
            halves = [-(-length // 2) for length in halves]
        assert list(shape[1:]) == halves


@pytest.mark.parametrize("name, kernel", [
    ("resnet50_v2", "(3, 3)"), ("resnet50_v2_stride1x1", "(1, 1)"), ("resnet200_v2", "(1, 1)")])
def test_where_the_stride_is(name, kernel):
    strided = [attributes["kernel"] for attributes in convolutions(gluonzoo.get_model(name))
               if attributes["stride"] == "(2, 2)"]
    assert sorted(strided) == sorted(["(7, 7)"] + [kernel] * 3 + ["(1, 1)"] * 3)


def test_units_of_table_1():
    for layers, units in ((18, [2, 2, 2, 2]), (34, [3, 4, 6, 3]), (200, [3, 24, 36, 3])):
        net = PreResNet(layers)
        assert [len(getattr(net.features, f"stage{index}")) for index in (1, 2, 3, 4)] == units


def test_the_stride_of_the_authors_cifar_networks():
    net, spec = CifarPreResNet(164, stride_on_3x3=False), gluonzoo.model_spec("cifar_resnet164_v2")
    assert count_parameters(net) == spec.params and count_macs(net, (3, 32, 32)) == 244500992 < spec.macs


def values(parameter):
    """Weights that keep the signal's size, running statistics that are not the trivial ones."""
    random = np.random.RandomState(parameter.shape[0])
    if parameter.name.endswith(("gamma", "running_var")):
        return random.uniform(0.5, 1.0, parameter.shape)
    scale = 0.1 if len(parameter.shape) == 1 else np.sqrt(2 / np.prod(parameter.shape[1:]))
    return random.normal(0, scale, parameter.shape)


@pytest.mark.parametrize("name", ["resnet18_v2", "resnet50_v2"])
def test_equals_the_model_zoo_of_mxnet(name):
    ours, theirs = gluonzoo.get_model(name, classes=10), getattr(vision, name)(classes=10)
    x = mx.nd.random.normal(shape=(2, 3, 65, 50))
    ours.initialize()
    theirs.initialize()
    theirs(x)
    # Theirs begins with a BatchNorm of the image: the identity here.
    first = theirs.features[0]
    assert isinstance(first, nn.BatchNorm) and first.gamma.shape == (3,)
    first.running_var.set_data(mx.nd.ones(3) - first._kwargs["eps"])
    matching = [p for p in theirs.collect_params().values() if p not in first.collect_params().values()]
    assert len(matching) == len(ours.collect_params().values())
    for parameter, other in zip(ours.collect_params().values(), matching):
        assert parameter.shape == other.shape
        parameter.set_data(mx.nd.array(values(parameter)))
        other.set_data(parameter.data())
    expected = theirs(x).asnumpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(ours(x).asnumpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_initialisation_needs_no_arguments():
    mx.random.seed(2)
    net = gluonzoo.get_model("cifar_resnet20_v2")
    net.initialize()
    weights = net.features.stage3[0].conv1.weight.data().asnumpy()
    assert abs(weights.std() / np.sqrt(2 / (32 * 9)) - 1) < 0.03
    assert abs(net.output.weight.data().asnumpy().std() / 0.01 - 1) < 0.15
    norm = net.features.stage3[0].norm1
    assert (norm.gamma.data().asnumpy() == 1).all() and (norm.beta.data().asnumpy() == 0).all()


@pytest.mark.parametrize("name, units", [("cifar_resnet56_v2", 9), ("cifar_resnet164_v2", 18)])
def test_untrained_inference_keeps_the_variance_of_training(name, units):
    # Each unit adds about 1; with running variances of 1 it would double the variance instead, to 2**9 and more.
    mx.random.seed(2)
    net = gluonzoo.get_model(name)
    net.initialize()
    maps = features(net, ("stem", "stage1", "stage2", "stage3", "norm"))(mx.nd.random.normal(shape=(2, 3, 32, 32)))
    stem, *sums, last = [found.asnumpy().var() for found in maps]
    assert 1 < stem < 3 and 0.02 < last < 1
    assert all(0.1 < found / (units + 1) < 4 for found in sums)


@pytest.mark.slow
def test_1001_layers_run():
    mx.random.seed(2)
    net = gluonzoo.get_model("cifar_resnet1001_v2")
    net.initialize()
    outputs = net(mx.nd.random.normal(shape=(1, 3, 32, 32))).asnumpy()
    assert outputs.shape == (1, 10) and np.isfinite(outputs).all() and outputs.std() > 0


@pytest.mark.parametrize("make, message", [
    (lambda: PreResNet(51), "layers is 51; expected one of 18, 34, 50, 101, 152, 200"),
    (lambda: CifarPreResNet(32), "layers is 32; expected one of 20, 56, 110, 164, 1001")])
def test_unknown_configurations(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_unknown_option_is_a_type_error():
    with pytest.raises(TypeError, match="stride_on_3x3"):
        PreResNet(18, stride_on_3x3=True)
