"""LARS against numbers worked by hand, by name, with its state saved; and SGD's faster kernel against MXNet's own."""
from gluonzoo.training import Trainer
from gluonzoo.training.sgd import LARGE, SGD

import mxnet as mx
import numpy as np
import pytest


def train(net, trainer, steps, first=0):
    for number in range(first, first + steps):
        images = np.random.RandomState(number).randn(4, 3).astype(np.float32)
        with mx.autograd.record():
            loss = (net(mx.nd.array(images)) ** 2).sum(axis=1)
        loss.backward()
        trainer.step(4)
        yield images


def make(seed=1):
    mx.random.seed(seed)
    net = mx.gluon.nn.Dense(2, in_units=3)
    net.initialize(mx.init.Normal(0.5))
    net.bias.set_data(mx.nd.array([0.3, -0.2]))
    return net


def by_hand(gradient, weight, velocity, rate, momentum, eta, eps, wd):
    ratio = 1.0
    if weight.ndim > 1:
        norms = np.linalg.norm(weight), np.linalg.norm(gradient)
        ratio = eta * norms[0] / (norms[1] + wd * norms[0] + eps) if min(norms) > 0 else 1.0
    velocity = momentum * velocity + rate * ratio * (gradient + wd * weight)
    return weight - velocity, velocity


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_lars_equals_numpy(momentum):
    settings = {"momentum": momentum, "eta": 0.02, "eps": 1e-9, "wd": 0.01}
    net = make()
    trainer = Trainer(net, "lars", {"learning_rate": 0.5, **settings})
    values = [net.weight.data().asnumpy().astype(np.float64), net.bias.data().asnumpy().astype(np.float64)]
    velocities = [np.zeros_like(value) for value in values]
    for images in train(net, trainer, 4):
        outputs = images @ values[0].T + values[1]
        gradients = [2 * outputs.T @ images / 4, 2 * outputs.sum(axis=0) / 4]
        for number, gradient in enumerate(gradients):
            values[number], velocities[number] = by_hand(gradient, values[number], velocities[number], 0.5, **settings)
        np.testing.assert_allclose(net.weight.data().asnumpy(), values[0], rtol=1e-5)
        np.testing.assert_allclose(net.bias.data().asnumpy(), values[1], rtol=1e-5)


def test_a_zero_weight_has_the_ratio_one():
    net = make()
    net.weight.set_data(mx.nd.zeros((2, 3)))
    trainer = Trainer(net, "lars", {"learning_rate": 0.5, "momentum": 0.0, "eta": 0.02})
    images, = train(net, trainer, 1)
    gradient = 2 * np.tile([0.3, -0.2], (4, 1)).T @ images / 4
    np.testing.assert_allclose(net.weight.data().asnumpy(), -0.5 * gradient, rtol=1e-5)


def test_lars_continues_to_the_bit():
    arguments = ("lars", {"learning_rate": 0.5, "eta": 0.02, "wd": 0.01})
    straight = make()
    list(train(straight, Trainer(straight, *arguments), 6))
    net = make()
    trainer = Trainer(net, *arguments)
    list(train(net, trainer, 3))
    saved = trainer.state_dict()
    again = make(seed=2)
    for name, parameter in again._collect_params_with_prefix().items():
        parameter.set_data(net._collect_params_with_prefix()[name].data())
    trainer = Trainer(again, *arguments)
    trainer.load_state_dict(saved)
    list(train(again, trainer, 3, first=3))
    np.testing.assert_array_equal(again.weight.data().asnumpy(), straight.weight.data().asnumpy())
    np.testing.assert_array_equal(again.bias.data().asnumpy(), straight.bias.data().asnumpy())


@pytest.mark.parametrize("more", [{"momentum": 0.9}, {"momentum": 0.9, "clip_gradient": 0.2}, {}])
def test_our_sgd_is_mxnets_to_the_bit(more):
    random, results = np.random.RandomState(0), []
    start = [random.randn(size).astype(np.float32) for size in (10, LARGE, LARGE + 3, 7)]
    gradients = [[random.randn(value.size).astype(np.float32) for value in start] for _ in range(3)]
    for kind in (SGD, mx.optimizer.SGD):
        updater = mx.optimizer.get_updater(kind(learning_rate=0.1, wd=1e-3, rescale_grad=1 / 48, **more))
        weights = [mx.nd.array(value) for value in start]
        for step in gradients:
            updater([0, 1, 2, 3], [mx.nd.array(gradient) for gradient in step], weights)
        results.append([weight.asnumpy() for weight in weights])
    for ours, theirs in zip(*results):
        np.testing.assert_array_equal(ours, theirs)
