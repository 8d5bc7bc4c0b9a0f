"""What the measuring processes of `benchmark.py infer` and `train` share, whatever library they measure.

No import but the standard library: torch's processes run it in another Python.
"""
import json
import os
import resource
import statistics
import time

__all__ = ["begin", "memory", "rounds", "report"]


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


def memory():
    """The most memory that this process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rounds(call, seconds, warmup=2, least=5):
    """Times of single calls in seconds: all that fit into `seconds`, but at least `least`, after `warmup` unmeasured ones."""
    for _ in range(warmup):
        call()
    times, begun = [], time.perf_counter()
    while len(times) < least or time.perf_counter() - begun < seconds:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return times


def report(batch, times, **more):
    """Print one line: batch, value (images a second by the median time), ms (median), p95, p99, mb (memory so far)."""
    ordered = sorted(times)

    def share(part):
        return ordered[min(len(ordered) - 1, round(part * (len(ordered) - 1)))] * 1000

    middle = statistics.median(times)
    print(json.dumps({"batch": batch, "value": batch / middle, "ms": middle * 1000, "p95": share(0.95), "p99": share(0.99),
                      "calls": len(times), "mb": round(memory(), 1), **more}), flush=True)
