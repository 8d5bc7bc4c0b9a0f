"""One small two-worker job; prints how far its weights are from one worker's with twice the batch. Argument: stock|gluonzoo."""
import json
import os
import sys

import gluonzoo.distributed
from gluonzoo.training import Trainer

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

SETTINGS = {"learning_rate": 0.01, "momentum": 0.9}


def make_net():
    mx.random.seed(1)
    net = gluon.nn.HybridSequential()
    for _ in range(8):
        net.add(gluon.nn.Dense(64, in_units=64, activation="tanh"))
    net.initialize(mx.init.Xavier())
    return net


def train(net, trainer, rank, workers, scale):
    loss = gluon.loss.L2Loss()
    for step in range(20):
        random = np.random.RandomState(step)
        images, labels = random.randn(16, 64), random.randn(16, 64)
        with autograd.record():
            value = loss(net(mx.nd.array(images[rank::workers])), mx.nd.array(labels[rank::workers]))
        value.backward()
        trainer.step(16 // workers * scale)
    return np.concatenate([p.data().asnumpy().ravel() for p in net._collect_params_with_prefix().values()])


net = make_net()
if sys.argv[1] == "stock":
    store = mx.kv.create("dist_sync")
    rank = store.rank
    # update_on_kvstore=False is the only way in which the stock trainer can save its state.
    trainer = gluon.Trainer(net.collect_params(), "sgd", SETTINGS, kvstore=store, update_on_kvstore=False)
    weights = train(net, trainer, rank, 2, scale=2)  # It wants the global batch.
else:
    store = gluonzoo.distributed.create("dist_sync")
    rank = store.rank
    weights = train(net, Trainer(net, "sgd", SETTINGS, kvstore=store), rank, 2, scale=1)
alone = make_net()
expected = train(alone, gluon.Trainer(alone.collect_params(), "sgd", SETTINGS), 0, 1, scale=1)
difference = float(np.nan_to_num(np.abs(weights - expected), nan=1e30).max())
if rank == 0:
    print(json.dumps({"value": difference}), flush=True)
mx.nd.waitall()
if sys.argv[1] == "stock":
    from mxnet.base import _LIB
    sys.stdout.flush()
    _LIB.MXKVStoreFree(store.handle)
    os._exit(0)
gluonzoo.distributed.leave(0)
