"""Inception modules against NumPy, their tables, and what they do not take."""
from gluonzoo.errors import UserError
from gluonzoo.layers import ConvNorm, Inception, check_flag, conv_chain, inception_stage
from gluonzoo.layers.inception import average_pool, max_pool, reducing_max_pool

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import nn

GOOGLENET_3A = {"branch1x1": [(64, 1)], "branch3x3": [(96, 1), (128, 3)], "branch5x5": [(16, 1), (32, 5)],
                "branch_pool": [max_pool, (32, 1)]}


def plain(in_channels, channels, kernel_size, strides, padding=None, prefix=None):
    """A convolution and nothing else."""
    return nn.Conv2D(channels, kernel_size, strides, padding=padding or 0, in_channels=in_channels, use_bias=False, prefix=prefix)


def output_shape(block, shape):
    return block(mx.sym.var("data")).infer_shape(data=shape)[1][0]


def windows(x):
    """The 3x3 windows around each pixel, NaN outside: (C, H, W, 9)."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    height, width = x.shape[1:]
    return np.stack([padded[:, i:i + height, j:j + width] for i in range(3) for j in range(3)], axis=-1)


def test_a_module_is_its_branches_joined_in_order():
    module = Inception(2, {"one": [(3, 1)], "largest": [max_pool, (2, 1)], "mean": [average_pool, (1, 1)]}, unit=plain)
    module.initialize(mx.init.Normal(1))
    x = np.random.RandomState(0).normal(size=(2, 4, 5)).astype("float32")
    weights = [getattr(module, name).conv1.weight.data().asnumpy()[:, :, 0, 0] for name in ("one", "largest", "mean")]
    seen = (x, np.nanmax(windows(x), axis=-1), np.nansum(windows(x), axis=-1) / 9)
    expected = np.concatenate([np.einsum("oc,chw->ohw", weight, maps) for weight, maps in zip(weights, seen)])
    found = module(mx.nd.array(x[None])).asnumpy()
    assert module.channels == 6 and found.shape == (1, 6, 4, 5)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def test_googlenets_3a():
    module = Inception(192, GOOGLENET_3A)
    assert output_shape(module, (1, 192, 28, 30)) == (1, 256, 28, 30) and module.channels == 256
    parameters = module._collect_params_with_prefix()
    kernels = [parameters[name].shape for name in parameters if name.endswith("conv.weight")]
    assert kernels == [(64, 192, 1, 1), (96, 192, 1, 1), (128, 96, 3, 3), (16, 192, 1, 1), (32, 16, 5, 5), (32, 192, 1, 1)]
    assert isinstance(module.branch5x5.conv2, ConvNorm)


def test_parameter_names_are_the_tables():
    module = Inception(8, {"left": [(4, 1), {"conv1x3": [(5, (1, 3))], "conv3x1": [(6, (3, 1))]}], "right": [max_pool, (2, 1)]})
    assert [name for name in module._collect_params_with_prefix() if name.endswith("weight")] == [
        "left.conv1.conv.weight", "left.split1.conv1x3.conv1.conv.weight", "left.split1.conv3x1.conv1.conv.weight",
        "right.conv1.conv.weight"]
    assert output_shape(module, (1, 8, 7, 6)) == (1, 13, 7, 6)


def test_a_reduction_passes_the_largest_pixels_through():
    module = Inception(3, {"conv": [(4, 3, 2, 0)], "pool": [reducing_max_pool]})
    module.initialize()
    x = np.random.RandomState(1).normal(size=(1, 3, 9, 7)).astype("float32")
    found = module(mx.nd.array(x)).asnumpy()
    assert found.shape == (1, 7, 4, 3)
    np.testing.assert_array_equal(found[0, 4:], np.nanmax(windows(x[0]), axis=-1)[:, 1:-1:2, 1:-1:2])


def test_widths_that_fill_no_whole_memory_block_can_be_trained_hybridized():
    module = Inception(4, {"a": [(5, 1)], "b": [(3, 3)], "c": [max_pool, (7, 1)]})
    net = nn.HybridSequential()
    net.add(module, nn.Conv2D(2, 3, in_channels=15))
    net.initialize(mx.init.Normal(0.5))
    x, gradients = mx.nd.random.normal(shape=(2, 4, 6, 6)), []
    for hybrid in (False, True):
        net.hybridize(hybrid)
        with autograd.record():
            loss = (net(x) ** 2).sum()
        loss.backward()
        gradients.append(module.a.conv1.conv.weight.grad().asnumpy())
    assert np.abs(gradients[0]).max() > 0
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=1e-3, atol=1e-4 * np.abs(gradients[0]).max())


def test_a_chains_steps():
    chain, channels = conv_chain(3, [(8, 3, 2, 0), reducing_max_pool, (6, (1, 7)), (5, 3)])
    assert channels == 5 and list(chain._children) == ["conv1", "fixed1", "conv2", "conv3"]
    assert output_shape(chain, (1, 3, 33, 31)) == (1, 5, 7, 7)
    assert output_shape(chain.conv2, (1, 8, 7, 7)) == (1, 6, 7, 7)


def test_a_stages_modules():
    class Doubled(Inception):
        def hybrid_forward(self, F, x):
            return 2 * super().hybrid_forward(F, x)

    modules = {"pool": reducing_max_pool, "a": {"only": [(4, 1)]}, "b": {"left": [(2, 1)], "right": [(3, 3)]}}
    stage, channels = inception_stage(6, modules, module=Doubled)
    assert list(stage._children) == ["pool", "a", "b"] and channels == stage.b.channels == 5
    assert isinstance(stage.a, Doubled)
    assert output_shape(stage, (1, 6, 9, 9)) == (1, 5, 4, 4)


@pytest.mark.parametrize("make, message", [
    (lambda: Inception(4, {}), "no branches"),
    (lambda: Inception(4, {"a": []}), "no steps"),
    (lambda: Inception(0, {"a": [(1, 1)]}), "in_channels is 0"),
    (lambda: Inception(4, {"a": [(0, 1)]}), "channels is 0; expected a whole number"),
    (lambda: Inception(4, {"a": [(1,)]}), r"step of a branch is \(1,\); expected \(channels, kernel_size"),
    (lambda: Inception(4, {"a": [(1, 1, 1, 0, 0)]}), r"\(1, 1, 1, 0, 0\)"),
    (lambda: conv_chain(4, ["max"]), "step of a branch is 'max'"),
    (lambda: conv_chain(4, [{}]), "no branches"),
    (lambda: check_flag(aux=True, other=1), "other is 1; expected True or False")])
def test_bad_tables(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_flags():
    check_flag(aux=True, other=False)
