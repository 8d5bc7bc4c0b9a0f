"""PVANet: the authors' layer table by structure; nothing is trained."""
import math

import gluonzoo
from gluonzoo.classification.pvanet import InceptionUnit, ModifiedCReLU, PVANet
from gluonzoo.layers import CReLU, features
from gluonzoo.summary import count_parameters, summarize

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import nn


@pytest.fixture(scope="module")
def net():
    return gluonzoo.get_model("pvanet_cls")


def blocks(net, kind):
    found = []
    net.apply(lambda block: found.append(block) if type(block) is kind else None)
    return found


def test_map_sizes(net):
    maps = features(net, net.stages)(mx.sym.var("data"))
    _, shapes, _ = mx.sym.Group(maps).infer_shape(data=(1, 3, 192, 192))
    assert dict(zip(net.stages, (shape[1:] for shape in shapes))) == {
        "conv1": (32, 96, 96), "pool1": (32, 48, 48), "conv2": (64, 48, 48), "conv3": (128, 24, 24),
        "conv4": (256, 12, 12), "conv5": (384, 6, 6)}


def test_counts_of_the_parts(net):
    """The figures of the authors' file: the convolutional part has the BatchNorms of the dense layers with it."""
    dense = [net.fc6[0], net.fc7[0], net.output]
    assert [count_parameters(layer) for layer in dense] == [56627200, 16781312, 4097000]
    assert count_parameters(net) - sum(map(count_parameters, dense)) == 2921488
    assert count_parameters(net.features) == 2921488 - 4 * 4096


def test_numbers_of_layers(net):
    # The stem; 7 blocks of 3 convolutions and 2 projections; 8 modules of 7 convolutions, 2 of them with 2 more.
    assert len(blocks(net, nn.Conv2D)) == 1 + 7 * 3 + 2 + 8 * 7 + 2 * 2
    assert len(blocks(net, nn.Dense)) == 3 and len(blocks(net, nn.Dropout)) == 2
    assert [block._channels for block in blocks(net, CReLU)] == [16] + [24] * 3 + [48] * 4
    assert [len(getattr(net.features, stage)) for stage in ("conv2", "conv3", "conv4", "conv5")] == [3, 4, 4, 4]
    assert len(blocks(net, ModifiedCReLU)) == 7 and len(blocks(net, InceptionUnit)) == 8


def test_biases(net):
    """Those of mCReLU, of projections and of the joining convolutions, but the last; none in the branches and the stem."""
    without = {key for key, layer in named(net, nn.Conv2D) if layer.bias is None}
    branches = {key for key, _ in named(net, nn.Conv2D) if ".branch" in key}
    assert without == branches | {"features.conv1.0", "features.conv5.3.join"}


def named(net, kind):
    found = []

    def walk(block, path):
        if type(block) is kind:
            found.append((path, block))
        for name, child in block._children.items():
            walk(child, f"{path}.{name}" if path else name)

    walk(net, "")
    return found


def test_strides(net):
    strided = {key for key, layer in named(net, nn.Conv2D) if layer._kwargs["stride"] == (2, 2)}
    assert strided == {"features.conv1.0", "features.conv3.0.conv1", "features.conv3.0.shortcut"} | {
        f"features.{stage}.0.{layer}" for stage in ("conv4", "conv5")
        for layer in ("branch1x1.conv", "branch3x3.0.conv", "branch5x5.0.conv", "shortcut")}


def test_reductions_of_the_inception_modules(net):
    widths = [(unit.branch3x3[0].conv._channels, unit.branch5x5[0].conv._channels, unit.join._channels)
              for unit in blocks(net, InceptionUnit)]
    assert widths == [(48, 24, 256)] + [(64, 24, 256)] * 3 + [(96, 32, 384)] * 4


def test_negation_comes_between_normalisation_and_scale(net):
    """The BatchNorm before C.ReLU trains nothing; each half has a scale and a shift of its own."""
    norms = [block for block in blocks(net, nn.BatchNorm) if block.gamma.grad_req == "null"]
    assert len(norms) == 8 and all(norm.beta.grad_req == "null" for norm in norms)
    assert all(count_parameters(block) == 4 * block._channels for block in blocks(net, CReLU))


def test_block_by_hand():
    """A block of three convolutions and a projection, written out with the parameters of the block."""
    mx.random.seed(8)
    block = ModifiedCReLU(5, (4, 3, 6), strides=2)
    block.initialize()
    for key, parameter in block._collect_params_with_prefix().items():
        if "running" not in key and parameter.grad_req != "null":
            parameter.set_data(mx.nd.random.normal(shape=parameter.shape))
    values = {key: parameter.data() for key, parameter in block._collect_params_with_prefix().items()}

    def norm_relu(x, name):
        shape = (1, -1, 1, 1)
        return mx.nd.relu(x / math.sqrt(1 + 1e-5) * values[name + ".gamma"].reshape(shape)
                          + values[name + ".beta"].reshape(shape))

    def conv(x, name, stride=1):
        weight = values[name + ".weight"]
        return mx.nd.Convolution(x, weight, values[name + ".bias"], kernel=weight.shape[2:], stride=(stride, stride),
                                 pad=(weight.shape[2] // 2,) * 2, num_filter=weight.shape[0])

    x = mx.nd.random.normal(shape=(2, 5, 8, 8))
    y = norm_relu(x, "before1.norm")
    shortcut = conv(y, "shortcut", 2)
    y = conv(norm_relu(conv(y, "conv1", 2), "before2.norm"), "conv2") / math.sqrt(1 + 1e-5)
    y = mx.nd.relu(mx.nd.concat(y, -y, dim=1) * values["before3.1.scale"] + values["before3.1.shift"])
    expected = conv(y, "conv3") + shortcut
    np.testing.assert_allclose(block(x).asnumpy(), expected.asnumpy(), rtol=1e-4, atol=1e-4)


def test_shortcuts():
    """The input itself where the shape stays; of the activated input in mCReLU, of the raw one in Inception."""
    x = mx.nd.random.normal(shape=(2, 6, 4, 4))
    block = ModifiedCReLU(6, (2, 2, 6))
    unit = InceptionUnit(6, 4, (4, 4), (4, 4, 4), 0, 6)
    for one, last in ((block, block.conv3), (unit, unit.join)):
        one.initialize()
        for parameter in last.collect_params().values():
            parameter.set_data(mx.nd.zeros(parameter.shape))
        np.testing.assert_array_equal(one(x).asnumpy(), x.asnumpy())
    strided = InceptionUnit(6, 4, (4, 4), (4, 4, 4), 4, 8, strides=2)
    strided.initialize()
    for parameter in strided.join.collect_params().values():
        parameter.set_data(mx.nd.zeros(parameter.shape))
    np.testing.assert_array_equal(strided(x).asnumpy(), strided.shortcut(x).asnumpy())
    assert ModifiedCReLU(6, (2, 2, 6), activated=True).before1 is None


def test_stem_and_initial_weights():
    mx.random.seed(2)
    net = PVANet(classes=10)
    net.features.initialize()
    assert set(net.features.conv2[0].conv1.bias.data().asnumpy()) == {np.float32(0.1)}
    weight = net.features.conv5[0].branch3x3[1].conv.weight.data().asnumpy()
    bound = (3 / (96 * 9)) ** 0.5
    assert np.abs(weight).max() <= bound and weight.std() == pytest.approx(bound / 3 ** 0.5, rel=0.02)
    x = mx.nd.random.normal(shape=(1, 3, 64, 64))
    stem = net.features.conv1(x).asnumpy()
    assert stem.shape == (1, 32, 32, 32)
    # With the first scale and shift one of the two halves is zero everywhere.
    assert (np.minimum(stem[:, :16], stem[:, 16:]) == 0).all() and (stem.sum(axis=1) > 0).all()
    maps, y = {}, x
    for name in net.stages:
        y = maps[name] = getattr(net.features, name)(y)
    assert [one.shape[2] for one in maps.values()] == [32, 16, 16, 8, 4, 2]
    assert {name for name, one in maps.items() if (one.asnumpy() < 0).any()} == {"conv2", "conv3", "conv4"}
    with autograd.train_mode():
        assert np.isfinite(net.features(x).asnumpy()).all()


def test_only_192_pixels(net):
    assert net.fixed_size and net.min_size == (192, 192)
    with pytest.raises(ValueError, match="exactly 192x192; the input has 224x224"):
        net(mx.nd.zeros((1, 3, 224, 224)))
    assert summarize(net, (3, 192, 192)).rows[-1].output_shape == (1000,)
