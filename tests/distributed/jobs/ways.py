"""Real runs on digits, one after the other in one job, each described by a JSON object of settings on top of the ones below.

Argument: a JSON list of {name: settings}; a setting "resume_from" (an update) continues an earlier run, named "of", from its
checkpoint there. Reports {name: validation accuracy, way, digest of the parameters, learning rate of the first update}.
"""
import hashlib
import json
import os
import sys

import gluonzoo.distributed
from common import report
from gluonzoo.training import checkpoint, loop, run

import networks  # noqa: F401

store = gluonzoo.distributed.create("dist_sync")
run.kvstores.create = lambda kind: store
base = {"model": "plain_test_net", "dataset": "digits", "epochs": 2, "batch_size": 32, "lr": 0.05, "seed": 5,
        "kvstore": "dist_sync", "augment": "none"}
results = {}
for name, more in json.loads(sys.argv[1]).items():
    start, of = more.pop("resume_from", None), more.pop("of", None)
    wanted = {**base, "output": os.path.join(os.environ["GLUONZOO_TEST_REPORTS"], name), "keep": 100, **more}
    saved = None
    if start is not None:
        saved = checkpoint.load(os.path.join(os.environ["GLUONZOO_TEST_REPORTS"], of, "checkpoints", f"step-{start:010d}"))
    prepared = run.prepare(run.configs.build(wanted), saved)
    history = loop.fit(prepared)
    digest = hashlib.sha256()
    for parameter in prepared.net._collect_params_with_prefix().values():
        digest.update(parameter.list_data()[0].asnumpy().tobytes())
    results[name] = {"accuracy": history[-1]["val_accuracy"], "way": type(prepared.trainer._exchange).__name__,
                     "digest": digest.hexdigest(), "rate": history[0]["lr"], "peak": prepared.peak_rate}
    store.barrier()
report(store.rank, **results)
gluonzoo.distributed.leave(0)
