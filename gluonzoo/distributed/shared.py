"""Memory that all workers of a job see, when all are on one host; sums are made in it without a server.

It has no name that another user, or a later job, could open, and is gone with the last process that holds it, however that
ends: rank 0 makes an anonymous file and the others open it through rank 0's entry in /proc, which the kernel grants to
processes of the same user only. Whether that works, on every worker, decides; hosts are told apart by it, and by their network
namespace, so that a job spread over namespaces or containers counts as one on several hosts.
"""
import json
import mmap
import os
import platform
import time

import numpy as np
from mxnet.base import _LIB, check_call

from . import cluster

__all__ = ["SharedMemory", "open_memory", "wait_to_write"]

#: Elements added at a time, so that a part is still in the processor's cache when it is divided.
CHUNK = 1 << 15

#: Machines on which others see a counter change after the elements written before it, without a barrier.
ORDERED = ("x86_64", "AMD64")

#: Every counter has a cache line of its own: workers write theirs without disturbing the others'.
_LINE = 8

#: Looks at the others' counters before sleeping between looks; the shortest and the longest sleep in seconds.
_LOOKS, _NAP, _LONG_NAP = 20, 0.00005, 0.002


def wait_to_write(array):
    """Wait until every operator that reads or writes an NDArray has run."""
    check_call(_LIB.MXNDArrayWaitToWrite(array.handle))


class SharedMemory:
    """A part for each worker, one for the result, and counters by which workers wait for one another.

    Args: descriptor: the file; elements: float32 elements of a part; workers, rank; stages: number of different `ready`s.
    Attributes: mine, result: NumPy arrays (elements,).
    """

    def __init__(self, descriptor, elements, workers, rank, stages):
        self._rank, self._workers = rank, workers
        self._map = mmap.mmap(descriptor, self.size(elements, workers, stages))
        lines = (stages + 1) * workers
        counters = np.frombuffer(self._map, dtype=np.int64, count=lines * _LINE).reshape((stages + 1, workers, _LINE))
        self._ready, self._met = counters[:-1, :, 0], counters[-1, :, 0]
        width = self._width(elements)
        parts = np.frombuffer(self._map, dtype=np.float32, offset=self._start(workers, stages), count=(workers + 1) * width)
        parts = parts.reshape((workers + 1, width))[:, :elements]
        self._parts, self.mine, self.result = parts[:-1], parts[rank], parts[-1]
        self._round = 1

    @staticmethod
    def _width(elements):
        return -(-elements // 1024) * 1024

    @staticmethod
    def _start(workers, stages):
        return -(-(stages + 1) * workers * _LINE * 8 // mmap.PAGESIZE) * mmap.PAGESIZE

    @classmethod
    def size(cls, elements, workers, stages):
        """Bytes of the file."""
        return cls._start(workers, stages) + (workers + 1) * cls._width(elements) * 4

    def ready(self, stage):
        """Say that this worker's part of a stage is written."""
        self._ready[stage, self._rank] = self._round

    def add(self, stage, start, stop, extras, divisor):
        """Once all workers are ready with a stage, add this worker's share of [start, stop) into the result.

        All shares together are the whole. They are divided by the sum of the elements at divisor, or by 1 when that is less;
        the extras elements that follow are summed as they are.
        """
        self._wait(self._ready[stage])
        divisor = np.float32(max(self._parts[:, divisor].sum(), 1.0))
        share = -(-(stop - start) // self._workers)
        first = start + self._rank * share
        last = min(first + share, stop)
        with np.errstate(all="ignore"):  # What is not finite is found elsewhere.
            for low in range(first, last, CHUNK):
                high = min(low + CHUNK, last)
                out = self.result[low:high]
                np.add(self._parts[0, low:high], self._parts[1, low:high], out=out)
                for part in self._parts[2:]:
                    np.add(out, part[low:high], out=out)
                np.divide(out, divisor, out=out)
        if extras and self._rank == 0:
            self.result[stop:stop + extras] = self._parts[:, stop:stop + extras].sum(axis=0)

    def meet(self):
        """Wait until all workers have come here, with all they have written; begins the next round."""
        self._met[self._rank] = self._round
        self._wait(self._met)
        self._round += 1

    def put(self, stage, start, values, round):
        """Write this worker's values of a stage's round, once all workers have taken those of the round before.

        For vectors that are summed by themselves, with `take`, in rounds of their own: stages 2 stage and 2 stage + 1 belong to
        them. Rounds count from 1; every worker must put and take each.
        """
        self._wait(self._ready[2 * stage + 1], round - 1)
        self.mine[start:start + len(values)] = values
        self._ready[2 * stage, self._rank] = round

    def take(self, stage, start, stop, round):
        """The sum (stop - start,) float64 over all workers of what they `put`, added in the order of ranks."""
        self._wait(self._ready[2 * stage], round)
        total = self._parts[:, start:stop].sum(axis=0, dtype=np.float64)
        self._ready[2 * stage + 1, self._rank] = round
        return total

    def _wait(self, counters, round=None):
        round = self._round if round is None else round
        for _ in range(_LOOKS):
            if counters.min() >= round:
                return
            os.sched_yield()
        nap = _NAP
        while counters.min() < round:
            time.sleep(nap)
            # Each sleep is at most a twentieth of the wait so far, more or less: little is lost, and little spent on looking.
            nap = min(nap * 1.05, _LONG_NAP)


def _here():
    """What is the same for processes that can share memory and mean to: one kernel, one view of processes, one network."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    return [boot, *(os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "net"))]


def _offer(size):
    """On rank 0: the file's descriptor and how others find it; (None, ...) when there is no room."""
    try:
        descriptor = os.memfd_create("gluonzoo", os.MFD_CLOEXEC)
    except (OSError, AttributeError):
        return None, {}
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.close(descriptor)
        return None, {}
    return descriptor, {"here": _here(), "path": f"/proc/{os.getpid()}/fd/{descriptor}", "inode": os.fstat(descriptor).st_ino,
                        "size": size}


def _accept(offer, size):
    """On the others: the descriptor, or None when the file cannot be had or this is another host."""
    try:
        if offer.get("here") != _here() or offer["size"] != size:
            return None
        descriptor = os.open(offer["path"], os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    if os.fstat(descriptor).st_ino != offer["inode"] or os.fstat(descriptor).st_size != size:
        os.close(descriptor)
        return None
    return descriptor


def open_memory(store, elements, stages):
    """Memory that all workers of a job see, or None when they do not share a host, or one has elements 0.

    Every worker must call it. GLUONZOO_SHARED_MEMORY=0 turns it off; on processors that reorder writes there is none.
    """
    wanted = elements > 0 and cluster.shared_memory() and platform.machine() in ORDERED
    size = SharedMemory.size(max(elements, 1), store.num_workers, stages)
    descriptor, text = None, b""
    if store.rank == 0 and wanted:
        descriptor, offer = _offer(size)
        text = json.dumps(offer).encode()
    words = np.zeros(512, dtype=np.uint8)
    words[:len(text)] = np.frombuffer(text, dtype=np.uint8)
    offer = json.loads(store.gather(words)[0].tobytes().rstrip(b"\0") or b"{}")
    if store.rank != 0 and wanted and offer:
        descriptor = _accept(offer, size)
    everyone = store.gather(np.array([descriptor is not None])).all()
    try:
        return SharedMemory(descriptor, elements, store.num_workers, store.rank, stages) if everyone else None
    finally:
        if descriptor is not None:
            # The mapping stays; after this gather nobody needs rank 0's descriptor any more.
            os.close(descriptor)
