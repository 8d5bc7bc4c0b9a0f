"""Which worker reads what: brute force over many sizes."""
import itertools

from gluonzoo.data import Batch, ShardedBatches, draws
from gluonzoo.errors import UserError

import numpy as np
import pytest

SIZES = list(itertools.product((1, 2, 3, 7, 16, 31, 64, 100), (1, 2, 3, 8, 33), (1, 2, 3, 5, 8)))


def workers(length, size, count, **more):
    return [ShardedBatches(length, size, rank, count, **more) for rank in range(count)]


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_once_and_equal_steps(shuffle):
    for length, size, count in SIZES:
        shards = workers(length, size, count, seed=5, shuffle=shuffle)
        steps = {len(list(shard.epoch(3))) for shard in shards} | {len(shard) for shard in shards}
        assert steps == {-(-length // (size * count))}
        seen = np.concatenate([batch.indices for shard in shards for batch in shard.epoch(3)])
        assert sorted(seen.tolist()) == list(range(length)), (length, size, count)


def test_workers_together_are_one_worker_with_the_whole_batch():
    for length, size, count in SIZES:
        single = list(ShardedBatches(length, size * count, seed=5).epoch(2))
        parts = [list(shard.epoch(2)) for shard in workers(length, size, count, seed=5)]
        for step, whole in enumerate(single):
            batches = [part[step] for part in parts]
            np.testing.assert_array_equal(np.concatenate([batch.indices for batch in batches]), whole.indices)
            assert {batch.total for batch in batches} == {len(whole.indices)} == {whole.total}
            assert {batch.step for batch in batches} == {step}
            sizes = [len(batch.indices) for batch in batches]
            assert max(sizes) - min(sizes) <= 1 and max(sizes) <= size
            if step < len(single) - 1:
                assert set(sizes) == {size}


def test_an_epoch_may_be_ended_by_another_number_of_workers():
    for length, size, count in SIZES:
        whole = size * count
        for later in (1, 2, 3, 7):
            first = [list(shard.epoch(2)) for shard in workers(length, size, count, global_batch_size=whole)]
            shards = workers(length, size, later, global_batch_size=whole)
            then = [list(shard.epoch(2, start=len(first[0]) // 2)) for shard in shards]
            parts = [part[:len(part) - len(then[0])] for part in first] + then
            seen = np.concatenate([batch.indices for part in parts for batch in part])
            assert sorted(seen.tolist()) == list(range(length))
            assert max(len(batch.indices) for part in then for batch in part) <= -(-whole // later)


def test_more_workers_than_samples_leaves_some_without():
    batches = [list(shard.epoch(0)) for shard in workers(3, 4, 8)]
    assert [len(part) for part in batches] == [1] * 8
    assert sum(len(part[0].indices) for part in batches) == 3 and {part[0].total for part in batches} == {3}
    assert sorted(len(part[0].indices) for part in batches) == [0] * 5 + [1] * 3


def test_start_in_the_middle_is_the_rest_of_the_epoch():
    for rank in range(3):
        shard = ShardedBatches(100, 7, rank, 3, seed=1)
        whole = list(shard.epoch(4))
        for start in range(len(shard) + 1):
            rest = list(shard.epoch(4, start=start))
            assert [batch.step for batch in rest] == list(range(start, len(shard)))
            for batch, expected in zip(rest, whole[start:]):
                np.testing.assert_array_equal(batch.indices, expected.indices)


def test_order_depends_on_seed_and_epoch_only():
    def order(seed, epoch):
        return ShardedBatches(1000, 1, seed=seed).order(epoch).tolist()
    assert order(1, 0) == order(1, 0)
    orders = [order(seed, epoch) for seed in (0, 1, -1, 2 ** 63, 2 ** 80 + 3) for epoch in range(3)]
    assert len({tuple(one) for one in orders}) == len(orders)
    assert ShardedBatches(5, 2, shuffle=False).order(9).tolist() == [0, 1, 2, 3, 4]
    batch = next(ShardedBatches(5, 2, shuffle=False).epoch(0))
    assert isinstance(batch, Batch) and batch.step == 0 and batch.total == 2 and batch.indices.tolist() == [0, 1]


def test_orders_are_uniform():
    """Over many epochs each of 6 samples is in each of 6 places equally often: chi-squared, 25 degrees of freedom."""
    epochs, length = 3000, 6
    counts = np.zeros((length, length))
    for epoch in range(epochs):
        counts[np.arange(length), draws.order(length, 7, epoch)] += 1
    expected = epochs / length
    assert ((counts - expected) ** 2 / expected).sum() < 52.6  # 99.9 %


def test_draws_are_splitmix64():
    """The first outputs of SplitMix64 from seed 1234567, as its reference implementation gives them."""
    outputs = (6457827717110365317, 3203168211198807973, 9817491932198370423)
    for number, output in enumerate(outputs, start=1):
        state = 1234567 + number * 0x9E3779B97F4A7C15
        assert draws._mix_int(state) == output
        assert int(draws._mix_array(np.array([state & (2 ** 64 - 1)], dtype=np.uint64))[0]) == output


def test_scalar_and_array_draws_agree():
    indices = np.array([0, 1, 17, 59999, 10 ** 12])
    for seed, epoch, stream in itertools.product((0, 3, -5), (0, 8), (0, 2, 55)):
        together = draws.uniform(seed, epoch, indices, stream)
        assert together.tolist() == [draws.uniform_at(seed, epoch, index, stream) for index in indices]
        assert ((0 <= together) & (together < 1)).all()


@pytest.mark.parametrize("arguments, message", [
    ((0, 1), "length is 0; expected a whole number of at least 1"),
    ((10, 0), "batch_size is 0; expected"),
    ((10, -3), "batch_size is -3; expected"),
    ((10, 2.5), "batch_size is 2.5; expected"),
    ((10, True), "batch_size is True; expected"),
    ((10, 2, 0, 0), "num_workers is 0; expected"),
    ((10, 2, -1, 2), "rank is -1; expected"),
    ((10, 2, 2, 2), "rank is 2; expected 0 to 1 for num_workers 2"),
    ((10, 2, 0, 1, "a"), "seed is 'a'; expected"),
    ((10, 2, 0, 1, 0, True, 0), "global_batch_size is 0; expected"),
])
def test_wrong_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        ShardedBatches(*arguments)


def test_wrong_epoch_and_start():
    batches = ShardedBatches(10, 4)
    with pytest.raises(UserError, match="epoch is -1; expected"):
        batches.epoch(-1)
    with pytest.raises(UserError, match="start is step 4; expected 0 to 3"):
        batches.epoch(0, start=4)
    assert list(batches.epoch(0, start=3)) == []
