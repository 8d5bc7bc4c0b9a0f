"""Networks run by oneDNN directly: each operator and form against MXNet, memory shared as it may be, and refusals."""
import ctypes
import threading
import weakref

from gluonzoo.errors import UserError
from gluonzoo.export import ExportError, fuse
from gluonzoo.export.check import relative
from gluonzoo.export.graph import Graph
from gluonzoo.export.onednn import calls, library
from gluonzoo.export.onednn.lowering import Unsupported, lower
from gluonzoo.export.onednn.runner import Direct

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

needs_library = pytest.mark.skipif(library.load() is None, reason="no oneDNN 2 library: pip install onednn-cpu-gomp==2022.2.1")


def graph_of(symbol, input_shape, seed=0):
    """The symbol with random parameters, as a Graph; running variances are positive."""
    rng = np.random.RandomState(seed)
    shapes, _, statistics = symbol.infer_shape(data=input_shape)
    values = {}
    for name, shape in [*zip(symbol.list_arguments(), shapes), *zip(symbol.list_auxiliary_states(), statistics)]:
        if name != "data":
            positive = name.endswith(("var", "gamma"))
            scale = 1 / np.sqrt(max(1, np.prod(shape[1:])))
            values[name] = (rng.uniform(0.5, 1.5, shape) if positive else rng.normal(0, scale, shape)).astype(np.float32)
    return Graph.from_symbol(symbol, values)


@pytest.fixture(autouse=True)
def dirty_memory(monkeypatch):
    """What is read before it was written is NaN."""
    from gluonzoo.export.onednn import candidates, program

    def dirty(size):
        array = candidates.aligned(size)
        array[:] = 255
        return array

    monkeypatch.setattr(program, "aligned", dirty)


def check(symbol, input_shape, seed=0, tolerance=1e-5):
    """Run by oneDNN and by MXNet, twice; returns the Direct."""
    graph = graph_of(symbol if isinstance(symbol, mx.sym.Symbol) else mx.sym.Group(symbol), input_shape, seed)
    direct = Direct.of([graph])
    runner = direct.compile(input_shape, mx.cpu())
    for turn in range(2):
        x = np.random.RandomState(seed + turn).normal(0, 1, input_shape).astype(np.float32)
        found, expected = [array.asnumpy() for array in runner(mx.nd.array(x))], graph.run(x)
        assert [array.shape for array in found] == [array.shape for array in expected]
        for a, b in zip(expected, found):
            assert relative(a, b) < tolerance
    return direct


S = mx.sym
DATA = mx.sym.var("data")


def conv(x, filters, kernel=3, pad=None, **more):
    pad = kernel // 2 if pad is None else pad
    return S.Convolution(x, num_filter=filters, kernel=(kernel,) * 2, pad=(pad,) * 2, **more)


def relu(x):
    return S.Activation(x, act_type="relu")


SIXTEEN = conv(DATA, 16, 1)

FORMS = {
    "convolution, odd widths": conv(conv(DATA, 5), 7),
    "convolution without bias": conv(SIXTEEN, 32, no_bias=True),
    "convolution of 3x3, stride 1": conv(relu(conv(SIXTEEN, 32)), 16),
    "convolution with stride and dilation": conv(conv(SIXTEEN, 16, 3, 2, dilate=(2, 2)), 16, 3, 1, stride=(2, 2)),
    "oblong convolution": S.Convolution(SIXTEEN, num_filter=8, kernel=(1, 7), pad=(0, 3), stride=(1, 2)),
    "groups": conv(SIXTEEN, 32, num_group=4),
    "depthwise": conv(SIXTEEN, 16, num_group=16),
    "depthwise of an odd width": conv(conv(DATA, 10, 1), 10, num_group=10),
    "max pooling": S.Pooling(SIXTEEN, kernel=(3, 3), stride=(2, 2), pool_type="max"),
    "max pooling, full": S.Pooling(SIXTEEN, kernel=(3, 3), stride=(2, 2), pool_type="max", pooling_convention="full"),
    "max pooling, full, padded": S.Pooling(SIXTEEN, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="max",
                                           pooling_convention="full"),
    "average pooling with padding": S.Pooling(SIXTEEN, kernel=(3, 3), pad=(1, 1), pool_type="avg"),
    "average pooling without padding": S.Pooling(SIXTEEN, kernel=(3, 3), pad=(1, 1), pool_type="avg", count_include_pad=False),
    "average pooling, full": S.Pooling(SIXTEEN, kernel=(2, 2), stride=(2, 2), pool_type="avg", pooling_convention="full"),
    "average pooling, full, without padding": S.Pooling(SIXTEEN, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="avg",
                                                        pooling_convention="full", count_include_pad=False),
    "average pooling that leaves pixels out": S.Pooling(SIXTEEN, kernel=(4, 4), stride=(4, 4), pool_type="avg"),
    "global pooling": S.Pooling(SIXTEEN, kernel=(1, 1), global_pool=True, pool_type="avg"),
    "global pooling of the largest": S.Pooling(SIXTEEN, kernel=(1, 1), global_pool=True, pool_type="max"),
    "mean": S.mean(SIXTEEN, axis=(2, 3)),
    "mean that keeps axes": S.mean(SIXTEEN, axis=(2, 3), keepdims=True),
    "BatchNorm": S.BatchNorm(SIXTEEN, fix_gamma=False, eps=1e-5),
    "BatchNorm with fixed gamma": S.BatchNorm(SIXTEEN, fix_gamma=True, eps=1e-3),
    "BatchNorm and ReLU": conv(relu(S.BatchNorm(SIXTEEN, fix_gamma=False)), 16),
    "BatchNorm of an odd width": relu(S.BatchNorm(conv(DATA, 6, 1), fix_gamma=False)),
    "LRN": S.LRN(SIXTEEN, nsize=5, alpha=0.5, beta=0.75, knorm=2),
    "softmax": S.softmax(S.FullyConnected(SIXTEEN, num_hidden=7)),
    "softmax over channels": S.softmax(SIXTEEN, axis=1),
    "dense": S.FullyConnected(relu(S.FullyConnected(S.Flatten(conv(DATA, 6)), num_hidden=10)), num_hidden=3, no_bias=True),
    "dense on a pixel": S.FullyConnected(S.Flatten(S.mean(SIXTEEN, axis=(2, 3), keepdims=True)), num_hidden=3),
    "sigmoid, tanh": S.tanh(conv(S.sigmoid(SIXTEEN), 16)),
    "softrelu": S.Activation(SIXTEEN, act_type="softrelu"),
    "leaky": S.LeakyReLU(SIXTEEN, act_type="leaky", slope=0.1),
    "elu": S.LeakyReLU(SIXTEEN, act_type="elu", slope=0.7),
    "clip": S.clip(SIXTEEN, a_min=-0.2, a_max=0.4),
    "hard sigmoid": S.hard_sigmoid(SIXTEEN),
    "hard swish": SIXTEEN * (S.clip(SIXTEEN + 3, a_min=0, a_max=6) / 6),
    "scalars": ((relu(SIXTEEN) * 3 - 1) / 7 + 2),
    "activations read by several": relu(SIXTEEN) + S.tanh(SIXTEEN),
    "squeeze and excitation": S.broadcast_mul(SIXTEEN, S.sigmoid(conv(S.mean(SIXTEEN, axis=(2, 3), keepdims=True), 16, 1))),
    "product": SIXTEEN * S.tanh(SIXTEEN),
    "difference": conv(SIXTEEN, 16) - SIXTEEN,
    "zeros in place of a map": S.Concat(conv(SIXTEEN, 16), S.zeros_like(SIXTEEN), dim=1),
    "zeros around a map": conv(S.Pad(relu(SIXTEEN), mode="constant", constant_value=0, pad_width=(0, 0, 0, 0, 0, 2, 1, 3)), 16),
    "channel shuffle": conv(S.Reshape(S.transpose(S.Reshape(conv(DATA, 32, 1), shape=(-1, 4, 8, 0, 0), reverse=True), axes=(
        0, 2, 1, 3, 4)), shape=(-1, 32, 0, 0), reverse=True), 16, num_group=2),
    "slice of channels": S.slice_axis(SIXTEEN, axis=1, begin=3, end=9) + conv(SIXTEEN, 6, 1),
    "slice to the end": S.slice_axis(S.mean(SIXTEEN, axis=(2, 3)), axis=1, begin=0, end=10),
}


@needs_library
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_operators(form, batch):
    check(FORMS[form], (batch, 3, 11, 11))


def residual():
    a = relu(SIXTEEN)
    b = relu(conv(relu(conv(a, 16)), 16) + a)
    return relu(conv(b, 32, 3, stride=(2, 2)) + conv(b, 32, 1, stride=(2, 2)))


def sums():
    """Sums whose terms are read again later, in other orders, and twice by one sum."""
    a, b = conv(SIXTEEN, 16), conv(SIXTEEN, 16)
    c = a + b
    return [conv(c + a, 16, 1) + c, (b + b) + conv(a, 16), conv(SIXTEEN + c, 16) + SIXTEEN]


def concatenations():
    """In one another, of what is read elsewhere too, of one thing twice, and of a sum's terms."""
    a, b, c = (relu(conv(SIXTEEN, width, 1)) for width in (16, 32, 16))
    first = S.Concat(a, b, dim=1)
    second = S.Concat(first, c, dim=1)
    third = S.Concat(c, a, c, dim=1)
    return [conv(second, 16, 1), conv(third, 16, 1) + a, S.Concat(conv(first, 16) + a, relu(conv(b, 32) + b), dim=1)]


def dense_blocks():
    x = conv(DATA, 32)
    for index in range(4):
        y = relu(S.BatchNorm(x, fix_gamma=False, name=f"norm{index}"))
        x = S.Concat(x, conv(conv(y, 64, 1), 16), dim=1)
    return S.FullyConnected(S.mean(relu(S.BatchNorm(x, fix_gamma=False, name="last")), axis=(2, 3)), num_hidden=5)


def odd_concatenations():
    a, b = conv(DATA, 10), conv(DATA, 6)
    return conv(S.Concat(a, S.Concat(b, a, dim=1), b, dim=1), 8)


@needs_library
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("build", [residual, sums, concatenations, dense_blocks, odd_concatenations])
def test_memory_that_is_shared(build, batch):
    check(build(), (batch, 3, 14, 14))


def random_network(rng):
    """Layers in random order, each reading any of those before it that fit; every map that nobody reads is an output."""
    maps, read = [conv(DATA, int(rng.choice([16, 16, 32, 10])), int(rng.choice([1, 3])))], set()
    for _ in range(rng.randint(3, 14)):
        index = rng.randint(max(0, len(maps) - 4), len(maps))
        x = maps[index]
        kind = rng.choice(["conv", "conv", "conv", "relu", "sum", "sum", "concat", "norm", "pool", "clip", "part"])
        width = x.infer_shape(data=(1, 3, 12, 12))[1][0][1]
        fitting = [place for place, other in enumerate(maps) if other.infer_shape(data=(1, 3, 12, 12))[1][0][1] == width]
        used = [index]
        if kind == "conv":
            made = conv(x, int(rng.choice([16, 32, 10, width])), int(rng.choice([1, 3, 3])))
        elif kind == "sum":
            used.append(int(rng.choice(fitting)))
            made = x + maps[used[1]]
        elif kind == "concat":
            used += [int(place) for place in rng.choice(len(maps), rng.randint(1, 3))]
            made = S.Concat(*[maps[place] for place in used], dim=1)
        elif kind == "norm":
            made = S.BatchNorm(x, fix_gamma=False)
        elif kind == "pool":
            made = S.Pooling(x, kernel=(3, 3), pad=(1, 1), pool_type=str(rng.choice(["max", "avg"])))
        elif kind == "part":
            made = S.slice_axis(x, axis=1, begin=0, end=int(rng.choice([min(8, width), max(1, width - 1)])))
        else:
            made = relu(x) if kind == "relu" else S.clip(x, a_min=-0.5, a_max=0.5)
        read.update(used)
        maps.append(made)
    return [x for index, x in enumerate(maps) if index not in read]


@needs_library
@pytest.mark.parametrize("seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(12, 200))])
def test_random_networks(seed):
    rng = np.random.RandomState(seed)
    # Sums of sums of themselves grow, and Winograd's rounding with them.
    check(random_network(rng), (int(rng.choice([1, 1, 2])), 3, 12, 12), seed, tolerance=2e-4)


@needs_library
@pytest.mark.parametrize("order", [library.NHWC, library.BLOCKED])
@pytest.mark.parametrize("form", FORMS)
def test_operators_on_odd_widths_in_either_order(form, order, monkeypatch):
    """Blocks that are not full: what lies behind the last channel is zero, or it is not done that way."""
    from gluonzoo.export.onednn.candidates import Maker
    make = Maker.make
    monkeypatch.setattr(Maker, "make", lambda self, step, layout, outside=None: (
        make(self, step, layout, outside) if layout == order or len(self.shapes[step.output]) == 2 else []))
    text = FORMS[form].tojson()
    for name, before, after in (("num_filter", 16, 10), ("num_group", 16, 10), ("num_group", 4, 2)):
        text = text.replace(f'"{name}": "{before}"', f'"{name}": "{after}"')
    network = mx.sym.load_json(text)
    if len(network.infer_shape(data=(2, 3, 11, 11))[1][0]) == 4:
        network = conv(network, 8, 1)  # Reads what lies behind the last channel, if only times zero.
    try:
        check(network, (2, 3, 11, 11))
    except Unsupported:
        assert order == library.BLOCKED and ("slice" in form or "BatchNorm" in form)


@needs_library
def test_image_by_image_and_all_at_once_are_one_function():
    from gluonzoo.export.onednn import plan
    graph = graph_of(S.FullyConnected(S.Flatten(S.Concat(conv(SIXTEEN, 16), SIXTEEN, dim=1)), num_hidden=7), (4, 3, 9, 9))
    x = np.random.RandomState(0).normal(0, 1, (4, 3, 9, 9)).astype(np.float32)
    expected = graph.run(x)[0]
    for several, parts in ((1, [4, 1]), (4, [1])):
        made = plan._plan(library.load(), graph, x.shape, several, weakref.WeakValueDictionary(),
                          plan.Costs(library.load()), True)
        assert [times for _, times, _, _ in made._parts] == parts
        found = np.zeros_like(expected)
        made.run(x.ctypes.data, [found.ctypes.data])
        assert relative(expected, found) < 1e-5


UNSUPPORTED = {
    "Pad": S.Pooling(S.Pad(SIXTEEN, mode="constant", constant_value=0, pad_width=(0, 0, 0, 0, 1, 1, 1, 1)), kernel=(2, 2)),
    "transpose": S.transpose(SIXTEEN, axes=(0, 2, 3, 1)),
    "Reshape": S.Reshape(SIXTEEN, shape=(0, 4, -1, 0)),
    "mean": S.mean(SIXTEEN, axis=1),
    "Concat": S.Concat(SIXTEEN, SIXTEEN, dim=2),
    "average pooling": S.Pooling(SIXTEEN, kernel=(4, 4), stride=(3, 3), pad=(1, 1), pool_type="avg", pooling_convention="full"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_it_has_not_is_said(name):
    graph = graph_of(UNSUPPORTED[name], (1, 3, 10, 10))
    with pytest.raises(Unsupported, match=name):
        lower(graph, (1, 3, 10, 10))


# In a block

class Small(mx.gluon.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.body = nn.HybridSequential()
            self.body.add(nn.Conv2D(32, 3, padding=1, use_bias=False), nn.BatchNorm(), nn.Activation("relu"),
                          nn.Conv2D(32, 3, padding=1), nn.GlobalAvgPool2D(), nn.Dense(5))

    def hybrid_forward(self, F, x):
        return self.body(x)


@pytest.fixture
def net():
    net = Small()
    net.initialize(mx.init.Xavier())
    net(mx.nd.ones((1, 3, 8, 8)))
    return net


@needs_library
def test_fuse_compiles_for_the_example_and_for_what_comes_a_third_time(net):
    name = "onednn " + ".".join(map(str, library.load().version))
    fused = fuse(net, mx.nd.ones((4, 3, 8, 8)))
    assert fused.engines == {(4, 3, 8, 8): name} and fused.why_not_direct is None
    x = mx.nd.random.normal(shape=(2, 3, 10, 10))
    expected = net(x).asnumpy()
    for turn in range(4):
        np.testing.assert_allclose(fused(x).asnumpy(), expected, rtol=1e-4, atol=1e-5)
        assert ((2, 3, 10, 10) in fused.engines) == (turn >= 2)
    assert fused.prepare(mx.nd.ones((1, 3, 6, 6))) == name


@needs_library
@pytest.mark.parametrize("compiled", [True, False])
def test_in_order_with_mxnets_operators(net, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(calls, "_code", False)
    fused = fuse(net, mx.nd.ones((2, 3, 8, 8)))
    x = mx.nd.random.normal(shape=(2, 3, 8, 8))
    first = net(x).asnumpy()
    for _ in range(20):
        y = fused(x)
        x[:] = 0  # After it was read.
        z = fused(x) - y
        x[:] = mx.nd.zeros_like(x) + 1
        del y
        np.testing.assert_allclose((fused(x) - fused(x)).asnumpy(), 0)
        x = mx.nd.random.normal(shape=(2, 3, 8, 8))
        z.wait_to_read()
    x = mx.nd.random.normal(shape=(2, 3, 8, 8))
    np.testing.assert_allclose(fused(fused(x).reshape((2, 5)).tile((1, 39))[:, :192].reshape((2, 3, 8, 8))).asnumpy(),
                               net(net(x).tile((1, 39))[:, :192].reshape((2, 3, 8, 8))).asnumpy(), rtol=1e-3, atol=1e-5)
    assert first.shape == (2, 5)


@needs_library
def test_from_several_threads_and_devices(net):
    fused = fuse(net, mx.nd.ones((2, 3, 8, 8)))
    inputs = [np.random.RandomState(seed).normal(0, 1, (2, 3, 8, 8)).astype(np.float32) for seed in range(4)]
    expected = [net(mx.nd.array(x)).asnumpy() for x in inputs]
    wrong = []

    def use(index):
        for _ in range(30):
            found = fused(mx.nd.array(inputs[index])).asnumpy()
            if not np.allclose(found, expected[index], rtol=1e-3, atol=1e-5):
                wrong.append(index)

    threads = [threading.Thread(target=use, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@needs_library
def test_weights_are_kept_once_and_only_while_a_plan_has_them(net):
    fused = fuse(net, mx.nd.ones((1, 3, 8, 8)))
    fused.prepare(mx.nd.ones((2, 3, 8, 8)))
    direct = fused._compiled._direct
    kept = [(title, array.nbytes) for weights in direct._weights.values() for (title, _), array in weights.items()]
    plans = [compiled._runner._plan for compiled in fused._compiled._planned.values()]
    used = {id(array) for plan in plans for program, _, _, _ in plan._parts for array in program._constants}
    assert len(kept) == len(used) and any("weight" in title for title, _ in kept)
    del plans
    fused._compiled.clear()
    assert not any(weights for weights in direct._weights.values())


@needs_library
def test_blocks_go_while_their_runs_are_waiting(net):
    x = mx.nd.random.normal(shape=(2, 3, 8, 8))
    expected = net(x).asnumpy()
    for _ in range(5):
        fused = fuse(net, x)
        outputs = [fused(x) for _ in range(10)]
        del fused
        for output in outputs:
            np.testing.assert_allclose(output.asnumpy(), expected, rtol=1e-4, atol=1e-5)


@needs_library
def test_other_parameters_are_mxnets_business(net, tmp_path):
    fused = fuse(net, mx.nd.ones((1, 3, 8, 8)))
    for parameter in fused.collect_params().values():
        parameter.set_data(parameter.data() * 0)
    fused.save_parameters(str(tmp_path / "zero.params"))
    fused = fuse(net, mx.nd.ones((1, 3, 8, 8)))
    assert np.abs(fused(mx.nd.ones((1, 3, 8, 8))).asnumpy()).max() > 0
    fused.load_parameters(str(tmp_path / "zero.params"))
    assert np.abs(fused(mx.nd.ones((1, 3, 8, 8))).asnumpy()).max() == 0
    assert "parameters were loaded" in fused.why_not_direct


@needs_library
def test_a_network_that_it_has_not_runs_in_mxnet():
    class Padded(Small):
        def hybrid_forward(self, F, x):
            return self.body(F.transpose(x, axes=(0, 1, 3, 2)))

    net = Padded()
    net.initialize()
    net(mx.nd.ones((1, 3, 8, 8)))
    fused = fuse(net, mx.nd.ones((1, 3, 8, 8)))
    assert fused.engines == {(1, 3, 8, 8): "mxnet"} and "transpose" in fused.why_not_direct
    with pytest.raises(ExportError, match="transpose.*engine="):
        fuse(net, mx.nd.ones((1, 3, 8, 8)), engine="onednn")


def test_without_the_library(net, monkeypatch):
    monkeypatch.setenv(library.ENVIRONMENT, "0")
    fused = fuse(net, mx.nd.ones((1, 3, 8, 8)))
    assert fused.engines == {} and fused(mx.nd.ones((1, 3, 8, 8))).shape == (1, 5)
    with pytest.raises(ExportError, match="pip install onednn-cpu-gomp"):
        fuse(net, mx.nd.ones((1, 3, 8, 8)), engine="onednn")


def test_a_wrong_library_or_engine_is_named(net, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="engine is 'cuda'; expected one of auto, onednn, mxnet"):
        fuse(net, mx.nd.ones((1, 3, 8, 8)), engine="cuda")
    other = tmp_path / "libother.so"
    other.write_bytes(b"no library")
    monkeypatch.setenv(library.ENVIRONMENT, str(other))
    with pytest.raises(UserError, match="GLUONZOO_ONEDNN.*libother.so.*expected a file of oneDNN 2"):
        library.load()


@needs_library
@pytest.mark.parametrize("compiled", [True, False])
def test_a_step_that_fails_gives_no_numbers(net, monkeypatch, compiled):
    if not compiled:
        monkeypatch.setattr(calls, "_code", False)
    x = mx.nd.ones((1, 3, 8, 8))
    fused = fuse(net, x)
    runner = fused._compiled._planned[x.shape, x.context, x.dtype]._runner
    rows = runner._plan.rows
    good = rows[-1].copy()
    rows[-1, :2] = calls.address_of(ctypes.CDLL(None).abs), 5
    runner._runs.clear()
    with pytest.warns(RuntimeWarning, match="outputs are NaN: oneDNN returned status 5"):
        assert np.isnan(fused(x).asnumpy()).all()
    rows[-1] = good
    runner._runs.clear()
    np.testing.assert_allclose(fused(x).asnumpy(), net(x).asnumpy(), rtol=1e-4, atol=1e-6)


# Many calls in one

@pytest.mark.parametrize("compiled", [True, False])
def test_calls_end_with_the_first_that_does_not_return_zero(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(calls, "_code", False)
    c = ctypes.CDLL(None)
    absolute, put = calls.address_of(c.abs), calls.address_of(c.memset)
    assert calls.Calls([(absolute, 0)] * 3)() == 0
    target = (ctypes.c_char * 4)()
    # memset returns an address: not zero, so the third row is never called.
    made = calls.Calls([(absolute, 0), (put, ctypes.addressof(target), 7, 2), (put, ctypes.addressof(target), 9, 4)])
    assert made() != 0 and bytes(target) == b"\7\7\0\0"
    made.rows[1, 2] = 8
    made()
    assert bytes(target) == b"\10\10\0\0"
    assert calls.Calls([])() == 0
