"""Compressed gradients: arithmetic against NumPy, bits of the sum, refusals; with real workers in tests/distributed."""
from gluonzoo.errors import UserError
from gluonzoo.training import Trainer
from gluonzoo.training.compression import TwoBit, digits_in_a_number

import mxnet as mx
import numpy as np
import pytest

WORKERS = (1, 2, 3, 4, 8, 16, 32, 101, 102, 1447)


def net_of(*shape):
    net = mx.gluon.nn.Dense(*shape, in_units=3)
    net.initialize()
    return net


@pytest.mark.parametrize("workers", WORKERS)
def test_the_digits_of_any_sum_come_back(workers):
    """Also the extremes, where every worker says the same."""
    codec, base, random = TwoBit(97, workers, 1.0, mx.cpu()), 2 * workers + 1, np.random.RandomState(workers)
    digits = digits_in_a_number(workers)
    assert base ** digits <= 2**23 < base ** (digits + 1)
    drawn = random.randint(0, base, (digits, codec.width))
    for wanted in (drawn, np.zeros_like(drawn), np.full_like(drawn, base - 1)):
        number = sum(row.astype(np.int64) * base**place for place, row in enumerate(wanted))
        codec.packed[:] = mx.nd.array(number)
        out = mx.nd.empty((97,))
        codec.unpack(out)
        np.testing.assert_array_equal(out.asnumpy(), wanted.reshape(-1)[:97] - workers)


@pytest.mark.parametrize("workers", (1, 2, 3, 8))
def test_quantization_and_error_feedback_are_numpys(workers):
    threshold, random = np.float32(0.3), np.random.RandomState(0)
    codecs = [TwoBit(50, workers, float(threshold), mx.cpu()) for _ in range(workers)]
    residuals = [np.zeros(50, dtype=np.float32) for _ in range(workers)]
    sent, given = np.zeros(50), np.zeros(50)
    for _ in range(6):
        gradients = random.randn(workers, 50).astype(np.float32) * 0.4
        total, expected = 0, np.zeros(50, dtype=np.float32)
        for rank, codec in enumerate(codecs):
            codec.pack(mx.nd.array(gradients[rank]))
            total = total + codec.packed
            residuals[rank] += gradients[rank]
            signs = (residuals[rank] >= threshold).astype(np.float32) - (residuals[rank] <= -threshold)
            residuals[rank] -= signs * threshold
            expected += signs
            np.testing.assert_array_equal(codec.residual.asnumpy(), residuals[rank])
        out = mx.nd.empty((50,))
        total.copyto(codecs[0].packed)
        codecs[0].unpack(out)
        np.testing.assert_array_equal(out.asnumpy(), expected * threshold)
        sent, given = sent + out.asnumpy(), given + gradients.sum(axis=0)
    # Nothing is lost: what was given was sent or is held back.
    np.testing.assert_allclose(sent + sum(residuals), given, atol=1e-5)


@pytest.mark.parametrize("arguments, words", [
    ({"compression": "1bit"}, "compression is '1bit'; expected one of none, 2bit, fp16"),
    ({"compression": "2bit"}, "compression 2bit is for dist_sync and dist_device_sync, not device"),
    ({"compression_threshold": -1.0}, "compression_threshold is -1.0"), ({"local_steps": 0}, "local_steps is 0"),
    ({"local_steps": 2, "on_nan": "skip"}, "local_steps goes neither with compression")])
def test_refusals(arguments, words):
    with pytest.raises(UserError, match=words):
        Trainer(net_of(2), "sgd", {"learning_rate": 0.1}, **arguments)
