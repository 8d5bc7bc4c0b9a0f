"""AlexNet: figure 2 of its paper, its two towers, its initialisation, and MXNet's own AlexNet with the same weights."""
import json

import gluonzoo
from gluonzoo.classification.alexnet import AlexNet
from gluonzoo.errors import UserError
from gluonzoo.layers import LRN, features
from gluonzoo.summary import count_macs, summarize

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision


def operators(name, kind, **options):
    nodes = json.loads(gluonzoo.get_model(name, **options)(mx.sym.var("data")).tojson())["nodes"]
    return [node["attrs"] for node in nodes if node["op"] == kind]


def map_shapes(name):
    net = gluonzoo.get_model(name)
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return dict(zip(net.stages, (shape[1:] for shape in maps.infer_shape(data=(1,) + gluonzoo.model_spec(name).input_shape)[1])))


@pytest.mark.parametrize("name", ["alexnet", "alexnet_ungrouped"])
def test_maps_of_figure_2(name):
    shapes = map_shapes(name)
    assert tuple(shapes) == ("conv1", "norm1", "pool1", "conv2", "norm2", "pool2", "conv3", "conv4", "conv5", "pool5")
    assert {key: shape for key, shape in shapes.items() if not key.startswith("norm")} == {
        "conv1": (96, 55, 55), "pool1": (96, 27, 27), "conv2": (256, 27, 27), "pool2": (256, 13, 13),
        "conv3": (384, 13, 13), "conv4": (384, 13, 13), "conv5": (256, 13, 13), "pool5": (256, 6, 6)}


def test_maps_of_the_single_tower():
    assert list(map_shapes("alexnet_owt").values()) == [
        (64, 55, 55), (64, 27, 27), (192, 27, 27), (192, 13, 13), (384, 13, 13), (256, 13, 13), (256, 13, 13), (256, 6, 6)]
    assert not operators("alexnet_owt", "LRN")


def test_parameters_of_each_layer():
    # The counts that the table of networks gives.
    counts = {row.name: row.params for row in summarize(gluonzoo.get_model("alexnet"), (3, 227, 227)).rows if row.params}
    assert counts == {"features.conv1": 34944, "features.conv2": 307456, "features.conv3": 885120, "features.conv4": 663936,
                      "features.conv5": 442624, "fc6": 37752832, "fc7": 16781312, "output": 4097000}
    counts = {row.name: row.params for row in summarize(gluonzoo.get_model("alexnet_ungrouped"), (3, 227, 227)).rows}
    assert [counts[f"features.conv{number}"] for number in (2, 4, 5)] == [614656, 1327488, 884992]
    # What gluoncv2 and pytorchcv call AlexNet is this network on other images.
    net = gluonzoo.get_model("alexnet_ungrouped")
    net.fixed_size, net.min_size = False, (1, 1)
    assert count_macs(net.features, (3, 224, 224)) + sum((9216 * 4096, 4096 * 4096, 4096 * 1000)) == 1131457664


def test_convolutions_and_pooling():
    found = operators("alexnet", "Convolution")
    assert [(one["kernel"], one["stride"], one["pad"], one["num_group"]) for one in found] == [
        ("(11, 11)", "(4, 4)", "(0, 0)", "1"), ("(5, 5)", "(1, 1)", "(2, 2)", "2"), ("(3, 3)", "(1, 1)", "(1, 1)", "1"),
        ("(3, 3)", "(1, 1)", "(1, 1)", "2"), ("(3, 3)", "(1, 1)", "(1, 1)", "2")]
    assert {found["num_group"] for found in operators("alexnet_ungrouped", "Convolution")} == {"1"}
    for name in ("alexnet", "alexnet_owt"):  # Overlapping: windows of 3, steps of 2.
        assert [(found["kernel"], found["stride"], found["pool_type"]) for found in operators(name, "Pooling")] == [
            ("(3, 3)", "(2, 2)", "max")] * 3


def test_normalization_constants():
    for found in operators("alexnet", "LRN"):
        assert (found["nsize"], float(found["knorm"]), float(found["beta"])) == ("5", 2.0, 0.75)
        assert abs(float(found["alpha"]) - 5e-4) < 1e-9
    found = operators("alexnet", "LRN", lrn="caffe")
    assert [(float(one["knorm"]), float(one["alpha"])) for one in found] == [(1.0, 1e-4)] * 2


def test_towers_do_not_meet_in_conv2():
    net = gluonzoo.get_model("alexnet")
    conv = net.features.conv2
    conv.initialize()
    x = mx.nd.random.uniform(shape=(1, 96, 5, 5))
    before = conv(x).asnumpy()
    x[:, 48:] = 0
    after = conv(x).asnumpy()
    np.testing.assert_array_equal(after[:, :128], before[:, :128])
    assert np.abs(after[:, 128:] - before[:, 128:]).max() > 0


def test_initial_weights():
    mx.random.seed(1)
    net = gluonzoo.get_model("alexnet", classes=20)
    # Not the hidden layers, whose 54 million weights take longer than all other tests: they have the same initializer.
    assert net.fc6.weight.init is net.fc7.weight.init is net.output.weight.init
    for block in (net.features, net.output):
        block.initialize()
    for layer in (net.fc6, net.fc7):
        layer.bias.initialize()
        assert (layer.bias.data().asnumpy() == 1).all()
    for key, parameter in net._collect_params_with_prefix().items():
        layer, kind = key.split(".")[-2:]
        if kind == "bias":
            assert (parameter.data().asnumpy() == (1 if layer in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0)).all(), key
        elif not layer.startswith("fc"):
            values = parameter.data().asnumpy()
            assert abs(values.std() / 0.01 - 1) < 0.03 and abs(values.mean()) < 5e-4, key


def test_equals_the_model_zoo_of_mxnet():
    ours, theirs = gluonzoo.get_model("alexnet_owt", classes=10), vision.alexnet(classes=10)
    noise = np.random.RandomState(3).standard_normal(999983).astype("float32")
    x = mx.nd.random.normal(shape=(1, 3, 224, 224))
    for net in (ours, theirs):
        for parameter in net.collect_params().values():
            parameter.initialize(init=mx.init.Zero())
    theirs(x)
    parameters, others = (list(net.collect_params().values()) for net in (ours, theirs))
    assert [parameter.shape for parameter in parameters] == [parameter.shape for parameter in others]
    for parameter, other in zip(parameters, others):
        scale = 0.1 if len(parameter.shape) == 1 else np.sqrt(2 / np.prod(parameter.shape[1:]))
        values = mx.nd.array(np.resize(noise, parameter.shape) * scale)
        parameter.set_data(values)
        other.set_data(values)
    expected = theirs(x).asnumpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(ours(x).asnumpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_dropout_of_half_the_hidden_units():
    net = gluonzoo.get_model("alexnet")
    assert isinstance(net.dropout, nn.Dropout) and net.dropout._rate == 0.5
    nodes = json.loads(net(mx.sym.var("data")).tojson())["nodes"]
    assert [node["op"] for node in nodes if node["op"] in ("Dropout", "FullyConnected")] == [
        "FullyConnected", "Dropout", "FullyConnected", "Dropout", "FullyConnected"]


def test_bad_options():
    with pytest.raises(UserError, match="lrn is 'keras'; expected one of 'paper', 'caffe'"):
        gluonzoo.get_model("alexnet", lrn="keras")
    with pytest.raises(UserError, match="configuration is '2013'; expected one of '2012'"):
        AlexNet("2013")
    with pytest.raises(TypeError, match="lrn"):
        gluonzoo.get_model("alexnet_owt", lrn="caffe")
    assert isinstance(AlexNet("2012").features.norm1, LRN)
