"""Frozen layers: not a bit changes in them, the rest trains; one device, two devices, resumed."""
import json
import os

import gluonzoo
from gluonzoo import arrays
from gluonzoo.errors import UserError
from gluonzoo.training import Trainer, freeze, load_all_but_output, train
from gluonzoo.training.weights import get_parameters

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import nn


class Small(gluonzoo.layers.Network):
    """Two stages with BatchNorm and a last layer."""
    model_name, model_kwargs = "small", None

    def __init__(self, classes=3):
        super().__init__(classes, 2)
        with self.name_scope():
            self.features = gluonzoo.layers.Stages()
            with self.features.name_scope():
                self.features.stem = gluonzoo.layers.ConvNorm(2, 4, 3)
                self.features.stage1 = gluonzoo.layers.ConvNorm(4, 4, 3)
            self.pool = gluonzoo.layers.GlobalAveragePool()
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=4)

    def hybrid_forward(self, F, x):
        return self.output(self.pool(self.features(x)))


def small(contexts=None, seed=3):
    mx.random.seed(seed)
    net = Small()
    net.initialize(ctx=contexts)
    random = np.random.RandomState(1)
    for name, parameter in net._collect_params_with_prefix().items():
        if "running" in name:
            parameter.set_data(mx.nd.array(random.uniform(0.5, 1.5, parameter.shape)))
    return net


def steps(net, trainer, contexts, count=3):
    random = np.random.RandomState(0)
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    for _ in range(count):
        x, y = random.randn(8, 2, 6, 6).astype("float32"), random.randint(0, 3, 8)
        with autograd.record():
            heads = [loss(net(mx.nd.array(x[rows], ctx=ctx)), mx.nd.array(y[rows], ctx=ctx))
                     for ctx, rows in zip(contexts, np.array_split(np.arange(8), len(contexts)))]
        autograd.backward(heads)
        trainer.step(8)
    mx.nd.waitall()


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("contexts", [[mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]])
@pytest.mark.parametrize("prefixes, trained", [
    ("features", {"output"}), ("features.stem", {"features.stage1", "output"}),
    (["features.stem", "output.bias"], {"features.stage1", "output.weight"})])
def test_frozen_parameters_do_not_change_by_a_bit(contexts, hybridize, prefixes, trained):
    net = small(contexts)
    before = get_parameters(net)
    frozen = freeze(net, prefixes)
    assert all("null" == net._collect_params_with_prefix()[name].grad_req for name in frozen)
    trainer = Trainer(net, "sgd", {"learning_rate": 0.1, "wd": 0.1, "momentum": 0.9}, kvstore="device")
    if hybridize:
        net.hybridize(static_alloc=True, static_shape=True)
    steps(net, trainer, contexts)
    for ctx in contexts:
        for name, parameter in net._collect_params_with_prefix().items():
            same = np.array_equal(parameter.data(ctx).asnumpy(), before[name])
            assert same == (not name.startswith(tuple(trained))), name


def test_a_frozen_batchnorm_normalises_by_its_running_statistics_in_training():
    x = mx.nd.array(np.random.RandomState(2).randn(4, 2, 6, 6))
    net = small()
    expected = net.features(x).asnumpy()
    freeze(net, "features")
    with autograd.record():
        found = net.features(x)
    np.testing.assert_array_equal(found.asnumpy(), expected)
    with autograd.record():
        other = small().features(x)
    assert np.abs(other.asnumpy() - expected).max() > 0.1  # Not frozen: by the batch's.


@pytest.mark.parametrize("prefixes, words", [
    ("feature", ["'feature'", "features, ", "features.stem", "output"]),
    ("features.stage2", ["features.stage2", "features.stage1"]),
    ("", ["''"]), ("features,output", ["leave at least one layer out"]), (["features.stem", "nothing"], ["'nothing'"])])
def test_what_cannot_be_frozen_is_told_and_nothing_is_changed(prefixes, words):
    net = small()
    with pytest.raises(UserError) as caught:
        freeze(net, prefixes)
    assert all(word in str(caught.value) for word in words), caught.value
    assert net.features.stem.conv.weight.grad_req == "write"
    assert not net.features.stem.norm._kwargs["use_global_stats"]


def lenet(classes, seed=5):
    mx.random.seed(seed)
    net = gluonzoo.get_model("lenet_caffe", classes=classes)
    net.initialize()
    return net


@pytest.mark.parametrize("kind", ["plain", "export"])
def test_all_but_the_output_is_loaded(tmp_path, kind):
    path, source, net = str(tmp_path / "w.params"), lenet(7), lenet(4, seed=6)
    values, fresh = get_parameters(source), get_parameters(net)
    arrays.save(path, {("arg:" if kind == "export" else "") + name: value for name, value in values.items()})
    assert sorted(load_all_but_output(net, path)) == ["output.bias", "output.weight"]
    for name, value in get_parameters(net).items():
        np.testing.assert_array_equal(value, (fresh if name.startswith("output.") else values)[name])


def test_all_but_the_output_of_another_network_changes_nothing(tmp_path):
    path, net = str(tmp_path / "w.params"), lenet(4)
    before = get_parameters(net)
    values = get_parameters(lenet(7, seed=9))
    arrays.save(path, {**values, "features.conv1.weight": values["features.conv1.weight"][:5]})
    with pytest.raises(UserError, match=r"w.params.*features.conv1.weight is \(5, 1, 5, 5\)"):
        load_all_but_output(net, path)
    arrays.save(path, {name: value for name, value in values.items() if name != "ip1.bias"})
    with pytest.raises(UserError, match="ip1.bias"):
        load_all_but_output(net, path)
    arrays.save(path, {"something": np.zeros(3, "float32")})
    with pytest.raises(UserError, match="w.params"):
        load_all_but_output(net, path)
    (tmp_path / "w.params").write_bytes(b"no parameters")
    with pytest.raises(UserError, match="w.params"):
        load_all_but_output(net, path)
    with pytest.raises(UserError, match="absent"):
        load_all_but_output(net, str(tmp_path / "absent"))
    for name, value in get_parameters(net).items():
        np.testing.assert_array_equal(value, before[name])


def checkpoints(folder):
    return sorted((folder / "checkpoints").iterdir())


def parameters(folder):
    return arrays.load(str(checkpoints(folder)[-1] / "parameters.params"))


@pytest.fixture
def weights(tmp_path):
    """Weights of a network for seven classes."""
    pytest.importorskip("sklearn")
    path = str(tmp_path / "seven.params")
    arrays.save(path, get_parameters(lenet(7)))
    return path


@pytest.mark.parametrize("devices", [1, 2])
def test_a_resumed_fine_tuning_run_equals_the_uninterrupted_one(tmp_path, weights, devices):
    settings = {"model": "lenet_caffe", "dataset": "digits", "weights": weights, "reset_classes": 10,
                "freeze": "features", "devices": devices, "kvstore": "device", "batch_size": 128, "epochs": 2, "lr": 0.02,
                "checkpoint_every": 5, "keep": 10}
    train({**settings, "output": str(tmp_path / "whole")})
    train({**settings, "output": str(tmp_path / "parts")})
    for late in [path for path in checkpoints(tmp_path / "parts") if json.loads((path / "state.json").read_text())["step"] > 10]:
        for file in late.iterdir():
            file.unlink()
        late.rmdir()
    os.remove(weights)  # A resumed run needs the file no more.
    run, _ = train({"output": str(tmp_path / "parts")}, resume=True)
    assert run.config.freeze == "features" and run.config.reset_classes == 10
    whole, parts, source = parameters(tmp_path / "whole"), parameters(tmp_path / "parts"), get_parameters(lenet(7))
    assert run.position.step == 24
    for name in whole:
        np.testing.assert_array_equal(parts[name], whole[name])
        assert not name.startswith("features.") or np.array_equal(whole[name], source[name])
    assert whole["output.weight"].shape == (10, 500) and not np.array_equal(whole["ip1.weight"], source["ip1.weight"])
    with pytest.raises(UserError, match="--freeze features; a run cannot change it to output"):
        train({"output": str(tmp_path / "parts"), "freeze": "output", "epochs": 3}, resume=True)


@pytest.mark.parametrize("change, words", [
    ({"reset_classes": None}, ["seven.params", "10 classes of digits", "--reset-classes 10"]),
    ({"reset_classes": 9}, ["--reset-classes is 9", "10 classes"]),
    ({"weights": None}, ["--weights"]), ({"freeze": "feature"}, ["'feature'", "features.conv1"]),
    ({"freeze": "features,ip1,output"}, ["at least one layer"]), ({"reset_classes": 0}, ["--reset-classes is 0"])])
def test_mistakes_are_told_before_anything_is_written(tmp_path, weights, change, words):
    settings = {"model": "lenet_caffe", "dataset": "digits", "weights": weights, "reset_classes": 10, "freeze": "features",
                "output": str(tmp_path / "run"), "epochs": 1, **change}
    with pytest.raises(UserError) as caught:
        train(settings)
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "run").exists()
