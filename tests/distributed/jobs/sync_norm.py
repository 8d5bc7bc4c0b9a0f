"""SyncBatchNorm over workers against one process with the whole batch. Arguments: sizes of the batches, with commas."""
import sys

import gluonzoo.distributed
from common import report
from gluonzoo.layers import VectorBatchNorm, sync_batch_norm
from gluonzoo.training import Trainer

import mxnet as mx
import numpy as np

sizes = [int(size) for size in sys.argv[1].split(",")]


def make_net():
    mx.random.seed(3)
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Conv2D(4, 3, in_channels=3), mx.gluon.nn.BatchNorm(in_channels=4), mx.gluon.nn.Activation("relu"),
            mx.gluon.nn.Conv2D(6, 3, in_channels=4), mx.gluon.nn.BatchNorm(in_channels=6, scale=False),
            mx.gluon.nn.Flatten(), mx.gluon.nn.Dense(5, in_units=54), VectorBatchNorm(in_channels=5),
            mx.gluon.nn.Dense(2, in_units=5))
    net.initialize(mx.init.Xavier())
    for name, parameter in net._collect_params_with_prefix().items():
        if name.endswith(("gamma", "beta")) and parameter.grad_req != "null":
            parameter.set_data(1 + 0.5 * mx.nd.random.normal(shape=parameter.shape))
    return net


def values(net):
    mx.nd.waitall()
    return {name: parameter.data().asnumpy() for name, parameter in net._collect_params_with_prefix().items()}


def step(net, trainer, images, group=None):
    """One update; the outputs, and the gradients as the trainer has summed them over workers."""
    outputs = np.zeros((0, 2), dtype="float32")
    if group is not None:
        group.begin(min(len(images), 1))
    if len(images):
        with mx.autograd.record():
            result = net(mx.nd.array(images))
            loss = mx.nd.sum(mx.nd.sin(result), axis=1)
        loss.backward()
        outputs = result.asnumpy()
    if group is not None:
        group.end(min(len(images), 1))
    trainer.step(len(images))
    return outputs


store = gluonzoo.distributed.create("dist_sync")
alone, shared = make_net(), make_net()
group = sync_batch_norm(shared)
trainers = [Trainer(alone, "sgd", {"learning_rate": 0.05}),
            Trainer(shared, "sgd", {"learning_rate": 0.05}, kvstore=store)]
for net in (alone, shared):
    net.hybridize(static_alloc=True, static_shape=True)
random, worst = np.random.RandomState(0), {"output": 0.0, "parameter": 0.0, "inference": 0.0}
for size in sizes:
    images = (5 + random.randn(size, 3, 7, 7)).astype("float32")
    first, last = size * store.rank // store.num_workers, size * (store.rank + 1) // store.num_workers
    expected = step(alone, trainers[0], images)
    found = step(shared, trainers[1], images[first:last], group)
    if len(found):
        worst["output"] = max(worst["output"], float(np.abs(found - expected[first:last]).max()))
    one, other = values(alone), values(shared)
    worst["parameter"] = max([worst["parameter"]] + [float(np.abs(one[name] - other[name]).max()) for name in one])
images = mx.nd.array(5 + random.randn(3, 3, 7, 7))
worst["inference"] = float(np.abs(alone(images).asnumpy() - shared(images).asnumpy()).max())
plain = make_net()
own = sum(float(np.abs(values(plain)[name] - values(shared)[name]).sum()) for name in values(plain))
report(store.rank, worst=worst, moved=own, kinds=[type(layer).__name__ for layer in shared],
       memory=group.sums._memory is not None)
gluonzoo.distributed.leave(0)
