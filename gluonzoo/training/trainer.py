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
from .states import fill_state, flatten_state, set_update_counts

__all__ = ["Trainer"]

#: Gradients up to this many elements (1 MB of float32) travel together as one KVStore key: small networks spend most
#: of a step on messages otherwise. A larger gradient is a key of its own.
BUCKET_ELEMENTS = 1 << 18

#: What may be done about a NaN.
ON_NAN = ("stop", "skip")

#: Parameters of these last names get no weight decay with ``decay_bias_and_norm=False``.
_UNDECAYED = ("bias", "gamma", "beta")


class _Bucket:
    """Gradients that travel as one key: per device one flat array and, in it, a view for every gradient.

    Two more elements at the end carry the worker's vote (0 or 1) and its number of samples, so that the number of votes
    and the global number of samples arrive with the gradients' sum.
    """

    def __init__(self, key, parameters, contexts):
        self.key = key
        self.parameters = parameters
        sizes = [int(np.prod(parameter.shape)) for parameter in parameters]
        self.size = sum(sizes)
        dtype = parameters[0].dtype
        self.flats = [mx.nd.zeros((self.size + 2,), ctx=ctx, dtype=dtype) for ctx in contexts]
        self.votes = self.flats[0][self.size:self.size + 1]
        self.counts = [flat[self.size + 1:] for flat in self.flats]
        self._abstained = [mx.nd.zeros((1,), ctx=ctx, dtype=dtype) for ctx in contexts]
        self.views = []
        for flat in self.flats:
            ends = np.cumsum(sizes)
            self.views.append([flat[int(end - size):int(end)].reshape(parameter.shape)
                               for parameter, size, end in zip(parameters, sizes, ends)])

    def gather(self, counts, vote):
        """Copy every device's gradients, its number of samples and, on the first, the vote into the flat arrays."""
        for device, (flat, count) in enumerate(zip(self.flats, counts)):
            pieces = [parameter.list_grad()[device].reshape((-1,)) for parameter in self.parameters]
            pieces.append(mx.nd.ones((1,), ctx=flat.context, dtype=flat.dtype) if vote and not device else
                          self._abstained[device])
            pieces.append(mx.nd.full((1,), count, ctx=flat.context, dtype=flat.dtype))
            mx.nd.concat(*pieces, dim=0, out=flat)

    def average(self):
        """Divide the sums by the global number of samples (at least 1: an entirely empty batch has zero gradients)."""
        for flat, count in zip(self.flats, self.counts):
            mx.nd.broadcast_div(flat, mx.nd._internal._maximum_scalar(count, scalar=1.0), out=flat)


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
    Attributes: votes: after a `step` that made an update of a synchronous distributed job, the number of workers that voted
        in it, an NDArray (1,) that may still be under way; else None. left_out: whether the last update was left out.
    Raises: UserError for bad settings; RuntimeError when a parameter is not initialised or its shape is not known yet.
    """

    def __init__(self, params, optimizer="sgd", optimizer_params=None, kvstore="device", *, clip_value=None,
                 clip_norm=None, accumulate=1, decay_bias_and_norm=True, on_nan="stop"):
        _positive("clip_value", clip_value)
        self._clip_norm = _positive("clip_norm", clip_norm)
        if not isinstance(accumulate, int) or accumulate < 1:
            raise UserError(f"accumulate is {accumulate!r}; expected a whole number of at least 1")
        if on_nan not in ON_NAN:
            raise UserError(f"on_nan is {on_nan!r}; expected one of {', '.join(ON_NAN)}")
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
        self._buckets = []
        self._start()

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
                made = mx.optimizer.create(optimizer, **arguments)
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

    def _start(self):
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
        self._buckets = self._make_buckets()
        if store.is_distributed:
            self.broadcast_parameters()
        store.broadcast({bucket.key: bucket.flats for bucket in self._buckets})

    def _make_buckets(self):
        buckets, group, size = [], [], 0
        # From the last layer to the first, the order in which the backward pass finishes gradients.
        for parameter in reversed(self._parameters):
            elements = int(np.prod(parameter.shape))
            if group and (size + elements > BUCKET_ELEMENTS or parameter.dtype != group[0].dtype):
                buckets.append(group)
                group, size = [], 0
            group.append(parameter)
            size += elements
        buckets.append(group)
        first = self.kvstore.allocate(len(buckets))
        return [_Bucket(first + i, group, self._contexts) for i, group in enumerate(buckets)]

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
        answers = {}
        for array in arrays:
            answers.setdefault((array.context, array.dtype), []).append(array)
        return all(mx.nd.multi_all_finite(*group, num_arrays=len(group)).asscalar() > 0 for group in answers.values())

    def _step_here(self, samples, vote):
        if self._buckets:
            counts = [samples] + [0] * (len(self._contexts) - 1)
            for priority, bucket in enumerate(self._buckets):
                bucket.gather(counts, vote)
                self.kvstore.push_pull(bucket.key, bucket.flats, priority=-priority)
            if self.kvstore.is_distributed:
                # A copy, because the next update overwrites the bucket before anybody needs to have read this.
                self.votes = self._buckets[0].votes.copy()
            # The sums are the same bits everywhere, so all workers and devices come to the same answer.
            self.left_out = not self._finite([bucket.flats[0] for bucket in self._buckets])
            if self.left_out:
                return
            for bucket in self._buckets:
                bucket.average()
            arrays = [[bucket.flats[device][:bucket.size] for bucket in self._buckets]
                      for device in range(len(self._contexts))]
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

        Raises: UserError under dist_async, whose state lives on the servers (`save_server_states`).
        """
        if self.kvstore.is_async:
            raise UserError("under dist_async the optimizer's state is on the servers; use save_server_states(folder)")
        if self._calls:
            raise UserError(f"{self._calls} of {self._accumulate} accumulation calls are pending; save after an update")
        values = {}
        counts = self._optimizer._all_index_update_counts.get(self._contexts[0].device_id, {})
        for index, name in enumerate(self._names):
            values.update(flatten_state(f"parameter:{name}", self._updaters[0].states.get(index)))
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
            extra = sorted(set(values) - used)
            if extra:
                raise UserError(f"optimizer state {extra[0]} fits no parameter; it is another network's or optimizer's")
            fresh.append(states)
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
