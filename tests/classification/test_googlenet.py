"""GoogLeNet: the paper's table, the auxiliary heads, and what sets the two variants apart."""
import json

import gluonzoo
from gluonzoo.classification.googlenet import GoogLeNet
from gluonzoo.errors import UserError
from gluonzoo.layers import features
from gluonzoo.summary import count_macs, count_parameters

import mxnet as mx
import numpy as np
import pytest


def operators(net, kind):
    """Attributes of the operators of a kind, in order."""
    output = net(mx.sym.var("data"))
    nodes = json.loads((mx.sym.Group(list(output)) if isinstance(output, tuple) else output).tojson())["nodes"]
    return [node.get("attrs", {}) for node in nodes if node["op"] == kind]


def map_shapes(net, size):
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:] for shape in maps.infer_shape(data=(1, 3) + size)[1]]


@pytest.mark.parametrize("name, aux, convolutions, dense", [
    ("googlenet", False, 57, 1), ("googlenet", True, 59, 5), ("googlenet_bn", False, 57, 1), ("googlenet_bn", True, 59, 5)])
def test_layers(name, aux, convolutions, dense):
    net, normed = gluonzoo.get_model(name, aux=aux), name.endswith("bn")
    found = operators(net, "Convolution")
    assert len(found) == convolutions and len(operators(net, "FullyConnected")) == dense
    assert {attributes["no_bias"] for attributes in found} == {str(normed)}
    assert sum(attributes["kernel"] == "(5, 5)" for attributes in found) == (0 if normed else 9)
    norms = operators(net, "BatchNorm")
    assert len(norms) == (convolutions if normed else 0) and {n["eps"] for n in norms} <= {"0.001"}


def test_local_response_normalisation_twice_with_caffes_constants():
    found = operators(gluonzoo.get_model("googlenet"), "LRN")
    assert [{key: float(value) for key, value in attributes.items()} for attributes in found] == 2 * [
        {"nsize": 5, "alpha": 1e-4, "beta": 0.75, "knorm": 1}]
    assert operators(gluonzoo.get_model("googlenet_bn"), "LRN") == []


def test_poolings():
    for name, last in (("googlenet", "(3, 3)"), ("googlenet_bn", "(2, 2)")):
        strided = [p for p in operators(gluonzoo.get_model(name), "Pooling") if p["stride"] == "(2, 2)"]
        assert [p["kernel"] for p in strided] == ["(3, 3)"] * 3 + [last]
        assert {(p["pool_type"], p["pooling_convention"]) for p in strided} == {("max", "full")}
        kept = [p for p in operators(gluonzoo.get_model(name), "Pooling") if p["stride"] == "(1, 1)"]
        assert len(kept) == 9 and {(p["pool_type"], p["pad"]) for p in kept} == {("max", "(1, 1)")}


@pytest.mark.parametrize("name", ["googlenet", "googlenet_bn"])
def test_map_sizes_of_table_1(name):
    assert map_shapes(gluonzoo.get_model(name), (224, 224)) == [(192, 28, 28), (480, 28, 28), (832, 14, 14), (1024, 7, 7)]


def test_parameters_of_3a():
    """192 -> 64; 192 -> 96 -> 128 (3x3); 192 -> 16 -> 32 (5x5); 192 -> 32; and a bias for every channel."""
    weights = 192 * (64 + 96 + 16 + 32) + 9 * 96 * 128 + 25 * 16 * 32
    assert count_parameters(gluonzoo.get_model("googlenet").features.inception3.a) == weights + 64 + 96 + 128 + 16 + 32 + 32
    smaller = 192 * (64 + 96 + 16 + 32) + 9 * 96 * 128 + 9 * 16 * 32
    assert count_parameters(gluonzoo.get_model("googlenet_bn").features.inception3.a) == smaller + 2 * 368


@pytest.mark.parametrize("name, aux, params, macs", [
    ("googlenet", True, 13378280, 1591044096), ("googlenet_bn", True, 13004888, 1506748416)])
def test_counts_with_auxiliary_heads(name, aux, params, macs):
    net = gluonzoo.get_model(name, aux=aux)
    assert (count_parameters(net), count_macs(net, (3, 224, 224))) == (params, macs)


@pytest.mark.parametrize("name, smallest", [("googlenet", 47), ("googlenet_bn", 31)])
def test_smallest_size_is_the_smallest(name, smallest):
    net = gluonzoo.get_model(name)
    assert net.min_size == (smallest, smallest) and map_shapes(net, net.min_size)[-1] == (1024, 1, 1)
    for size in ((smallest - 1, smallest), (smallest, smallest - 1)):
        with pytest.raises(mx.MXNetError, match="kernel size"):
            map_shapes(net, size)
        with pytest.raises(UserError, match=f"at least {smallest}x{smallest}"):
            net.check_input((1, 3) + size)


@pytest.mark.parametrize("name", ["googlenet", "googlenet_bn"])
def test_heads_see_4a_and_4d(name):
    net = gluonzoo.get_model(name, aux=True)
    assert net.auxiliary == ("aux1", "aux2")
    outputs = net(mx.sym.var("data"))
    inputs = [set(output.list_arguments()) for output in outputs]
    tail = {module: set(getattr(net.features.inception4, module).collect_params(".*weight")) for module in "abcde"}
    reached = [[module for module, weights in tail.items() if weights & names] for names in inputs]
    assert reached == [list("abcde"), list("a"), list("abcd")]
    assert [len(names & set(net.output.collect_params())) for names in inputs] == [2, 0, 0]


def test_heads_of_the_paper():
    net = gluonzoo.get_model("googlenet", aux=True)
    pools = [p for p in operators(net, "Pooling") if p["stride"] == "(3, 3)"]
    assert len(pools) == 2 and {(p["pool_type"], p["kernel"]) for p in pools} == {("avg", "(5, 5)")}
    for head in (net.aux1, net.aux2):
        assert head.conv.conv.weight.shape[::2] == (128, 1) and head.dense.weight.shape == (1024, 2048)
        assert head.dropout._rate == 0.7 and head.output.weight.shape == (1000, 1024)
    assert net.dropout._rate == 0.4 and gluonzoo.get_model("googlenet_bn").dropout._rate == 0.2


def test_heads_of_the_paper_need_the_standard_size_and_the_others_do_not(tmp_path):
    net = gluonzoo.get_model("googlenet", aux=True)
    with pytest.raises(UserError, match="exactly 224x224; the input has 256x256"):
        net(mx.nd.zeros((1, 3, 256, 256)))
    net = gluonzoo.get_model("googlenet_bn", aux=True, classes=4)
    net.initialize()
    x = mx.nd.random.normal(shape=(2, 3, 65, 40))
    outputs = net(x)
    assert all(output.shape == (2, 4) and np.isfinite(output.asnumpy()).all() for output in outputs)
    # The file of a network with heads serves one without, which gives the same output.
    plain = gluonzoo.get_model("googlenet_bn", classes=4)
    path = str(tmp_path / "net.params")
    net.save_parameters(path)
    plain.load_parameters(path, ignore_extra=True)
    np.testing.assert_array_equal(plain(x).asnumpy(), outputs.output.asnumpy())


def test_initial_weights():
    mx.random.seed(4)
    net, bound = gluonzoo.get_model("googlenet", aux=True), np.sqrt(3 / (160 * 9))
    conv = net.features.inception4.e.branch3x3.conv2.conv
    for layer in (conv, net.aux1.dense, net.aux2.output, net.output):
        layer.initialize()
    weights = conv.weight.data().asnumpy()
    assert 0.99 * bound < np.abs(weights).max() <= bound and weights.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    for biases, value in ((conv.bias, 0.2), (net.aux1.dense.bias, 0.2), (net.aux2.output.bias, 0), (net.output.bias, 0)):
        assert (biases.data().asnumpy() == np.float32(value)).all()
    net = gluonzoo.get_model("googlenet_bn", aux=True)
    for layer in (net.features.inception4.e.branch3x3.conv2.conv, net.aux1.dense, net.output):
        layer.initialize()
        weights = layer.weight.data().asnumpy()
        assert weights.std() == pytest.approx(0.0088, rel=0.02) and np.abs(weights).max() < 0.0201


@pytest.mark.parametrize("make, message", [
    (lambda: gluonzoo.get_model("googlenet", aux=1), "aux is 1; expected True or False"),
    (lambda: gluonzoo.get_model("googlenet_bn", aux=None), "aux is None"),
    (lambda: GoogLeNet(batch_norm="yes"), "batch_norm is 'yes'")])
def test_bad_flags(make, message):
    with pytest.raises(UserError, match=message):
        make()
