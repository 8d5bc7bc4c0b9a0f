"""tools/compress.py: smaller files that are the same network, and what it refuses."""
import json

from gluonzoo import compact
from gluonzoo.training import checkpoint, prepare
from gluonzoo.training.loop import fit
from gluonzoo.training.run import settings
from gluonzoo.training.weights import get_parameters

import numpy as np
import pytest

BASE = {"model": "lenet5", "dataset": "digits", "epochs": 2, "batch_size": 64, "augment": "none"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's folder: LeNet-5 on digits, 80 % pruned."""
    folder = tmp_path_factory.mktemp("run")
    run = prepare(*settings({**BASE, "prune": 0.8, "prune_every": 5, "output": str(folder / "run")}))
    fit(run)
    return folder / "run"


def test_a_pruned_network_becomes_small_and_comes_back(in_process, trained, tmp_path):
    result = in_process("tools/compress.py", trained, "-o", "net.compact", "--dataset", "--unpack", "net.params")
    assert result.returncode == 0, result.stderr
    before = get_parameters(checkpoint.load(str(trained)).net())
    values, facts = compact.load(str(tmp_path / "net.compact"))
    assert facts["model"] == "lenet5" and facts["dataset"] == "digits"
    assert all(values[name].tobytes() == before[name].tobytes() for name in before)
    size = (tmp_path / "net.compact").stat().st_size
    whole = sum(array.nbytes for array in before.values())
    assert size < 0.4 * whole and f"{size:,} bytes in place of {whole:,}" in result.stdout
    words = result.stdout.splitlines()[-1].split()
    assert words[0] == "accuracy:" and words[1] == words[4] and "80.0" in result.stdout
    # The file is a network for the other programs.
    result = in_process("tools/evaluate.py", "net.compact", "--json")
    assert result.returncode == 0 and abs(json.loads(result.stdout)["top1"] * 100 - float(words[1])) < 0.01, result.stderr
    for file in ("net.compact", "net.params"):
        result = in_process("tools/evaluate.py", "lenet5", "--weights", file, "--dataset", "digits", "--mean", "0.5", "--std",
                            "0.5")
        assert result.returncode == 0, result.stderr


def test_pruning_and_sharing_at_once(in_process, trained, tmp_path):
    result = in_process("tools/compress.py", trained, "-o", "s.compact", "--prune", "0.9", "--bits", "3", "--skip", "last",
                        "--json", "--dataset", "digits")
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    rows = {row["name"]: row for row in figures["arrays"]}
    values, _ = compact.load(str(tmp_path / "s.compact"))
    last = [name for name in rows if name.startswith("output.")]
    assert not set(last) & set(figures["changed"]) and len(figures["changed"]) == 4
    for name in figures["changed"]:
        assert len(np.unique(values[name])) <= 9 and (values[name] == 0).sum() == round(0.9 * values[name].size)
        assert rows[name]["bits_each"] <= 3
    assert figures["bytes_after"] == (tmp_path / "s.compact").stat().st_size < figures["bytes_before"] / 8
    assert {"accuracy_before", "accuracy_after"} <= set(figures)
    # Onwards from the file.
    result = in_process("tools/compress.py", "s.compact", "--unpack", "back.params")
    assert result.returncode == 0, result.stderr
    from gluonzoo import arrays
    back = arrays.load(str(tmp_path / "back.params"))
    assert all(back[name].tobytes() == values[name].tobytes() for name in values)


def test_a_registered_network_with_weights(in_process, trained, tmp_path):
    path = checkpoint.load(str(trained)).path + "/parameters.params"
    result = in_process("tools/compress.py", "lenet5", "--weights", path, "-o", "net.compact", "--bits", "4")
    assert result.returncode == 0 and "16 codes" in result.stdout, result.stderr
    net, facts = compact.open_compact(str(tmp_path / "net.compact"))
    assert facts["model"] == "lenet5" and net.classes == 10


def test_mistakes_are_one_line_and_nothing_is_written(in_process, trained, tmp_path):
    (tmp_path / "there").write_text("mine")
    for arguments, message in (
            ((trained, "-o", "there"), "is there already; --force"), ((trained, "-o", "no/x"), "folder that exists"),
            ((trained, "--prune", "1"), "--prune is 1.0"), ((trained, "--bits", "9"), "--bits is 9"),
            ((trained, "--unpack", "x.npz"), "expected a name that ends in"), (("lenet5",), "without weights"),
            (("lenet9", "--weights", "x"), "no network is called"), ((trained, "--weights", "x"), "has its own"),
            ((trained, "--skip", "conv9", "--bits", "2"), "no layer is called 'conv9'"), (("there",), "compact file"),
            ((trained, "--dataset", "cifar100", "--data-dir", tmp_path), "cifar100")):
        result = in_process("tools/compress.py", *arguments)
        assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1, (arguments, result.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"] and (tmp_path / "there").read_text() == "mine"


def test_binary_weights_take_a_bit(in_process, tmp_path):
    import mxnet as mx
    given = {**BASE, "model": "cifar_resnet20_v1_a", "input_size": 8, "epochs": 1, "batch_size": 300, "binary": "weights"}
    run = prepare(*settings({**given, "output": str(tmp_path / "run")}))
    run.save_checkpoint()
    run.close()
    result = in_process("tools/compress.py", tmp_path / "run", "-o", "b.compact", "--json")
    figures = json.loads(result.stdout)
    assert len(figures["changed"]) == 18 and sum(row["stored"] == "signs and scales" for row in figures["arrays"]) == 18
    assert figures["bytes_after"] < figures["bytes_before"] / 12
    net = checkpoint.load(str(tmp_path / "run")).net()
    images = mx.nd.random.normal(shape=(3, 1, 8, 8))
    expected = net(images).asnumpy()
    found = compact.open_compact(str(tmp_path / "b.compact"))[0](images).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    kept = in_process("tools/compress.py", tmp_path / "run", "-o", "r.compact", "--json", "--real-weights")
    assert json.loads(kept.stdout)["changed"] == []


def test_compact_files_are_networks_for_the_other_programs(in_process, trained, tmp_path):
    assert in_process("tools/compress.py", trained, "-o", "net.compact").returncode == 0
    result = in_process("tools/export.py", "--checkpoint", "net.compact", "--output", "export/net")
    assert result.returncode == 0, result.stderr
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.random.RandomState(0).randint(0, 255, (32, 32), dtype=np.uint8)).save(str(tmp_path / "a.png"))
    found = []
    for model in ("net.compact", "export/net", trained):
        answer = in_process("tools/predict.py", "a.png", "--model", model)
        assert answer.returncode == 0, answer.stderr
        found.append(answer.stdout)
    assert found[0] == found[2] and found[0].split()[1] == found[1].split()[1]


def test_without_an_output_the_layers_are_shown_and_nothing_is_written(in_process, trained, tmp_path):
    result = in_process("tools/compress.py", trained, "--prune", "0.9")
    assert result.returncode == 0 and "90.0" in result.stdout and "would have" in result.stdout, result.stderr
    assert list(tmp_path.iterdir()) == []
    shown = in_process("tools/compress.py", trained, "--json")
    written = in_process("tools/compress.py", trained, "--json", "-o", "x.compact")
    first, second = json.loads(shown.stdout), json.loads(written.stdout)
    assert first["arrays"] == second["arrays"] and first["bytes_after"] == second["bytes_after"]
