"""Fine-tuning with tools/train.py, alone and with two workers."""
import json
import os
import subprocess
import sys

import gluonzoo
from gluonzoo import arrays
from gluonzoo.training.weights import get_parameters

import mxnet as mx
import numpy as np
import pytest

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of lenet_caffe for seven classes."""
    mx.random.seed(8)
    net = gluonzoo.get_model("lenet_caffe", classes=7)
    net.initialize()
    path = str(tmp_path_factory.mktemp("weights") / "seven.params")
    arrays.save(path, get_parameters(net))
    return path


def parameters(folder):
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    return arrays.load(str(newest / "parameters.params")), json.loads((newest / "config.json").read_text())


def test_fine_tuning_and_going_on(run_program, tmp_path, weights):
    flags = ("--model", "lenet_caffe", "--dataset", "digits", "--epochs", "1", "--lr", "0.02", "--output", "run")
    done = run_program("tools/train.py", *flags, "--weights", weights, "--reset-classes", "10", "--freeze", "features")
    assert done.returncode == 0, done.stderr
    source, (trained, config) = arrays.load(weights), parameters(tmp_path / "run")
    assert (config["freeze"], config["reset_classes"], config["model_arguments"]) == ("features", 10, {})
    for name in ("features.conv1.weight", "features.conv1.bias", "features.conv2.weight", "features.conv2.bias"):
        np.testing.assert_array_equal(trained[name], source[name])
    assert not np.array_equal(trained["ip1.weight"], source["ip1.weight"]) and trained["output.weight"].shape == (10, 500)
    more = run_program("tools/train.py", "--resume", "--output", "run", "--epochs", "2", "--freeze", "features",
                       "--reset-classes", "10")
    assert more.returncode == 0 and "epoch 2/2" in more.stdout, more.stderr
    after, _ = parameters(tmp_path / "run")
    np.testing.assert_array_equal(after["features.conv2.weight"], source["features.conv2.weight"])
    assert not np.array_equal(after["output.weight"], trained["output.weight"])
    for flag, value in (("--freeze", "ip1"), ("--reset-classes", "5")):
        refused = run_program("tools/train.py", "--resume", "--output", "run", "--epochs", "3", flag, value)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1
        assert f"{flag} " in refused.stderr and "parameters.params" in refused.stderr


@pytest.mark.parametrize("arguments, words", [
    (["--weights", "WEIGHTS"], ["seven.params", "--reset-classes 10"]),
    (["--weights", "WEIGHTS", "--reset-classes", "9"], ["--reset-classes is 9", "digits has 10 classes"]),
    (["--weights", "WEIGHTS", "--reset-classes", "ten"], ["--reset-classes is 'ten'"]),
    (["--reset-classes", "10"], ["--weights"]), (["--freeze", "stage1"], ["'stage1'", "features.conv1"]),
    (["--freeze", "features,ip1,output"], ["at least one layer"])])
def test_mistakes_are_one_line(run_program, tmp_path, weights, arguments, words):
    done = run_program("tools/train.py", "--model", "lenet_caffe", "--dataset", "digits", "--epochs", "1",
                       *[weights if argument == "WEIGHTS" else argument for argument in arguments])
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("with_weights", [True, False])
def test_two_workers_keep_the_same_frozen_layers(root, tmp_path, weights, with_weights):
    """Without a file the frozen layers are random, and rank 0's: two workers are then one worker of twice the batch."""
    common = ["--model", "lenet_caffe", "--dataset", "digits", "--epochs", "1", "--lr", "0.02", "--freeze", "features"]
    common += ["--weights", weights, "--reset-classes", "10"] * with_weights
    environment = {**os.environ, "PYTHONPATH": str(root)}
    train = [sys.executable, str(root / "tools" / "train.py"), *common]
    two = [sys.executable, str(root / "launch" / "launch.py"), "-n", "2", "-s", "1", *train, "--kvstore", "dist_sync",
           "--batch-size", "32", "--output", "two"]
    for command in (two, train + ["--batch-size", "64", "--output", "one"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=170, cwd=str(tmp_path), env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
    two, one = parameters(tmp_path / "two")[0], parameters(tmp_path / "one")[0]
    for name, value in one.items():
        if name.startswith("features."):
            np.testing.assert_array_equal(two[name], value)
        else:
            np.testing.assert_allclose(two[name], value, rtol=1e-3, atol=1e-5)
