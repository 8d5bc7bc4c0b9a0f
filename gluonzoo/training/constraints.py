"""What weights must be after every update: zero where they are pruned, equal where they are shared.

A constraint is given to a `Trainer` as its ``constraint``. Before the gradients of an update are summed over devices and workers
the trainer has it put right this worker's gradients, so that norms, optimizer state and what travels know nothing of weights that
are not free; after the update, the weights, whatever the optimizer did.
"""
import mxnet as mx
import numpy as np

from ..errors import UserError

__all__ = ["Constraint", "Masks", "Tied"]


class Constraint:
    """The weights of some parameters that are not free.

    Args: parameters: {name: Parameter}, on the same devices.
    """

    def __init__(self, parameters):
        self.parameters = dict(parameters)

    def _each(self):
        """(name, device's number, weight, gradient) of all parameters on all devices."""
        for name, parameter in self.parameters.items():
            for device, pair in enumerate(zip(parameter.list_data(), parameter.list_grad())):
                yield (name, device, *pair)

    def on_gradients(self):
        """Put right the gradients that backward() left."""
        raise NotImplementedError

    def on_weights(self):
        """Put right the weights that an update left, on all devices."""
        for name, device, weight, _ in self._each():
            self.put_right(name, device, weight)

    def on_average(self, averages):
        """Put right averages of the weights, {name: NDArray} on the first device; other names may be among them."""
        for name in self.parameters:
            if name in averages:
                self.put_right(name, 0, averages[name])

    def put_right(self, name, device, array):
        """Put right one array that is, or is like, a parameter on a device."""
        raise NotImplementedError

    def state(self):
        """What `load` takes, {name: NumPy array}, for a checkpoint."""
        raise NotImplementedError


def _wanted(values, name, kind):
    if name not in values:
        raise UserError(f"{kind} of {name} is missing; the file is another network's or was made with other settings")
    return values[name]


class Masks(Constraint):
    """Weights that stay exactly zero (positive zero) where a mask is False; at first none does.

    Attributes: masks: {name: NumPy bool array of the parameter's shape}.
    """

    def __init__(self, parameters):
        super().__init__(parameters)
        self.masks, self._arrays = {}, {}

    def set(self, masks):
        """Take over masks {name: bool array} of all parameters, and apply them to the weights.

        Raises: UserError for a mask of another shape or one that is missing; nothing is changed then.
        """
        for name, parameter in self.parameters.items():
            shape = np.shape(_wanted(masks, name, "the mask"))
            if shape != tuple(parameter.shape):
                raise UserError(f"the mask of {name} has shape {shape}; expected {tuple(parameter.shape)}")
        self.masks = {name: np.array(masks[name], dtype=bool) for name in self.parameters}
        self._arrays = {name: [mx.nd.array(self.masks[name], ctx=weight.context, dtype=weight.dtype)
                               for weight in parameter.list_data()] for name, parameter in self.parameters.items()
                        if not self.masks[name].all()}
        self.on_weights()

    def on_gradients(self):
        for name, device, _, gradient in self._each():
            if name in self._arrays:
                mx.nd.elemwise_mul(gradient, self._arrays[name][device], out=gradient)

    def put_right(self, name, device, array):
        if name in self._arrays:
            mask = self._arrays[name][device]
            mx.nd.elemwise_mul(array, mask if mask.dtype == array.dtype else mask.astype(array.dtype), out=array)
            # A negative weight times 0 is -0.0, which is 0 in arithmetic and not in a file; -0.0 + 0.0 is 0.0.
            mx.nd._internal._plus_scalar(array, scalar=0.0, out=array)

    def state(self):
        """{name: (ceil(size / 8),) uint8}, a bit for each weight."""
        return {name: np.packbits(mask, axis=None) for name, mask in self.masks.items()}

    def load(self, values):
        """Go on from what `state` returned. Raises: UserError when it is another network's; nothing is changed then."""
        masks = {}
        for name, parameter in self.parameters.items():
            raw, size = _wanted(values, name, "the mask"), int(np.prod(parameter.shape))
            if raw.dtype != np.uint8 or raw.shape != (-(-size // 8),):
                raise UserError(f"the mask of {name} has {raw.size} bytes of {raw.dtype}; expected {-(-size // 8)} of uint8")
            masks[name] = np.unpackbits(raw, count=size).astype(bool).reshape(parameter.shape)
        self.set(masks)


class Tied(Constraint):
    """Weights that are one number wherever their cluster is the same, and zero in cluster 0 where that is the pruned one.

    Every weight of a cluster gets the sum of the cluster's gradients, which is the gradient of the cluster's centre, so that the
    optimizer makes the same update of all of them; afterwards they take the bits of the first one.
    Source: Han, Mao, Dally, "Deep Compression", 2016, section 3.3.

    Args: indices: {name: NumPy array of cluster numbers from 0, of the parameter's shape}; zeros: names whose cluster 0 is zero.
    """

    def __init__(self, parameters, indices, zeros=()):
        super().__init__(parameters)
        self.indices, self.zeros = {}, set(zeros)
        for name, parameter in self.parameters.items():
            found = _wanted(indices, name, "the clusters")
            if found.shape != tuple(parameter.shape):
                raise UserError(f"the clusters of {name} have shape {found.shape}; expected {tuple(parameter.shape)}")
            self.indices[name] = found.astype(np.uint16)
        self._tables = {name: [self._table(name, weight.context, weight.dtype) for weight in parameter.list_data()]
                        for name, parameter in self.parameters.items()}
        self.on_weights()

    def _table(self, name, ctx, dtype):
        """(Rows of ones where each cluster's weights are, first weight of each cluster, clusters of weights, free clusters)."""
        flat = self.indices[name].reshape(-1).astype(np.int64)
        counts = np.bincount(flat)
        order = np.argsort(flat, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts)])
        if not counts.all():
            raise UserError(f"{name} has clusters without weights; expected numbers 0 to {len(counts) - 1}, each used")
        free = np.ones(len(counts), dtype="float32")
        if name in self.zeros:
            free[0] = 0
        rows = mx.nd.sparse.csr_matrix((np.repeat(free, counts), order, starts), shape=(len(counts), flat.size), ctx=ctx,
                                       dtype="float32")
        return (rows, mx.nd.array(order[starts[:-1]], ctx=ctx, dtype="int32"), mx.nd.array(flat, ctx=ctx, dtype="int32"),
                mx.nd.array(free, ctx=ctx, dtype=dtype))

    def on_gradients(self):
        for name, device, _, gradient in self._each():
            rows, _, clusters, _ = self._tables[name][device]
            sums = mx.nd.sparse.dot(rows, gradient.reshape((-1, 1)).astype("float32"))
            mx.nd.take(sums.reshape((-1,)), clusters).reshape(gradient.shape).astype(gradient.dtype).copyto(gradient)

    def put_right(self, name, device, array):
        _, firsts, clusters, free = self._tables[name][device]
        free = free if free.dtype == array.dtype else free.astype(array.dtype)
        codes = mx.nd.take(array.reshape((-1,)), firsts) * free + 0.0
        mx.nd.take(codes, clusters).reshape(array.shape).copyto(array)

    def state(self):
        """{name: clusters, int32; those with a cluster of zeros under "zero:" + name}."""
        return {("zero:" if name in self.zeros else "") + name: found.astype(np.int32) for name, found in self.indices.items()}

    @classmethod
    def restored(cls, parameters, values):
        """A constraint from what `state` returned. Raises: UserError when it is another network's."""
        zeros = {name[5:] for name in values if name.startswith("zero:")}
        named = {name[5:] if name.startswith("zero:") else name: value for name, value in values.items()}
        if set(named) != set(parameters):
            raise UserError(f"clusters of {len(named)} layers; the settings share {len(parameters)}: another network's or others")
        return cls(parameters, named, zeros)
