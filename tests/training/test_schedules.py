"""Schedules against numbers worked out by hand."""
import math

from gluonzoo.training.schedule import SCHEDULES, learning_rate, one_cycle_momentum, plateau_reductions

import numpy as np
import pytest


def rates(steps, **more):
    return [learning_rate(step, **{"total_steps": 10, "peak": 1.0, **more}) for step in steps]


def test_constant_step_and_its_own_rates():
    np.testing.assert_allclose(rates((0, 4, 9), schedule="constant"), [1, 1, 1])
    np.testing.assert_allclose(rates((4, 5, 7, 8), schedule="step"), [1, 0.1, 0.1, 0.01])
    np.testing.assert_allclose(rates((4, 5, 8), schedule="step", decay=0.5), [1, 0.5, 0.25])
    # LeNet-5's course: 0.0005 for 2 of 20 passes, 0.0002 for 3, 0.0001 for 3, 0.00005 for 4, then 0.00001.
    found = [learning_rate(step, 20, 0.0005, "step", (0.1, 0.25, 0.4, 0.6), rates=(0.4, 0.2, 0.1, 0.02)) for step in range(20)]
    np.testing.assert_allclose(found, [5e-4] * 2 + [2e-4] * 3 + [1e-4] * 3 + [5e-5] * 4 + [1e-5] * 8)


def test_exponential_falls_every_so_often():
    # 0.94 every two epochs of 3 updates.
    found = [learning_rate(step, 100, 0.045, "exponential", decay=0.94, decay_steps=6) for step in (0, 5, 6, 11, 12, 60)]
    np.testing.assert_allclose(found, [0.045, 0.045, 0.0423, 0.0423, 0.039762, 0.045 * 0.94 ** 10])


def test_poly():
    np.testing.assert_allclose(rates((0, 5, 9), schedule="poly"), [1, 0.5, 0.1])
    np.testing.assert_allclose(rates((0, 5, 9), schedule="poly", power=4.0), [1, 0.0625, 1e-4], atol=1e-12)
    np.testing.assert_allclose(rates((2, 6), schedule="poly", warmup_steps=2), [1, 0.5])


def test_cosine_and_warmup():
    np.testing.assert_allclose(rates((0, 5, 10), schedule="cosine"), [1, 0.5, 0], atol=1e-12)
    np.testing.assert_allclose(rates((0, 1, 2, 3), schedule="constant", warmup_steps=3), [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(rates((3,), schedule="cosine", warmup_steps=2), [(1 + math.cos(math.pi / 8)) / 2])


def test_one_cycle_and_its_momentum():
    given = {"schedule": "one_cycle", "cycle_share": 0.4, "cycle_divisor": 10.0}
    # From 0.1 up to 1 at 40 %, back to 0.1 at 80 %, then down to a thousandth of that.
    np.testing.assert_allclose(rates((0, 2, 4, 6, 8, 9, 10), **given), [0.1, 0.55, 1, 0.55, 0.1, 0.05005, 0.0001], atol=1e-9)
    found = [one_cycle_momentum(step, 10, 0.95, 0.85, 0.4) for step in (0, 2, 4, 6, 8, 9)]
    np.testing.assert_allclose(found, [0.95, 0.9, 0.85, 0.9, 0.95, 0.95])


def test_by_epoch_the_rate_holds():
    np.testing.assert_allclose(rates(range(10), schedule="poly", hold=5), [1] * 5 + [0.5] * 5)
    # The warm-up still goes by updates.
    np.testing.assert_allclose(rates((0, 1, 2, 4, 5), schedule="poly", hold=5, warmup_steps=1), [0.5, 1, 1, 1, 5 / 9])


def test_plateau():
    def reduced(*accuracies, patience=2):
        return plateau_reductions([{"val_accuracy": value} for value in accuracies], "val_accuracy", patience)
    assert reduced() == 0
    assert reduced(0.5, 0.6, 0.6) == 0
    assert reduced(0.5, 0.6, 0.6, 0.6) == 1  # Equal is no better: two in a row.
    assert reduced(0.5, 0.6, 0.4, 0.7, 0.5) == 0  # One, then better.
    assert reduced(0.6, 0.5, 0.5, 0.59, 0.58) == 2  # The best one stays the best.
    assert reduced(0.6, 0.5, 0.5, 0.61, 0.6, 0.6) == 2
    assert plateau_reductions([{"val_accuracy": 0.5}, {}, {}, {"val_accuracy": 0.5}], "val_accuracy", 2) == 0
    np.testing.assert_allclose([learning_rate(7, 10, 0.01, "plateau", reductions=n) for n in (0, 1, 3)], [1e-2, 1e-3, 1e-5])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rates_are_finite_and_between_zero_and_the_peak(schedule):
    found = rates(range(12), schedule=schedule, warmup_steps=0 if schedule == "one_cycle" else 2)
    assert all(0 <= rate <= 1 for rate in found)
    with pytest.raises(ValueError, match="schedule is 'stairs'"):
        learning_rate(0, 10, 1.0, "stairs")
