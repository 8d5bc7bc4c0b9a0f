"""Segments whose maps are computed again: the same outputs, gradients and running statistics as the network, to the bit."""
import itertools
import os
import subprocess
import sys

import gluonzoo
from gluonzoo.errors import UserError
from gluonzoo.training import Recomputed, freeze
from gluonzoo.training.segments import cut_points, split
from gluonzoo.training.trainer import Trainer

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn
from small_nets import small_residual

loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()


def values(net):
    """Gradients, and of what has none the values, by name."""
    mx.nd.waitall()
    return {name: (parameter.grad() if parameter.grad_req != "null" else parameter.data()).asnumpy()
            for name, parameter in net._collect_params_with_prefix().items()}


def trained(make, segments, shape, updates=2, prepare=lambda net: None, calls=1):
    """(values after some updates, last outputs, gradient of the input) of a network; with segments 0 of itself alone."""
    mx.random.seed(3)
    np.random.seed(3)
    net = make()
    net.initialize(mx.init.Xavier())
    net.hybridize(static_alloc=True, static_shape=True)
    prepare(net)
    run = Recomputed(net, segments) if segments else net
    trainer = Trainer(net, "sgd", {"learning_rate": 0.1, "momentum": 0.9}, accumulate=calls)
    x = mx.nd.array(np.random.RandomState(0).rand(*shape))
    x.attach_grad()
    labels = mx.nd.array(np.arange(shape[0]) % 3)
    for number in range(updates * calls):
        mx.random.seed(number)
        with mx.autograd.record():
            outputs = run(x)
            several = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            loss = sum(loss_of(output, labels) * (index + 1) for index, output in enumerate(several))
        loss.backward()
        if segments:
            run.backward()
        found = values(net)
        trainer.step(shape[0])
    return found, [output.asnumpy() for output in several], x.grad.asnumpy(), run


def assert_equal(found, expected):
    assert found[0].keys() == expected[0].keys()
    for name in expected[0]:
        np.testing.assert_array_equal(found[0][name], expected[0][name], err_msg=name)
    for one, other in zip(found[1], expected[1]):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(found[2], expected[2])
    assert all(np.abs(value).max() > 0 for value in (*expected[0].values(), expected[2]))


@pytest.mark.parametrize("segments", [1, 2, 3, 100])
def test_a_residual_network_with_dropout_before_its_end(segments):
    expected = trained(lambda: small_residual(3, 1), 0, (6, 1, 8, 8))
    found = trained(lambda: small_residual(3, 1), segments, (6, 1, 8, 8))
    assert_equal(found, expected)
    assert len(found[3].ends) == segments or segments == 100 and 2 < len(found[3].ends) < 40, found[3].ends


def test_gradients_are_added_where_a_batch_is_run_in_parts():
    assert_equal(trained(small_residual, 3, (6, 1, 8, 8), calls=2), trained(small_residual, 0, (6, 1, 8, 8), calls=2))


def test_frozen_layers_stay_as_they_are():
    """Their running statistics too, which a backward pass through them would move."""
    def prepare(net):
        freeze(net, "features.stem,features.unit1")

    expected, found = (trained(small_residual, number, (6, 1, 8, 8), prepare=prepare) for number in (0, 5))
    for name in expected[0]:
        np.testing.assert_array_equal(found[0][name], expected[0][name], err_msg=name)


class Heads(mx.gluon.HybridBlock):
    """Two outputs, the first from the middle; one layer is used twice, and one reads the input and the end."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.first, self.twice = nn.Dense(8, in_units=6, activation="tanh"), nn.Dense(8, in_units=8, activation="tanh")
            self.between, self.last = nn.Dense(8, in_units=8, activation="tanh"), nn.Dense(4, in_units=8)
            self.early = nn.Dense(4, in_units=8)

    def hybrid_forward(self, F, x):
        middle = self.twice(self.first(x))
        early = self.early(middle)
        y = self.twice(self.between(middle))
        for _ in range(4):
            y = F.tanh(y * 1.5 + 0.1)
        return [early, self.last(y)]


@pytest.mark.parametrize("segments", [2, 4, 9])
def test_several_outputs_and_a_layer_used_twice(segments):
    assert_equal(trained(Heads, segments, (5, 6)), trained(Heads, 0, (5, 6)))


class Ladder(mx.gluon.HybridBlock):
    """Two chains side by side: no cut has one map alone."""

    def hybrid_forward(self, F, x):
        left, right = F.sin(x), F.cos(x)
        for _ in range(5):
            left, right = F.tanh(left + right), F.sin(right * left)
        return left * right


def test_cuts_that_several_maps_cross():
    def run(segments):
        block = Ladder()
        block.hybridize()
        run = Recomputed(block, segments) if segments else block
        x = mx.nd.array(np.linspace(-1, 1, 12).reshape(3, 4))
        x.attach_grad()
        with mx.autograd.record():
            y = run(x)
        y.backward()
        if segments:
            run.backward()
            assert len(run.ends) == segments and any(len(part.inputs) == 2 for part in run._parts)
        return y.asnumpy(), x.grad.asnumpy()

    expected = run(0)
    for found, value in zip(run(3), expected):
        np.testing.assert_allclose(found, value, rtol=1e-6)  # Sums of two gradients may be added in another order.


def test_dropout_draws_the_same_numbers_again():
    """Of a product of masks with the input, the gradient by the input is the product of the masks: the output over the input."""
    net = nn.HybridSequential()
    for _ in range(6):
        net.add(nn.Dropout(0.5), nn.Activation("relu"))
    run = Recomputed(net, 5)
    x = mx.nd.array(np.full((4, 3000), 2.0))
    x.attach_grad()
    outputs = []
    for seed in (1, 2, 1):
        mx.random.seed(seed)
        with mx.autograd.record():
            y = run(x)
        y.backward()
        run.backward()
        np.testing.assert_array_equal(x.grad.asnumpy(), y.asnumpy() / 2)
        outputs.append(y.asnumpy())
    kept = [(output > 0).mean() for output in outputs]
    np.testing.assert_allclose(kept, 0.5 ** 6, atol=0.008)  # Masks of different layers are independent.
    np.testing.assert_array_equal(outputs[0], outputs[2])
    assert (outputs[0] != outputs[1]).any()


def test_two_passes_before_going_back():
    expected = trained(small_residual, 0, (6, 1, 8, 8), updates=1)[0]
    mx.random.seed(3)
    np.random.seed(3)
    net = small_residual()
    net.initialize(mx.init.Xavier())
    run = Recomputed(net, 3)
    for parameter in net.collect_params().values():
        parameter.grad_req = "add" if parameter.grad_req != "null" else "null"
    x, labels = mx.nd.array(np.random.RandomState(0).rand(6, 1, 8, 8)), mx.nd.array(np.arange(6) % 3)
    net.collect_params().zero_grad()
    with mx.autograd.record():
        losses = []
        for _ in range(2):
            mx.random.seed(0)
            losses.append(loss_of(run(x), labels))
    mx.autograd.backward(losses)
    run.backward()
    for name, value in values(net).items():
        if "running" not in name:
            np.testing.assert_allclose(value, 2 * expected[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_cuts_hold_the_least():
    """Against all choices: what crosses the cuts, and the most that a segment holds."""
    random = np.random.RandomState(0)
    for _ in range(20):
        costs = random.randint(1, 50, 10)
        crossing = {place: int(random.randint(1, 60)) for place in range(9) if random.rand() < 0.8}
        for segments in (1, 2, 3, 5):
            def held(cuts, costs=costs, crossing=crossing):
                bounds = [0, *(cut + 1 for cut in cuts), len(costs)]
                return sum(crossing[cut] for cut in cuts) + max(costs[a:b].sum() for a, b in zip(bounds, bounds[1:]))
            every = [cuts for count in range(segments) for cuts in itertools.combinations(sorted(crossing), count)]
            found = cut_points(costs, crossing, segments)
            assert len(found) < segments and set(found) <= set(crossing)
            assert held(found) == min(map(held, every))


def test_nothing_is_kept_within_segments():
    """What a pass holds on to are the maps at the cuts, of the sizes that the cuts were chosen by."""
    net = gluonzoo.get_model("cifar_resnet20_v1_b")
    net.initialize()
    run = Recomputed(net, 4)
    with mx.autograd.record():
        outputs = run(mx.nd.ones((2, 3, 32, 32)))
    (held,) = run._passes
    assert len(held._maps) == 3 and len(run.ends) == 4
    shapes = {name: parameter.shape for name, parameter in run._parameters.items()}
    symbol = net(mx.sym.var("data"))
    parts, heads = split(symbol, {"data": (2, 3, 32, 32), **shapes}, 4)
    internals = symbol.get_internals()
    for part, entry in zip(parts, held._maps):
        _, (shape,), _ = internals[f"{part.last}_output"].infer_shape(data=(2, 3, 32, 32))
        assert part.outputs == [entry] and held._maps[entry].shape == shape
    outputs.backward()
    run.backward()
    assert not held._maps and not held._gradients


@pytest.mark.parametrize("segments, words", [(0, "segments is 0"), (2.5, "2.5"), (True, "True"), ("4", "'4'")])
def test_numbers_that_are_none(segments, words):
    with pytest.raises(UserError, match=words):
        Recomputed(small_residual(), segments)


def test_what_is_left_out_is_told():
    with pytest.raises(UserError, match="Sequential cannot be cut"):
        Recomputed(nn.Sequential(), 2)
    net = small_residual()
    net.initialize()
    run = Recomputed(net, 3)
    x = mx.nd.ones((2, 1, 8, 8))
    with pytest.raises(UserError, match="nothing to go back through"):
        run.backward()
    with mx.autograd.record():
        loss = run(x).sum()
    with pytest.raises(UserError, match="nothing to go back through"):
        run.backward()  # Before the loss's.
    with mx.autograd.record():
        loss = run(x).sum()
    loss.backward()
    with pytest.raises(UserError, match="own has not"), mx.autograd.record():
        run(x)
    run.backward()
    with pytest.raises(UserError, match="takes 1 channels"), mx.autograd.record():
        run(mx.nd.ones((2, 3, 8, 8)))
    np.testing.assert_array_equal(run(x).asnumpy(), net(x).asnumpy())


def test_sums_over_workers_are_refused():
    from gluonzoo.training import TrainConfig
    with pytest.raises(UserError, match="--recompute 4 and --sync-bn exclude"):
        TrainConfig(recompute=4, sync_bn=True)


@pytest.mark.parametrize("name, size", [("densenet121", 32), ("shufflenet_v2_0_5", 32)] + [
    pytest.param(*pair, marks=pytest.mark.slow) for pair in (
        ("resnet50_v1b", 64), ("squeezenet1_1", 64), ("mobilenet_v2_1_0", 64), ("inception_v3", 96), ("googlenet", 64),
        ("dpn68", 64), ("alexnet", 227), ("vgg11_bn", 224), ("xception", 96), ("stn_mnist", 28), ("xnor_resnet18", 64))])
def test_registered_networks(name, size):
    spec = gluonzoo.model_spec(name)
    expected, found = (trained(lambda: gluonzoo.get_model(name), segments, (2, spec.input_shape[0], size, size))
                       for segments in (0, 4))
    assert len(found[3].ends) > 2
    for one, other in ((found[0], expected[0]), (dict(enumerate(found[1])), dict(enumerate(expected[1])))):
        for key in other:
            np.testing.assert_array_equal(one[key], other[key], err_msg=str(key))


MEASURE = """
import sys
import gluonzoo, mxnet as mx
from gluonzoo.training import Recomputed
net, segments = gluonzoo.get_model("resnet18_v1b"), int(sys.argv[1])
net.initialize()
net.hybridize(static_alloc=True, static_shape=True)
run = Recomputed(net, segments) if segments else net
x = mx.nd.ones((16, 3, 224, 224))
for _ in range(3):
    with mx.autograd.record():
        loss = run(x).sum()
    loss.backward()
    if segments:
        run.backward()
    mx.nd.waitall()
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.slow
def test_memory_is_saved(root):
    peaks = [int(subprocess.run([sys.executable, "-c", MEASURE, str(segments)], check=True, stdout=subprocess.PIPE,
                                env={**os.environ, "PYTHONPATH": str(root)}).stdout) / 1024 for segments in (0, 4)]
    assert peaks[1] < 0.75 * peaks[0], peaks
