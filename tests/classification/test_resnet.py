"""ResNets: the paper's tables, the variants' differences, and another library's ResNets with the same weights."""
import json

import gluonzoo
from gluonzoo.classification.cifar_resnet import CifarResNet
from gluonzoo.classification.resnet import ResNet
from gluonzoo.layers import features

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon.model_zoo import vision


def convolutions(net):
    nodes = json.loads(net(mx.sym.var("data")).tojson())["nodes"]
    return [node["attrs"] for node in nodes if node["op"] == "Convolution"]


def map_shapes(name, size):
    net = gluonzoo.get_model(name)
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:] for shape in maps.infer_shape(data=(1, 3) + size)[1]]


@pytest.mark.parametrize("name, layers", [
    ("resnet18_v1", 20), ("resnet18_v1_a", 17), ("resnet34_v1", 36), ("resnet50_v1", 53), ("resnet101_v1b", 104),
    ("resnet152_v1", 155), ("cifar_resnet20_v1_a", 19), ("cifar_resnet20_v1_b", 21), ("cifar_resnet56_v1_a", 55),
    ("cifar_resnet110_v1_b", 111)])
def test_number_of_convolutions_none_with_bias(name, layers):
    found = convolutions(gluonzoo.get_model(name))
    assert len(found) == layers and all(attributes["no_bias"] == "True" for attributes in found)


def test_map_sizes_of_table_1():
    assert map_shapes("resnet18_v1", (224, 224)) == [
        (64, 56, 56), (64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]
    assert map_shapes("resnet50_v1", (224, 224)) == [
        (64, 56, 56), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]
    assert map_shapes("cifar_resnet20_v1_a", (32, 32)) == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]


@pytest.mark.parametrize("name", ["resnet18_v1_a", "resnet50_v1", "resnet50_v1b"])
@pytest.mark.parametrize("size", [(225, 193), (1, 1), (33, 64), (7, 2)])
def test_any_size(name, size):
    halves, shapes = list(size), map_shapes(name, size)
    for index, shape in enumerate(shapes):
        for _ in range(2 if index == 0 else 1 if index > 1 else 0):
            halves = [-(-length // 2) for length in halves]
        assert list(shape[1:]) == halves


def test_where_the_stride_is():
    def strided(name):
        return [attributes["kernel"] for attributes in convolutions(gluonzoo.get_model(name))
                if attributes["stride"] == "(2, 2)"]
    shortcuts = ["(1, 1)"] * 3
    assert sorted(strided("resnet50_v1")) == sorted(["(7, 7)"] + ["(1, 1)"] * 3 + shortcuts)
    assert sorted(strided("resnet50_v1b")) == sorted(["(7, 7)"] + ["(3, 3)"] * 3 + shortcuts)


def test_v1b_of_18_layers_is_v1():
    def operators(name):
        nodes = json.loads(gluonzoo.get_model(name)(mx.sym.var("data")).tojson())["nodes"]
        return [(node["op"], node.get("attrs"), node["inputs"]) for node in nodes]
    assert operators("resnet18_v1b") == operators("resnet18_v1")
    assert operators("resnet50_v1b") != operators("resnet50_v1")


def values(parameter):
    """Weights that keep the signal's size, running statistics that are not the trivial ones."""
    random = np.random.RandomState(parameter.shape[0])
    if parameter.name.endswith(("gamma", "running_var")):
        return random.uniform(0.5, 1.0, parameter.shape)
    scale = 0.1 if len(parameter.shape) == 1 else np.sqrt(2 / np.prod(parameter.shape[1:]))
    return random.normal(0, scale, parameter.shape)


@pytest.mark.parametrize("name", ["resnet18_v1", "resnet50_v1"])
def test_equals_the_model_zoo_of_mxnet(name):
    ours, theirs = gluonzoo.get_model(name, classes=10), getattr(vision, name)(classes=10)
    x = mx.nd.random.normal(shape=(2, 3, 65, 50))
    ours.initialize()
    theirs.initialize()
    theirs(x)
    # Theirs has biases in bottlenecks' 1x1 convolutions, just before a BatchNorm: zero here.
    biases = [p for p in theirs.features.collect_params().values() if p.name.endswith("_bias")]
    assert bool(biases) == (name == "resnet50_v1")
    for parameter in biases:
        parameter.set_data(mx.nd.zeros(parameter.shape))
    matching = [p for p in theirs.collect_params().values() if p not in biases]
    assert len(matching) == len(ours.collect_params().values())
    for parameter, other in zip(ours.collect_params().values(), matching):
        parameter.set_data(mx.nd.array(values(parameter)))
        other.set_data(parameter.data())
    expected = theirs(x).asnumpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(ours(x).asnumpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_initialisation_needs_no_arguments():
    mx.random.seed(2)
    net = gluonzoo.get_model("cifar_resnet20_v1_b")
    net.initialize()
    weights = net.features.stage3[0].conv1.conv.weight.data().asnumpy()
    assert abs(weights.std() / np.sqrt(2 / (32 * 9)) - 1) < 0.03
    assert abs(net.output.weight.data().asnumpy().std() / 0.01 - 1) < 0.15
    norm = net.features.stage3[0].conv1.norm
    assert (norm.gamma.data().asnumpy() == 1).all() and (norm.beta.data().asnumpy() == 0).all()


@pytest.mark.parametrize("make, message", [
    (lambda: ResNet(51), "layers is 51; expected one of 18, 34, 50, 101, 152"),
    (lambda: CifarResNet(21), "layers is 21; expected one of 20, 32"),
    (lambda: CifarResNet(20, shortcut="z"), "shortcut is 'z'")])
def test_unknown_configurations(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_unknown_option_is_a_type_error():
    with pytest.raises(TypeError, match="stride_on_1x1"):
        ResNet(50, stride_on_1x1=True)
