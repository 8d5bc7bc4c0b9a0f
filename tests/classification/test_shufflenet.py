"""ShuffleNets v1 and v2: the papers' tables, groups, units against NumPy, initial weights."""
import json

import gluonzoo
from gluonzoo.classification.shufflenet_v1 import ShuffleNet, ShuffleUnit
from gluonzoo.classification.shufflenet_v2 import ShuffleNetV2, ShuffleUnitV2
from gluonzoo.errors import UserError
from gluonzoo.layers import features

import mxnet as mx
import numpy as np
import pytest

V1 = [name for name in gluonzoo.list_models() if name.startswith("shufflenet_v1")]
V2 = [name for name in gluonzoo.list_models() if name.startswith("shufflenet_v2")]


def convolutions(net):
    nodes = json.loads(net(mx.sym.var("data")).tojson())["nodes"]
    return [node["attrs"] for node in nodes if node["op"] == "Convolution"]


def map_shapes(name):
    net = gluonzoo.get_model(name)
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:3] for shape in maps.infer_shape(data=(1, 3, 224, 224))[1]]


def randomised(block):
    """Initialised, with gammas, betas and running statistics that show in the output."""
    mx.random.seed(2)
    block.initialize(mx.init.Normal(0.5))
    for name, parameter in block.collect_params().items():
        if name.endswith("weight"):
            parameter.set_data(mx.nd.random.normal(0, 0.5, parameter.shape))
        else:
            parameter.set_data(mx.nd.random.uniform(0.5, 1.5, parameter.shape))
    return block


def computed(layer, x, groups=1, strides=1, relu=True):
    """A ConvNorm by NumPy, its padding half of the kernel."""
    weight, norm = layer.conv.weight.data().asnumpy(), layer.norm
    size, share, given = weight.shape[2], x.shape[1] // groups, weight.shape[0] // groups
    padded = np.pad(x, ((0, 0), (0, 0)) + ((size // 2, size // 2),) * 2)
    rows, columns = (-(-length // strides) for length in x.shape[2:])
    y = np.zeros((x.shape[0], weight.shape[0], rows, columns))
    for group in range(groups):
        ours = slice(group * given, (group + 1) * given)
        for i in range(size):
            for j in range(size):
                shifted = padded[:, group * share:(group + 1) * share, i::strides, j::strides][:, :, :rows, :columns]
                y[:, ours] += np.einsum("nchw,kc->nkhw", shifted, weight[ours, :, i, j])
    gamma, beta, mean, var = (p.data().asnumpy()[:, None, None]
                              for p in (norm.gamma, norm.beta, norm.running_mean, norm.running_var))
    y = (y - mean) / np.sqrt(var + 1e-5) * gamma + beta
    return np.maximum(y, 0) if relu else y


def shuffled(x, groups):
    count, channels = x.shape[:2]
    return x.reshape((count, groups, channels // groups) + x.shape[2:]).swapaxes(1, 2).reshape(x.shape)


def averaged(x):
    """Pooling of 3x3 at stride 2; what lies outside counts as zeros."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = (-(-length // 2) for length in x.shape[2:])
    return sum(padded[:, :, i::2, j::2][:, :, :rows, :columns] for i in range(3) for j in range(3)) / 9


@pytest.mark.parametrize("groups, first, strides", [(3, None, 1), (3, None, 2), (2, 1, 2), (1, None, 1)])
def test_unit_of_v1(groups, first, strides):
    unit = randomised(ShuffleUnit(24, 24 * strides, groups, strides, first))
    x = np.random.RandomState(0).normal(size=(2, 24, 7, 6))
    branch = shuffled(computed(unit.squeeze, x, first or groups), groups)
    branch = computed(unit.depthwise, branch, branch.shape[1], strides, relu=False)
    branch = computed(unit.expand, branch, groups, relu=False)
    joined = x + branch if strides == 1 else np.concatenate([averaged(x), branch], axis=1)
    np.testing.assert_allclose(unit(mx.nd.array(x)).asnumpy(), np.maximum(joined, 0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("strides", [1, 2])
def test_unit_of_v2(strides):
    unit = randomised(ShuffleUnitV2(8, 8 if strides == 1 else 14, strides))
    x = np.random.RandomState(0).normal(size=(2, 8, 7, 6)).astype("float32")
    around, branch = (x[:, :4], x[:, 4:]) if strides == 1 else (x, x)
    if strides == 2:
        depthwise, pointwise = unit.shortcut
        around = computed(pointwise, computed(depthwise, x, 8, 2, relu=False))
    branch = computed(unit.conv1, branch)
    branch = computed(unit.conv2, computed(unit.depthwise, branch, branch.shape[1], strides, relu=False))
    found = unit(mx.nd.array(x)).asnumpy()
    np.testing.assert_allclose(found, shuffled(np.concatenate([around, branch], axis=1), 2), rtol=1e-3, atol=1e-4)
    if strides == 1:
        np.testing.assert_array_equal(found[:, ::2], x[:, :4])


@pytest.mark.parametrize("name, channels", [
    ("shufflenet_v1_g1_1_0", (24, 144, 288, 576)), ("shufflenet_v1_g2_1_0", (24, 200, 400, 800)),
    ("shufflenet_v1_g3_1_0", (24, 240, 480, 960)), ("shufflenet_v1_g4_1_0", (24, 272, 544, 1088)),
    ("shufflenet_v1_g8_1_0", (24, 384, 768, 1536)), ("shufflenet_v1_g3_0_5", (12, 120, 240, 480)),
    ("shufflenet_v1_g1_0_75", (18, 108, 216, 432)), ("shufflenet_v1_g3_0_25", (6, 60, 120, 240))])
def test_v1_is_table_1(name, channels):
    assert map_shapes(name) == list(zip(channels, (56, 28, 14, 7)))


@pytest.mark.parametrize("name, channels", [
    ("shufflenet_v2_0_5", (24, 48, 96, 192, 1024)), ("shufflenet_v2_1_0", (24, 116, 232, 464, 1024)),
    ("shufflenet_v2_1_5", (24, 176, 352, 704, 1024)), ("shufflenet_v2_2_0", (24, 244, 488, 976, 2048))])
def test_v2_is_table_5(name, channels):
    assert map_shapes(name) == list(zip(channels, (56, 28, 14, 7, 7)))


@pytest.mark.parametrize("name, layers", [(name, 49) for name in V1] + [(name, 56) for name in V2])
def test_number_of_convolutions_none_with_bias(name, layers):
    net = gluonzoo.get_model(name)
    found = convolutions(net)
    assert len(found) == layers and all(attributes["no_bias"] == "True" for attributes in found)
    assert [len(getattr(net.features, stage)) for stage in ("stage2", "stage3", "stage4")] == [4, 8, 4]
    strided = sum(attributes["stride"] == "(2, 2)" for attributes in found)
    assert strided == (4 if layers == 49 else 7)


@pytest.mark.parametrize("name, groups", [("shufflenet_v1_g8_1_0", 8), ("shufflenet_v1_g3_0_25", 3)])
def test_only_the_first_pointwise_convolution_of_stage_2_is_not_grouped(name, groups):
    pointwise = [int(attributes["num_group"]) for attributes in convolutions(gluonzoo.get_model(name))
                 if attributes["kernel"] == "(1, 1)"]
    assert pointwise == [1] + [groups] * 31


def test_v2_groups_nothing_but_depthwise():
    for attributes in convolutions(gluonzoo.get_model("shufflenet_v2_1_0")):
        expected = "1" if attributes["kernel"] == "(1, 1)" or attributes["num_filter"] == "24" and (
            attributes["num_group"] == "1") else attributes["num_filter"]
        assert attributes["num_group"] == expected


def test_initial_weights_are_the_authors():
    for net in (gluonzoo.get_model("shufflenet_v1_g3_1_0"), gluonzoo.get_model("shufflenet_v2_1_0")):
        net.initialize()
        for key, parameter in net._collect_params_with_prefix().items():
            value = parameter.data().asnumpy()
            if not key.endswith("weight") or value.size < 500:
                continue
            expected = 0.01 if key.startswith(("features.stem", "output")) else 1 / value.shape[1]
            assert value.std() == pytest.approx(expected, rel=0.1), key
        assert not net.output.bias.data().asnumpy().any()


def test_dropout_of_the_widest():
    assert [gluonzoo.get_model(name).dropout is None for name in V2] == [True, True, True, False]
    assert gluonzoo.get_model("shufflenet_v2_2_0").dropout._rate == 0.2
    with pytest.raises(UserError, match="dropout is 2"):
        gluonzoo.get_model("shufflenet_v2_0_5", dropout=2)


@pytest.mark.parametrize("make, message", [
    (lambda: ShuffleNet(5), "groups is 5; expected one of 1, 2, 3, 4, 8"),
    (lambda: ShuffleNet(3, 1.5), "scale is 1.5; expected one of 1.0, 0.75, 0.5, 0.25"),
    (lambda: ShuffleNetV2(0.75), "width is 0.75; expected one of 0.5, 1.0, 1.5, 2.0")])
def test_unknown_configurations(make, message):
    with pytest.raises(ValueError, match=message):
        make()
