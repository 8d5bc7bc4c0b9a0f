"""What every test room shares: the repository's root, real data, a clean environment, memory given back."""
import gc
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# One worker's environment must never leak into tests that make their own.
for name in [name for name in os.environ if name.startswith("DMLC_") or name == "GLUONZOO_RESTART"]:
    del os.environ[name]

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# Before any test module imports mxnet, which on Python 3.12 and later works only after gluonzoo's cures.
import gluonzoo  # noqa: E402, F401

_kept = 0  # Bytes this process held after the last collection.


@pytest.fixture(autouse=True)
def memory_is_given_back():
    """Blocks are cycles: few objects, so that Python is in no hurry to collect them, and gigabytes of arrays."""
    global _kept
    yield
    if _resident() > _kept + (300 << 20):
        gc.collect()
        _kept = _resident()


def _resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def root():
    """The checkout."""
    return ROOT


@pytest.fixture
def run_program(tmp_path):
    """Run a program of the checkout to its end: run_program("tools/train.py", "--help") -> CompletedProcess (text)."""
    import subprocess

    def run(*command, timeout=180, cwd=None, env=None):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        return subprocess.run([sys.executable, str(ROOT / command[0]), *map(str, command[1:])], capture_output=True, text=True,
                              timeout=timeout, cwd=str(cwd or tmp_path), env=environment)
    return run
