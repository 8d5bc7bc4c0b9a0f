"""Filters, feature maps, predictions, published accuracies: what is on the pictures and how they are written."""
import sys

import gluonzoo
from gluonzoo.accuracies import ACCURACIES, macs_at, published
from gluonzoo.errors import UserError
from gluonzoo.export.predictor import Prediction
from gluonzoo.registry import model_spec
from gluonzoo.visual import accuracy_picture, feature_maps, filters, prediction_picture

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

pytest.importorskip("matplotlib")
PNG = b"\x89PNG\r\n\x1a\n"


def module(name):
    """A module whose package has a function of the same name."""
    return sys.modules[f"gluonzoo.visual.{name}"]


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn."""
    from matplotlib.figure import Figure
    found, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **more: found.append(self) or save(self, path, **more))
    return found


@pytest.fixture(scope="module")
def lenet():
    mx.random.seed(2)
    net = gluonzoo.get_model("lenet_caffe")
    net.initialize()
    return net


def test_filters_are_shown_with_zero_as_grey():
    tiles = module("filters").filter_tiles
    weight = np.zeros((2, 3, 1, 2), "float32")
    weight[0, :, 0, 0], weight[0, :, 0, 1] = (4, -2, 0), (0, 0, 1)
    assert tiles(weight).shape == (2, 1, 2, 3)
    np.testing.assert_allclose(tiles(weight)[0, 0], [[1, 0.25, 0.5], [0.5, 0.5, 0.625]])
    np.testing.assert_allclose(tiles(weight)[1], 0.5)  # A filter of zeros.
    grey = tiles(np.array([[[[1.0]], [[-2.0]]]]))
    np.testing.assert_allclose(grey, [[[0.75]], [[0.0]]])


@pytest.mark.parametrize("channels, columns", [(1, 3), (3, 3), (2, 2)])
def test_filters_in_a_grid(tmp_path, figures, channels, columns):
    conv = nn.Conv2D(7, (3, 5), in_channels=channels)
    net = nn.HybridSequential()
    net.add(nn.HybridSequential(), nn.HybridSequential())
    net[1].add(nn.Dropout(0.5), conv)
    net.initialize()
    assert filters(net, tmp_path / "f.png") == ("1.1", (7, channels, 3, 5))
    assert (tmp_path / "f.png").read_bytes().startswith(PNG)
    image = figures[0].axes[0].images[0].get_array()
    rows = 7 if channels == 2 else 3
    assert image.shape[:2] == (rows * (12 + 3) + 3, columns * (20 + 3) + 3) and (image.ndim == 3) == (channels == 3)
    expected = module("filters").filter_tiles(conv.weight.data().asnumpy())[0]
    np.testing.assert_allclose(image[3:15, 3:23][::4, ::4], expected, rtol=1e-6)


@pytest.mark.parametrize("net, message", [
    (lambda: nn.Dense(3, in_units=2), "Dense has no 2-D convolution"),
    (lambda: nn.Conv2D(3, 3, in_channels=3), "not initialised"), (lambda: 5, "int has no"),
    (lambda: nn.Conv2D(100, 3, in_channels=50), "5,000 filters")])
def test_filters_refuses(tmp_path, net, message):
    net = net()
    if message.startswith("5,000"):
        net.initialize()
    with pytest.raises(UserError, match=message):
        filters(net, tmp_path / "f.png")
    assert not list(tmp_path.iterdir())


def test_feature_maps_share_a_scale_and_show_the_strongest(tmp_path, figures, lenet):
    x = np.random.RandomState(0).randn(1, 28, 28).astype("float32")
    assert feature_maps(lenet, x, "conv1", tmp_path / "m.png", most=4) == {"conv1": (20, 24, 24)}
    assert (tmp_path / "m.png").read_bytes().startswith(PNG)
    image, maps = figures[0].axes
    np.testing.assert_allclose(image.images[0].get_array()[..., 1], (x[0] - x.min()) / (x.max() - x.min()), rtol=1e-5)
    values = lenet.features.conv1(mx.nd.array(x[None])).asnumpy()[0]
    strongest = np.sort(np.argsort(-values.max(axis=(1, 2)))[:4])
    high = np.percentile(np.abs(values), 99.7)
    expected = np.clip((values[strongest] + high) / (2 * high), 0, 1)  # It has values below zero.
    drawn = np.asarray(maps.images[0].get_array())
    for index, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        tile = drawn[1 + row * 25:25 + row * 25, 1 + column * 25:25 + column * 25]
        np.testing.assert_allclose(tile, expected[index], rtol=1e-5, atol=1e-6)
    assert maps.get_title() == "conv1: 4 of 20 maps 24x24" and maps.images[0].get_cmap().name == "RdBu_r"


@pytest.mark.parametrize("stages, message", [("conv9", "conv1, pool1, conv2, pool2"), ((), "empty list")])
def test_feature_maps_of_unknown_stages(tmp_path, lenet, stages, message):
    with pytest.raises(UserError, match=message):
        feature_maps(lenet, np.zeros((1, 28, 28)), stages, tmp_path / "m.png")
    assert not list(tmp_path.iterdir())


def test_a_prediction_shows_names_and_probabilities(tmp_path, figures):
    guesses = [Prediction(3, "cat $x$", 0.75), Prediction(5, None, 0.125)]
    prediction_picture(np.full((40, 60, 3), 100, "uint8"), guesses, tmp_path / "p.png", title="a_b.jpg")
    assert (tmp_path / "p.png").read_bytes().startswith(PNG)
    image, bars = figures[0].axes
    assert image.images[0].get_array().shape == (40, 60, 3)
    assert [text.get_text() for text in bars.texts] == ["cat $x$  75.0 %", "5  12.5 %"]
    assert [bar.get_width() for bar in bars.patches] == [0.75, 0.125]
    prediction_picture(np.zeros((8, 8, 1), "uint8"), guesses, tmp_path / "p.png")
    assert figures[1].axes[0].images[0].get_cmap().name == "gray"


def test_every_published_accuracy_has_its_protocol_and_source():
    assert len(ACCURACIES) > 50
    for name, accuracy in ACCURACIES.items():
        assert 40 < accuracy.top1 < 83 and (accuracy.top5 is None or accuracy.top1 < accuracy.top5 < 97), name
        assert 200 < accuracy.size < 350 and ("crop" in accuracy.protocol), name
        assert accuracy.source.startswith(("torchvision 0.28.0", "https://")) or "https://" in accuracy.source, name
    for name in published():
        spec = model_spec(name)
        assert spec.classes == 1000 and spec.input_shape[0] == 3, name


def test_multiply_adds_are_those_of_the_tested_size():
    assert macs_at("resnet18_v1", 224) == model_spec("resnet18_v1").macs
    assert macs_at("resnet18_v1", 448) == 4 * (model_spec("resnet18_v1").macs - 512000) + 512000


@pytest.mark.parametrize("pattern, count", [("lenet*", 3), ("nothing*", 0)])
def test_published_says_how_many_matched(pattern, count):
    with pytest.raises(UserError, match=f"of the {count} networks.*'{pattern[:5]}"):
        published(pattern)


def test_the_comparison_shows_every_network_at_its_place(tmp_path, figures):
    names = ["resnet18_v1", "resnet50_v1", "resnet50_v1b"]
    macs = accuracy_picture(names, tmp_path / "c.png", size=(6, 5))
    assert (tmp_path / "c.png").read_bytes().startswith(PNG)
    assert macs == {name: model_spec(name).macs for name in names}
    axes = figures[0].axes[0]
    assert axes.get_xscale() == "log" and sorted(text.get_text() for text in axes.texts) == names
    discs = {tuple(disc.get_offsets()[0].round(4)): disc.get_sizes()[0] for disc in axes.collections
             if len(disc.get_offsets())}
    for name in names:
        size = discs[round(macs[name] / 1e9, 4), round(ACCURACIES[name].top1, 4)]
        assert size == pytest.approx(module("compare").AREA * model_spec(name).params / 1e6)
    with pytest.raises(UserError, match="lenet5 has no published accuracy"):
        accuracy_picture(["lenet5"], tmp_path / "d.png")
    assert not (tmp_path / "d.png").exists()


def overlaps(centres, sizes):
    low, high = centres - sizes / 2, centres + sizes / 2
    sides = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    return int(np.triu((sides > 0).all(axis=2), 1).sum())


@pytest.mark.parametrize("seed", range(3))
def test_labels_of_a_crowd_do_not_overlap(seed):
    random = np.random.RandomState(seed)
    points = np.concatenate([random.uniform(100, 900, (20, 2)), random.normal(600, 70, (25, 2))])
    radii, sizes = random.uniform(2, 20, 45), np.stack([random.uniform(50, 100, 45), np.full(45, 12.0)], axis=1)
    frame, legend = (0, 0, 1000, 1000), (800, 0, 1000, 200)
    centres = module("compare").place_labels(points, radii, sizes, frame, [legend])
    assert overlaps(centres, sizes) == 0
    assert (centres - sizes / 2 >= 0).all() and (centres + sizes / 2 <= 1000).all()
    assert not ((centres[:, 0] + sizes[:, 0] / 2 > 800) & (centres[:, 1] - 6 < 200)).any()
    assert overlaps(points, sizes) > 10  # On the discs themselves they would.


@pytest.mark.parametrize("draw", [
    lambda path, lenet: filters(lenet, path), lambda path, lenet: feature_maps(lenet, np.zeros((1, 28, 28)), "conv1", path),
    lambda path, lenet: accuracy_picture(["resnet18_v1"], path)])
def test_missing_matplotlib_and_a_failed_drawing(tmp_path, monkeypatch, lenet, draw):
    path = tmp_path / "p.png"
    path.write_bytes(b"old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module("picture").os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        draw(path, lenet)
    monkeypatch.undo()
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[visual\]'"):
        draw(path, lenet)
    assert path.read_bytes() == b"old" and [item.name for item in tmp_path.iterdir()] == ["p.png"]
