"""PolyNet: grids, the mix of units and their scales, and the units' polynomials against NumPy."""
import json

import gluonzoo
from gluonzoo.classification.polynet import SCALES, PolyUnit, TwoWayUnit
from gluonzoo.layers import features

import mxnet as mx
import numpy as np
import pytest

BRANCHES = {"left": [(3, 1), (4, 1)], "right": [(2, 1)]}


@pytest.fixture(scope="module")
def net():
    """Built, not initialised: nothing here runs the whole network."""
    return gluonzoo.get_model("polynet")


def map_shapes(net, size):
    maps = mx.sym.Group(features(net, net.stages)(mx.sym.var("data")))
    return [shape[1:] for shape in maps.infer_shape(data=(1, 3) + size)[1]]


def units(net, stage):
    return [block for block in getattr(net.features, stage)._children.values() if isinstance(block, (PolyUnit, TwoWayUnit))]


def randomised(block):
    random = np.random.RandomState(5)
    block.initialize()
    for parameter in block.collect_params().values():
        if parameter.name.endswith(("gamma", "running_var")):
            parameter.set_data(mx.nd.array(random.uniform(0.5, 2, parameter.shape)))
        else:
            parameter.set_data(mx.nd.array(random.normal(0, 0.5, parameter.shape)))
    return block


def convolved(x, layer):
    return np.einsum("oc,nchw->nohw", layer.weight.data().asnumpy()[:, :, 0, 0], x)


def normalised(x, norm):
    gamma, beta, mean, variance = (value.data().asnumpy().reshape((1, -1, 1, 1))
                                   for value in (norm.gamma, norm.beta, norm.running_mean, norm.running_var))
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def test_grids(net):
    assert map_shapes(net, (331, 331)) == [(64, 163, 163), (192, 79, 79), (384, 39, 39), (1152, 19, 19), (2048, 9, 9)]
    assert map_shapes(net, (75, 76))[-1] == (2048, 1, 1)
    with pytest.raises(mx.MXNetError):
        map_shapes(net, (75, 74))


def test_the_mix_of_units(net):
    kinds = [[type(unit) for unit in units(net, stage)] for stage in ("stage1", "stage2", "stage3")]
    assert kinds == [[TwoWayUnit] * 10, [PolyUnit, TwoWayUnit] * 10, [PolyUnit, TwoWayUnit] * 5]
    assert [len(unit.projects) for unit in units(net, "stage2")[::2]] == [3] * 10


def test_scales_fall_from_1_to_07(net):
    found = [unit._scale for stage in ("stage1", "stage2", "stage3") for unit in units(net, stage)]
    assert found == SCALES and len(found) == 40
    assert (found[0], found[1], found[10], found[11], found[-1]) == (1.0, 0.992308, 0.923077, 0.915385, 0.7)
    assert np.allclose(np.diff(found), -1 / 130, atol=2e-6)


def test_layers(net):
    nodes = json.loads(net(mx.sym.var("data")).tojson())["nodes"]
    found = [node for node in nodes if node["op"] == "Convolution"]
    # 15 poly-3 units use their shared convolutions, 4 each, two times more than they have them.
    weights = {nodes[node["inputs"][1][0]]["name"] for node in found}
    assert (len(found), len(weights)) == (537, 417) and 537 - 417 == 15 * 4 * 2
    assert all(node["attrs"]["no_bias"] == "True" for node in found)
    assert sum(node["op"] == "BatchNorm" for node in nodes) == 537
    assert not any(node["op"] == "Pooling" and node["attrs"]["pool_type"] == "avg" for node in nodes)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_poly_unit_is_a_polynomial_of_one_block(order):
    unit = randomised(PolyUnit(5, BRANCHES, 0.3, order))
    x = np.random.RandomState(6).normal(size=(2, 5, 3, 4)).astype("float32")

    def block(maps, number):
        ends = []
        for branch in (unit.left, unit.right):
            end = maps
            for layer in branch:
                end = np.maximum(normalised(convolved(end, layer.conv), layer.norms[number]), 0)
            ends.append(end)
        project = unit.projects[number]
        return normalised(convolved(np.concatenate(ends, 1), project.conv), project.norm)

    total, power = x, x
    for number in range(order):
        power = block(power, number)
        total = total + 0.3 * power
        power = np.maximum(power, 0)
    np.testing.assert_allclose(unit(mx.nd.array(x)).asnumpy(), np.maximum(total, 0), rtol=1e-4, atol=1e-4)


def test_poly_unit_has_every_shared_weight_once():
    parameters = PolyUnit(5, BRANCHES, 1.0)._collect_params_with_prefix()
    assert len(parameters) == len({id(parameter) for parameter in parameters.values()})
    weights = [name for name in parameters if name.endswith("conv.weight")]
    assert weights == ["left.0.conv.weight", "left.1.conv.weight", "right.0.conv.weight",
                       "projects.0.conv.weight", "projects.1.conv.weight", "projects.2.conv.weight"]
    assert sum(name.endswith("gamma") for name in parameters) == 3 * 3 + 3


def test_two_way_unit_is_two_blocks_side_by_side():
    unit = randomised(TwoWayUnit(5, BRANCHES, 0.3))
    x = np.random.RandomState(7).normal(size=(2, 5, 3, 4)).astype("float32")

    def block(part):
        ends = []
        for branch in (part.branches.left, part.branches.right):
            end = x
            for layer in branch._children.values():
                end = np.maximum(normalised(convolved(end, layer.conv), layer.norm), 0)
            ends.append(end)
        return normalised(convolved(np.concatenate(ends, 1), part.project.conv), part.project.norm)

    expected = np.maximum(x + 0.3 * (block(unit.block1) + block(unit.block2)), 0)
    np.testing.assert_allclose(unit(mx.nd.array(x)).asnumpy(), expected, rtol=1e-4, atol=1e-4)


def test_initial_weights(net):
    mx.random.seed(6)
    shared, project = net.features.stage3.unit1.branch3x3[1].conv, net.features.stage3.unit1.projects[2].conv
    for layer, fan_in in ((shared, 192 * 3), (project, 448)):
        layer.initialize()
        assert abs(layer.weight.data().asnumpy().std() / np.sqrt(2 / fan_in) - 1) < 0.02
    for unit in (net.features.stage1.unit1.block2.project, net.features.stage3.unit1.projects[2]):
        unit.norm.initialize()
        assert (unit.norm.gamma.data().asnumpy() == np.float32(0.02)).all() and not unit.norm.beta.data().asnumpy().any()
    net.features.stage3.unit1.branch3x3[1].norms.initialize()
    assert all((norm.gamma.data().asnumpy() == 1).all() for norm in net.features.stage3.unit1.branch3x3[1].norms)
    net.output.initialize()
    assert abs(net.output.weight.data().asnumpy().std() / 0.01 - 1) < 0.01 and net.dropout._rate == 0.2
