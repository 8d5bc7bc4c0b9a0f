"""Inception-v3: the paper's grid, MXNet's own Inception-v3 with the same weights, and the auxiliary head."""
import json

import gluonzoo
from gluonzoo.errors import UserError
from gluonzoo.layers import features
from gluonzoo.summary import count_macs, count_parameters

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import vision


def operators(net, kind):
    output = net(mx.sym.var("data"))
    nodes = json.loads((mx.sym.Group(list(output)) if isinstance(output, tuple) else output).tojson())["nodes"]
    return [node.get("attrs", {}) for node in nodes if node["op"] == kind]


def map_shapes(net, size):
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:] for shape in maps.infer_shape(data=(1, 3) + size)[1]]


@pytest.mark.parametrize("aux, layers, dense", [(False, 94, 1), (True, 96, 2)])
def test_layers(aux, layers, dense):
    net = gluonzoo.get_model("inception_v3", aux=aux)
    found = operators(net, "Convolution")
    assert len(found) == layers and all(attributes["no_bias"] == "True" for attributes in found)
    norms = operators(net, "BatchNorm")
    assert len(norms) == layers and {attributes["eps"] for attributes in norms} == {"0.001"}
    assert len(operators(net, "FullyConnected")) == dense


def test_grid():
    net = gluonzoo.get_model("inception_v3")
    assert map_shapes(net, (299, 299)) == [(192, 35, 35), (288, 35, 35), (768, 17, 17), (2048, 8, 8)]
    assert [[block.channels for block in getattr(net.features, stage)._children.values()] for stage in net.stages[1:]] == [
        [256, 288, 288], [768] * 5, [1280, 2048, 2048]]


def test_smallest_sizes_are_the_smallest():
    net = gluonzoo.get_model("inception_v3")
    assert net.min_size == (75, 75) and map_shapes(net, (75, 75))[-1] == (2048, 1, 1)
    with pytest.raises(mx.MXNetError):
        map_shapes(net, (75, 74))
    net = gluonzoo.get_model("inception_v3", aux=True)
    assert net.min_size == (299, 299)
    data, head = mx.sym.var("data"), net.aux1
    assert head(data).infer_shape(data=(1, 768, 17, 17))[1] == [(1, 1000)]
    with pytest.raises(mx.MXNetError):
        head(data).infer_shape(data=(1, 768, 16, 17))
    assert map_shapes(net, (298, 299))[2] == (768, 16, 17)
    with pytest.raises(UserError, match="at least 299x299; the input has 298x299"):
        net(mx.nd.zeros((1, 3, 298, 299)))


def test_auxiliary_head():
    net = gluonzoo.get_model("inception_v3", aux=True)
    assert (count_parameters(net), count_macs(net, (3, 299, 299))) == (27161264, 5718899296)
    main, aux = net(mx.sym.var("data"))
    assert net.auxiliary == ("aux1",)
    later = set(net.features.inception5.collect_params(".*weight"))
    last = set(net.features.inception4.d.collect_params(".*weight"))
    assert later <= set(main.list_arguments()) and not later & set(aux.list_arguments())
    assert last <= set(aux.list_arguments()) and last <= set(main.list_arguments())
    assert not set(net.aux1.collect_params()) & set(main.list_arguments())
    assert net.aux1.conv2.conv.weight.shape == (768, 128, 5, 5)


def values(parameter):
    """Weights that keep the signal's size, running statistics that are not the trivial ones."""
    random = np.random.default_rng(parameter.shape[0])
    if parameter.name.endswith(("gamma", "running_var")):
        return random.uniform(0.5, 1.0, parameter.shape)
    scale = 0.1 if len(parameter.shape) == 1 else np.sqrt(2 / np.prod(parameter.shape[1:]))
    return scale * random.standard_normal(parameter.shape, dtype="float32")


def test_equals_the_model_zoo_of_mxnet():
    ours, theirs = gluonzoo.get_model("inception_v3").features, nn.HybridSequential()
    theirs.add(*list(vision.inception_v3().features._children.values())[:-2])  # Without the pooling over 8x8, and dropout.
    ours.initialize("zeros")
    theirs.initialize("zeros")
    x = mx.nd.random.normal(shape=(1, 3, 91, 107))
    theirs(x)
    pairs = list(zip(ours.collect_params().values(), theirs.collect_params().values()))
    assert len(pairs) == len(ours.collect_params().keys()) == len(theirs.collect_params().keys())
    for parameter, same in pairs:
        parameter.set_data(mx.nd.array(values(parameter)))
        same.set_data(parameter.data())
    expected = theirs(x).asnumpy()
    assert expected.shape == (1, 2048, 1, 2) and expected.std() > 0.01
    np.testing.assert_allclose(ours(x).asnumpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_initial_weights():
    mx.random.seed(5)
    net = gluonzoo.get_model("inception_v3", aux=True)
    layers = [(0.1, net.features.inception5.a.branch3x3.conv1.conv), (0.1, net.features.stem.conv5.conv),
              (0.01, net.aux1.conv2.conv), (0.001, net.aux1.output), (0.01, net.output)]
    for sigma, layer in layers:  # The whole network takes seconds.
        layer.initialize()
        found = layer.weight.data().asnumpy()
        assert found.std() == pytest.approx(0.88 * sigma, rel=0.01)
        assert 1.98 * sigma < np.abs(found).max() < 2.001 * sigma


@pytest.mark.parametrize("aux", [0, "True", None])
def test_bad_flag(aux):
    with pytest.raises(UserError, match="aux is .*; expected True or False"):
        gluonzoo.get_model("inception_v3", aux=aux)
