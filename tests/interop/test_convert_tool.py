"""tools/convert.py as a person runs it."""
import importlib.util
import json

import gluonzoo
from gluonzoo import arrays
from gluonzoo.interop import load_weights, read
from gluonzoo.interop.load import arrays_for

import numpy as np
import pytest
from weight_files import torch_zip

needs_safetensors = pytest.mark.skipif(importlib.util.find_spec("safetensors") is None, reason="safetensors is not installed")


@pytest.fixture
def resnet(tmp_path):
    """(network, file of akamaster's)."""
    net = gluonzoo.get_model("cifar_resnet20_v1_a")
    net.initialize()
    values = arrays_for(net, "akamaster")
    path = tmp_path / "in.th"
    path.write_bytes(torch_zip(values, wrap=lambda state: {"state_dict": state}))
    return net, path


def convert(run_program, *arguments):
    return run_program("tools/convert.py", *arguments)


def same(net, path):
    other = gluonzoo.get_model(net.model_name, **net.model_kwargs)
    load_weights(other, path)
    for key, parameter in net._collect_params_with_prefix().items():
        np.testing.assert_array_equal(other._collect_params_with_prefix()[key].data().asnumpy(), parameter.data().asnumpy())


def test_in_and_index(run_program, resnet, tmp_path):
    net, path = resnet
    out = tmp_path / "zoo" / "resnet20.params"
    out.parent.mkdir()
    command = (path, out, "--model", "cifar_resnet20_v1_a", "--index", out.parent)
    done = convert(run_program, *command)
    assert done.returncode == 0, done.stderr
    assert "akamaster's resnet20; 97 parameters placed, 19 arrays not used" in done.stdout
    assert "not used: bn1.num_batches_tracked" in done.stdout and "read back, equal" in done.stdout
    same(net, out)
    assert sorted(file.name for file in out.parent.iterdir()) == ["index.json", "resnet20.params"]
    assert json.loads((out.parent / "index.json").read_text())["cifar_resnet20_v1_a"]["classes"] == 10
    loaded = gluonzoo.get_model("cifar_resnet20_v1_a", pretrained=True, root=str(out.parent))
    assert loaded.output.weight.data().shape == (10, 64)
    again = convert(run_program, *command)
    assert again.returncode == 2 and "is there already; --force replaces it" in again.stderr
    assert convert(run_program, *command, "--force").returncode == 0


@needs_safetensors
def test_out(run_program, resnet, tmp_path):
    net, path = resnet
    mine, theirs = tmp_path / "mine.params", tmp_path / "theirs.safetensors"
    arrays.save(str(mine), arrays_for(net))
    done = convert(run_program, mine, theirs, "--model", "cifar_resnet20_v1_a", "--style", "akamaster", "--source", "gluonzoo")
    assert done.returncode == 0, done.stderr
    found = read(theirs).arrays
    assert set(found) == set(arrays_for(net, "akamaster")) and "bn1.num_batches_tracked" in found
    same(net, theirs)


@pytest.mark.parametrize("options, words", [
    (["--model", "cifar_resnet32_v1_a"], "does not fit cifar_resnet32_v1_a"), (["--model", "resnet"], "no network is called"),
    (["--model", "cifar_resnet20_v1_a", "--classes", "7"], "linear.weight is (10, 64), expected (7, 64)"),
    (["--model", "cifar_resnet20_v1_a", "--source", "timm"], "no counterpart"),
    (["--model", "cifar_resnet20_v1_a", "--style", "keras"], "--style keras"),
    (["--model", "cifar_resnet20_v1_a", "--style", "timm"], "no counterpart"),
    (["--model", "cifar_resnet20_v1_a", "--aux"], "aux"), (["--model", "cifar_resnet20_v1_a", "--index", "elsewhere"], "--index"),
])
def test_mistakes(run_program, resnet, tmp_path, options, words):
    out = tmp_path / "out.params"
    done = convert(run_program, resnet[1], out, *options)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert words in done.stderr.splitlines()[-1] and done.stderr.splitlines()[-1].startswith("error: ")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.th"]


def test_everything_that_does_not_fit_is_listed(run_program, resnet, tmp_path):
    done = convert(run_program, resnet[1], tmp_path / "out.params", "--model", "cifar_resnet32_v1_a")
    assert "missing in the file: layer3.4.bn2.running_var" in done.stderr
    assert sum(line.startswith("missing in the file: ") for line in done.stderr.splitlines()) == 60


def test_wrong_endings_and_folders(run_program, resnet, tmp_path):
    for out, words in ((tmp_path / "out.h5", "ends in .params"), (tmp_path / "absent" / "out.params", "no such folder")):
        done = convert(run_program, resnet[1], out, "--model", "cifar_resnet20_v1_a")
        assert done.returncode == 2 and words in done.stderr
