"""Whole small runs with each technique: resumed they equal the uninterrupted ones to the bit; what is logged and saved."""
import os

from gluonzoo.errors import UserError
from gluonzoo.training import checkpoint, fit, prepare, recipes
from gluonzoo.training.run import settings

import mxnet as mx
import numpy as np
import pytest
from small_nets import small_networks

BASE = {"model": "small_residual", "dataset": "digits", "epochs": 2, "batch_size": 300, "lr": 0.1, "augment": "none", "keep": 50,
        "checkpoint_every": 4}

#: Everything that has a memory, alone or together.
CRAFT = {
    "ema and label smoothing": {"ema": 0.9, "label_smoothing": 0.1},
    "stochastic depth and dropout": {"stochastic_depth": 0.5, "dropout": 0.4},
    "plateau": {"schedule": "plateau", "patience": 1, "lr": 1e-7, "lr_decay": 0.5, "epochs": 4},
    "switch": {"optimizer": "adam", "lr": 0.003, "switch_to": "sgd", "switch_lr": 0.05, "switch_at": 0.5},
    "one cycle": {"schedule": "one_cycle", "optimizer": "nag", "momentum": 0.95},
    "recompute, dropout within, two devices": {"recompute": 3, "stochastic_depth": 0.5, "dropout": 0.4, "devices": 2},
    "rmsprop, ema, two devices": {"optimizer": "rmsprop", "epsilon": 1.0, "rms_momentum": 0.9, "ema": 0.99, "devices": 2},
}


def train(explicit, resume=False):
    """As `training.train`, without the picture at its end. Returns: (Run, history)."""
    run = prepare(*settings(explicit, resume))
    return run, fit(run)


@pytest.fixture(autouse=True)
def networks():
    with small_networks():
        yield


def files(path):
    """Everything that a checkpoint holds of the training, comparable."""
    saved = checkpoint.Checkpoint(path)
    values = {(file, name): array for file in ("parameters.params", "optimizer.params", "ema.params", "workers.params")
              for name, array in saved.arrays(file).items()}
    history = [{name: value for name, value in record.items()
                if name not in ("seconds", "images_per_second", "data_wait")} for record in saved.state["history"]]
    return values, history, saved


@pytest.mark.parametrize("craft", CRAFT)
def test_resumed_is_uninterrupted(tmp_path, craft):
    run, history = train({**BASE, **CRAFT[craft], "output": str(tmp_path / "whole")})
    folder = tmp_path / "whole" / "checkpoints"
    last = f"step-{run.position.step:010d}"
    expected, records, _ = files(str(folder / last))
    # In the middle of an epoch of 5 updates; of the switch also after it.
    for step in (4, 8) if "switch_to" in CRAFT[craft] else (4,):
        again = str(tmp_path / f"from-{step}")
        train({"output": again}, resume=str(folder / f"step-{step:010d}"))
        found, other, _ = files(os.path.join(again, "checkpoints", last))
        assert other == records
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=str(name))


@pytest.mark.parametrize("more", [{}, {"devices": 2, "accumulate": 3}])
def test_recomputed_is_kept(tmp_path, more):
    """A run in segments is the run without, to the bit, and either goes on from the other's checkpoint."""
    runs = {}
    for segments in (0, 3):
        run, history = train({**BASE, **more, "recompute": segments, "output": str(tmp_path / str(segments))})
        assert (run.recomputed is not None) == bool(segments)
        runs[segments] = files(str(tmp_path / str(segments) / "checkpoints" / f"step-{run.position.step:010d}"))
    assert runs[3][2].config["recompute"] == 3
    again, _ = train({"output": str(tmp_path / "again"), "recompute": 0},
                     resume=str(tmp_path / "3" / "checkpoints" / "step-0000000004"))
    runs["again"] = files(str(tmp_path / "again" / "checkpoints" / f"step-{again.position.step:010d}"))
    for other in (3, "again"):
        assert runs[other][1] == runs[0][1]
        for name, array in runs[0][0].items():
            np.testing.assert_array_equal(runs[other][0][name], array, err_msg=str(name))


def test_plateau_reduces_and_the_rates_are_logged(tmp_path):
    # With no rate to speak of nothing improves after the first validation.
    _, history = train({**BASE, **CRAFT["plateau"], "epochs": 4, "output": str(tmp_path / "run")})
    accuracies = [record["val_accuracy"] for record in history]
    worse = [0] + [int(value <= max(accuracies[:number])) for number, value in enumerate(accuracies) if number]
    expected = [1e-7 * 0.5 ** sum(worse[:number]) for number in range(4)]
    assert expected[3] < expected[0]
    np.testing.assert_allclose([record["lr"] for record in history], expected)


def test_the_average_is_validated_saved_and_can_be_passed_over(tmp_path):
    run, history = train({**BASE, "ema": 0.9, "output": str(tmp_path / "run")})
    assert {"val_accuracy", "val_raw_accuracy", "val_loss", "val_raw_loss"} <= set(history[-1])
    assert history[-1]["val_loss"] != history[-1]["val_raw_loss"]
    _, _, saved = files(str(tmp_path / "run" / "checkpoints" / f"step-{run.position.step:010d}"))
    assert saved.has("ema.params") and saved.state["ema_updates"] == run.position.step
    from gluonzoo.training import Classification, evaluate
    for raw, name in ((False, "val_loss"), (True, "val_raw_loss")):
        found = evaluate(saved.net(raw=raw), Classification(), *run.valid_set, 300)
        np.testing.assert_allclose(found["loss"], history[-1][name], rtol=1e-5)


def test_the_averages_arithmetic():
    from gluonzoo.training.ema import WeightAverage
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(3, in_units=2), mx.gluon.nn.Dense(200, in_units=100), mx.gluon.nn.BatchNorm(in_channels=200))
    net.initialize()
    random = np.random.RandomState(0)
    statistics = random.randn(2, 400)
    average = WeightAverage(net, 0.75, statistics)
    names = [name for name in net._collect_params_with_prefix() if "running" not in name]
    expected = {name: net._collect_params_with_prefix()[name].data().asnumpy().astype(np.float64) for name in names}
    for update in range(1, 40):
        decay = min(0.75, update / (9 + update))
        for name in names:
            values = random.randn(*expected[name].shape)
            net._collect_params_with_prefix()[name].set_data(mx.nd.array(values))
            expected[name] = decay * expected[name] + (1 - decay) * values.astype(np.float32)
        new = random.randn(2, 400)
        statistics = decay * statistics + (1 - decay) * new
        average.update(new)
    found = average.weights()
    assert found.keys() == expected.keys()
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(average.statistics, statistics, atol=1e-5)


def test_the_checkpoint_of_stochastic_depth_scales_in_inference(tmp_path):
    run, _ = train({**BASE, "epochs": 1, "stochastic_depth": 0.5, "output": str(tmp_path / "run")})
    net = checkpoint.load(str(tmp_path / "run")).net()
    assert [net.features.unit1.survival, net.features.unit2.survival] == [0.75, 0.5]


@pytest.mark.parametrize("more, message", [
    ({"aux": True}, "small_residual has no auxiliary heads; googlenet"),
    ({"model": "small_dense", "stochastic_depth": 0.5}, "small_dense has none"),
    ({"model": "small_dense", "dropout": 0.5}, "small_dense has no dropout layer"),
    ({"schedule": "one_cycle", "momentum": 0.0}, "sgd has none with --momentum 0.0"),
    ({"precision": "fp16"}, "no float16 convolution"), ({"precision": "bf16"}, "bf16"),
    ({"ema": 0.9, "kvstore": "dist_async"}, "--ema goes neither"), ({"step_rates": "0.5"}, "--step-rates has 1"),
    ({"recipe": "alexnet_2013"}, "did you mean alexnet_2012")])
def test_what_cannot_be_had_is_refused_before_anything_is_written(tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        train({**BASE, **more, "output": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()


def test_a_recipe_fills_the_settings_and_hands_win(tmp_path):
    config, _ = settings({"recipe": "alexnet_2012", "lr": 0.02, "output": str(tmp_path / "run")})
    assert (config.model, config.wd, config.schedule, config.lr, config.recipe) == ("alexnet", 0.0005, "plateau", 0.02,
                                                                                    "alexnet_2012")
    told = recipes.shown(config.recipe, recipes.settings_of(config.recipe), config.as_dict())
    assert told.endswith("; set by hand: lr=0.02")


def test_a_recipe_is_in_the_checkpoint_and_stays_on_resuming(tmp_path):
    given = {"recipe": "resnet_cifar_2015", **BASE, "epochs": 2, "output": str(tmp_path / "run")}
    train({**given, "epochs": 1})
    _, _, saved = files(checkpoint.load(str(tmp_path / "run")).path)
    assert saved.config["recipe"] == "resnet_cifar_2015" and saved.config["recipe_values"]["epochs"] == 164
    assert saved.config["model"] == "small_residual" and saved.config["wd"] == 0.0001
    run, _ = train({"epochs": 2, "output": given["output"]}, resume=True)
    assert run.config.recipe == "resnet_cifar_2015" and run.recipe_values["epochs"] == 164 and run.position.epoch == 2
    with pytest.raises(UserError, match="trained by recipe resnet_cifar_2015"):
        settings({"recipe": "vgg_2014", "output": given["output"]}, resume=True)


def test_float16_weights_come_back_in_a_network_that_runs_anywhere(tmp_path):
    run, _ = train({**BASE, "epochs": 1, "output": str(tmp_path / "run")})
    saved = checkpoint.load(str(tmp_path / "run"))
    values = saved.arrays("parameters.params")
    half = {name: value if "running" in name else value.astype("float16") for name, value in values.items()}
    path = checkpoint.save(str(tmp_path), parameters=half, optimizer=None, state={"step": 1}, config=saved.config)
    images = mx.nd.random.normal(shape=(2, 1, 8, 8))
    np.testing.assert_allclose(checkpoint.load(path).net()(images).asnumpy(), saved.net()(images).asnumpy(), atol=5e-3)


@pytest.mark.slow
def test_export_takes_the_average_or_the_raw_weights(tmp_path, run_program):
    train({"model": "lenet5", "dataset": "digits", "epochs": 1, "ema": 0.9, "output": str(tmp_path / "run")})
    saved = checkpoint.load(str(tmp_path / "run"))
    for flags, file, told in (((), "ema.params", "moving average"), (("--raw-weights",), "parameters.params", "as trained")):
        result = run_program("tools/export.py", "--checkpoint", tmp_path / "run", "--output", tmp_path / f"net{len(flags)}",
                             *flags)
        assert result.returncode == 0 and f"weights: {'their ' if not flags else ''}{told}" in result.stdout, result.stderr
        found = mx.nd.load(str(tmp_path / f"net{len(flags)}-0000.params"))
        sums = sorted(float(value.asnumpy().astype(np.float64).sum()) for value in found.values())
        np.testing.assert_allclose(sums, sorted(float(value.astype(np.float64).sum()) for value in saved.arrays(file).values()))
