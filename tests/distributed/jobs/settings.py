"""Clipping and accumulation against one worker; an update left out in every way; two devices a worker with compression."""
import gluonzoo.distributed
from common import digest, flat, make_net, report, train
from gluonzoo.training import Trainer

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

store = gluonzoo.distributed.create("dist_sync")
SETTINGS = {"learning_rate": 0.05, "momentum": 0.9}


def difference(**more):
    net = make_net(seed=3 if store.rank == 0 else 7)
    train(net, Trainer(net, "sgd", SETTINGS, kvstore=store, **more), store.rank, store.num_workers, 20, 12)
    alone = make_net(seed=3)
    train(alone, Trainer(alone, "sgd", SETTINGS, **more), 0, 1, 20, 12)
    return float(abs(flat(net) - flat(alone)).max())


def left_out(compression):
    """An update to which rank 1 has a NaN: whether weights stay, whether training goes on, the weights after it."""
    net = make_net(seed=3)
    trainer = Trainer(net, "sgd", SETTINGS, kvstore=store, on_nan="skip", compression=compression)
    train(net, trainer, store.rank, store.num_workers, 3, 12)
    before = digest(net)
    with autograd.record():
        value = gluon.loss.L2Loss()(net(mx.nd.full((2, 16), np.nan if store.rank else 1.0)), mx.nd.zeros((2, 8)))
    value.backward()
    unchanged = not trainer.step(2) and trainer.left_out and digest(net) == before
    train(net, trainer, store.rank, store.num_workers, 3, 12)
    return bool(unchanged), bool(np.isfinite(flat(net)).all()), digest(net)


def devices():
    net = gluon.nn.Dense(3, in_units=4)
    net.initialize(ctx=[mx.cpu(0), mx.cpu(1)])
    trainer = Trainer(net, "sgd", {"learning_rate": 0.1}, kvstore=store, compression="2bit", compression_threshold=0.01)
    before = net.weight.data(mx.cpu(0)).asnumpy()
    with autograd.record():
        heads = [net(mx.nd.ones((2, 4), ctx=mx.cpu(number))).sum(axis=1) for number in (0, 1)]
    autograd.backward(heads)
    trainer.step(4)
    return [float((net.weight.data(mx.cpu(number)).asnumpy() - before).mean()) for number in (0, 1)]


report(store.rank, differences={name: difference(**more) for name, more in {
    "clip_norm": {"clip_norm": 0.1}, "accumulate": {"accumulate": 2}, "clip_value": {"clip_value": 0.01}}.items()},
    left_out={compression: left_out(compression) for compression in ("none", "2bit", "fp16")}, devices=devices())
gluonzoo.distributed.leave(0)
