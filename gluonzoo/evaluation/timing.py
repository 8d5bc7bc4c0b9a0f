"""How fast a network answers: latency of single images, throughput of batches."""
import time

import mxnet as mx
import numpy as np

from ..errors import UserError
from ..export.check import flatten

__all__ = ["measure_speed", "percentiles"]

WARM_UP = 5


def percentiles(seconds):
    """p50, p95 and p99 of durations, in milliseconds, and their mean: {"p50", "p95", "p99", "mean"}."""
    values = np.asarray(seconds, dtype=np.float64) * 1000
    return {**{f"p{share}": float(np.percentile(values, share)) for share in (50, 95, 99)}, "mean": float(values.mean())}


def _durations(net, shape, runs, ctx):
    image = mx.nd.array(np.random.RandomState(0).standard_normal(shape).astype(np.float32), ctx=ctx)
    durations = []
    for number in range(WARM_UP + runs):
        begun = time.perf_counter()
        flatten(net(image))[0][1].wait_to_read()
        if number >= WARM_UP:
            durations.append(time.perf_counter() - begun)
    return durations


def measure_speed(net, input_shape, batch_size=64, runs=100, ctx=None):
    """Time a network on noise of its input's shape, without decoding or resizing, one call after the other.

    Args: net: a Block, as it is to be used (hybridized or not). input_shape: (C, H, W). batch_size: of the throughput.
        runs: single images timed, at least 20; a tenth as many batches, at least 5.
    Returns: {"latency_ms": {"p50", "p95", "p99", "mean"} of one image, "runs", "images_per_second" by the median batch,
        "batch_size", "batch_ms": as latency_ms, of the batches}.
    Raises: UserError when runs or batch_size are too small.
    """
    if runs < 20:
        raise UserError(f"runs is {runs}; expected at least 20, below which percentiles say nothing")
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1")
    ctx = ctx or mx.cpu()
    single = _durations(net, (1, *input_shape), runs, ctx)
    batches = _durations(net, (batch_size, *input_shape), max(5, runs // 10), ctx)
    return {"latency_ms": percentiles(single), "runs": runs, "images_per_second": batch_size / float(np.median(batches)),
            "batch_size": batch_size, "batch_ms": percentiles(batches)}
