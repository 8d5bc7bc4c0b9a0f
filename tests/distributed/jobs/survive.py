"""A real run to which things happen. Argument: a JSON object; all but settings may be left out:

settings: of the run, on top of the ones below; resume: as for `train`; samples, valid_samples: cut the data to so many;
stop: [[rank, update], ...], where SIGUSR1 arrives; die: [[rank, update], ...], where SIGKILL does, in the first attempt only;
die_in: a moment of start or save at which rank 0 is killed in the first attempt; nan: [[rank, update], ...], whose images are
not finite; slow: [rank, seconds], who sleeps before every update; job_workers: what the launcher would say the job was asked for.
"""
import hashlib
import json
import os
import signal
import sys
import time

from common import report
from gluonzoo import errors
from gluonzoo.training import checkpoint, loop, run

import networks  # noqa: F401
import numpy as np

wishes = json.loads(sys.argv[1])
first_attempt = os.environ.get("GLUONZOO_RESTART", "0") == "0"
settings = {"model": "plain_test_net", "dataset": "digits", "epochs": 2, "batch_size": 48, "optimizer": "sgd", "lr": 0.05,
            "augment": "crop+flip", "seed": 5, "kvstore": "dist_sync", "warmup_epochs": 0.5, **wishes["settings"]}
here = []


def dies(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def dying(honest, number):
    """The function, but its number-th call on rank 0 kills the process."""
    calls = [0]

    def either(*arguments, **more):
        calls[0] += bool(here) and here[0].store.rank == 0
        return dies() if calls[0] == number else honest(*arguments, **more)
    return either


moment = wishes.get("die_in") if first_attempt else None
if moment == "import" and os.environ["GLUONZOO_ROLE_INDEX"] == "0":
    dies()
elif moment == "arrays":
    checkpoint.arrays.save = dying(checkpoint.arrays.save, 4)  # in the second checkpoint, before its optimizer's state
elif moment == "verify":
    checkpoint.verify = dying(checkpoint.verify, 2)
elif moment in ("rename", "removal"):
    os.rename = dying(os.rename, 2 if moment == "rename" else 3)  # arrays are moved by os.replace

if "job_workers" in wishes:
    os.environ["GLUONZOO_JOB_WORKERS"] = str(wishes["job_workers"])
config, saved = run.settings(settings, wishes.get("resume", False))
honest_step, honest_load = loop.step, run.data.load


def load(*arguments, train, **more):
    dataset = honest_load(*arguments, train=train, **more)
    count = wishes.get("samples" if train else "valid_samples")
    dataset.labels, dataset.data = dataset.labels[:count], dataset.data[:count]
    return dataset


def step(this, images, labels):
    me = [this.store.rank, this.position.step]
    if first_attempt and me in wishes.get("die", []):
        dies()
    if me in wishes.get("stop", []):
        os.kill(os.getpid(), signal.SIGUSR1)
    if me in wishes.get("nan", []):
        images = np.full_like(images, np.nan)
    if wishes.get("slow", [None])[0] == this.store.rank:
        time.sleep(wishes["slow"][1])
    return honest_step(this, images, labels)


def main():
    loop.step, run.data.load = step, load
    prepared = run.prepare(config, saved)
    here.append(prepared)
    if moment == "prepare" and prepared.store.rank == 0:
        dies()
    with prepared.stop.on_signals():
        history = loop.fit(prepared)
    parameters = {name: parameter.list_data()[0].asnumpy() for name, parameter in
                  prepared.net._collect_params_with_prefix().items()}
    np.savez(os.path.join(config.output, f"final-{prepared.store.rank}.npz"), **parameters)
    report(prepared.store.rank, resumed_at=saved.state["step"] if saved else None, history=history, stopped=prepared.stopped,
           update=prepared.position.step, digests={name: hashlib.sha256(value.tobytes()).hexdigest()
                                                   for name, value in parameters.items()})


errors.run(main)
