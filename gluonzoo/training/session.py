"""A training run: what belongs to it, where it stands, and how it is saved and continued."""
import json
import os
import signal
from dataclasses import dataclass, field

import mxnet as mx
import numpy as np

from .. import data
from ..errors import TrainingError
from ..layers import sync_batch_norm
from . import checkpoint, optimizers
from .constrained import HoldsConstraint
from .ema import WeightAverage
from .log import RunLog
from .recompute import Recomputed
from .samples import SampleLog
from .statistics import HoldsStatistics, mean_row
from .stopping import Agreement, StopRequest
from .weights import get_parameters

__all__ = ["TrainingError", "Position", "Run", "draws_random_numbers", "global_batch", "parts_of_a_batch"]


@dataclass
class Position:
    """Where a run is: update number, epoch, update within the epoch, and what was seen of the current epoch.

    left_out: updates of the current epoch that `on_nan` left out.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    sums: np.ndarray = field(default_factory=lambda: np.zeros(2))
    samples: int = 0
    left_out: int = 0
    history: list = field(default_factory=list)

    def as_dict(self):
        """What every worker shares, as JSON can hold it; floats keep every bit."""
        return {"step": self.step, "epoch": self.epoch, "step_in_epoch": self.step_in_epoch, "left_out": self.left_out,
                "history": self.history}


def draws_random_numbers(net):
    """Whether a network's forward pass draws random numbers (Dropout and the like); True when that cannot be told."""
    try:
        nodes = json.loads(net(mx.sym.var("data")).tojson())["nodes"]
    except Exception:
        return True
    return any(word in node["op"].lower() for node in nodes for word in ("dropout", "random", "sample_", "shuffle", "rnn"))


def global_batch(config, store):
    """Samples of one update over all workers: by the number of workers the job was asked for, however many there are now.

    Workers of a dist_async job make updates of their own, of batch_size samples each.
    """
    return config.batch_size * (store.num_workers if store.is_async else store.job_workers)


def parts_of_a_batch(config, store):
    """In how many parts a worker runs its share of an update, so that none is larger than with all the workers there."""
    share = -(-global_batch(config, store) // store.num_workers)
    if share <= config.batch_size:
        return config.accumulate
    return -(-share // -(-config.batch_size // config.accumulate))


class Run(HoldsStatistics, HoldsConstraint):
    """One training run: a network, its trainer and data, and the position in it.

    Args:
        net, trainer, task: network (initialised), `Trainer`, and for example `tasks.Classification()`.
        train_set: (data set, Transform) of `gluonzoo.data`. valid_set: the same for validation, or None.
        config: `TrainConfig`; batch_size, epochs, lr and so on are read from it.
        output: folder for checkpoints and logs, or None for neither.
        model_arguments: keyword arguments of the network's builder, saved so that checkpoints can rebuild it.
        recipe_values: what `config.recipe` set, saved too.
    Attributes: position; stop, a `StopRequest`; stopped, whether `fit` ended early because of it; ema, a `WeightAverage` or
        None; recomputed, the network in segments (`recompute.Recomputed`) or None; switched, whether `config.switch_to` has
        taken over; pruner, a `Pruner` or None (`constrain`).

    A job that goes on with fewer workers than it was asked for keeps its global batch, batch_size times the number it was
    asked for: each worker then has more samples in an update, which it runs in parts when its trainer accumulates
    (`parts_of_a_batch`). Up to the order of additions that is the same training, but for what sees a part or a worker: the
    statistics that BatchNorm normalises by are those of a part, and Dropout draws other numbers.
    """

    def __init__(self, net, trainer, task, train_set, valid_set, config, output=None, model_arguments=None, recipe_values=None):
        self.net, self.trainer, self.task, self.config = net, trainer, task, config
        self.train_set, self.valid_set, self.output = train_set, valid_set, output
        self.model_arguments, self.recipe_values = dict(model_arguments or {}), dict(recipe_values or {})
        self.store = trainer.kvstore
        self.contexts = next(iter(net.collect_params().values())).list_ctx()
        self.position = Position()
        self.batches = data.ShardedBatches(len(train_set[0]), config.batch_size, self.store.rank, self.store.num_workers,
                                           seed=config.seed, global_batch_size=global_batch(config, self.store),
                                           blocks=getattr(train_set[0], "blocks", None))
        self.stop, self.stopped, self.all_stop = StopRequest(), False, False
        self.agreement = Agreement(self.stop, trainer)
        self.left_out_in_a_row, self.samples, self.switched, self.pruner = 0, None, False, None
        self.sync = sync_batch_norm(net, self.store) if config.sync_bn else None
        self.recomputed = Recomputed(net, config.recompute) if config.recompute else None
        self.ema = WeightAverage(net, config.ema, self.statistics()) if config.ema else None
        # Seeding MXNet costs about a millisecond, so networks without random operators go without.
        self._seeds = draws_random_numbers(net)
        # Every worker reports its steps to the launcher; only rank 0 shows and writes anything else.
        self.log = RunLog(output, enabled=self.store.rank == 0, config=config, rank=self.store.rank,
                          workers=self.store.num_workers)

    @property
    def total_steps(self):
        """Updates of the whole run."""
        return self.config.epochs * len(self.batches)

    @property
    def peak_rate(self):
        """The learning rate after warm-up: `lr`, or `switch_lr` once another optimizer has taken over; with `auto_scale_lr`
        times the global batch over `base_batch`."""
        config = self.config
        rate = config.switch_lr if self.switched else config.lr
        return rate * (global_batch(config, self.store) / config.base_batch if config.auto_scale_lr else 1)

    def switch(self):
        """Have the optimizer `config.switch_to` take over; every worker must call it after the same update."""
        config = self.config
        self.trainer.switch(config.switch_to, optimizers.arguments_of(config, config.switch_to, config.switch_lr))
        self.switched = True

    def exit_code(self):
        """What a program ends with after `fit`: 0, also after an orderly stop; but 143 when it stood alone and SIGTERM stopped
        it, as after any end by SIGTERM, so that whoever sent it sees that the work is not done."""
        alone = not self.store.is_distributed
        return 128 + signal.SIGTERM if self.stopped and alone and self.stop.reason == "SIGTERM" else 0

    def open_sample_log(self):
        """Begin, or continue from the run's position, the log of samples that `sample_log` asks for."""
        if self.config.sample_log is not None:
            self.samples = SampleLog(self.config.sample_log, self.store.rank, self.position.step, self.store.num_workers)

    def close(self):
        """Close the logs."""
        self.log.close()
        if self.samples is not None:
            self.samples.close()

    # Checkpoints

    def save_checkpoint(self):
        """Write a checkpoint of this moment; every worker must call it. Sets `all_stop`, whether some worker is to stop.

        Returns: its path on rank 0, else None.
        Raises: TrainingError on every worker alike when a parameter is not finite; the earlier checkpoints stay.
        """
        if self.output is None:
            return None
        self.log.heartbeat(f"{self.position.step} saving")
        self.trainer.synchronize()
        rows = self.worker_statistics()
        own = None if rows is None else rows[self.store.rank]
        average, average_rows = self._average_for_checkpoint()
        asynchronous = self.store.is_async
        self._require_finite(rows)
        seen = np.array([*self.position.sums, self.position.samples, self.stop.asked])
        seen = seen[None] if asynchronous else self.store.gather(seen)
        self.all_stop = bool(seen[:, 3].any())
        if self.all_stop:
            self.stop.ask("a signal to another worker")
        path = None
        if self.store.rank == 0:
            self.average_statistics(rows)
            path = checkpoint.save(
                os.path.join(self.output, "checkpoints"), parameters=get_parameters(self.net),
                optimizer=None if asynchronous else self.trainer.state_dict(),
                workers=None if rows is None else {"statistics": rows, **average_rows}, ema=average,
                write_more=self.trainer.save_server_states if asynchronous else None,
                constraint=self.trainer.constraint.state() if self.trainer.constraint is not None else None,
                state={**self.position.as_dict(), "seen": seen[:, :3].tolist(), "num_workers": self.store.num_workers,
                       "global_batch": self.batches.global_batch_size, "devices": len(self.contexts),
                       "random": "seed, rank and step decide every draw", "switched": self.switched,
                       "ema_updates": self.ema.updates if self.ema else 0,
                       "pruned_to": self.pruner.reached if self.pruner else 0.0},
                config={**self.config.as_dict(), "model_arguments": self.model_arguments,
                        "recipe_values": self.recipe_values, **self._data_facts()},
                keep=self.config.keep, best=self._best_checkpoint())
            if own is not None:
                self.set_statistics(own)
        return path

    def _average_for_checkpoint(self):
        """(The moving average's parameters, None without; every worker's own averaged statistics for workers.params)."""
        if self.ema is None:
            return None, {}
        rows = self.gather_statistics(self.ema.statistics)
        row = mean_row(rows) if rows is not None else None if self.ema.statistics is None else self.ema.statistics[0]
        return {**self.ema.weights(), **self.named_statistics(row)}, {} if rows is None else {"ema_statistics": rows}

    def _restore_average(self, saved):
        values, rows = saved.arrays("ema.params"), saved.arrays("workers.params").get("ema_statistics")
        if not values:
            # The run had none before: it begins here, with what the checkpoint holds.
            self.ema = WeightAverage(self.net, self.config.ema, self.statistics())
            return
        if rows is not None and rows.shape[:2] == (self.store.num_workers, len(self.contexts)):
            rows = rows[self.store.rank]
        elif self.ema.statistics is not None:
            row = np.concatenate([values[name].ravel() for name in self._statistics()])
            rows = np.tile(row, (len(self.contexts), 1))
        self.ema.load(values, saved.state["ema_updates"], rows)

    def _require_finite(self, rows):
        """Raise TrainingError when what a checkpoint would hold is not finite. rows: `worker_statistics`."""
        if self.store.is_async and self.store.rank != 0:
            return
        mx.nd.waitall()
        parameters = {name: parameter.list_data()[0] for name, parameter in self.net._collect_params_with_prefix().items()}
        if rows is not None:
            parameters.update({**dict.fromkeys(self._statistics()), "running statistics": rows})
        for name, values in parameters.items():
            if values is not None:
                values = values if isinstance(values, np.ndarray) else values.asnumpy()
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise TrainingError(f"after update {self.position.step} the parameter {name} is not finite; the last "
                                        "checkpoint is from before it: lower --lr, or use --clip-norm or --on-nan skip")

    def _data_facts(self):
        dataset, transform = self.train_set
        lighting = getattr(transform, "own_lighting", None)
        teacher = getattr(self.task, "teacher", None)
        return {**({"lighting": lighting} if lighting else {}), **({"teacher_digest": teacher.digest()} if teacher else {}),
                "classes": list(dataset.classes), "mean": [float(v) for v in dataset.mean],
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
        old_batch = state.get("global_batch", saved.config["batch_size"] * state["num_workers"])
        new_batch, length = self.batches.global_batch_size, len(self.train_set[0])
        seen = state["step_in_epoch"] * old_batch
        if seen >= length:
            # A run stopped after the epoch's last update, before its validation.
            seen = len(self.batches) * new_batch
        elif old_batch != new_batch and seen % new_batch and not self.store.is_async:
            raise checkpoint.CheckpointError(
                f"checkpoint {saved.path} is {seen} samples into an epoch at a global batch of {old_batch}; "
                f"that is no whole number of batches of {new_batch} (workers x --batch-size)")
        # (Under dist_async, where no two runs agree anyway, the rest of a batch is run again.)
        step = state["step"]
        if old_batch != new_batch:
            step = state["epoch"] * len(self.batches) + seen // new_batch
        here = self.output is not None and os.path.abspath(os.path.join(self.output, "checkpoints"))
        if step < state["step"] and os.path.dirname(os.path.abspath(saved.path)) == here:
            # Checkpoints are ordered by their update; later ones of this run would count as older than this one.
            raise checkpoint.CheckpointError(
                f"checkpoint {saved.path} was written at a global batch of {old_batch}, this run's is {new_batch}; continue "
                f"with --resume {self.output} and another --output")
        if state.get("switched"):
            self.switch()
        if saved.has("optimizer.params"):
            self.trainer.load_state_dict(saved.arrays("optimizer.params"))
        elif self.store.is_async:
            if self.store.rank == 0:
                self.trainer.load_server_states(saved.path)
            self.store.barrier()
        rows = saved.arrays("workers.params").get("statistics")
        if rows is not None and rows.shape[:2] == (self.store.num_workers, len(self.contexts)):
            self.set_statistics(rows[self.store.rank])
        if self.ema is not None:
            self._restore_average(saved)
        self.constrain(saved)
        # Each worker's own sums where there are as many workers as before, else all of them on rank 0.
        sums = np.array(state["seen"])
        sums = sums if len(sums) == self.store.num_workers else sums.sum(axis=0, keepdims=True)
        mine = sums[self.store.rank] if self.store.rank < len(sums) else np.zeros(3)
        self.position = Position(step=step, epoch=state["epoch"], step_in_epoch=seen // new_batch,
                                 sums=mine[:2].copy(), samples=int(mine[2]), left_out=state.get("left_out", 0),
                                 history=state["history"])
        if not self.store.is_async:
            steps = self.store.all_sum(np.array([self.position.step], dtype=np.float64))[0]
            if steps != self.position.step * self.store.num_workers:
                raise checkpoint.CheckpointError(f"worker {self.store.rank} found the checkpoint {saved.path}, others another "
                                                 "one; all workers must see the same output folder")
        self.log.say(f"resumed from {saved.path}: epoch {self.position.epoch + 1}, update {self.position.step}")
