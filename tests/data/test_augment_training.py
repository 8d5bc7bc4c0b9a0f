"""A real run with mixed labels and the data set's own lighting: it learns, and a resumed run is the uninterrupted one."""
import shutil

import numpy as np
import pytest

pytest.importorskip("mxnet")
pytest.importorskip("sklearn")


def train(folder, epochs, resume=False, **more):
    from gluonzoo.training import checkpoint
    from gluonzoo.training.run import train as run

    settings = {"model": "lenet_caffe", "dataset": "digits", "epochs": epochs, "batch_size": 64, "lr": 0.05,
                "schedule": "constant", "output": str(folder),
                "augment": "crop:1+pca_lighting:own+cutout:4+mixup:0.2+cutmix:1,0.5", **more}
    done, history = run({} if resume else settings, resume=str(folder) if resume else False)
    return done, history, checkpoint.load(str(folder))


def test_a_resumed_run_with_mixed_labels_is_the_uninterrupted_one(tmp_path):
    _, history, whole = train(tmp_path / "whole", 3)
    assert history[-1]["val_accuracy"] > 0.8 and history[-1]["train_loss"] > history[-1]["val_loss"]  # Soft labels cost.
    lighting = whole.config["lighting"]
    assert np.shape(lighting["eigenvectors"]) == (1, 1) and 0.1 < lighting["eigenvalues"][0] < 0.2  # The digits' variance.
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "step-0000000046", tmp_path / "cut" / "checkpoints" / "step-0000000046")
    _, _, resumed = train(tmp_path / "cut", 3, resume=True)
    assert resumed.state["step"] == whole.state["step"] == 69 and resumed.config["lighting"] == lighting
    for name, values in whole.arrays("parameters.params").items():
        np.testing.assert_array_equal(resumed.arrays("parameters.params")[name], values)


def test_a_resumed_run_keeps_its_lighting(tmp_path, monkeypatch):
    _, _, first = train(tmp_path, 1, augment="pca_lighting:own")
    from gluonzoo.data import augment_color

    def changed(dataset):
        raise AssertionError("computed again")
    monkeypatch.setattr(augment_color, "lighting_of", changed)
    from gluonzoo.training import checkpoint
    from gluonzoo.training.run import train as run

    done, _ = run({"epochs": 2}, resume=str(tmp_path))
    assert done.train_set[1].own_lighting == first.config["lighting"] == checkpoint.load(str(tmp_path)).config["lighting"]
