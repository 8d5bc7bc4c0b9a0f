"""The residual unit of ResNeXt: form (c) of the paper's figure 3 against form (b), 32 paths side by side."""
from gluonzoo.errors import UserError
from gluonzoo.layers import ConvNorm, GroupedConvNorm, ResNeXtUnit

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd


def randomised(block, seed=3):
    mx.random.seed(seed)
    block.initialize()
    for name, parameter in block.collect_params().items():
        if name.endswith(("gamma", "running_var")):
            parameter.set_data(mx.nd.random.uniform(0.5, 1, parameter.shape))
        elif not name.endswith("weight"):
            parameter.set_data(mx.nd.random.normal(0, 0.3, parameter.shape))
    return block


def normalised(norm, x, channels=slice(None)):
    gamma, beta, mean, var = (p.data()[channels].reshape((1, -1, 1, 1))
                              for p in (norm.gamma, norm.beta, norm.running_mean, norm.running_var))
    return (x - mean) / (var + 1e-5).sqrt() * gamma + beta


@pytest.mark.parametrize("groups, group_width, strides, in_channels", [(4, 2, 2, 24), (8, 1, 1, 256), (2, 5, 2, 256)])
def test_is_a_sum_of_paths(groups, group_width, strides, in_channels):
    unit = randomised(ResNeXtUnit(in_channels, 64, strides, groups, group_width))
    x = mx.nd.random.normal(shape=(2, in_channels, 9, 8))
    total = 0
    for group in range(groups):
        mine = slice(group * group_width, (group + 1) * group_width)
        path = mx.nd.Convolution(x, unit.conv1.conv.weight.data()[mine], kernel=(1, 1), num_filter=group_width, no_bias=True)
        path = mx.nd.relu(normalised(unit.conv1.norm, path, mine))
        path = mx.nd.Convolution(path, unit.conv2.conv.weight.data()[mine], kernel=(3, 3), stride=(strides, strides),
                                 pad=(1, 1), num_filter=group_width, no_bias=True)
        path = mx.nd.relu(normalised(unit.conv2.norm, path, mine))
        last = mx.nd.slice_axis(unit.conv3.conv.weight.data(), axis=1, begin=mine.start, end=mine.stop)
        total = total + mx.nd.Convolution(path, last, kernel=(1, 1), num_filter=256, no_bias=True)
    around = x if unit.shortcut is None else unit.shortcut(x)
    assert (unit.shortcut is None) == (strides == 1 and in_channels == 256)
    expected = mx.nd.relu(normalised(unit.conv3.norm, total) + around).asnumpy()
    np.testing.assert_allclose(unit(x).asnumpy(), expected, rtol=1e-4, atol=1e-5)


def test_width_grows_with_the_stage():
    unit = ResNeXtUnit(512, 256, 2, groups=32, group_width=4)
    assert unit.conv1.conv.weight.shape == (512, 512, 1, 1)
    assert unit.conv2.conv.weight.shape == (512, 16, 3, 3)
    assert unit.conv3.conv.weight.shape == (1024, 512, 1, 1)


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_grouped_conv_norm_is_conv_norm(hybrid, relu):
    fast, plain = (cls(32, 64, 3, 2, relu=relu, groups=8) for cls in (GroupedConvNorm, ConvNorm))
    randomised(fast)
    plain.initialize()
    for ours, other in zip(fast.collect_params().values(), plain.collect_params().values()):
        other.set_data(ours.data())
    x = mx.nd.random.normal(shape=(2, 32, 9, 7))
    found = []
    for block in (fast, plain):
        block.hybridize(hybrid)
        with autograd.record():
            y = block(x)
        y.backward(mx.nd.ones(y.shape) * mx.nd.arange(y.size).reshape(y.shape) / y.size)
        found.append([y.asnumpy()] + [p.grad().asnumpy() for p in block.collect_params().values() if p.grad_req != "null"])
    assert (found[0][0].min() < 0) == (not relu)
    for ours, other in zip(*found):
        np.testing.assert_allclose(ours, other, rtol=1e-3, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize("arguments, message", [
    (dict(groups=0), "groups is 0"), (dict(group_width=1.5), "group_width is 1.5"),
    (dict(width=16, group_width=3), "width is 16 and group_width 3; expected a product of at least 64"),
    (dict(shortcut="z"), "shortcut is 'z'")])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        ResNeXtUnit(64, **{"width": 64, **arguments})
    assert "shortcut" in arguments or isinstance(caught.value, UserError)
