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
import json
import math

import mxnet as mx
import numpy as np
from mxnet.gluon.parameter import DeferredInitializationError, Parameter

from ..distributed import cluster
from ..distributed import kvstore as kvstores
from ..distributed.server import OPTIMIZERS
from ..errors import UserError
from . import exchange
from .compression import COMPRESSIONS, DEFAULT_THRESHOLD, CompressedSum
from .lars import LARS
from .local_sgd import LocalSteps
from .sgd import SGD
from .states import fill_state, flatten_state, set_update_counts

__all__ = ["Trainer"]

#: Optimizers that are not MXNet's own, by name.
_OWN = {"sgd": SGD, "lars": LARS}

#: What may be done about a NaN.
ON_NAN = ("stop", "skip")

#: Parameters of these last names get no weight decay with ``decay_bias_and_norm=False``.
_UNDECAYED = ("bias", "gamma", "beta")


def _named_parameters(params):
    """{name: Parameter} from a Block (structural names), a ParameterDict, a dict, or a list of Parameters."""
    if isinstance(params, mx.gluon.Block):
        return dict(params._collect_params_with_prefix())
    if isinstance(params, (list, tuple)):
        params = {getattr(parameter, "name", ""): parameter for parameter in params}
    if not hasattr(params, "items"):
        raise TypeError(f"params is {type(params).__name__}; expected a Block, a ParameterDict, a dict or a list")
    named = dict(params.items())
    for name, parameter in named.items():
        if not isinstance(parameter, Parameter):
            raise TypeError(f"params[{name!r}] is {type(parameter).__name__}; expected a Parameter")
    return named


def _positive(name, value):
    if value is not None and not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        raise UserError(f"{name} is {value!r}; expected a positive number")
    return value


def _all_finite(arrays, ctx, dtype):
    """Whether all elements of arrays of one type, on one device, are finite; waits for them."""
    if dtype != np.float32:
        return mx.nd.multi_all_finite(*arrays, num_arrays=len(arrays)).asscalar() > 0
    # Zero times what is not finite is NaN. A product of vectors takes a thirtieth of multi_all_finite's time.
    zeros = mx.nd.zeros((max(array.size for array in arrays),), ctx=ctx)
    return mx.nd.add_n(*[mx.nd.dot(array.reshape((-1,)), zeros[:array.size]) for array in arrays]).asscalar() == 0


class Trainer:
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
    Attributes: votes: after a `step` that made an update of a synchronous distributed job, the number of workers that voted
        in it, an NDArray (1,) that may still be under way; else None. left_out: whether the last update was left out.
    Raises: UserError for bad settings; RuntimeError when a parameter is not initialised or its shape is not known yet.
    """

    def __init__(self, params, optimizer="sgd", optimizer_params=None, kvstore="device", *, clip_value=None,
                 clip_norm=None, accumulate=1, decay_bias_and_norm=True, on_nan="stop", compression="none",
                 compression_threshold=None, local_steps=1):
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
        named = {name: p for name, p in _named_parameters(params).items() if p.grad_req != "null"}
        if not named:
            raise UserError("params holds no parameter with a gradient; nothing to train")
        self._names, self._parameters = list(named), list(named.values())
        self._contexts = self._check_ready()
        self._optimizer = self._make_optimizer(optimizer, dict(optimizer_params or {}), clip_value, decay_bias_and_norm)
        self._updaters = [mx.optimizer.get_updater(self._optimizer) for _ in self._contexts]
        self._accumulate, self._calls, self._samples = accumulate, 0, 0
        self._skips, self.votes, self.left_out = on_nan == "skip", None, False
        if accumulate > 1:
            for parameter in self._parameters:
                parameter.grad_req = "add"
            self.zero_grad()
        self.kvstore = kvstore if isinstance(kvstore, kvstores.KVStore) else kvstores.create(kvstore or "device")
        self._buckets, self._exchange, self._local = [], None, None
        self._check_ways(local_steps)
        self._start(local_steps)

    # Set-up

    def _check_ready(self):
        contexts = None
        for name, parameter in zip(self._names, self._parameters):
            try:
                here = parameter.list_ctx()
                parameter.list_data()
            except DeferredInitializationError:
                raise RuntimeError(f"the shape of parameter {name!r} is not known yet: give in_channels or in_units, or run "
                                   "one forward pass, before making a Trainer, so that all workers start equal") from None
            if (parameter._stype, parameter._grad_stype) != ("default", "default"):
                raise UserError(f"parameter {name!r} is sparse ({parameter._stype}, gradient {parameter._grad_stype}); "
                                "this trainer is for dense parameters")
            if contexts is not None and here != contexts:
                raise UserError(f"parameter {name!r} is on {here}; the others are on {contexts}")
            contexts = here
        return contexts

    def _make_optimizer(self, optimizer, arguments, clip_value, decay_bias_and_norm):
        if isinstance(optimizer, mx.optimizer.Optimizer):
            if arguments:
                raise UserError(f"optimizer_params {sorted(arguments)} were given beside an Optimizer; set them on it")
            made, self._json = optimizer, None
        else:
            if clip_value is not None:
                arguments["clip_gradient"] = clip_value
            try:
                own = _OWN.get(optimizer.lower()) if isinstance(optimizer, str) else None
                made = own(**arguments) if own else mx.optimizer.create(optimizer, **arguments)
            except (TypeError, ValueError) as error:
                raise UserError(f"optimizer {optimizer!r} with {arguments}: {error}") from None
            self._json = {"op": "optimizer", "name": optimizer, "arguments": arguments}
        made.param_dict = dict(enumerate(self._parameters))
        # Given by index explicitly, because the servers know no parameters, only keys.
        self._lr_mult = {i: float(p.lr_mult) for i, p in enumerate(self._parameters) if p.lr_mult != 1}
        self._wd_mult = {i: float(p.wd_mult) for i, p in enumerate(self._parameters) if p.wd_mult != 1}
        if not decay_bias_and_norm:
            for index, (name, parameter) in enumerate(zip(self._names, self._parameters)):
                if name.rpartition(".")[2].rpartition("_")[2] in _UNDECAYED:
                    parameter.wd_mult = self._wd_mult[index] = 0.0
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
            if self._json is None or self._json["name"] not in OPTIMIZERS:
                raise UserError(f"dist_async runs the optimizer on the servers; name one of {', '.join(OPTIMIZERS)}")
            if self._accumulate > 1:
                raise UserError("accumulate needs the update on the worker; dist_async updates on the servers")
            self._first_key = store.allocate(len(self._parameters))
            store.broadcast({self._first_key + i: p.list_data() for i, p in enumerate(self._parameters)})
            if store.rank == 0:
                multipliers = {name: {self._first_key + i: value for i, value in values.items()}
                               for name, values in (("lr_mult", self._lr_mult), ("wd_mult", self._wd_mult))}
                store.send_command(json.dumps({**self._json, **multipliers}))
                self._sent_rate = self.learning_rate
            store.barrier()
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

    def set_learning_rate(self, rate):
        """Set the learning rate from the next `step` on, also on the servers of a dist_async job (from rank 0)."""
        self._optimizer.set_learning_rate(rate)

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
        return all(_all_finite(group, *key) for key, group in groups.items())

    def _step_here(self, samples, vote):
        if self._buckets:
            counts = [samples] + [0] * (len(self._contexts) - 1)
            self.votes = self._exchange.sum(counts, vote)
            # The sums are the same bits everywhere, so all workers and devices come to the same answer.
            self.left_out = not self._finite([bucket.sums[0] for bucket in self._buckets])
            if self.left_out:
                self._exchange.leave_out()
                return
            self._exchange.average()
            arrays = [[bucket.gradients[device] for bucket in self._buckets] for device in range(len(self._contexts))]
            self._optimizer.rescale_grad = 1.0
        else:
            arrays = [[parameter.list_grad()[0] for parameter in self._parameters]]
            self.left_out = not self._finite(arrays[0])
            if self.left_out:
                return
            self._optimizer.rescale_grad = 1.0 / max(samples, 1)
        for device in range(len(self._contexts)):
            if self._clip_norm is not None:
                self._scale_to_norm(arrays[device], self._optimizer.rescale_grad)
            self._update(device)
        if self._local:
            self.votes = self._local.after_update(samples, vote)

    def synchronize(self):
        """Bring together what workers hold of their own: parameters between two averages of local steps, and what compression
        holds back. Before parameters are evaluated or state is saved every worker must call it; where there is nothing of
        the kind it does nothing."""
        if self._local:
            self._local.average()
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

    def _step_on_servers(self, samples):
        if self.kvstore.rank == 0 and self.learning_rate != self._sent_rate:
            self.kvstore.send_command(json.dumps({"op": "learning_rate", "value": self.learning_rate}))
            self._sent_rate = self.learning_rate
        # Every worker makes updates of its own here, so each decides by its own gradients.
        self.left_out = not self._finite([gradient for parameter in self._parameters for gradient in parameter.list_grad()])
        for device in range(len(self._contexts)):
            arrays = [parameter.list_grad()[device] for parameter in self._parameters]
            for array in arrays:
                # The servers sum over devices, so each device's share is divided by this worker's whole number.
                array /= max(samples, 1)
            if self._clip_norm is not None:
                self._scale_to_norm(arrays, 1.0)
        for index, parameter in enumerate(self._parameters):
            if not self.left_out:
                self.kvstore.push(self._first_key + index, parameter.list_grad(), priority=-index)
            self.kvstore.pull(self._first_key + index, parameter.list_data(), priority=-index)

    # State

    def state_dict(self):
        """Optimizer state as {name: NumPy array}: "parameter:<name>[/i...]" and the numbers of updates, "updates".

        With 2-bit compression also what it holds back, "residual:<bucket>"; `synchronize` comes first then.

        Raises: UserError under dist_async, whose state lives on the servers (`save_server_states`).
        """
        if self.kvstore.is_async:
            raise UserError("under dist_async the optimizer's state is on the servers; use save_server_states(folder)")
        if self._calls:
            raise UserError(f"{self._calls} of {self._accumulate} accumulation calls are pending; save after an update")
        if self._local and self._local.pending:
            raise UserError("workers have made local steps since the last average; have every one call synchronize() first")
        values = {}
        counts = self._optimizer._all_index_update_counts.get(self._contexts[0].device_id, {})
        for index, name in enumerate(self._names):
            values.update(flatten_state(f"parameter:{name}", self._updaters[0].states.get(index)))
        if isinstance(self._exchange, CompressedSum):
            values.update(self._exchange.state())
        values["updates"] = np.array([counts.get(i, 0) for i in range(len(self._names))], dtype=np.int64)
        return values

    def load_state_dict(self, values):
        """Restore what `state_dict` returned, on every device.

        Raises: UserError naming the entry when the state is another network's or optimizer's; nothing is changed then.
        """
        if self.kvstore.is_async:
            raise UserError("under dist_async the optimizer's state is on the servers; use load_server_states(folder)")
        if "updates" not in values or values["updates"].shape != (len(self._names),):
            found = values["updates"].shape if "updates" in values else "none"
            raise UserError(f"optimizer state counts updates of {found} parameters; expected ({len(self._names)},)")
        counts = {index: int(count) for index, count in enumerate(values["updates"]) if count}
        fresh = []
        for device in range(len(self._contexts)):
            used, states = {"updates"}, {}
            for index in counts:
                weight = self._parameters[index].list_data()[device]
                states[index] = self._optimizer.create_state_multi_precision(index, weight)
                fill_state(f"parameter:{self._names[index]}", states[index], values, used)
            # What a compression held back is of no use without it; it was a part of gradients to come.
            extra = sorted(name for name in set(values) - used if not name.startswith("residual:"))
            if extra:
                raise UserError(f"optimizer state {extra[0]} fits no parameter; it is another network's or optimizer's")
            fresh.append(states)
        if isinstance(self._exchange, CompressedSum):
            self._exchange.load(values)
        for updater, states in zip(self._updaters, fresh):
            updater.states = states
            updater.states_synced = dict.fromkeys(states, True)
        set_update_counts(self._optimizer, counts, devices=1 + max(ctx.device_id for ctx in self._contexts))

    def save_states(self, path):
        """Write the optimizer's state to a file in MXNet's array format."""
        from .. import arrays
        arrays.save(path, self.state_dict())

    def load_states(self, path):
        """Read what `save_states` wrote. Raises: UserError when the file is damaged or another network's."""
        from .. import arrays
        self.load_state_dict(arrays.load(path))

    def save_server_states(self, folder):
        """Under dist_async, have every server write its optimizer state into folder (on the server's host); rank 0 calls."""
        self.kvstore.send_command(json.dumps({"op": "save", "folder": str(folder)}))

    def load_server_states(self, folder):
        """Under dist_async, have every server read its part of what `save_server_states` wrote, also when there were more or
        fewer servers then: arrays that ps-lite cuts over the servers are joined and cut anew. Rank 0 calls."""
        self.kvstore.send_command(json.dumps({"op": "load", "folder": str(folder),
                                              "bound": cluster.big_array_bound()}))
