"""The depthwise separable convolution, against NumPy."""
from gluonzoo.layers import DepthwiseSeparable, TruncatedNormal
from gluonzoo.summary import count_macs

import mxnet as mx
import numpy as np
import pytest


def randomised(block, seed=1):
    """Initialised, with gammas, betas and running statistics that show in the output."""
    mx.random.seed(seed)
    block.initialize(mx.init.Normal(0.3))
    for name, parameter in block.collect_params().items():
        if not name.endswith("weight"):
            parameter.set_data(mx.nd.random.uniform(0.5, 1.5, parameter.shape))
    return block


def values(convolution):
    """Weight, and scale and shift of the BatchNorm, of a ConvNorm."""
    norm = convolution.norm
    gamma, beta, mean, var = (p.data().asnumpy() for p in (norm.gamma, norm.beta, norm.running_mean, norm.running_var))
    scale = gamma / np.sqrt(var + 1e-5)
    return convolution.conv.weight.data().asnumpy(), scale, beta - scale * mean


@pytest.mark.parametrize("kernel_size, strides, size", [(3, 1, (6, 5)), (3, 2, (7, 6)), (5, 1, (4, 8))])
@pytest.mark.parametrize("hybrid", [False, True])
def test_values(kernel_size, strides, size, hybrid):
    block = randomised(DepthwiseSeparable(4, 7, kernel_size, strides))
    block.hybridize(hybrid)
    x = mx.nd.random.normal(shape=(2, 4) + size)
    half = kernel_size // 2
    padded = np.pad(x.asnumpy(), ((0, 0), (0, 0), (half, half), (half, half)))
    (depthwise, scale1, shift1), (pointwise, scale2, shift2) = values(block.depthwise), values(block.pointwise)
    rows, columns = (-(-length // strides) for length in size)
    between = np.zeros((2, 4, rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = padded[:, :, i * strides:i * strides + kernel_size, j * strides:j * strides + kernel_size]
            between[:, :, i, j] = (window * depthwise[:, 0]).sum(axis=(2, 3))
    between = np.maximum(between * scale1[:, None, None] + shift1[:, None, None], 0)
    expected = np.einsum("nchw,kc->nkhw", between, pointwise[:, :, 0, 0])
    expected = np.maximum(expected * scale2[:, None, None] + shift2[:, None, None], 0)
    assert (between == 0).any() and (expected == 0).any()
    np.testing.assert_allclose(block(x).asnumpy(), expected, rtol=1e-4, atol=1e-5)


def test_costs_of_the_papers_equation_5():
    # D_K^2 M D_F^2 + M N D_F^2 with kernel 3, 32 and 64 channels, maps of 14x14.
    assert count_macs(DepthwiseSeparable(32, 64), (32, 14, 14)) == 9 * 32 * 196 + 32 * 64 * 196


def test_options_reach_both_convolutions():
    block = DepthwiseSeparable(8, 16, weight_initializer=TruncatedNormal(5.0), epsilon=0.25)
    block.initialize()
    for convolution in (block.depthwise, block.pointwise):
        assert convolution.norm._kwargs["eps"] == 0.25
        assert 3 < convolution.conv.weight.data().asnumpy().std() < 6
    with pytest.raises(TypeError, match="dilations"):
        DepthwiseSeparable(8, 16, dilations=2)
