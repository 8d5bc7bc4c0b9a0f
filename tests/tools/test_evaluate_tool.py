"""tools/evaluate.py: its flags, its files, and the same figures from any number of workers."""
import csv
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import gluonzoo
from gluonzoo import arrays, data
from gluonzoo.evaluation import read_predictions
from gluonzoo.export import to_symbol
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
def runs(tmp_path_factory, digits):
    """Two runs' folders of different networks."""
    folders = []
    for seed in (3, 4):
        mx.random.seed(seed)
        net = gluonzoo.get_model("lenet_caffe")
        net.initialize(mx.init.Xavier(magnitude=20))
        folder = tmp_path_factory.mktemp("run")
        config = {"model": "lenet_caffe", "model_arguments": {}, "dataset": "digits", "data_dir": None, "batch_size": 64,
                  "classes": list(digits.classes), "mean": list(digits.mean), "std": list(digits.std), "input_shape": [1, 28, 28]}
        checkpoint.save(str(folder / "checkpoints"), parameters=get_parameters(net), optimizer=None, state={"step": 70 + seed},
                        config=config)
        folders.append(str(folder))
    return folders


@pytest.fixture
def call(in_process):
    """call("RUN", "--flag", ...) runs tools/evaluate.py in this process, which is much faster."""
    return lambda *arguments: in_process("tools/evaluate.py", *arguments)


def figures(result):
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_files_and_figures(call, tmp_path, runs, digits):
    found = figures(call(runs[0], "--json", "--confusion", "c.csv", "--per-class", "p.csv", "--predictions", "p.npz",
                         "--calibration", "--bins", 10, "--speed", 20))
    kept = read_predictions(tmp_path / "p.npz")
    assert kept.step == 73 and len(kept.index) == found["samples"] == len(digits)
    assert found["top1"] == (kept.guesses == kept.labels).mean()
    assert found["loss"] == pytest.approx(-np.log(kept.likelihood).mean(), rel=1e-6)
    with open(tmp_path / "c.csv", newline="") as file:
        rows = list(csv.reader(file))
    counts = np.array([row[1:] for row in rows[1:]], dtype=int)
    assert rows[0][1:] == list(digits.classes) and counts.sum() == len(digits)
    assert np.trace(counts) == round(found["top1"] * len(digits))
    with open(tmp_path / "p.csv", newline="") as file:
        assert [int(row["right"]) for row in csv.DictReader(file)] == np.diag(counts).tolist()
    assert len(found["calibration"]) == 10 and sum(row["samples"] for row in found["calibration"]) == len(digits)
    assert found["speed"]["latency_ms"]["p50"] <= found["speed"]["latency_ms"]["p99"]
    shown = call(runs[0], "--calibration", "--speed", 20, "--crops", 10, "--predictions", "q.npz").stdout
    for words in ("364 test images of digits, 10 crops, mirrored too", "accuracy", "top-5", "Brier", "confidence", "p95", "img/s",
                  "wrote q.npz"):
        assert words in shown


def test_the_reports_reader_takes_the_file(call, runs, digits):
    reports = pytest.importorskip("gluonzoo.visual.report_predictions")
    call(runs[0], "--predictions", os.path.join(runs[0], reports.FILE))
    saved = checkpoint.load(runs[0])
    found = reports.find(SimpleNamespace(path=runs[0], checkpoint=saved))
    assert len(found.labels) == len(digits) and found.step == 73 and found.classes == digits.classes


def test_protocols_and_several_networks(call, runs):
    one, two = (figures(call(run, "--json")) for run in runs)
    both = figures(call(*runs, "--json"))
    assert [member["top1"] for member in both["members"]] == [one["top1"], two["top1"]]
    assert both["loss"] < max(one["loss"], two["loss"]) and both["path"] == runs
    assert "alone: accuracy" in call(*runs).stdout
    seen = {one["loss"]}
    for flags in (["--crops", "10"], ["--crops", "dense"], ["--crops", "9"], ["--mirror"], ["--scales", "28,32"],
                  ["--crops", "dense", "--scales", "28,36", "--mirror"]):
        found = figures(call(runs[0], "--json", *flags))
        assert found["samples"] == 364 and found["loss"] not in seen, flags
        seen.add(found["loss"])
    assert figures(call(runs[0], "--json", "--split", "train"))["samples"] == 1433


def test_a_registered_network_with_weights(call, tmp_path, runs, digits):
    saved = checkpoint.load(runs[0])
    arrays.save(str(tmp_path / "w.params"), saved.arrays("parameters.params"))
    flags = ("lenet_caffe", "--weights", "w.params", "--dataset", "digits", "--json")
    found = figures(call(*flags, "--mean", digits.mean[0], "--std", digits.std[0]))
    expected = figures(call(runs[0], "--json"))
    assert (found["top1"], found["loss"]) == (expected["top1"], expected["loss"])
    for arguments, message in ((flags, "give --mean and --std"), ((runs[0], "--mean", "0.5"), "--mean goes with a registered"),
                               ((*runs, "--weights", "w.params"), "are for one network; 2 were named"),
                               (("lenet_caffe", "--dataset", "digits"), "lenet_caffe: nothing there"),
                               (("lenet_caffe", "--weights", "absent"), "absent")):
        result = call(*arguments)
        assert result.returncode == 2 and message in result.stderr, result.stderr


def test_dense_of_an_export_says_why_not(call, tmp_path, runs, digits):
    to_symbol(checkpoint.load(runs[0]).net(), str(tmp_path / "e"), metadata={"classes": digits.classes, "mean": digits.mean,
                                                                             "std": digits.std, "dataset": "digits"})
    result = call("e", "--crops", "dense")
    assert result.returncode == 2 and "cannot be made convolutions" in result.stderr


@pytest.mark.parametrize("flags, message", [
    (["--crops", "some"], "crops is 'some'"), (["--scales", "28,x"], "'28,x' is not a whole number"),
    (["--crops", "10", "--scales", "20"], "scale 20 is smaller than the crops"), (["--bins", "0"], "--bins is 0"),
    (["--speed", "5"], "--speed is 5; expected at least 20"), (["--confusion", "absent/c.csv"], "--confusion absent/c.csv"),
    (["--crops", "10", "--compare", "."], "outputs are compared of one network and one crop"),
])
def test_refusals_come_before_anything_is_written(call, tmp_path, runs, flags, message):
    flags = [runs[1] if flag == "." else flag for flag in flags]
    result = call(runs[0], "--predictions", "p.npz", *flags)
    assert result.returncode == 2 and message in result.stderr and result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def job(root, tmp_path):
    """job(workers, "RUN", "--flag", ...) -> the figures that rank 0 of a real job on loopback prints; 0 workers: of one process
    alone. Every process has one thread: sums in dense layers differ in the last bit by the number of threads."""
    def run(workers, *arguments):
        command = [sys.executable, str(root / "launch" / "launch.py"), "-n", str(workers), "-s", "1", "--log-dir",
                   str(tmp_path / f"logs-{workers}")] if workers else []
        command += [sys.executable, str(root / "tools" / "evaluate.py"), *map(str, arguments), "--json"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=str(tmp_path),
                                env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"})
        assert result.returncode == 0, result.stdout + result.stderr
        lines = [line[line.index('{"path"'):] for line in result.stdout.splitlines() if '{"path"' in line]
        assert len(lines) == 1  # Only rank 0 speaks.
        return json.loads(lines[0])
    return run


TIMES = ("seconds", "images_per_second", "waited", "workers")


def same(found, expected):
    return {name: value for name, value in found.items() if name not in TIMES} == {
        name: value for name, value in expected.items() if name not in TIMES}


def test_two_workers_find_what_one_finds(call, job, tmp_path, runs):
    flags = (runs[0], "--batch-size", 50, "--calibration")  # 8 batches, the last of 14.
    alone = job(0, *flags, "--predictions", "alone.npz", "--confusion", "alone.csv")
    found = job(2, *flags, "--predictions", "job.npz", "--confusion", "job.csv", "--per-class", "classes.csv")
    assert found["workers"] == 2 and same(found, alone), (found, alone)
    assert (tmp_path / "job.csv").read_text() == (tmp_path / "alone.csv").read_text()
    mine, theirs = read_predictions(tmp_path / "alone.npz"), read_predictions(tmp_path / "job.npz")
    for name in ("index", "labels", "guesses", "confidence", "likelihood"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    assert (tmp_path / "classes.csv").exists()
    # With another number of threads: the same counts, and losses but for float32's last bits.
    here = figures(call(*flags, "--json"))
    assert (here["top1"], here["top5"]) == (found["top1"], found["top5"])
    assert here["loss"] == pytest.approx(found["loss"], rel=1e-6)


def ppm(path, seed):
    pixels = np.random.RandomState(seed).randint(0, 256, (30, 34, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"P6 34 30 255\n" + pixels.tobytes())


def test_more_workers_than_samples(job, tmp_path, runs):
    for number in range(10):
        ppm(tmp_path / "pictures" / "train" / str(number) / "a.ppm", number)
    for number in (3, 8):
        ppm(tmp_path / "pictures" / "val" / str(number) / "b.ppm", 20 + number)
    flags = (*runs, "--dataset", "imagefolder", "--data-dir", tmp_path / "pictures", "--crops", "10")
    alone = job(0, *flags)
    found = job(3, *flags, "--predictions", "job.npz")
    assert found["samples"] == 2 and same(found, alone), (found, alone)
    assert read_predictions(tmp_path / "job.npz").labels.tolist() == [3, 8]
