"""LocalSteps with a store that stands for other workers; with real ones in tests/distributed/test_ways.py."""
from gluonzoo.training.local_sgd import LocalSteps

import mxnet as mx
import numpy as np


class OtherWorker:
    """A store of two workers; the other one has the weight and momentum given, and so many samples."""

    def __init__(self, samples, vote, values):
        self.pushed, self._keys = [], 0
        self._other = {0: np.array([vote, samples], dtype=np.float32), 1: np.array(values, dtype=np.float32) * samples}

    def allocate(self, count):
        first, self._keys = self._keys, self._keys + count
        return first

    def broadcast(self, values):
        pass

    def push_pull(self, key, arrays, priority=0):
        self.pushed.append(key)
        arrays[0][:] = arrays[0] + mx.nd.array(self._other[key])


def make(store, every):
    net = mx.gluon.nn.Dense(1, in_units=2, use_bias=False)
    net.initialize()
    net.weight.set_data(mx.nd.array([[1.0, 2.0]]))
    updater = mx.optimizer.get_updater(mx.optimizer.create("sgd", learning_rate=0.1, momentum=0.9))
    updater.states[0] = mx.nd.array([[0.5, -0.5]])
    return net, updater, LocalSteps(store, [net.weight], updater, every)


def test_the_average_goes_by_samples_and_takes_momentum_along():
    store = OtherWorker(samples=3, vote=1, values=[5.0, 6.0, 0.1, 0.1])
    net, updater, local = make(store, every=2)
    assert float(local.after_update(4, vote=True).asscalar()) == 0 and store.pushed == [] and local.pending
    votes = local.after_update(5, vote=True)
    assert float(votes.asscalar()) == 2 and store.pushed == [0, 1] and not local.pending
    np.testing.assert_allclose(net.weight.data().asnumpy(), [[(9 * 1 + 3 * 5) / 12, (9 * 2 + 3 * 6) / 12]], rtol=1e-6)
    np.testing.assert_allclose(updater.states[0].asnumpy(), [[(4.5 + 0.3) / 12, (-4.5 + 0.3) / 12]], rtol=1e-5)


def test_without_samples_anywhere_weights_stay():
    net, _, local = make(OtherWorker(samples=0.001, vote=0, values=[1.0, 2.0, 0.5, -0.5]), every=1)
    local.after_update(0, vote=False)
    np.testing.assert_allclose(net.weight.data().asnumpy(), [[1.0, 2.0]], rtol=1e-6)


def test_averaging_twice_is_averaging_once():
    store = OtherWorker(samples=3, vote=0, values=[5.0, 6.0, 0.1, 0.1])
    _, _, local = make(store, every=9)
    local.average()
    assert store.pushed == []
    local.after_update(1, vote=False)
    local.average()
    local.average()
    assert store.pushed == [0, 1]
