"""What making networks small costs on real data: LeNet-5 on 1,797 handwritten digits."""
from gluonzoo import compact
from gluonzoo.training import checkpoint
from gluonzoo.training.weights import get_parameters

import pytest
from small_runs import train

BASE = {"model": "lenet5", "dataset": "digits", "batch_size": 32, "augment": "none", "keep": 1}


def size(folder, name):
    saved = checkpoint.load(str(folder / name))
    net = saved.net()
    values = {**get_parameters(net), **compact.binary_weights(net)}
    report = compact.save(str(folder / f"{name}.compact"), values, compact.facts_of(saved.config))
    return report.before / report.after


@pytest.mark.slow
def test_pruned_shared_and_taught(tmp_path):
    _, whole = train({**BASE, "epochs": 12, "lr": 0.02, "output": str(tmp_path / "whole")})
    again = {**BASE, "lr": 0.01, "weights": str(tmp_path / "whole")}
    _, pruned = train({**again, "epochs": 8, "prune": 0.9, "prune_every": 10, "prune_scope": "std",
                       "output": str(tmp_path / "pruned")})
    _, shared = train({**again, "epochs": 2, "lr": 0.001, "weights": str(tmp_path / "pruned"), "share_bits": 4,
                       "output": str(tmp_path / "shared")})
    accuracies = [history[-1]["val_accuracy"] for history in (whole, pruned, shared)]
    assert accuracies[0] > 0.96 and min(accuracies[1:]) > accuracies[0] - 0.02, accuracies
    ratios = [size(tmp_path, name) for name in ("whole", "pruned", "shared")]
    assert ratios[0] < 1.1 and ratios[1] > 6 and ratios[2] > 15, ratios
    # A student that sees no label at all learns from the teacher.
    _, taught = train({**BASE, "epochs": 8, "lr": 0.02, "teacher": str(tmp_path / "whole"), "distill_weight": 1.0,
                       "output": str(tmp_path / "taught")})
    assert taught[-1]["val_accuracy"] > accuracies[0] - 0.03


@pytest.mark.slow
@pytest.mark.parametrize("binary, least", [("weights", 0.9), ("inputs", 0.8), ("inputs_scaled", 0.8)])
def test_binary(tmp_path, binary, least):
    _, history = train({**BASE, "model": "cifar_resnet20_v1_b", "input_size": 8, "epochs": 8, "optimizer": "adam", "lr": 0.005,
                        "wd": 0.0, "binary": binary, "output": str(tmp_path / "run")})
    assert history[-1]["val_accuracy"] > least
    assert size(tmp_path, "run") > 12
