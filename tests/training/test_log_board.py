"""TensorBoard's files, read back: graph, histograms, images, scalars."""
import io
import json
import struct

import gluonzoo
from gluonzoo.training import train
from gluonzoo.visual.tensorboard import captioned, pixels_of, write_histograms

import mxnet as mx
import numpy as np
import pytest

pytest.importorskip("tensorboardX")
Image = pytest.importorskip("PIL.Image")


def events(folder):
    """The events of the files in a folder (records: length, its check, content, its check)."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length, = struct.unpack("<Q", data[at:at + 8])
            found.append(Event.FromString(data[at + 12:at + 12 + length]))
            at += 16 + length
    return found


def values(folder, tag):
    """[(step, value)] of a tag."""
    return [(event.step, value) for event in events(folder) for value in event.summary.value if value.tag == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("board") / "run"
    train({"dataset": "digits", "epochs": 2, "output": str(folder), "board_images": 5, "board_histograms": 2})
    return folder


def test_the_graph_is_the_networks_symbol(run):
    from tensorboardX.proto.graph_pb2 import GraphDef

    graphs = [GraphDef.FromString(event.graph_def) for event in events(run / "tensorboard") if event.graph_def]
    assert len(graphs) == 1
    nodes = {node.name: node for node in graphs[0].node}
    assert len(nodes) == len(graphs[0].node), "a name each"
    assert all(source.split(":")[0] in nodes for node in nodes.values() for source in node.input)
    first = nodes["features/c1/0/fwd"]
    assert first.op == "Convolution" and list(first.input) == ["data", "features/c1/0/weight", "features/c1/0/bias"]
    assert first.attr["kernel"].s == b"(5, 5)"
    shape = [size.size for size in first.attr["_output_shapes"].list.shape[0].dim]
    assert shape == [-1, 6, 28, 28]
    assert [size.size for size in nodes["features/c1/0/weight"].attr["_output_shapes"].list.shape[0].dim] == [6, 1, 5, 5]
    assert nodes["data"].op == "Placeholder" and [node.op for node in nodes.values()].count("Parameter") == 10


def test_images_are_there_after_every_epoch(run):
    images = values(run / "tensorboard", "images/training")
    assert [step for step, _ in images] == [23, 46]
    picture = Image.open(io.BytesIO(images[0][1].image.encoded_image_string))
    assert picture.size == (4 * 134 + 6, 2 * 164 + 6)


def test_histograms_are_of_every_parameter_at_the_epochs_that_were_asked_for(run):
    weights = values(run / "tensorboard", "weights/features/c1/0/weight")
    gradients = values(run / "tensorboard", "gradients/features/c1/0/weight")
    assert [step for step, _ in weights] == [step for step, _ in gradients] == [46]
    assert weights[0][1].histo.num == 6 * 25 and gradients[0][1].histo.num == 6 * 25
    assert gradients[0][1].histo.sum_squares > 0


def test_a_histogram_tells_the_weights(tmp_path):
    from tensorboardX import SummaryWriter

    net = gluonzoo.get_model("lenet5", classes=10)
    net.initialize(mx.init.Xavier())
    with SummaryWriter(str(tmp_path)) as writer:
        write_histograms(writer, net, 7)
    (step, value), = values(tmp_path, "weights/features/c3/0/weight")
    weight = net._collect_params_with_prefix()["features.c3.0.weight"].data().asnumpy().astype(np.float64)
    assert (step, value.histo.num) == (7, weight.size)
    assert [value.histo.min, value.histo.max, value.histo.sum, value.histo.sum_squares] == pytest.approx(
        [weight.min(), weight.max(), weight.sum(), (weight ** 2).sum()], rel=1e-5)


def test_scalars_follow_the_log(run):
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    logged = [(record["step"], record["val_loss"]) for record in records if record["event"] == "epoch"]
    shown = [(step, value.simple_value) for step, value in values(run / "tensorboard", "val/loss")]
    assert np.array(shown) == pytest.approx(np.array(logged)) and len(shown) == 2


def test_pictures_that_fail_end_no_training(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    monkeypatch.setattr("gluonzoo.visual.tensorboard.write_images", lambda *arguments: 1 / 0)
    _, history = train({"dataset": "digits", "epochs": 2, "output": str(tmp_path / "run"), "quiet": True})
    assert len(history) == 2
    assert capsys.readouterr().out.count("no pictures in TensorBoard from here on: ZeroDivisionError") == 1


def test_pictures_change_nothing_of_the_result(tmp_path):
    pytest.importorskip("sklearn")
    weights = []
    for name, settings in (("with", {"board_images": 8, "board_histograms": 1}), ("without", {"board_images": 0})):
        made, _ = train({"dataset": "digits", "epochs": 2, "output": str(tmp_path / name), "model": "lenet5", **settings})
        weights.append({name: parameter.data().asnumpy() for name, parameter in made.net._collect_params_with_prefix().items()})
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_pixels_come_back_from_normalised_inputs():
    class Transform:
        mean, std = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)

    pixels = np.random.RandomState(0).randint(0, 256, (2, 4, 5, 3)).astype(np.uint8)
    inputs = ((pixels / 255 - np.array(Transform.mean)) / np.array(Transform.std)).transpose(0, 3, 1, 2).astype(np.float32)
    assert np.array_equal(pixels_of(inputs, Transform), pixels)


def test_captions_take_any_name():
    picture = captioned(np.zeros((3, 8, 8, 3), np.uint8), [("\u732b" * 50, "\U0001f600", 0.5, False)] * 3, side=32)
    assert picture.shape == (62 + 12, 3 * 38 + 6, 3) and picture.dtype == np.uint8
