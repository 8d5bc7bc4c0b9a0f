"""What the test jobs share: a small network, its data, and reports back to the test."""
import hashlib
import json
import os

import gluonzoo  # noqa: F401  (before mxnet)

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon


def report(rank, **values):
    """Hand values to the test that started this job."""
    path = os.path.join(os.environ["GLUONZOO_TEST_REPORTS"], f"report-{rank}.json")
    with open(path + ".tmp", "w") as file:
        json.dump(values, file)
    os.replace(path + ".tmp", path)


def make_net(seed):
    mx.random.seed(seed)
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Dense(32, in_units=16, activation="tanh"), gluon.nn.Dense(8, in_units=32))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    return net


def batch(step, size):
    random = np.random.RandomState(1000 + step)
    return random.randn(size, 16).astype("float32"), random.randn(size, 8).astype("float32")


def train(net, trainer, rank, workers, steps, size, first=0):
    """Steps over batches of `size` samples, this worker taking every workers-th; it may get none."""
    loss = gluon.loss.L2Loss()
    for number in range(first, first + steps):
        images, labels = batch(number, size)
        images, labels = images[rank::workers], labels[rank::workers]
        if len(images):
            with autograd.record():
                value = loss(net(mx.nd.array(images)), mx.nd.array(labels))
            value.backward()
        trainer.step(len(images))


def flat(net):
    return np.concatenate([p.data().asnumpy().ravel() for p in net._collect_params_with_prefix().values()])


def digest(net):
    return hashlib.sha256(flat(net).tobytes()).hexdigest()
