"""tools/export.py --to onnx and --bundle as a user runs them; the other formats have tests of their own."""
import json
import os

import gluonzoo
from gluonzoo import arrays
from gluonzoo.export import load_onnx
from gluonzoo.training.weights import get_parameters

import mxnet as mx
import numpy as np
import pytest

pytest.importorskip("onnx", reason="ONNX export needs onnx")
pytest.importorskip("onnxruntime", reason="ONNX export is checked by onnxruntime")

LENET = ("--model", "lenet_caffe", "--weights", "w.params")
PIXELS = ("--mean", "0.5", "--std", "0.25")


@pytest.fixture(scope="module")
def net():
    mx.random.seed(3)
    net = gluonzoo.get_model("lenet_caffe")
    net.initialize()
    return net


@pytest.fixture
def call(in_process, tmp_path, net):
    """call("--to", "onnx", ...) runs tools/export.py in this process and an own folder, where the weights lie."""
    arrays.save(str(tmp_path / "w.params"), get_parameters(net))

    return lambda *arguments: in_process("tools/export.py", *arguments)


def test_onnx(call, net, tmp_path):
    result = call(*LENET, "--output", "out/lenet", "--to", "onnx")
    assert result.returncode == 0, result.stderr
    assert "wrote out/lenet.onnx" in result.stdout and "largest difference" in result.stdout
    x = np.random.RandomState(1).standard_normal((3, 1, 28, 28)).astype("float32")
    np.testing.assert_allclose(load_onnx(str(tmp_path / "out" / "lenet.onnx"))(x), net(mx.nd.array(x)).asnumpy(), rtol=1e-4,
                               atol=1e-5)
    # What was written is a file of weights as well.
    result = call("--model", "lenet_caffe", "--weights", "out/lenet.onnx", "--output", "again", *PIXELS)
    assert result.returncode == 0 and "difference between exported and live outputs: 0 " in result.stdout
    found, original = (arrays.load(str(tmp_path / name)) for name in ("again-0000.params", "w.params"))
    for name, value in found.items():
        np.testing.assert_array_equal(value, original[name.split(":")[1]])


def test_with_preprocess_labels_as_json_and_opset(call, tmp_path):
    labels = [f"a, {letter}" for letter in "abcdefghij"]
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    result = call(*LENET, *PIXELS, "--to", "onnx", "--with-preprocess", "--opset", 17, "--labels", "labels.json", "--output",
                  "x.onnx")
    assert result.returncode == 0, result.stderr
    model = load_onnx(str(tmp_path / "x.onnx"))
    assert model.metadata.classes == tuple(labels) and model.preprocess and model.input_shape == (None, 28, 28, 1)
    import onnx
    assert onnx.load(str(tmp_path / "x.onnx")).opset_import[0].version == 17


def test_bundle(call, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join("abcdefghij"))
    arguments = (*LENET, *PIXELS, "--labels", "labels.txt", "--bundle", "out/served")
    result = call(*arguments)
    assert result.returncode == 0, result.stderr
    folder = str(tmp_path / "out" / "served")
    assert f"wrote {folder}" in result.stdout and "predict.py" in os.listdir(folder)
    with open(os.path.join(folder, "labels.json")) as file:
        assert json.load(file) == list("abcdefghij")
    assert "already there" in call(*arguments).stderr and call(*arguments, "--force").returncode == 0


@pytest.mark.parametrize("arguments, words", [
    (("--output", "x", "--bundle", "y"), "not allowed with"),
    ((), "one of the arguments --output --bundle is required"),
    (("--output", "x", "--opset", "13"), "--opset goes with --to onnx"),
    (("--output", "x", "--with-preprocess"), "--with-preprocess goes with --to onnx"),
    (("--bundle", "x", "--to", "int8"), "--to int8 goes with --output"),
    (("--output", "x", "--to", "int8"), "needs --calibration-data"),
    (("--output", "x", "--calibration-data", "x"), "nothing else takes it"),
    (("--output", "x", "--to", "int8", "--calibration-data", "absent", *PIXELS), "absent: no such file"),
    (("--output", "x", "--to", "int8", "--calibration-data", "absent"), "give --mean and --std"),
    (("--output", "x", "--to", "onnx", "--opset", "5"), "opset is 5; expected 13 to 21"),
    (("--output", "x", "--to", "onnx", "--with-preprocess"), "mean and std"),
    (("--output", "x", "--labels", "bad.json"), "--labels bad.json: expected a JSON list of names, found [1"),
    (("--output", "x", "--labels", "cut.json"), "--labels cut.json: "),
    (("--output", "x", "--labels", "w.params"), "--labels w.params: "),
])
def test_refusals(call, arguments, words, tmp_path):
    (tmp_path / "bad.json").write_text("[1, 2]")
    (tmp_path / "cut.json").write_text("[\"a\", ")
    result = call(*LENET, *arguments)
    assert result.returncode == 2 and words in result.stderr, result.stderr
    assert sorted(os.listdir(str(tmp_path))) == ["bad.json", "cut.json", "w.params"]
