"""SyncBatchNorm in one process: what is converted and refused, its arithmetic alone, sums of devices' threads.

Over workers: tests/distributed/test_sync_norm_workers.py.
"""
import threading

import gluonzoo
from gluonzoo.distributed.vectors import VectorSum
from gluonzoo.errors import UserError
from gluonzoo.layers import SyncBatchNorm, VectorBatchNorm, sync_batch_norm
from gluonzoo.layers.sync_norm import _Group

import mxnet as mx
import numpy as np
import pytest


def test_alone_nothing_is_changed():
    net = gluonzoo.get_model("cifar_resnet20_v1_a")
    net.initialize()
    assert sync_batch_norm(net) is None
    assert type(net.features.stem.norm if hasattr(net.features.stem, "norm") else net.features.stem[1]) is mx.gluon.nn.BatchNorm


def test_several_cpu_devices_of_one_process_are_refused():
    net = mx.gluon.nn.BatchNorm(in_channels=2)
    with pytest.raises(UserError, match="is not|not initialised"):
        sync_batch_norm(net)
    net.initialize(ctx=[mx.cpu(0), mx.cpu(1)])
    with pytest.raises(UserError, match="on 2 CPU devices of one process"):
        sync_batch_norm(net)


def connect(norm):
    """As in a job of one worker, so that the layer's own arithmetic runs."""
    group = _Group(VectorSum(None, 1, [norm.gamma.shape[0] + 1] * 4), norm.gamma.list_ctx(), [norm])
    norm.__class__, norm._group, norm._key = SyncBatchNorm, group, 0
    return group


@pytest.mark.parametrize("kind, shape, scale", [
    (mx.gluon.nn.BatchNorm, (5, 3, 4, 6), True), (mx.gluon.nn.BatchNorm, (5, 3, 4, 6), False),
    (VectorBatchNorm, (7, 3), True), (mx.gluon.nn.BatchNorm, (4, 3, 5), True)])
@pytest.mark.parametrize("hybrid", [False, True])
def test_its_arithmetic_is_batch_norms(kind, shape, scale, hybrid):
    mx.random.seed(4)
    nets = []
    for _ in range(2):
        norm = kind(in_channels=3, scale=scale, momentum=0.8, epsilon=1e-3)
        norm.initialize()
        norm.beta.set_data(mx.nd.array([0.5, -1, 2]))
        if scale:
            norm.gamma.set_data(mx.nd.array([1.5, 0.5, -2]))
        nets.append(norm)
    group = connect(nets[1])
    assert group.contexts == [mx.cpu(0)]
    if hybrid:
        for net in nets:
            net.hybridize(static_alloc=True, static_shape=True)
    for _ in range(3):
        x = mx.nd.array(20 + 3 * np.random.RandomState(5).randn(*shape))
        weights, found = mx.nd.random.normal(shape=shape), []
        for net in nets:
            x.attach_grad()
            with mx.autograd.record():
                y = net(x)
                loss = mx.nd.sum(y * y * weights)
            loss.backward()
            mx.nd.waitall()
            found.append([y.asnumpy(), x.grad.asnumpy(), net.beta.grad().asnumpy(), net.running_mean.data().asnumpy(),
                          net.running_var.data().asnumpy()] + ([net.gamma.grad().asnumpy()] if scale else []))
        for stock, ours in zip(*found):
            np.testing.assert_allclose(ours, stock, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(nets[1](x).asnumpy(), nets[0](x).asnumpy(), rtol=1e-4, atol=1e-4)


def test_a_device_that_is_ahead_waits_for_its_own_round():
    sums, found = VectorSum(None, 2, [1]), {}
    for devices in (1, 2):
        sums.begin(devices)
    late = threading.Thread(target=lambda: found.update(late=sums.sum(0, np.array([5.0]), 1)))
    late.start()  # Takes part in the second round only, and comes before the first one is over.
    late.join(timeout=0.2)
    assert late.is_alive() and not found
    assert sums.sum(0, np.array([1.0]), 0).tolist() == [1.0]
    assert sums.sum(0, np.array([2.0]), 0).tolist() == [7.0]
    late.join(timeout=30)
    assert found["late"].tolist() == [7.0]


def test_devices_threads_are_summed_in_rounds():
    sums, found = VectorSum(None, 3, [2, 1]), {}
    for devices in (3, 2, 3):
        sums.begin(devices)

    def device(number, rounds):
        for turn in rounds:
            for key, size in enumerate((2, 1)):
                found[number, turn, key] = sums.sum(key, np.full(size, 10.0 ** number * (turn + 1)), number)
    threads = [threading.Thread(target=device, args=(number, rounds))
               for number, rounds in enumerate(([0, 1, 2], [0, 1, 2], [0, 2]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    for (_, turn, key), total in found.items():
        np.testing.assert_array_equal(total, np.full((2, 1)[key], {0: 111, 1: 22, 2: 333}[turn]))
    assert len(found) == 16
    with pytest.raises(UserError, match="4 devices take part in a sum of 3"):
        sums.begin(4)
