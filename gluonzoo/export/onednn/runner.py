"""Plans as something that a Gluon block calls: NDArray in, NDArrays out, in order with MXNet's own operators."""
import ctypes
import itertools
import warnings

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, check_call

from ...runtime import _Context, _in_engine_thread
from .candidates import Costs
from .library import load
from .lowering import Unsupported
from .plan import make_plan

__all__ = ["Direct", "Runner", "Unsupported"]


class Direct:
    """A network's graphs, to be compiled for one shape of input after the other.

    Args:
        graphs: `Graph`s of one function, of which the fastest is taken.
        library: of `library.load`.
    """

    def __init__(self, graphs, library):
        self._graphs, self.library = graphs, library
        self._weights, self._costs = {}, Costs(library)

    @classmethod
    def of(cls, graphs):
        """As the constructor; None where there is no library."""
        library = load()
        return None if library is None else cls(graphs, library)

    @property
    def name(self):
        """As people know it: "onednn 2.6.0"."""
        return "onednn " + ".".join(map(str, self.library.version))

    def compile(self, shape, ctx, winograd=True):
        """A `Runner` for inputs (N, C, H, W) on a CPU device. Measures what is fastest, for a second or a few.

        Raises: Unsupported when the network has something that oneDNN has not.
        """
        made = []

        def make():
            # There, because oneDNN cuts the work for the threads that the caller may use.
            try:
                made.append(make_plan(self.library, self._graphs, tuple(shape), self._weights, self._costs, winograd))
            except Unsupported as error:
                made.append(error)

        _in_engine_thread(make, ctx)
        if isinstance(made[0], Unsupported):
            raise made[0]
        return Runner(made[0], ctx)


class Runner:
    """A plan on a CPU device. Called with an NDArray of its shape it returns its outputs, a list, at once: like MXNet's operators
    it runs in the engine's thread when its input is there, and whoever reads an output waits for it.
    """

    def __init__(self, plan, ctx):
        self._plan, self._ctx = plan, ctx
        # Written by each run: two never run at a time, for they have one memory.
        self._busy = mx.nd.zeros((1,), ctx=ctx)

    @property
    def size(self):
        """Bytes of memory for maps."""
        return self._plan.size

    def __call__(self, x):
        # An address exists when the values do.
        x.wait_to_read()
        outputs = [mx.nd.empty(form, ctx=self._ctx) for form in self._plan.forms]
        token = next(_tokens)
        _waiting[token] = self._plan, _address(x), [(_address(output), output.size) for output in outputs]
        changed = (ctypes.c_void_p * (len(outputs) + 1))(*[array.handle for array in outputs + [self._busy]])
        check_call(_LIB.MXEnginePushSyncND(
            _function, ctypes.c_void_p(token), None, ctypes.byref(_Context(1, self._ctx.device_id)),
            (ctypes.c_void_p * 1)(x.handle), ctypes.c_int(1), changed, ctypes.c_int(len(changed)), None, ctypes.c_int(0),
            b"gluonzoo.onednn"))
        return outputs


def _run(_, token):
    plan, source, targets = _waiting.pop(token)
    try:
        plan.run(source, [address for address, _ in targets])
    except Exception as error:
        # The engine has no way of telling: numbers that nobody takes for an answer do.
        for address, size in targets:
            np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (size,))[:] = np.nan
        warnings.warn(f"a network run by oneDNN failed, its outputs are NaN: {error}", RuntimeWarning, stacklevel=2)


#: Runs that were asked for and have not begun; the engine is given one function for all, which is never freed while it runs.
_waiting, _tokens = {}, itertools.count(1)
_function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(_run)


def _address(array):
    pointer = ctypes.c_void_p()
    check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    return pointer.value
