"""The training loop, explicit: `fit` -> `train_one_epoch` -> `step`; and `evaluate`."""
import collections
import functools
import math
import time

import mxnet as mx
import numpy as np

from .. import data
from . import rates
from .session import Position, Run, TrainingError, draws_random_numbers

__all__ = ["TrainingError", "Position", "Run", "fit", "evaluate", "draws_random_numbers"]

#: Updates in a row that ``on_nan="skip"`` leaves out before the run stops.
LEFT_OUT_LIMIT = 10

#: Updates that may be queued before the loop reads an earlier one's loss: deep enough to never wait, and bounded.
PENDING = 8


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
    results, scale = [], run.trainer.loss_scaler and run.trainer.loss_scaler.scale
    if run._seeds:
        position, store = run.position, run.store
        mx.random.seed((run.config.seed * 1000003 + position.step * 8191 + store.rank * 127 + 1) % (2**31))
    for part in np.array_split(np.arange(len(images)), run.trainer.accumulate):
        pairs = _device_batches(run, images[part[0]:part[-1] + 1], labels[part[0]:part[-1] + 1]) if len(part) else []
        heads = []
        if run.sync is not None:
            run.sync.begin(len(pairs))
        with mx.autograd.record():
            for image, label in pairs:
                losses, outputs = run.task.forward(run.recomputed or run.net, image, label)
                heads.extend(losses.values() if scale is None else [loss * scale for loss in losses.values()])
                results.append((losses, outputs, label))
        if heads:
            mx.autograd.backward(heads)
            if run.recomputed is not None:
                run.recomputed.backward()
        if len(pairs) < len(run.contexts):
            _clear_idle_devices(run, len(pairs))
        if run.sync is not None:
            run.sync.end(len(pairs))
        run.trainer.step(len(part), vote=run.stop.asked)
    return results


def _step_or_none(run, images, labels):
    """`step`; when the trainer left the update out, its results and running statistics do not count and None is returned.

    Raises: TrainingError, on all workers alike, when too many updates in a row were left out.
    """
    scaler = run.trainer.loss_scaler
    if run.config.on_nan == "stop" and scaler is None:
        return step(run, images, labels)
    before = run.statistics()
    results = step(run, images, labels)
    if not run.trainer.left_out:
        run.left_out_in_a_row = 0
        return results
    if before is not None:
        run.set_statistics(before)
    run.left_out_in_a_row += 1
    run.position.left_out += 1
    run.log.say(f"update {run.position.step} left out: its gradient is not finite ({run.left_out_in_a_row} in a row"
                + (f"; loss scale {scaler.scale:g})" if scaler else ")"))
    # A loss scale needs some updates to find its size: from 2^24 to 1 it is halved 24 times.
    limit = LEFT_OUT_LIMIT + 24 if scaler else LEFT_OUT_LIMIT
    if run.left_out_in_a_row >= limit:
        raise TrainingError(f"{limit} updates in a row had gradients that are not finite: lower --lr or use --clip-norm")
    return None


def _clear_idle_devices(run, busy):
    """A device without samples still holds its last gradients; they must not be summed again."""
    if run.trainer.accumulate > 1:
        return  # With grad_req "add" the trainer zeroes all gradients after each update, so nothing stale is there.
    for parameter in run.net.collect_params().values():
        if parameter.grad_req != "null":
            for gradient in parameter.list_grad()[busy:]:
                gradient[:] = 0


def train_one_epoch(run, loader):
    """Run the rest of the current epoch.

    Returns: the epoch's record of losses, metric, speed and the share of its time spent waiting for data; None when the run
        stops before the epoch is over, as it was asked to. A checkpoint has then been written.
    """
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
                                    "lower --lr, or use --clip-norm or --on-nan skip")

    for batch, images, labels in loader:
        rates.set_for(run, position.step)
        run.prune()
        results = _step_or_none(run, images, labels)
        if run.ema is not None and not run.trainer.left_out:
            run.ema.update(run.statistics())
        if results is not None:
            pending.append((position.step, results))
        if run.samples is not None:
            run.samples.write(position.step, position.epoch, position.step_in_epoch, batch.indices, results is None)
        run.agreement.note()
        position.step += 1
        position.step_in_epoch += 1
        images_here += batch.total
        settle(PENDING)
        loss, metric = position.sums / position.samples if position.samples else (None, None)
        run.log.step(position.epoch, position.step, position.step_in_epoch, loss, (task.metric, metric),
                     run.trainer.learning_rate, images_here / (time.monotonic() - begun))
        stop = run.agreement.reached()
        if stop or (config.checkpoint_every and position.step % config.checkpoint_every == 0
                    and position.step_in_epoch < len(run.batches)):
            settle(0)
            run.save_checkpoint()
            if stop or run.all_stop:
                return None
    settle(0)
    if run.agreement.reached(0):
        run.save_checkpoint()
        return None
    sums = np.array([*position.sums, position.samples])
    if not run.store.is_async:
        sums = run.store.all_sum(sums)
    seconds = time.monotonic() - begun
    return {"epoch": position.epoch, "step": position.step, "train_loss": sums[0] / max(sums[2], 1),
            f"train_{task.metric}": sums[1] / max(sums[2], 1), "lr": rates.rate_of(run, max(position.step - 1, 0)),
            "images_per_second": images_here / max(seconds, 1e-9), "seconds": seconds,
            "data_wait": loader.waited / max(seconds, 1e-9),
            **({"left_out": position.left_out} if position.left_out else {}),
            **({"sparsity": run.pruner.sparsity()} if run.pruner else {})}


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
    """Validate with running statistics averaged over workers and devices, then put this worker's own back.

    Where the run keeps a moving average of the weights, that is what counts; the weights' own figures are "val_raw_...".
    """
    def beat(samples=0):
        # A long validation is progress too: the launcher watches for changes.
        run.log.heartbeat(f"{run.position.step} validating {samples}")

    beat()
    if run.store.is_async and run.store.rank != 0:
        return {}
    rows = run.worker_statistics()
    run.average_statistics(rows)
    measure = functools.partial(evaluate, run.net, run.task, *run.valid_set, max(run.config.batch_size, 64), run.store, beat=beat)
    raw = result = measure()
    if rows is not None:
        run.set_statistics(rows[run.store.rank])
    if run.ema is not None:
        with run.averaged_weights():
            result = measure()
    record = {"val_loss": result["loss"], f"val_{run.task.metric}": result[run.task.metric]}
    if run.ema is not None:
        record.update({"val_raw_loss": raw["loss"], f"val_raw_{run.task.metric}": raw[run.task.metric]})
    return record


def fit(run):
    """Train from the run's position to its last epoch; checkpoint at the end of every epoch.

    When `run.stop` is asked to, by a signal or by its `ask`, on any worker of a synchronous job, all workers stop after the
    same update, a checkpoint is written and `run.stopped` is set.

    Returns: the history, a list of records, one an epoch. At the end every worker holds the same parameters, with
    running statistics averaged over workers and devices.
    """
    position, config = run.position, run.config
    dataset, transform = run.train_set
    if run.trainer.constraint is None:
        run.constrain()
    try:
        run.open_sample_log()
        run.log.begin_board(run)
        while position.epoch < config.epochs:
            run.log.start_epoch(position.epoch, config.epochs, len(run.batches), position.step_in_epoch)
            with data.Loader(dataset, run.batches, transform, epoch=position.epoch, start=position.step_in_epoch) as loader:
                record = train_one_epoch(run, loader)
            if record is None:
                run.stopped = True
                return position.history
            run.trainer.synchronize()
            last = position.epoch + 1 == config.epochs
            if run.valid_set is not None and (last or (position.epoch + 1) % config.validate_every == 0):
                record.update(_validate(run))
            position.history.append(record)
            run.log.end_epoch(record, position.history)
            run.log.epoch_board(run, position.epoch)
            position.epoch, position.step_in_epoch = position.epoch + 1, 0
            position.sums, position.samples, position.left_out = np.zeros(2), 0, 0
            run.save_checkpoint()
            if run.all_stop and position.epoch < config.epochs:
                run.stopped = True
                return position.history
        run.average_statistics(run.worker_statistics())
    finally:
        run.close()
    return position.history
