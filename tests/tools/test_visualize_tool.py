"""tools/visualize.py as a person runs it."""
import importlib.util
import os
import sys

import gluonzoo
from gluonzoo import arrays, errors
from gluonzoo.training.weights import get_parameters

import mxnet as mx
import numpy as np
import pytest

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    mx.random.seed(5)
    net = gluonzoo.get_model("lenet_caffe")
    net.initialize()
    path = str(tmp_path_factory.mktemp("weights") / "lenet.params")
    arrays.save(path, get_parameters(net))
    return path


@pytest.fixture
def call(root, tmp_path, monkeypatch, capsys, weights):
    """call("maps", "a.npy", ...) -> (code, output, errors), with the network and its weights given."""
    spec = importlib.util.spec_from_file_location("visualize_program", str(root / "tools" / "visualize.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.random.RandomState(0).randint(0, 256, (3, 28, 28, 1)).astype("uint8"))

    def run(*arguments):
        net = ["--model", "lenet_caffe", "--weights", weights] * ("--model" not in arguments)
        monkeypatch.setattr(sys, "argv", ["visualize.py", *map(str, arguments), *net])
        capsys.readouterr()
        try:
            code = module.main()
        except errors.UserError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
        except SystemExit as end:
            code = end.code
        output = capsys.readouterr()
        return code, output.out, output.err
    return run


PIXELS = ("--mean", "0.5", "--std", "0.5")


@pytest.mark.parametrize("arguments, lines", [
    (("filters",), ["features.conv1: 20x1x5x5"]),
    (("maps", "a.npy", *PIXELS), ["conv1: 20x24x24", "pool1: 20x12x12", "conv2: 50x8x8", "pool2: 50x4x4"]),
    (("maps", "a.npy", *PIXELS, "--stages", "pool1"), ["pool1: 20x12x12"])])
def test_pictures(call, arguments, lines):
    code, output, _ = call(*arguments, "-o", "p.png")
    assert code == 0 and output.splitlines() == lines + ["wrote p.png"]
    with open("p.png", "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    assert sorted(os.listdir(".")) == ["a.npy", "p.png"]


def test_deconv(call):
    code, output, _ = call("deconv", "a.npy", *PIXELS, "--stages", "conv2", "--top", "4", "-o", "p.png")
    lines = output.splitlines()
    assert code == 0 and len(lines) == 5 and all(line.startswith("channel ") for line in lines[:4])
    strengths = [float(line.split(": ")[1].split(" on ")[0]) for line in lines[:4]]
    assert strengths == sorted(strengths, reverse=True)
    code, output, _ = call("deconv", "a.npy", *PIXELS, "--stages", "conv2", "--channel", "7", "-o", "p.png")
    lines = output.splitlines()
    assert code == 0 and len(lines) == 4 and all(line.startswith("channel 7 ") for line in lines[:3])
    assert {line.split(" on ")[1] for line in lines[:3]} == {"a.npy[0]", "a.npy[1]", "a.npy[2]"}


@pytest.mark.parametrize("arguments, words", [
    (("filters", "a.npy"), ["no IMAGE"]), (("filters", "--stages", "conv1"), ["no --stages"]), (("maps",), ["needs an IMAGE"]),
    (("maps", "a.npy", "--channel", "1"), ["--channel goes with deconv"]), (("deconv", "a.npy"), ["--stages NAME"]),
    (("deconv", "a.npy", "--stages", "conv1,conv2"), ["one stage"]),
    (("deconv", "a.npy", *PIXELS, "--stages", "conv1", "--top", "0"), ["--top is 0"]),
    (("maps", "a.npy", *PIXELS, "--stages", "conv9"), ["conv9", "conv1, pool1"]),
    (("deconv", "a.npy", *PIXELS, "--stages", "conv1", "--channel", "20"), ["0 to 19"]),
    (("maps", "a.npy"), ["--mean", "--std"]), (("maps", "b.npy", *PIXELS), ["b.npy: no such file"]),
    (("filters", "--model", "lenet5"), ["without weights"]), (("filters", "--model", "lenet6"), ["lenet6", "lenet5"])])
def test_mistakes_are_one_line(call, arguments, words):
    code, _, error = call(*arguments, "-o", "p.png")
    line = error.strip().splitlines()[-1]
    assert code == 2 and "error: " in line and all(word in line for word in words), error
    assert os.listdir(".") == ["a.npy"]


def test_what_cannot_be_written(call):
    for arguments in (("filters",), ("maps", "a.npy", *PIXELS)):
        code, _, error = call(*arguments, "-o", "no/p.png")
        assert code == 2 and "cannot write no/p.png" in error


def test_help(run_program):
    done = run_program("tools/visualize.py", "--help")
    assert done.returncode == 0 and "deconv" in done.stdout
