"""Milliseconds of one push and pull of an array by all workers. Argument: a JSON object.

sizes: bytes of the float32 array, a list; compression: none, 2bit, fp16 (packing and unpacking are timed too), or memory (the
memory that workers of one host share); seconds: of measuring each size. Prints a JSON object a size.
"""
import json
import sys
import time

from gluonzoo import distributed
from gluonzoo.distributed import shared
from gluonzoo.training.compression import Half, TwoBit

import mxnet as mx
import numpy as np

wishes = {"compression": "none", "seconds": 1.0, **json.loads(sys.argv[1])}
store = distributed.create("dist_sync")


def through_servers(elements):
    array, ctx = mx.nd.ones((elements,)), mx.cpu()
    codec = {"none": lambda: None, "2bit": lambda: TwoBit(elements, store.num_workers, 0.5, ctx),
             "fp16": lambda: Half(elements, ctx)}[wishes["compression"]]()
    key, sent = store.allocate(1), array if codec is None else codec.packed
    store.broadcast({key: [sent]})

    def once():
        if codec is not None:
            codec.pack(array)
        store.push_pull(key, [sent])
        if codec is not None:
            codec.unpack(array)
        mx.nd.waitall()
    return once


def through_memory(elements):
    memory = shared.open_memory(store, elements, 1)
    if memory is None:
        raise SystemExit("the workers share no memory: they are on several hosts, or there is only one")
    memory.mine[:] = 1

    def once():
        memory.ready(0)
        memory.add(0, 0, elements - 1, 1, divisor=elements - 1)
        memory.meet()
    return once


for size in wishes["sizes"]:
    once = (through_memory if wishes["compression"] == "memory" else through_servers)(size // 4)
    for _ in range(2):
        begun = time.perf_counter()
        once()
    # Rank 0 decides how often, because all must do the same.
    guess = store.gather(np.array([time.perf_counter() - begun]))[0][0]
    times = []
    for _ in range(max(3, min(300, int(wishes["seconds"] / max(guess, 1e-4))))):
        begun = time.perf_counter()
        once()
        times.append(time.perf_counter() - begun)
    middle = sorted(times)[len(times) // 2]
    if store.rank == 0:
        print(json.dumps({"bytes": size, "ms": middle * 1000, "lowest_ms": min(times) * 1000, "MB_per_s": size / middle / 1e6,
                          "times": len(times)}), flush=True)
distributed.leave(0)
