"""DenseNets for ImageNet and CIFAR: the paper's tables, smallest sizes, dropout, and MXNet's own DenseNet-121."""
import json

import gluonzoo
from gluonzoo.classification.cifar_densenet import CifarDenseNet
from gluonzoo.classification.densenet import DenseNet
from gluonzoo.errors import UserError
from gluonzoo.layers import features

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision


def convolutions(net):
    nodes = json.loads(net(mx.sym.var("data")).tojson())["nodes"]
    return [node["attrs"] for node in nodes if node["op"] == "Convolution"]


def map_shapes(name, size):
    net = gluonzoo.get_model(name)
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:3] for shape in maps.infer_shape(data=(1, 3, size, size))[1]]


@pytest.mark.parametrize("name, layers", [
    ("densenet121", 120), ("densenet169", 168), ("densenet201", 200), ("densenet161", 160), ("cifar_densenet_l40_k12", 39),
    ("cifar_densenet_l100_k24", 99), ("cifar_densenet_bc_l100_k12", 99), ("cifar_densenet_bc_l190_k40", 189),
    ("cifar_densenet_bc_l250_k24", 249)])
def test_number_of_convolutions_none_with_bias(name, layers):
    found = convolutions(gluonzoo.get_model(name))
    assert len(found) == layers and all(attributes["no_bias"] == "True" for attributes in found)


@pytest.mark.parametrize("name, channels", [
    ("densenet121", (64, 256, 128, 512, 256, 1024, 512, 1024, 1024)),
    ("densenet169", (64, 256, 128, 512, 256, 1280, 640, 1664, 1664)),
    ("densenet201", (64, 256, 128, 512, 256, 1792, 896, 1920, 1920)),
    ("densenet161", (96, 384, 192, 768, 384, 2112, 1056, 2208, 2208))])
def test_map_sizes_of_table_1(name, channels):
    assert map_shapes(name, 224) == list(zip(channels, (56, 56, 28, 28, 14, 14, 7, 7, 7)))


@pytest.mark.parametrize("name, channels", [
    ("cifar_densenet_l40_k12", (16, 160, 160, 304, 304, 448, 448)),            # Plain: transitions keep all channels.
    ("cifar_densenet_l100_k24", (16, 784, 784, 1552, 1552, 2320, 2320)),
    ("cifar_densenet_bc_l100_k12", (24, 216, 108, 300, 150, 342, 342)),        # BC: transitions keep half.
    ("cifar_densenet_bc_l190_k40", (80, 1320, 660, 1900, 950, 2190, 2190))])
def test_map_sizes_for_cifar(name, channels):
    assert map_shapes(name, 32) == list(zip(channels, (32, 32, 16, 16, 8, 8, 8)))


@pytest.mark.parametrize("name, smallest", [("densenet121", 29), ("cifar_densenet_bc_l100_k12", 4)])
def test_smallest_size_is_true(name, smallest):
    assert gluonzoo.get_model(name).min_size == (smallest, smallest)
    assert map_shapes(name, smallest)[-1][1] == 1
    with pytest.raises((mx.MXNetError, ValueError)):
        map_shapes(name, smallest - 1)


def test_bottlenecks_are_four_times_the_growth():
    def kernels(name):
        return [(attributes["kernel"], attributes["num_filter"]) for attributes in convolutions(gluonzoo.get_model(name))]
    assert kernels("cifar_densenet_bc_l100_k12")[1:3] == [("(1, 1)", "48"), ("(3, 3)", "12")]
    assert kernels("densenet161")[1:3] == [("(1, 1)", "192"), ("(3, 3)", "48")]
    plain = kernels("cifar_densenet_l40_k12")
    assert [kernel for kernel, _ in plain].count("(1, 1)") == 2  # The transitions'.
    assert plain[13] == ("(1, 1)", "160")


def dropouts(net):
    found = []
    net.apply(lambda block: found.append(block._rate) if isinstance(block, nn.Dropout) else None)
    return found


def test_dropout_follows_every_convolution_but_the_first():
    assert dropouts(gluonzoo.get_model("cifar_densenet_l40_k12", dropout=0.2)) == [0.2] * 38
    assert dropouts(gluonzoo.get_model("cifar_densenet_bc_l100_k12", dropout=0.2)) == [0.2] * 98
    assert dropouts(gluonzoo.get_model("cifar_densenet_bc_l100_k12")) == []
    with pytest.raises(UserError, match="dropout is 20"):
        gluonzoo.get_model("cifar_densenet_l40_k12", dropout=20)


def test_densenet121_equals_the_model_zoo_of_mxnet():
    ours, theirs = gluonzoo.get_model("densenet121", classes=7), vision.densenet121(classes=7)
    x = mx.nd.random.normal(shape=(2, 3, 65, 50))
    ours.initialize()
    theirs.initialize()
    theirs(mx.nd.zeros((1, 3, 224, 224)))
    assert len(ours.collect_params().keys()) == len(theirs.collect_params().keys())
    random = np.random.RandomState(1)
    for parameter, other in zip(ours.collect_params().values(), theirs.collect_params().values()):
        if parameter.name.endswith(("gamma", "running_var")):
            value = random.uniform(0.5, 1.0, parameter.shape)
        else:
            value = random.normal(0, 0.1 if len(parameter.shape) == 1 else np.sqrt(2 / np.prod(parameter.shape[1:])),
                                  parameter.shape)
        parameter.set_data(mx.nd.array(value))
        other.set_data(parameter.data())
    maps = x
    for block in list(theirs.features)[:-2]:  # Their last pooling takes 7x7 maps only.
        maps = block(maps)
    expected = theirs.output(maps.mean(axis=(2, 3))).asnumpy()
    assert maps.shape[2:] == (2, 1) and expected.std() > 0.01
    np.testing.assert_allclose(ours(x).asnumpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_initial_weights():
    net = gluonzoo.get_model("densenet121")
    net.initialize()
    stem = net.features.stem[0].conv.weight.data().asnumpy()
    assert stem.std() == pytest.approx(np.sqrt(2 / 147), rel=0.05)
    last = net.output.weight.data().asnumpy()
    assert np.abs(last).max() <= 1 / 32 and last.std() == pytest.approx(1 / 32 / np.sqrt(3), rel=0.02)
    assert not net.output.bias.data().asnumpy().any()


@pytest.mark.parametrize("make, message", [
    (lambda: DenseNet(122), "layers is 122; expected one of 121, 169, 201, 161"),
    (lambda: CifarDenseNet(41, 12, False), "layers is 41; expected 4 more than a multiple of 3"),
    (lambda: CifarDenseNet(43, 12, True), "layers is 43; expected 4 more than a multiple of 6"),
    (lambda: CifarDenseNet(4, 12, False), "layers is 4; expected 4 more"),
    (lambda: CifarDenseNet(40, 0, False), "growth is 0")])
def test_unknown_configurations(make, message):
    with pytest.raises(ValueError, match=message):
        make()
