"""tools/summarize.py: memory, and the picture of published accuracies."""
import importlib.util
import json
import os
import sys

import gluonzoo
from gluonzoo.errors import UserError
from gluonzoo.summary import summarize

import pytest
from mxnet.gluon import HybridBlock, nn


@pytest.fixture
def program(root, monkeypatch, capsys, tmp_path):
    """program("lenet5") -> what tools/summarize.py prints."""
    spec = importlib.util.spec_from_file_location("summarize_program", str(root / "tools" / "summarize.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["summarize.py", *arguments])
        assert module.main() == 0
        return capsys.readouterr().out
    return run


class Twice(HybridBlock):
    """One layer that runs on two sizes, and a layer with two outputs."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.conv = nn.Conv2D(4, 3, in_channels=4, padding=1)
            self.norm = nn.BatchNorm(in_channels=4)

    def hybrid_forward(self, F, x):
        return self.norm(self.conv(F.Pooling(self.conv(x), kernel=(2, 2), stride=(2, 2))))


def test_memory_by_hand():
    summary = summarize(Twice(), (4, 8, 8))
    assert [(row.name, row.activation_bytes) for row in summary.rows] == [
        ("conv", 4 * 4 * (64 + 16)), ("norm", 4 * 4 * 16)]
    assert summary.activation_bytes == 4 * 4 * (64 + 16 + 16)
    assert summary.parameter_bytes == 4 * (4 * 4 * 9 + 4 + 4 * 4)  # With the running mean and variance.
    # Shapes that are not known yet are inferred, for running statistics too.
    net = nn.HybridSequential()
    net.add(nn.Conv2D(5, 3, use_bias=False), nn.BatchNorm())
    assert summarize(net, (2, 8, 8)).parameter_bytes == 4 * (5 * 2 * 9 + 4 * 5)


def test_memory_is_printed_and_in_the_json(program):
    lines = program("resnet18_v1").splitlines()
    assert lines[0].split()[-2:] == ["activation", "bytes"]
    assert lines[2].split()[1:] == ["Conv2D", "64x112x112", "9,408", "118,013,952", f"{4 * 64 * 112 * 112:,}"]
    assert lines[-1].startswith("memory in float32: parameters 46.8 MB, all layers' outputs for one image ")
    found = json.loads(program("resnet18_v1", "--json"))
    assert found["parameter_bytes"] == 4 * (11689512 + 2 * 4800)
    assert found["activation_bytes"] == sum(row["activation_bytes"] for row in found["rows"])
    markdown = program("lenet5", "--markdown").splitlines()
    assert markdown[-2] == "" and markdown[-1].startswith("memory in float32")


def test_compare_draws_and_names_its_sources(program):
    pytest.importorskip("matplotlib")
    text = program("--compare", "resnet*_v1b", "-o", "c.png").splitlines()
    assert [line.split()[0] for line in text[2:-1]] == ["resnet101_v1b", "resnet152_v1b", "resnet50_v1b"]
    assert text[2].split()[:4] == ["resnet101_v1b", "7,801,405,440", "77.4", "93.5"]
    assert "224 single crop  torchvision 0.28.0 weight metadata" in text[2]
    assert text[-1] == "wrote c.png: 3 networks" and os.listdir(".") == ["c.png"]


@pytest.mark.parametrize("arguments, error, message", [
    (("--compare",), SystemExit, "-o FILE go together"), (("lenet5", "-o", "c.png"), SystemExit, "-o FILE go together"),
    (("lenet5", "--compare", "*", "-o", "c.png"), SystemExit, "takes no NET"),
    (("--compare", "-o", "c.png", "--all"), SystemExit, "takes no --all"),
    (("--compare", "-o", "c.png", "--input-shape", "3,1,1"), SystemExit, "takes no --input-shape"),
    (("--compare", "lenet*", "-o", "c.png"), UserError, "none has a published accuracy"),
    (("--compare", "resnet18_v1", "-o", "no/c.png"), UserError, "cannot write no/c.png")])
def test_bad_arguments(program, capsys, arguments, error, message):
    if error is UserError and "cannot" in message:
        pytest.importorskip("matplotlib")
    with pytest.raises(error) as caught:
        program(*arguments)
    assert message in (capsys.readouterr().err if error is SystemExit else str(caught.value))
    assert os.listdir(".") == []


def test_the_table_of_all_networks_needs_no_memory(program):
    assert "activation" not in program("--all", "lenet*") and len(gluonzoo.list_models("lenet*")) == 3
