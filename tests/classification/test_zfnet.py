"""ZFNet: figure 3 and table 2 of its paper."""
import json

import gluonzoo
from gluonzoo.layers import features

import mxnet as mx
import pytest


def map_shapes(name):
    net = gluonzoo.get_model(name)
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return dict(zip(net.stages, (shape[1:] for shape in maps.infer_shape(data=(1, 3, 224, 224))[1])))


@pytest.mark.parametrize("name, third, fourth, fifth", [("zfnet", 384, 384, 256), ("zfnet_b", 512, 1024, 512)])
def test_maps_of_figure_3(name, third, fourth, fifth):
    shapes = map_shapes(name)
    # Pooled, then normalized.
    assert tuple(shapes) == ("conv1", "pool1", "norm1", "conv2", "pool2", "norm2", "conv3", "conv4", "conv5", "pool5")
    assert shapes == {
        "conv1": (96, 110, 110), "pool1": (96, 55, 55), "norm1": (96, 55, 55), "conv2": (256, 26, 26), "pool2": (256, 13, 13),
        "norm2": (256, 13, 13), "conv3": (third, 13, 13), "conv4": (fourth, 13, 13), "conv5": (fifth, 13, 13),
        "pool5": (fifth, 6, 6)}


def test_filters():
    nodes = json.loads(gluonzoo.get_model("zfnet")(mx.sym.var("data")).tojson())["nodes"]
    found = [node["attrs"] for node in nodes if node["op"] == "Convolution"]
    assert [(one["kernel"], one["stride"], one["num_group"]) for one in found] == [
        ("(7, 7)", "(2, 2)", "1"), ("(5, 5)", "(2, 2)", "1")] + [("(3, 3)", "(1, 1)", "1")] * 3
    assert all(one["no_bias"] == "False" for one in found)
    assert [node["op"] for node in nodes if node["op"] in ("Dropout", "FullyConnected")] == [
        "FullyConnected", "Dropout", "FullyConnected", "Dropout", "FullyConnected"]


def test_initial_weights():
    mx.random.seed(1)
    net = gluonzoo.get_model("zfnet", classes=20)
    # Not the hidden layers, whose 54 million weights take longer than all other tests: they have the same initializer.
    assert net.fc6.weight.init is net.fc7.weight.init is net.output.weight.init
    assert net.fc6.bias.init == net.fc7.bias.init == net.output.bias.init
    for block in (net.features, net.output):
        block.initialize()
        for name, parameter in block.collect_params().items():
            values = parameter.data().asnumpy()
            if name.endswith("bias"):
                assert not values.any(), name
            else:
                assert abs(values.std() / 0.01 - 1) < 0.03 and abs(values.mean()) < 5e-4, name
