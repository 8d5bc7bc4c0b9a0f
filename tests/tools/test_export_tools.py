"""tools/export.py, evaluate.py and predict.py as a user runs them."""
import json
import os
import subprocess
import sys

import gluonzoo
from gluonzoo import arrays, data
from gluonzoo.export import load_symbol, to_symbol
from gluonzoo.training import checkpoint
from gluonzoo.training.weights import get_parameters

import numpy as np
import pytest

mx = pytest.importorskip("mxnet")


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    return data.load("digits", train=False)


@pytest.fixture(scope="module")
def net():
    """A network with fixed random weights."""
    mx.random.seed(3)
    net = gluonzoo.get_model("lenet_caffe")
    net.initialize()
    return net


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, digits, net):
    """A run's folder with two checkpoints, as the trainer writes them; the second one is of the network."""
    folder = tmp_path_factory.mktemp("run")
    config = {"model": "lenet_caffe", "model_arguments": {}, "dataset": "digits", "data_dir": None, "batch_size": 64,
              "classes": list(digits.classes), "mean": list(digits.mean), "std": list(digits.std),
              "input_shape": [1, 28, 28]}
    parameters = get_parameters(net)
    zeros = {name: value * 0 for name, value in parameters.items()}
    for number, values in ((1, zeros), (2, parameters)):
        checkpoint.save(str(folder / "checkpoints"), parameters=values, optimizer=None, state={"step": number},
                        config=config)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory, digits, net):
    prefix = str(tmp_path_factory.mktemp("export") / "net")
    to_symbol(net, prefix, metadata={"classes": digits.classes, "mean": digits.mean, "std": digits.std,
                                     "dataset": "digits"})
    return prefix


def figures_by_hand(net, digits):
    images = data.Transform((1, 28, 28), digits.mean, digits.std)(digits.images(np.arange(len(digits))))
    logits = net(mx.nd.array(images)).asnumpy().astype("float64")
    order = np.argsort(-logits, axis=1)
    own = logits[np.arange(len(digits)), digits.labels]
    loss = np.log(np.exp(logits).sum(axis=1)) - own
    return {"samples": len(digits), "loss": loss.mean(), "top1": (order[:, 0] == digits.labels).mean(),
            "top5": (order[:, :5] == digits.labels[:, None]).any(axis=1).mean()}


@pytest.fixture
def call(in_process):
    """call("tools/predict.py", "a.png", ...) as `run_program` does, but in this process, which is much faster."""
    return in_process


def refused(result, *words):
    """One line on standard error, exit code 2, nothing on standard output but progress."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("program", ["export", "evaluate", "predict"])
def test_help(run_program, program):
    result = run_program(f"tools/{program}.py", "--help")
    assert result.returncode == 0 and "usage:" in result.stdout and "default" in result.stdout


def test_a_runs_folder_is_exported_evaluated_and_compared(run_program, tmp_path, run_folder, digits, net):
    result = run_program("tools/export.py", "--checkpoint", run_folder, "--output", "out/digits")
    assert result.returncode == 0, result.stderr
    assert "step-0000000002" in result.stdout and "wrote out/digits-symbol.json" in result.stdout
    assert "largest difference between exported and live outputs: 0 " in result.stdout
    block, metadata = load_symbol(str(tmp_path / "out" / "digits"))
    assert (metadata.model, metadata.dataset, metadata.classes) == ("lenet_caffe", "digits", digits.classes)
    assert (metadata.mean, metadata.std, metadata.input_shape) == (digits.mean, digits.std, (1, 28, 28))
    expected = figures_by_hand(net, digits)
    result = run_program("tools/evaluate.py", "out/digits", "--compare", run_folder, "--json", "--batch-size", 50)
    figures = json.loads(result.stdout)
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, rel=1e-5), name
    assert figures["largest_difference"] == 0.0 and figures["dataset"] == "digits"


@pytest.mark.parametrize("number, same", [(2, True), (1, False)])
def test_a_checkpoint_is_evaluated(call, run_folder, digits, net, exported, number, same):
    result = call("tools/evaluate.py", run_folder / "checkpoints" / f"step-{number:010d}", "--compare", exported)
    assert result.returncode == 0, result.stderr
    expected = figures_by_hand(net, digits)
    assert (f"accuracy  {100 * expected['top1']:.2f} %" in result.stdout) == same
    assert (f"loss      {expected['loss']:.4f}" in result.stdout) == same
    assert f"on the {len(digits)} test images of digits" in result.stdout
    assert (f"outputs against {exported}: equal, to the bit" in result.stdout) == same
    assert ("largest difference" in result.stdout) != same


def test_evaluate_fails_below_the_accuracy_asked_for_or_with_other_outputs(call, run_folder, exported):
    best, zeros = (run_folder / "checkpoints" / f"step-{number:010d}" for number in (2, 1))
    assert call("tools/evaluate.py", best, "--compare", exported, "--at-least", 0).returncode == 0
    assert call("tools/evaluate.py", best, "--at-least", 99).returncode == 1  # Its weights are random.
    assert call("tools/evaluate.py", zeros, "--compare", exported, "--at-least", 0).returncode == 1
    assert call("tools/evaluate.py", zeros, "--compare", exported).returncode == 0


def test_evaluate_does_not_take_nan_for_equal(call, tmp_path, run_folder, exported):
    zeros = run_folder / "checkpoints" / "step-0000000001"
    saved = checkpoint.load(str(zeros))
    values = saved.arrays("parameters.params")
    values["output.bias"] += np.float32("nan")
    broken = checkpoint.save(str(tmp_path / "broken"), parameters=values, optimizer=None, state=saved.state,
                             config=saved.config)
    result = call("tools/evaluate.py", broken, "--compare", exported, "--json")
    assert json.loads(result.stdout)["largest_difference"] == float("inf")


def test_a_named_network_with_weights_labels_and_normalisation(call, tmp_path, net):
    arrays.save(str(tmp_path / "w.params"), get_parameters(net))
    (tmp_path / "labels.txt").write_text("\n".join("abcdefghij") + "\n")
    result = call("tools/export.py", "--model", "lenet_caffe", "--weights", "w.params", "--output", "x", "--labels",
                         "labels.txt", "--mean", "0.5", "--std", "0.25")
    assert result.returncode == 0, result.stderr
    block, metadata = load_symbol(str(tmp_path / "x"))
    assert (metadata.classes, metadata.mean, metadata.std) == (tuple("abcdefghij"), (0.5,), (0.25,))
    x = mx.nd.random.normal(shape=(2, 1, 28, 28))
    np.testing.assert_array_equal(block(x).asnumpy(), net(x).asnumpy())


def test_a_refusal_is_one_line_without_traceback(run_program, tmp_path):
    result = run_program("tools/export.py", "--model", "lenet6", "--output", "y")
    refused(result, "lenet6", "lenet5")
    assert result.stdout == "" and os.listdir(str(tmp_path)) == []


def test_export_refuses(call, tmp_path, run_folder):
    (tmp_path / "x.json").write_text("mine")
    refused(call("tools/export.py", "--model", "lenet5", "--output", "x"), "x.json: already there", "--force")
    assert sorted(os.listdir(str(tmp_path))) == ["x.json"]
    assert call("tools/export.py", "--model", "lenet5", "--output", "x", "--force").returncode == 0
    refused(call("tools/export.py", "--model", "lenet5", "--weights", "absent", "--output", "y"), "absent")
    refused(call("tools/export.py", "--model", "lenet5", "--labels", "absent", "--output", "y"), "absent")
    refused(call("tools/export.py", "--checkpoint", "absent", "--output", "y"), "absent")
    result = call("tools/export.py", "--checkpoint", run_folder, "--mean", "0.5", "--output", "y")
    assert result.returncode == 2 and "--mean goes with --model" in result.stderr
    result = call("tools/export.py", "--output", "y")
    assert result.returncode == 2 and "--checkpoint" in result.stderr
    assert sorted(os.listdir(str(tmp_path))) == ["x-0000.params", "x-symbol.json", "x.json"]
    (tmp_path / "file").write_text("")
    refused(call("tools/export.py", "--model", "lenet5", "--output", "file/y"), "cannot write file/y")


def test_evaluate_refuses(call, tmp_path, exported):
    refused(call("tools/evaluate.py", "absent"), "absent: nothing there")
    refused(call("tools/evaluate.py", exported, "--dataset", "mnits"), "mnits", "mnist")
    refused(call("tools/evaluate.py", exported, "--batch-size", 0), "--batch-size is 0")
    refused(call("tools/evaluate.py", tmp_path), str(tmp_path))
    net = gluonzoo.get_model("lenet5")
    net.initialize()
    to_symbol(net, str(tmp_path / "bare"))
    refused(call("tools/evaluate.py", "bare"), "--dataset")


def test_evaluate_refuses_other_classes(call, tmp_path, digits, net):
    pytest.importorskip("sklearn")
    to_symbol(net, str(tmp_path / "n"), metadata={"classes": "abcdefghij", "mean": [0.5], "std": [0.5]})
    refused(call("tools/evaluate.py", "n", "--dataset", "digits"), "a, b, c, d, e", "0, 1, 2, 3, 4")


def test_predict_shows_what_the_network_says(call, tmp_path, exported, digits, net):
    images = digits.images(np.arange(5))
    np.save(str(tmp_path / "four.npy"), images[:4])
    (tmp_path / "folder").mkdir()
    height, width = images.shape[1:3]
    (tmp_path / "folder" / "last.pgm").write_bytes(f"P5 {width} {height} 255\n".encode() + images[4].tobytes())
    result = call("tools/predict.py", "four.npy", "folder", "--model", exported, "--json", "--batch-size", 2)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    names = [f"four.npy[{i}]" for i in range(4)] + [os.path.join("folder", "last.pgm")]
    assert [entry["image"] for entry in found] == names
    inputs = data.Transform((1, 28, 28), digits.mean, digits.std)(images)
    expected = mx.nd.softmax(net(mx.nd.array(inputs))).asnumpy()
    for row, entry in zip(expected, found):
        order = np.argsort(-row)[:5]
        assert [guess["index"] for guess in entry["predictions"]] == order.tolist()
        assert [guess["class"] for guess in entry["predictions"]] == [digits.classes[i] for i in order]
        np.testing.assert_allclose([guess["probability"] for guess in entry["predictions"]], row[order], rtol=1e-5)
    text = call("tools/predict.py", "folder/*.pgm", "--model", os.path.dirname(exported), "--top", 1).stdout
    best = int(expected[4].argmax())
    assert text.split() == ["folder/last.pgm", f"{100 * expected[4][best]:.2f}", "%", digits.classes[best]]


def test_predict_needs_no_networks_code(root, tmp_path, exported):
    np.save(str(tmp_path / "a.npy"), np.zeros((8, 8), "uint8"))
    code = ("import runpy, sys\n"
            f"sys.argv = ['predict.py', {str(tmp_path / 'a.npy')!r}, '--model', {exported!r}]\n"
            "try:\n    runpy.run_path('tools/predict.py', run_name='__main__')\n"
            "except SystemExit as end:\n    assert not end.code, end.code\n"
            "unneeded = ('gluonzoo.classification', 'gluonzoo.training', 'matplotlib')\n"
            "found = [name for name in sys.modules if name.startswith(unneeded)]\n"
            "assert not found, found\n")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=str(root), timeout=120, stdout=subprocess.DEVNULL,
                   env=dict(os.environ, PYTHONPATH=str(root)))


def test_predict_refuses(call, tmp_path, exported):
    np.save(str(tmp_path / "a.npy"), np.zeros((8, 8), "uint8"))
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    refused(call("tools/predict.py", "absent.png", "--model", exported), "absent.png: no such file")
    refused(call("tools/predict.py", "bad.jpg", "--model", exported), "bad.jpg")
    refused(call("tools/predict.py", "a.npy", "--model", "nowhere"), "nowhere")
    refused(call("tools/predict.py", "a.npy", "--model", exported, "--top", 0), "--top is 0")
