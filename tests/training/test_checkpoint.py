"""Checkpoints: what is written comes back; whatever is wrong with one is named, and the one before it is used."""
import json
import os
import shutil
import subprocess

import gluonzoo
from gluonzoo.training import checkpoint
from gluonzoo.training.weights import get_parameters

import mxnet as mx
import numpy as np
import pytest


def write(folder, step, net=None, **more):
    if net is None:
        net = gluonzoo.get_model("lenet5")
        net.initialize(mx.init.Normal(0.1))
    arguments = {"parameters": get_parameters(net), "optimizer": {"updates": np.arange(3)},
                 "state": {"step": step, "epoch": 0}, "config": {"model": "lenet5", "model_arguments": {}}, "keep": 10}
    return checkpoint.save(str(folder / "checkpoints"), **{**arguments, **more}), net


def test_round_trip(tmp_path):
    path, net = write(tmp_path, 7)
    saved = checkpoint.load(path)
    assert (saved.state["step"], saved.model, saved.path) == (7, "lenet5", path)
    images = mx.nd.random.normal(shape=(2, 1, 32, 32))
    np.testing.assert_array_equal(saved.net()(images).asnumpy(), net(images).asnumpy())
    np.testing.assert_array_equal(saved.arrays("optimizer.params")["updates"], np.arange(3))
    assert saved.arrays("workers.params") == {}
    assert sorted(os.listdir(path)) == ["config.json", "manifest.json", "optimizer.params", "parameters.params", "state.json"]


def test_a_runs_folder_gives_the_newest(tmp_path):
    write(tmp_path, 5)
    write(tmp_path, 12)
    assert checkpoint.load(str(tmp_path)).state["step"] == 12


def truncate(path):
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.truncate(size // 2)


def flip(path):
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))


FILES = ("parameters.params", "optimizer.params", "state.json", "config.json", "manifest.json")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [truncate, flip, os.remove])
def test_damage_is_named_and_the_one_before_is_used(tmp_path, file, damage):
    write(tmp_path, 5)
    path, _ = write(tmp_path, 12)
    damage(os.path.join(path, file))
    with pytest.raises(checkpoint.CheckpointError, match=file.replace(".", r"\.")) as caught:
        checkpoint.load(path)
    assert path in str(caught.value)
    told = []
    assert checkpoint.newest(str(tmp_path), told.append).state["step"] == 5
    assert len(told) == 1 and path in told[0]


def test_every_flipped_bit_of_the_manifest_is_noticed(tmp_path):
    path, _ = write(tmp_path, 12)
    manifest = os.path.join(path, "manifest.json")
    honest = open(manifest, "rb").read()
    expected = json.loads(honest)
    for position in range(0, len(honest), 3):
        changed = bytearray(honest)
        changed[position] ^= 1
        with open(manifest, "wb") as file:
            file.write(changed)
        try:
            read = checkpoint.verify(path)
        except checkpoint.CheckpointError:
            continue
        assert read == expected  # A changed space between tokens means the same.


def test_foreign_directories_are_refused(tmp_path):
    path, _ = write(tmp_path, 5)
    manifest = json.load(open(os.path.join(path, "manifest.json")))
    for change, message in (({"format": "torch"}, "format is 'torch'"), ({"version": 9}, "version is 9")):
        changed = {**manifest, **change}
        with open(os.path.join(path, "manifest.json"), "w") as file:
            json.dump({**changed, "digest": checkpoint._digest(changed)}, file)
        with pytest.raises(checkpoint.CheckpointError, match=message):
            checkpoint.load(path)
    with pytest.raises(checkpoint.CheckpointError, match="no such directory"):
        checkpoint.load(str(tmp_path / "nowhere"))
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint under"):
        (tmp_path / "empty").mkdir()
        checkpoint.load(str(tmp_path / "empty"))
    half = tmp_path / "half" / "step-0000000003"
    half.mkdir(parents=True)
    shutil.copy(os.path.join(path, "parameters.params"), half)
    with pytest.raises(checkpoint.CheckpointError, match="manifest.json is missing"):
        checkpoint.load(str(half))


def test_manifest_cannot_point_outside(tmp_path):
    path, _ = write(tmp_path, 5)
    place = os.path.join(path, "manifest.json")
    manifest = json.load(open(place))
    manifest["files"]["../../../etc/passwd"] = {"bytes": 1, "sha256": "0"}
    manifest["digest"] = checkpoint._digest(manifest)
    with open(place, "w") as file:
        json.dump(manifest, file)
    with pytest.raises(checkpoint.CheckpointError, match="passwd is missing"):
        checkpoint.load(path)


def test_another_networks_parameters_are_refused(tmp_path):
    path, _ = write(tmp_path, 5, config={"model": "lenet_caffe", "model_arguments": {}})
    with pytest.raises(ValueError, match="missing|shape"):
        checkpoint.load(path).net()


def test_old_ones_go_and_the_best_stays(tmp_path):
    for step in range(1, 7):
        _, net = write(tmp_path, step, keep=2, best="step-0000000002")
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step-0000000002", "step-0000000005", "step-0000000006"]


def test_a_failed_write_leaves_the_earlier_ones_and_no_rest(tmp_path):
    write(tmp_path, 5)

    def fail(folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, 6, write_more=fail)
    assert os.listdir(tmp_path / "checkpoints") == ["step-0000000005"]
    checkpoint.load(str(tmp_path))


def test_the_rest_of_a_killed_writer_is_cleared(tmp_path):
    (tmp_path / "checkpoints" / ".writing-step-0000000003").mkdir(parents=True)
    write(tmp_path, 5)
    assert os.listdir(tmp_path / "checkpoints") == ["step-0000000005"]


def test_the_same_step_again_replaces(tmp_path):
    write(tmp_path, 5)
    path, net = write(tmp_path, 5)
    images = mx.nd.ones((1, 1, 32, 32))
    np.testing.assert_array_equal(checkpoint.load(path).net()(images).asnumpy(), net(images).asnumpy())
    assert os.listdir(tmp_path / "checkpoints") == ["step-0000000005"]


class Killed(BaseException):
    """The moment of a kill: nothing of the program runs after it."""


@pytest.mark.parametrize("again", [False, True])
def test_a_kill_at_any_moment_of_a_save(tmp_path, monkeypatch, again):
    """Before every call that touches the disk: the newest checkpoint stays readable, and the next save cleans up."""
    for moment in range(1, 100):
        folder = tmp_path / str(moment)
        for step in (3, 5, 8):
            write(folder, step)
        calls = [0]
        with monkeypatch.context() as patch:
            def dying(honest, calls=calls, moment=moment):
                def either(*arguments, **more):
                    calls[0] += 1
                    if calls[0] >= moment:
                        raise Killed
                    return honest(*arguments, **more)
                return either
            for place, name in ((os, "rename"), (os, "mkdir"), (shutil, "rmtree"), (checkpoint.arrays, "save"),
                                (checkpoint, "_write_json"), (checkpoint, "verify"), (checkpoint, "_sync_folder")):
                patch.setattr(place, name, dying(getattr(place, name)))
            try:
                write(folder, 8 if again else 9, keep=2)
                finished = True
            except Killed:
                finished = False
        newest = checkpoint.newest(str(folder), tell=pytest.fail)
        assert newest.state["step"] in ((8,) if again else (8, 9)), moment
        newest.net()
        write(folder, 10, keep=2)
        left = sorted(os.listdir(folder / "checkpoints"))
        assert left[-1] == "step-0000000010" and left[0].startswith("step-") and len(left) == 2, (moment, left)
        if finished:
            break
    assert moment > 10


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
                                           capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(small_disk, run_program):
    """A run that fills its disk after some checkpoints ends with the error; the checkpoint before it is whole."""
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    result = run_program("tools/train.py", "--model", "lenet5", "--dataset", "digits", "--epochs", "9", "--output",
                         small_disk / "run", "--keep", "9")
    assert result.returncode == 1 and "No space left on device" in result.stderr, result.stderr
    saved = checkpoint.newest(str(small_disk / "run"))
    assert saved is not None and saved.state["epoch"] < 9
    assert not [name for name in os.listdir(small_disk / "run" / "checkpoints") if name.startswith(".")]
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    result = run_program("tools/train.py", "--resume", "--output", small_disk / "run")
    assert result.returncode == 0, result.stderr
    assert f"resumed from {saved.path}" in result.stdout
    assert checkpoint.newest(str(small_disk / "run")).state["epoch"] == 9
