"""Training craft on several workers against one worker with the whole batch. Reports, by name, the largest differences."""
import os
import sys

import gluonzoo.distributed
from common import digest, flat, make_net, report, train
from gluonzoo import training
from gluonzoo.training import Trainer

import mxnet as mx
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "training"))
from small_nets import small_networks  # noqa: E402

OPTIMIZERS = {"nag": {"momentum": 0.9, "wd": 0.01}, "lars": {"momentum": 0.9, "eta": 0.1},
              "rmsprop": {"epsilon": 1.0, "momentum": 0.9}, "adam": {}}
store = gluonzoo.distributed.create("dist_sync")
differences, digests = {}, {}


def run(net, trainer, rank, workers, name):
    train(net, trainer, rank, workers, 6, 7)
    if name == "adam":
        trainer.switch("sgd", {"learning_rate": 0.05, "momentum": 0.9})
    train(net, trainer, rank, workers, 6, 7, first=6)


for name, arguments in OPTIMIZERS.items():
    net, alone = make_net(seed=1 if store.rank == 0 else 5), make_net(seed=1)
    run(net, Trainer(net, name, {"learning_rate": 0.01, **arguments}, kvstore=store), store.rank, store.num_workers, name)
    run(alone, Trainer(alone, name, {"learning_rate": 0.01, **arguments}), 0, 1, name)
    differences[name], digests[name] = float(np.abs(flat(net) - flat(alone)).max()), digest(net)

# A whole run: moving average, plateau, label smoothing. The store is shared, as ps-lite allows one a process.
from gluonzoo.training import run as runs  # noqa: E402

settings = {"model": "small_dense", "dataset": "digits", "epochs": 4, "augment": "none", "lr": 0.05, "ema": 0.9,
            "label_smoothing": 0.1, "schedule": "plateau", "patience": 1, "lr_decay": 0.5}
with_norm = {**settings, "model": "small_residual", "sync_bn": True, "dropout": 0.0, "schedule": "constant", "epochs": 2}
results = []
with small_networks():
    for given, kind, batch in ((settings, "dist_sync", 40), (settings, "device", 40 * store.num_workers),
                               ({**with_norm, "devices": 2}, "dist_sync", 40), (with_norm, "device", 40 * store.num_workers)):
        runs.kvstores.create = (lambda kind: store) if kind == "dist_sync" else (
            lambda kind: gluonzoo.distributed.kvstore.KVStore(kind, mx.kv.create(kind)))
        config = training.TrainConfig(**{**given, "kvstore": kind, "batch_size": batch, "output": "unused"})
        made = training.prepare(config)
        made.output = None  # Both workers run alone too; neither is to write.
        history = training.fit(made)
        row = None if made.ema.statistics is None else made.ema.statistics[0]
        results.append(([[record[name] for name in ("train_loss", "val_loss", "val_raw_loss", "lr")] for record in history],
                        {**made.ema.weights(), **made.named_statistics(row)}))
for first, name in ((0, "plain"), (2, "sync_bn")):
    (history, average), (other, other_average) = results[first:first + 2]
    differences[f"{name} history"] = float(np.abs(np.array(history) - np.array(other)).max())
    differences[f"{name} average"] = max(float(np.abs(average[key] - other_average[key]).max()) for key in average)
report(store.rank, differences=differences, digests=digests, histories=[result[0] for result in results])
gluonzoo.distributed.leave(0)
