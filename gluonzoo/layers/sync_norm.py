"""BatchNorm over the whole global batch: all devices of a process and all workers of a job.

MXNet's contrib SyncBatchNorm must be told the number of devices and a key, sums over devices of one process only, and its
devices must all have samples. This one knows the numbers, and sums over workers too.

Source: for the normalisation S. Ioffe, C. Szegedy, Batch Normalization, 2015, arXiv:1502.03167, algorithm 1, with the sums of
the global batch. Differences from `mxnet.gluon.nn.BatchNorm`: rounding; running statistics move in the forward pass.
"""
import itertools
import os
import weakref

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock, nn

from ..errors import UserError

__all__ = ["SyncBatchNorm", "sync_batch_norm"]

_OPERATOR = "gluonzoo_global_mean"
_groups, _numbers = weakref.WeakValueDictionary(), itertools.count()


class _GlobalMean(mx.operator.CustomOp):
    """The mean of every channel over the global batch in training, the running mean in inference.

    Shape: (N, C, P) -> (C,). The gradient of one input is the sum of everybody's output gradients over the number of
    elements: everybody's output depends on it.

    All in NumPy: MXNet's operators share scratch memory in the order in which they were pushed, so one that was pushed from here
    could wait for an operator behind this one in the network, which waits for this one.
    """

    def __init__(self, group, key, momentum, device):
        self._group, self._key, self._momentum, self._device = group, key, momentum, device

    def forward(self, is_train, req, in_data, out_data, aux):
        if not is_train:
            self.assign(out_data[0], req[0], aux[0])
            return
        data = in_data[0].asnumpy()
        part = np.append(data.sum(axis=2, dtype=np.float64).sum(axis=0), data.size // data.shape[1])
        total = self._group.sums.sum(self._key, part, self._device)
        mean = (total[:-1] / total[-1]).astype(out_data[0].dtype)
        self.assign(out_data[0], req[0], mean)
        aux[0][:] = _moved(aux[0].asnumpy(), total, self._momentum)

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        data = in_grad[0]
        part = np.append(out_grad[0].asnumpy().astype(np.float64), data.size // data.shape[1])
        total = self._group.sums.sum(self._key + 1, part, self._device)
        gradient = (total[:-1] / total[-1]).astype(data.dtype)
        self.assign(data, req[0], mx.nd.array(np.broadcast_to(gradient[:, None], data.shape), ctx=data.context, dtype=data.dtype))


@mx.operator.register(_OPERATOR)
class _GlobalMeanProperties(mx.operator.CustomOpProp):
    """What MXNet asks about `_GlobalMean`; all arguments come as texts."""

    def __init__(self, group, key, momentum):
        super().__init__(need_top_grad=True)
        self._group, self._key, self._momentum = int(group), int(key), float(momentum)

    def list_arguments(self):
        return ["data"]

    def list_auxiliary_states(self):
        return ["running"]

    def infer_shape(self, shapes):
        return shapes, [(shapes[0][1],)], [(shapes[0][1],)]

    def declare_backward_dependency(self, out_grad, in_data, out_data):
        return [out_grad[0]]

    def create_operator(self, ctx, shapes, dtypes):
        group = _groups[self._group]
        return _GlobalMean(group, self._key, self._momentum, group.contexts.index(mx.Context(ctx)))


class SyncBatchNorm(nn.BatchNorm):
    """BatchNorm that `sync_batch_norm` connects with those of other devices and workers; until then, a BatchNorm.

    Shape: (N, C, ...) -> the same.
    """

    _group = _key = None

    def hybrid_forward(self, F, x, gamma, beta, running_mean, running_var):
        if self._group is None or self._kwargs["use_global_stats"]:
            return super().hybrid_forward(F, x, gamma, beta, running_mean, running_var)
        options = {"op_type": _OPERATOR, "group": str(self._group.number), "momentum": str(self._kwargs["momentum"])}
        shape, flat = (1, -1, 1), F.reshape(x, (0, 0, -1))  # Vectors and images alike.
        mean = F.Custom(flat, running_mean, key=str(self._key), **options)
        centred = F.broadcast_sub(flat, F.reshape(mean, shape))
        # Two passes, mean first: the difference of E[x^2] and E[x]^2 would cancel.
        variance = F.Custom(F.square(centred), running_var, key=str(self._key + 2), **options)
        scale = F.rsqrt(variance + self._kwargs["eps"])
        if not self._kwargs["fix_gamma"]:
            scale = scale * gamma
        y = F.broadcast_add(F.broadcast_mul(centred, F.reshape(scale, shape)), F.reshape(beta, shape))
        return F.reshape_like(y, x)


class _Group:
    """What the connected layers of one network share: where their sums are made.

    Attributes: number, contexts, norms; sums: `distributed.vectors.VectorSum`.
    """

    def __init__(self, sums, contexts, norms):
        self.number, self.sums, self.contexts, self.norms = next(_numbers), sums, contexts, norms
        _groups[self.number] = self

    def begin(self, devices):
        """Say that so many of the devices, the first ones, take part in the next pass, forward and backward."""
        self.sums.begin(devices)

    def end(self, devices):
        """After the pass was started: stand in for the other devices, so that nobody waits for them, and have their running
        statistics follow. With devices 0 this waits for the other workers."""
        if devices == len(self.contexts):
            return
        totals = None if devices else self.sums.idle()
        mx.nd.waitall()
        for norm in self.norms:
            for key, running in ((norm._key, norm.running_mean), (norm._key + 2, norm.running_var)):
                arrays = running.list_data()
                values = arrays[0].asnumpy()
                if totals is not None:
                    values = _moved(values, totals[key], norm._kwargs["momentum"])
                for array in arrays[devices:]:
                    array[:] = values


def _moved(running, total, momentum):
    """A running statistic after a batch whose sum and, last, number of elements are total; as it was when there are none."""
    if not total[-1]:
        return running
    return momentum * running + (1 - momentum) * (total[:-1] / total[-1]).astype(running.dtype)


def _batch_norms(block):
    if isinstance(block, nn.BatchNorm):
        yield block
    for child in block._children.values():
        yield from _batch_norms(child)


def sync_batch_norm(net, store=None):
    """Have a network's BatchNorms normalise by the statistics of the whole global batch.

    Parameters and their names stay as they are, so checkpoints fit networks with and without. With one device and one worker
    nothing is changed. Frozen BatchNorms (`use_global_stats`) stay as they are. Call it after the network is initialised on
    its devices; in a job every worker must call it. A loop other than `training.fit` must give every
    device samples in every pass, or say so: group.begin(devices that have some), the passes, group.end(the same).

    Args: store: the `gluonzoo.distributed.KVStore` of the job; default: this process's, where there is one.
    Returns: the group that the layers share, or None where nothing was changed.
    Raises: UserError when the network is not initialised, a BatchNorm's channels are not its second axis, or the network is on
        several CPU devices: these share scratch memory, so that one that waits for another in mid-pass can block it for ever.
        Their part of the batch may as well be on one of them: they have the same processors.
    """
    from ..distributed import kvstore
    from ..distributed.vectors import VectorSum

    norms = [norm for norm in _batch_norms(net) if not norm._kwargs["use_global_stats"]]
    for norm in norms:
        if norm._kwargs["axis"] != 1 or norm.gamma._data is None:
            state = "not initialised" if norm.gamma._data is None else "initialised"
            raise UserError(f"{norm.name}: its axis is {norm._kwargs['axis']} and it is {state}; SyncBatchNorm takes initialised "
                            "ones over axis 1")
    store = store or kvstore._live
    contexts = norms[0].gamma.list_ctx() if norms else []
    if len(contexts) > 1 and any(ctx.device_type == "cpu" for ctx in contexts):
        raise UserError(f"SyncBatchNorm: the network is on {len(contexts)} CPU devices of one process, where one that waits for "
                        "another can block it; keep it on one of them, or start several workers")
    if not norms or len(contexts) * (1 if store is None or store.is_async else store.num_workers) == 1:
        return None
    # A waiting device holds one of the threads that run operators written in Python; MXNet reads this at the first of them.
    os.environ.setdefault("MXNET_CUSTOM_OP_NUM_THREADS", str(max(16, 16 * len(contexts))))
    sums = VectorSum(store, len(contexts), [norm.gamma.shape[0] + 1 for norm in norms for _ in range(4)])
    group = _Group(sums, contexts, norms)
    for number, norm in enumerate(norms):
        norm.__class__ = SyncBatchNorm
        norm._group, norm._key = group, 4 * number
    if isinstance(net, HybridBlock) and net._active:
        net.hybridize(True, **dict(net._flags))  # Forgets the graph that it was compiled to.
    return group
