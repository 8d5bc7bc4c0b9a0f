"""Metrics against hand-worked numbers and scikit-learn; sums that do not depend on how samples are grouped."""
from gluonzoo.errors import UserError
from gluonzoo.evaluation import Metrics

import numpy as np
import pytest


def softmax_logs(scores):
    scores = scores - scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def answers(count=700, classes=8, seed=0, scale=2.0):
    random = np.random.RandomState(seed)
    labels = random.randint(0, classes, count)
    scores = scale * random.randn(count, classes)
    scores[np.arange(count), labels] += 2
    return softmax_logs(scores), labels


def measured(logs, labels, parts=1, **more):
    metrics = Metrics(logs.shape[1], **more)
    for part in np.array_split(np.arange(len(labels)), parts):
        metrics.add(logs[part], labels[part])
    return metrics


def test_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.25, 0.25, 0.5], [0.4, 0.35, 0.25]])
    metrics = Metrics(3, confusion=True, bins=4)
    guesses, confidence, likelihood = metrics.add(np.log(probabilities), np.array([0, 0, 2, 1]))
    assert guesses.tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(confidence, [0.7, 0.6, 0.5, 0.4])
    np.testing.assert_allclose(likelihood, [0.7, 0.3, 0.5, 0.35])
    assert metrics.samples == 4 and metrics.top1 == 0.5 and metrics.top5 == 1.0
    assert metrics.loss == pytest.approx(-np.log([0.7, 0.3, 0.5, 0.35]).mean(), abs=1e-10)
    squares = [0.3 ** 2 + 0.2 ** 2 + 0.1 ** 2, 0.7 ** 2 + 0.6 ** 2 + 0.1 ** 2, 2 * 0.25 ** 2 + 0.5 ** 2,
               0.4 ** 2 + 0.65 ** 2 + 0.25 ** 2]
    assert metrics.brier == pytest.approx(np.mean(squares), abs=1e-10)
    assert metrics.confusion().tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    classes = metrics.per_class()
    assert classes["samples"].tolist() == [2, 1, 1] and classes["right"].tolist() == [1, 0, 1]
    assert classes["guesses"].tolist() == [2, 1, 1] and classes["accuracy"].tolist() == [0.5, 0.0, 1.0]
    assert classes["precision"].tolist() == [0.5, 0.0, 1.0]
    # Bins (0.25, 0.5]: 0.5 right and 0.4 wrong; (0.5, 0.75]: 0.7 right and 0.6 wrong.
    found = metrics.calibration()
    assert found.counts.tolist() == [0, 2, 2, 0] and found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(found.confidence[1:3], [0.45, 0.65])
    np.testing.assert_allclose(found.accuracy[1:3], [0.5, 0.5])
    assert np.isnan(found.confidence[[0, 3]]).all() and np.isnan(found.accuracy[[0, 3]]).all()
    assert found.ece == pytest.approx((2 * 0.05 + 2 * 0.15) / 4) and found.mce == pytest.approx(0.15)


def test_edges_of_bins_belong_to_the_lower_bin():
    metrics = Metrics(2, bins=4)
    metrics.add(np.log([[0.75, 0.25], [0.5, 0.5], [1 - 1e-12, 1e-12]]), np.array([0, 0, 0]))
    assert metrics.calibration().counts.tolist() == [0, 1, 1, 1]


def test_top_five_and_ties():
    scores = np.log(np.full((3, 10), 0.1))
    metrics = Metrics(10)
    guesses, _, _ = metrics.add(scores, np.array([0, 4, 5]))
    assert guesses.tolist() == [0, 0, 0] and metrics.top1 == pytest.approx(1 / 3) and metrics.top5 == pytest.approx(2 / 3)


@pytest.mark.parametrize("classes", [3, 8])
def test_against_scikit_learn(classes):
    sklearn = pytest.importorskip("sklearn.metrics")
    calibration_curve = pytest.importorskip("sklearn.calibration").calibration_curve
    logs, labels = answers(classes=classes)
    metrics = measured(logs, labels, parts=5, confusion=True)
    probabilities = np.exp(logs)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    guesses = probabilities.argmax(axis=1)
    assert metrics.top1 == sklearn.accuracy_score(labels, guesses)
    assert metrics.top5 == pytest.approx(1.0 if classes < 5 else sklearn.top_k_accuracy_score(labels, probabilities, k=5))
    assert metrics.loss == pytest.approx(sklearn.log_loss(labels, probabilities), abs=1e-9)
    np.testing.assert_array_equal(metrics.confusion(), sklearn.confusion_matrix(labels, guesses))
    found = metrics.per_class()
    np.testing.assert_allclose(found["accuracy"], sklearn.recall_score(labels, guesses, average=None))
    np.testing.assert_allclose(found["precision"], sklearn.precision_score(labels, guesses, average=None, zero_division=0))
    binary = sum(sklearn.brier_score_loss((labels == number).astype(int), probabilities[:, number]) for number in range(classes))
    assert metrics.brier == pytest.approx(binary, abs=1e-9)
    reliability = metrics.calibration()
    right, confidence = calibration_curve(guesses == labels, probabilities.max(axis=1), n_bins=15)
    used = reliability.counts > 0
    np.testing.assert_allclose(reliability.accuracy[used], right)
    np.testing.assert_allclose(reliability.confidence[used], confidence, atol=1e-9)
    gaps = np.abs(right - confidence)
    assert reliability.ece == pytest.approx((gaps * reliability.counts[used]).sum() / len(labels), abs=1e-9)
    assert reliability.mce == pytest.approx(gaps.max(), abs=1e-9)


def test_figures_are_the_same_to_the_bit_however_samples_are_grouped():
    logs, labels = answers(1000, scale=5.0)
    whole = measured(logs, labels, confusion=True)
    order = np.random.RandomState(3).permutation(1000)
    for parts in (2, 7, 1000):
        other = measured(logs[order], labels[order], parts, confusion=True)
        for name in ("top1", "top5", "loss", "brier", "samples"):
            assert getattr(other, name) == getattr(whole, name), name
        assert other.calibration()[:2] == whole.calibration()[:2]
        np.testing.assert_array_equal(other.confusion(), whole.confusion())


class Store:
    """All workers of a job, one after the other: what each gives is kept, and all of it handed back in the second round."""

    def __init__(self, workers):
        self.num_workers, self.given, self.round, self.turn = workers, [], 1, 0

    def gather(self, values):
        if self.round == 1:
            self.given.append(values.copy())
            return np.stack([values] * self.num_workers)
        self.turn += 1
        return np.stack(self.given[(self.turn - 1) % (len(self.given) // self.num_workers)::len(self.given) // self.num_workers])


@pytest.mark.parametrize("classes", [8, 300])
def test_sums_of_workers(classes):
    logs, labels = answers(1000, classes)
    whole = measured(logs, labels, confusion=True)
    store = Store(3)
    parts = [slice(0, 500), slice(500, 999), slice(999, 1000)]
    for part in parts:
        measured(logs[part], labels[part], confusion=True).gather(store)
    store.round = 2
    mine = measured(logs[parts[1]], labels[parts[1]], confusion=True)
    mine.gather(store)
    assert (mine.samples, mine.top1, mine.loss, mine.brier) == (1000, whole.top1, whole.loss, whole.brier)
    np.testing.assert_array_equal(mine.confusion(), whole.confusion())
    np.testing.assert_array_equal(mine.per_class()["guesses"], whole.per_class()["guesses"])
    assert mine.calibration()[:2] == whole.calibration()[:2]


def test_outputs_that_are_no_numbers_count_as_wrong():
    logs, labels = answers(20)
    logs[3] = np.nan
    logs[5, 0] = np.nan
    metrics = Metrics(8, confusion=True)
    guesses, confidence, likelihood = metrics.add(logs, labels)
    fine = np.ones(20, bool)
    fine[[3, 5]] = False
    assert metrics.not_finite == 2 and np.isnan(metrics.loss) and np.isnan(metrics.brier)
    assert metrics.top1 == (logs[fine].argmax(axis=1) == labels[fine]).sum() / 20 and metrics.confusion().sum() == 18
    assert confidence[3] == likelihood[5] == 0.0 and np.isfinite(confidence).all()


def test_a_probability_of_zero_for_the_label_is_an_infinite_loss():
    metrics = Metrics(2)
    metrics.add(np.array([[0.0, -np.inf], [np.log(0.5), np.log(0.5)]]), np.array([1, 1]))
    assert metrics.loss == np.inf and metrics.brier == pytest.approx((2 + 0.5) / 2) and metrics.not_finite == 0


def test_no_samples():
    metrics = Metrics(3)
    metrics.add(np.zeros((0, 3)), np.zeros(0, int))
    assert metrics.samples == 0 and metrics.top1 == 0.0 and metrics.calibration().ece == 0.0


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"outputs of shape \(2, 4\) for 2 samples of 3 classes"):
        Metrics(3).add(np.zeros((2, 4)), np.zeros(2, int))
    with pytest.raises(UserError, match="labels go from 0 to 3; expected 0 to 2"):
        Metrics(3).add(np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(UserError, match="confusion matrix was not counted"):
        Metrics(3).confusion()
