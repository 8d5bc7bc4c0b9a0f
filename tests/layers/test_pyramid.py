"""Spatial pyramid pooling against NumPy, on maps of every size."""
from gluonzoo.errors import UserError
from gluonzoo.layers import SpatialPyramidPool

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon


def edges(length, bins):
    """Whole numbers only: floor(i L / n) and ceil((i + 1) L / n)."""
    return [(index * length // bins, -(-(index + 1) * length // bins)) for index in range(bins)]


def pooled(x, bins):
    levels = [np.stack([x[:, :, top:bottom, left:right].max((2, 3)) for top, bottom in edges(x.shape[2], number)
                        for left, right in edges(x.shape[3], number)], axis=2).reshape(len(x), -1) for number in bins]
    return np.concatenate(levels, axis=1)


@pytest.mark.parametrize("size", [(14, 14), (1, 1), (2, 9), (13, 17), (7, 7), (28, 20), (3, 5)])
@pytest.mark.parametrize("hybrid", [False, True])
def test_values_and_gradient(size, hybrid):
    block = SpatialPyramidPool()
    block.hybridize(hybrid)
    x = mx.nd.random.normal(shape=(3, 4) + size)
    x.attach_grad()
    with autograd.record():
        y = block(x)
    y.backward()
    np.testing.assert_array_equal(y.asnumpy(), pooled(x.asnumpy(), (7, 3, 2, 1)))
    # Each bin gives its gradient, 1, to its largest value; the largest of all is in all levels.
    assert x.grad.asnumpy().sum() == 3 * 4 * 63
    largest = x.asnumpy().max((2, 3), keepdims=True) == x.asnumpy()
    assert (x.grad.asnumpy()[largest] >= 4).all()


def test_no_height_is_rounded_wrongly():
    block = SpatialPyramidPool((7, 6, 5, 3, 1))
    for height in range(1, 120):
        x = np.random.RandomState(height).normal(size=(1, 2, height, 5)).astype("float32")
        np.testing.assert_array_equal(block(mx.nd.array(x)).asnumpy(), pooled(x, (7, 6, 5, 3, 1)), err_msg=str(height))


def test_hand_worked():
    x = mx.nd.array(np.arange(9).reshape(1, 1, 3, 3))
    # Two bins over three rows: rows 0 and 1, rows 1 and 2.
    np.testing.assert_array_equal(SpatialPyramidPool((1, 2))(x).asnumpy(), [[8, 4, 5, 7, 8]])


def test_order_where_bins_divide_the_map():
    x = mx.nd.random.normal(shape=(2, 3, 6, 4))
    expected = [mx.nd.Pooling(x, kernel=kernel, stride=kernel, pool_type="max").reshape((2, -1)) for kernel in ((3, 2), (6, 4))]
    np.testing.assert_array_equal(SpatialPyramidPool((2, 1))(x).asnumpy(), mx.nd.concat(*expected, dim=1).asnumpy())


@pytest.mark.filterwarnings("ignore:Cannot decide type")
def test_an_exported_block_takes_other_sizes(tmp_path):
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Conv2D(3, 1, in_channels=2), SpatialPyramidPool((3, 1)))
    net.initialize()
    net.hybridize()
    net(mx.nd.zeros((2, 2, 8, 8)))
    net.export(str(tmp_path / "net"))
    imported = gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params"))
    for shape in ((2, 2, 8, 8), (5, 2, 11, 4), (1, 2, 1, 2)):
        x = mx.nd.random.normal(shape=shape)
        np.testing.assert_array_equal(imported(x).asnumpy(), pooled(net[0](x).asnumpy(), (3, 1)))


def test_length():
    block = SpatialPyramidPool((7, 3, 2, 1))
    assert block.total == 63
    assert block(mx.sym.var("data")).infer_shape(data=(2, 512, 14, 14))[1] == [(2, 512 * 63)]


@pytest.mark.parametrize("bins, message", [((), "bins is empty"), ((3, 0), r"bins\[1\] is 0"), ((2.5,), r"bins\[0\] is 2.5")])
def test_bad_bins(bins, message):
    with pytest.raises(UserError, match=message):
        SpatialPyramidPool(bins)
