"""The truncated normal initialisation, against the moments of its distribution."""
import json

from gluonzoo.layers import TruncatedNormal

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn


def drawn(sigma, seed=3):
    mx.random.seed(seed)
    layer = nn.Dense(500, in_units=400, weight_initializer=TruncatedNormal(sigma))
    layer.initialize()
    return layer.weight.data().asnumpy()


@pytest.mark.parametrize("sigma", [0.09, 1.5])
def test_moments(sigma):
    values = drawn(sigma) / sigma
    assert 1.99 < np.abs(values).max() <= 2 + 1e-6
    # Between -2 and 2 a normal distribution has the variance 1 - 4 phi(2) / (2 Phi(2) - 1).
    assert values.std() == pytest.approx(0.8796, abs=0.005) and abs(values.mean()) < 0.01
    # The tails were drawn again, not pushed to the bounds: 2.7 % of the values have 1.8 to 2.
    assert np.mean(np.abs(values) > 1.8) == pytest.approx(0.0276, abs=0.003)


def test_the_seed_decides():
    np.testing.assert_array_equal(drawn(0.1), drawn(0.1))
    assert np.abs(drawn(0.1) - drawn(0.1, seed=4)).max() > 0.1


def test_biases_start_at_zero_and_the_text_form_comes_back():
    initializer = mx.init.create(*json.loads(TruncatedNormal(0.25).dumps())[:1], sigma=0.25)
    assert isinstance(initializer, TruncatedNormal) and initializer.sigma == 0.25
    layer = nn.Dense(3, in_units=2)
    layer.initialize(TruncatedNormal(0.25))
    assert not layer.bias.data().asnumpy().any() and layer.weight.data().asnumpy().any()
