"""Xception: figure 5 by its layers, a unit against NumPy, and the initial weights."""
import json

import gluonzoo
from gluonzoo.classification.xception import SeparableConvNorm, XceptionUnit
from gluonzoo.layers import features

import mxnet as mx
import numpy as np
import pytest


def operators(kind):
    nodes = json.loads(gluonzoo.get_model("xception")(mx.sym.var("data")).tojson())["nodes"]
    return [node.get("attrs", {}) for node in nodes if node["op"] == kind]


def map_shapes(size):
    net = gluonzoo.get_model("xception")
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:] for shape in maps.infer_shape(data=(1, 3) + size)[1]]


def test_grids_of_figure_5():
    assert map_shapes((299, 299)) == [(64, 147, 147), (128, 74, 74), (256, 37, 37), (728, 19, 19), (2048, 10, 10)]
    assert map_shapes((7, 8))[-1] == (2048, 1, 1)
    with pytest.raises(mx.MXNetError):
        map_shapes((6, 7))


def test_36_layers_in_14_modules():
    found = operators("Convolution")
    assert all(attributes["no_bias"] == "True" for attributes in found)
    depthwise = [attributes for attributes in found if attributes["num_group"] != "1"]
    assert len(depthwise) == 34 and all(attributes["num_group"] == attributes["num_filter"] and
                                        attributes["kernel"] == "(3, 3)" and attributes["stride"] == "(1, 1)"
                                        for attributes in depthwise)
    # Two plain convolutions, 34 separable ones in two parts, four shortcuts.
    assert len(found) == 2 + 2 * 34 + 4 and len(operators("BatchNorm")) == 2 + 34 + 4
    assert [attributes["kernel"] for attributes in found if attributes["stride"] == "(2, 2)"] == ["(3, 3)"] + 4 * ["(1, 1)"]
    assert [attributes["num_filter"] for attributes in found if attributes["kernel"] == "(1, 1)"
            and attributes["stride"] == "(2, 2)"] == ["128", "256", "728", "1024"]
    poolings = operators("Pooling")
    assert [(attributes["kernel"], attributes["stride"], attributes["pad"], attributes["pool_type"])
            for attributes in poolings] == 4 * [("(3, 3)", "(2, 2)", "(1, 1)", "max")]
    net = gluonzoo.get_model("xception")
    modules = [block for name in net.stages for block in getattr(net.features, name) if isinstance(block, XceptionUnit)]
    assert len(modules) == 12 and sum(len(module.convs) for module in modules) + 2 == 34
    assert [module.shortcut is None for module in modules] == 3 * [False] + 8 * [True] + [False]


def test_where_the_relus_are():
    # The first separable convolution of all, and the first of the last two, follow a ReLU or an addition directly.
    net = gluonzoo.get_model("xception")
    assert [unit._first_relu for unit in net.features.stage1] == [False]
    assert all(unit._first_relu for name in ("stage2", "stage3") for unit in getattr(net.features, name))
    assert net.features.stage4[0]._first_relu and isinstance(net.features.stage4[1], SeparableConvNorm)
    assert len(operators("Activation")) == 2 + 1 + 2 + (2 + 8 * 3) + 2 + 2


def separable(x, block):
    """Depthwise 3x3, 1x1 and a new BatchNorm in inference, the slow way."""
    weight = block.depthwise.weight.data().asnumpy()[:, 0]
    padded, (rows, columns) = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), x.shape[2:]
    maps = sum(weight[:, i, j].reshape((1, -1, 1, 1)) * padded[:, :, i:i + rows, j:j + columns]
               for i in range(3) for j in range(3))
    return np.einsum("oc,nchw->nohw", block.pointwise.weight.data().asnumpy()[:, :, 0, 0], maps) / np.sqrt(1 + 1e-5)


def pooled(x):
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    rows, columns = (-(-length // 2) for length in x.shape[2:])
    windows = [[padded[:, :, 2 * i:2 * i + 3, 2 * j:2 * j + 3].max((2, 3)) for j in range(columns)] for i in range(rows)]
    return np.array(windows).transpose(2, 3, 0, 1)


@pytest.mark.parametrize("widths, strides, first_relu", [
    ((4, 4, 4), 1, True), ((3, 6), 2, True), ((6, 5), 2, False), ((3, 5), 1, True)])
def test_unit(widths, strides, first_relu):
    unit = XceptionUnit(4, widths, strides, first_relu)
    unit.initialize(mx.init.Normal(1), force_reinit=True)
    x = np.random.RandomState(8).normal(size=(2, 4, 7, 6)).astype("float32")
    body = x
    for index, block in enumerate(unit.convs):
        body = separable(np.maximum(body, 0) if index or first_relu else body, block)
    around = x
    if (strides, widths[-1]) != (1, 4):
        weight = unit.shortcut.conv.weight.data().asnumpy()[:, :, 0, 0]
        around = np.einsum("oc,nchw->nohw", weight, x[:, :, ::strides, ::strides]) / np.sqrt(1 + 1e-5)
    expected = (pooled(body) if strides == 2 else body) + around
    assert expected.min() < 0  # No ReLU after the addition.
    np.testing.assert_allclose(unit(mx.nd.array(x)).asnumpy(), expected, rtol=1e-4, atol=1e-4)


def test_initial_weights():
    mx.random.seed(9)
    net = gluonzoo.get_model("xception")
    block = net.features.stage3[3].convs[0]
    block.initialize()
    net.output.initialize()
    assert abs(block.depthwise.weight.data().asnumpy().std() / np.sqrt(1 / 9) - 1) < 0.03
    assert abs(block.pointwise.weight.data().asnumpy().std() / np.sqrt(2 / 728) - 1) < 0.01
    assert abs(net.output.weight.data().asnumpy().std() / 0.01 - 1) < 0.01 and net.dropout._rate == 0.5
