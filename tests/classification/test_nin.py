"""Network in Network: the layers of the authors' releases, partial pooling windows, any image size."""
import json

import gluonzoo
from gluonzoo.classification.nin import AVERAGE_POOL_PARTIAL
from gluonzoo.errors import UserError
from gluonzoo.layers import features
from gluonzoo.summary import count_macs, summarize

import mxnet as mx
import numpy as np
import pytest


def map_shapes(name, size):
    net = gluonzoo.get_model(name)
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:] for shape in maps.infer_shape(data=(1, 3) + size)[1]]


def operators(name, kind):
    nodes = json.loads(gluonzoo.get_model(name)(mx.sym.var("data")).tojson())["nodes"]
    return [node["attrs"] for node in nodes if node["op"] == kind]


def test_maps():
    assert map_shapes("nin_cifar10", (32, 32)) == [(96, 32, 32), (96, 16, 16), (192, 16, 16), (192, 8, 8), (192, 8, 8)]
    assert [shape[1] for shape in map_shapes("nin_imagenet", (224, 224))] == [54, 26, 26, 12, 12, 5, 5]
    assert map_shapes("nin_imagenet", (227, 227)) == [
        (96, 55, 55), (96, 27, 27), (256, 27, 27), (256, 13, 13), (384, 13, 13), (384, 6, 6), (1024, 6, 6)]
    assert count_macs(gluonzoo.get_model("nin_imagenet"), (3, 227, 227)) == 1105996320


@pytest.mark.parametrize("name, kernels", [
    ("nin_cifar10", (5, 1, 1, 5, 1, 1, 3, 1, 1)), ("nin_imagenet", (11, 1, 1, 5, 1, 1, 3, 1, 1, 3, 1, 1))])
def test_convolutions_and_nothing_dense(name, kernels):
    found = operators(name, "Convolution")
    assert [one["kernel"] for one in found] == [f"({kernel}, {kernel})" for kernel in kernels]
    assert all(one["no_bias"] == "False" for one in found) and not operators(name, "FullyConnected")
    assert len(operators(name, "Activation")) == len(kernels)


def test_pooling_and_dropout():
    found = operators("nin_cifar10", "Pooling")
    assert [(one["pool_type"], one["kernel"], one["stride"], one["pooling_convention"]) for one in found] == [
        ("max", "(3, 3)", "(2, 2)", "full"), ("avg", "(3, 3)", "(2, 2)", "full")]
    assert [one["pool_type"] for one in operators("nin_imagenet", "Pooling")] == ["max"] * 3
    assert [one["p"] for one in operators("nin_cifar10", "Dropout")] == ["0.5"] * 2
    assert [one["p"] for one in operators("nin_imagenet", "Dropout")] == ["0.5"]


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 6), (3, 16)])
def test_partial_windows_average_their_own_pixels(hybrid, size):
    pool, x = AVERAGE_POOL_PARTIAL(), mx.nd.random.normal(shape=(2, 16) + size)
    pool.hybridize(hybrid)
    rows, columns = (-(-(length - 3) // 2) + 1 for length in size)
    expected = np.stack([np.stack([x.asnumpy()[:, :, 2 * row:2 * row + 3, 2 * column:2 * column + 3].mean((2, 3))
                                   for column in range(columns)], -1) for row in range(rows)], -2)
    np.testing.assert_allclose(pool(x).asnumpy(), expected, rtol=1e-4, atol=1e-6)


def test_output_is_the_mean_of_each_class_map():
    net = gluonzoo.get_model("nin_cifar10", classes=4)
    net.initialize()
    x = mx.nd.random.normal(0, 20, shape=(2, 3, 24, 30))
    maps = net.features(x).asnumpy()
    weight, bias = (net.output[0].weight.data().asnumpy()[:, :, 0, 0], net.output[0].bias.data().asnumpy())
    expected = np.maximum(np.einsum("kc,nchw->nkhw", weight, maps) + bias[:, None, None], 0).mean((2, 3))
    assert expected.max() > 0
    np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=1e-3, atol=1e-4 * expected.max())


@pytest.mark.parametrize("name, smallest", [("nin_cifar10", 6), ("nin_imagenet", 67)])
def test_smallest_size_is_the_true_one(name, smallest):
    net = gluonzoo.get_model(name)
    assert net.min_size == (smallest, smallest)
    assert summarize(net, (3, smallest, smallest)).rows[-1].output_shape == (net.classes,)
    with pytest.raises(UserError, match=f"at least {smallest}x{smallest}; the input has {smallest - 1}x{smallest}"):
        net.check_input((1, 3, smallest - 1, smallest))
    net.min_size = (1, 1)
    with pytest.raises(UserError, match="cannot take"):
        summarize(net, (3, smallest - 1, smallest))


def test_initial_weights():
    mx.random.seed(1)
    net = gluonzoo.get_model("nin_cifar10", classes=100)
    net.initialize()
    for key, parameter in net._collect_params_with_prefix().items():
        values = parameter.data().asnumpy()
        assert not values.any() if key.endswith("bias") else abs(values.std() / 0.05 - 1) < 0.03, key
