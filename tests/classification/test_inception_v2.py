"""Inception-v2: what table 1 and the figures of the Rethinking paper fix."""
import json

import gluonzoo
from gluonzoo.layers import features
from gluonzoo.summary import count_parameters

import mxnet as mx
import numpy as np
import pytest

NET = gluonzoo.get_model("inception_v2")


def convolutions(block, channels=3):
    """(kernel, stride, padding) of a block's convolutions, in order."""
    nodes = json.loads(block(mx.sym.var("data")).tojson())["nodes"]
    return [tuple(json.loads(node["attrs"][key].replace("(", "[").replace(")", "]"))[0:2] for key in ("kernel", "stride", "pad"))
            for node in nodes if node["op"] == "Convolution"]


def shape_after(block, channels, size):
    return block(mx.sym.var("data")).infer_shape(data=(1, channels, size, size))[1][0][1:]


def test_the_stem_is_the_tables():
    sizes, channels, size = [], 3, 299
    for block in NET.features.stem._children.values():
        channels, size, _ = shape_after(block, channels, size)
        sizes.append((channels, size))
    assert sizes == [(32, 149), (32, 147), (64, 147), (64, 73), (80, 71), (192, 35), (288, 35)]
    weights = [p for name, p in NET.features.stem._collect_params_with_prefix().items() if name.endswith("conv.weight")]
    assert sum(int(np.prod(p.shape)) for p in weights) == 710496


def test_modules_and_grids_are_the_tables():
    stages = NET.features
    assert [list(getattr(stages, name)._children) for name in NET.stages[1:]] == [
        list("abc"), ["reduction"] + list("abcde"), ["reduction"] + list("ab")]
    maps = mx.sym.Group(features(NET, NET.stages)(mx.sym.var("data"))).infer_shape(data=(1, 3, 299, 299))[1]
    assert [shape[1:] for shape in maps] == [(288, 35, 35), (288, 35, 35), (768, 17, 17), (2048, 8, 8)]
    assert shape_after(stages.inception5.reduction, 768, 17) == (1280, 8, 8)
    assert [block.channels for block in stages.inception4._children.values()] == [768] * 6


def test_modules_are_the_figures():
    def kernels(branch):
        return [tuple(kernel) for kernel, _, _ in convolutions(branch)]
    figure5, figure6, figure7 = NET.features.inception3.b, NET.features.inception4.c, NET.features.inception5.b
    one, three, wide, high = (1, 1), (3, 3), (1, 7), (7, 1)
    assert kernels(figure5) == [one, one, three, one, three, three, one]
    assert kernels(figure6) == [one, one, wide, high, one, wide, high, wide, high, one]
    assert kernels(figure7) == [one, one, (1, 3), (3, 1), one, three, (1, 3), (3, 1), one]
    for reduction in (NET.features.inception4.reduction, NET.features.inception5.reduction):
        assert convolutions(reduction) == [
            ([1, 1], [1, 1], [0, 0]), ([3, 3], [2, 2], [0, 0]),
            ([1, 1], [1, 1], [0, 0]), ([3, 3], [1, 1], [1, 1]), ([3, 3], [2, 2], [0, 0])]


def test_costs_are_near_the_papers():
    spec = gluonzoo.model_spec("inception_v2")
    assert spec.macs == pytest.approx(3.8e9, rel=0.05) and count_parameters(NET) == spec.params < 25e6
    assert "open" in spec.notes


def test_smallest_size_is_the_smallest():
    assert NET.min_size == (75, 75) and shape_after(NET.features, 3, 75) == (2048, 1, 1)
    with pytest.raises(mx.MXNetError):
        shape_after(NET.features, 3, 74)


def test_other_peoples_inception_v2_is_another_network():
    assert gluonzoo.model_spec("inception_v2").paper != gluonzoo.model_spec("bn_inception").paper
    with pytest.raises(TypeError, match="aux"):
        gluonzoo.get_model("inception_v2", aux=True)
