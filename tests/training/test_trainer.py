"""Trainer in one process: arithmetic against NumPy and against gluon.Trainer, several devices, clipping, state."""
from gluonzoo.errors import UserError
from gluonzoo.training import Trainer

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

CPUS = [mx.cpu(0), mx.cpu(1)]


def make_net(ctx=None, seed=1, dropout=False):
    mx.random.seed(seed)
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Dense(7, in_units=5, activation="tanh"), gluon.nn.Dense(3, in_units=7))
    net.initialize(mx.init.Xavier(), ctx=ctx)
    return net


def batch(step, size=8):
    random = np.random.RandomState(100 + step)
    return random.randn(size, 5).astype("float32"), random.randn(size, 3).astype("float32")


def run(net, trainer, steps, first=0, size=8, parts=1):
    loss = gluon.loss.L2Loss()
    contexts = net[0].weight.list_ctx()
    for number in range(first, first + steps):
        images, labels = batch(number, size)
        for part in np.array_split(np.arange(size), parts):
            heads = []
            with autograd.record():
                for ctx, rows in zip(contexts, np.array_split(part, len(contexts))):
                    heads.append(loss(net(mx.nd.array(images[rows], ctx=ctx)), mx.nd.array(labels[rows], ctx=ctx)))
            autograd.backward(heads)
            trainer.step(len(part))


def weights(net, ctx=None):
    return np.concatenate([p.data(ctx or p.list_ctx()[0]).asnumpy().ravel() for p in net._collect_params_with_prefix().values()])


@pytest.mark.smoke
def test_sgd_equals_hand_worked_numbers():
    net = gluon.nn.Dense(1, in_units=2, use_bias=False)
    net.initialize()
    net.weight.set_data(mx.nd.array([[1.0, -2.0]]))
    trainer = Trainer(net, "sgd", {"learning_rate": 0.1, "momentum": 0.9, "wd": 0.01})
    images = np.array([[1.0, 2.0], [3.0, 4.0]], dtype="float32")
    weight, momentum = np.array([1.0, -2.0]), np.zeros(2)
    for _ in range(3):
        with autograd.record():
            loss = net(mx.nd.array(images)).sum(axis=1)
        loss.backward()
        trainer.step(2)
        gradient = images.sum(axis=0) / 2 + 0.01 * weight
        momentum = 0.9 * momentum - 0.1 * gradient
        weight = weight + momentum
    np.testing.assert_allclose(net.weight.data().asnumpy()[0], weight, rtol=1e-6)


@pytest.mark.parametrize("optimizer, arguments", [
    ("sgd", {"learning_rate": 0.1, "momentum": 0.9, "wd": 1e-3}), ("nag", {"learning_rate": 0.1, "momentum": 0.9}),
    ("adam", {"learning_rate": 0.01}), ("rmsprop", {"learning_rate": 0.01})])
def test_one_device_equals_gluon(optimizer, arguments):
    ours, theirs = make_net(), make_net()
    run(ours, Trainer(ours, optimizer, arguments), 10)
    run(theirs, gluon.Trainer(theirs.collect_params(), optimizer, arguments), 10)
    np.testing.assert_array_equal(weights(ours), weights(theirs))


@pytest.mark.parametrize("kind", ["local", "device"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_two_devices_equal_one(kind, optimizer):
    one, two = make_net(), make_net(CPUS)
    run(one, Trainer(one, optimizer, {"learning_rate": 0.05}), 10)
    run(two, Trainer(two, optimizer, {"learning_rate": 0.05}, kvstore=kind), 10)
    np.testing.assert_array_equal(weights(two, CPUS[0]), weights(two, CPUS[1]))
    np.testing.assert_allclose(weights(two), weights(one), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_equals_one_batch(parts):
    whole, split = make_net(), make_net()
    run(whole, Trainer(whole, "sgd", {"learning_rate": 0.1, "momentum": 0.9}), 6)
    trainer = Trainer(split, "sgd", {"learning_rate": 0.1, "momentum": 0.9}, accumulate=parts)
    run(split, trainer, 6, parts=parts)
    np.testing.assert_allclose(weights(split), weights(whole), rtol=1e-5, atol=1e-6)


def first_gradient(net):
    """The averaged gradient of the first batch, flat, by NumPy's float64 from Gluon's own backward."""
    loss = gluon.loss.L2Loss()
    images, labels = batch(0)
    with autograd.record():
        value = loss(net(mx.nd.array(images)), mx.nd.array(labels))
    value.backward()
    return np.concatenate([p.grad().asnumpy().ravel() for p in net._collect_params_with_prefix().values()]) / 8


@pytest.mark.parametrize("devices", [None, CPUS])
def test_clip_norm(devices):
    gradient = first_gradient(make_net())
    limit = float(np.linalg.norm(gradient)) / 3
    for clip, expected in ((limit, gradient / 3), (100.0, gradient)):
        net = make_net(devices)
        before = weights(net)
        run(net, Trainer(net, "sgd", {"learning_rate": 1.0}, clip_norm=clip), 1)
        np.testing.assert_allclose(before - weights(net), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("devices", [None, CPUS])
def test_clip_value(devices):
    gradient = first_gradient(make_net())
    limit = float(np.abs(gradient).max()) / 2
    net = make_net(devices)
    before = weights(net)
    run(net, Trainer(net, "sgd", {"learning_rate": 1.0}, clip_value=limit), 1)
    np.testing.assert_allclose(before - weights(net), np.clip(gradient, -limit, limit), rtol=1e-4, atol=1e-6)


def test_bias_and_norm_without_decay():
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Dense(4, in_units=3), gluon.nn.BatchNorm(in_channels=4))
    net.initialize(mx.init.One())
    net[0].bias.set_data(mx.nd.ones(4))
    trainer = Trainer(net, "sgd", {"learning_rate": 1.0, "wd": 0.5}, decay_bias_and_norm=False)
    trainer.zero_grad()
    trainer.step(1)
    for parameter, expected in ((net[0].weight, 0.5), (net[0].bias, 1.0), (net[1].gamma, 1.0)):
        np.testing.assert_allclose(parameter.data().asnumpy(), expected)


def test_step_with_no_samples_ignores_stale_gradients():
    net = make_net()
    trainer = Trainer(net, "sgd", {"learning_rate": 0.1})
    run(net, trainer, 1)
    before = weights(net)
    trainer.step(0)
    np.testing.assert_array_equal(weights(net), before)


@pytest.mark.parametrize("optimizer, arguments", [
    ("sgd", {"learning_rate": 0.1, "momentum": 0.9}), ("sgd", {"learning_rate": 0.1}), ("adam", {"learning_rate": 0.01}),
    ("rmsprop", {"learning_rate": 0.01, "centered": True})])
@pytest.mark.parametrize("devices", [None, CPUS])
def test_state_round_trip_is_exact(tmp_path, optimizer, arguments, devices):
    straight, halves = make_net(devices), make_net(devices)
    run(straight, Trainer(straight, optimizer, arguments), 10)
    first = Trainer(halves, optimizer, arguments)
    run(halves, first, 5)
    first.save_states(str(tmp_path / "states"))
    second = Trainer(halves, optimizer, arguments)
    second.load_states(str(tmp_path / "states"))
    run(halves, second, 5, first=5)
    np.testing.assert_array_equal(weights(halves), weights(straight))


def test_foreign_state_is_refused_and_changes_nothing(tmp_path):
    net = make_net()
    trainer = Trainer(net, "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    run(net, trainer, 2)
    before = trainer.state_dict()
    other = gluon.nn.Dense(4, in_units=3)
    other.initialize()
    foreign = Trainer(other, "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    foreign.step(0)
    with pytest.raises(UserError, match="counts updates of"):
        trainer.load_state_dict(foreign.state_dict())
    adam = Trainer(make_net(), "adam")
    adam.step(0)
    with pytest.raises(UserError, match="is missing|fits no parameter"):
        trainer.load_state_dict(adam.state_dict())
    wrong = dict(before)
    name = next(name for name in wrong if name.startswith("parameter:"))
    wrong[name] = np.zeros((2, 2), dtype="float32")
    with pytest.raises(UserError, match=r"shape \(2, 2\)"):
        trainer.load_state_dict(wrong)
    after = trainer.state_dict()
    assert set(after) == set(before)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])


def test_learning_rate_takes_effect_at_once():
    net = gluon.nn.Dense(1, in_units=1, use_bias=False)
    net.initialize(mx.init.Zero())
    trainer = Trainer(net, "sgd", {"learning_rate": 1.0})
    for rate, expected in ((0.5, -0.5), (0.25, -0.75)):
        trainer.set_learning_rate(rate)
        assert trainer.learning_rate == rate
        with autograd.record():
            loss = net(mx.nd.ones((1, 1)))
        loss.backward()
        trainer.step(1)
        np.testing.assert_allclose(net.weight.data().asnumpy(), [[expected]])


@pytest.mark.parametrize("arguments, message", [
    ({"clip_value": -1.0}, "clip_value is -1.0"), ({"clip_norm": 0}, "clip_norm is 0"), ({"accumulate": 0}, "accumulate is 0"),
    ({"kvstore": "dist_sink"}, "unknown kvstore 'dist_sink'"), ({"optimizer": "sgdx"}, "sgdx"),
    ({"optimizer_params": {"speed": 3}}, "speed"), ({"kvstore": "dist_sync"}, "not part of a distributed job")])
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        Trainer(make_net(), **arguments)


def test_bad_parameters_are_named():
    with pytest.raises(TypeError, match="params is int"):
        Trainer(3)
    with pytest.raises(TypeError, match="is str"):
        Trainer({"a": "b"})
    deferred = gluon.nn.Dense(3)
    deferred.initialize()
    with pytest.raises(RuntimeError, match="in_channels or in_units"):
        Trainer(deferred)
    with pytest.raises(UserError, match="batch_size is -1"):
        Trainer(make_net()).step(-1)
    frozen = make_net()
    frozen.collect_params().setattr("grad_req", "null")
    with pytest.raises(UserError, match="nothing to train"):
        Trainer(frozen)


def test_frozen_parameters_stay():
    net = make_net()
    net[0].weight.grad_req = "null"
    before = net[0].weight.data().asnumpy()
    run(net, Trainer(net, "sgd", {"learning_rate": 0.1, "wd": 0.1}), 2)
    np.testing.assert_array_equal(net[0].weight.data().asnumpy(), before)
