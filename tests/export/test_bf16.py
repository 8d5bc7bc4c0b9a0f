"""bfloat16: near float32 where it is given, refused with the reason where it is not."""
import os
import sys

import gluonzoo
from gluonzoo import arrays
from gluonzoo.errors import UserError
from gluonzoo.export import ExportError, compare, fuse, load_symbol, to_bf16, to_symbol, train_in_bf16
from gluonzoo.export.quantize_store import to_bfloat16

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

native = pytest.mark.skipif(not __import__("gluonzoo.export.bf16", fromlist=["x"]).native_instructions(),
                            reason="no bfloat16 instructions")


def make(name):
    mx.random.seed(1)
    net = gluonzoo.get_model(name)
    net.initialize()
    return net


@native
def test_outputs_are_near_and_the_network_is_as_it_was():
    net = make("cifar_resnet20_v1_b")
    before = {name: p.data().asnumpy() for name, p in net._collect_params_with_prefix().items()}
    block = to_bf16(net, force=True)
    assert block.speed is None and 1e-5 < block.difference.relative < 0.03
    difference = compare(net, block, (3, 32, 32), batches=(2, 5), seed=3)
    assert 1e-5 < difference.relative < 0.03  # Neither float32 in disguise nor wrong.
    x = mx.nd.array(np.random.RandomState(0).randn(64, 3, 32, 32))
    assert block(x).dtype == np.float32
    # Random weights give ten nearly equal scores: most, not all, keep their largest.
    assert (block(x).argmax(axis=1) == net(x).argmax(axis=1)).mean().asscalar() > 0.9
    for name, parameter in net._collect_params_with_prefix().items():
        np.testing.assert_array_equal(parameter.data().asnumpy(), before[name])


@native
def test_depthwise_convolutions_are_refused_unless_forced():
    net = make("mobilenet_v1_0_25")
    with pytest.raises(ExportError, match="depthwise"):
        to_bf16(net, (3, 32, 32))
    assert compare(net, to_bf16(net, (3, 32, 32), force=True), (3, 32, 32)).relative < 0.03


@native
@pytest.mark.parametrize("name, words", [("xnor_resnet18", "_contrib_sign_ste"), ("lenet5_1998", "not known to work")])
def test_operators_that_are_not_known(name, words):
    with pytest.raises(ExportError, match=words):
        to_bf16(make(name), force=True)


def test_fused_networks_are_refused():
    with pytest.raises(ExportError, match="fused"):
        to_bf16(fuse(make("lenet5")), (1, 32, 32))


def test_processors_without_instructions_are_refused(tmp_path, monkeypatch):
    module = sys.modules["gluonzoo.export.bf16"]
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags : fpu avx2 avx512f\n")
    assert module.native_instructions(str(tmp_path / "cpuinfo")) == () == module.native_instructions(str(tmp_path / "no"))
    (tmp_path / "cpuinfo").write_text("flags : fpu amx_bf16 avx512_bf16\n")
    assert module.native_instructions(str(tmp_path / "cpuinfo")) == ("amx_bf16", "avx512_bf16")
    monkeypatch.setattr(module, "native_instructions", lambda: ())
    with pytest.raises(ExportError, match="neither avx512_bf16 nor amx_bf16"):
        to_bf16(make("lenet5"))


@native
def test_too_large_a_difference_is_an_error(monkeypatch):
    monkeypatch.setattr(sys.modules["gluonzoo.export.bf16"], "BOUND", 1e-6)
    with pytest.raises(ExportError, match="of the largest from float32's"):
        to_bf16(make("cifar_resnet20_v1_b"), force=True)


@native
@pytest.mark.parametrize("speed", [0.51, 1.65])
def test_what_does_not_pay_is_refused(monkeypatch, speed):
    """The speed is measured; here it is given, so that the test does not depend on the machine."""
    module = sys.modules["gluonzoo.export.bf16"]
    compared = []
    monkeypatch.setattr(module, "_speed", lambda block, fused, shape, ctx: compared.append((block, fused)) or speed)
    net = make("cifar_resnet20_v1_b")
    if speed > 1:
        assert to_bf16(net).speed == speed
    else:
        with pytest.raises(ExportError, match="0.51 times as fast as in float32"):
            to_bf16(net)
    x = mx.nd.ones((1, 3, 32, 32))
    half, full = (block(x).asnumpy() for block in compared[0])
    np.testing.assert_allclose(full, net(x).asnumpy(), rtol=1e-3, atol=1e-5)
    assert not np.array_equal(half, full)


@native
def test_the_speed_is_that_of_both():
    module = sys.modules["gluonzoo.export.bf16"]
    counts = {"bf16": 0, "fp32": 0}

    def work(name, times):
        def run(x):
            counts[name] += 1
            for _ in range(times):
                np.sort(np.random.RandomState(0).uniform(size=100000))
        return run

    assert module._speed(work("bf16", 1), work("fp32", 20), (1, 2, 2), mx.cpu()) > 2
    assert counts["bf16"] == counts["fp32"] == 5


@native
@pytest.mark.parametrize("name", ["cifar_resnet20_v1_b", "cifar_resnet20_v2", "squeezenet1_1",
                                  pytest.param("cifar_densenet_l40_k12", marks=pytest.mark.slow)])
def test_files_are_half_and_read_back_the_same(name, tmp_path):
    """Fused, and with BatchNorms that cannot be folded, with concatenations and pooling."""
    net = make(name)
    result = to_bf16(net, (3, 32, 32), force=True)
    saved = result.save(str(tmp_path / "net"), metadata={"dataset": "own"})
    assert sorted(os.listdir(str(tmp_path))) == ["net-0000.params", "net-symbol.json", "net.json"]
    plain = to_symbol(net, str(tmp_path / "plain"), (3, 32, 32))
    assert os.path.getsize(saved.parameters) < 0.55 * os.path.getsize(plain.parameters)
    block, metadata = load_symbol(str(tmp_path / "net"))
    assert metadata.dataset == "own" and saved.difference.absolute == 0
    x = mx.nd.array(np.random.RandomState(0).randn(5, 3, 32, 32))
    np.testing.assert_array_equal(block(x).asnumpy(), result(x).asnumpy())
    # MXNet's own loader reads it too.
    own = mx.gluon.SymbolBlock.imports(saved.symbol, ["data"], saved.parameters)
    np.testing.assert_array_equal(own(x).asnumpy(), result(x).asnumpy())
    with pytest.raises(ExportError, match="already there"):
        result.save(str(tmp_path / "net"))


@native
def test_a_file_that_reads_back_otherwise_is_not_kept(tmp_path, monkeypatch):
    result = to_bf16(make("cifar_resnet20_v1_b"), force=True)
    save = arrays.save

    def damaged(path, values):
        name = next(name for name in values if values[name].dtype.names)
        save(path, dict(values, **{name: to_bfloat16(np.ones(values[name].shape, np.float32))}))

    monkeypatch.setattr(arrays, "save", damaged)
    with pytest.raises(ExportError, match="read back differs"):
        result.save(str(tmp_path / "net"))
    assert os.listdir(str(tmp_path)) == []


def test_rounding_by_hand():
    # 1 + 2^-8 lies between 1 and 1 + 2^-7: to the even one, 1. A little more goes up; 1 + 3 * 2^-8 goes to the even 1 + 2^-6.
    values = np.array([[1 + 2 ** -8, 1 + 2 ** -8 + 2 ** -20, 1 + 3 * 2 ** -8], [-2.5, 0.0, 3e38]], np.float32)
    stored = to_bfloat16(values)
    assert stored.dtype.names == ("bfloat16",) and stored.shape == (2, 3)
    real = (stored["bfloat16"].astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(real[0], [1, 1 + 2 ** -7, 1 + 2 ** -6])
    np.testing.assert_allclose(real[1], [-2.5, 0.0, 3e38], rtol=2 ** -8)


def pictures_to_tell_apart(count=96, seed=0):
    """Noise with a bright spot whose place is the class (one of four)."""
    rng = np.random.RandomState(seed)
    x, y = rng.normal(0, 0.3, (count, 3, 16, 16)).astype(np.float32), rng.randint(0, 4, count)
    for image, label in zip(x, y):
        image[:, 8 * (label // 2):8 * (label // 2) + 8, 8 * (label % 2):8 * (label % 2) + 8] += 1
    return mx.nd.array(x), mx.nd.array(y)


def small(norm=True):
    """A network of everything that is known to work."""
    mx.random.seed(1)
    net = nn.HybridSequential()
    for width in (16, 32):
        net.add(nn.Conv2D(width, 3, padding=1, in_channels={16: 3, 32: 16}[width]))
        if norm:
            net.add(nn.BatchNorm(in_channels=width))
        net.add(nn.Activation("relu"), nn.MaxPool2D(2))
    net.add(nn.Dense(4, in_units=32 * 16))
    net.initialize(mx.init.Xavier())
    return net


def trained(half, steps=30):
    """(losses, network) of some steps, in bfloat16 or not."""
    net = small()
    block = train_in_bf16(net, (3, 16, 16), force=True) if half else net
    block.hybridize(static_alloc=True)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.02, "momentum": 0.9})
    loss_of, (x, y), losses = mx.gluon.loss.SoftmaxCrossEntropyLoss(), pictures_to_tell_apart(), []
    for step in range(steps):
        part = slice(32 * (step % 3), 32 * (step % 3) + 32)
        with mx.autograd.record():
            loss = loss_of(block(x[part]), y[part])
        loss.backward()
        trainer.step(32)
        losses.append(float(loss.mean().asscalar()))
    mx.nd.waitall()
    return losses, net


@native
def test_training_goes_as_in_float32():
    """The loss falls alike, and what was trained is the network itself, in float32."""
    full, _ = trained(half=False)
    losses, net = trained(half=True)
    assert losses[0] != full[0] and abs(losses[0] - full[0]) < 0.02 * full[0]
    assert full[-1] < 0.1 * full[0] and losses[-1] < 0.1 * losses[0]
    assert {str(np.dtype(p.dtype)) for p in net.collect_params().values()} == {"float32"}
    x, y = pictures_to_tell_apart(seed=5)
    assert (net(x).argmax(axis=1) == y).mean().asscalar() > 0.9  # In float32, by the running statistics.
    assert np.abs(net[1].running_mean.data().asnumpy()).max() > 0.01


@native
@pytest.mark.parametrize("norm", [True, False])
def test_gradients_are_near_those_in_float32(norm):
    net = small(norm)
    x, y = pictures_to_tell_apart(32)

    def gradients(block):
        with mx.autograd.record():
            loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()(block(x), y)
        loss.backward()
        return {name: p.grad().asnumpy().astype(np.float64) for name, p in net._collect_params_with_prefix().items()
                if p.grad_req != "null"}

    full, half = gradients(net), gradients(train_in_bf16(net, (3, 16, 16), force=True))
    for name, value in full.items():
        if not (norm and name in ("0.bias", "4.bias")):  # BatchNorm takes away what those add; their gradients are noise.
            cosine = (value * half[name]).sum() / np.sqrt(np.square(value).sum() * np.square(half[name]).sum())
            assert cosine > 0.99, name
        assert not np.array_equal(value, half[name])


@native
def test_gradients_in_inference_mode_are_refused():
    """Behind a ReLU and max pooling, the first convolution's had a cosine of 0.5 with those in float32."""
    block = train_in_bf16(small(), (3, 16, 16), force=True)
    x = mx.nd.ones((1, 3, 16, 16))
    with pytest.raises(UserError, match="train_mode=False"):
        with mx.autograd.record(train_mode=False):
            block(x)
    assert block(x).shape == (1, 4)


@native
def test_training_is_refused_where_it_does_not_pay(monkeypatch):
    module = sys.modules["gluonzoo.export.bf16"]
    net = small()
    before = {name: p.data().asnumpy() for name, p in net._collect_params_with_prefix().items()}
    speeds = []
    real = module._speed

    def measured(*arguments):
        speeds.append(real(*arguments, batch=2, repeats=1))
        return 0.7

    monkeypatch.setattr(module, "_speed", measured)
    with pytest.raises(ExportError, match="trains 0.70 times as fast"):
        train_in_bf16(net, (3, 16, 16))
    mx.nd.waitall()
    assert speeds[0] > 0
    for name, parameter in net._collect_params_with_prefix().items():  # Measuring moved no statistics.
        np.testing.assert_array_equal(parameter.data().asnumpy(), before[name])
    with pytest.raises(ExportError, match="depthwise"):
        train_in_bf16(make("mobilenet_v1_0_25"), (3, 32, 32))
