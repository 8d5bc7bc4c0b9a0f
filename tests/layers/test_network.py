"""The base of the networks: stages, features by name, checks, a new head."""
import gluonzoo
from gluonzoo.errors import UserError
from gluonzoo.layers import Network, Stages, check_positive, features

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from mxnet.gluon import nn


@pytest.fixture
def net():
    mx.random.seed(3)
    net = gluonzoo.get_model("cifar_resnet20_v1_a")
    net.initialize()
    return net


X = mx.nd.random.normal(shape=(2, 3, 9, 12))


def by_hand(net, x):
    maps = {}
    for name in net.stages:
        x = maps[name] = getattr(net.features, name)(x)
    return maps


@pytest.mark.parametrize("hybrid", [False, True])
def test_features_are_the_stages_outputs_in_the_order_asked(net, hybrid):
    expected = by_hand(net, X)
    block = features(net, ("stage3", "stem", "stage2"))
    if hybrid:
        block.hybridize(static_alloc=True, static_shape=True)
    for _ in range(2):
        maps = block(X)
        assert isinstance(maps, list) and [m.shape for m in maps] == [(2, 64, 3, 3), (2, 16, 9, 12), (2, 32, 5, 6)]
        for name, found in zip(("stage3", "stem", "stage2"), maps):
            np.testing.assert_array_equal(found.asnumpy(), expected[name].asnumpy())


def test_one_feature_is_a_list_too_and_later_stages_are_left_out(net):
    for asked in ("stage1", ["stage1"]):
        block = features(net, asked)
        block.hybridize()
        found, = block(X)
        np.testing.assert_array_equal(found.asnumpy(), by_hand(net, X)["stage1"].asnumpy())
        assert not any("stage2" in name for name in block.collect_params())


def test_features_share_the_parameters(net):
    block = features(net, ("stage2",))
    trainer = gluon.Trainer(block.collect_params(), "sgd", {"learning_rate": 0.1}, kvstore=None)
    weight = net.features.stem.conv.weight
    before = weight.data().asnumpy()
    with autograd.record():
        loss = block(X)[0].sum()
    loss.backward()
    trainer.step(1)
    assert np.abs(weight.data().asnumpy() - before).max() > 0


def test_making_features_does_not_disturb_the_net(net):
    net.hybridize()
    expected, names = net(X).asnumpy(), list(net._collect_params_with_prefix())
    block = features(net, net.stages)
    block.hybridize()
    block(X)
    np.testing.assert_array_equal(net(X).asnumpy(), expected)
    assert list(net._collect_params_with_prefix()) == names


def test_features_check_their_input(net):
    with pytest.raises(UserError, match="takes 3 channels; the input has 4"):
        features(net, ("stem",))(mx.nd.zeros((1, 4, 8, 8)))


@pytest.mark.parametrize("asked, message", [
    (("stage1", "stage5"), "no stage called 'stage5'; its stages are stem, stage1, stage2, stage3"),
    ("stage", "no stage called 'stage'"), (("output",), "'output'"), ((), "empty list.*stem")])
def test_unknown_stages_are_named(net, asked, message):
    with pytest.raises(UserError, match=message):
        features(net, asked)


def test_features_of_something_else():
    with pytest.raises(UserError, match="Dense has no named stages"):
        features(nn.Dense(3), ("stage1",))


@pytest.mark.parametrize("hybrid", [False, True])
def test_reset_classes_of_a_net_in_use(net, hybrid):
    net.initialize(force_reinit=True, ctx=[mx.cpu(0), mx.cpu(1)])
    if hybrid:
        net.hybridize()
    x = X.as_in_context(mx.cpu(1))
    assert net(x).shape == (2, 10)
    net.reset_classes(4)
    assert net(x).shape == (2, 4) and net.output.weight.list_ctx() == [mx.cpu(0), mx.cpu(1)]
    net.reset_classes(6, ctx=mx.cpu(1))
    assert net(x).shape == (2, 6) and net.output.weight.list_ctx() == [mx.cpu(1)]
    with autograd.record():
        net(x).sum().backward()
    assert np.abs(net.output.weight.grad(mx.cpu(1)).asnumpy()).max() > 0


def test_reset_classes_keeps_the_type(net):
    net.cast("float64")
    net.reset_classes(4)
    assert net(X.astype("float64")).dtype == np.float64


def test_reset_classes_without_registry():
    from gluonzoo.classification.cifar_resnet import CifarResNet
    net = CifarResNet(20, classes=5)
    net.reset_classes(3)
    assert net.model_name is None and net.model_kwargs is None and net.output.weight.shape == (3, 64)
    with pytest.raises(UserError, match="^CifarResNet takes"):
        net(mx.nd.zeros((1,)))


def test_a_net_inside_another_block_can_be_hybridized(net):
    outer = nn.HybridSequential()
    outer.add(net, nn.Activation("relu"))
    expected = outer(X).asnumpy()
    outer.hybridize()
    np.testing.assert_array_equal(outer(X).asnumpy(), expected)


def test_input_without_images(net):
    with pytest.raises(UserError, match="at least 1 image; the input has 0"):
        net.check_input((0, 3, 8, 8))


def test_smallest_size_is_checked_on_each_side():
    class Small(Network):
        def __init__(self):
            super().__init__(2, 1, min_size=(4, 6))

    net = Small()
    net.check_input((1, 1, 4, 6))
    net.check_input((1, 1, 40, 60))
    for shape in ((1, 1, 3, 6), (1, 1, 4, 5)):
        with pytest.raises(UserError, match=f"at least 4x6; the input has {shape[2]}x{shape[3]}"):
            net.check_input(shape)
    with pytest.raises(NotImplementedError, match="Small"):
        net.make_output(3)


def test_stages_are_saved_under_their_names():
    stages = Stages()
    stages.first, stages.second = nn.Dense(3, in_units=2), nn.Dense(4, in_units=3)
    stages.initialize()
    assert list(stages._collect_params_with_prefix()) == ["first.weight", "first.bias", "second.weight", "second.bias"]
    x = mx.nd.ones((1, 2))
    np.testing.assert_array_equal(stages(x).asnumpy(), stages.second(stages.first(x)).asnumpy())


def test_check_positive():
    check_positive(classes=1, channels=np.int32(4))
    for bad in (0, -3, 1.0, "1", None, True):
        with pytest.raises(UserError, match=f"channels is {bad!r}; expected a whole number of at least 1"):
            check_positive(classes=1, channels=bad)
