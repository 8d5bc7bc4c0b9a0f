"""Training of one network with one engine in this process, data made beforehand. Argument: a JSON object.

engine: stock (MXNet as it comes, gluon.Trainer), stock-omp (told to use all processors), mxnet (with gluonzoo's threads),
gluonzoo, recompute (gluonzoo, in `segments` that are computed again); model; batches: list of numbers; size: height and width,
or null for the own; seconds: of measuring each batch; threads.
A line for each batch: see `speed.report`.
"""
import json
import os
import sys

from speed import begin, mark, report, rounds

wishes = begin({"size": None, "seconds": 5.0, "segments": 4, **json.loads(sys.argv[1])})

import gluonzoo  # noqa: E402 - after what makes MXNet the stock one.

import mxnet as mx  # noqa: E402
import numpy as np  # noqa: E402

spec = gluonzoo.model_spec(wishes["model"])
size = wishes["size"] or spec.input_shape[1]
mx.random.seed(0)
mark()
net = gluonzoo.get_model(wishes["model"])
net.initialize(mx.init.Xavier())
net.hybridize(static_alloc=True, static_shape=True)
settings = {"learning_rate": 0.001, "momentum": 0.9}
forward = net
if wishes["engine"] in ("gluonzoo", "recompute"):
    from gluonzoo.training import Recomputed, Trainer
    forward = Recomputed(net, wishes["segments"]) if wishes["engine"] == "recompute" else net
    trainer = Trainer(net, "sgd", settings)
else:
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", settings)
loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()

def measure(batch):
    random = np.random.RandomState(0)
    images = mx.nd.array(random.rand(batch, spec.input_shape[0], size, size))
    labels = mx.nd.array(random.randint(0, 1000, batch))

    def step():
        with mx.autograd.record():
            loss = loss_of(forward(images), labels)
        loss.backward()
        if forward is not net:
            forward.backward()
        trainer.step(batch)
        mx.nd.waitall()

    report(batch, rounds(step, wishes["seconds"], least=3))


for batch in wishes["batches"]:
    measure(batch)
sys.stdout.flush()
os._exit(0)
