"""Losses against hand-worked NumPy: smoothed, soft, auxiliary."""
import gluonzoo
from gluonzoo.errors import UserError
from gluonzoo.training import Classification
from gluonzoo.training.losses import cross_entropy, smooth

import mxnet as mx
import numpy as np
import pytest

OUTPUTS = np.array([[1.0, 2.0, 0.5, -1.0], [0.0, 0.0, 3.0, 1.0], [-2.0, 1.0, 1.0, 4.0]])
SOFT = np.array([[0.7, 0.3, 0, 0], [0, 0, 1, 0], [0.25, 0.25, 0.25, 0.25]])


def log_softmax(values):
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))


def test_smoothing_is_inceptions():
    np.testing.assert_allclose(smooth(mx.nd.array([1], dtype="int32"), 4, 0.1).asnumpy(), [[0.025, 0.925, 0.025, 0.025]])
    np.testing.assert_allclose(smooth(mx.nd.array([[0.5, 0.5]]), 2, 0.2).asnumpy(), [[0.5, 0.5]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_values_and_gradients(smoothing, soft):
    numbers = np.array([1, 2, 0], dtype="int32")
    weights = SOFT if soft else np.eye(4)[numbers]
    weights = (1 - smoothing) * weights + smoothing / 4
    outputs, labels = mx.nd.array(OUTPUTS), mx.nd.array(SOFT) if soft else mx.nd.array(numbers, dtype="int32")
    outputs.attach_grad()
    with mx.autograd.record():
        loss = cross_entropy(outputs, labels, smoothing)
    loss.backward()
    np.testing.assert_allclose(loss.asnumpy(), -(weights * log_softmax(OUTPUTS)).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(outputs.grad.asnumpy(), np.exp(log_softmax(OUTPUTS)) - weights, atol=5e-6)


def test_bad_labels_and_smoothing_are_named():
    with pytest.raises(UserError, match=r"labels have shape \(3, 5\)"):
        cross_entropy(mx.nd.array(OUTPUTS), mx.nd.zeros((3, 5)))
    with pytest.raises(UserError, match="label smoothing is 1.0"):
        cross_entropy(mx.nd.array(OUTPUTS), mx.nd.zeros((3,)), 1.0)


class Fixed(mx.gluon.Block):
    """Gives the same outputs whatever comes in; with heads, a named tuple."""

    def __init__(self, heads=0):
        super().__init__()
        self._heads = heads

    def forward(self, x):
        import collections
        outputs = [mx.nd.array(OUTPUTS) * (1 + head) for head in range(1 + self._heads)]
        names = ["output"] + [f"aux{head + 1}" for head in range(self._heads)]
        return collections.namedtuple("Outputs", names)(*outputs) if self._heads else outputs[0]


def test_smoothing_is_for_training_only_and_soft_labels_are_scored_by_their_largest():
    task, labels = Classification(label_smoothing=0.1), mx.nd.array([1, 2, 3], dtype="int32")
    plain = -log_softmax(OUTPUTS)[np.arange(3), [1, 2, 3]]
    losses, outputs = task.forward(Fixed(), None, labels)
    np.testing.assert_allclose(losses["cross_entropy"].asnumpy(), plain, rtol=1e-5)
    np.testing.assert_allclose(task.score(losses, outputs, labels.asnumpy()), [plain.sum(), 3], rtol=1e-5)
    with mx.autograd.train_mode():
        losses, outputs = task.forward(Fixed(), None, mx.nd.array(SOFT))
    expected = -((0.9 * SOFT + 0.025) * log_softmax(OUTPUTS)).sum(axis=1)
    np.testing.assert_allclose(losses["cross_entropy"].asnumpy(), expected, rtol=1e-5)
    assert task.score(losses, outputs, SOFT)[1] == 1  # Of 0, 2, 0 the outputs' largest, 1, 2, 3, has one right.


def test_auxiliary_heads_count_a_third_in_training_and_nothing_in_evaluation():
    task, labels = Classification(), mx.nd.array([1, 2, 3], dtype="int32")
    each = [-log_softmax(OUTPUTS * (1 + head))[np.arange(3), [1, 2, 3]] for head in range(3)]
    losses, outputs = task.forward(Fixed(2), None, labels)
    assert list(losses) == ["cross_entropy"]
    with mx.autograd.train_mode():
        losses, outputs = task.forward(Fixed(2), None, labels)
    assert list(losses) == ["cross_entropy", "aux1", "aux2"]
    for name, factor, expected in zip(losses, (1, 0.3, 0.3), each):
        np.testing.assert_allclose(losses[name].asnumpy(), factor * expected, atol=1e-5)
    np.testing.assert_array_equal(outputs.asnumpy(), OUTPUTS.astype("float32"))


def test_a_checkpoint_of_a_network_with_heads_gives_one_without(tmp_path):
    from gluonzoo.training import checkpoint
    from gluonzoo.training.weights import get_parameters
    net = gluonzoo.get_model("googlenet", aux=True, classes=3)
    net.initialize(mx.init.Xavier())
    path = checkpoint.save(str(tmp_path), parameters=get_parameters(net), optimizer=None, state={"step": 1},
                           config={"model": "googlenet", "model_arguments": {"aux": True, "classes": 3}})
    images = mx.nd.random.normal(shape=(1, 3, 224, 224))
    np.testing.assert_array_equal(checkpoint.load(path).net()(images).asnumpy(), net(images).output.asnumpy())
