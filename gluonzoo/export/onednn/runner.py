"""Plans as something that a Gluon block calls: NDArray in, NDArrays out, in order with MXNet's own operators."""
import ctypes
import itertools
import threading
import warnings
import weakref

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, check_call

from ...runtime import _Context, _in_engine_thread
from .calls import address_of, task_address
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
        self._device = _Context(1, ctx.device_id)
        self._task, self._runs, self._lock = task_address(), [], threading.Lock()
        self._changed = (ctypes.c_void_p * (len(plan.forms) + 1))()
        self._changed[len(plan.forms)] = self._busy.handle

    def __del__(self):
        # What the engine has not run yet must stay where it is.
        _left[:] = [run for run in _left + getattr(self, "_runs", []) if not run.done]

    @property
    def size(self):
        """Bytes of memory for maps."""
        return self._plan.size

    def __call__(self, x):
        # An address exists when the values do.
        x.wait_to_read()
        outputs = [mx.nd.empty(form, ctx=self._ctx) for form in self._plan.forms]
        source, targets = _address(x), [_address(output) for output in outputs]
        sizes = [output.size for output in outputs]
        with self._lock:
            self._push(x, outputs, source, targets, sizes)
        return outputs

    def _push(self, x, outputs, source, targets, sizes):
        if self._task is None:
            token = next(_tokens)
            _waiting[token] = self._plan, source, targets, sizes
            function, argument = _in_python, token
        else:
            run = next((run for run in self._runs if run.done), None)
            if run is None:
                run = _Run(self._plan)
                self._runs.append(run)
            run.prepare(source, targets, sizes)
            function, argument = self._task, run.address
        for place, output in enumerate(outputs):
            self._changed[place] = output.handle
        check_call(_LIB.MXEnginePushSyncND(
            ctypes.c_void_p(function) if isinstance(function, int) else function, ctypes.c_void_p(argument), None,
            ctypes.byref(self._device), (ctypes.c_void_p * 1)(x.handle), ctypes.c_int(1), self._changed,
            ctypes.c_int(len(self._changed)), None, ctypes.c_int(0), b"gluonzoo.onednn"))


class _Run:
    """The calls of one run as the engine makes them, without Python; used again when that run is done."""

    def __init__(self, plan):
        self._plan = plan
        # The last call tells the time: that it is not zero any more says that the run is done.
        self._time = np.ones(2, dtype=np.int64)
        last = np.array([[address_of(ctypes.CDLL(None).clock_gettime), 1, self._time.ctypes.data, 0, 0]], dtype=np.uint64)
        self._rows = np.concatenate([plan.rows, last])
        self._where = np.array([self._rows.ctypes.data, len(self._rows), address_of(_failed)], dtype=np.uint64)
        self.address = self._where.ctypes.data
        self._targets = []

    @property
    def done(self):
        """Whether the engine is through with it."""
        return self._time[0] != 0

    def prepare(self, source, targets, sizes):
        self._plan.point(self._rows, source, targets)
        self._targets = targets, sizes
        self._time[:] = 0
        _running[self.address] = self

    def fail(self, status):
        _fill_with_nan(*self._targets, f"oneDNN returned status {status}")
        self._time[:] = 1


def _fill_with_nan(targets, sizes, why):
    """The engine has no way of telling: numbers that nobody takes for an answer do."""
    for address, size in zip(targets, sizes):
        np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (size,))[:] = np.nan
    warnings.warn(f"a network run by oneDNN failed, its outputs are NaN: {why}", RuntimeWarning, stacklevel=2)


def _run_in_python(_, token):
    plan, source, targets, sizes = _waiting.pop(token)
    try:
        plan.run(source, targets)
    except Exception as error:
        _fill_with_nan(targets, sizes, error)


def _run_failed(address, status):
    _running[address].fail(status)


#: Runs of blocks that are gone, by which the engine may still have to go.
_left = []
_running = weakref.WeakValueDictionary()
#: Runs in Python that were asked for and have not begun.
_waiting, _tokens = {}, itertools.count(1)
#: What the engine is given is never freed.
_in_python = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(_run_in_python)
_failed = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)(_run_failed)


def _address(array):
    pointer = ctypes.c_void_p()
    check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    return pointer.value
