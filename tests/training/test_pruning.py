"""Pruning: schedules and masks by hand; zeros that stay through every optimizer, devices, averages, resuming and export."""
from gluonzoo.errors import UserError
from gluonzoo.layers import weight_names
from gluonzoo.training import Trainer, checkpoint, prepare
from gluonzoo.training.constraints import Masks
from gluonzoo.training.pruning import choose_masks, sparsity_of, target_sparsity
from gluonzoo.training.run import settings

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from small_nets import SmallResidual, small_networks
from small_runs import BASE, assert_resumed_is_uninterrupted, files, train

CPUS = [mx.cpu(0), mx.cpu(1)]


@pytest.fixture(autouse=True)
def networks():
    with small_networks():
        yield


def test_gradual_schedule_by_hand():
    # Zhu and Gupta's equation 1 with s_i = 0, s_f = 0.8, t_0 = 10, 4 steps of 5 updates: 0.8 (1 - (1 - k / 4)^3).
    found = [target_sparsity(step, 0.8, "gradual", 10, 30, 5) for step in range(40)]
    assert found[:10] == [0.0] * 10 and found[30:] == [0.8] * 10
    for k in range(4):
        np.testing.assert_allclose(found[10 + 5 * k:15 + 5 * k], 0.8 * (1 - (1 - k / 4) ** 3))
    np.testing.assert_allclose(target_sparsity(15, 0.8, "gradual", 10, 30, 5, initial=0.2), 0.8 - 0.6 * 0.75 ** 3)


def test_iterative_and_oneshot_schedules_by_hand():
    # Three rounds at 0, 10 and 20 that leave a half each.
    found = [target_sparsity(step, 0.875, "iterative", 0, 20, rounds=3) for step in range(25)]
    np.testing.assert_allclose(found, [0.5] * 10 + [0.75] * 10 + [0.875] * 5)
    assert target_sparsity(5, 0.9, "iterative", 0, 10, rounds=1) == 0.9
    assert [target_sparsity(step, 0.9, "oneshot", 3, 9) for step in (2, 3, 8, 20)] == [0, 0.9, 0.9, 0.9]
    assert target_sparsity(0, 0.9, "gradual", 0, 0) == 0.9


def test_masks_by_hand():
    weights = {"a": np.array([[4, -3, 2, -1.0]]), "b": np.array([[0.1, 0.2], [-0.3, 0.4]])}
    found = choose_masks(weights, 0.5)
    assert found["a"].tolist() == [[True, True, False, False]] and found["b"].tolist() == [[False, False], [True, True]]
    found = choose_masks(weights, 0.5, "global")
    assert found["a"].all() and found["b"].tolist() == [[False, False], [False, True]] or found["b"].sum() == 1
    # In units of standard deviations (2.69 and 0.25) 0.4 is larger than 4: 1.49, 1.11, .74, .37; .40, .79, 1.18, 1.58.
    found = choose_masks(weights, 0.5, "std")
    assert found["a"].tolist() == [[True, True, False, False]] and found["b"].tolist() == [[False, False], [True, True]]


def test_masks_are_exact_with_ties_and_keep_what_is_gone():
    weights = {"a": np.ones((4, 5))}
    first = choose_masks(weights, 0.3)["a"]
    assert (~first).sum() == 6 and not first.ravel()[:6].any()
    weights["a"][0, 5 - 1] = -2  # Not gone by ties; now the largest.
    second = choose_masks(weights, 0.6, before={"a": first})["a"]
    assert (~second).sum() == 12 and not (second & ~first).any() and second[0, 4] == first[0, 4]


@pytest.mark.parametrize("scope", ["global", "std"])
def test_no_layer_loses_all(scope):
    weights = {"a": np.full((3, 3), 1e-9), "b": np.random.RandomState(0).randn(20, 20)}
    found = choose_masks(weights, 0.99, scope)
    assert found["a"].sum() >= 1 and found["b"].sum() >= 1
    assert sum(int(mask.sum()) for mask in found.values()) == 409 - round(0.99 * 409)
    assert choose_masks({"a": np.ones((2, 2))}, 0.999)["a"].sum() == 1


def test_masks_of_zeros_weights_that_were_masked_go_first():
    weights = {"a": np.array([[0.0, 0.0, 0.0, 5.0]])}  # One zero is masked, two are only zero.
    found = choose_masks(weights, 0.5, before={"a": np.array([[True, True, False, True]])})
    assert found["a"].tolist() == [[False, True, False, True]]


@pytest.mark.parametrize("arguments, message", [((1.0,), "sparsity is 1.0"), ((-0.1,), "sparsity"),
                                                ((0.5, "filter"), "'filter'")])
def test_bad_masks(arguments, message):
    with pytest.raises(UserError, match=message):
        choose_masks({"a": np.ones((2, 2))}, *arguments)


def test_which_layers():
    net = SmallResidual()
    names = weight_names(net)
    assert names[0] == "features.stem.conv.weight" and names[-1] == "output.weight"
    assert not any(word in name for name in names for word in ("bias", "norm"))
    assert weight_names(net, "first,last") == names[1:-1]
    assert weight_names(net, ["features.unit1"]) == [name for name in names if "unit1" not in name]
    with pytest.raises(UserError, match="no layer is called 'features.unit'; expected first, last or .*features.stem.conv"):
        weight_names(net, "features.unit")
    with pytest.raises(UserError, match="leaves out every layer"):
        weight_names(net, "features,output")
    with pytest.raises(UserError, match="no weights"):
        weight_names(gluon.nn.BatchNorm(in_channels=2))


def dense_net(devices=None):
    mx.random.seed(7)
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Dense(16, in_units=12, activation="tanh"), gluon.nn.Dense(5, in_units=16))
    net.initialize(mx.init.Normal(0.5), ctx=devices)
    return net


def some_updates(net, trainer, count, devices=None):
    random, loss = np.random.RandomState(3), gluon.loss.L2Loss()
    devices = devices or [mx.cpu()]
    for _ in range(count):
        images, labels = random.randn(8, 12).astype("float32"), random.randn(8, 5).astype("float32")
        share = 8 // len(devices)
        with autograd.record():
            losses = [loss(net(mx.nd.array(images[k * share:(k + 1) * share], ctx=device)),
                           mx.nd.array(labels[k * share:(k + 1) * share], ctx=device)) for k, device in enumerate(devices)]
        autograd.backward(losses)
        trainer.step(8)


def masks_for(net, seed=0):
    masks = Masks({name: parameter for name, parameter in net._collect_params_with_prefix().items() if "weight" in name})
    random = np.random.RandomState(seed)
    return masks, {name: random.rand(*parameter.shape) < 0.4 for name, parameter in masks.parameters.items()}


@pytest.mark.parametrize("devices", [None, CPUS])
@pytest.mark.parametrize("optimizer, arguments", [
    ("sgd", {"learning_rate": 0.1, "momentum": 0.9, "wd": 0.01}), ("nag", {"learning_rate": 0.1, "momentum": 0.9, "wd": 0.01}),
    ("adam", {"wd": 0.01}), ("rmsprop", {"momentum": 0.9, "wd": 0.01}), ("lars", {"wd": 0.01}), ("signum", {"wd": 0.01}),
    ("adagrad", {"wd": 0.01}), ("adadelta", {"wd": 0.01}), ("ftrl", {}), ("adamax", {"wd": 0.01})])
def test_zeros_stay_with_every_optimizer(optimizer, arguments, devices):
    """Also with momentum from before; positive zeros, on every device; everything else moves."""
    net = dense_net(devices)
    trainer = Trainer(net, optimizer, arguments)
    some_updates(net, trainer, 3, devices)
    masks, chosen = masks_for(net)
    masks.set(chosen)
    trainer.constraint = masks
    before = net[0].weight.list_data()[0].asnumpy()
    some_updates(net, trainer, 4, devices)
    for name, parameter in masks.parameters.items():
        for weight in parameter.list_data():
            weight = weight.asnumpy()
            assert (weight.view(np.uint32)[~chosen[name]] == 0).all(), (name, optimizer)
            np.testing.assert_array_equal(weight, parameter.list_data()[0].asnumpy())
    # (Signum can come back to where it was.)
    assert (net[0].weight.list_data()[0].asnumpy() != before)[chosen["0.weight"]].mean() > 0.5


def test_the_others_train_as_if_there_were_no_pruned_ones():
    """Against the stock arithmetic of the kept weights alone, gradient norm included: a layer of one output, by NumPy."""
    net = gluon.nn.Dense(1, in_units=4, use_bias=False)
    net.initialize()
    net.weight.set_data(mx.nd.array([[1.0, -2.0, 3.0, -4.0]]))
    trainer = Trainer(net, "sgd", {"learning_rate": 0.1, "momentum": 0.9, "wd": 0.1}, clip_norm=2.0)
    masks = Masks({"weight": net.weight})
    masks.set({"weight": np.array([[True, False, True, False]])})
    trainer.constraint = masks
    kept, momentum = np.array([1.0, 3.0]), np.zeros(2)
    for step in range(3):
        images = np.random.RandomState(step).randn(2, 4).astype("float32") * 4
        with autograd.record():
            value = net(mx.nd.array(images)).sum(axis=1)
        value.backward()
        trainer.step(2)
        gradient = images.sum(axis=0)[[0, 2]] / 2
        gradient *= min(1, 2.0 / np.linalg.norm(gradient))  # The norm of what is kept.
        momentum = 0.9 * momentum - 0.1 * (gradient + 0.1 * kept)
        kept = kept + momentum
    np.testing.assert_allclose(net.weight.data().asnumpy(), [[kept[0], 0, kept[1], 0]], rtol=1e-5)


def test_masks_come_back_from_bits_and_foreign_ones_are_refused():
    net = dense_net()
    masks, chosen = masks_for(net)
    masks.set(chosen)
    state = masks.state()
    assert state["0.weight"].dtype == np.uint8 and state["0.weight"].size == 24
    again, _ = masks_for(dense_net())
    again.load(state)
    assert all((again.masks[name] == chosen[name]).all() for name in chosen)
    with pytest.raises(UserError, match="the mask of 1.weight is missing"):
        again.load({"0.weight": state["0.weight"]})
    with pytest.raises(UserError, match="expected 24 of uint8"):
        again.load({**state, "0.weight": state["0.weight"][1:]})
    with pytest.raises(UserError, match=r"shape \(2, 2\); expected \(16, 12\)"):
        again.set({**chosen, "0.weight": np.ones((2, 2))})


RUNS = {
    "gradual, average": {"prune": 0.7, "prune_every": 2, "ema": 0.9, "prune_end": 0.6},
    "iterative, nag, by std, not first": {"prune": 0.8, "prune_schedule": "iterative", "prune_rounds": 3, "prune_end": 0.8,
                                          "prune_scope": "std", "optimizer": "nag", "prune_skip": "first"},
    "oneshot, two devices, adam to sgd": {"prune": 0.5, "prune_schedule": "oneshot", "prune_begin": 0.4, "devices": 2,
                                          "optimizer": "adam", "lr": 0.003, "switch_to": "sgd", "switch_lr": 0.05,
                                          "prune_scope": "global"},
    "accumulated": {"prune": 0.6, "prune_every": 1, "prune_begin": 0.1, "accumulate": 3, "clip_norm": 1.0},
}


@pytest.mark.parametrize("name", RUNS)
def test_resumed_is_uninterrupted_and_as_sparse_as_asked(tmp_path, name):
    steps = (4, 8) if "switch_to" in RUNS[name] else (4,)
    run, values = assert_resumed_is_uninterrupted(tmp_path, RUNS[name], steps)
    names = weight_names(run.net, RUNS[name].get("prune_skip", ""))
    kinds = ["parameters.params"] + ["ema.params"] * ("ema" in RUNS[name])
    for file in kinds:
        arrays = {one: values[file, one] for one in names}
        assert all((array.view(np.uint32)[array == 0] == 0).all() for array in arrays.values())
        zeros = sum(count for count, _ in sparsity_of(arrays).values())
        total = sum(array.size for array in arrays.values())
        assert abs(zeros - RUNS[name]["prune"] * total) <= len(names)
        if "global" not in RUNS[name].values() and "std" not in RUNS[name].values():
            for array in arrays.values():
                assert (array == 0).sum() == round(RUNS[name]["prune"] * array.size)
    left_out = set(weight_names(run.net)) - set(names)
    assert all((values["parameters.params", one] != 0).all() for one in left_out)
    assert run.position.history[-1]["sparsity"] == run.pruner.sparsity()


def test_a_pruned_network_is_trained_on_and_shrunk_on(tmp_path):
    first, _ = train({**BASE, "epochs": 1, "prune": 0.5, "prune_end": 0.2, "ema": 0.5, "output": str(tmp_path / "a")})
    saved = checkpoint.load(str(tmp_path / "a"))
    zeros = {name: array == 0 for name, array in saved.arrays("ema.params").items() if name in first.pruner.masks.masks}
    # From the run's folder, by its moving average.
    second, _ = train({**BASE, "epochs": 1, "keep_zeros": True, "weights": str(tmp_path / "a"), "output": str(tmp_path / "b")})
    values = files(checkpoint.load(str(tmp_path / "b")).path)[0]
    for name, gone in zeros.items():
        np.testing.assert_array_equal(values["parameters.params", name] == 0, gone)
    third, _ = train({**BASE, "epochs": 1, "prune": 0.8, "prune_end": 0.2, "keep_zeros": True, "weights": str(tmp_path / "a"),
                      "output": str(tmp_path / "c")})
    for name, gone in zeros.items():
        now = third.net._collect_params_with_prefix()[name].data().asnumpy() == 0
        assert (now | ~gone).all() and now.sum() == round(0.8 * now.size)
    # Without being told to keep them, zeros grow again.
    fourth, _ = train({**BASE, "epochs": 1, "weights": str(tmp_path / "a"), "output": str(tmp_path / "d")})
    name = next(iter(zeros))
    assert (fourth.net._collect_params_with_prefix()[name].data().asnumpy() != 0).all()


def test_exports_keep_the_zeros(tmp_path):
    run, _ = train({**BASE, "epochs": 1, "prune": 0.75, "prune_end": 0.2, "output": str(tmp_path / "run")})
    net = checkpoint.load(str(tmp_path / "run")).net()
    names = weight_names(net)
    before = {name: (net._collect_params_with_prefix()[name].data().asnumpy() == 0).sum() for name in names}
    from gluonzoo import arrays, export
    written = export.to_symbol(net, str(tmp_path / "net"), (1, 8, 8))
    values = arrays.load(written.parameters)
    assert {name: (values[f"arg:{name}"] == 0).sum() for name in names} == before
    # BatchNorm folded into the weights: each is multiplied by its channel's number, and what is zero stays.
    fused = export.fuse(net, input_shape=(1, 8, 8))
    weights = [parameter.data().asnumpy() for parameter in fused.collect_params().values() if parameter.data().ndim >= 2]
    # Channels of zeros that widen maps come on top.
    assert sum(int((weight == 0).sum()) for weight in weights) >= sum(before.values())
    assert sum(int((weight != 0).sum()) for weight in weights) <= sum(
        net._collect_params_with_prefix()[name].data().size for name in names) - sum(before.values())


def test_onnx_and_int8_keep_the_zeros(tmp_path):
    pytest.importorskip("onnxruntime")
    run, _ = train({**BASE, "epochs": 1, "prune": 0.75, "prune_end": 0.2, "output": str(tmp_path / "run")})
    net = checkpoint.load(str(tmp_path / "run")).net()
    values = {name: net._collect_params_with_prefix()[name].data().asnumpy() for name in weight_names(net)}
    from gluonzoo import export
    from gluonzoo.interop import files as weight_files
    export.to_onnx(net, str(tmp_path / "net.onnx"), (1, 8, 8))
    found = weight_files.read(str(tmp_path / "net.onnx")).arrays
    for name, value in values.items():
        np.testing.assert_array_equal(found[name], value)
    images = np.random.RandomState(0).rand(32, 1, 8, 8).astype("float32")
    small = export.quantize(net, images)
    small.save(str(tmp_path / "int8"))
    from gluonzoo import arrays
    packed = arrays.load(str(tmp_path / "int8-0000.params"))
    eights = [array for array in packed.values() if array.dtype == np.int8]
    kept = sum(int((value != 0).sum()) for value in values.values())
    assert eights and sum(int((array != 0).sum()) for array in eights) <= kept


@pytest.mark.parametrize("more, message", [
    ({"prune": 1.0}, "--prune is 1.0"), ({"prune": 0.5, "prune_begin": 0.6}, "--prune-end is 0.5 and --prune-begin 0.6"),
    ({"prune": 0.5, "kvstore": "dist_async"}, "do not go with --kvstore dist_async"),
    ({"prune": 0.5, "share_bits": 4}, "prune in a first run"), ({"share_bits": 9}, "--share-bits is 9"),
    ({"prune": 0.5, "prune_skip": "stem"}, "no layer is called 'stem'"),
    ({"prune": 0.5, "prune_scope": "filter"}, "expected one of layer, global, std"),
    ({"keep_zeros": True, "kvstore": "dist_async"}, "dist_async"), ({"teacher_weights": "x"}, "goes with --teacher")])
def test_what_cannot_be_had_is_refused_before_anything_is_written(tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        train({**BASE, **more, "output": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_change_what_is_pruned_on_resuming(tmp_path):
    train({**BASE, "epochs": 1, "prune": 0.5, "output": str(tmp_path / "run")})
    with pytest.raises(UserError, match="trained with --prune-skip ; a run cannot change it to first"):
        settings({"prune_skip": "first", "output": str(tmp_path / "run")}, resume=True)
    with pytest.raises(UserError, match="holds pruned weights; expected --prune"):
        prepare(*settings({"prune": 0.0, "epochs": 2, "output": str(tmp_path / "run")}, resume=True))
    run, _ = train({"prune": 0.8, "epochs": 2, "output": str(tmp_path / "run")}, resume=True)
    assert abs(run.pruner.sparsity() - 0.8) < 0.02


def test_a_trainer_on_servers_refuses():
    trainer = Trainer(dense_net())
    trainer.kvstore = type("Store", (), {"is_async": True})()
    with pytest.raises(UserError, match="dist_async updates on the servers"):
        trainer.constraint = masks_for(dense_net())[0]
