"""What a run runs on: processor, memory, versions. Kept in the run's log, so that its speed means something later."""
import os
import platform

import mxnet as mx
import numpy as np

from .. import runtime
from .._version import __version__

__all__ = ["machine_facts"]


def _processor():
    """The processor's name as its maker gives it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Model", "cpu model") and value.strip():
                    return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory():
    """Bytes of memory of the machine, or None."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _threads():
    """MXNet's OpenMP threads, or None where they cannot be asked for."""
    try:
        return runtime.threads_in_use()
    except (OSError, AttributeError):
        return None


def machine_facts(contexts=(), workers=1):
    """Facts by name, as JSON can hold them; nothing that names the host or its user.

    cpu; cores, those this process may use; memory_bytes, of the machine; system, python, mxnet, numpy, gluonzoo: versions;
    threads, MXNet's OpenMP threads; workers, of the job; devices, of this worker.
    """
    return {"cpu": _processor(), "cores": runtime.available_cpus(), "memory_bytes": _memory(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}", "python": platform.python_version(),
            "mxnet": mx.__version__, "numpy": np.__version__, "gluonzoo": __version__, "threads": _threads(),
            "workers": int(workers), "devices": ", ".join(map(str, contexts)) or "cpu(0)"}
