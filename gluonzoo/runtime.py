"""What must happen before and right after MXNet is imported, in one place.

MXNet 1.9.1 was released for NumPy 1.x, for Python with ``distutils``, and for processors with
hyper-threads. This module is imported first by :mod:`gluonzoo` and

- gives NumPy the old names that MXNet reads (`NUMPY_ALIASES`; only those that are absent),
- keeps ``import mxnet`` from importing packages that MXNet merely looks for (`OPTIONAL_PACKAGES`),
- sets MXNet's OpenMP threads to the processors this process may use, unless the user set ``OMP_NUM_THREADS``, and lets
  them wait awake while these are free (`spinning`), unless the user set ``OMP_WAIT_POLICY`` or ``GOMP_SPINCOUNT``,
- keeps the importing thread to itself, so that only the engine's thread has a team of threads (`_lone_caller`),
- imports MXNet as a worker even in a server's process, so that the import returns,
- cures, inside MXNet's own modules, what NumPy 2 breaks (`_cure_numpy2`).

Nothing else of the user's NumPy, environment or process is changed.
"""
import contextlib
import ctypes
import importlib
import importlib.util
import math
import os
import sys
import types
import warnings

import numpy as np

__all__ = ["NUMPY_ALIASES", "OPTIONAL_PACKAGES", "cgroup_quota", "available_cpus", "default_threads", "set_threads",
           "threads_in_use", "load_library", "prepare"]

#: Old NumPy names that MXNet 1.9.1 reads, and what they stand for. Set only where NumPy has no such name.
NUMPY_ALIASES = {
    "bool": np.bool_, "int": int, "float": float, "object": object, "str": str, "complex": complex,
    "PZERO": 0.0, "NZERO": -0.0, "PINF": np.inf, "NINF": -np.inf, "Inf": np.inf, "Infinity": np.inf, "infty": np.inf,
    "NaN": np.nan, "NAN": np.nan,
    # Functions that mxnet.numpy_op_fallback looks up by name; NumPy dropped them without replacement.
    "mirr": None, "npv": None, "pmt": None, "ppmt": None, "pv": None, "rate": None,
    "float_": np.float64, "complex_": np.complex128, "unicode_": np.str_, "string_": np.bytes_,
    "int0": np.intp, "uint0": np.uintp,
    "product": np.prod, "cumproduct": np.cumprod, "sometrue": np.any, "alltrue": np.all, "in1d": np.isin,
    "trapz": getattr(np, "trapezoid", None), "row_stack": np.vstack, "round_": np.round,
    "msort": lambda a: np.sort(a, axis=0),
}

#: Packages that ``import mxnet`` would import when they are installed, though it needs none of them.
OPTIONAL_PACKAGES = ("onnx", "scipy", "sklearn", "torch", "matplotlib", "tensorboard", "mxboard", "cv2")

#: Turns a thread of OpenMP waits awake where processors are free: a few milliseconds, libgomp's own default. See `spinning`.
SPIN_COUNT = 300000

#: Variables by which a user decides how OpenMP's threads wait.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")

_watcher = None


def _add_numpy_aliases():
    for name, value in NUMPY_ALIASES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Reading a deprecated name warns.
            present = hasattr(np, name)
        if not present:
            setattr(np, name, value)


def cgroup_quota(groups="/proc/self/cgroup", root="/sys/fs/cgroup"):
    """Processors that the control group grants (a float), or None where there is no limit. Reads v1 and v2.

    Args: groups: the file that lists this process's control groups; root: where they are mounted.
    """
    def read(path):
        try:
            with open(path) as file:
                return file.read().split()
        except OSError:
            return None

    quotas = []
    for line in read(groups) or ():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mounts, names = ("", "unified"), ("cpu.max",)
        elif "cpu" in controllers.split(","):
            mounts, names = ("cpu", "cpu,cpuacct"), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        else:
            continue
        parts = [part for part in group.split("/") if part and part != ".."]
        # A limit on any ancestor holds for this process too.
        for mount in mounts:
            for depth in range(len(parts) + 1):
                values = [read(os.path.join(root, mount, *parts[:depth], name)) for name in names]
                if any(value is None for value in values):
                    continue
                quota, period = (values[0] if len(names) == 1 else (values[0][0], values[1][0]))[:2]
                if quota not in ("max", "-1") and float(period) > 0:
                    quotas.append(float(quota) / float(period))
    return min(quotas) if quotas else None


def available_cpus():
    """Processors this process may use: its affinity mask, cut to the control group's quota. At least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    if quota is not None:
        count = min(count, max(1, math.floor(quota + 1e-6)))
    return max(1, count)


def default_threads():
    """OpenMP threads for this process: `available_cpus` shared by the local workers (GLUONZOO_LOCAL_WORKERS)."""
    told = os.environ.get("GLUONZOO_LOCAL_WORKERS", "1")
    try:
        workers = int(told)
        if workers < 1:
            raise ValueError
    except ValueError:
        raise ValueError(f"GLUONZOO_LOCAL_WORKERS is {told!r}; expected a whole number of at least 1") from None
    return max(1, available_cpus() // workers)


class _Context(ctypes.Structure):
    """mxnet::Context: device type (1 is CPU) and number."""

    _fields_ = [("dev_type", ctypes.c_int32), ("dev_id", ctypes.c_int32)]


def _in_engine_thread(function, ctx):
    """Run a Python function in the thread in which MXNet's engine runs a CPU device's operators, and wait for it."""
    import mxnet as mx
    from mxnet.base import _LIB, check_call

    errors = []

    def call(_, __):
        try:
            function()
        except Exception as error:
            errors.append(error)

    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(call)
    # An array to write makes the call an operator that can be waited for.
    array = mx.nd.zeros((1,), ctx=ctx)
    handles = (ctypes.c_void_p * 1)(array.handle)
    check_call(_LIB.MXEnginePushSyncND(callback, None, None, ctypes.byref(_Context(1, ctx.device_id)), None, ctypes.c_int(0),
                                       handles, ctypes.c_int(1), None, ctypes.c_int(0), b"gluonzoo.runtime"))
    array.wait_to_read()
    if errors:
        raise errors[0]


def _lone_caller():
    """Let the calling thread use one thread where it calls OpenMP itself: to copy an array in, to reorder one on the way out.

    libgomp counts the threads of all teams. With more of them than processors it lets waiting threads sleep almost at once, and
    waking one costs more than many operators take: with a team for Python's thread beside the one of the engine's, which does
    the work, SqueezeNet took 1.7 times as long for an image and LeNet-5 for an update on two processors.
    """
    from mxnet.base import _LIB, check_call
    if os.environ.get("MXNET_ENGINE_TYPE") != "NaiveEngine":  # Which computes in the calling thread.
        check_call(_LIB.MXSetNumOMPThreads(ctypes.c_int(1)))


def _watch(threads):
    """Start what switches the waiting of OpenMP's threads, once, where there are several and the user said nothing about it."""
    global _watcher
    if threads is None:
        try:
            threads = int(os.environ["OMP_NUM_THREADS"].split(",")[0])
        except ValueError:
            return
    if _watcher is None and threads > 1 and not any(os.environ.get(name) for name in _WAITING):
        from .spinning import Watch
        _watcher = Watch(threads).start()


def set_threads(threads, contexts=None):
    """Set MXNet's OpenMP threads in this process, also after MXNet has been imported and has run operators.

    OpenMP keeps the number per calling thread, and MXNet's own call (MXSetNumOMPThreads) reaches only the caller's; the
    operators run in a thread of the engine, one a CPU device, so the number is set there. The calling thread keeps to itself
    (`_lone_caller`).

    Args: contexts: the CPU devices; default mx.cpu(0).
    Raises: ValueError when threads is below 1.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}; expected at least 1")
    import mxnet as mx
    from mxnet.base import _LIB, check_call

    def apply():
        check_call(_LIB.MXSetNumOMPThreads(ctypes.c_int(threads)))

    for ctx in contexts or [mx.cpu(0)]:
        if ctx.device_type == "cpu":
            _in_engine_thread(apply, ctx)
    _lone_caller()


def threads_in_use(ctx=None):
    """OpenMP threads that an operator on a CPU device (default mx.cpu(0)) may use, asked where it runs."""
    import mxnet as mx
    found = []
    library = ctypes.CDLL("libgomp.so.1")
    _in_engine_thread(lambda: found.append(library.omp_get_max_threads()), ctx or mx.cpu(0))
    return found[0]


@contextlib.contextmanager
def _environment(**values):
    """The environment with these variables (None removes one), restored at the end."""
    before = {name: os.environ.get(name) for name in values}
    try:
        for name, value in values.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


@contextlib.contextmanager
def _without(packages):
    """While active, importing any of `packages` that is not imported yet raises ImportError."""
    hidden = [name for name in packages if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name, 0) is None:
                del sys.modules[name]


def _provide_distutils():
    """MXNet imports distutils, which left the standard library in 3.12; setuptools brings its own copy."""
    if sys.version_info >= (3, 12) and "distutils" not in sys.modules:
        try:
            import setuptools  # noqa: F401  (importing it installs the distutils finder)
        except ImportError as error:
            raise ImportError("MXNet needs distutils, which Python 3.12 and later get from setuptools: "
                              "pip install setuptools") from error


class _LazyStats:
    """Stands in for scipy.stats inside mxnet.contrib.quantization until entropy calibration asks for it."""

    def __getattr__(self, name):
        from scipy import stats
        return getattr(stats, name)


class _LazyOpenCV:
    """Stands in for cv2 inside MXNet's modules until one of them uses it: its import takes long and sets LD_LIBRARY_PATH."""

    def __getattr__(self, name):
        import cv2
        return getattr(cv2, name)


class _LazyExporter(types.ModuleType):
    """Stands in for mxnet.onnx until it is used. It enters its operators while it is imported, and only where onnx can be."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        for known in [known for known in sys.modules if (known + ".").startswith("mxnet.onnx.")]:
            del sys.modules[known]
        return getattr(importlib.import_module("mxnet.onnx"), name)


def _attribute_text(value):
    """How an operator's attribute is written for MXNet's C++ side: NumPy scalars inside tuples as plain numbers.

    NumPy 2 prints ``(np.int64(3),)`` where MXNet's parser expects ``(3,)``.
    """
    def plain(item):
        if isinstance(item, np.generic):
            return item.item()
        if isinstance(item, (tuple, list)) and type(item) in (tuple, list):
            return type(item)(plain(part) for part in item)
        return item

    return str(plain(value)) if isinstance(value, (tuple, list)) else str(value)


def _cure_numpy2():
    """Repair MXNet's own modules where NumPy 2 broke them; NumPy itself stays as it is."""
    import mxnet._ctypes.ndarray
    import mxnet._ctypes.symbol
    # These two modules call str() only to write attributes and contain no isinstance test against it.
    mxnet._ctypes.ndarray.str = _attribute_text
    mxnet._ctypes.symbol.str = _attribute_text


def _cure_recordio():
    """recordio.pack and pack_img call ndarray.tostring, which NumPy 2.3 removed."""
    import struct

    from mxnet import recordio

    def pack(header, s):
        """Pack header and bytes into one record; the label may be a number or a 1-D array of float32."""
        header = recordio.IRHeader(*header)
        if isinstance(header.label, (int, float, np.generic)):
            return struct.pack(recordio._IR_FORMAT, *header._replace(flag=0)) + s
        label = np.asarray(header.label, dtype=np.float32)
        header = header._replace(flag=label.size, label=0)
        return struct.pack(recordio._IR_FORMAT, *header) + label.tobytes() + s

    def pack_img(header, img, quality=95, img_fmt=".jpg"):
        """Encode an image (H, W, C) of BGR bytes as JPEG or PNG with OpenCV and pack it."""
        import cv2
        flag = cv2.IMWRITE_PNG_COMPRESSION if img_fmt.lower() == ".png" else cv2.IMWRITE_JPEG_QUALITY
        done, encoded = cv2.imencode(img_fmt, img, [flag, quality])
        if not done:
            raise ValueError(f"OpenCV could not encode an image of shape {np.shape(img)} as {img_fmt}")
        return pack(header, encoded.tobytes())

    recordio.pack, recordio.pack_img = pack, pack_img


def _import_environment():
    """Variables for the time in which MXNet's library is loaded; child processes decide for themselves later."""
    scope = {}
    if not os.environ.get("OMP_NUM_THREADS"):
        scope["OMP_NUM_THREADS"] = str(default_threads())
    if not any(os.environ.get(name) for name in _WAITING):
        scope["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
    return scope


def load_library():
    """MXNet's C library without its Python package, which takes most of the import's time; for servers.

    Returns: a ctypes library, or None when it is not where the package has it (`prepare` tells more then).
    """
    found = importlib.util.find_spec("mxnet")
    paths = [os.path.join(folder, "libmxnet.so") for folder in (found.submodule_search_locations if found else None) or ()]
    if os.environ.get("MXNET_LIBRARY_PATH") or not paths or not os.path.isfile(paths[0]):
        return None
    with _environment(**_import_environment()):
        library = ctypes.CDLL(paths[0], ctypes.RTLD_LOCAL)
    library.MXGetLastError.restype = ctypes.c_char_p
    return library


def prepare():
    """Import MXNet on this machine's Python and NumPy, cured and with the right number of threads. Idempotent.

    Returns: the mxnet module.
    Raises: ImportError with the command to run when mxnet, or what it needs, is not installed.
    """
    already = "mxnet" in sys.modules
    threads = None if os.environ.get("OMP_NUM_THREADS") else default_threads()
    _add_numpy_aliases()
    _provide_distutils()
    # In a server's process MXNet would enter its own server loop, which unpickles what it receives, inside the import.
    scope = {"DMLC_ROLE": "worker"} if os.environ.get("DMLC_ROLE") in ("server", "scheduler") else {}
    try:
        with _environment(**scope, **_import_environment()), _without(OPTIONAL_PACKAGES):
            import mxnet
            import mxnet.contrib.quantization as quantization
    except ModuleNotFoundError as error:
        if error.name != "mxnet":
            raise
        hint = "pip install --no-deps mxnet==1.9.1" if sys.version_info >= (3, 13) else "pip install mxnet==1.9.1"
        raise ImportError(f"gluonzoo needs MXNet: {hint}") from error
    if getattr(quantization, "stats", 0) is None:
        quantization.stats = _LazyStats()
    for module in (mxnet.recordio, mxnet.image.image):
        if module.cv2 is None and importlib.util.find_spec("cv2") is not None:
            module.cv2 = _LazyOpenCV()
    if not already and importlib.util.find_spec("onnx") is not None:
        lazy = _LazyExporter("mxnet.onnx", mxnet.onnx.__doc__)
        lazy.__path__, lazy.__spec__ = mxnet.onnx.__path__, mxnet.onnx.__spec__
        for known in [known for known in sys.modules if known.startswith("mxnet.onnx.")]:
            del sys.modules[known]
        sys.modules["mxnet.onnx"] = mxnet.onnx = lazy
    if already and threads is not None:
        set_threads(threads)
    else:
        _lone_caller()
    _watch(threads)
    if int(np.__version__.split(".")[0]) >= 2:
        _cure_numpy2()
    if not hasattr(np.ndarray, "tostring"):
        _cure_recordio()
    return mxnet
