"""Distillation: the loss and its gradient by NumPy, what the teacher sees, and whole runs."""
from gluonzoo.data import Transform
from gluonzoo.errors import UserError
from gluonzoo.training import checkpoint, prepare
from gluonzoo.training.distillation import Distillation, Teacher, distillation_loss
from gluonzoo.training.run import settings

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from small_nets import small_networks
from small_runs import BASE, assert_resumed_is_uninterrupted, train


@pytest.fixture(autouse=True)
def networks():
    with small_networks():
        yield


def softmax(values):
    values = np.exp(values - values.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 2.5, 20.0])
def test_loss_and_gradient_by_numpy(temperature):
    random = np.random.RandomState(0)
    student, teacher = random.randn(5, 7) * 3, random.randn(5, 7) * 3
    p, q = softmax(student / temperature), softmax(teacher / temperature)
    logits, other = mx.nd.array(student), mx.nd.array(teacher)
    logits.attach_grad()
    other.attach_grad()
    with autograd.record():
        loss = distillation_loss(logits, other, temperature)
    loss.backward()
    np.testing.assert_allclose(loss.asnumpy(), temperature ** 2 * (q * np.log(q / p)).sum(axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits.grad.asnumpy(), temperature * (p - q), rtol=1e-4, atol=1e-5)
    assert (other.grad.asnumpy() == 0).all()
    np.testing.assert_allclose(distillation_loss(other, other, temperature).asnumpy(), 0, atol=1e-4)


def test_two_classes_by_hand():
    # T = 2: the student says 1/2 and 1/2, the teacher e^(2 ln 3 / 2) : 1, so 3/4 and 1/4.
    found = distillation_loss(mx.nd.zeros((1, 2)), mx.nd.array([[2 * np.log(3), 0]]), 2.0)
    np.testing.assert_allclose(found.asnumpy(), [4 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))], rtol=1e-5)


def linear(weights):
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Flatten(), gluon.nn.Dense(len(weights), in_units=len(weights[0]), use_bias=False))
    net.initialize()
    net[1].weight.set_data(mx.nd.array(weights))
    return net


@pytest.mark.parametrize("labels", [np.array([0, 2], "int32"), np.array([[0.25, 0, 0.75], [0, 0.5, 0.5]], "float32")])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_tasks_gradient_by_numpy(labels, smoothing):
    """(1 - w) (p_1 - labels') + w T (p_T - q_T), labels smoothed or mixed; the teacher gets none and stays."""
    random = np.random.RandomState(1)
    net, other = linear(random.randn(3, 4)), linear(random.randn(3, 4))
    fixed = other[1].weight.data().asnumpy()
    task = Distillation(Teacher(other), temperature=3.0, weight=0.7, label_smoothing=smoothing)
    images = random.randn(2, 1, 2, 2).astype("float32")
    with autograd.record():
        losses, outputs = task.forward(net, mx.nd.array(images), mx.nd.array(labels, dtype=labels.dtype))
        total = losses["cross_entropy"] + losses["distillation"]
    total.backward()
    z, t = outputs.asnumpy(), images.reshape((2, 4)) @ fixed.T
    wanted = np.eye(3)[labels] if labels.ndim == 1 else labels
    wanted = (1 - smoothing) * wanted + smoothing / 3
    by_logits = 0.3 * (softmax(z) - wanted) + 0.7 * 3 * (softmax(z / 3) - softmax(t / 3))
    np.testing.assert_allclose(net[1].weight.grad().asnumpy(), by_logits.T @ images.reshape((2, 4)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses["cross_entropy"].asnumpy(), -0.3 * (wanted * np.log(softmax(z))).sum(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(other[1].weight.data().asnumpy(), fixed)
    losses, _ = task.forward(net, mx.nd.array(images), mx.nd.array(labels, dtype=labels.dtype))
    assert set(losses) == {"cross_entropy"}  # Validation knows no teacher.


def test_the_teacher_is_in_inference_mode_also_while_recording():
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.BatchNorm(in_channels=2), gluon.nn.Dropout(0.9), gluon.nn.Flatten(), gluon.nn.Dense(3, in_units=8))
    net.initialize()
    net(mx.nd.zeros((1, 2, 2, 2)))
    teacher = Teacher(net)
    before = net[0].running_mean.data().asnumpy()
    images = mx.nd.random.normal(shape=(4, 2, 2, 2))
    with autograd.record():
        first, second = teacher(images), teacher(images)
    np.testing.assert_array_equal(first.asnumpy(), second.asnumpy())
    np.testing.assert_allclose(first.asnumpy(), net(images).asnumpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(net[0].running_mean.data().asnumpy(), before)
    assert all(parameter.grad_req == "null" for parameter in net.collect_params().values())


def test_images_are_made_what_the_teacher_knows():
    """The student's are (x - 0.5) / 0.25 at 2x2, the teacher's (x - 0.1) / 0.5 at 4x4."""
    net = gluon.nn.Flatten()
    net.initialize()
    teacher = Teacher(net, (1, 4, 4), (0.1,), (0.5,), (0.5,), (0.25,))
    pixels = np.array([[[[0.2, 0.4], [0.6, 0.8]]]], "float32")
    found = teacher(mx.nd.array((pixels - 0.5) / 0.25)).asnumpy().reshape((4, 4))
    np.testing.assert_allclose(found[[0, 0, 3, 3], [0, 3, 0, 3]], (pixels.ravel() - 0.1) / 0.5, rtol=1e-5, atol=1e-6)
    same = Teacher(net, (1, 2, 2), (0.5,), (0.25,), (0.5,), (0.25,))
    np.testing.assert_array_equal(same(mx.nd.array(pixels)).asnumpy(), pixels.reshape((1, 4)))


@pytest.mark.parametrize("size, other, exact", [(32, 28, True), (28, 32, True), (28, 28, True), (40, 33, False),
                                                (20, 32, False)])
def test_a_teacher_of_another_size_sees_what_it_was_trained_on(size, other, exact):
    """28x28 images are padded to 32x32, not resized; the teacher's view of them is what its own Transform makes."""
    images = np.random.RandomState(0).randint(0, 256, (3, 28, 28, 1), dtype=np.uint8)
    images = np.repeat(np.repeat(images[:, :7, :7], 4, axis=1), 4, axis=2)  # Smooth, for those that are resized.
    student, own = (Transform((1, side, side), (0.3,), (0.4,)) for side in (size, other))
    shown = [one.shown(28, 28) for one in (student, own)]
    teacher = Teacher(gluon.nn.Flatten(), (1, other, other), None, None, (0.3,), (0.4,), shown)
    found, expected = teacher.view(mx.nd.array(student(images))).asnumpy(), own(images)
    assert found.shape == expected.shape
    if exact:
        np.testing.assert_allclose(found, expected, atol=1e-6)
    else:
        assert np.abs(found - expected).mean() < 0.2 * np.abs(expected - expected.mean()).mean()


@pytest.mark.parametrize("more", [{}, {"devices": 2, "ema": 0.9, "label_smoothing": 0.1, "augment": "mixup:0.2"},
                                  {"accumulate": 2, "prune": 0.5}])
def test_resumed_is_uninterrupted(tmp_path, more):
    train({**BASE, "epochs": 1, "output": str(tmp_path / "teacher")})
    more = {**more, "model": "small_dense", "teacher": str(tmp_path / "teacher")}
    run, values = assert_resumed_is_uninterrupted(tmp_path, more, steps=(4,))
    assert not any("features.stem" in name for _, name in values)  # The teacher is no part of the student.
    saved = checkpoint.load(str(tmp_path / "whole"))
    assert saved.config["teacher_digest"] == run.task.teacher.digest()


def test_a_student_learns_what_the_labels_do_not_say(tmp_path):
    """With weight 1 the labels do not count: the student comes to agree with a teacher whose every label is wrong."""
    run = prepare(*settings({**BASE, "model": "small_dense", "epochs": 1, "output": str(tmp_path / "t")}))
    parameters = run.net._collect_params_with_prefix()
    parameters["output.bias"].set_data(mx.nd.array([9] + [0] * 9))
    run.save_checkpoint()
    student, history = train({**BASE, "model": "small_dense", "epochs": 8, "teacher": str(tmp_path / "t"), "distill_weight": 1.0,
                              "temperature": 2.0, "output": str(tmp_path / "s")})
    assert 0.05 < history[-1]["val_accuracy"] < 0.15  # Everything is a zero.
    images = mx.nd.random.uniform(shape=(20, 1, 8, 8))
    assert (student.net(images).asnumpy().argmax(axis=1) == 0).all()


def test_another_teacher_on_resuming_is_refused(tmp_path):
    train({**BASE, "epochs": 1, "output": str(tmp_path / "teacher")})
    train({**BASE, "epochs": 1, "teacher": str(tmp_path / "teacher"), "output": str(tmp_path / "run")})
    train({"epochs": 2, "output": str(tmp_path / "teacher")}, resume=True)
    with pytest.raises(UserError, match="trained with another teacher than"):
        prepare(*settings({"epochs": 2, "output": str(tmp_path / "run")}, resume=True))


def test_teachers_by_name_and_from_compact_files(tmp_path):
    from gluonzoo import compact
    from gluonzoo.training.weights import get_parameters
    train({**BASE, "epochs": 1, "output": str(tmp_path / "teacher")})
    saved = checkpoint.load(str(tmp_path / "teacher"))
    compact.save(str(tmp_path / "t.compact"), get_parameters(saved.net()), compact.facts_of(saved.config))
    given = {**BASE, "epochs": 1, "output": str(tmp_path / "run")}
    ways = [{"teacher": str(tmp_path / "teacher")}, {"teacher": str(tmp_path / "t.compact")},
            {"teacher": "small_residual", "teacher_weights": saved.path + "/parameters.params"}]
    runs = [prepare(*settings({**given, **way})) for way in ways]
    images = mx.nd.random.normal(shape=(3, 1, 8, 8))
    for run in runs[1:]:
        np.testing.assert_array_equal(run.task.teacher(images).asnumpy(), runs[0].task.teacher(images).asnumpy())


@pytest.mark.parametrize("more, message", [
    ({"teacher": "small_residual"}, "give --teacher-weights"), ({"teacher": "resnet1"}, "no network is called 'resnet1'"),
    ({"teacher": "small_residual", "teacher_weights": "nothing.params"}, "nothing.params"),
    ({"temperature": 0.0}, "--temperature"),
    ({"distill_weight": 1.5}, "--distill-weight is 1.5")])
def test_what_cannot_be_had(tmp_path, more, message):
    with pytest.raises((UserError, OSError), match=message):
        train({**BASE, **more, "output": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_other_classes_is_refused(tmp_path):
    train({**BASE, "epochs": 1, "output": str(tmp_path / "teacher")})
    path = checkpoint.load(str(tmp_path / "teacher")).path
    import json
    import os
    with open(os.path.join(path, "config.json")) as file:
        config = json.load(file)
    values = checkpoint.load(path).arrays("parameters.params")
    other = checkpoint.save(str(tmp_path), parameters=values, optimizer=None, state={"step": 1},
                            config={**config, "classes": config["classes"][::-1]})
    with pytest.raises(UserError, match=r"knows 10 classes \(9, 8, 7 ...\); digits has 10 \(0, 1, 2 ...\)"):
        train({**BASE, "teacher": other, "output": str(tmp_path / "run")})
