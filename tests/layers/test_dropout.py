"""Dropout's rate is checked when the layer is made."""
from gluonzoo.errors import UserError
from gluonzoo.layers import make_dropout

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd


def test_rate_zero_is_no_layer():
    assert make_dropout(0) is None and make_dropout(0.0) is None


def test_drops_its_share_in_training_only():
    layer, x = make_dropout(0.25), mx.nd.ones((100, 100))
    np.testing.assert_array_equal(layer(x).asnumpy(), x.asnumpy())
    with autograd.train_mode():
        y = layer(x).asnumpy()
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.03)
    np.testing.assert_allclose(y[y != 0], 4 / 3, rtol=1e-6)


@pytest.mark.parametrize("rate", [1, 1.5, -0.1, "0.5", None, True, float("nan")])
def test_bad_rates(rate):
    with pytest.raises(UserError, match="dropout is .*; expected a number of at least 0 and below 1"):
        make_dropout(rate)
