"""Whole runs on small networks, and everything that a checkpoint holds, comparable."""
from gluonzoo.training import checkpoint, fit, prepare
from gluonzoo.training.run import settings

import numpy as np

__all__ = ["BASE", "train", "files", "assert_resumed_is_uninterrupted"]

BASE = {"model": "small_residual", "dataset": "digits", "epochs": 2, "batch_size": 300, "lr": 0.1, "augment": "none", "keep": 50,
        "checkpoint_every": 4}


def train(explicit, resume=False):
    """As `training.train`, without the picture at its end. Returns: (Run, history)."""
    run = prepare(*settings(explicit, resume))
    return run, fit(run)


def files(path):
    """({(file, name): array}, history without times, Checkpoint) of a checkpoint."""
    saved = checkpoint.Checkpoint(str(path))
    values = {(file, name): array for file in ("parameters.params", "optimizer.params", "ema.params", "workers.params",
                                               "constraint.params") for name, array in saved.arrays(file).items()}
    history = [{name: value for name, value in record.items() if name not in ("seconds", "images_per_second", "data_wait")}
               for record in saved.state["history"]]
    return values, history, saved


def assert_resumed_is_uninterrupted(folder, more, steps=(4, 8)):
    """Train once in a piece, and again from checkpoints of it: the same to the bit. Returns: (Run, {(file, name): array})."""
    run, _ = train({**BASE, **more, "output": str(folder / "whole")})
    last = f"step-{run.position.step:010d}"
    expected, records, _ = files(folder / "whole" / "checkpoints" / last)
    for step in steps:
        again = folder / f"from-{step}"
        train({"output": str(again)}, resume=str(folder / "whole" / "checkpoints" / f"step-{step:010d}"))
        found, other, _ = files(again / "checkpoints" / last)
        assert other == records and found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{name} from {step}")
    return run, expected
