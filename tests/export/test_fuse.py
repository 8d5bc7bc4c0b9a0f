"""Fused networks: the same function, faster operators, and an original that still trains."""
import sys

import gluonzoo
from gluonzoo.errors import UserError
from gluonzoo.export import ExportError, compare, fuse
from gluonzoo.export.fuse_fold import drop_identities, fold_norms, spell_out_norms, split_over_concat
from gluonzoo.export.fuse_layout import arrange_channels, padded
from gluonzoo.export.fusion import TOLERANCE, fused_graph
from gluonzoo.export.graph import Graph

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import nn

#: At least one network of every kind of block; the others are slow.
REPRESENTATIVES = ("lenet5", "nin_cifar10", "cifar_resnet20_v1_b", "cifar_resnet20_v2", "cifar_densenet_l40_k12", "squeezenet1_1",
                   "mobilenet_v2_0_5", "shufflenet_v1_g3_0_25", "shufflenet_v2_0_5", "se_resnet18", "stn_mnist", "dpn68")


def with_statistics(net, seed=3):
    """Random scales, shifts and running statistics, without which folding them would prove nothing."""
    net.initialize()
    rng = np.random.RandomState(seed)
    parameters = net._collect_params_with_prefix()
    # What hundreds of blocks multiply overflows; gates that multiply large maps make much of the input's last bit.
    smaller = 0.1 if len(parameters) > 2000 else 0.4 if any(".se." in name for name in parameters) else 1.0
    for name, parameter in parameters.items():
        if parameter._data is None:
            continue
        if name.endswith("gamma"):
            parameter.set_data(mx.nd.array(rng.uniform(0.7, 1.4, parameter.shape) * smaller))
        elif name.endswith("running_var"):
            parameter.set_data(mx.nd.array(rng.uniform(0.7, 1.4, parameter.shape)))
        elif name.endswith(("beta", "running_mean", "bias")):
            parameter.set_data(mx.nd.array(rng.normal(0, 0.1, parameter.shape)))
    return net


def small_shape(net, name):
    """(C, H, W) of a small input."""
    spec = gluonzoo.model_spec(name)
    if net.fixed_size:
        return (spec.input_shape[0],) + tuple(net.min_size)
    return (spec.input_shape[0],) + tuple(min(full, low + 33) for low, full in zip(net.min_size, spec.input_shape[1:]))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in REPRESENTATIVES else [pytest.mark.slow])
                                  for name in gluonzoo.list_models()])
def test_every_registered_network(name):
    net = with_statistics(gluonzoo.get_model(name))
    shape = small_shape(net, name)
    fused = fuse(net, input_shape=shape)
    binary = any("sign" in node.op for node in Graph.from_net(net).operators)
    fused.prepare(mx.nd.ones((2,) + shape))
    assert compare(net, fused, shape, batches=(2,), seed=5).relative <= (1e-6 if binary else TOLERANCE)
    if not net.fixed_size:
        larger = shape[:1] + tuple(size + 32 for size in shape[1:])
        assert compare(net, fused, larger, batches=(1,), seed=6).relative <= TOLERANCE


class Branches(mx.gluon.HybridBlock):
    """What the rewrites look for: norms behind and in front of layers, concatenations, odd widths, dropout."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.conv = nn.Conv2D(20, 3, padding=1, in_channels=3)
            self.norm = nn.BatchNorm(in_channels=20)
            self.left = nn.Conv2D(20, 1, in_channels=20)
            self.right = nn.Conv2D(24, 3, padding=1, use_bias=False, in_channels=20)
            self.joined = nn.Conv2D(12, 1, in_channels=44)
            self.before = nn.BatchNorm(in_channels=12)
            self.last = nn.Conv2D(16, 1, in_channels=12)
            self.alone = nn.BatchNorm(in_channels=28)
            self.drop = nn.Dropout(0.5)
            self.output = nn.Dense(5, in_units=28 * 4)

    def hybrid_forward(self, F, x):
        x = F.relu(self.norm(self.conv(x)))
        x = F.concat(F.relu(self.left(x)), F.relu(self.right(x)), dim=1)
        x = F.sigmoid(self.joined(F.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max")))
        x = F.concat(x, self.last(self.before(x)), dim=1)
        x = F.Activation(self.alone(x), act_type="relu")
        return self.output(self.drop(x))


@pytest.fixture
def branches():
    mx.random.seed(2)
    return with_statistics(Branches())


def operators(graph):
    return [node.op for node in graph.operators]


def outputs(graph, data):
    return graph.run(data)[0]


def test_each_rewrite_alone_keeps_the_function(branches):
    graph = drop_identities(Graph.from_net(branches))
    data = np.random.RandomState(0).randn(2, 3, 4, 4).astype(np.float32)
    expected = outputs(graph, data)
    assert "Dropout" not in operators(graph)
    folded = fold_norms(graph.copy())
    # One behind the first convolution, one in front of a 1x1 convolution; the one between a concatenation and a ReLU stays.
    assert operators(graph).count("BatchNorm") == 3 and operators(folded).count("BatchNorm") == 1
    split = split_over_concat(folded.copy())
    assert operators(split).count("Concat") == 1 and operators(split).count("Pooling") == 2
    arranged = arrange_channels(folded, (3, 4, 4))
    assert [node.attrs["num_filter"] for node in arranged.operators if node.op == "Convolution"] == [20, 20, 32, 16, 16]
    spelled = spell_out_norms(folded.copy())
    assert "_contrib_BatchNormWithReLU" in operators(spelled) and "BatchNorm" not in operators(spelled)
    for changed in (folded, spelled, split, arranged, fused_graph(graph, (3, 4, 4))):
        np.testing.assert_allclose(outputs(changed, data), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outputs(graph, data), expected)  # Copies were changed, not this one.


def test_a_norm_folded_by_hand():
    net = nn.HybridSequential()
    net.add(nn.Dense(2, in_units=2, use_bias=False), nn.BatchNorm(in_channels=2, epsilon=0.0))
    net.initialize()
    net[0].weight.set_data(mx.nd.array([[1, 2], [3, 4]]))
    for array, values in ((net[1].gamma, [2, 3]), (net[1].beta, [10, 20]), (net[1].running_mean, [1, 2]),
                          (net[1].running_var, [4, 9])):
        array.set_data(mx.nd.array(values))
    graph = fold_norms(Graph.from_net(net))
    (dense,) = graph.operators
    # (Wx - mean) * gamma / sqrt(variance) + beta, gamma / sqrt(variance) being 1 in both rows.
    np.testing.assert_array_equal(graph.parameters[dense.inputs[1][0]], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(graph.parameters[dense.inputs[2][0]], [9, 18])


def test_a_norm_in_front_of_padding_or_with_other_readers_stays():
    class Kept(mx.gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.first, self.norm = nn.BatchNorm(in_channels=2), nn.BatchNorm(in_channels=3)
                self.conv = nn.Conv2D(3, 3, padding=1, in_channels=2)

        def hybrid_forward(self, F, x):
            x = self.conv(self.first(x))
            return x + self.norm(x)

    net = with_statistics(Kept())
    graph = Graph.from_net(net)
    assert operators(fold_norms(graph.copy())) == operators(graph)
    # MXNet's own fusion takes the second one into the convolution and forgets that the sum reads it too.
    assert compare(net, fuse(net, input_shape=(2, 5, 5)), (2, 5, 5)).relative < 1e-5


def test_shared_weights_are_not_folded_into():
    class Twice(mx.gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.conv, self.norm = nn.Conv2D(3, 1, in_channels=3), nn.BatchNorm(in_channels=3)

        def hybrid_forward(self, F, x):
            return self.norm(self.conv(self.conv(x)))

    net = with_statistics(Twice())
    assert compare(net, fuse(net, input_shape=(3, 4, 4)), (3, 4, 4)).relative < 1e-5


@pytest.mark.parametrize("channels, width", [(16, 16), (58, 64), (24, 32), (728, 736), (1000, 1008), (6, 6), (10, 10), (11, 16)])
def test_widths(channels, width):
    assert padded(channels) == width


def test_shuffles_and_slices_of_channels_are_gone():
    net = with_statistics(gluonzoo.get_model("shufflenet_v2_0_5"))
    before, after = Graph.from_net(net), fused_graph(Graph.from_net(net), (3, 64, 64))
    assert {"transpose", "Reshape", "slice_axis"} <= set(operators(before))
    assert not {"transpose", "Reshape", "slice_axis"} & set(operators(after))


def test_the_original_trains_as_if_nothing_had_been_fused():
    def gradients(fusing):
        mx.random.seed(1)
        net = with_statistics(gluonzoo.get_model("cifar_resnet20_v1_b"))
        before = {name: p.data().asnumpy() for name, p in net._collect_params_with_prefix().items()}
        requests = {name: p.grad_req for name, p in net._collect_params_with_prefix().items()}
        if fusing:
            fuse(net)(mx.nd.ones((1, 3, 32, 32))).wait_to_read()
            for name, parameter in net._collect_params_with_prefix().items():
                np.testing.assert_array_equal(parameter.data().asnumpy(), before[name])
                assert parameter.grad_req == requests[name]
        x = mx.nd.array(np.random.RandomState(0).randn(4, 3, 32, 32))
        with autograd.record():
            loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()(net(x), mx.nd.arange(4))
        loss.backward()
        return {name: p.grad().asnumpy() for name, p in net._collect_params_with_prefix().items() if p.grad_req != "null"}

    plain, after = gradients(False), gradients(True)
    assert plain.keys() == after.keys() and all(np.abs(value).max() > 0 for value in after.values())
    for name, value in plain.items():
        np.testing.assert_array_equal(after[name], value)


def test_it_keeps_the_parameters_of_its_time(branches):
    fused = fuse(branches, input_shape=(3, 4, 4))
    x = mx.nd.ones((1, 3, 4, 4))
    before = fused(x).asnumpy()
    branches.output.weight.set_data(branches.output.weight.data() * 2)
    np.testing.assert_array_equal(fused(x).asnumpy(), before)


def test_recording_gradients_through_it_is_refused(branches):
    fused = fuse(branches, mx.nd.ones((2, 3, 4, 4)))
    with pytest.raises(UserError, match="no gradients"):
        with autograd.record():
            fused(mx.nd.ones((2, 3, 4, 4)))
    with autograd.record(), autograd.pause():
        assert fused(mx.nd.ones((2, 3, 4, 4))).shape == (2, 5)


def test_shapes_may_change_from_call_to_call():
    net = with_statistics(gluonzoo.get_model("resnet18_v1b", classes=10))
    fused = fuse(net, input_shape=(3, 32, 32))
    for shape in [(50, 3, 32, 32), (1, 3, 32, 32), (3, 3, 64, 48), (50, 3, 32, 32), (2, 3, 40, 40), (4, 3, 32, 32)] * 2:
        x = mx.nd.random.normal(shape=shape)
        a, b = net(x).asnumpy(), fused(x).asnumpy()
        assert np.abs(a - b).max() <= TOLERANCE * np.abs(a).max()
    fused.hybridize(static_alloc=True)
    assert fused(x).shape == (4, 10)


def test_auxiliary_outputs_keep_their_names():
    net = with_statistics(gluonzoo.get_model("googlenet_bn", aux=True, classes=10))
    x = mx.nd.random.normal(shape=(1, 3) + tuple(net.min_size))
    live, fused = net(x), fuse(net, x)(x)
    assert type(live) is type(fused) and fused._fields == live._fields
    for a, b in zip(live, fused):
        np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), rtol=1e-3, atol=1e-4 * float(a.abs().max().asscalar()))


def test_the_input_is_checked_as_by_the_network():
    net = with_statistics(gluonzoo.get_model("lenet5"))
    with pytest.raises(UserError, match="exactly 32x32"):
        fuse(net)(mx.nd.ones((1, 1, 28, 28)))


def no_float32():
    net = Branches()
    net.initialize()
    net.cast("float64")
    return net


@pytest.mark.parametrize("make, kwargs, words", [
    (lambda: Branches(), {"input_shape": (3, 4, 4)}, "no values yet"),
    (lambda: "lenet5", {}, "expected a HybridBlock, received str"),
    (no_float32, {"input_shape": (3, 4, 4)}, "float64; expected float32"),
    (lambda: with_statistics(Branches()), {}, "give input_shape"),
    (lambda: with_statistics(Branches()), {"x": np.ones(3)}, r"x has shape \(3,\); expected an example input"),
    (lambda: with_statistics(Branches()), {"x": np.ones((1, 3, 4, 4)), "input_shape": (3, 8, 8)}, "expected one of them"),
])
def test_what_cannot_be_fused(make, kwargs, words):
    with pytest.raises(ExportError, match=words):
        fuse(make(), **kwargs)


def test_a_difference_is_an_error(branches, monkeypatch):
    module = sys.modules["gluonzoo.export.fusion"]

    def damaged(graph, shape):
        graph = fused_graph(graph, shape)
        name = next(name for name in graph.parameters if name.startswith("output.weight"))
        graph.parameters[name] = graph.parameters[name] * np.float32(1.01)
        return graph

    monkeypatch.setattr(module, "fused_graph", damaged)
    with pytest.raises(ExportError, match="differs from the live one"):
        fuse(branches, input_shape=(3, 4, 4))


@pytest.mark.parametrize("engine", ["mxnet", "auto"])
def test_a_shape_that_comes_back_has_its_own_planned_graph(engine):
    """MXNet's static_shape dies here: "can't generate TBlob for MKLDNN data"."""
    net = with_statistics(gluonzoo.get_model("shufflenet_v2_0_5", classes=7))
    fused = fuse(net, input_shape=(3, 64, 64), engine=engine)
    planned = fused._compiled._planned
    rng = np.random.RandomState(1)
    for batch in (1, 4, 1, 2, 1, 4, 3, 5, 6, 1):
        data = mx.nd.array(rng.rand(batch, 3, 64, 64))
        expected = net(data).asnumpy()
        for _ in range(3):
            np.testing.assert_allclose(fused(data).asnumpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
        assert (batch, 3, 64, 64) in [shape for shape, _, _ in planned]
        assert len(planned) <= 4
    # New parameters are used at once, also by graphs that are planned.
    bias = [parameter for name, parameter in fused.collect_params().items() if "output" in name and name.endswith("bias")][0]
    before = fused(data).asnumpy()
    bias.set_data(bias.data() + 1)
    np.testing.assert_allclose(fused(data).asnumpy(), before + 1, rtol=1e-5, atol=1e-6)
    fused.hybridize(False)
    np.testing.assert_allclose(fused(data).asnumpy(), before + 1, rtol=1e-4, atol=1e-5)


def test_a_shape_that_came_once_gets_no_planned_graph():
    fused = fuse(with_statistics(gluonzoo.get_model("lenet5")), engine="mxnet")
    for batch in range(1, 40):
        fused(mx.nd.zeros((batch, 1, 32, 32))).wait_to_read()
    assert not fused._compiled._planned and len(fused._compiled._uses) <= 16


def test_what_cannot_be_planned_runs_unplanned(monkeypatch):
    """Without the Flatten in front of it, a dense layer behind a map of one pixel dies in the second planned run."""
    from gluonzoo.export import fusion
    monkeypatch.setattr(fusion, "flatten_before_dense", lambda graph, shapes: graph)
    net = with_statistics(gluonzoo.get_model("resnet18_v1b", classes=10))
    fused = fuse(net, input_shape=(3, 32, 32), engine="mxnet")
    data = mx.nd.random.normal(shape=(2, 3, 32, 32))
    expected = net(data).asnumpy()
    for _ in range(8):
        np.testing.assert_allclose(fused(data).asnumpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert not fused._compiled._planned
    monkeypatch.undo()
    fused = fuse(net, input_shape=(3, 32, 32), engine="mxnet")
    for _ in range(8):
        np.testing.assert_allclose(fused(data).asnumpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert len(fused._compiled._planned) == 1
