"""Cutout, mixup and CutMix: arithmetic, distributions, and that partners do not depend on batches or workers."""
import math

from gluonzoo.data import ArrayDataset, Loader, ShardedBatches, Transform, draws
from gluonzoo.data.augment_mix import Mixing, cutout

import numpy as np
import pytest


def dataset(length=50, classes=7):
    data = np.random.RandomState(0).randint(0, 256, (length, 8, 8, 3), dtype=np.uint8)
    labels = np.random.RandomState(1).randint(0, classes, length).astype(np.int32)
    return ArrayDataset(data, "toy", "train", tuple(map(str, range(classes))), labels, (3, 8, 8), (0.5,), (0.2,), "none",
                        "a test")


def make(names, seed=3):
    return Transform((3, 8, 8), (0.5,) * 3, (0.2,) * 3, train=True, augment=names, seed=seed)


def epoch(names, batch_size, workers=1, start=0, number=2, length=50, **more):
    """{index: (image, label)} of one epoch, over all workers."""
    found = {}
    for rank in range(workers):
        batches = ShardedBatches(length, batch_size, rank, workers, seed=3, **more)
        for batch, images, labels in Loader(dataset(length), batches, make(names), number, start=start):
            assert images.shape == (len(batch.indices), 3, 8, 8) and images.dtype == np.float32
            assert labels.shape == (len(batch.indices), 7) and labels.dtype == np.float32
            found.update({index: (image.copy(), label) for index, image, label in zip(batch.indices.tolist(), images, labels)})
    return found


def test_cutout_by_hand():
    planes = np.ones((300, 2, 9, 12), np.float32)
    indices = np.arange(300)
    out = cutout(planes, 5, 8, 1, indices)
    assert out is planes
    for image, index in zip(out, indices):
        centre = int(draws.uniform_at(8, 1, index, 96) * 9), int(draws.uniform_at(8, 1, index, 97) * 12)
        expected = np.ones((2, 9, 12), np.float32)
        for y in range(9):
            for x in range(12):
                if centre[0] - 2 <= y <= centre[0] + 2 and centre[1] - 2 <= x <= centre[1] + 2:
                    expected[:, y, x] = 0
        np.testing.assert_array_equal(image, expected)
    # Every pixel is hit: the middle by 25 of the 108 centres, a corner by 9.
    share = 1 - cutout(np.ones((20000, 1, 9, 12), np.float32), 5, 0, 0, np.arange(20000)).mean(axis=0)[0]
    assert share[4, 6] == pytest.approx(25 / 108, abs=0.012) and share[0, 0] == pytest.approx(9 / 108, abs=0.008)


def test_cutout_is_half_the_input_by_default_and_sets_the_mean():
    out = make("cutout")(np.full((40, 8, 8, 3), 255, np.uint8), np.arange(40))
    holes = (out == 0).all(axis=1).sum(axis=(1, 2))
    assert holes.max() == 16 and holes.min() >= 4 and set(np.unique(out)) == {0.0, np.float32(2.5)}


def test_mixup_by_hand():
    random = np.random.RandomState(0)
    images, labels = random.randn(6, 3, 4, 5).astype(np.float32), np.array([0, 2, 1, 1, 3, 0])
    before = images.copy()
    mixing = Mixing(mixup=(0.5, 1.0), seed=11)
    indices = np.array([10, 4, 9, 3, 77])
    out, soft = mixing(images, labels, indices, 6, 4)
    assert out.base is images  # No copy of a batch.
    shares = draws.beta(11, 6, indices, 1000, 0.5)
    for row, share in enumerate(shares):
        np.testing.assert_allclose(out[row], share * before[row] + (1 - share) * before[row + 1], rtol=1e-5, atol=1e-6)
        expected = np.zeros(4)
        expected[labels[row]] += share
        expected[labels[row + 1]] += 1 - share
        np.testing.assert_allclose(soft[row], expected, rtol=1e-6)
    assert soft.dtype == np.float32 and soft[2].tolist() == [0, 1, 0, 0]  # Both of class 1.


def test_cutmix_by_hand():
    random = np.random.RandomState(0)
    images, labels = random.randn(40, 2, 10, 6).astype(np.float32), random.randint(0, 5, 40)
    before, indices = images.copy(), np.arange(100, 139)
    out, soft = Mixing(cutmix=(1.0, 1.0), seed=1)(images, labels, indices, 0, 5)
    shares = draws.beta(1, 0, indices, 1000, 1.0)
    for row, (share, index) in enumerate(zip(shares, indices)):
        tall, wide = int(10 * math.sqrt(1 - share)), int(6 * math.sqrt(1 - share))
        top = int(draws.uniform_at(1, 0, index, 102) * 10) - tall // 2
        left = int(draws.uniform_at(1, 0, index, 103) * 6) - wide // 2
        expected, pasted = before[row].copy(), 0
        for y in range(10):
            for x in range(6):
                if top <= y < top + tall and left <= x < left + wide:
                    expected[:, y, x] = before[row + 1][:, y, x]
                    pasted += 1
        np.testing.assert_array_equal(out[row], expected)
        label = np.zeros(5)
        label[labels[row]] += 1 - pasted / 60
        label[labels[row + 1]] += pasted / 60
        np.testing.assert_allclose(soft[row], label, atol=1e-6)


def test_shares_are_distributed_as_published():
    indices = np.arange(6000)
    shares = np.array([share for share, _ in Mixing(mixup=(0.2, 1.0)).shares(indices, 0, 8, 8)])
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
    assert abs(shares.mean() - 0.5) < 0.02 and shares.var() == pytest.approx(1 / (4 * 1.4), rel=0.03)
    half = [share for share, _ in Mixing(mixup=(0.2, 0.5)).shares(indices, 0, 8, 8)]
    assert np.mean(np.array(half) == 1.0) == pytest.approx(0.5, abs=0.03)
    both = Mixing(mixup=(1.0, 1.0), cutmix=(1.0, 1.0)).shares(indices, 0, 32, 32)
    assert np.mean([box is not None for _, box in both]) == pytest.approx(0.5, abs=0.03)
    # A rectangle that is not cut at the borders has the share drawn: the mean over centres of what is left is above 1/2.
    left = np.array([share for share, box in both if box is not None])
    assert 0.5 < left.mean() < 0.75 and left.min() >= 0 and left.max() <= 1


@pytest.mark.parametrize("names", ["crop:1+flip+mixup:0.4", "flip+cutmix", "cutout:3+mixup:0.2+cutmix:1,0.5"])
def test_mixed_images_do_not_depend_on_batches_or_workers(names):
    whole = epoch(names, 50)
    assert sorted(whole) == list(range(50))
    for others in (epoch(names, 7), epoch(names, 4, workers=3), epoch(names, 1), epoch(names, 30, workers=2)):
        assert sorted(others) == sorted(whole)
        for index, (image, label) in whole.items():
            np.testing.assert_array_equal(others[index][0], image)
            np.testing.assert_array_equal(others[index][1], label)
    resumed = epoch(names, 7, start=4)
    for index, (image, _) in resumed.items():
        np.testing.assert_array_equal(image, whole[index][0])
    another = epoch(names, 50, number=3)
    assert not all(np.array_equal(another[index][0], whole[index][0]) for index in whole)


def test_the_partner_is_the_next_in_the_epochs_order():
    names, source = "mixup:1", dataset()
    order = ShardedBatches(50, 5, seed=3).order(2)
    plain = Transform((3, 8, 8), (0.5,) * 3, (0.2,) * 3)(source.data)
    found = epoch(names, 5)
    for own, other in zip(order, np.roll(order, -1)):
        share = draws.beta(3, 2, [own], 1000, 1.0)[0]
        np.testing.assert_allclose(found[own][0], share * plain[own] + (1 - share) * plain[other], atol=1e-5)
        assert found[own][1].argmax() == source.labels[own if share > 0.5 else other]


def test_partners_of_a_list_of_images_and_of_one_sample():
    class Files(ArrayDataset):
        in_memory = False

        def images(self, indices):
            return [self.data[index] for index in indices]
    plain = dataset(11)
    files = Files(plain.data, "toy", "train", plain.classes, plain.labels, None, (0.5,), (0.2,), "none", "a test")
    batches = ShardedBatches(11, 4, seed=3)
    for (_, images, labels), (_, others, more) in zip(Loader(plain, batches, make("flip+mixup"), 0),
                                                      Loader(files, batches, make("flip+mixup"), 0, threads=2)):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, more)
    (image, label), = epoch("mixup", 4, length=1).values()
    assert label.max() == 1.0 and image.shape == (3, 8, 8)


def test_a_worker_without_samples_gets_soft_labels_too():
    (batch, images, labels), = Loader(dataset(2), ShardedBatches(2, 4, 0, 4), make("mixup"), 0)
    assert images.shape == (0, 3, 8, 8) and labels.shape == (0, 7) and labels.dtype == np.float32 and batch.total == 2


def test_without_training_nothing_is_mixed():
    transform = Transform((3, 8, 8), (0.5,), (0.2,), train=False, augment="mixup+cutmix")
    assert transform.mixing is None and make("flip").mixing is None
    _, _, labels = next(iter(Loader(dataset(), ShardedBatches(50, 8), transform, 0)))
    assert labels.shape == (8,) and labels.dtype == np.int32


def test_one_partner_too_few_is_refused():
    with pytest.raises(ValueError, match="3 images with 3 labels came for 3 indices; expected one more"):
        Mixing(mixup=(1.0, 1.0))(np.zeros((3, 1, 2, 2), np.float32), np.zeros(3, int), np.arange(3), 0, 2)
