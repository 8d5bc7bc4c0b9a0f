"""What the measuring processes of `benchmark.py infer` and `train` share, whatever library they measure.

No import but the standard library: torch's processes run it in another Python.
"""
import ctypes
import gc
import json
import os
import statistics
import time

__all__ = ["begin", "mark", "memory", "rounds", "report"]

_before = 0.0


def begin(wishes):
    """Import gluonzoo; for the engines "stock" and "stock-omp" leave MXNet as it comes. Returns the wishes.

    MXNet alone takes half of the processors; "stock-omp" is that of a user who sets OMP_NUM_THREADS to all of them.
    """
    if not wishes["engine"].startswith("stock"):
        return wishes
    threads = wishes["threads"] if wishes["engine"] == "stock-omp" else max(1, os.cpu_count() // 2)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import stock
    stock.prepare()
    # Read by gluonzoo, which then leaves the waiting of threads alone, but not by OpenMP, which is loaded.
    os.environ["GOMP_SPINCOUNT"] = "0"
    import gluonzoo  # noqa: F401
    stock.set_caller_threads(threads)
    return wishes


def _status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(name + ":"))


def mark():
    """Say that the network is made from here on: memory is counted above what the process holds now."""
    global _before
    gc.collect()
    _before = _status("VmRSS")


def memory():
    """The most memory that this process has held since `rounds` began to measure, above that of `mark`, in MB.

    Resident pages: parameters, gradients, the optimizer's state, maps, the input, the library's scratch memory and the code that
    it made, and what its allocator keeps; not the libraries themselves. What only making the network or the first calls needed
    (conversion, compiling) counts as far as it is still held. (The kernel's figure of ru_maxrss would not do: a process begins
    with that of the one it was started from.)
    """
    return _status("VmHWM") - _before


def _forget_the_peak():
    """Give back what is free, and have the kernel count the most memory from now on."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except (OSError, AttributeError):
        pass  # Then the peak is that of the whole process.


def rounds(call, seconds, warmup=2, least=5):
    """Times of single calls in seconds: all that fit into `seconds`, but at least `least`, after `warmup` unmeasured ones."""
    for _ in range(warmup):
        call()
    _forget_the_peak()
    call()  # What was given back comes again, unmeasured.
    times, begun = [], time.perf_counter()
    while len(times) < least or time.perf_counter() - begun < seconds:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return times


def report(batch, times, **more):
    """Print one line: batch, value (images a second by the median time), ms (median), p95, p99, mb (the most memory)."""
    ordered = sorted(times)

    def share(part):
        return ordered[min(len(ordered) - 1, round(part * (len(ordered) - 1)))] * 1000

    middle = statistics.median(times)
    print(json.dumps({"batch": batch, "value": batch / middle, "ms": middle * 1000, "p95": share(0.95), "p99": share(0.99),
                      "calls": len(times), "mb": round(memory(), 1), **more}), flush=True)
