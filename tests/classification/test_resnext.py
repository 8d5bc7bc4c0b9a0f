"""ResNeXts: the paper's tables."""
import json

import gluonzoo
from gluonzoo.classification.cifar_resnext import CifarResNeXt
from gluonzoo.classification.resnext import ResNeXt
from gluonzoo.errors import UserError
from gluonzoo.layers import features

import mxnet as mx
import numpy as np
import pytest


def convolutions(net):
    nodes = json.loads(net(mx.sym.var("data")).tojson())["nodes"]
    return [node["attrs"] for node in nodes if node["op"] == "Convolution"]


def map_shapes(name, size):
    net = gluonzoo.get_model(name)
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:] for shape in maps.infer_shape(data=(1, 3) + size)[1]]


@pytest.mark.parametrize("name, layers, groups, units", [
    ("resnext50_32x4d", 53, 32, 16), ("resnext101_32x4d", 104, 32, 33), ("resnext101_64x4d", 104, 64, 33),
    ("cifar_resnext29_8x64d", 31, 8, 9), ("cifar_resnext29_16x64d", 31, 16, 9), ("cifar_resnext29_32x4d", 31, 32, 9)])
def test_convolutions(name, layers, groups, units):
    found = convolutions(gluonzoo.get_model(name))
    assert len(found) == layers and all(attributes["no_bias"] == "True" for attributes in found)
    grouped = [attributes for attributes in found if attributes["num_group"] != "1"]
    assert len(grouped) == units
    assert {(attributes["num_group"], attributes["kernel"]) for attributes in grouped} == {(str(groups), "(3, 3)")}


def test_widths_of_table_1():
    net = gluonzoo.get_model("resnext50_32x4d")
    stages = [getattr(net.features, f"stage{index}") for index in (1, 2, 3, 4)]
    assert [len(stage) for stage in stages] == [3, 4, 6, 3]
    assert [stage[0].conv2.conv.weight.shape for stage in stages] == [
        (128, 4, 3, 3), (256, 8, 3, 3), (512, 16, 3, 3), (1024, 32, 3, 3)]
    assert [stage[1].conv3.conv.weight.shape[:2] for stage in stages] == [
        (256, 128), (512, 256), (1024, 512), (2048, 1024)]


def test_widths_of_cifar():
    net = gluonzoo.get_model("cifar_resnext29_8x64d")
    assert [getattr(net.features, f"stage{index}")[0].conv2.conv.weight.shape for index in (1, 2, 3)] == [
        (512, 64, 3, 3), (1024, 128, 3, 3), (2048, 256, 3, 3)]


def test_map_sizes():
    assert map_shapes("resnext50_32x4d", (224, 224)) == [
        (64, 56, 56), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]
    assert map_shapes("cifar_resnext29_32x4d", (32, 32)) == [(64, 32, 32), (256, 32, 32), (512, 16, 16), (1024, 8, 8)]
    assert map_shapes("resnext50_32x4d", (1, 3))[-1] == (2048, 1, 1)


def test_stride_is_on_the_grouped_convolution():
    strided = [(attributes["kernel"], attributes["num_group"])
               for attributes in convolutions(gluonzoo.get_model("resnext50_32x4d")) if attributes["stride"] == "(2, 2)"]
    assert sorted(strided) == sorted([("(7, 7)", "1")] + [("(3, 3)", "32"), ("(1, 1)", "1")] * 3)


def test_initialisation_counts_the_inputs_of_one_group():
    mx.random.seed(2)
    net = gluonzoo.get_model("cifar_resnext29_32x4d")
    net.initialize()
    weights = net.features.stage3[0].conv2.conv.weight.data().asnumpy()
    assert abs(weights.std() / np.sqrt(2 / (16 * 9)) - 1) < 0.03
    assert abs(net.output.weight.data().asnumpy().std() / 0.01 - 1) < 0.05


@pytest.mark.parametrize("make, message", [
    (lambda: ResNeXt(52, 32, 4), "layers is 52; expected one of 50, 101"),
    (lambda: ResNeXt(50, 0, 4), "groups is 0"), (lambda: CifarResNeXt(8, -1), "group_width is -1")])
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "layers" in message or isinstance(caught.value, UserError)
