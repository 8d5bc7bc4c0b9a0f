"""A real run with BatchNorm, Dropout and augmentation that can be killed at any update and resumed.

Arguments: output folder, kvstore, optimizer, checkpoint_every, update at which to die (0: never), devices, resume (0 or 1).
"""
import hashlib
import os
import sys

import gluonzoo.distributed
from common import report
from gluonzoo.training import loop, run

import networks  # noqa: F401

output, kind, optimizer, (every, die_at, devices, resume) = (*sys.argv[1:4], map(int, sys.argv[4:8]))
settings = {"model": "small_test_net", "dataset": "digits", "epochs": 2, "batch_size": 48, "kvstore": kind, "output": output,
            "optimizer": optimizer, "lr": 0.05 if optimizer == "sgd" else 0.002, "augment": "crop+flip", "seed": 5,
            "checkpoint_every": every, "devices": devices, "warmup_epochs": 0.5}
honest_step = loop.step


def step(this, images, labels):
    if die_at and this.position.step == die_at:
        os._exit(9)
    return honest_step(this, images, labels)


loop.step = step
config, saved = run.settings(settings, bool(resume))
prepared = run.prepare(config, saved)
history = loop.fit(prepared)
parameters = prepared.net._collect_params_with_prefix()
report(prepared.store.rank, resumed_at=saved.state["step"] if saved else 0, history=history, **{
    name: hashlib.sha256(parameter.list_data()[0].asnumpy().tobytes()).hexdigest() for name, parameter in parameters.items()})
gluonzoo.distributed.leave(0)
