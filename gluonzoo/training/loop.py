"""The training loop, explicit: `fit` -> `train_one_epoch` -> `step`; and `evaluate`."""
import collections
import json
import math
import os
import time
from dataclasses import dataclass, field

import mxnet as mx
import numpy as np

from .. import data
from . import checkpoint
from .log import RunLog
from .schedule import learning_rate
from .weights import get_parameters

__all__ = ["TrainingError", "Position", "Run", "fit", "evaluate", "draws_random_numbers"]

#: Updates that may be queued before the loop reads an earlier one's loss: deep enough to never wait, and bounded.
PENDING = 8
BATCH_NORM_STATISTICS = ("running_mean", "running_var")


class TrainingError(RuntimeError):
    """Training cannot go on, for example because the loss is no longer finite."""


@dataclass
class Position:
    """Where a run is: update number, epoch, update within the epoch, and what was seen of the current epoch."""

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    sums: np.ndarray = field(default_factory=lambda: np.zeros(2))
    samples: int = 0
    history: list = field(default_factory=list)

    def as_dict(self):
        """What every worker shares, as JSON can hold it; floats keep every bit."""
        return {"step": self.step, "epoch": self.epoch, "step_in_epoch": self.step_in_epoch, "history": self.history}


def draws_random_numbers(net):
    """Whether a network's forward pass draws random numbers (Dropout and the like); True when that cannot be told."""
    try:
        nodes = json.loads(net(mx.sym.var("data")).tojson())["nodes"]
    except Exception:
        return True
    return any(word in node["op"].lower() for node in nodes for word in ("dropout", "random", "sample_", "shuffle", "rnn"))


class Run:
    """One training run: a network, its trainer and data, and the position in it.

    Args:
        net, trainer, task: network (initialised), `Trainer`, and for example `tasks.Classification()`.
        train_set: (data set, Transform) of `gluonzoo.data`. valid_set: the same for validation, or None.
        config: `TrainConfig`; batch_size, epochs, lr and so on are read from it.
        output: folder for checkpoints and logs, or None for neither.
        model_arguments: keyword arguments of the network's builder, saved so that checkpoints can rebuild it.
    """

    def __init__(self, net, trainer, task, train_set, valid_set, config, output=None, model_arguments=None):
        self.net, self.trainer, self.task, self.config = net, trainer, task, config
        self.train_set, self.valid_set, self.output = train_set, valid_set, output
        self.model_arguments = dict(model_arguments or {})
        self.store = trainer.kvstore
        self.contexts = next(iter(net.collect_params().values())).list_ctx()
        self.position = Position()
        self.batches = data.ShardedBatches(len(train_set[0]), config.batch_size, self.store.rank, self.store.num_workers,
                                           seed=config.seed)
        # Seeding MXNet costs about a millisecond, so networks without random operators go without.
        self._seeds = draws_random_numbers(net)
        # Every worker reports its steps to the launcher; only rank 0 shows and writes anything else.
        self.log = RunLog(output, enabled=self.store.rank == 0)

    @property
    def total_steps(self):
        """Updates of the whole run."""
        return self.config.epochs * len(self.batches)

    # Running statistics differ by worker and device; gradients do not touch them.

    def _statistics(self):
        return {name: parameter for name, parameter in self.net._collect_params_with_prefix().items()
                if name.rpartition(".")[2] in BATCH_NORM_STATISTICS}

    def worker_statistics(self):
        """All workers' and devices' running statistics, (W, D, L), in the order of names; None when there is one of each."""
        statistics = self._statistics()
        # BatchNorm writes them in backward() without telling the engine, so reading alone would not wait for it.
        mx.nd.waitall()
        if not statistics or self.store.num_workers * len(self.contexts) == 1 or self.store.is_async:
            return None
        rows = np.stack([np.concatenate([parameter.list_data()[device].asnumpy().ravel()
                                         for parameter in statistics.values()]) for device in range(len(self.contexts))])
        return self.store.gather(rows)

    def set_statistics(self, rows):
        """Set this worker's running statistics from (D, L), one row a device."""
        for device, row in enumerate(rows):
            start = 0
            for parameter in self._statistics().values():
                size = int(np.prod(parameter.shape))
                parameter.list_data()[device][:] = mx.nd.array(row[start:start + size].reshape(parameter.shape),
                                                               dtype=parameter.dtype)
                start += size
        mx.nd.waitall()

    def average_statistics(self, rows):
        """Set this worker's running statistics to the mean of all workers' and devices' (W, D, L)."""
        if rows is not None:
            mean = rows.astype(np.float64).mean(axis=(0, 1)).astype(rows.dtype)
            self.set_statistics(np.tile(mean, (len(self.contexts), 1)))

    # Checkpoints

    def save_checkpoint(self):
        """Write a checkpoint of this moment; every worker must call it. Returns its path on rank 0, else None."""
        if self.output is None:
            return None
        self.log.heartbeat(f"{self.position.step} saving")
        rows = self.worker_statistics()
        own = None if rows is None else rows[self.store.rank]
        asynchronous = self.store.is_async
        seen = np.array([*self.position.sums, self.position.samples])
        seen = seen[None] if asynchronous else self.store.gather(seen)
        path = None
        if self.store.rank == 0:
            self.average_statistics(rows)
            path = checkpoint.save(
                os.path.join(self.output, "checkpoints"), parameters=get_parameters(self.net),
                optimizer=None if asynchronous else self.trainer.state_dict(),
                workers=None if rows is None else {"statistics": rows},
                write_more=self.trainer.save_server_states if asynchronous else None,
                state={**self.position.as_dict(), "seen": seen.tolist(), "num_workers": self.store.num_workers,
                       "devices": len(self.contexts), "random": "seed, rank and step decide every draw"},
                config={**self.config.as_dict(), "model_arguments": self.model_arguments, **self._data_facts()},
                keep=self.config.keep, best=self._best_checkpoint())
            if own is not None:
                self.set_statistics(own)
        return path

    def _data_facts(self):
        dataset, transform = self.train_set
        return {"classes": list(dataset.classes), "mean": [float(v) for v in dataset.mean],
                "std": [float(v) for v in dataset.std], "input_shape": [int(v) for v in transform.input_shape]}

    def _best_checkpoint(self):
        scored = [record for record in self.position.history if "val_accuracy" in record]
        if not scored:
            return None
        best = max(scored, key=lambda record: record["val_accuracy"])
        return f"step-{best['step']:010d}"

    def restore(self, saved):
        """Continue from a `checkpoint.Checkpoint` whose parameters the network already holds; every worker must call it.

        Raises: checkpoint.CheckpointError when it cannot be continued with this run's workers and batch size.
        """
        state = saved.state
        old_batch, new_batch = saved.config["batch_size"] * state["num_workers"], self.batches.global_batch_size
        seen = state["step_in_epoch"] * old_batch
        if state["step_in_epoch"] and old_batch != new_batch and seen % new_batch:
            raise checkpoint.CheckpointError(
                f"checkpoint {saved.path} is {seen} samples into an epoch at a global batch of {old_batch}; "
                f"that is no whole number of batches of {new_batch} (workers x --batch-size)")
        step = state["step"]
        if old_batch != new_batch:
            step = state["epoch"] * len(self.batches) + seen // new_batch
        here = self.output is not None and os.path.abspath(os.path.join(self.output, "checkpoints"))
        if step < state["step"] and os.path.dirname(os.path.abspath(saved.path)) == here:
            # Checkpoints are ordered by their update; later ones of this run would count as older than this one.
            raise checkpoint.CheckpointError(
                f"checkpoint {saved.path} was written at a global batch of {old_batch}, this run's is {new_batch}; continue "
                f"with --resume {self.output} and another --output")
        if saved.has("optimizer.params"):
            self.trainer.load_state_dict(saved.arrays("optimizer.params"))
        elif self.store.is_async:
            if self.store.rank == 0:
                self.trainer.load_server_states(saved.path)
            self.store.barrier()
        rows = saved.arrays("workers.params").get("statistics")
        if rows is not None and rows.shape[:2] == (self.store.num_workers, len(self.contexts)):
            self.set_statistics(rows[self.store.rank])
        # Each worker's own sums where there are as many workers as before, else all of them on rank 0.
        sums = np.array(state["seen"])
        sums = sums if len(sums) == self.store.num_workers else sums.sum(axis=0, keepdims=True)
        mine = sums[self.store.rank] if self.store.rank < len(sums) else np.zeros(3)
        self.position = Position(step=step, epoch=state["epoch"], step_in_epoch=seen // new_batch,
                                 sums=mine[:2].copy(), samples=int(mine[2]), history=state["history"])
        if not self.store.is_async:
            steps = self.store.all_sum(np.array([self.position.step], dtype=np.float64))[0]
            if steps != self.position.step * self.store.num_workers:
                raise checkpoint.CheckpointError(f"worker {self.store.rank} found the checkpoint {saved.path}, others another "
                                                 "one; all workers must see the same output folder")
        self.log.say(f"resumed from {saved.path}: epoch {self.position.epoch + 1}, update {self.position.step}")


def _device_batches(run, images, labels):
    """Split a worker's batch over its devices: (image, label) arrays, one pair a device that gets samples."""
    pairs = []
    for ctx, part in zip(run.contexts, np.array_split(np.arange(len(images)), len(run.contexts))):
        if len(part):
            rows = slice(part[0], part[-1] + 1)
            pairs.append((mx.nd.array(images[rows], ctx=ctx), mx.nd.array(labels[rows], ctx=ctx, dtype=labels.dtype)))
    return pairs


def step(run, images, labels):
    """One update from this worker's part of a batch: forward, backward, sum over devices and workers, optimizer.

    Returns: [(losses, outputs, labels)] per device and accumulation part; the arrays may still be computing.
    """
    results = []
    if run._seeds:
        position, store = run.position, run.store
        mx.random.seed((run.config.seed * 1000003 + position.step * 8191 + store.rank * 127 + 1) % (2**31))
    for part in np.array_split(np.arange(len(images)), run.config.accumulate):
        pairs = _device_batches(run, images[part[0]:part[-1] + 1], labels[part[0]:part[-1] + 1]) if len(part) else []
        heads = []
        with mx.autograd.record():
            for image, label in pairs:
                losses, outputs = run.task.forward(run.net, image, label)
                heads.extend(losses.values())
                results.append((losses, outputs, label))
        if heads:
            mx.autograd.backward(heads)
        if len(pairs) < len(run.contexts):
            _clear_idle_devices(run, len(pairs))
        run.trainer.step(len(part))
    return results


def _clear_idle_devices(run, busy):
    """A device without samples still holds its last gradients; they must not be summed again."""
    if run.config.accumulate > 1:
        return  # With grad_req "add" the trainer zeroes all gradients after each update, so nothing stale is there.
    for parameter in run.net.collect_params().values():
        if parameter.grad_req != "null":
            for gradient in parameter.list_grad()[busy:]:
                gradient[:] = 0


def train_one_epoch(run, loader):
    """Run the rest of the current epoch. Returns the epoch's record of losses, metric and speed."""
    config, position, task = run.config, run.position, run.task
    pending = collections.deque()
    begun, images_here = time.monotonic(), 0

    def settle(limit):
        while len(pending) > limit:
            number, results = pending.popleft()
            for losses, outputs, labels in results:
                position.sums += task.score(losses, outputs, labels.asnumpy())
                position.samples += len(labels)
            if not math.isfinite(position.sums[0]):
                raise TrainingError(f"the loss at update {number} is not finite; the last checkpoint is from before it: "
                                    "lower --lr, or use --clip-norm")

    for batch, images, labels in loader:
        run.trainer.set_learning_rate(learning_rate(
            position.step, run.total_steps, config.lr, config.schedule, config.milestones,
            round(config.warmup_epochs * len(run.batches))))
        pending.append((position.step, step(run, images, labels)))
        position.step += 1
        position.step_in_epoch += 1
        images_here += batch.total
        settle(PENDING)
        loss, metric = position.sums / position.samples if position.samples else (None, None)
        run.log.step(position.epoch, position.step, position.step_in_epoch, loss, (task.metric, metric),
                     run.trainer.learning_rate, images_here / (time.monotonic() - begun))
        if config.checkpoint_every and position.step % config.checkpoint_every == 0 \
                and position.step_in_epoch < len(run.batches):
            settle(0)
            run.save_checkpoint()
    settle(0)
    sums = np.array([*position.sums, position.samples])
    if not run.store.is_async:
        sums = run.store.all_sum(sums)
    seconds = time.monotonic() - begun
    return {"epoch": position.epoch, "step": position.step, "train_loss": sums[0] / max(sums[2], 1),
            f"train_{task.metric}": sums[1] / max(sums[2], 1), "lr": run.trainer.learning_rate,
            "images_per_second": images_here / max(seconds, 1e-9), "seconds": seconds}


def evaluate(net, task, dataset, transform, batch_size, store=None, contexts=None, beat=None):
    """Mean loss and metric over a data set, each worker running its share; every worker must call it.

    Args: beat: called with the number of samples run so far, after every batch.
    Returns: {"loss", the task's metric, "samples"}, the same on every worker.
    """
    rank, workers = (store.rank, store.num_workers) if store is not None and not store.is_async else (0, 1)
    contexts = contexts or next(iter(net.collect_params().values())).list_ctx()[:1]
    batches = data.ShardedBatches(len(dataset), batch_size, rank, workers, shuffle=False)
    sums, pending = np.zeros(3), collections.deque()
    mx.nd.waitall()  # For the running statistics of a backward pass that is still running.
    with data.Loader(dataset, batches, transform, epoch=0) as loader:
        for _, images, labels in loader:
            if len(labels):
                image = mx.nd.array(images, ctx=contexts[0])
                losses, outputs = task.forward(net, image, mx.nd.array(labels, ctx=contexts[0], dtype=labels.dtype))
                pending.append((losses, outputs, labels))
            while len(pending) > 2:
                losses, outputs, truth = pending.popleft()
                sums += [*task.score(losses, outputs, truth), len(truth)]
            if beat is not None:
                beat(int(sums[2]))
    for losses, outputs, truth in pending:
        sums += [*task.score(losses, outputs, truth), len(truth)]
    if store is not None and not store.is_async:
        sums = store.all_sum(sums)
    return {"loss": sums[0] / max(sums[2], 1), task.metric: sums[1] / max(sums[2], 1), "samples": int(sums[2])}


def _validate(run):
    """Validate with running statistics averaged over workers and devices, then put this worker's own back."""
    def beat(samples=0):
        # A long validation is progress too: the launcher watches for changes.
        run.log.heartbeat(f"{run.position.step} validating {samples}")

    beat()
    if run.store.is_async and run.store.rank != 0:
        return {}
    rows = run.worker_statistics()
    run.average_statistics(rows)
    result = evaluate(run.net, run.task, *run.valid_set, max(run.config.batch_size, 64), run.store, beat=beat)
    if rows is not None:
        run.set_statistics(rows[run.store.rank])
    return {"val_loss": result["loss"], f"val_{run.task.metric}": result[run.task.metric]}


def fit(run):
    """Train from the run's position to its last epoch; checkpoint at the end of every epoch.

    Returns: the history, a list of records, one an epoch. At the end every worker holds the same parameters, with
    running statistics averaged over workers and devices.
    """
    position, config = run.position, run.config
    dataset, transform = run.train_set
    try:
        while position.epoch < config.epochs:
            run.log.start_epoch(position.epoch, config.epochs, len(run.batches), position.step_in_epoch)
            with data.Loader(dataset, run.batches, transform, epoch=position.epoch, start=position.step_in_epoch) as loader:
                record = train_one_epoch(run, loader)
            last = position.epoch + 1 == config.epochs
            if run.valid_set is not None and (last or (position.epoch + 1) % config.validate_every == 0):
                record.update(_validate(run))
            position.history.append(record)
            run.log.end_epoch(record)
            position.epoch, position.step_in_epoch = position.epoch + 1, 0
            position.sums, position.samples = np.zeros(2), 0
            run.save_checkpoint()
        run.average_statistics(run.worker_statistics())
    finally:
        run.log.close()
    return position.history
