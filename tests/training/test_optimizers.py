"""Optimizers through the Trainer, over several updates with a change of rate, against the papers' formulas in NumPy."""
from gluonzoo.errors import UserError
from gluonzoo.training import TrainConfig, Trainer, optimizers
from gluonzoo.training.precision import LossScaler, check

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

GRADIENTS = np.array([[3.0, -1.0], [0.5, 2.0], [-1.0, 0.25], [2.0, 2.0], [0.0, -3.0], [1.0, 1.0]])
RATES = (0.01, 0.01, 0.01, 0.001, 0.001, 0.02)


def trained(name, arguments, switch=None, scaler=None):
    """Weights after each update by GRADIENTS at RATES, from (1, -2)."""
    net = mx.gluon.nn.Dense(1, in_units=2, use_bias=False)
    net.initialize()
    net.weight.set_data(mx.nd.array([[1.0, -2.0]]))
    trainer = Trainer(net, name, {"learning_rate": RATES[0], **arguments}, loss_scaler=scaler)
    found = []
    for step, (gradient, rate) in enumerate(zip(GRADIENTS, RATES)):
        if switch and step == switch[0]:
            trainer.switch(*switch[1:])
        trainer.set_learning_rate(rate)
        with autograd.record():
            loss = net(mx.nd.array([gradient])) * (scaler.scale if scaler else 1)
        loss.backward()
        trainer.step(1)
        found.append(net.weight.data().asnumpy()[0].copy())
    return np.array(found)


def by_hand(update):
    """Weights by a function of (weight, gradient, rate, state, step) -> weight."""
    weight, state, found = np.array([1.0, -2.0]), {}, []
    for step, (gradient, rate) in enumerate(zip(GRADIENTS, RATES)):
        weight = update(weight, gradient, rate, state, step)
        found.append(weight)
    return np.array(found)


def alexnet(weight, gradient, rate, state, step):
    state["v"] = 0.9 * state.get("v", 0) - 0.0005 * rate * weight - rate * gradient
    return weight + state["v"]


def test_sgd_is_alexnets_update_also_when_the_rate_changes():
    found = trained("sgd", {"momentum": 0.9, "wd": 0.0005})
    np.testing.assert_allclose(found, by_hand(alexnet), rtol=2e-6)

    def outside(weight, gradient, rate, state, step):
        """PyTorch's: the rate outside of the momentum."""
        state["v"] = 0.9 * state.get("v", 0) + gradient + 0.0005 * weight
        return weight - rate * state["v"]
    other = by_hand(outside)
    np.testing.assert_allclose(found[:3], other[:3], rtol=2e-6)
    assert np.abs(found[3] - other[3]).max() > 0.01


def test_first_two_updates_of_alexnet_in_plain_numbers():
    found = trained("sgd", {"momentum": 0.9, "wd": 0.0005})
    # v = -0.01 * 3 - 0.0005 * 0.01 * 1 = -0.030005; then 0.9 v - 0.01 * 0.5 - 0.0005 * 0.01 * 0.969995 = -0.03200935.
    np.testing.assert_allclose(found[:2, 0], [0.969995, 0.93798565], rtol=1e-6)


def test_nesterov():
    def nesterov(weight, gradient, rate, state, step):
        # Sutskever et al., 2013, written for the weights where the gradient is taken.
        before = state.get("v", 0)
        state["v"] = 0.9 * before - rate * (gradient + 0.001 * weight)
        return weight + 0.9 * state["v"] - rate * (gradient + 0.001 * weight)
    np.testing.assert_allclose(trained("nag", {"momentum": 0.9, "wd": 0.001}), by_hand(nesterov), rtol=2e-6)


def test_adam():
    def adam(weight, gradient, rate, state, step):
        state["m"] = 0.8 * state.get("m", 0) + 0.2 * gradient
        state["s"] = 0.99 * state.get("s", 0) + 0.01 * gradient ** 2
        corrected = rate * np.sqrt(1 - 0.99 ** (step + 1)) / (1 - 0.8 ** (step + 1))
        return weight - corrected * state["m"] / (np.sqrt(state["s"]) + 1e-3)
    found = trained("adam", {"beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3})
    np.testing.assert_allclose(found, by_hand(adam), rtol=2e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop_with_inceptions_epsilon(momentum):
    def rmsprop(weight, gradient, rate, state, step):
        gradient = np.clip(gradient + 0.01 * weight, -2.5, 2.5)
        state["n"] = 0.9 * state.get("n", 0) + 0.1 * gradient ** 2
        state["d"] = momentum * state.get("d", 0) + rate * gradient / np.sqrt(state["n"] + 1.0)
        return weight - state["d"]
    arguments = {"gamma1": 0.9, "epsilon": 1.0, "wd": 0.01, "clip_gradient": 2.5}
    found = trained("rmsprop", {**arguments, **({"momentum": momentum} if momentum else {})})
    np.testing.assert_allclose(found, by_hand(rmsprop), rtol=2e-6)


def test_switching_begins_with_fresh_state():
    found = trained("adam", {}, switch=(3, "sgd", {"learning_rate": 0.5, "momentum": 0.9, "wd": 0.0005}))
    weight, velocity = trained("adam", {})[2], 0
    for step in (3, 4, 5):
        velocity = 0.9 * velocity - RATES[step] * (0.0005 * weight + GRADIENTS[step])
        weight = weight + velocity
        np.testing.assert_allclose(found[step], weight, rtol=2e-6)


def test_momentum_can_be_set_and_only_where_there_is_one():
    net = mx.gluon.nn.Dense(1, in_units=2)
    net.initialize()
    for name, arguments, attribute in (("sgd", {"momentum": 0.9}, "momentum"), ("adam", {}, "beta1")):
        trainer = Trainer(net, name, arguments)
        trainer.set_momentum(0.85)
        assert getattr(trainer.optimizer, attribute) == 0.85
    with pytest.raises(UserError, match="SGD cannot be set to 0.85: it has none"):
        Trainer(net, "sgd").set_momentum(0.85)


def test_arguments_go_where_the_optimizer_has_them():
    config = TrainConfig(optimizer="adam", epsilon=0.1, beta1=0.5, switch_to="sgd", switch_lr=0.3, momentum=0.8)
    assert optimizers.arguments_of(config, "adam", 0.1) == {"learning_rate": 0.1, "wd": 1e-4, "beta1": 0.5, "beta2": 0.999,
                                                            "epsilon": 0.1}
    assert optimizers.arguments_of(config, "sgd", 0.3) == {"learning_rate": 0.3, "wd": 1e-4, "momentum": 0.8}
    optimizers.check(config)
    with pytest.raises(UserError, match="--epsilon 0.1 with --optimizer sgd"):
        optimizers.check(TrainConfig(epsilon=0.1))
    with pytest.raises(UserError, match="speedy"):
        optimizers.check(TrainConfig(switch_to="speedy", switch_lr=0.1))
    with pytest.raises(UserError, match="--switch-to sgd needs --switch-lr"):
        TrainConfig(switch_to="sgd")


def test_loss_scaler_grows_backs_off_and_stays_in_bounds():
    scaler, seen = LossScaler(scale=8.0, interval=2, least=2.0, most=16.0), []
    for finite in (True, True, True, False, True, False, False, False, True, True, True, True, True, True, True, True):
        scaler.update(finite)
        seen.append((scaler.scale, scaler.clean))
    assert seen == [(8, 1), (16, 0), (16, 1), (8, 0), (8, 1), (4, 0), (2, 0), (2, 0), (2, 1), (4, 0), (4, 1), (8, 0), (8, 1),
                    (16, 0), (16, 1), (16, 0)]
    other = LossScaler()
    other.load(scaler.state())
    assert (other.scale, other.clean) == (16, 0)
    with pytest.raises(UserError, match="loss scale 0.5"):
        LossScaler(scale=0.5)


def test_scaled_losses_give_the_same_updates_and_an_overflow_is_left_out():
    scaler = LossScaler(scale=1024.0, interval=3)
    np.testing.assert_array_equal(trained("sgd", {"momentum": 0.9}, scaler=scaler), trained("sgd", {"momentum": 0.9}))
    assert scaler.scale == 4096
    net = mx.gluon.nn.Dense(1, in_units=2, use_bias=False)
    net.initialize(mx.init.One())
    trainer = Trainer(net, "sgd", {"learning_rate": 0.1}, loss_scaler=scaler)
    with autograd.record():
        loss = net(mx.nd.array([[1e38, 1.0]])) * scaler.scale
    loss.backward()
    assert trainer.step(1) is False and trainer.left_out
    assert scaler.scale == 2048
    np.testing.assert_array_equal(net.weight.data().asnumpy(), [[1, 1]])
    other = Trainer(net, "sgd", {"learning_rate": 0.1}, loss_scaler=LossScaler())
    other.load_state_dict(trainer.state_dict())
    assert other.loss_scaler.scale == 2048


@pytest.mark.parametrize("arguments, message", [
    (("fp16", "resnet50_v1", False), "no float16 convolution on CPUs"),
    (("bf16", "mobilenet_v2_1_0", False, ["avx512_bf16"]), "does not pay for mobilenet_v2_1_0: it trained 6.6"),
    (("bf16", "vgg16", False, ["avx512_bf16"]), "was not measured for vgg16"),
    (("bf16", "resnet50_v1", False, []), "this processor has none of"), (("bf16", "resnet50_v1", True), "is for CPUs")])
def test_precisions_that_do_not_work_or_pay_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        check(*arguments)
    check("float32", "vgg16", False)
    check("bf16", "resnet50_v1", False, ["avx512_bf16"])
