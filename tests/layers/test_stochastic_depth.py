"""Stochastic depth: the paper's rates, b f + x in training, p f + x in inference, hybridized, exported, deterministic."""
import gluonzoo
from gluonzoo.errors import UserError
from gluonzoo.layers import BasicUnit, drop_branch, stochastic_depth, survival_rates

import mxnet as mx
import numpy as np
import pytest


def test_linear_decay():
    np.testing.assert_allclose(survival_rates(4, 0.5), [0.875, 0.75, 0.625, 0.5])


@pytest.mark.parametrize("hybrid", [False, True])
def test_training_leaves_whole_batches_out_and_inference_scales(hybrid):
    class Branch(mx.gluon.HybridBlock):
        def hybrid_forward(self, F, x):
            return drop_branch(F, x, 0.75)
    block, x = Branch(), mx.nd.array(np.arange(1, 25).reshape(2, 3, 2, 2))
    if hybrid:
        block.hybridize(static_alloc=True, static_shape=True)
    np.testing.assert_allclose(block(x).asnumpy(), 0.75 * x.asnumpy(), rtol=1e-6)
    x.attach_grad()
    kept = 0
    for seed in range(200):
        mx.random.seed(seed)
        with mx.autograd.record():
            y = block(x)
        y.backward()
        share = y.asnumpy() / x.asnumpy()
        assert np.ptp(share) < 1e-6 and min(abs(share.mean()), abs(share.mean() - 1)) < 1e-6
        np.testing.assert_allclose(x.grad.asnumpy(), share, atol=1e-6)
        kept += share.mean() > 0.5
    assert 120 <= kept <= 177  # 150, give or take 4.5 standard deviations.


def test_a_unit_that_is_left_out_is_its_shortcut():
    unit = BasicUnit(4, 4)
    unit.initialize()
    unit.survival = 0.5
    x = mx.nd.random.uniform(shape=(2, 4, 5, 5))
    seen = set()
    for seed in range(12):
        mx.random.seed(seed)
        with mx.autograd.record():
            y = unit(x)
        out = bool((y.asnumpy() == x.asnumpy()).all())
        seen.add(out)
        mx.random.seed(seed)
        with mx.autograd.record():
            again = unit(x)
        np.testing.assert_array_equal(again.asnumpy(), y.asnumpy())
    assert seen == {True, False}


@pytest.mark.parametrize("name, units, size", [
    ("cifar_resnet20_v1_a", 9, 32), ("cifar_resnet20_v2", 9, 32), ("cifar_resnext29_32x4d", 9, 32), ("resnet18_v1", 8, 32),
    ("se_resnet18", 8, 32), ("mobilenet_v2_0_5", 10, 32)])
def test_networks_keep_their_names_and_take_it_back(name, units, size):
    net = gluonzoo.get_model(name, classes=3)
    net.initialize()
    names, x = list(net._collect_params_with_prefix()), mx.nd.random.normal(shape=(1, 3, size, size))
    before = net(x).asnumpy()
    net.hybridize()
    assert stochastic_depth(net, 0.5) == units
    assert list(net._collect_params_with_prefix()) == names
    assert np.abs(net(x).asnumpy() - before).max() > 0
    stochastic_depth(net, 0)
    np.testing.assert_allclose(net(x).asnumpy(), before, atol=1e-5)


def test_exported_it_scales_too(tmp_path):
    net = gluonzoo.get_model("cifar_resnet20_v1_a")
    net.initialize()
    stochastic_depth(net, 0.5)
    net.hybridize()
    x = mx.nd.random.normal(shape=(2, 3, 32, 32))
    expected = net(x).asnumpy()
    net.export(str(tmp_path / "net"))
    block = mx.gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params"))
    np.testing.assert_allclose(block(x).asnumpy(), expected, atol=1e-5)


def test_bad_rates_and_networks_are_named():
    with pytest.raises(UserError, match="stochastic depth is 1.0"):
        stochastic_depth(gluonzoo.get_model("cifar_resnet20_v1_a"), 1.0)
    with pytest.raises(UserError, match="lenet5 has none"):
        stochastic_depth(gluonzoo.get_model("lenet5"), 0.5)
