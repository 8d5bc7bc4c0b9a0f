"""Evaluation of live networks against plain loops over all samples."""
import gluonzoo
from gluonzoo import data
from gluonzoo.errors import UserError
from gluonzoo.evaluation import (
    Member,
    Metrics,
    Protocol,
    evaluate,
    measure_speed,
    read_predictions,
    write_predictions,
)
from gluonzoo.evaluation.predictions import write_confusion, write_per_class
from gluonzoo.evaluation.run import WholeBatches
from gluonzoo.export.crops import ten_crops, whole_images
from gluonzoo.layers.dense_head import to_fully_convolutional

import mxnet as mx
import numpy as np
import pytest


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    return data.load("digits", train=False)


def network(seed, name="lenet_caffe"):
    mx.random.seed(seed)
    net = gluonzoo.get_model(name)
    net.initialize(mx.init.Xavier(magnitude=30))
    return net


@pytest.fixture(scope="module")
def nets():
    return [network(seed) for seed in (1, 2)]


def transform(digits, size=28):
    return data.Transform((1, size, size), digits.mean, digits.std)


def log_softmax(scores):
    scores = scores.astype(np.float64)
    return scores - np.log(np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True)) - scores.max(
        axis=1, keepdims=True)


def said(net, planes):
    return log_softmax(net(mx.nd.array(planes)).asnumpy())


def expect(result, logs, digits):
    metrics = Metrics(10)
    metrics.add(logs, digits.labels)
    assert result.figures["samples"] == len(digits) == 364
    assert result.figures["top1"] == metrics.top1 and result.figures["top5"] == metrics.top5
    assert result.figures["loss"] == pytest.approx(metrics.loss, rel=1e-5)
    assert result.figures["brier"] == pytest.approx(metrics.brier, rel=1e-5)
    assert result.figures["ece"] == pytest.approx(metrics.calibration().ece, rel=1e-4)


def test_one_network_one_crop(digits, nets):
    planes = transform(digits)(digits.images(np.arange(len(digits))))
    result = evaluate([Member(nets[0], transform(digits))], digits, batch_size=50, confusion=True)
    logs = said(nets[0], planes)
    expect(result, logs, digits)
    assert result.metrics.confusion().sum() == 364 and 0 <= result.figures["waited"] <= 1
    assert result.predictions is None and result.largest_difference is None


def test_the_training_loops_figures_are_the_same(digits, nets):
    from gluonzoo.training import Classification
    from gluonzoo.training import evaluate as validate

    here = evaluate([Member(nets[0], transform(digits))], digits, batch_size=64).figures
    there = validate(nets[0], Classification(), digits, transform(digits), 64)
    assert here["top1"] == there["accuracy"] and here["loss"] == pytest.approx(there["loss"], rel=1e-5)


def test_ten_crops_and_mirror_images_average_probabilities(digits, nets):
    images = list(digits.images(np.arange(len(digits))))
    stacks = ten_crops(images, transform(digits))
    logs = np.log(np.mean([np.exp(said(nets[0], stacks[:, crop])) for crop in range(10)], axis=0))
    expect(evaluate([Member(nets[0], transform(digits))], digits, Protocol("10"), batch_size=64), logs, digits)
    planes = transform(digits)(np.stack(images))
    logs = np.log((np.exp(said(nets[0], planes)) + np.exp(said(nets[0], planes[..., ::-1]))) / 2)
    expect(evaluate([Member(nets[0], transform(digits))], digits, Protocol(mirror=True)), logs, digits)


def test_dense_averages_class_scores_over_positions(digits, nets):
    whole = np.concatenate(whole_images(list(digits.images(np.arange(len(digits)))), transform(digits)))
    maps = to_fully_convolutional(nets[0])(mx.nd.array(whole)).asnumpy()
    assert maps.shape[2] > 1  # Several positions, or nothing is averaged.
    expect(evaluate([Member(nets[0], transform(digits))], digits, Protocol("dense"), batch_size=100),
           log_softmax(maps.mean(axis=(2, 3))), digits)


def test_several_scales_and_dense_of_a_network_that_takes_any_size(digits):
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Conv2D(8, 3, in_channels=3, activation="relu"), mx.gluon.nn.GlobalAvgPool2D(),
            mx.gluon.nn.Dense(10, in_units=8))
    net.initialize(mx.init.Xavier(magnitude=30))
    fit = data.Transform((3, 32, 32), digits.mean, digits.std)
    images = list(digits.images(np.arange(len(digits))))
    parts = []
    for side in (32, 40):
        scaled = data.Transform((3, side, side), digits.mean, digits.std)
        resized = np.stack([data.resize(image, side, side) for image in images])
        parts.append(np.exp(said(net, scaled(resized))))
    result = evaluate([Member(net, fit)], digits, Protocol("dense", (32, 40)), batch_size=128)
    expect(result, np.log(np.mean(parts, axis=0)), digits)


def test_several_networks_average_probabilities(digits, nets):
    small, large = transform(digits), data.Transform((1, 28, 28), (0.1,), (0.5,))
    images = digits.images(np.arange(len(digits)))
    logs = [said(nets[0], small(images)), said(nets[1], small(images)), said(nets[1], large(images))]
    members = [Member(nets[0], small, "a"), Member(nets[1], small, "b"), Member(nets[1], large, "c")]
    result = evaluate(members, digits)
    expect(result, np.log(np.mean(np.exp(logs), axis=0)), digits)
    for member, log, name in zip(result.figures["members"], logs, "abc"):
        alone = Metrics(10)
        alone.add(log, digits.labels)
        assert member["name"] == name and member["top1"] == alone.top1 and member["loss"] == pytest.approx(alone.loss, rel=1e-5)


def test_predictions_come_in_order_and_are_read_again(tmp_path, digits, nets):
    result = evaluate([Member(nets[0], transform(digits))], digits, batch_size=50, predictions=True)
    kept = result.predictions
    logs = said(nets[0], transform(digits)(digits.images(np.arange(len(digits)))))
    np.testing.assert_array_equal(kept.index, np.arange(364))
    np.testing.assert_array_equal(kept.labels, digits.labels)
    np.testing.assert_array_equal(kept.guesses, logs.argmax(axis=1))
    np.testing.assert_allclose(kept.confidence, np.exp(logs.max(axis=1)), rtol=1e-4)
    np.testing.assert_allclose(kept.likelihood, np.exp(logs[np.arange(364), digits.labels]), rtol=1e-3, atol=1e-7)
    assert (kept.dataset, kept.split, kept.classes) == ("digits", "test", digits.classes)
    path = tmp_path / "p.npz"
    write_predictions(path, kept)
    again = read_predictions(path)
    for name in ("index", "labels", "guesses", "confidence", "likelihood"):
        np.testing.assert_array_equal(getattr(again, name), getattr(kept, name))
    assert (again.dataset, again.split, again.classes, again.step) == ("digits", "test", digits.classes, -1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.npz"]
    worst = again.most_wrong(5)
    wrong = np.flatnonzero(again.labels != again.guesses)
    assert len(worst) == 5 and (again.likelihood[worst] <= np.sort(again.likelihood[wrong])[4]).all()
    assert set(worst) <= set(wrong)


def test_damaged_predictions_are_refused(tmp_path, digits, nets):
    kept = evaluate([Member(nets[0], transform(digits))], digits, predictions=True).predictions
    path = tmp_path / "p.npz"
    write_predictions(path, kept)
    before = path.read_bytes()
    path.write_bytes(before[:len(before) // 2])
    with pytest.raises(UserError, match="p.npz: expected a file of predictions"):
        read_predictions(path)
    kept.guesses = kept.guesses + 10
    write_predictions(path, kept)
    with pytest.raises(UserError, match="do not fit each other"):
        read_predictions(path)
    np.savez(path, index=np.array([object()], dtype=object))
    with pytest.raises(UserError, match="expected a file of predictions"):
        read_predictions(path)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_predictions(tmp_path / "absent.npz")
    with pytest.raises(UserError, match="cannot write .*absent/p.npz: No such file"):
        write_predictions(tmp_path / "absent" / "p.npz", kept)


def test_tables(tmp_path):
    metrics = Metrics(3, confusion=True)
    metrics.add(np.log([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]]), np.array([0, 0]))
    names = ("cat, small", 'the "dog"', "bird")
    write_confusion(tmp_path / "c.csv", metrics.confusion(), names)
    write_per_class(tmp_path / "p.csv", metrics.per_class(), names)
    import csv
    with open(tmp_path / "c.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["label \\ guess", *names], [names[0], "1", "1", "0"], [names[1], "0", "0", "0"],
                                          [names[2], "0", "0", "0"]]
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["class", "samples", "right", "guesses", "accuracy", "precision"],
                                          [names[0], "2", "1", "1", "0.5", "1.0"], [names[1], "0", "0", "1", "", "0.0"],
                                          [names[2], "0", "0", "0", "", ""]]


def test_a_comparison_finds_the_largest_difference(digits, nets):
    member = Member(nets[0], transform(digits))
    assert evaluate([member], digits, compare=nets[0]).largest_difference == 0.0
    planes = transform(digits)(digits.images(np.arange(len(digits))))
    expected = np.abs(nets[0](mx.nd.array(planes)).asnumpy() - nets[1](mx.nd.array(planes)).asnumpy()).max()
    assert evaluate([member], digits, compare=nets[1]).largest_difference == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UserError, match="outputs are compared of one network and one crop"):
        evaluate([member], digits, Protocol("10"), compare=nets[1])


@pytest.mark.parametrize("length, size, workers", [(364, 64, 1), (364, 64, 2), (5, 2, 3), (2, 1, 4), (7, 100, 3)])
def test_batches_do_not_depend_on_the_workers(length, size, workers):
    alone = [batch.indices.tolist() for batch in WholeBatches(length, size).epoch()]
    shared = [[batch.indices.tolist() for batch in WholeBatches(length, size, rank, workers).epoch()] for rank in range(workers)]
    assert sorted(batch for part in shared for batch in part) == sorted(alone)
    assert sum(alone, []) == list(range(length))
    assert max(map(len, shared)) - min(map(len, shared)) <= 1
    assert [len(WholeBatches(length, size, rank, workers)) for rank in range(workers)] == list(map(len, shared))


def test_what_cannot_be_evaluated_is_refused(digits, nets):
    member = Member(nets[0], transform(digits))
    with pytest.raises(UserError, match="no network to evaluate"):
        evaluate([], digits)
    with pytest.raises(UserError, match="batch_size is 0"):
        evaluate([member], digits, batch_size=0)
    net = gluonzoo.get_model("lenet_caffe", classes=7)
    net.initialize()
    with pytest.raises(UserError, match=r"outputs of shape \(64, 7\) for 64 samples of 10 classes"):
        evaluate([Member(net, transform(digits))], digits)


def test_speed_is_measured_and_its_percentiles_are_ordered(nets):
    found = measure_speed(nets[0], (1, 28, 28), batch_size=4, runs=20)
    latency = found["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] and found["images_per_second"] > 0
    with pytest.raises(UserError, match="runs is 3; expected at least 20"):
        measure_speed(nets[0], (1, 28, 28), runs=3)


def test_percentiles_by_hand():
    from gluonzoo.evaluation.timing import percentiles

    found = percentiles(np.arange(101) / 1000)
    assert found == {"p50": pytest.approx(50), "p95": pytest.approx(95), "p99": pytest.approx(99), "mean": pytest.approx(50)}


def test_dense_of_a_block_of_the_users_own_that_takes_one_size_is_refused(digits):
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Conv2D(4, 3, in_channels=1), mx.gluon.nn.Dense(10, in_units=4 * 26 * 26))
    net.initialize()
    assert evaluate([Member(net, transform(digits))], digits).figures["samples"] == 364
    with pytest.raises(UserError, match="dense: mine takes 28x28 only"):
        evaluate([Member(net, transform(digits), "mine")], digits, Protocol("dense"))
