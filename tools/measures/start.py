"""Start, train a few updates, end: for jobs of very many workers. Argument: a JSON object: model, size, batch, steps.

Rank 0 prints seconds from its launcher's start, and the memory of all processes of the job (RSS, and PSS, in which what is
shared counts in parts), in MB.
"""
import json
import os
import statistics
import sys

import gluonzoo
from gluonzoo import distributed
from gluonzoo.training import Trainer

import mxnet as mx

wishes = json.loads(sys.argv[1])


def since_start(pid):
    """Seconds since a process was started."""
    with open(f"/proc/{pid}/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    with open("/proc/uptime") as file:
        return float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def memory():
    """{role: [(RSS, PSS) in MB]} of this process's siblings."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) != os.getppid():
                    continue
            with open(f"/proc/{entry}/environ", "rb") as file:
                role = dict(pair.partition(b"=")[::2] for pair in file.read().split(b"\0")).get(b"DMLC_ROLE", b"").decode()
            with open(f"/proc/{entry}/smaps_rollup") as file:
                sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in file if line.startswith(("Rss", "Pss:"))}
        except OSError:
            continue
        found.setdefault(role, []).append((sizes["Rss"], sizes["Pss"]))
    return found


net = gluonzoo.get_model(wishes["model"])
net.initialize()
net.hybridize(static_alloc=True, static_shape=True)
store = distributed.create("dist_sync")
joined = since_start(os.getppid())
trainer = Trainer(net, "sgd", {"learning_rate": 0.01}, kvstore=store)
channels = gluonzoo.model_spec(wishes["model"]).input_shape[0]
images = mx.nd.random.uniform(shape=(wishes["batch"], channels, wishes["size"], wishes["size"]))
times = []
for _ in range(wishes["steps"]):
    with mx.autograd.record():
        loss = net(images).sum(axis=1)
    loss.backward()
    trainer.step(wishes["batch"])
    mx.nd.waitall()
    times.append(since_start(os.getppid()))
store.barrier()
if store.rank == 0:
    used = memory()
    print(json.dumps({"all joined, s": round(joined, 1), "first update, s": round(times[0], 1),
                      "last update, s": round(times[-1], 1),
                      **{f"{role}: RSS, PSS, MB": [round(statistics.median(column)) for column in zip(*values)]
                         for role, values in sorted(used.items())}}), flush=True)
store.barrier()
distributed.leave(0)
