"""Local response normalization against the formula of its paper."""
from gluonzoo.errors import UserError
from gluonzoo.layers import LRN

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd


def normalised(x, size, alpha, beta, k, average=False):
    """Equation of section 3.3, one channel after the other."""
    out = np.empty_like(x, dtype="float64")
    for channel in range(x.shape[1]):
        first, last = max(0, channel - size // 2), min(x.shape[1] - 1, channel + size // 2)
        squares = (x[:, first:last + 1].astype("float64") ** 2).sum(1) / (size if average else 1)
        out[:, channel] = x[:, channel] / (k + alpha * squares) ** beta
    return out


@pytest.mark.parametrize("arguments", [
    {}, {"k": 1.0}, {"size": 3, "alpha": 0.5, "beta": 0.5, "k": 0.1}, {"size": 1, "alpha": 1.0},
    {"alpha": 2.0, "k": 1.0, "average": True}, {"size": 9, "alpha": 0.3}])
@pytest.mark.parametrize("hybrid", [False, True])
def test_formula(arguments, hybrid):
    block = LRN(**arguments)
    block.hybridize(hybrid)
    x = np.random.RandomState(0).normal(0, 50, (2, 7, 3, 4)).astype("float32")
    expected = normalised(x, **{"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0, **arguments})
    np.testing.assert_allclose(block(mx.nd.array(x)).asnumpy(), expected, rtol=2e-5)


def test_hand_worked():
    # One pixel, channels 1, 2, 3: the sums of squares over 3 neighbours are 5, 14 and 13.
    found = LRN(size=3, alpha=1.0, beta=1.0, k=0.0)(mx.nd.array([1, 2, 3]).reshape((1, 3, 1, 1)))
    np.testing.assert_allclose(found.asnumpy().ravel(), [1 / 5, 2 / 14, 3 / 13], rtol=1e-5)


def test_gradient():
    block, x = LRN(size=3, alpha=0.5, beta=0.75, k=1.0), np.random.RandomState(1).normal(0, 2, (1, 4, 1, 2))
    array = mx.nd.array(x)
    array.attach_grad()
    with autograd.record():
        y = block(array)
    y.backward()
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        change = (normalised(x + step, 3, 0.5, 0.75, 1.0) - normalised(x - step, 3, 0.5, 0.75, 1.0)).sum() / 2e-6
        assert abs(array.grad.asnumpy()[index] - change) < 1e-4


def test_constants_are_written_into_the_symbol():
    attributes = LRN()(mx.sym.var("data")).attr_dict()
    (found,) = [values for values in attributes.values() if "nsize" in values]
    assert (int(found["nsize"]), float(found["knorm"]), float(found["beta"])) == (5, 2.0, 0.75)
    assert abs(float(found["alpha"]) / 5 - 1e-4) < 1e-10


@pytest.mark.parametrize("size, message", [(4, "size is 4; expected an odd number"), (0, "size is 0"), (2.5, "size is 2.5")])
def test_bad_sizes(size, message):
    with pytest.raises(UserError, match=message):
        LRN(size)
