"""Shared weights in training: gradients of centres by hand, equal bits through optimizers and resuming, small files."""
from gluonzoo import compact
from gluonzoo.errors import UserError
from gluonzoo.layers import weight_names
from gluonzoo.training import Trainer, checkpoint
from gluonzoo.training.constraints import Tied
from gluonzoo.training.sharing import begin_sharing

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from small_nets import small_networks
from small_runs import BASE, assert_resumed_is_uninterrupted, train

CPUS = [mx.cpu(0), mx.cpu(1)]


@pytest.fixture(autouse=True)
def networks():
    with small_networks():
        yield


def layer(weights):
    net = gluon.nn.Dense(len(weights), in_units=len(weights[0]), use_bias=False)
    net.initialize()
    net.weight.set_data(mx.nd.array(weights))
    return net


def test_the_centres_gradient_by_hand():
    """y = sum of W x; clusters {a, c} and {b, d}, and one pruned: dC = sum of its weights' gradients; SGD by hand."""
    net = layer([[1.0, -2.0, 1.0, -2.0, 0.0]])
    tied = Tied({"weight": net.weight}, {"weight": np.array([[2, 1, 2, 1, 0]])}, zeros=["weight"])
    trainer = Trainer(net, "sgd", {"learning_rate": 0.1, "momentum": 0.5, "wd": 0.01})
    trainer.constraint = tied
    centres, momentum = np.array([1.0, -2.0]), np.zeros(2)
    for image in ([1.0, 2, 4, 8, 16], [3.0, -1, 0, 2, 9]):
        with autograd.record():
            value = net(mx.nd.array([image]))
        value.backward()
        trainer.step(1)
        gradient = np.array([image[0] + image[2], image[1] + image[3]]) + 0.01 * centres
        momentum = 0.5 * momentum - 0.1 * gradient
        centres = centres + momentum
        np.testing.assert_allclose(net.weight.data().asnumpy(), [[centres[0], centres[1], centres[0], centres[1], 0]], rtol=1e-6)


def test_it_begins_at_the_centres_and_zeros_are_no_cluster():
    net = layer([[0.0, 1.0, 1.2, -3.0], [-3.2, 0.0, 0.0, 1.1]])
    tied = begin_sharing(net, 1)
    np.testing.assert_allclose(net.weight.data().asnumpy(), [[0, 1.1, 1.1, -3.1], [-3.1, 0, 0, 1.1]], rtol=1e-6)
    assert tied.zeros == {"weight"} and set(tied.state()) == {"zero:weight"}
    np.testing.assert_array_equal(tied.indices["weight"], [[0, 2, 2, 1], [1, 0, 0, 2]])


@pytest.mark.parametrize("devices", [None, CPUS])
@pytest.mark.parametrize("optimizer", ["sgd", "nag", "adam", "rmsprop", "lars"])
def test_clusters_stay_one_number_and_move(optimizer, devices):
    mx.random.seed(1)
    net = gluon.nn.Dense(37, in_units=41)
    net.initialize(mx.init.Normal(1), ctx=devices)
    net.weight.set_data(net.weight.list_data()[0] * (net.weight.list_data()[0] > 0.3))  # Some are pruned.
    tied = begin_sharing(net, 3)
    trainer = Trainer(net, optimizer, {"learning_rate": 0.01, "wd": 0.01})
    trainer.constraint = tied
    before = net.weight.list_data()[0].asnumpy()
    for _ in range(3):
        images = mx.nd.random.normal(shape=(4, 41))
        with autograd.record():
            losses = [net(images[k::len(devices or [0])].as_in_context(device)).square()
                      for k, device in enumerate(devices or [mx.cpu()])]
        autograd.backward(losses)
        trainer.step(4)
    for weight in net.weight.list_data():
        weight = weight.asnumpy()
        assert len(np.unique(weight.view(np.uint32))) == len(np.unique(before.view(np.uint32)))
        np.testing.assert_array_equal(weight == 0, before == 0)
        assert (weight != before)[before != 0].all()
        np.testing.assert_array_equal(weight, net.weight.list_data()[0].asnumpy())


@pytest.mark.parametrize("more", [
    {"share_bits": 3, "ema": 0.9, "optimizer": "nag", "lr": 0.01},
    {"share_bits": 2, "share_skip": "first,last", "devices": 2, "share_init": "random", "lr": 0.001}])
def test_resumed_is_uninterrupted_and_shared(tmp_path, more):
    train({**BASE, "epochs": 1, "prune": 0.5, "prune_end": 0.5, "output": str(tmp_path / "pruned")})
    run, values = assert_resumed_is_uninterrupted(tmp_path, {**more, "weights": str(tmp_path / "pruned")}, steps=(4,))
    for name in weight_names(run.net, more.get("share_skip", "")):
        for file in ["parameters.params"] + ["ema.params"] * ("ema" in more):
            array = values[file, name]
            assert len(np.unique(array.view(np.uint32))) <= 2 ** more["share_bits"] + 1
            assert (array == 0).sum() == round(0.5 * array.size)
    # Codes of so many bits, and the same network from the file.
    net = checkpoint.load(str(tmp_path / "whole")).net()
    from gluonzoo.training.weights import get_parameters
    before = get_parameters(net)
    report = compact.save(str(tmp_path / "x.compact"), before, {"model": "small_residual"})
    again, facts = compact.open_compact(str(tmp_path / "x.compact"))
    assert report.after == (tmp_path / "x.compact").stat().st_size and facts == {"model": "small_residual"}
    assert all(value.tobytes() == before[name].tobytes() for name, value in get_parameters(again).items())


def test_foreign_clusters_are_refused():
    net, other = layer([[1.0, 2.0]]), layer([[1.0, 2.0, 3.0]])
    tied = begin_sharing(net, 1)
    with pytest.raises(UserError, match=r"shape \(1, 2\); expected \(1, 3\)"):
        Tied.restored({"weight": other.weight}, tied.state())
    with pytest.raises(UserError, match="clusters of 1 layers; the settings share 2"):
        Tied.restored({"weight": net.weight, "more": other.weight}, tied.state())
    with pytest.raises(UserError, match="clusters without weights"):
        Tied({"weight": net.weight}, {"weight": np.array([[0, 2]])})
