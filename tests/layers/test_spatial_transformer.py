"""The spatial transformer against NumPy: sampling, its gradients, and how it starts."""
import json

from gluonzoo.errors import UserError
from gluonzoo.layers import SpatialTransformer, sample_affine
from gluonzoo.layers.spatial_transformer import Values

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from mxnet.gluon import nn

IDENTITY = [1, 0, 0, 0, 1, 0]


def sample(x, theta, size):
    """Equations 1 and 5 of the paper for one (C, H, W) map, pixel by pixel, with zeros outside."""
    channels, height, width = x.shape
    y = np.zeros((channels,) + size)
    for row, down in enumerate(np.linspace(-1, 1, size[0])):
        for column, right in enumerate(np.linspace(-1, 1, size[1])):
            horizontal, vertical = np.reshape(theta, (2, 3)) @ [right, down, 1]
            horizontal, vertical = (horizontal + 1) * (width - 1) / 2, (vertical + 1) * (height - 1) / 2
            across = np.maximum(0, 1 - np.abs(horizontal - np.arange(width)))
            along = np.maximum(0, 1 - np.abs(vertical - np.arange(height)))
            y[:, row, column] = along @ x @ across
    return y


def localisation(units=3):
    block = nn.HybridSequential()
    block.add(nn.Conv2D(units, 3, in_channels=2), nn.Activation("relu"), nn.GlobalAvgPool2D())
    return block


@pytest.mark.parametrize("size", [(2, 2), (5, 8), (28, 28), (33, 64)])
@pytest.mark.parametrize("given", [False, True])
def test_the_identity_gives_the_input(size, given):
    x = mx.nd.random.uniform(shape=(2, 3) + size)
    y = sample_affine(mx.nd, x, mx.nd.array([IDENTITY] * 2), size if given else None)
    np.testing.assert_allclose(y.asnumpy(), x.asnumpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("given", [False, True])
def test_whole_pixels(given):
    x = mx.nd.random.uniform(shape=(3, 2, 6, 5))
    image = x.asnumpy()
    # Half a turn, two columns to the left, one row down.
    theta = mx.nd.array([[-1, 0, 0, 0, -1, 0], [1, 0, 2 * 2 / 4, 0, 1, 0], [1, 0, 0, 0, 1, -2 / 5]])
    y = sample_affine(mx.nd, x, theta, (6, 5) if given else None).asnumpy()
    np.testing.assert_allclose(y[0], image[0, :, ::-1, ::-1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(y[1, :, :, :3], image[1, :, :, 2:], rtol=0, atol=1e-5)
    assert np.abs(y[1, :, :, 3:]).max() < 1e-5
    np.testing.assert_allclose(y[2, :, 1:], image[2, :, :-1], rtol=0, atol=1e-5)
    assert np.abs(y[2, :, 0]).max() < 1e-5


@pytest.mark.parametrize("size", [None, (4, 9), (13, 3)])
@pytest.mark.parametrize("hybrid", [False, True])
def test_any_transformation(size, hybrid):
    class Sampling(gluon.HybridBlock):
        def hybrid_forward(self, F, x, theta):
            return sample_affine(F, x, theta, size)

    block = Sampling()
    block.hybridize(hybrid)
    random = np.random.RandomState(5)
    x, theta = random.rand(4, 2, 7, 6), np.array(IDENTITY) + 0.5 * random.randn(4, 6)
    y = block(mx.nd.array(x), mx.nd.array(theta)).asnumpy()
    assert y.shape == (4, 2) + (size or (7, 6))
    for index in range(4):
        np.testing.assert_allclose(y[index], sample(x[index], theta[index], size or (7, 6)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [None, (4, 9)])
def test_gradients(size):
    """Against differences of NumPy's sampling; the points stay away from the kinks at whole pixels."""
    random = np.random.RandomState(9)
    x, theta = random.rand(1, 2, 6, 7), np.array([[0.71, 0.13, 0.052, -0.083, 0.62, -0.071]])
    outer = random.randn(1, 2, *(size or (6, 7)))
    data, values = mx.nd.array(x), mx.nd.array(theta)
    data.attach_grad()
    values.attach_grad()
    with autograd.record():
        y = sample_affine(mx.nd, data, values, size)
    y.backward(mx.nd.array(outer))

    def value(image, numbers):
        return (sample(image[0], numbers[0], size or (6, 7)) * outer[0]).sum()

    for array, gradient in ((x, data.grad.asnumpy()), (theta, values.grad.asnumpy())):
        for place in list(np.ndindex(*array.shape))[::7 if array is x else 1]:
            step = np.zeros_like(array)
            step[place] = 1e-6
            pair = [(x + sign * step, theta) if array is x else (x, theta + sign * step) for sign in (1, -1)]
            difference = (value(*pair[0]) - value(*pair[1])) / 2e-6
            assert gradient[place] == pytest.approx(difference, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("initializer", [None, mx.init.Xavier(), mx.init.One()])
def test_it_starts_as_the_identity(initializer):
    block = SpatialTransformer(localisation(), 3)
    block.initialize(initializer or mx.init.Uniform())
    block.hybridize()
    for size in ((9, 9), (12, 7)):
        x = mx.nd.random.uniform(shape=(2, 2) + size)
        np.testing.assert_allclose(block(x).asnumpy(), x.asnumpy(), rtol=0, atol=1e-5)


def test_the_localisation_learns_from_the_second_step_on():
    mx.random.seed(4)
    block = SpatialTransformer(localisation(8), 8)
    block.initialize(mx.init.Xavier())
    trainer = gluon.Trainer(block.collect_params(), "sgd", {"learning_rate": 1e-3})
    largest = []
    for _ in range(2):
        x = mx.nd.random.uniform(shape=(4, 2, 9, 9))
        with autograd.record():
            loss = block(x)[:, :, :4].square().sum()
        loss.backward()
        largest.append({key: np.abs(parameter.grad().asnumpy()).max()
                        for key, parameter in block._collect_params_with_prefix().items()})
        trainer.step(1)
    assert set(largest[0]) == {"theta.weight", "theta.bias", "localisation.0.weight", "localisation.0.bias"}
    assert largest[0]["theta.weight"] > 0 and largest[0]["theta.bias"] > 0
    assert largest[0]["localisation.0.weight"] == 0 and largest[0]["localisation.0.bias"] == 0
    assert all(value > 0 for value in largest[1].values())


def test_finds_a_shift():
    """Trained end to end to undo a shift of the picture that it can only see."""
    mx.random.seed(1)
    np.random.seed(1)
    rows, columns = np.mgrid[0:15, 0:15]

    def blobs(batch):
        centres = np.random.uniform(4, 10, (batch, 2, 1, 1))
        return mx.nd.array(np.exp(-((rows - centres[:, :1]) ** 2 + (columns - centres[:, 1:]) ** 2) / 6))

    seeing = nn.HybridSequential()
    seeing.add(nn.Flatten(), nn.Dense(16, activation="relu", in_units=225))
    block = SpatialTransformer(seeing, 16)
    block.initialize(mx.init.Xavier())
    block.hybridize()
    centred = mx.nd.array(np.exp(-((rows - 7) ** 2 + (columns - 7) ** 2) / 6)[None, None])
    trainer = gluon.Trainer(block.collect_params(), "adam", {"learning_rate": 0.003})
    losses = []
    for _ in range(200):
        with autograd.record():
            loss = mx.nd.broadcast_sub(block(blobs(16)), centred).square().mean()
        loss.backward()
        trainer.step(1)
        losses.append(float(loss.asscalar()))
    assert np.mean(losses[-20:]) < 0.2 * np.mean(losses[:20])


@pytest.mark.filterwarnings("ignore:Cannot decide type")
@pytest.mark.parametrize("size", [None, (5, 4)])
def test_export_takes_other_sizes(size, tmp_path):
    block = SpatialTransformer(localisation(), 3, size)
    block.initialize()
    block.theta.weight.set_data(mx.nd.random.normal(0, 0.3, (6, 3)))
    block.hybridize()
    block(mx.nd.random.uniform(shape=(2, 2, 9, 9)))
    block.export(str(tmp_path / "net"))
    imported = gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params"))
    x = mx.nd.random.uniform(shape=(3, 2, 7, 12))
    assert block(x).shape == (3, 2) + (size or (7, 12))
    np.testing.assert_array_equal(imported(x).asnumpy(), block(x).asnumpy())


def test_after_a_cast_symbols_still_pass():
    block = SpatialTransformer(localisation(), 3)
    block.initialize()
    block(mx.sym.var("data"))
    block.cast("float64")
    block(mx.sym.var("data"))


def test_values():
    dense = nn.Dense(4, in_units=2, weight_initializer=Values(range(8)), bias_initializer=Values((1, 2, 3, 4)))
    dense.initialize()
    assert dense.weight.data().asnumpy().tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert dense.bias.data().asnumpy().tolist() == [1, 2, 3, 4]
    name, options = json.loads(Values((1, 2)).dumps())
    assert mx.init.create(name, **options).values == [1, 2]


def test_bad_arguments():
    with pytest.raises(UserError, match="in_units is 0"):
        SpatialTransformer(localisation(), 0)
    with pytest.raises(UserError, match="height is 2.5"):
        SpatialTransformer(localisation(), 3, (2.5, 4))
    with pytest.raises(UserError, match="size is 1x7; expected at least 2x2"):
        SpatialTransformer(localisation(), 3, (1, 7))
