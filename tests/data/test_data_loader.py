"""The loader: order, exceptions, and no thread left in any way it can end."""
import threading
import time

from gluonzoo.data import ArrayDataset, Loader, ShardedBatches, Transform
from gluonzoo.errors import UserError

import numpy as np
import pytest


def dataset(length=50):
    data = np.arange(length, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    return ArrayDataset(data, "toy", "train", ("a", "b"), np.arange(length, dtype=np.int32) % 2, (1, 4, 4), (0.0,),
                        (1.0,), "none", "a test")


def plain(images, indices, epoch):
    return images.transpose(0, 3, 1, 2).astype(np.float32)


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("gluonzoo-loader")]


@pytest.mark.parametrize("threads", [None, 1, 3])
@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_batches_come_in_order_and_whole(threads, prefetch):
    def slow_first(images, indices, epoch):
        time.sleep(0.01 if indices[0] % 3 == 0 else 0)  # Later batches are ready before earlier ones.
        return plain(images, indices, epoch)
    batches = ShardedBatches(50, 4, seed=3)
    loader = Loader(dataset(), batches, slow_first, 2, prefetch=prefetch, threads=threads)
    assert len(loader) == 13
    seen = list(loader)
    expected = list(batches.epoch(2))
    assert [batch.step for batch, _, _ in seen] == list(range(13))
    for (batch, images, labels), want in zip(seen, expected):
        np.testing.assert_array_equal(batch.indices, want.indices)
        np.testing.assert_array_equal(images[:, 0, 0, 0], want.indices)
        np.testing.assert_array_equal(labels, want.indices % 2)
        assert images.dtype == np.float32 and labels.dtype == np.int32 and batch.total == want.total
    assert not loader_threads()


def test_same_batches_with_any_number_of_threads():
    transform = Transform((1, 4, 4), (0.5,), (0.5,), train=True, augment="crop+flip", seed=1)
    runs = [[images for _, images, _ in Loader(dataset(), ShardedBatches(50, 8), transform, 1, threads=threads)]
            for threads in (1, 2, 4)]
    for other in runs[1:]:
        for first, second in zip(runs[0], other):
            np.testing.assert_array_equal(first, second)


def test_start_skips_without_reading():
    reads = []

    def counting(images, indices, epoch):
        reads.append(len(indices))
        return plain(images, indices, epoch)
    loader = Loader(dataset(), ShardedBatches(50, 4), counting, 0, start=10)
    assert [batch.step for batch, _, _ in loader] == [10, 11, 12] and len(loader) == 3 and len(reads) == 3


def test_empty_part_of_a_batch():
    transform = Transform((1, 4, 4), (0.5,), (0.5,), train=True, augment="crop+flip")
    (batch, images, labels), = Loader(dataset(2), ShardedBatches(2, 4, 0, 4), transform, 0)
    assert batch.total == 2 and images.shape == (0, 1, 4, 4) and images.dtype == np.float32 and labels.shape == (0,)


def test_exception_of_a_thread_comes_at_its_batch():
    def failing(images, indices, epoch):
        if 12 in indices:
            raise UserError("image 12 is bad")
        return plain(images, indices, epoch)
    seen = []
    with pytest.raises(UserError, match="image 12 is bad"):
        for batch, _, _ in Loader(dataset(), ShardedBatches(50, 4, shuffle=False), failing, 0, threads=2):
            seen.append(batch.step)
    assert seen == [0, 1, 2]
    assert not loader_threads()


def test_break_ends_the_threads():
    loader = Loader(dataset(), ShardedBatches(50, 4), plain, 0, threads=2)
    for _ in loader:
        assert loader_threads()
        break
    assert not loader_threads()


def test_close_ends_the_threads_and_can_be_repeated():
    loader = Loader(dataset(), ShardedBatches(50, 4), plain, 0, prefetch=4, threads=2)
    running = iter(loader)
    next(running)
    assert loader_threads()
    loader.close()
    loader.close()
    assert not loader_threads() and list(running) == []
    assert len(list(loader)) == 13  # It can be used again.


def test_leaving_a_with_block_closes():
    with Loader(dataset(), ShardedBatches(50, 4), plain, 0) as loader:
        running = iter(loader)
        next(running)
        assert loader_threads()
    assert not loader_threads()


def test_prefetch_is_bounded_and_runs_by_itself():
    """While the consumer works on one batch, the next ones are prepared, and no more than asked for."""
    prepared, three_ahead = [], threading.Event()

    def noting(images, indices, epoch):
        prepared.append(indices)
        if len(prepared) == 4:
            three_ahead.set()
        return plain(images, indices, epoch)
    running = iter(Loader(dataset(), ShardedBatches(50, 1), noting, 0, prefetch=3))
    next(running)
    assert three_ahead.wait(20)
    time.sleep(0.1)
    assert len(prepared) == 4  # The one handed out and three ahead.
    running.close()


@pytest.mark.parametrize("change, message", [
    (dict(epoch=-1), "epoch is -1"),
    (dict(start=14), "start is step 14; expected 0 to 13"),
    (dict(prefetch=0), "prefetch is 0; expected at least 1"),
    (dict(threads=0), "threads is 0; expected at least 1"),
    (dict(batches=ShardedBatches(51, 4)), "the batches are over 51 samples; the data set toy has 50"),
])
def test_wrong_arguments(change, message):
    arguments = dict(dataset=dataset(), batches=ShardedBatches(50, 4), transform=plain, epoch=0)
    with pytest.raises(UserError, match=message):
        Loader(**dict(arguments, **change))
