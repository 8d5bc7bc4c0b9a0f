"""tools/predict.py with several processes, latency, and images that cannot be read."""
import json
import os

import gluonzoo
from gluonzoo import arrays, export
from gluonzoo.export import shares
from gluonzoo.export.fusion import FusedBlock
from gluonzoo.training.weights import get_parameters

import mxnet as mx
import numpy as np
import pytest


def pixels(*shape, seed=0):
    return np.random.RandomState(seed).randint(0, 256, shape).astype("uint8")


def refused(result, *words):
    assert result.returncode == 2, result.stdout
    line = result.stderr.strip().splitlines()[-1]
    assert "error: " in line and "Traceback" not in result.stderr
    assert all(word in line for word in words), line


@pytest.fixture(scope="module")
def lenet(tmp_path_factory):
    mx.random.seed(5)
    net = gluonzoo.get_model("lenet_caffe")
    net.initialize()
    path = str(tmp_path_factory.mktemp("weights") / "lenet.params")
    arrays.save(path, get_parameters(net))
    return path


@pytest.fixture
def call(in_process, tmp_path):
    """call("a.npy", "--flag", ...) runs tools/predict.py in this process, in `tmp_path`."""
    return lambda *arguments: in_process("tools/predict.py", *arguments)


NET = ("--mean", 0.4, "--std", 0.3)


def test_jobs(call, tmp_path, lenet, monkeypatch):
    """Two processes, and auto that begins here and goes on with two: the same images, classes and, nearly, probabilities."""
    np.save(str(tmp_path / "a.npy"), pixels(30, 28, 28, 1))
    (tmp_path / "folder").mkdir()
    for number in range(5):
        (tmp_path / "folder" / f"{number}.pgm").write_bytes(b"P5 30 20 255\n" + pixels(20, 30, seed=number).tobytes())
    arguments = ("a.npy", "folder", "--model", "lenet_caffe", "--weights", lenet, *NET, "--batch-size", 4, "--json")
    alone = json.loads(call(*arguments).stdout)
    asked = []
    monkeypatch.setattr(shares, "choose_jobs", lambda *facts: asked.append(facts) or 2)
    for jobs in ("2", "auto"):
        result = call(*arguments, "--jobs", jobs)
        assert result.returncode == 0 and "35 images in" in result.stderr and "processes: 2, threads of each: 1" in result.stderr
        found = json.loads(result.stdout)
        assert [entry["image"] for entry in found] == [entry["image"] for entry in alone]
        for one, other in zip(found, alone):
            values = [{guess["index"]: guess["probability"] for guess in entry["predictions"]} for entry in (one, other)]
            assert values[0] == pytest.approx(values[1], rel=1e-4)
    (facts,) = asked
    assert facts[0] == 27 and 0 < facts[1] < 1 and 0 <= facts[2] < 1 and facts[3] > 0.1  # After two batches of 4.
    monkeypatch.undo()


def test_auto_goes_on_alone_where_little_is_left(call, tmp_path, lenet):
    np.save(str(tmp_path / "a.npy"), pixels(9, 28, 28, 1))
    arguments = ("a.npy", "--model", "lenet_caffe", "--weights", lenet, *NET, "--batch-size", 3, "--json")
    result = call(*arguments, "--jobs", "auto")
    assert result.stdout == call(*arguments).stdout
    assert "jobs: 1 for 3 images; each takes" in result.stderr and "processes: 1" in result.stderr


def test_fused(call, tmp_path, lenet):
    """The faster copy, of a network and of its export, in this process and in two others."""
    from gluonzoo.sources import open_predictor
    np.save(str(tmp_path / "a.npy"), pixels(6, 28, 28, 1))
    arguments = ("a.npy", "--model", "lenet_caffe", "--weights", lenet, *NET, "--json")
    expected = json.loads(call(*arguments).stdout)
    export.to_symbol(open_predictor("lenet_caffe", lenet, mean=(0.4,), std=(0.3,)).block, str(tmp_path / "x"),
                     metadata={"mean": (0.4,), "std": (0.3,)})
    for flags in ((*arguments, "--fuse"), (*arguments, "--fuse", "--jobs", "2"), ("a.npy", "--model", "x", "--json", "--fuse")):
        for one, other in zip(json.loads(call(*flags).stdout), expected):
            values = [{guess["index"]: guess["probability"] for guess in entry["predictions"]} for entry in (one, other)]
            assert values[0] == pytest.approx(values[1], rel=1e-3)
    assert isinstance(open_predictor("lenet_caffe", lenet, mean=(0.4,), std=(0.3,), fuse=True).block, FusedBlock)
    refused(call(*arguments, "--fuse", "--crops", "dense"), "--crops dense takes no --fuse")


def test_keep_going(call, tmp_path, lenet):
    np.save(str(tmp_path / "a.npy"), pixels(28, 28))
    (tmp_path / "b.png").write_bytes(b"no image")
    np.save(str(tmp_path / "c.npy"), pixels(28, 28, seed=1))
    arguments = ("a.npy", "b.png", "c.npy", "--model", "lenet_caffe", "--weights", lenet, *NET)
    refused(call(*arguments), "b.png: cannot be read as an image")
    result = call(*arguments, "--json", "-k")
    assert result.returncode == 1 and "1 of 3 images have no classes" in result.stderr
    found = json.loads(result.stdout)
    assert [sorted(entry) for entry in found] == [["image", "predictions"], ["error", "image"], ["image", "predictions"]]
    assert "b.png: cannot be read as an image" in found[1]["error"]
    for entry, name in ((found[0], "a.npy"), (found[2], "c.npy")):
        alone = json.loads(call(name, *arguments[3:], "--json").stdout)
        assert alone[0]["predictions"][0]["probability"] == pytest.approx(entry["predictions"][0]["probability"], rel=1e-4)


def test_latency(call, tmp_path, lenet):
    np.save(str(tmp_path / "a.npy"), pixels(3, 40, 40, 3))
    arguments = ("a.npy", "--model", "lenet_caffe", "--weights", lenet, *NET, "--latency", 25)
    found = json.loads(call(*arguments, "--json").stdout)
    assert (found["images"], found["runs"], found["jobs"]) == (3, 25, 1)
    for name in ("latency_ms", "read_ms", "network_ms"):
        assert 0 < found[name]["p50"] <= found[name]["p95"] <= found[name]["p99"]
    assert found["latency_ms"]["mean"] == pytest.approx(found["read_ms"]["mean"] + found["network_ms"]["mean"])
    # The time from the first to the last is at least that of all images.
    assert 0 < found["images_per_second"] <= 1000.01 / found["latency_ms"]["mean"]
    shown = call(*arguments).stdout
    assert "25 runs of 3 images, one at a time; processes: 1" in shown and "p99" in shown and " img/s" in shown
    (tmp_path / "b.png").write_bytes(b"no image")
    refused(call("b.png", *arguments[1:]), "b.png")
    refused(call("b.png", *arguments[1:], "-k"), "none of the images could be read")


@pytest.mark.parametrize("flags, words", [
    (["--jobs", "0"], ["jobs is '0'"]), (["--jobs", "many"], ["jobs is 'many'", "auto"]),
    (["--latency", "5"], ["--latency is 5"]),
    (["--latency", "--jobs", "auto"], ["--latency takes a number of --jobs"]),
    (["--latency", "--pictures", "p"], ["--latency takes no --pictures"]),
    (["--features", "conv1", "-o", "f", "--jobs", "2"], ["--features takes no --jobs"])])
def test_flags_of_speed_that_do_not_go_together(call, tmp_path, lenet, flags, words):
    np.save(str(tmp_path / "a.npy"), pixels(28, 28))
    refused(call("a.npy", "--model", "lenet_caffe", "--weights", lenet, *NET, *flags), *words)
    assert os.listdir(".") == ["a.npy"]
