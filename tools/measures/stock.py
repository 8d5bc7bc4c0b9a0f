"""Stock MXNet as a person has it who cured the import by hand: NumPy's old names are there, nothing else is changed."""
import ctypes
import importlib.util
import os

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
spec = importlib.util.spec_from_file_location("runtime", os.path.join(ROOT, "gluonzoo", "runtime.py"))
runtime = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runtime)
runtime._add_numpy_aliases()
runtime._provide_distutils()


def prepare():
    """Import MXNet; what else gluonzoo cures of its Python package comes with gluonzoo's own import."""
    import mxnet  # noqa: F401


def set_caller_threads(threads):
    """OpenMP's threads of the calling thread, which gluonzoo's import sets to one."""
    from mxnet.base import _LIB
    _LIB.MXSetNumOMPThreads(ctypes.c_int(threads))
