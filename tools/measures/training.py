"""Images a second of a network's training over all workers, data made beforehand. Argument: a JSON object.

model, size, batch (of each worker), steps, warmup: what is run; classes: of the network; kvstore: its kind; trainer: more
arguments of `Trainer`; overlap: false to send no gradient before the backward pass is over.
The last line: value (images a second), ms (a step, the median over 5 pieces), cpu (processor milliseconds an image over all roles
of the job, or of this process), roles (processor milliseconds a step by role).
"""
import json
import os
import sys
import time

import gluonzoo
from gluonzoo import distributed
from gluonzoo.training import Trainer

import mxnet as mx
import numpy as np

wishes = {"kvstore": "device", "steps": 20, "warmup": 3, "size": 224, "classes": 1000, "trainer": {}, "overlap": True,
          **json.loads(sys.argv[1])}
kind, batch = wishes["kvstore"], wishes["batch"]
TICK = os.sysconf("SC_CLK_TCK")


def processes():
    """{role: processor seconds} of this job on this machine: this process and, under a launcher, its siblings."""
    if not kind.startswith("dist"):
        return {"process": time.process_time()}
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            if int(fields[1]) != os.getppid():
                continue
            with open(f"/proc/{entry}/environ", "rb") as file:
                environ = dict(pair.partition(b"=")[::2] for pair in file.read().split(b"\0"))
        except OSError:
            continue
        role = f"{environ.get(b'DMLC_ROLE', b'?').decode()} {environ.get(b'GLUONZOO_ROLE_INDEX', b'').decode()}".strip()
        found[role] = (int(fields[11]) + int(fields[12])) / TICK
    return found


def build():
    mx.random.seed(1)
    spec = gluonzoo.model_spec(wishes["model"])
    shape = (spec.input_shape[0], wishes["size"], wishes["size"])
    net = gluonzoo.get_model(wishes["model"], classes=wishes["classes"])
    net.initialize(mx.init.Xavier())
    net.hybridize(static_alloc=True, static_shape=True)
    store = distributed.create(kind)
    random = np.random.RandomState(store.rank)
    images = mx.nd.array(random.randn(batch, *shape), dtype="float32")
    labels = mx.nd.array(random.randint(0, wishes["classes"], batch), dtype="float32")
    net(images[:1]).wait_to_read()
    trainer = Trainer(net, "sgd", {"learning_rate": 0.001, "momentum": 0.9}, kvstore=store, **wishes["trainer"])
    return net, images, labels, store, trainer


def main():
    net, images, labels, store, trainer = build()
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()

    def run(steps):
        for _ in range(steps):
            with mx.autograd.record():
                value = loss(net(images), labels)
            value.backward()
            if not wishes["overlap"]:
                mx.nd.waitall()
            trainer.step(batch)
        mx.nd.waitall()

    run(wishes["warmup"])
    store.barrier()
    pieces = min(5, wishes["steps"])
    before, times = processes(), []
    for piece in range(pieces):
        begun, steps = time.perf_counter(), (wishes["steps"] + piece) // pieces
        run(steps)
        times.append((time.perf_counter() - begun) / steps)
    store.barrier()
    after, steps = processes(), sum((wishes["steps"] + piece) // pieces for piece in range(pieces))
    roles = {role: (after[role] - before.get(role, 0)) * 1000 / steps for role in after}
    middle, many = sorted(times)[len(times) // 2], batch * store.num_workers
    if store.rank == 0:
        print(json.dumps({"value": many / middle, "ms": middle * 1000, "cpu": sum(roles.values()) / many,
                          "roles": {role: round(value, 2) for role, value in sorted(roles.items())}}), flush=True)


main()
distributed.leave(0)
