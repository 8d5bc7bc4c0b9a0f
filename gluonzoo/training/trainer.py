"""The trainer: Gluon's `Trainer` with the KVStore's traps removed.

Differences from `mxnet.gluon.Trainer`, all on purpose:

- `step(batch_size)` takes this worker's number of samples; the division by the global number happens inside, exactly,
  also when workers hold different numbers of samples, or none.
- Weights are equal on all workers and devices before the first gradient is computed, and the first push cannot overtake
  the first pull (stock: silently wrong weights in some runs).
- The update runs on the worker, so optimizer state can be saved and a new learning rate takes effect; with
  ``dist_async`` it runs on the servers, which get the optimizer as JSON.
- Optimizer state is saved as plain arrays, never pickled.
- Votes of the workers travel with the gradients, so that all can act after the same update without waiting for one another.
- With ``on_nan="skip"`` an update whose summed gradient is not finite is left out, on all workers alike.
"""
import math

import mxnet as mx
import numpy as np

from ..distributed import kvstore as kvstores
from ..errors import UserError
from . import exchange, optimizers
from .compression import COMPRESSIONS, DEFAULT_THRESHOLD, CompressedSum
from .local_sgd import LocalSteps
from .parameters import all_finite, contexts_of, trainable_parameters, without_decay
from .trainer_servers import UpdatesOnServers
from .trainer_state import SavedState

__all__ = ["Trainer"]

#: What may be done about a NaN.
ON_NAN = ("stop", "skip")


def _positive(name, value):
    if value is not None and not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        raise UserError(f"{name} is {value!r}; expected a positive number")
    return value


class Trainer(UpdatesOnServers, SavedState):
    """Applies an optimizer to a network's parameters over one or many devices and workers.

    Args:
        params: a Block (best: its structural names go into saved states), ParameterDict, dict or list of Parameters, all
            initialised with known shapes, on the same devices.
        optimizer: an MXNet optimizer's name, or an Optimizer.
        optimizer_params: its arguments, for example ``{"learning_rate": 0.1, "momentum": 0.9, "wd": 1e-4}``.
        kvstore: a name (`gluonzoo.distributed.kvstore.KINDS`), a `gluonzoo.distributed.KVStore`, or None for "device".
        clip_value: each element of the averaged gradient is cut to [-clip_value, clip_value].
        clip_norm: the averaged gradient of all parameters together is scaled down to at most this Euclidean norm, before
            clip_value is applied. With ``dist_async`` each worker scales its own gradient.
        accumulate: number of `step` calls that make one update; sets the parameters' ``grad_req`` to "add".
        decay_bias_and_norm: False takes biases and BatchNorm's gamma and beta out of weight decay.
        on_nan: "skip" leaves out an update whose summed gradient holds a NaN or an infinity, which costs waiting for the
            gradients in every update; "stop" does not look (the loop does, at the losses).
        compression: of what goes to the servers of a synchronous distributed job, and comes back: "none", "2bit" with error
            feedback, or "fp16". compression_threshold: of "2bit", in units of a worker's gradient, summed over its samples.
        local_steps: with more than 1 each worker updates by its own gradients, and all average parameters and optimizer state
            after so many updates (`local_sgd.LocalSteps`).
        loss_scaler: `precision.LossScaler` whose scale the losses were multiplied by; gradients are divided by it, an update
            whose gradient is not finite is left out, and it then adjusts.
    Attributes: votes: after a `step` that made an update of a synchronous distributed job, the number of workers that voted
        in it, an NDArray (1,) that may still be under way; else None. left_out: whether the last update was left out.
    Raises: UserError for bad settings; RuntimeError when a parameter is not initialised or its shape is not known yet.
    """

    def __init__(self, params, optimizer="sgd", optimizer_params=None, kvstore="device", *, clip_value=None,
                 clip_norm=None, accumulate=1, decay_bias_and_norm=True, on_nan="stop", compression="none",
                 compression_threshold=None, local_steps=1, loss_scaler=None):
        _positive("clip_value", clip_value)
        self._clip_norm = _positive("clip_norm", clip_norm)
        if not isinstance(accumulate, int) or accumulate < 1:
            raise UserError(f"accumulate is {accumulate!r}; expected a whole number of at least 1")
        if on_nan not in ON_NAN:
            raise UserError(f"on_nan is {on_nan!r}; expected one of {', '.join(ON_NAN)}")
        if compression not in COMPRESSIONS:
            raise UserError(f"compression is {compression!r}; expected one of {', '.join(COMPRESSIONS)}")
        self._compression = compression, _positive("compression_threshold", compression_threshold) or DEFAULT_THRESHOLD
        if not isinstance(local_steps, int) or local_steps < 1:
            raise UserError(f"local_steps is {local_steps!r}; expected a whole number of at least 1")
        named = trainable_parameters(params)
        self._names, self._parameters = list(named), list(named.values())
        self._contexts = contexts_of(named)
        self._clip_value, self._undecayed = clip_value, () if decay_bias_and_norm else set(without_decay(named))
        self._optimizer = self._make_optimizer(optimizer, dict(optimizer_params or {}))
        self._updaters = [mx.optimizer.get_updater(self._optimizer) for _ in self._contexts]
        self._accumulate, self._calls, self._samples = accumulate, 0, 0
        self.loss_scaler, self._constraint = loss_scaler, None
        self._skips, self.votes, self.left_out = on_nan == "skip" or loss_scaler is not None, None, False
        if accumulate > 1:
            for parameter in self._parameters:
                parameter.grad_req = "add"
            self.zero_grad()
        self.kvstore = kvstore if isinstance(kvstore, kvstores.KVStore) else kvstores.create(kvstore or "device")
        self._buckets, self._exchange, self._local = [], None, None
        self._check_ways(local_steps)
        self._start(local_steps)

    # Set-up

    def _make_optimizer(self, optimizer, arguments):
        if isinstance(optimizer, mx.optimizer.Optimizer):
            if arguments:
                raise UserError(f"optimizer_params {sorted(arguments)} were given beside an Optimizer; set them on it")
            made, self._json = optimizer, None
        else:
            if self._clip_value is not None:
                arguments["clip_gradient"] = self._clip_value
            made = optimizers.create(optimizer, arguments)
            self._json = {"op": "optimizer", "name": optimizer, "arguments": arguments}
        made.param_dict = dict(enumerate(self._parameters))
        for name, parameter in zip(self._names, self._parameters):
            if name in self._undecayed:
                parameter.wd_mult = 0.0
        # Given by index explicitly, because the servers know no parameters, only keys.
        self._lr_mult = {i: float(p.lr_mult) for i, p in enumerate(self._parameters) if p.lr_mult != 1}
        self._wd_mult = {i: float(p.wd_mult) for i, p in enumerate(self._parameters) if p.wd_mult != 1}
        return made

    def _check_ways(self, local_steps):
        """Raise UserError where compression or local steps cannot be had."""
        store, compression = self.kvstore, self._compression[0]
        if compression != "none" and (not store.is_distributed or store.is_async):
            raise UserError(f"compression {compression} is for dist_sync and dist_device_sync, not {store.kind}")
        if local_steps > 1:
            if store.is_async:
                raise UserError("local_steps is for dist_sync; the servers of dist_async make the updates")
            if compression != "none" or self._skips or len(self._contexts) > 1:
                raise UserError("local_steps goes neither with compression, nor on_nan 'skip', nor several devices a worker")

    def _start(self, local_steps):
        """Bring all workers and devices to rank 0's weights, then make the buckets in which gradients travel."""
        store = self.kvstore
        other = [name for name, p in zip(self._names, self._parameters) if np.dtype(p.dtype) not in (np.float32, np.float16)]
        if store.is_distributed and other:
            raise UserError(f"parameter {other[0]!r} is {np.dtype(self._parameters[self._names.index(other[0])].dtype)}; MXNet's "
                            "servers add in float32 at best, so a distributed job takes float32 or float16")
        if store.is_async:
            self._start_on_servers()
            return
        if not store.is_distributed and len(self._contexts) == 1:
            return
        if store.is_distributed:
            self.broadcast_parameters()
        if store.is_distributed and local_steps > 1:
            self._local = LocalSteps(store, self._parameters, self._updaters[0], local_steps)
            return
        self._buckets = exchange.make_buckets(self._parameters, self._contexts)
        if self._compression[0] != "none":
            self._exchange = CompressedSum(store, self._buckets, *self._compression, undo=self._skips)
        else:
            self._exchange = exchange.choose(store, self._buckets, self._contexts, private=self._clip_norm is not None)

    def broadcast_parameters(self):
        """Give every worker rank 0's parameters. Called once by the constructor; every worker must call it."""
        first = self.kvstore.allocate(len(self._parameters))
        self.kvstore.broadcast({first + i: p.list_data() for i, p in enumerate(self._parameters)})

    # Settings

    @property
    def optimizer(self):
        """The MXNet Optimizer. Under dist_async changes to it, other than the learning rate, do not reach the servers."""
        return self._optimizer

    @property
    def learning_rate(self):
        """The learning rate of the next update."""
        return self._optimizer.learning_rate

    @property
    def accumulate(self):
        """Number of `step` calls that make one update."""
        return self._accumulate

    @property
    def constraint(self):
        """What the weights must be after every update, a `constraints.Constraint`; None at first.

        Raises: UserError when it is set under dist_async, whose servers make the updates and know nothing of it.
        """
        return self._constraint

    @constraint.setter
    def constraint(self, constraint):
        if constraint is not None and self.kvstore.is_async:
            raise UserError("pruned or shared weights need the update on the worker; dist_async updates on the servers")
        self._constraint = constraint

    def set_learning_rate(self, rate):
        """Set the learning rate from the next `step` on, also on the servers of a dist_async job (from rank 0)."""
        self._optimizer.set_learning_rate(rate)

    def set_momentum(self, momentum):
        """Set the momentum from the next `step` on: beta1 of Adam and its like.

        Raises: UserError when the optimizer has none, or began without any, or runs on the servers.
        """
        name = optimizers.momentum_name(self._optimizer)
        if name is None or self.kvstore.is_async:
            raise UserError(f"the momentum of {type(self._optimizer).__name__} cannot be set to {momentum}: " + (
                "it runs on the servers of dist_async" if name else "it has none"))
        setattr(self._optimizer, name, momentum)

    def switch(self, optimizer, optimizer_params=None):
        """Go on with another optimizer from the next update on; its state begins anew. Every worker must call it.

        Raises: UserError for bad settings, under dist_async, with local steps, or in the middle of an accumulation; nothing
            is changed then.
        """
        if self.kvstore.is_async or self._local:
            raise UserError("switching optimizers goes neither with dist_async nor with local steps")
        if self._calls:
            raise UserError(f"{self._calls} of {self._accumulate} accumulation calls are pending; switch after an update")
        self._optimizer = self._make_optimizer(optimizer, dict(optimizer_params or {}))
        self._updaters = [mx.optimizer.get_updater(self._optimizer) for _ in self._contexts]

    # Training

    def zero_grad(self):
        """Set all gradients to zero."""
        for parameter in self._parameters:
            parameter.zero_grad()

    def step(self, batch_size, vote=False):
        """One update from the gradients that ``backward()`` left, which are sums over samples (Gluon's convention).

        Args: batch_size: number of samples this worker has run since the last `step`, over all its devices; 0 when it had
            none: its gradients are then not read. vote: counted over all workers into `votes`; the last call of an
            update counts.
        Returns: True when the weights were updated, False while gradients are being accumulated or when the update was
            left out.
        Raises: UserError when batch_size is negative.
        """
        if batch_size < 0:
            raise UserError(f"batch_size is {batch_size}; expected this worker's number of samples, 0 or more")
        if batch_size == 0 and self._calls == 0:
            # With accumulation earlier calls of this update may have left gradients that count.
            self.zero_grad()
        self._samples += batch_size
        self._calls += 1
        if self._calls < self._accumulate:
            return False
        samples, self._calls, self._samples = self._samples, 0, 0
        if self.kvstore.is_async:
            self._step_on_servers(samples)
        else:
            self._step_here(samples, vote)
        if self._accumulate > 1:
            self.zero_grad()
        return not self.left_out

    def _finite(self, arrays):
        """Whether all elements are finite; waits for the arrays. True without a look unless on_nan is "skip"."""
        if not self._skips:
            return True
        groups = {}
        for array in arrays:
            groups.setdefault((array.context, np.dtype(array.dtype)), []).append(array)
        return all(all_finite(group, *key) for key, group in groups.items())

    def _step_here(self, samples, vote):
        if self._constraint is not None:
            self._constraint.on_gradients()
        unscale = 1.0 / self.loss_scaler.scale if self.loss_scaler else 1.0
        if self._buckets:
            counts = [samples] + [0] * (len(self._contexts) - 1)
            self.votes = self._exchange.sum(counts, vote)
            # The sums are the same bits everywhere, so all workers and devices come to the same answer.
            self._decide([bucket.sums[0] for bucket in self._buckets])
            if self.left_out:
                self._exchange.leave_out()
                return
            self._exchange.average()
            arrays = [[bucket.gradients[device] for bucket in self._buckets] for device in range(len(self._contexts))]
            self._optimizer.rescale_grad = unscale
        else:
            arrays = [[parameter.list_grad()[0] for parameter in self._parameters]]
            self._decide(arrays[0])
            if self.left_out:
                return
            self._optimizer.rescale_grad = unscale / max(samples, 1)
        for device in range(len(self._contexts)):
            if self._clip_norm is not None:
                self._scale_to_norm(arrays[device], self._optimizer.rescale_grad)
            self._update(device)
        if self._local:
            self.votes = self._local.after_update(samples, vote)
        if self._constraint is not None:
            self._constraint.on_weights()

    def _decide(self, arrays):
        """Set left_out by whether the gradients are finite, and have the loss scaler heed it."""
        self.left_out = not self._finite(arrays)
        if self.loss_scaler:
            self.loss_scaler.update(not self.left_out)

    def synchronize(self):
        """Bring together what workers hold of their own: parameters between two averages of local steps, and what compression
        holds back. Before parameters are evaluated or state is saved every worker must call it; where there is nothing of
        the kind it does nothing."""
        if self._local:
            self._local.average()
            if self._constraint is not None:
                self._constraint.on_weights()
        if isinstance(self._exchange, CompressedSum):
            self._exchange.settle()

    def _scale_to_norm(self, arrays, rescale):
        """Scale arrays in place so that rescale times all of them has at most the norm clip_norm. No synchronisation."""
        total = mx.nd.add_n(*[mx.nd.sum(mx.nd.square(array)).reshape((1,)) for array in arrays])
        norm = mx.nd.sqrt(total) * rescale
        scale = mx.nd._internal._minimum_scalar(self._clip_norm / (norm + 1e-12), scalar=1.0)
        for array in arrays:
            mx.nd.broadcast_mul(array, scale.reshape((1,) * array.ndim), out=array)

    def _update(self, device):
        if self._buckets:
            views = {id(p): view for bucket in self._buckets for p, view in zip(bucket.parameters, bucket.views[device])}
            gradients = [views[id(parameter)] for parameter in self._parameters]
        else:
            gradients = [parameter.list_grad()[device] for parameter in self._parameters]
        weights = [parameter.list_data()[device] for parameter in self._parameters]
        updater, group = self._updaters[device], max(1, self._optimizer.aggregate_num)
        for start in range(0, len(weights), group):
            indices = list(range(start, min(start + group, len(weights))))
            if group > 1:
                updater(indices, [gradients[i] for i in indices], [weights[i] for i in indices])
            else:
                updater(start, gradients[start], weights[start])
