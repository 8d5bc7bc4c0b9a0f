"""tools/export.py --to int8 and --to bf16 as a user runs them: files that load, or a reason and no file."""
import os
from types import SimpleNamespace

import gluonzoo
from gluonzoo import arrays
from gluonzoo.export import bf16, load_symbol
from gluonzoo.training.weights import get_parameters

import mxnet as mx
import numpy as np
import pytest
from PIL import Image

LENET = ("--model", "lenet_caffe", "--weights", "w.params", "--mean", "0.5", "--std", "0.25")


@pytest.fixture(scope="module")
def net():
    mx.random.seed(3)
    net = gluonzoo.get_model("lenet_caffe")
    net.initialize(mx.init.Xavier())
    return net


@pytest.fixture
def call(in_process, tmp_path, net):
    """call("--to", "int8", ...) runs tools/export.py in this process and an own folder, where weights and images lie."""
    arrays.save(str(tmp_path / "w.params"), get_parameters(net))
    rng = np.random.RandomState(0)
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.randint(0, 256, (28, 28)).astype(np.uint8)
            Image.fromarray(pixels).save(str(tmp_path / "images" / name / f"{number}.png"))

    return lambda *arguments: in_process("tools/export.py", *arguments)


def difference(block, net):
    x = mx.nd.array(np.random.RandomState(1).uniform(-2, 2, (3, 1, 28, 28)))  # As the images after normalisation.
    a, b = block(x).asnumpy(), net(x).asnumpy()
    return np.abs(a - b).max() / np.abs(b).max()


def test_int8(call, net, tmp_path):
    result = call(*LENET, "--to", "int8", "--calibration-data", "images", "--output", "out/small")
    assert result.returncode == 0, result.stderr
    assert "wrote out/small-0000.params" in result.stdout and "layers in float32: none (of 4)" in result.stdout
    block, metadata = load_symbol(str(tmp_path / "out" / "small"))
    assert metadata.mean == (0.5,) and 1e-5 < difference(block, net) < 0.1
    assert os.path.getsize(str(tmp_path / "out" / "small-0000.params")) < 0.27 * os.path.getsize(str(tmp_path / "w.params"))


def test_int8_as_onnx(call, net, tmp_path):
    pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from gluonzoo.export import load_onnx
    result = call(*LENET, "--to", "int8", "--calibration-data", "images", "--method", "percentile", "--output", "small.onnx")
    assert result.returncode == 0 and "wrote small.onnx" in result.stdout
    network = load_onnx(str(tmp_path / "small.onnx"))
    assert difference(lambda x: mx.nd.array(network(x.asnumpy())), net) < 0.1


def test_int8_with_measured_accuracy(call, net, tmp_path):
    """Folders are the classes; what is printed is the accuracy on their images."""
    result = call(*LENET, "--to", "int8", "--calibration-data", "images", "--max-drop", "100", "--output", "small")
    assert result.returncode == 0, result.stderr
    x = np.stack([np.asarray(Image.open(str(tmp_path / "images" / name / f"{number}.png")), np.float32)[None]
                  for name in ("ant", "bee") for number in range(6)])
    likeliest = net(mx.nd.array((x / 255 - 0.5) / 0.25)).argmax(axis=1).asnumpy()
    right = 100 * (likeliest == np.repeat([0, 1], 6)).mean()
    assert f"accuracy on 12 calibration images: {right:.2f} % in float32" in result.stdout


def test_a_data_set_by_name(call, monkeypatch):
    from gluonzoo import data
    images = SimpleNamespace(mean=(0.1,), std=(0.2,), labels=np.arange(700) % 10,
                             images=lambda chosen: np.stack([np.full((28, 28, 1), index % 256, np.uint8) for index in chosen]))
    images = type("Source", (), dict(vars(images), __len__=lambda self: 700, images=staticmethod(images.images)))()
    monkeypatch.setattr(data, "names", lambda: ["own"])
    monkeypatch.setattr(data, "load", lambda name, train: images)
    seen = []
    real = data.Transform.__call__
    monkeypatch.setattr(data.Transform, "__call__", lambda self, images: seen.append(images) or real(self, images))
    result = call(*LENET, "--to", "int8", "--calibration-data", "own", "--max-drop", "100", "--output", "small")
    assert isinstance(seen[0], np.ndarray)  # A list stands for image files, which lose their margins.
    assert result.returncode == 0 and "accuracy on 500 calibration images" in result.stdout, result.stderr


def test_images_are_taken_evenly(call):
    module = call("--help").module
    assert module.spread(list(range(3))) == [0, 1, 2]
    chosen = module.spread(list(range(5000)))
    assert len(chosen) == module.MOST_IMAGES and chosen[0] == 0 and set(np.diff(chosen)) == {10}


@pytest.mark.parametrize("arguments, words", [
    (("--to", "int8"), "--to int8 needs --calibration-data"),
    (("--to", "symbol", "--max-drop", "1"), "--max-drop goes with --to int8"),
    (("--to", "bf16", "--method", "naive"), "--method goes with --to int8"),
    (("--to", "onnx", "--force-bf16"), "--force-bf16 goes with --to bf16"),
    (("--to", "int8", "--calibration-data", "nowhere"), "nowhere"),
    (("--to", "int8", "--calibration-data", "images/ant", "--max-drop", "1"), "folders none; expected one for each class"),
    (("--to", "int8", "--calibration-data", "images", "--max-drop", "1", "--labels", "names"), "folders bee; expected one"),
])
def test_what_is_refused(call, tmp_path, arguments, words):
    (tmp_path / "names").write_text("\n".join(["ant"] + list("bcdefghij")))
    result = call(*LENET, *arguments, "--output", "small")
    assert result.returncode == 2 and words in result.stderr
    assert not [name for name in os.listdir(str(tmp_path)) if name.startswith(("small", ".small"))]


@pytest.mark.skipif(not bf16.native_instructions(), reason="no bfloat16 instructions")
def test_bf16(call, net, tmp_path, monkeypatch):
    result = call(*LENET, "--to", "bf16", "--force-bf16", "--output", "half")
    assert result.returncode == 0 and "wrote half-0000.params" in result.stdout, result.stderr
    block, metadata = load_symbol(str(tmp_path / "half"))
    assert metadata.std == (0.25,) and 1e-5 < difference(block, net) < 0.03
    assert os.path.getsize(str(tmp_path / "half-0000.params")) < 0.52 * os.path.getsize(str(tmp_path / "w.params"))
    monkeypatch.setattr(bf16, "_speed", lambda *arguments: 0.5)
    result = call(*LENET, "--to", "bf16", "--output", "slow")
    assert result.returncode == 2 and "0.50 times as fast" in result.stderr and "use force (--force-bf16)" in result.stderr
    assert not [name for name in os.listdir(str(tmp_path)) if name.startswith(("slow", ".slow"))]
