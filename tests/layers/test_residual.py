"""Residual units, shortcuts and the concatenation, against NumPy."""
import subprocess
import sys

from gluonzoo.layers import (
    BasicUnit,
    BottleneckUnit,
    ConvNorm,
    ZeroPadShortcut,
    concat_channels,
    he_conv,
    make_shortcut,
    residual_stage,
)

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd


@pytest.mark.parametrize("in_channels, channels, strides, size", [
    (16, 32, 2, (8, 8)), (16, 32, 2, (7, 5)), (3, 12, 2, (1, 1)), (4, 4, 2, (6, 9)), (4, 8, 1, (3, 3)),
    (2, 4, 3, (7, 8))])
@pytest.mark.parametrize("hybrid", [False, True])
def test_zero_padding_shortcut(in_channels, channels, strides, size, hybrid):
    block = ZeroPadShortcut(in_channels, channels, strides)
    if hybrid:
        block.hybridize()
    x = mx.nd.random.normal(shape=(2, in_channels) + size)
    x.attach_grad()
    sampled = x.asnumpy()[:, :, ::strides, ::strides]
    expected = np.concatenate([sampled, np.zeros_like(sampled)[:, :1].repeat(channels - in_channels, 1)], axis=1)
    with autograd.record():
        y = block(x)
    np.testing.assert_array_equal(y.asnumpy(), expected)
    weights = np.random.RandomState(0).rand(*y.shape).astype("float32")
    y.backward(mx.nd.array(weights))
    gradient = np.zeros(x.shape, "float32")
    gradient[:, :, ::strides, ::strides] = weights[:, :in_channels]
    np.testing.assert_array_equal(x.grad.asnumpy(), gradient)
    assert not block.collect_params().keys()


def test_zero_padding_needs_a_multiple():
    with pytest.raises(ValueError, match="16 to 24"):
        ZeroPadShortcut(16, 24, 2)


def test_make_shortcut():
    assert make_shortcut("a", 16, 16, 1) is None and make_shortcut("b", 16, 16, 1) is None
    assert isinstance(make_shortcut("a", 16, 16, 2), ZeroPadShortcut)
    assert isinstance(make_shortcut("b", 16, 32, 1), ConvNorm)
    with pytest.raises(ValueError, match="'c'.*'a' or 'b'"):
        make_shortcut("c", 16, 16, 1)


def test_he_initialisation():
    mx.random.seed(5)
    conv = he_conv(32, 256, 3)
    conv.initialize()
    weights = conv.weight.data().asnumpy()
    assert abs(weights.std() / np.sqrt(2 / (32 * 9)) - 1) < 0.02 and abs(weights.mean()) < 1e-3
    assert conv.bias is None


def normalised(x):
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5)


def convolved(x, weight, strides):
    """Convolution with padding that keeps the size at stride 1, the slow way."""
    size = weight.shape[2]
    pad = size // 2
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows, columns = (-(-(length - 2 * pad) // strides) for length in x.shape[2:])
    out = np.zeros((x.shape[0], weight.shape[0], rows, columns))
    for i in range(rows):
        for j in range(columns):
            patch = x[:, :, i * strides:i * strides + size, j * strides:j * strides + size]
            out[:, :, i, j] = np.tensordot(patch, weight, axes=([1, 2, 3], [1, 2, 3]))
    return out


def weight_of(block):
    return block.conv.weight.data().asnumpy()


@pytest.mark.parametrize("shortcut, strides, size", [("a", 2, (7, 6)), ("b", 2, (7, 6)), ("b", 1, (4, 5))])
def test_basic_unit(shortcut, strides, size):
    unit = BasicUnit(4, 8, strides, shortcut)
    unit.initialize()
    x = mx.nd.random.normal(shape=(3, 4) + size)
    with autograd.train_mode():
        found = unit(x).asnumpy()
    x = x.asnumpy()
    branch = np.maximum(normalised(convolved(x, weight_of(unit.conv1), strides)), 0)
    branch = normalised(convolved(branch, weight_of(unit.conv2), 1))
    if shortcut == "a":
        around = np.concatenate([x[:, :, ::strides, ::strides], np.zeros_like(branch[:, :4])], axis=1)
    else:
        around = normalised(convolved(x, weight_of(unit.shortcut), strides))
    np.testing.assert_allclose(found, np.maximum(branch + around, 0), atol=2e-5)


@pytest.mark.parametrize("on_3x3", [False, True])
def test_bottleneck_unit(on_3x3):
    unit = BottleneckUnit(6, 4, 2, stride_on_3x3=on_3x3)
    unit.initialize()
    x = mx.nd.random.normal(shape=(3, 6, 7, 5))
    with autograd.train_mode():
        found = unit(x).asnumpy()
    x = x.asnumpy()
    first, second = (1, 2) if on_3x3 else (2, 1)
    branch = np.maximum(normalised(convolved(x, weight_of(unit.conv1), first)), 0)
    branch = np.maximum(normalised(convolved(branch, weight_of(unit.conv2), second)), 0)
    branch = normalised(convolved(branch, weight_of(unit.conv3), 1))
    around = normalised(convolved(x, weight_of(unit.shortcut), 2))
    assert found.shape == (3, 16, 4, 3)
    np.testing.assert_allclose(found, np.maximum(branch + around, 0), atol=2e-5)


def test_identity_unit_has_no_shortcut_layer():
    unit = BasicUnit(8, 8)
    assert unit.shortcut is None and not any("shortcut" in name for name in unit.collect_params())


def test_stage_strides_once():
    stage = residual_stage(BottleneckUnit, 3, 64, 32, 2, "stage_")
    assert [unit.shortcut is None for unit in stage] == [False, True, True]
    _, (shape,), _ = stage(mx.sym.var("data")).infer_shape(data=(1, 64, 9, 9))
    assert shape == (1, 128, 5, 5)


CONCATENATION = """
import gluonzoo, mxnet as mx, numpy as np
from gluonzoo.layers import concat_channels
from mxnet import autograd
from mxnet.gluon import HybridBlock, nn

class Joined(HybridBlock):
    def __init__(self, widths):
        super().__init__()
        self.widths, self.parts = widths, nn.HybridSequential()
        for width in widths:
            self.parts.add(nn.Conv2D(width, 3, padding=1, in_channels=16))
        self.last = nn.Conv2D(16, 3, in_channels=sum(widths))

    def hybrid_forward(self, F, x):
        return self.last(concat_channels(F, [part(x) for part in self.parts._children.values()], self.widths))

x = mx.nd.random.normal(shape=(2, 16, 10, 10))
for widths in ((6, 9, 1), (8, 8), (16, 16), (4, 12), (32, 3), (1, 1)):
    net = Joined(widths)
    net.initialize(mx.init.Xavier())
    found = []
    for hybrid in (False, True):
        net.hybridize(hybrid)
        with autograd.record():
            y = net(x)
        y.backward()
        found.append([p.grad().asnumpy() for p in net.collect_params().values()])
    for eager, hybridized in zip(*found):
        assert np.abs(eager).max() > 0
        np.testing.assert_allclose(hybridized, eager, rtol=1e-4, atol=1e-4 * np.abs(eager).max())
    print(widths, "trains")
"""


def test_concatenation_trains_when_hybridized(root):
    # In a process of its own: what this guards against ends the process.
    done = subprocess.run([sys.executable, "-c", CONCATENATION], cwd=str(root), capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("trains") == 6


def test_concatenation_adds_nothing_where_the_blocks_are_whole():
    def operators(widths):
        parts = [mx.sym.var(f"x{index}") for index in range(len(widths))]
        names = concat_channels(mx.sym, parts, widths).get_internals().list_outputs()
        return [name for name in names if name.endswith("_output")]
    assert len(operators((16, 32, 5))) == 1 and len(operators((16, 8, 8))) == 2


def test_concatenation_values():
    parts = [mx.nd.random.normal(shape=(2, width, 3, 3)) for width in (2, 3, 1)]
    found = concat_channels(mx.nd, parts, (2, 3, 1)).asnumpy()
    np.testing.assert_array_equal(found, np.concatenate([part.asnumpy() for part in parts], axis=1))
