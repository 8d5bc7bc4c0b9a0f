"""The comparison that decides whether an export is kept."""
from collections import namedtuple

import gluonzoo  # noqa: F401  (cures MXNet before it is imported)
from gluonzoo.export import ExportError, compare
from gluonzoo.export.check import flatten

import numpy as np
import pytest

mx = pytest.importorskip("mxnet")


def test_equal_functions_are_no_distance_apart():
    assert compare(lambda x: x * 2, lambda x: x + x, (3, 4)) == compare(abs, abs, (5,))
    found = compare(lambda x: x * 2, lambda x: x + x, (3, 4))
    assert (found.absolute, found.relative) == (0.0, 0.0)


def test_the_largest_difference_over_batches_and_outputs_is_found():
    seen = []

    def exported(x):
        seen.append(x.shape)
        shift = mx.nd.zeros(x.shape)
        if x.shape[0] == 3:
            shift[2, 1] = 0.25  # One element of one sample of one batch.
        return [x, x * 0 + 4 + shift]

    found = compare(lambda x: [x, x * 0 + 4], exported, (2,), batches=(1, 3))
    assert seen == [(1, 2), (3, 2)]
    assert found.absolute == 0.25 and found.relative == 0.25 / 4


def test_relative_difference_is_per_output():
    # A small output beside a large one must not hide behind it.
    found = compare(lambda x: [x * 0 + 1000, x * 0 + 1e-3], lambda x: [x * 0 + 1000, x * 0 + 2e-3], (2,))
    assert found.relative == pytest.approx(1.0, rel=1e-3)


def test_difference_from_zero_is_infinite():
    assert compare(lambda x: x * 0, lambda x: x * 0 + 1e-9, (2,)).relative == float("inf")


@pytest.mark.parametrize("other, words", [
    (lambda x: [x, x], "outputs of shapes"),
    (lambda x: mx.nd.concat(x, x, dim=1), r"\(1, 6\)"),
    (lambda x: x * float("nan"), "NaN"),
])
def test_what_cannot_be_compared_is_an_error(other, words):
    with pytest.raises(ExportError, match=words):
        compare(lambda x: x, other, (3,))


def test_equal_infinities_are_equal_and_unequal_ones_are_not():
    masked = mx.nd.array([[float("-inf"), 1.0]])
    assert compare(lambda x: masked, lambda x: masked.copy(), (2,), batches=(1,)).absolute == 0.0
    found = compare(lambda x: masked, lambda x: -masked, (2,), batches=(1,))
    assert found.absolute == float("inf")


def test_runs_in_inference_mode_and_draws_no_global_random_numbers():
    np.random.seed(4)
    mx.random.seed(4)
    expected = np.random.rand(), mx.nd.random.uniform(shape=1).asscalar()
    np.random.seed(4)
    mx.random.seed(4)
    modes = []
    with mx.autograd.record(train_mode=True):
        compare(lambda x: modes.append((mx.autograd.is_training(), mx.autograd.is_recording())) or x, lambda x: x, (2,))
        assert mx.autograd.is_training() and mx.autograd.is_recording()
    assert set(modes) == {(False, False)}
    assert (np.random.rand(), mx.nd.random.uniform(shape=1).asscalar()) == expected


def test_an_input_overwritten_by_one_is_whole_for_the_other():
    def live(x):
        out = x * 1
        x[:] = 0
        return out

    assert compare(live, lambda x: x, (3,)).absolute == 0.0


def test_flatten_names_nested_outputs():
    pair = namedtuple("Heads", ["main", "aux"])
    assert flatten(1) == [("output", 1)]
    assert flatten([1, [2, 3]]) == [("output0", 1), ("output1_0", 2), ("output1_1", 3)]
    assert flatten({"main": 1, "aux": (2, None)}) == [("main", 1), ("aux_0", 2)]
    assert flatten(pair(1, 2)) == [("main", 1), ("aux", 2)]
    symbol = mx.sym.split(mx.sym.var("data"), num_outputs=2)
    assert [name for name, _ in flatten(symbol)] == ["output0", "output1"]
