"""Pruning, weight sharing and distillation on several workers, against one with the whole batch. Reports what was found."""
import os
import sys
import tempfile

import gluonzoo.distributed
from common import digest, report
from gluonzoo import training
from gluonzoo.interop import save_weights
from gluonzoo.layers import weight_names

import mxnet as mx
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "training"))
from small_nets import small_networks  # noqa: E402

store = gluonzoo.distributed.create("dist_sync")

from gluonzoo.training import run as runs  # noqa: E402

BASE = {"model": "small_dense", "dataset": "digits", "epochs": 2, "augment": "none", "lr": 0.05}
#: name -> (settings, whether one worker gives the same: where no choice of weights hangs on rounding.)
WAYS = {
    "oneshot": ({"prune": 0.6, "prune_schedule": "oneshot", "ema": 0.9}, True),
    "gradual": ({"prune": 0.8, "prune_every": 3, "prune_scope": "global", "optimizer": "nag"}, False),
    "local steps": ({"prune": 0.7, "prune_every": 5, "local_steps": 3}, False),
    "2bit": ({"prune": 0.7, "prune_every": 5, "compression": "2bit", "lr": 0.005}, False),
    "shared": ({"share_bits": 3, "lr": 0.002, "momentum": 0.0}, True),
    "shared, local steps": ({"share_bits": 3, "lr": 0.002, "local_steps": 2}, False),
}


def train(more, kind, batch):
    runs.kvstores.create = (lambda kind: store) if kind == "dist_sync" else (
        lambda kind: gluonzoo.distributed.kvstore.KVStore(kind, mx.kv.create(kind)))
    made = training.prepare(training.TrainConfig(**{**BASE, **more, "kvstore": kind, "batch_size": batch, "output": "unused"}))
    made.output = None  # Both workers run alone too; neither is to write.
    training.fit(made)
    return made


def weights(run):
    parameters = run.net._collect_params_with_prefix()
    return {name: parameters[name].data().asnumpy() for name in weight_names(run.net)}


digests, zeros, values, differences = {}, {}, {}, {}
with small_networks(), tempfile.TemporaryDirectory() as folder:
    # A teacher that every worker makes for itself, the same.
    teacher = train({"epochs": 1}, "device", 60)
    path = os.path.join(folder, "teacher.params")
    save_weights(teacher.net, path)
    WAYS["taught"] = ({"teacher": "small_dense", "teacher_weights": path, "temperature": 3.0}, True)
    for name, (more, same) in WAYS.items():
        together = train(more, "dist_sync", 30)
        found = weights(together)
        digests[name] = digest(together.net)
        zeros[name] = float(np.mean([(weight == 0).mean() for weight in found.values()]))
        values[name] = max(len(np.unique(weight)) for weight in found.values())
        if same:
            alone = train(more, "device", 30 * store.num_workers)
            differences[name] = max(float(np.abs(weight - found[key]).max()) for key, weight in weights(alone).items())
report(store.rank, digests=digests, zeros=zeros, values=values, differences=differences)
gluonzoo.distributed.leave(0)
