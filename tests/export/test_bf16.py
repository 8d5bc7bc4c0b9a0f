"""bfloat16: near float32 where it is given, refused with the reason where it is not."""
import sys

import gluonzoo
from gluonzoo.export import ExportError, compare, fuse, to_bf16

import mxnet as mx
import numpy as np
import pytest

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
    block = to_bf16(net)
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
        to_bf16(make(name))


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
        to_bf16(make("cifar_resnet20_v1_b"))
