"""A convolutional network that has run inference, whose weights oneDNN has reordered in place, before and between updates.

Argument: kvstore.
"""
import sys

import gluonzoo.distributed
from common import digest, report
from gluonzoo.training import Trainer

import mxnet as mx
import numpy as np

store = gluonzoo.distributed.create(sys.argv[1])
mx.random.seed(store.rank)
net = gluonzoo.get_model("cifar_resnet20_v1_b")
net.initialize()
net.hybridize(static_alloc=True, static_shape=True)
images = mx.nd.array(np.random.RandomState(0).rand(4, 3, 32, 32))
outputs = [net(images).asnumpy()]
trainer = Trainer(net, "sgd", {"learning_rate": 0.01}, kvstore=store)
for _ in range(4):
    with mx.autograd.record():
        loss = net(images).square().sum(axis=1)
    loss.backward()
    trainer.step(4)
    mx.nd.waitall()
    outputs.append(net(images).asnumpy())
report(store.rank, digest=digest(net), finite=all(bool(np.isfinite(output).all()) for output in outputs),
       moved=float(abs(outputs[-1] - outputs[1]).max()))
gluonzoo.distributed.leave(0)
