"""Pre-activation units, against NumPy."""
from gluonzoo.layers import PreBasicUnit, PreBottleneckUnit, expect_variances

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd


def active(x):
    """BatchNorm of a training batch, and ReLU."""
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return np.maximum((x - mean) / np.sqrt(variance + 1e-5), 0)


def convolved(x, layer, strides):
    weight = layer.weight.data().asnumpy()
    pad, size = weight.shape[2] // 2, weight.shape[2]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows, columns = (-(-length // strides) for length in x.shape[2:])
    out = np.zeros((x.shape[0], weight.shape[0], rows, columns))
    for i in range(rows):
        for j in range(columns):
            patch = padded[:, :, i * strides:i * strides + size, j * strides:j * strides + size]
            out[:, :, i, j] = np.tensordot(patch, weight, axes=([1, 2, 3], [1, 2, 3]))
    return out


def run(unit, x):
    unit.initialize()
    with autograd.train_mode():
        return unit(x).asnumpy()


@pytest.mark.parametrize("in_channels, width, strides", [(6, 6, 1), (4, 6, 1), (4, 4, 2), (4, 6, 2)])
def test_basic_unit(in_channels, width, strides):
    unit, x = PreBasicUnit(in_channels, width, strides), mx.nd.random.normal(shape=(3, in_channels, 7, 6))
    found, x = run(unit, x), x.asnumpy()
    branch = convolved(active(x), unit.conv1, strides)
    branch = convolved(active(branch), unit.conv2, 1)
    assert (unit.shortcut is None) == (in_channels == width and strides == 1)
    around = x if unit.shortcut is None else convolved(active(x), unit.shortcut, strides)
    assert found.min() < 0  # No ReLU behind the sum.
    np.testing.assert_allclose(found, branch + around, atol=2e-5)


def test_shortcut_before_the_norm():
    unit, x = PreBasicUnit(4, 6, 2, active_shortcut=False), mx.nd.random.normal(shape=(3, 4, 7, 6))
    found, x = run(unit, x), x.asnumpy()
    branch = convolved(active(convolved(active(x), unit.conv1, 2)), unit.conv2, 1)
    np.testing.assert_allclose(found, branch + convolved(x, unit.shortcut, 2), atol=2e-5)
    with pytest.raises(ValueError, match="active_shortcut is 1"):
        PreBasicUnit(4, 6, 2, active_shortcut=1)


def test_expected_variances():
    first, second = ([PreBasicUnit(8, 8), PreBasicUnit(8, 8)], [PreBasicUnit(8, 16, 2), PreBasicUnit(16, 16)])
    last = mx.gluon.nn.BatchNorm(in_channels=16)
    expect_variances((first, second), last, 2)
    norms = [unit.norm1 for unit in first + second] + [last]
    for norm in norms:
        norm.initialize()
    # A unit adds 1 to its input's, or 1 to the 1 of the convolution around it.
    assert [norm.running_var.data().asnumpy().tolist()[0] for norm in norms] == [2, 3, 4, 2, 3]


@pytest.mark.parametrize("in_channels, width, strides", [(12, 3, 1), (5, 3, 1), (12, 3, 2)])
@pytest.mark.parametrize("on_3x3", [False, True])
def test_bottleneck_unit(in_channels, width, strides, on_3x3):
    unit, x = PreBottleneckUnit(in_channels, width, strides, on_3x3), mx.nd.random.normal(shape=(3, in_channels, 7, 6))
    found, x = run(unit, x), x.asnumpy()
    first, second = (1, strides) if on_3x3 else (strides, 1)
    branch = convolved(active(x), unit.conv1, first)
    branch = convolved(active(branch), unit.conv2, second)
    branch = convolved(active(branch), unit.conv3, 1)
    around = x if unit.shortcut is None else convolved(active(x), unit.shortcut, strides)
    assert found.shape == (3, 12, -(-7 // strides), -(-6 // strides))
    np.testing.assert_allclose(found, branch + around, atol=2e-5)


def test_unit_of_zero_weights_is_the_identity():
    for unit in (PreBasicUnit(8, 8), PreBottleneckUnit(8, 2)):
        unit.initialize(force_reinit=True)
        for name, parameter in unit.collect_params().items():
            if name.endswith("weight"):
                parameter.set_data(mx.nd.zeros(parameter.shape))
        x = mx.nd.random.normal(shape=(2, 8, 5, 5))
        np.testing.assert_array_equal(unit(x).asnumpy(), x.asnumpy())


def test_no_layer_has_a_bias_and_no_norm_stands_around_a_unit():
    names = {name.split(".")[0] for name in PreBottleneckUnit(16, 8, 2)._collect_params_with_prefix()}
    assert names == {"norm1", "conv1", "norm2", "conv2", "norm3", "conv3", "shortcut"}
    assert set(PreBasicUnit(16, 8).shortcut._collect_params_with_prefix()) == {"weight"}


def test_unknown_option_is_a_type_error():
    with pytest.raises(TypeError, match="shortcut"):
        PreBasicUnit(8, 8, shortcut="a")
