"""Which checkpoint a start continues from: --resume in its forms, and restarts by the launcher."""
from pathlib import Path

import gluonzoo
from gluonzoo.errors import UserError
from gluonzoo.training import TrainConfig, checkpoint
from gluonzoo.training import run as runs
from gluonzoo.training.weights import get_parameters

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(folder, step, **config):
    net = gluonzoo.get_model("lenet5")
    net.initialize()
    values = {**TrainConfig(output=str(folder)).as_dict(), **config, "model_arguments": {}}
    return checkpoint.save(str(Path(folder) / "checkpoints"), parameters=get_parameters(net), optimizer={"updates": np.arange(3)},
                           state={"step": step, "epoch": 0}, config=values, keep=10)


def test_auto_begins_then_continues():
    config, saved = runs.settings({"output": "a"}, "auto")
    assert saved is None and config.output == "a"
    write("a", 5)
    config, saved = runs.settings({"output": "a"}, "auto")
    assert saved.state["step"] == 5 and config.output == "a"


def test_auto_without_an_output_is_always_the_same_folder():
    write("runs/lenet5-mnist-2", 9)
    for step in (None, 4):
        if step:
            write("runs/lenet5-mnist", step)
        config, saved = runs.settings({}, "auto")
        assert config.output == "runs/lenet5-mnist" and (saved and saved.state["step"]) == step


def test_auto_does_not_begin_over_damaged_checkpoints():
    (Path(write("a", 5)) / "state.json").write_text("{}")
    with pytest.raises(checkpoint.CheckpointError, match="no valid checkpoint under a"):
        runs.settings({"output": "a"}, "auto")


def test_a_folder_called_auto_can_still_be_named():
    write("auto", 5)
    assert runs.settings({"output": "b"}, "./auto")[1].state["step"] == 5


def test_resume_needs_a_checkpoint():
    with pytest.raises(checkpoint.CheckpointError, match="nothing to resume"):
        runs.settings({"output": "a"}, True)
    with pytest.raises(checkpoint.CheckpointError, match="nothing to resume"):
        runs.settings({}, True)


def test_a_new_run_does_not_mix_with_an_old_one():
    write("a", 5)
    write("b", 7)
    with pytest.raises(UserError, match="holds checkpoints of an earlier run"):
        runs.settings({"output": "a"})
    with pytest.raises(UserError, match="--output a holds checkpoints already"):
        runs.settings({"output": "a"}, "b")


@pytest.mark.parametrize("there", ["set/", "set.zip", "set_train.rec"])
def test_the_data_is_where_the_run_had_it_unless_said_otherwise(there):
    """A folder, a file, or the prefix of packed images."""
    path = Path(there)
    path.mkdir() if there.endswith("/") else path.write_bytes(b"")
    data_dir = there.replace("_train.rec", "")
    write("a", 5, data_dir=data_dir)
    assert runs.settings({"output": "a"}, True)[0].data_dir == data_dir
    assert runs.settings({"output": "a", "data_dir": "other"}, True)[0].data_dir == "other"


def test_data_that_is_not_here_any_more_is_looked_for_in_the_default_places():
    write("a", 5, data_dir="gone")
    told = []
    assert runs.settings({"output": "a"}, True, told.append)[0].data_dir is None
    assert "gone" in told[0] and "--data-dir" in told[0]


@pytest.fixture
def restarted(monkeypatch):
    monkeypatch.setenv("GLUONZOO_RESTART", "1")
    monkeypatch.setenv("GLUONZOO_PROGRESS_FILE", "/somewhere/launch-1/worker-0.progress")


def test_a_restarted_job_continues_its_own_run(restarted, monkeypatch):
    """Not the run used last: that can be another job's, when this one was killed before its first checkpoint."""
    write("runs/lenet5-mnist", 900)
    config, saved = runs.settings({})
    assert saved is None and config.output == "runs/lenet5-mnist-2"
    Path("runs/lenet5-mnist-2").mkdir()
    runs._mark("runs/lenet5-mnist-2")
    config, saved = runs.settings({})
    assert saved is None and config.output == "runs/lenet5-mnist-2"
    write("runs/lenet5-mnist-2", 6)
    write("runs/lenet5-mnist-3", 70)
    config, saved = runs.settings({})
    assert saved.state["step"] == 6 and config.output == "runs/lenet5-mnist-2"
    monkeypatch.setenv("GLUONZOO_PROGRESS_FILE", "/somewhere/launch-2/worker-1.progress")
    config, saved = runs.settings({})
    assert saved is None and config.output == "runs/lenet5-mnist-4"


def test_the_launchers_word_for_a_job_counts_on_every_host(restarted, monkeypatch):
    monkeypatch.setenv("GLUONZOO_LOCAL_WORKERS", "1")
    monkeypatch.setenv("DMLC_NUM_WORKER", "2")
    write("runs/lenet5-mnist", 900)
    assert runs.settings({})[1].state["step"] == 900  # Nothing tells jobs apart: the folder used last.
    monkeypatch.setenv("GLUONZOO_JOB_ID", "7")
    assert runs.settings({})[0].output == "runs/lenet5-mnist-2"
    Path("runs/lenet5-mnist-2").mkdir()
    runs._mark("runs/lenet5-mnist-2")
    monkeypatch.setenv("GLUONZOO_PROGRESS_FILE", "/elsewhere/worker-1.progress")
    assert runs.settings({})[0].output == "runs/lenet5-mnist-2"


def test_a_restarted_job_with_an_output(restarted):
    config, saved = runs.settings({"output": "a"})
    assert saved is None and config.output == "a"
    write("a", 3)
    assert runs.settings({"output": "a"})[1].state["step"] == 3


def test_a_restarted_resume_continues_where_it_got_to(restarted):
    write("old", 50)
    assert runs.settings({"output": "new"}, "old")[1].state["step"] == 50
    write("new", 60)
    assert runs.settings({"output": "new"}, "old")[1].state["step"] == 60


@pytest.mark.parametrize("value", ["x", "-1"])
def test_nonsense_from_the_launcher_is_named(monkeypatch, value):
    monkeypatch.setenv("GLUONZOO_RESTART", value)
    with pytest.raises(UserError, match="GLUONZOO_RESTART is"):
        runs.settings({"output": "a"})
