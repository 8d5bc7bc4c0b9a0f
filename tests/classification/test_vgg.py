"""VGG: table 1 of its paper, its initialisation, and MXNet's own VGG with the same weights."""
import json

import gluonzoo
from gluonzoo.classification.vgg import VGG
from gluonzoo.errors import UserError
from gluonzoo.layers import features

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision


def operators(net, kind):
    nodes = json.loads(net(mx.sym.var("data")).tojson())["nodes"]
    return [node["attrs"] for node in nodes if node["op"] == kind]


@pytest.mark.parametrize("name, layers", [
    ("vgg11", 8), ("vgg13", 10), ("vgg16", 13), ("vgg16_c", 13), ("vgg19", 16), ("vgg11_bn", 8), ("vgg13_bn", 10),
    ("vgg16_bn", 13), ("vgg19_bn", 16)])
def test_number_of_layers_all_with_bias(name, layers):
    net = gluonzoo.get_model(name)
    found = operators(net, "Convolution")
    assert len(found) == layers and len(operators(net, "FullyConnected")) == 3 and len(operators(net, "Pooling")) == 5
    assert all(one["no_bias"] == "False" and one["stride"] == "(1, 1)" for one in found)
    assert len(operators(net, "BatchNorm")) == (layers if name.endswith("_bn") else 0)
    assert len(operators(net, "Dropout")) == 2


def test_maps_of_table_1():
    net = gluonzoo.get_model("vgg16")
    assert net.stages == ("conv1_1", "conv1_2", "pool1", "conv2_1", "conv2_2", "pool2", "conv3_1", "conv3_2", "conv3_3", "pool3",
                          "conv4_1", "conv4_2", "conv4_3", "pool4", "conv5_1", "conv5_2", "conv5_3", "pool5")
    maps = mx.sym.Group(features(net, [f"pool{number}" for number in range(1, 6)] + ["conv4_3"])(mx.sym.var("data")))
    assert [shape[1:] for shape in maps.infer_shape(data=(1, 3, 224, 224))[1]] == [
        (64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7), (512, 28, 28)]


def test_configuration_c_has_1x1_as_third_of_a_stack():
    kernels = [one["kernel"] for one in operators(gluonzoo.get_model("vgg16_c"), "Convolution")]
    assert [number for number, kernel in enumerate(kernels) if kernel == "(1, 1)"] == [6, 9, 12]
    assert set(kernels) == {"(1, 1)", "(3, 3)"}
    assert {one["kernel"] for one in operators(gluonzoo.get_model("vgg16"), "Convolution")} == {"(3, 3)"}


def test_initial_weights():
    mx.random.seed(1)
    net, normalized = gluonzoo.get_model("vgg11", classes=20), gluonzoo.get_model("vgg11_bn", classes=20)
    for one in (net, normalized):
        one.features.initialize()
        one.output.initialize()
        assert not any(parameter.data().asnumpy().any() for key, parameter in one._collect_params_with_prefix().items()
                       if key.endswith("bias") and not key.startswith("fc"))
    # Glorot and Bengio: uniform, variance 2 / (fan_in + fan_out).
    values = net.features.conv4_1.weight.data().asnumpy()
    assert abs(values.std() / np.sqrt(2 / (9 * (256 + 512))) - 1) < 0.01
    assert abs(np.abs(values).max() / np.sqrt(6 / (9 * (256 + 512))) - 1) < 0.01
    assert abs(net.output.weight.data().asnumpy().std() / np.sqrt(2 / (4096 + 20)) - 1) < 0.02
    assert net.fc6.weight.init is net.features.conv4_1.weight.init
    values = normalized.features.conv4_1.conv.weight.data().asnumpy()
    assert abs(values.std() / np.sqrt(2 / (9 * 512)) - 1) < 0.01
    assert abs(normalized.output.weight.data().asnumpy().std() / 0.01 - 1) < 0.02


def values(parameter):
    """Weights that keep the signal's size, running statistics that are not the trivial ones."""
    random = np.random.RandomState(parameter.shape[0])
    if parameter.name.endswith(("gamma", "running_var")):
        return random.uniform(0.5, 1.0, parameter.shape)
    if len(parameter.shape) == 1:
        return random.normal(0, 0.1, parameter.shape)
    return random.normal(0, np.sqrt(2 / np.prod(parameter.shape[1:])), parameter.shape)


@pytest.mark.parametrize("name", ["vgg13", "vgg16_bn"])
def test_convolutions_equal_the_model_zoo_of_mxnet(name):
    # Without the dense layers, on small images: those are the same operator with the same shapes (see below).
    ours, theirs = gluonzoo.get_model(name, classes=10), getattr(vision, name)(classes=10)
    convolutions = nn.HybridSequential()
    for layer in theirs.features._children.values():
        if isinstance(layer, nn.Dense):
            break
        convolutions.add(layer)
    x = mx.nd.random.normal(shape=(2, 3, 64, 32))
    ours.features.initialize()
    convolutions.initialize()
    convolutions(x)
    matching = list(convolutions.collect_params().values())
    assert len(ours.features.collect_params().keys()) == len(matching)
    for parameter, other in zip(ours.features.collect_params().values(), matching):
        assert parameter.shape == other.shape
        parameter.set_data(mx.nd.array(values(parameter)))
        other.set_data(parameter.data())
    expected = convolutions(x).asnumpy()
    assert expected.std() > 0.01 and expected.shape == (2, 512, 2, 1)
    np.testing.assert_allclose(ours.features(x).asnumpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("number", [11, 13, 16, 19])
@pytest.mark.parametrize("suffix", ["", "_bn"])
def test_operators_are_those_of_mxnet(number, suffix):
    ours, theirs = gluonzoo.get_model(f"vgg{number}{suffix}"), getattr(vision, f"vgg{number}{suffix}")()

    def shapes(net):
        output = net(mx.sym.var("data")).get_internals()
        return [shape for name, shape in zip(output.list_outputs(), output.infer_shape(data=(1, 3, 224, 224))[1])
                if name.endswith(("weight", "bias", "gamma", "beta"))]
    assert shapes(ours) == shapes(theirs)


@pytest.mark.slow
def test_equals_the_model_zoo_of_mxnet():
    ours, theirs = gluonzoo.get_model("vgg11", classes=10), vision.vgg11(classes=10)
    x = mx.nd.random.normal(shape=(1, 3, 224, 224))
    for net in (ours, theirs):
        net.initialize()
    theirs(x)
    for parameter, other in zip(ours.collect_params().values(), theirs.collect_params().values()):
        parameter.set_data(mx.nd.array(values(parameter)))
        other.set_data(parameter.data())
    expected = theirs(x).asnumpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(ours(x).asnumpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_unknown_configuration():
    with pytest.raises(UserError, match="configuration is 'F'; expected one of A, B, C, D, E"):
        VGG("F")
