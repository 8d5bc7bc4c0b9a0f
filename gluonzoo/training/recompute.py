"""Training in less memory: maps within segments of a network are computed again in the backward pass instead of being kept.

Source: T. Chen, B. Xu, C. Zhang, C. Guestrin, Training Deep Nets with Sublinear Memory Cost, 2016, arXiv:1604.06174, section 4.
Differences: the segments are chosen by what they hold in bytes; the last one is not computed twice, as its backward pass comes
right after it.

MXNET_BACKWARD_DO_MIRROR, MXNet's own switch for this, is not heeded in Gluon: ResNet-50 holds as much and takes as long with it.
An `mx.autograd.Function` cannot do it either: MXNet runs its backward pass in a thread of its own, after backward() has returned;
parameters' gradients are not there yet when the trainer wants them, and what that thread pushes shares scratch memory with
operators that wait for it. So the segments are gone through by the thread that trains.
"""
import ctypes

import mxnet as mx
from mxnet import autograd

from ..errors import UserError
from .segments import operators, split

__all__ = ["Recomputed"]

_DATA = "data"
#: Blocks of memory from this size on, in bytes, are the system's again as soon as they are freed; glibc's number of the setting.
_LARGE, _MMAP_THRESHOLD = 1 << 20, -3


def _give_memory_back():
    """Have the C library return large blocks when they are freed, in the whole process.

    Left alone, it keeps freed blocks of up to 32 MB for later, where blocks of other sizes do not fit in: a pass of ResNet-50
    in four segments then holds as much as the whole network.
    """
    try:
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)
    except (OSError, AttributeError):
        pass  # Another C library, with habits of its own.


class Recomputed:
    """A network that, while gradients are recorded, keeps the maps at the ends of segments only. It shares the parameters.

        segmented = Recomputed(net, 4)
        with mx.autograd.record():
            loss = loss_of(segmented(images), labels)
        loss.backward()         # through the last segment
        segmented.backward()    # computes each segment before it again, and goes back through it
        trainer.step(len(images))

    Outputs, gradients and running statistics are those of the network itself, to the bit: what MXNet computes is the same, and
    BatchNorm's running statistics move in the backward pass, of which there is one. Where a segment but the last draws random
    numbers (dropout, stochastic depth), every pass draws a seed from MXNet's stream, and each such segment draws from it and
    its own number, the same both times.

    Gradients reach the input where it has one attached. Layers that need no gradient, as they and all before them are frozen, are
    computed once. Memory passes from segment to segment, so they are not run with static_alloc, and from the first pass on the
    process gives large blocks back to the system as soon as they are free.

    Shape: as the network.
    Args: net: an initialised HybridBlock of one input with one or several outputs; after a change of its layers make a new
        `Recomputed`. segments: at most so many, from 1 (nothing is computed twice); 4 to 8 are good for most networks.
    Attributes: net; ends: after the first pass, the names of the operators with which segments end.
    Raises: UserError for another number of segments, or a network that cannot be traced or takes sums over several workers.
    """

    def __init__(self, net, segments):
        if not isinstance(net, mx.gluon.HybridBlock):
            raise UserError(f"{type(net).__name__} cannot be cut into segments; expected a HybridBlock")
        if not isinstance(segments, int) or isinstance(segments, bool) or segments < 1:
            raise UserError(f"segments is {segments!r}; expected a whole number of at least 1")
        self.net, self._segments = net, segments
        self._parts = self._passes = None
        self.ends = ()

    def __call__(self, x):
        """The network's outputs, of its own type."""
        if not autograd.is_recording():
            return self.net(x)
        if hasattr(self.net, "check_input"):
            self.net.check_input(x.shape)
        if self._parts is None:
            self._build(x.shape)
        if any(earlier.is_due() for earlier in self._passes):
            raise UserError("the losses' backward() has run and this network's own has not; expected loss.backward(), then "
                            "backward() of the Recomputed, then the next pass")
        made = _Pass(self, x)
        outputs = made.forward()
        if made.leaves:
            self._passes.append(made)
        return self._restored(outputs)

    def backward(self):
        """Go back through all segments but the last, after the backward pass of the losses.

        Passes whose outputs no loss depended on are forgotten.
        Raises: UserError when the losses' own backward has not run.
        """
        passes, self._passes = [made for made in self._passes or () if made.is_due()], []
        if not passes and self._needs_gradient:
            raise UserError("there is nothing to go back through: expected a pass under autograd.record(), and loss.backward() "
                            "before this")
        for number in reversed(range(len(self._parts) - 1)):
            for made in passes:
                made.backward(number)
        for made in passes:
            made.end()

    # Set-up

    def _build(self, shape):
        symbol = self.net(mx.sym.var(_DATA))
        self._several = isinstance(symbol, (list, tuple))
        symbols = list(symbol) if self._several else [symbol]
        if any(not isinstance(one, mx.sym.Symbol) for one in symbols):
            raise UserError(f"the outputs of {type(self.net).__name__} are nested; expected one, or a list of them")
        symbol = mx.sym.Group(symbols)
        self._parameters = {parameter.name: parameter for parameter in self.net.collect_params().values()}
        known = set(symbol.list_inputs())
        if "Custom" in operators(symbol):
            raise UserError(f"{type(self.net).__name__} has operators written in Python, SyncBatchNorm's for example, which act "
                            "each time they run; they cannot be computed twice")
        shapes = {name: parameter.shape for name, parameter in self._parameters.items() if name in known}
        parts, self._heads = split(symbol, {_DATA: shape, **shapes}, self._segments)
        self._parts = [_Compiled(part, self._parameters) for part in parts]
        self.ends, self._passes = tuple(part.last for part in parts), []
        if len(parts) > 1:
            _give_memory_back()

    @property
    def _needs_gradient(self):
        return self._parts is None or any(part.trains for part in self._parts[:-1])

    def _restored(self, outputs):
        """Outputs in the network's own type."""
        named = getattr(self.net, "_outputs", None)
        if named is not None:
            return named(*outputs)
        return outputs if self._several else outputs[0]


class _Compiled:
    """A segment that can be run."""

    def __init__(self, segment, parameters):
        self.inputs, self.outputs, self.draws = list(segment.inputs.values()), segment.outputs, segment.draws
        self._op = mx.nd.CachedOp(segment.symbol, [])
        self._order = [segment.inputs.get(name) or parameters[name] for name in segment.symbol.list_inputs()]
        self._own = [one for one in self._order if isinstance(one, mx.gluon.Parameter)]

    @property
    def trains(self):
        """Whether any of its parameters gets a gradient."""
        return any(parameter.grad_req != "null" for parameter in self._own)

    def run(self, arrays, ctx):
        """{entry: array} of its outputs, from {entry: array}."""
        found = self._op(*[one.data(ctx) if isinstance(one, mx.gluon.Parameter) else arrays[one] for one in self._order])
        return dict(zip(self.outputs, found if isinstance(found, list) else [found]))


class _Pass:
    """One forward pass and what its backward pass needs: the maps between segments."""

    def __init__(self, owner, x):
        self._parts, self._heads, self._x = owner._parts, owner._heads, x
        self._training = autograd.is_training()
        trains = [part.trains for part in self._parts]
        #: The first segment through which gradients go; the input of the first one may ask for one too.
        self._first = 0 if x.grad is not None else trains.index(True) if True in trains else len(trains)
        drawing = any(part.draws for part in self._parts[:-1])
        self._seed = int(mx.nd.random.randint(0, 2**31 - 1, ctx=x.context).asscalar()) if drawing else None
        self._maps, self._gradients, self.leaves = {}, {}, {}

    def _sow(self, number):
        """Set the random numbers that a segment draws."""
        if self._seed is not None and self._parts[number].draws:
            mx.random.seed((self._seed + 7919 * number) % (2**31 - 1), ctx=self._x.context)

    def _arrays(self, number):
        """{entry: array} of a segment's inputs; leaves, which get gradients, where these lead on. And those leaves."""
        arrays, leaves = {}, {}
        for entry in self._parts[number].inputs:
            arrays[entry] = self._x if entry not in self._maps else self._maps[entry].detach()
            if entry in self._maps and self._first < number:
                arrays[entry].attach_grad()
                leaves[entry] = arrays[entry]
        return arrays, leaves

    def forward(self):
        """The outputs: the last segment's, recorded, and leaves in the place of what earlier ones gave."""
        last = len(self._parts) - 1
        with autograd.pause(train_mode=self._training):
            for number, part in enumerate(self._parts[:-1]):
                self._sow(number)
                self._maps.update(part.run(self._arrays(number)[0] if number else {entry: self._x for entry in part.inputs},
                                           self._x.context))
                self._forget(number)
        arrays, self.leaves = self._arrays(last)
        found = self._parts[last].run(arrays, self._x.context)
        outputs = []
        for entry in self._heads:
            if entry not in found:
                found[entry] = arrays[entry] if entry in arrays else self._maps[entry].detach()
                if entry not in arrays and self._first <= last:
                    found[entry].attach_grad()
                    self.leaves[entry] = found[entry]
            outputs.append(found[entry])
        return outputs

    def _forget(self, number):
        """Drop maps that no gradient will be asked through and no later segment reads."""
        if self._first <= number:
            return
        later = {entry for part in self._parts[number + 1:] for entry in part.inputs} | set(self._heads)
        self._maps = {entry: array for entry, array in self._maps.items() if entry in later}

    def is_due(self):
        """Whether the losses' backward pass has come to the last segment's inputs."""
        return any(leaf._fresh_grad for leaf in self.leaves.values())

    def _collect(self, leaves):
        """Take over the leaves' gradients, and wait for them: operators of segments before would else run before those of
        this one that still hold its maps."""
        for entry, leaf in leaves.items():
            leaf.grad.wait_to_read()
            before = self._gradients.get(entry)
            self._gradients[entry] = leaf.grad if before is None else before + leaf.grad

    def backward(self, number):
        """Compute a segment again and go back through it."""
        if self.leaves:
            self._collect(self.leaves)
            self.leaves = {}
        if number < self._first:
            return
        part = self._parts[number]
        arrays, leaves = self._arrays(number)
        self._sow(number)
        with autograd.record(train_mode=self._training):
            found = part.run(arrays, self._x.context)
        heads = [entry for entry in found if entry in self._gradients]
        autograd.backward([found[entry] for entry in heads], [self._gradients.pop(entry) for entry in heads],
                          train_mode=self._training)
        for entry in part.outputs:
            self._maps.pop(entry, None)
        del found, arrays
        self._collect(leaves)

    def end(self):
        """Leave a stream of random numbers behind in which none comes again."""
        if self._seed is not None:
            mx.random.seed((self._seed + 7919 * len(self._parts)) % (2**31 - 1), ctx=self._x.context)
