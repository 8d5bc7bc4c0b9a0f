"""Any network made binary: which layers, which values, gradients by NumPy, a bit a weight in a file."""
import gluonzoo
from gluonzoo import compact
from gluonzoo.classification.xnornet import bwn_resnet18
from gluonzoo.errors import UserError
from gluonzoo.layers import BinaryConv2D, BinaryWeightConv2D, NormBinaryConv2D, binary_convolutions, weight_names
from gluonzoo.training.finetune import _blocks
from gluonzoo.training.weights import get_parameters, set_parameters

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon


def binary_net(kind, name="cifar_resnet20_v1_b", **options):
    net = gluonzoo.get_model(name, **options)
    names = binary_convolutions(net, kind)
    mx.random.seed(3)
    net.initialize()
    return net, names


def test_weights_keep_their_names_and_become_binary():
    net, names = binary_net("weights")
    plain = gluonzoo.get_model("cifar_resnet20_v1_b")
    shapes = {name: parameter.shape for name, parameter in plain._collect_params_with_prefix().items()}
    assert {name: parameter.shape for name, parameter in net._collect_params_with_prefix().items()} == shapes
    assert names == weight_names(plain, "first,last")
    kinds = {f"{path}.weight": type(block) for path, block in _blocks(net) if hasattr(block, "weight")}
    assert {name for name, kind in kinds.items() if kind is BinaryWeightConv2D} == set(names)
    # The same network with weights alpha sign(W) put into the plain one.
    plain.initialize()
    values = get_parameters(net)
    for name in names:
        values[name] = (np.abs(values[name]).mean(axis=(1, 2, 3), keepdims=True) * np.sign(values[name])).astype("float32")
    set_parameters(plain, values, "here")
    x = mx.nd.random.normal(shape=(2, 3, 32, 32))
    expected = plain(x).asnumpy()
    for hybrid in (False, True):
        net.hybridize(hybrid)
        np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_it_is_what_was_written_by_hand():
    """ResNet-18 but for its stem, shortcuts and last layer is the family file's Binary-Weight-Network."""
    net = gluonzoo.get_model("resnet18_v1")
    skip = "first,last," + ",".join(name[:-7] for name in weight_names(net) if "shortcut" in name)
    names = binary_convolutions(net, "weights", skip)
    by_hand = [f"{path}.weight" for path, block in _blocks(bwn_resnet18()) if isinstance(block, BinaryWeightConv2D)]
    assert names == by_hand and len(names) == 16


@pytest.mark.parametrize("kind", ["inputs", "inputs_scaled"])
def test_binary_inputs_have_a_norm(kind):
    net, names = binary_net(kind)
    blocks = [block for _, block in _blocks(net) if isinstance(block, NormBinaryConv2D)]
    assert len(blocks) == len(names) == 20 and all(block._input_scale == (kind == "inputs_scaled") for block in blocks)
    x = mx.nd.random.normal(shape=(2, 3, 32, 32))
    with autograd.record():
        y = net(x)
        loss = y.square().sum()
    loss.backward()
    for name, parameter in net._collect_params_with_prefix().items():
        if parameter.grad_req != "null":
            gradient = parameter.grad().asnumpy()
            assert np.isfinite(gradient).all() and (gradient != 0).any(), name
    one = blocks[3]
    x = mx.nd.random.normal(shape=(2, one.weight.shape[1], 5, 5))
    signs = BinaryConv2D(one.weight.shape[1], one.weight.shape[0], 3, 1, 1, input_scale=one._input_scale)
    signs.initialize()
    signs.weight.set_data(one.weight.data())
    one._kwargs, signs._kwargs = dict(one._kwargs), dict(one._kwargs)
    np.testing.assert_allclose(one(x).asnumpy(), signs(one.norm(x)).asnumpy(), rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_converted_layer_by_numpy():
    """dC/dW = dC/dW~ (1/n + alpha 1[|W| <= 1]), real weights moved by it: one update of SGD by hand."""
    small = gluon.nn.HybridSequential()
    small.add(gluon.nn.Conv2D(1, 1, in_channels=4, use_bias=False), gluon.nn.Dense(1, in_units=1))
    assert binary_convolutions(small, "weights", "last") == ["0.weight"]
    small.initialize()
    conv = small[0]
    assert type(conv) is BinaryWeightConv2D
    conv.weight.set_data(mx.nd.array([0.5, -1.5, 0.25, 1.75]).reshape((1, 4, 1, 1)))
    x = mx.nd.array([1, 2, 3, 4]).reshape((1, 4, 1, 1))
    trainer = gluonzoo.training.Trainer({"w": conv.weight}, "sgd", {"learning_rate": 0.1})
    with autograd.record():
        y = conv(x)
    y.backward()
    assert y.asscalar() == 1.0 * (1 - 2 + 3 + 4)  # alpha = 4 / 4.
    # dC/dW~ is x; n = 4: 1/4 + 1 where |W| <= 1, else 1/4.
    np.testing.assert_allclose(conv.weight.grad().asnumpy().ravel(), [1.25, 0.5, 3.75, 1.0])
    trainer.step(1)
    np.testing.assert_allclose(conv.weight.data().asnumpy().ravel(), [0.375, -1.55, -0.125, 1.65], rtol=1e-6)


def test_activation_and_bias_of_a_convolution_stay():
    for kind in ("weights", "inputs_scaled"):
        block = gluon.nn.HybridSequential()
        block.add(gluon.nn.Conv2D(3, 3, padding=1, in_channels=2, activation="relu"), gluon.nn.Dense(2, in_units=3 * 16))
        binary_convolutions(block, kind, "last")
        block.initialize(mx.init.Normal(1))
        y = block[0](mx.nd.random.normal(shape=(1, 2, 4, 4))).asnumpy()
        assert block[0].bias is not None and y.min() == 0 < y.max() and y.shape == (1, 3, 4, 4)


@pytest.mark.parametrize("make, message", [
    (lambda: binary_convolutions(gluonzoo.get_model("lenet5"), "both"), "binary is 'both'; expected one of none, weights"),
    (lambda: binary_convolutions(gluonzoo.get_model("cifar_resnet20_v1_a"), "weights", "features"), "no convolution"),
    (lambda: binary_convolutions(gluonzoo.get_model("mobilenet_v1_1_0"), "weights"), "groups and dilation .*--binary-skip"),
    (lambda: binary_convolutions(binary_net("weights")[0], "weights"), "no convolution that could become binary")])
def test_what_cannot_be_had(make, message):
    with pytest.raises(UserError, match=message):
        make()
    net = gluonzoo.get_model("cifar_resnet20_v1_a")
    net.initialize()
    with pytest.raises(UserError, match="before that"):
        binary_convolutions(net, "weights")


@pytest.mark.parametrize("kind", ["weights", "inputs"])
def test_a_bit_a_weight_and_the_same_network_from_the_file(kind, tmp_path):
    net, names = binary_net(kind)
    x = mx.nd.random.normal(shape=(4, 3, 32, 32))
    real = net(x).asnumpy()
    values = {**get_parameters(net), **compact.binary_weights(net)}
    assert set(compact.binary_weights(net)) == set(names)
    set_parameters(net, values, "here")
    before = net(x).asnumpy()
    if kind == "weights":  # (Elsewhere a sign near 0 may turn.)
        np.testing.assert_allclose(before, real, rtol=1e-3, atol=1e-4 * np.abs(real).max())
    facts = {"model": "cifar_resnet20_v1_b", "binary": kind}
    report = compact.save(str(tmp_path / "net"), values, facts)
    rows = {row.name: row for row in report.rows}
    for name in names:
        assert rows[name].stored == "signs and scales"
        assert rows[name].after <= values[name].size / 8 + 4 * len(values[name]) + 8
    again, found = compact.open_compact(str(tmp_path / "net"))
    assert found == facts
    assert all(value.tobytes() == values[name].tobytes() for name, value in get_parameters(again).items())
    np.testing.assert_array_equal(again(x).asnumpy(), before)
