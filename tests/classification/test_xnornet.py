"""XNOR-Net and Binary-Weight-Network: which layers are binary, what stands before them, and equality with plain networks."""
import gluonzoo
from gluonzoo.classification.xnornet import BinaryAlexNet, XNORUnit, bwn_resnet18
from gluonzoo.layers import BinaryConv2D, BinaryWeightConv2D, features
from gluonzoo.summary import count_macs, count_parameters

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn


def blocks(net, *kinds):
    found = []
    net.apply(lambda block: found.append(block) if type(block) in kinds else None)
    return found


def scaled_signs(weight):
    w = weight.asnumpy()
    return mx.nd.array(np.abs(w).mean(axis=(1, 2, 3), keepdims=True) * np.sign(w))


@pytest.mark.parametrize("name, kind", [("xnor_alexnet", BinaryConv2D), ("bwn_alexnet", BinaryWeightConv2D)])
def test_alexnet_layers(name, kind):
    net = gluonzoo.get_model(name)
    convolutions = blocks(net, nn.Conv2D, BinaryConv2D, BinaryWeightConv2D)
    assert [type(block) for block in convolutions] == [nn.Conv2D] + [kind] * 6 + [nn.Conv2D]
    assert [block.weight.shape for block in convolutions] == [
        (96, 3, 11, 11), (256, 96, 5, 5), (384, 256, 3, 3), (384, 384, 3, 3), (256, 384, 3, 3), (4096, 256, 6, 6),
        (4096, 4096, 1, 1), (1000, 4096, 1, 1)]
    assert all(block._kwargs["num_group"] == 1 and block.bias is not None for block in convolutions)
    assert sum(map(count_parameters, convolutions)) == 62378344
    assert not blocks(net, nn.Dense)


def test_xnor_alexnet_order():
    """BatchNorm, sign and convolution in every binary layer: eight BatchNorms, of their inputs' widths."""
    net = gluonzoo.get_model("xnor_alexnet")
    norms = blocks(net, nn.BatchNorm)
    assert [norm.gamma.shape[0] for norm in norms] == [96, 96, 256, 384, 384, 256, 4096, 4096]
    assert [norm._kwargs["eps"] for norm in norms] == [1e-5] + [1e-4] * 6 + [1e-3]
    assert sum(map(count_parameters, norms)) == 19328
    kinds = {stage: [type(block).__name__ for block in getattr(net.features, stage)] for stage in net.stages}
    binary, pooled = ["BatchNorm", "BinaryConv2D"], ["BatchNorm", "BinaryConv2D", "MaxPool2D"]
    assert kinds == {"conv1": ["Conv2D", "BatchNorm", "Activation", "MaxPool2D"], "conv2": pooled, "conv3": binary,
                     "conv4": binary, "conv5": pooled, "conv6": binary, "conv7": binary + ["BatchNorm", "Activation"]}
    assert not blocks(net, nn.Dropout)


def test_bwn_alexnet_order():
    net = gluonzoo.get_model("bwn_alexnet")
    norms = blocks(net, nn.BatchNorm)
    assert [norm.gamma.shape[0] for norm in norms] == [96, 256, 384, 384, 256, 4096, 4096]
    assert {norm._kwargs["eps"] for norm in norms} == {1e-3}
    kinds = {stage: [type(block).__name__ for block in getattr(net.features, stage)] for stage in net.stages}
    layer = ["BinaryWeightConv2D", "BatchNorm", "Activation"]
    assert kinds == {"conv1": ["Conv2D"] + layer[1:] + ["MaxPool2D"], "conv2": layer + ["MaxPool2D"], "conv3": layer,
                     "conv4": layer, "conv5": layer + ["MaxPool2D"], "conv6": ["Dropout"] + layer, "conv7": ["Dropout"] + layer}
    assert [(block._rate, block._axes) for block in blocks(net, nn.Dropout)] == [(0.1, (2, 3))] * 2
    assert blocks(BinaryAlexNet(binary_inputs=False, dropout=0.5), nn.Dropout)[0]._rate == 0.5


@pytest.mark.parametrize("name", ["xnor_alexnet", "bwn_alexnet"])
def test_alexnet_map_sizes(name):
    net = gluonzoo.get_model(name)
    _, shapes, _ = mx.sym.Group(features(net, net.stages)(mx.sym.var("data"))).infer_shape(data=(1, 3, 224, 224))
    assert [shape[1:] for shape in shapes] == [(96, 27, 27), (256, 13, 13), (384, 13, 13), (384, 13, 13), (256, 6, 6),
                                               (4096, 1, 1), (4096, 1, 1)]


def test_resnet18_layers():
    """The 16 convolutions of 3x3 are binary, each behind a BatchNorm of its input; everything else is real."""
    net = gluonzoo.get_model("xnor_resnet18")
    binary = blocks(net, BinaryConv2D)
    assert len(binary) == 16 and all(block._kwargs["kernel"] == (3, 3) and block.bias is None for block in binary)
    assert [block._kwargs["kernel"] for block in blocks(net, nn.Conv2D)] == [(7, 7)] + [(1, 1)] * 3
    for unit in blocks(net, XNORUnit):
        assert list(unit._children)[:4] == ["norm1", "conv1", "norm2", "conv2"]
        assert unit.norm1.gamma.shape[0] == unit.conv1.weight.shape[1]
        assert unit.norm2.gamma.shape[0] == unit.conv2.weight.shape[1]
    assert count_parameters(net) - gluonzoo.model_spec("resnet18_v1").params == 128
    maps = features(net, net.stages)(mx.sym.var("data"))
    _, shapes, _ = mx.sym.Group(maps).infer_shape(data=(1, 3, 224, 224))
    assert [shape[1:] for shape in shapes] == [(64, 56, 56), (64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]


def test_xnor_unit_by_hand():
    mx.random.seed(3)
    unit = XNORUnit(4, 6, strides=2)
    unit.initialize()
    for norm in (unit.norm1, unit.norm2):
        norm.running_mean.set_data(mx.nd.random.normal(shape=norm.running_mean.shape))
        norm.beta.set_data(mx.nd.random.normal(shape=norm.beta.shape))

    def layer(x, norm, conv, stride):
        x = mx.nd.sign(x - (norm.running_mean.data() - norm.beta.data() * (1 + 1e-5) ** 0.5).reshape((1, -1, 1, 1)))
        weight = scaled_signs(conv.weight.data())
        return mx.nd.Convolution(x, weight, kernel=(3, 3), stride=(stride, stride), pad=(1, 1), num_filter=6, no_bias=True)

    x = mx.nd.random.normal(shape=(2, 4, 7, 7))
    expected = layer(layer(x, unit.norm1, unit.conv1, 2), unit.norm2, unit.conv2, 1) + unit.shortcut(x)
    np.testing.assert_allclose(unit(x).asnumpy(), expected.asnumpy(), rtol=1e-4, atol=1e-5)


def test_bwn_resnet18_is_resnet18_with_binary_filters():
    mx.random.seed(6)
    net, plain = bwn_resnet18(classes=7), gluonzoo.get_model("resnet18_v1", classes=7)
    for one in (net, plain):
        one.initialize()
    ours, theirs = net._collect_params_with_prefix(), plain._collect_params_with_prefix()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}
    binary = [block.weight.name for block in blocks(net, BinaryWeightConv2D)]
    assert len(binary) == 16
    for key, parameter in ours.items():
        value = parameter.data()
        theirs[key].set_data(scaled_signs(value) if parameter.name in binary else value)
    x = mx.nd.random.normal(shape=(2, 3, 64, 48))
    expected = plain(x).asnumpy()
    np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert count_parameters(bwn_resnet18()) == gluonzoo.model_spec("resnet18_v1").params
    assert count_macs(bwn_resnet18(), (3, 224, 224)) == gluonzoo.model_spec("resnet18_v1").macs
    assert "bwn_resnet18" not in gluonzoo.list_models()


def test_features_of_the_xnor_resnet_are_activated_and_finite():
    mx.random.seed(6)
    net = gluonzoo.get_model("xnor_resnet18", classes=5)
    net.initialize()
    x = mx.nd.random.normal(shape=(2, 3, 33, 50))
    last = net.features(x).asnumpy()
    assert last.shape == (2, 512, 2, 2) and last.min() >= 0 and np.isfinite(net(x).asnumpy()).all()
    # After the stem, only the shortcuts see how large the input is; the sum of real numbers is not binary.
    assert len(np.unique(features(net, ("stage1",))(x)[0].asnumpy())) > 100


@pytest.mark.parametrize("name", ["xnor_alexnet", "bwn_alexnet"])
def test_alexnets_take_224_pixels_only(name):
    with pytest.raises(ValueError, match="exactly 224x224; the input has 227x227"):
        gluonzoo.get_model(name)(mx.nd.zeros((1, 3, 227, 227)))
