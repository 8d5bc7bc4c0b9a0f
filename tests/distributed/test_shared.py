"""Memory that workers share: sums against NumPy with threads as workers, and who is let in."""
import os
import threading

from gluonzoo.distributed import shared
from gluonzoo.distributed.shared import SharedMemory

import numpy as np
import pytest


@pytest.fixture
def memories():
    """memories(workers, elements, stages): one a worker, over one file."""
    descriptors = []

    def make(workers, elements, stages):
        size = SharedMemory.size(elements, workers, stages)
        descriptor, _ = shared._offer(size)
        descriptors.append(descriptor)
        return [SharedMemory(descriptor, elements, workers, rank, stages) for rank in range(workers)]
    yield make
    for descriptor in descriptors:
        os.close(descriptor)


def together(memories, function):
    threads = [threading.Thread(target=function, args=(rank, memory)) for rank, memory in enumerate(memories)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("workers, sizes", [(2, (5, 70001)), (3, (1, 2, 40000)), (5, (3,))])
def test_sums_are_numpys_in_the_order_of_ranks(memories, workers, sizes, monkeypatch):
    """Stages shorter than there are workers, longer than a chunk, and several rounds."""
    monkeypatch.setattr(shared, "CHUNK", 1000)
    ends = np.cumsum([0, sizes[0] + 2, *sizes[1:]])
    stages = list(zip(ends, sizes, [2] + [0] * (len(sizes) - 1)))
    random, counts = np.random.RandomState(0), np.arange(workers) * 3.0
    made = memories(workers, int(ends[-1]), len(sizes))
    for _ in range(3):
        values = random.randn(workers, int(ends[-1])).astype(np.float32)
        values[:, sizes[0]], values[:, sizes[0] + 1] = 1, counts

        def work(rank, memory, values=values):
            memory.mine[:] = values[rank]
            for stage in range(len(sizes)):
                memory.ready(stage)
            for stage, (start, size, extras) in enumerate(stages):
                memory.add(stage, start, start + size, extras, divisor=sizes[0] + 1)
            memory.meet()

        together(made, work)
        expected = values[0].copy()
        for row in values[1:]:
            expected += row
        expected /= np.float32(counts.sum())
        expected[sizes[0]:sizes[0] + 2] = workers, counts.sum()
        for memory in made:
            np.testing.assert_array_equal(memory.result, expected)


def test_without_any_sample_nothing_is_divided_by_zero(memories):
    made = memories(2, 4, 1)

    def work(_, memory):
        memory.mine[:] = [0, 0, 0, 0]
        memory.ready(0)
        memory.add(0, 0, 2, 2, divisor=3)
        memory.meet()

    together(made, work)
    np.testing.assert_array_equal(made[0].result, np.zeros(4))


def test_nobody_passes_before_all_have_come(memories):
    made, order = memories(2, 4, 1), []

    def work(rank, memory):
        if rank:
            threading.Event().wait(0.3)
        order.append(rank)
        memory.meet()
        order.append("met")

    together(made, work)
    assert order == [0, 1, "met", "met"]


@pytest.mark.parametrize("change", [{"here": ["another host", "pid:[1]", "net:[1]"]}, {"here": None}, {"size": 8192},
                                    {"inode": 1}, {"path": "/proc/1/fd/999999"}])
def test_another_file_or_host_is_not_taken(change):
    size = SharedMemory.size(100, 2, 1)
    descriptor, offer = shared._offer(size)
    before = len(os.listdir("/proc/self/fd"))
    try:
        assert shared._accept({**offer, **change}, size) is None
        assert len(os.listdir("/proc/self/fd")) == before
        good = shared._accept(offer, size)
        assert good is not None
        os.close(good)
    finally:
        os.close(descriptor)


def test_no_room_is_no_error(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "posix_fallocate", full)
    before = len(os.listdir("/proc/self/fd"))
    assert shared._offer(4096)[0] is None
    assert len(os.listdir("/proc/self/fd")) == before
