"""8 bits: calibration, the blocks and files made with it, and what is refused."""
import os
import sys

import gluonzoo
from gluonzoo import arrays
from gluonzoo.errors import UserError
from gluonzoo.export import ExportError, load_symbol, quantize, to_symbol
from gluonzoo.export.graph import Graph, Node
from gluonzoo.export.quantize_calibration import BINS, Images, calibrate, entropy_threshold, histogram, percentile_threshold
from gluonzoo.export.quantize_mxnet import layers, quantized_weight, real_weight

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

FILES = ["net-0000.params", "net-symbol.json", "net.json"]
#: At least one network of each kind of block; the others are slow.
REPRESENTATIVES = ("lenet_caffe", "cifar_resnet20_v1_b", "squeezenet1_1", "mobilenet_v2_0_5", "shufflenet_v2_0_5")


class Small(mx.gluon.HybridBlock):
    """Two branches, a sum, BatchNorm, pooling, a dense layer: one of everything that has 8 bits."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.first = nn.Conv2D(16, 3, padding=1, in_channels=3, use_bias=False)
            self.norm = nn.BatchNorm(in_channels=16)
            self.left, self.right = (nn.Conv2D(16, 3, padding=1, in_channels=16) for _ in range(2))
            self.output = nn.Dense(4, in_units=32 * 16)

    def hybrid_forward(self, F, x):
        x = F.Activation(self.norm(self.first(x)), act_type="relu")
        left, right = F.Activation(self.left(x), act_type="relu"), self.right(x)
        x = F.concat(F.Activation(left + right, act_type="relu"), left, dim=1)
        return self.output(F.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max"))


def small(seed=1):
    mx.random.seed(seed)
    net = Small()
    net.initialize(mx.init.Xavier())
    net.norm.running_mean.set_data(mx.nd.random.normal(scale=0.2, shape=16))
    net.norm.running_var.set_data(mx.nd.random.uniform(0.5, 2, shape=16))
    return net


def pictures(count=40, shape=(3, 8, 8), seed=0):
    return np.random.RandomState(seed).randn(count, *shape).astype(np.float32)


def distance(block, net, x):
    """Root mean square difference over that of the outputs."""
    a, b = (f(mx.nd.array(x)).asnumpy().astype(np.float64) for f in (block, net))
    return np.sqrt(np.square(a - b).mean() / np.square(b).mean())


@pytest.fixture(scope="module")
def made():
    net = small()
    return net, quantize(net, pictures())


@pytest.mark.parametrize("method", ["naive", "percentile", "entropy"])
def test_outputs_are_near_and_the_network_is_as_it_was(method):
    net = small()
    before = {name: p.data().asnumpy() for name, p in net._collect_params_with_prefix().items()}
    result = quantize(net, pictures(), method=method)
    for x in (pictures(5, seed=4), pictures(1, seed=5)):
        assert 1e-4 < distance(result, net, x) < (0.15 if method == "entropy" else 0.05)
    for name, parameter in net._collect_params_with_prefix().items():
        np.testing.assert_array_equal(parameter.data().asnumpy(), before[name])
    assert result.layers == ("first", "left", "right", "output") and result.excluded == () and result.accuracy is None
    operators = [(node.op, str(node.attrs.get("quantized")).lower()) for node in result.int8.operators]
    assert operators.count(("_sg_mkldnn_conv", "true")) == 3 and ("_sg_mkldnn_fully_connected", "true") in operators


def with_statistics(name):
    """(network, images): a fresh network in which a small error stays one.

    Untrained, 50 layers with BatchNorm turn one percent of noise in the images into 90 percent in the outputs, and any rounding
    with it. With shifts of one, most ReLUs let through what comes, and noise stays noise. The running statistics become the
    images': with untouched ones signals fade or grow from layer to layer.
    """
    mx.random.seed(1)
    net, spec = gluonzoo.get_model(name), gluonzoo.model_spec(name)
    net.initialize(mx.init.Xavier(magnitude=2))

    def prepare(block):
        if isinstance(block, nn.BatchNorm):
            block._kwargs.update(momentum=0.0)
            block.beta.set_data(mx.nd.ones(block.beta.shape))

    net.apply(prepare)
    x = pictures(4, (spec.input_shape[0],) + (tuple(net.min_size) if net.fixed_size else tuple(
        min(full, low + 33) for low, full in zip(net.min_size, spec.input_shape[1:]))))
    with mx.autograd.record():
        outputs = net(mx.nd.array(x))
        loss = (outputs[0] if isinstance(outputs, (list, tuple)) else outputs).sum()
    loss.backward()
    mx.nd.waitall()
    return net, x


def rounding_in_front(graph, ranges):
    """A float graph that rounds what layers, sums and concatenations read to the steps of 8 bits: what 8 bits should give."""
    graph, inputs = graph.copy(), set(layers(graph))

    def rounded(entry, before, number):
        low, high = ranges[entry]
        steps = 127.0 if low < 0 else 255.0
        limits = {"a_min": -127.0 if low < 0 else 0.0, "a_max": steps}
        for op, attrs in (("_mul_scalar", {"scalar": steps / high}), ("rint", {}), ("clip", limits),
                          ("_mul_scalar", {"scalar": high / steps})):
            name = f"{before}_{number}_{len(graph.nodes)}"
            entry = graph.insert(Node(op, name, attrs, [entry]), before).entry
        return entry

    names = {node.name for node in layers(graph).values()}
    assert len(names) == len(inputs)
    for node in graph.operators:
        if node.name in names:
            node.inputs[0] = rounded(node.inputs[0], node.name, 0)
        elif node.op in ("elemwise_add", "Concat"):
            node.inputs = [rounded(entry, node.name, i) if entry in ranges else entry for i, entry in enumerate(node.inputs)]
    return graph


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in REPRESENTATIVES else [pytest.mark.slow])
                                  for name in gluonzoo.list_models()])
def test_every_registered_network(name):
    net, x = with_statistics(name)
    if any("sign" in node.op for node in Graph.from_net(net).operators):
        with pytest.raises(ExportError, match="binary activations"):
            quantize(net, x)
        return
    result = quantize(net, x)
    simulated = rounding_in_front(result.graph, result.ranges).to_block()
    expected = distance(simulated, net, x)
    assert expected < 0.35 and distance(result, net, x) < 1.5 * expected + 0.02


def test_tiny_numbers_are_quantized_as_well_as_others():
    """MXNet's text of a graph keeps six decimals of a range."""
    net = small()
    for layer in (net.left, net.right):
        layer.weight.set_data(layer.weight.data() * 1e-7)
    result = quantize(net, pictures())
    assert result.excluded == () and max(high for _, high in result.ranges.values() if high < 1e-3) < 1e-5
    assert distance(result, net, pictures(5, seed=4)) < 0.05


def test_layers_of_vanishing_numbers_stay_in_float32():
    net = small()
    net.left.weight.set_data(net.left.weight.data() * 1e-20)
    result = quantize(net, pictures(), exclude=("output",))
    assert result.excluded == ("output", "left")
    assert distance(result, net, pictures(5, seed=4)) < 0.05


def test_images_come_in_any_batches_and_are_gone_through_afresh():
    graph = Graph.from_net(small())
    x = pictures(24)
    whole = calibrate(graph, Images(x), "percentile")
    for other in ([x[:10], x[10:]], [mx.nd.array(x)]):
        parts = calibrate(graph, Images(other), "percentile")
        assert parts.keys() == whole.keys()
        for entry in whole:
            np.testing.assert_allclose(parts[entry], whole[entry], rtol=1e-3)
    assert whole[Graph.input, 0][0] < 0 == min(low for (name, _), (low, _) in whole.items() if "activation" in name)


class Fading:
    """Gives fewer images each time."""

    def __init__(self):
        self.left = 4

    def __iter__(self):
        self.left -= 1
        return iter([pictures(4)] * self.left)


@pytest.mark.parametrize("images, words", [
    (lambda: iter([pictures()]), "only once"),
    (lambda: (batch for batch in [pictures()]), "only once"),
    (lambda: "pictures", "of type str"),
    (lambda: [], "no images"),
    (lambda: np.zeros((0, 3, 8, 8), np.float32), r"shape \(0, 3, 8, 8\)"),
    (lambda: pictures()[0], r"shape \(3, 8, 8\)"),
    (lambda: [pictures(), pictures(4, (3, 9, 9))], "those before"),
    (lambda: pictures() * np.float32("nan"), "NaN"),
    (Fading, "first time"),
])
def test_bad_images(images, words):
    with pytest.raises(UserError, match=words):
        quantize(small(), images())


@pytest.mark.parametrize("kwargs, words", [
    ({"method": "guess"}, "naive, percentile, entropy"),
    ({"max_drop": 0.5}, "labels not given"),
    ({"max_drop": -1, "labels": np.zeros(40)}, "max_drop is -1"),
    ({"labels": np.zeros(3)}, "3 labels for 40 images"),
    ({"labels": np.zeros((40, 2))}, r"shape \(40, 2\)"),
    ({"input_shape": (3, 9, 9)}, "expected the same"),
    ({"exclude": ("nothing",)}, "no layer of the network; its layers are first, left"),
    ({"exclude": "first"}, "no layer"),
])
def test_bad_arguments(kwargs, words):
    with pytest.raises(UserError, match=words):
        quantize(small(), pictures(), **kwargs)


def test_excluded_layers_stay_in_float32(made):
    net, whole = made
    part = quantize(net, pictures(), exclude=("first", "output"))
    assert part.excluded == ("first", "output")
    x = pictures(8, seed=3)
    assert distance(part, net, x) < distance(whole, net, x)
    every = quantize(net, pictures(), exclude=whole.layers)
    assert distance(every, net, x) < 1e-5


def spoiled(layer):
    """(network, images): one layer's 8 bits hold only one huge channel, which the network does not use."""
    net, x = small(), pictures(200)
    if layer == "first":  # Activations: the images' first channel is huge, and its weights are zero.
        x[:, 0] *= 1e5
        weight = net.first.weight.data().asnumpy()
        weight[:, 0] = 0
    elif layer == "right":  # Weights: those of a channel which is always zero are huge.
        net.norm.beta.set_data(mx.nd.array([-1e3] + [0] * 15))
        weight = net.right.weight.data().asnumpy()
        weight[:, 0] = 1e4
    else:
        net.left.bias.set_data(mx.nd.array([-1e3] + [0] * 15))
        weight = net.output.weight.data().asnumpy()
        weight.reshape(4, 32, 16)[:, 16] = 1e4
    getattr(net, layer).weight.set_data(mx.nd.array(weight))
    return net, x


@pytest.mark.parametrize("layer", ["first", "right", "output"])
def test_exactly_the_layer_that_hurts_is_left_out(layer):
    net, x = spoiled(layer)
    labels = net(mx.nd.array(x)).argmax(axis=1).asnumpy()
    assert np.bincount(labels.astype(int)).max() < 190  # Outputs that ignore the image would prove nothing.
    hurt = quantize(net, x, labels=labels)
    assert hurt.accuracy.fp32 == 100.0 and hurt.accuracy.images == 200 and hurt.accuracy.drop > 5 and hurt.excluded == ()
    cured = quantize(net, x, labels=labels, max_drop=3)
    assert cured.excluded == (layer,) and cured.accuracy.drop <= 3


def test_of_two_layers_that_hurt_the_worse_goes_first():
    net, x = spoiled("first")
    weight = net.output.weight.data().asnumpy()
    net.left.bias.set_data(mx.nd.array([-1e3] + [0] * 15))
    weight.reshape(4, 32, 16)[:, 16] = 60 * np.abs(weight).max()  # Some steps are left to the others.
    net.output.weight.set_data(mx.nd.array(weight))
    labels = net(mx.nd.array(x)).argmax(axis=1).asnumpy()
    assert quantize(net, x, labels=labels, max_drop=1).excluded[:2] == ("first", "output")


def test_a_drop_that_no_layer_causes_is_an_error(monkeypatch):
    net, x = small(), pictures(40)
    module = sys.modules["gluonzoo.export.quantization"]
    figures = iter([90.0] + [50.0] * 20)
    monkeypatch.setattr(module, "_accuracy", lambda *arguments: next(figures))
    with pytest.raises(ExportError, match="with all layers in float32 40.00 points are lost"):
        quantize(net, x, labels=np.zeros(40), max_drop=0.5)


def test_files_are_a_quarter_and_read_back_the_same(tmp_path):
    net = gluonzoo.get_model("cifar_resnet20_v1_b")
    net.initialize(mx.init.Xavier())
    result = quantize(net, pictures(8, (3, 32, 32)), exclude=("output",))
    saved = result.save(str(tmp_path / "net"), metadata={"classes": "abcdefghij", "dataset": "own"})
    assert sorted(os.listdir(str(tmp_path))) == FILES
    plain = to_symbol(net, str(tmp_path / "plain"))
    assert os.path.getsize(saved.parameters) < 0.3 * os.path.getsize(plain.parameters)
    block, metadata = load_symbol(str(tmp_path / "net"))
    assert (metadata.model, metadata.dataset, metadata.input_shape) == ("cifar_resnet20_v1_b", "own", (3, 32, 32))
    x = mx.nd.array(pictures(3, (3, 32, 32), seed=9))
    np.testing.assert_array_equal(block(x).asnumpy(), result(x).asnumpy())
    kinds = {name: value.dtype for name, value in arrays.load(saved.parameters).items()}
    assert kinds["arg:output.weight"] == np.float32
    assert all(kinds["arg:" + name[6:]] == np.int8 for name in kinds if name.startswith("scale:"))
    assert sum(name.startswith("scale:") for name in kinds) == len(result.layers) - 1


def test_existing_files_are_kept_without_force(made, tmp_path):
    (tmp_path / "net.json").write_text("mine")
    with pytest.raises(ExportError, match="already there"):
        made[1].save(str(tmp_path / "net"))
    assert os.listdir(str(tmp_path)) == ["net.json"] and (tmp_path / "net.json").read_text() == "mine"
    made[1].save(str(tmp_path / "net"), force=True)
    assert load_symbol(str(tmp_path / "net"))[0](mx.nd.array(pictures(2))).shape == (2, 4)


def test_a_mismatch_leaves_no_file(made, tmp_path, monkeypatch):
    module = sys.modules["gluonzoo.export.quantization"]
    real = module.packed

    def damaged(*arguments):
        return {name: value * np.float32(1.05) if name.startswith("scale:") else value
                for name, value in real(*arguments).items()}

    monkeypatch.setattr(module, "packed", damaged)
    with pytest.raises(ExportError, match="read back differs"):
        made[1].save(str(tmp_path / "net"))
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("change", [
    lambda values: values.update({"scale:first.weight": np.ones(3, np.float32)}),
    lambda values: values.update({"scale:more": np.ones(3, np.float32)}),
    lambda values: values.update({"scale:first.weight": np.full(16, np.nan, np.float32)}),
    lambda values: values.update({"arg:first.weight": values["arg:first.weight"].astype(np.float32)}),
])
def test_scales_that_do_not_fit_are_refused(made, tmp_path, change):
    saved = made[1].save(str(tmp_path / "net"))
    values = dict(arrays.load(saved.parameters))
    change(values)
    arrays.save(saved.parameters, values)
    with pytest.raises(ExportError, match="net-0000.params: scale:"):
        load_symbol((saved.symbol, saved.parameters))


def test_weights_by_hand():
    steps, scale = quantized_weight(np.array([[1.27, -0.5], [0.0, 0.0], [-2.54, 0.013]], np.float32))
    np.testing.assert_array_equal(steps, [[127, -50], [0, 0], [-127, 1]])
    np.testing.assert_allclose(scale, [0.01, 1.0, 0.02], rtol=1e-6)
    rng = np.random.RandomState(0)
    steps, scale = quantized_weight(rng.standard_normal((5000, 7)).astype(np.float32) * np.exp(rng.uniform(-9, 9, (5000, 1))
                                                                                         ).astype(np.float32))
    again, same = quantized_weight(real_weight(steps, scale))
    np.testing.assert_array_equal(again, steps)
    np.testing.assert_array_equal(same, scale)


def test_thresholds_by_hand():
    counts = histogram(np.concatenate([np.zeros(1000), np.linspace(-1, 1, 9999)[:4999], [4.0]]).astype(np.float32), 4.0)
    assert counts.shape == (BINS,) and counts.sum() == 5000 and counts[-1] == 1  # No zeros; 4.0 in the last.
    assert percentile_threshold(counts, 4.0, percent=99.9) == pytest.approx(1.0, abs=0.01)
    assert percentile_threshold(counts, 4.0, percent=100) == 4.0
    # A wide even part is worth its steps; a single far value is not.
    assert 0.9 < entropy_threshold(counts, 4.0, 127) < 1.5
    even = np.full(BINS, 10)
    assert entropy_threshold(even, 4.0, 127) > 3.9
    assert entropy_threshold(np.zeros(BINS, np.int64), 4.0, 127) == 4.0


def test_onnx(made, tmp_path):
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from gluonzoo.export import load_onnx
    net, result = made
    written = result.to_onnx(str(tmp_path / "net.onnx"))
    assert os.listdir(str(tmp_path)) == ["net.onnx"]
    x = pictures(7, seed=2)
    found = load_onnx(written.path)(x)
    assert distance(lambda data: mx.nd.array(found), net, x) < 0.06
    model = onnx.load(written.path)
    kinds = {item.name: item.data_type for item in model.graph.initializer}
    assert {name: kinds[f"{name}.weight"] for name in result.layers} == dict.fromkeys(result.layers, onnx.TensorProto.INT8)
    assert kinds["left.bias"] == onnx.TensorProto.INT32
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) >= 5
    with pytest.raises(ExportError, match="already there"):
        result.to_onnx(written.path)
    with pytest.raises(ExportError, match=r"ends in \.onnx"):
        result.to_onnx(str(tmp_path / "net"))


def test_a_wrong_onnx_file_is_not_kept(made, tmp_path, monkeypatch):
    pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from gluonzoo.export import quantize_check
    real = quantize_check.insert_qdq

    def damaged(model, ranges, weights):
        real(model, {name: (low / 8, high / 8) for name, (low, high) in ranges.items()}, weights)

    monkeypatch.setattr(quantize_check, "insert_qdq", damaged)
    with pytest.raises(ExportError, match="root mean square"):
        made[1].to_onnx(str(tmp_path / "net.onnx"))
    assert os.listdir(str(tmp_path)) == []


def test_gradients_are_refused(made):
    with pytest.raises(UserError, match="no gradients"):
        with mx.autograd.record():
            made[1](mx.nd.array(pictures(1)))
