"""Spatial transformer networks: layers, how the transformers start, and that they look where they say."""
import gluonzoo
from gluonzoo.classification.stn import AttentionCrops
from gluonzoo.errors import UserError
from gluonzoo.layers import features
from gluonzoo.summary import count_macs, count_parameters, summarize

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import nn


def test_mnist_counts_of_the_parts():
    net = gluonzoo.get_model("stn_mnist")
    transform = net.features.transform
    assert count_parameters(transform) == 400 + 2010 + 2912 + 198
    assert [count_parameters(block) for block in (net.features.conv1, net.features.conv2, net.fc1, net.output)] == [
        260, 5020, 16050, 510]
    _, shapes, _ = mx.sym.Group(features(net, net.stages)(mx.sym.var("data"))).infer_shape(data=(1, 1, 28, 28))
    assert [shape[1:] for shape in shapes] == [(1, 28, 28), (10, 12, 12), (20, 4, 4)]
    _, (seen,), _ = transform.localisation[1](transform.localisation[0](mx.sym.var("data"))).infer_shape(data=(1, 1, 28, 28))
    assert seen == (1, 10, 3, 3)


def test_mnist_starts_as_the_identity():
    mx.random.seed(1)
    net = gluonzoo.get_model("stn_mnist")
    net.initialize()
    x = mx.nd.random.normal(shape=(3, 1, 28, 28))
    for hybrid in (False, True):
        net.hybridize(hybrid)
        np.testing.assert_allclose(features(net, "transform")(x)[0].asnumpy(), x.asnumpy(), rtol=0, atol=1e-5)
    weight = net.fc1.weight.data().asnumpy()
    assert weight.std() == pytest.approx((1 / 3 / 320) ** 0.5, rel=0.05)
    assert net.features.transform.theta.bias.data().asnumpy().tolist() == [1, 0, 0, 0, 1, 0]


def test_mnist_dropout():
    """Of whole maps in conv2, of units before the last layer."""
    net, found = gluonzoo.get_model("stn_mnist"), []
    net.apply(lambda block: found.append(block) if isinstance(block, nn.Dropout) else None)
    assert [(block._rate, block._axes) for block in found] == [(0.5, (2, 3)), (0.5, ())]


@pytest.mark.parametrize("transformers", [2, 4])
def test_cub_layers(transformers):
    net = gluonzoo.get_model("stn_cub", transformers=transformers)
    trunk = gluonzoo.get_model("bn_inception").features
    assert net.model_kwargs["transformers"] == transformers
    assert count_parameters(net) == ((transformers + 1) * count_parameters(trunk) + (1024 * 128 + 128) + (6272 * 128 + 128)
                                     + (128 + 1) * 2 * transformers + (1024 * transformers + 1) * 200)
    assert count_macs(net, (3, 448, 448)) == ((transformers + 1) * count_macs(trunk, (3, 224, 224)) + 49 * 1024 * 128
                                              + 6272 * 128 + 128 * 2 * transformers + 1024 * transformers * 200)
    _, shapes, _ = mx.sym.Group(features(net, net.stages)(mx.sym.var("data"))).infer_shape(data=(1, 3, 448, 448))
    assert [shape[1:] for shape in shapes] == [(3 * transformers, 224, 224), (1024 * transformers, 7, 7)]
    assert summarize(net, (3, 448, 448)).rows[-1].output_shape == (200,)
    net.reset_classes(11)
    assert summarize(net, (3, 448, 448)).rows[-1].output_shape == (11,)


def test_cub_streams_share_nothing():
    net = gluonzoo.get_model("stn_cub", transformers=4)
    names = [set(block.collect_params().keys()) for block in
             [net.features.transform, *(getattr(net.features.describe, f"stream{index}") for index in range(1, 5))]]
    assert len(set.union(*names)) == sum(map(len, names))


@pytest.mark.parametrize("bad", [0, 1, 3, 5, "2", True, None, 2.5])
def test_cub_bad_transformers(bad):
    with pytest.raises(UserError, match="transformers is .*; expected 2 or 4"):
        gluonzoo.get_model("stn_cub", transformers=bad)


class Blind(nn.HybridSequential):
    """In place of a localisation network: 128 zeros for every picture, so that the biases alone say where to look."""

    def hybrid_forward(self, F, x):
        corner = F.reshape(F.slice(x, begin=(0, 0, 0, 0), end=(None, 1, 1, 1)), shape=(-1, 1))
        return F.broadcast_axis(F.zeros_like(corner), axis=1, size=128)


def crops_of_a_ramp(block, transformers):
    """Crops of two pictures whose channels are their own x and y coordinates and ones: (2, transformers, 3, 224, 224)."""
    line = np.linspace(-1, 1, 448)
    ramp = np.stack([np.tile(line, (448, 1)), np.tile(line[:, None], (1, 448)), np.ones((448, 448))])
    return block(mx.nd.array(np.stack([ramp] * 2))).asnumpy().reshape((2, transformers, 3, 224, 224))


@pytest.mark.parametrize("transformers, starts", [
    (2, [(-1, -0.5), (0, -0.5)]), (4, [(-1, -1), (0, -1), (-1, 0), (0, 0)])])
def test_cub_starts_side_by_side(transformers, starts):
    """Two crops divide the picture's width, four are its quadrants."""
    block = AttentionCrops(3, transformers)
    block.centres.initialize()
    block.localisation = Blind()
    crops = crops_of_a_ramp(block, transformers)
    for index, (left, top) in enumerate(starts):
        for picture in crops[:, index]:
            np.testing.assert_allclose(picture[0], np.tile(np.linspace(left, left + 1, 224), (224, 1)), atol=1e-4)
            np.testing.assert_allclose(picture[1], np.tile(np.linspace(top, top + 1, 224)[:, None], (1, 224)), atol=1e-4)
            np.testing.assert_allclose(picture[2], 1, atol=1e-4)


def test_cub_crops_go_where_they_are_sent():
    block = AttentionCrops(3, 2)
    block.localisation = Blind()
    block.centres.initialize()
    block.centres.bias.set_data(mx.nd.array([0.2, -0.3, 1.0, 0.4]))
    crops = crops_of_a_ramp(block, 2)
    np.testing.assert_allclose(crops[0, 0, 0, 0], np.linspace(-0.3, 0.7, 224), atol=1e-4)
    np.testing.assert_allclose(crops[0, 0, 1, :, 0], np.linspace(-0.8, 0.2, 224), atol=1e-4)
    # The right half of the second lies outside the picture.
    assert np.abs(crops[0, 1, :, :, 113:]).max() == 0 and crops[0, 1, 2, :, :111].min() > 0.999


@pytest.mark.slow
def test_cub_runs():
    mx.random.seed(2)
    net = gluonzoo.get_model("stn_cub", transformers=2)
    net.initialize()
    x = mx.nd.random.normal(shape=(2, 3, 448, 448))
    with autograd.record():
        y = net(x)
        y.sum().backward()
    assert y.shape == (2, 200) and np.isfinite(y.asnumpy()).all()
    # The centres are the first to learn; the network that finds them starts with the second step.
    assert np.abs(net.features.transform.centres.weight.grad().asnumpy()).max() > 0
    assert np.abs(net.features.transform.localisation[3].weight.grad().asnumpy()).max() == 0
