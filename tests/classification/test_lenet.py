"""LeNet-5's own parts against NumPy and the paper's numbers, and that it learns."""
import gluonzoo
from gluonzoo.classification.lenet import C3_TABLE, RBFOutput, ScaledTanh, SparseC3, Subsampling
from gluonzoo.summary import summarize

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon


@pytest.fixture(autouse=True)
def seed():
    mx.random.seed(11)
    np.random.seed(11)


def test_squashing_function():
    found = ScaledTanh()(mx.nd.array([-1, 0, 1, 100])).asnumpy()
    np.testing.assert_allclose(found, [-1, 0, 1, 1.7159], atol=1e-4)


@pytest.mark.parametrize("size", [(28, 28), (5, 7)])
def test_subsampling(size):
    block = Subsampling(3)
    block.initialize()
    block.bias.set_data(mx.nd.array([1, 2, 3]))
    x = mx.nd.random.normal(shape=(2, 3) + size)
    rows, columns = size[0] // 2, size[1] // 2
    sums = x.asnumpy()[:, :, :rows * 2, :columns * 2].reshape(2, 3, rows, 2, columns, 2).sum((3, 5))
    coefficient = block.coefficient.data().asnumpy().reshape(1, 3, 1, 1)
    expected = sums * coefficient + np.array([1, 2, 3]).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(block(x).asnumpy(), expected, rtol=1e-5, atol=1e-5)
    with autograd.record():
        y = block(x)
    y.backward()
    np.testing.assert_allclose(block.coefficient.grad().asnumpy().ravel(), sums.sum((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_table_of_c3_is_the_papers():
    assert [len(maps) for maps in C3_TABLE] == [3] * 6 + [4] * 9 + [6]
    # Every map of S2 is seen by the same number of maps of C3, and no two of those see the same.
    assert np.bincount([index for maps in C3_TABLE for index in maps]).tolist() == [10] * 6
    assert len({frozenset(maps) for maps in C3_TABLE}) == 16


@pytest.mark.parametrize("hybrid", [False, True])
def test_sparse_c3(hybrid):
    block = SparseC3()
    block.initialize()
    if hybrid:
        block.hybridize()
    block.bias.set_data(mx.nd.arange(16))
    x = mx.nd.random.normal(shape=(2, 6, 8, 9))
    packed, data = block.weight.data().asnumpy(), x.asnumpy()
    with autograd.record():
        y = block(x)
    y.backward()
    expected = np.zeros((2, 16, 4, 5)) + np.arange(16).reshape(1, 16, 1, 1)
    gradient, number = np.zeros((60, 5, 5)), 0
    for row, maps in enumerate(C3_TABLE):
        for index in maps:
            for i in range(5):
                for j in range(5):
                    expected[:, row] += packed[number, i, j] * data[:, index, i:i + 4, j:j + 5]
                    gradient[number, i, j] = data[:, index, i:i + 4, j:j + 5].sum()
            number += 1
    np.testing.assert_allclose(y.asnumpy(), expected, atol=1e-4)
    np.testing.assert_allclose(block.weight.grad().asnumpy(), gradient, atol=1e-3)
    np.testing.assert_allclose(block.bias.grad().asnumpy(), 40, rtol=1e-5)
    assert sum(p.data().size for p in block.collect_params().values() if p.grad_req != "null") == 1516


@pytest.mark.parametrize("classes", [10, 3])
def test_rbf_output_is_minus_the_squared_distance(classes):
    block = RBFOutput(classes)
    block.initialize()
    x = mx.nd.random.normal(shape=(5, 84))
    x.attach_grad()
    codes = block.codes.data().asnumpy()
    distance = ((x.asnumpy()[:, None] - codes[None]) ** 2).sum(-1)
    with autograd.record():
        y = block(x)
        loss = gluon.loss.SoftmaxCrossEntropyLoss()(y, mx.nd.array([0, 1, 2, 0, 1]))
    loss.backward()
    np.testing.assert_allclose(y.asnumpy(), -distance, rtol=1e-5)
    # Equation 9 without e^-j: y_D + log(sum_i exp(-y_i)), y being distances.
    right = distance[np.arange(5), [0, 1, 2, 0, 1]]
    smallest = distance.min(1)
    expected = right + np.log(np.exp(-(distance - smallest[:, None])).sum(1)) - smallest
    np.testing.assert_allclose(loss.asnumpy(), expected, rtol=1e-3, atol=1e-3)
    assert np.abs(x.grad.asnumpy()).max() > 0 and block.codes.grad_req == "null"
    np.testing.assert_array_equal(block(mx.nd.array(codes)).asnumpy().argmax(1), np.arange(classes))


def codes_of(classes):
    block = RBFOutput(classes)
    block.initialize()
    return block.codes.data().asnumpy()


def test_codes_are_signs_far_apart_and_always_the_same():
    for classes in (10, 2, 100):
        codes = codes_of(classes)
        assert codes.shape == (classes, 84) and set(np.unique(codes)) == {-1, 1}
        np.testing.assert_array_equal(codes, codes_of(classes))
        apart = (codes[:, None] != codes[None]).sum(-1)[~np.eye(classes, dtype=bool)]
        assert apart.min() >= 13
    eight = codes_of(10)[8].reshape(12, 7)
    np.testing.assert_array_equal(eight, eight[:, ::-1])  # An 8 is its own mirror image,
    assert (eight[5] == [-1, -1, 1, 1, 1, -1, -1]).all()  # and narrow in the middle.


def test_codes_are_not_trained_by_weight_decay():
    net = gluonzoo.get_model("lenet5_1998")
    net.initialize()
    before = net.output.codes.data().asnumpy()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "wd": 0.1}, kvstore=None)
    with autograd.record():
        loss = net(mx.nd.ones((1, 1, 32, 32))).sum()
    loss.backward()
    trainer.step(1)
    np.testing.assert_array_equal(net.output.codes.data().asnumpy(), before)


def test_paper_initialisation():
    net = gluonzoo.get_model("lenet5_1998")
    net.initialize()

    def bound(parameter):
        return np.abs(parameter.data().asnumpy()).max()

    assert 0.9 * 2.4 / 25 < bound(net.features.c1[0].weight) <= 2.4 / 25
    assert 0.9 * 2.4 / 400 < bound(net.c5[0].weight) <= 2.4 / 400
    assert 0.9 * 2.4 / 120 < bound(net.f6[0].weight) <= 2.4 / 120
    assert bound(net.features.s4[0].coefficient) <= 0.6 and bound(net.features.s4[0].bias) == 0
    packed = np.abs(net.features.c3[0].weight.data().asnumpy()).reshape(60, 25).max(1)
    for inputs, kernels in ((75, packed[:18]), (100, packed[18:54]), (150, packed[54:])):
        assert 0.9 * 2.4 / inputs < kernels.max() <= 2.4 / inputs


def test_layers_of_the_paper():
    rows = {row.name: row for row in summarize(gluonzoo.get_model("lenet5_1998"), (1, 32, 32), "connections").rows}
    found = [(rows[name].output_shape, rows[name].params, rows[name].macs) for name in (
        "features.c1.0", "features.s2.0", "features.c3.0", "features.s4.0", "c5.0", "f6.0", "output")]
    assert found == [((6, 28, 28), 156, 122304), ((6, 14, 14), 12, 5880), ((16, 10, 10), 1516, 151600),
                     ((16, 5, 5), 32, 2000), ((120,), 48120, 48120), ((84,), 10164, 10164), ((10,), 0, 840)]


def digits(size):
    """scikit-learn's digits enlarged to size x size: training and test images and labels."""
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype("float32") / 16
    images = mx.nd.contrib.BilinearResize2D(mx.nd.array(images), height=size, width=size)
    order = np.random.RandomState(0).permutation(len(labels))
    images, labels = ((images - 0.305) / 0.376)[mx.nd.array(order)], mx.nd.array(labels[order])
    return images[:1437], labels[:1437], images[1437:], labels[1437:]


@pytest.mark.parametrize("name, rate, epochs, accuracy", [
    ("lenet5", 0.05, 5, 0.97),
    pytest.param("lenet5_1998", 0.003, 15, 0.96, marks=pytest.mark.slow),
    pytest.param("lenet_caffe", 0.01, 8, 0.97, marks=pytest.mark.slow)])
def test_learns_digits(name, rate, epochs, accuracy):
    images, labels, test_images, test_labels = digits(gluonzoo.model_spec(name).input_shape[1])
    net = gluonzoo.get_model(name)
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": rate, "momentum": 0.9}, kvstore=None)
    criterion = gluon.loss.SoftmaxCrossEntropyLoss()
    steps = len(labels) // 32
    for epoch in range(epochs):
        order = np.random.permutation(len(labels))
        for step in range(steps):
            trainer.set_learning_rate(rate * (1 - (epoch * steps + step) / (epochs * steps)))
            index = mx.nd.array(order[step * 32:step * 32 + 32])
            with autograd.record():
                loss = criterion(net(images[index]), labels[index])
            loss.backward()
            trainer.step(32)
    assert (net(test_images).argmax(1) == test_labels).mean().asscalar() >= accuracy
