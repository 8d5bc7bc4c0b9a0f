"""Dense layers as convolutions: the same weights, the same answers, at every window of the feature map."""
import gluonzoo
from gluonzoo.classification.lenet import LeNet5, LeNetCaffe
from gluonzoo.errors import UserError
from gluonzoo.layers import DenseHeadNetwork, FullyConvolutional, Stages, to_fully_convolutional
from gluonzoo.summary import count_macs, count_parameters, summarize

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from mxnet.gluon import nn

LENETS = ("lenet5", "lenet5_1998", "lenet_caffe")
NAMES = LENETS + ("alexnet", "alexnet_ungrouped", "alexnet_owt", "zfnet", "zfnet_b", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn",
                  "vgg16", "vgg16_bn", "vgg16_c", "vgg19", "vgg19_bn")


class Small(DenseHeadNetwork):
    """Two padded convolutions, BatchNorm, two hidden layers with dropout between them; fast to run."""
    hidden = ("fc1", "fc2")
    dropout_rate = 0.5

    def __init__(self, classes=4, in_channels=2, use_bias=True):
        super().__init__(classes, in_channels, (12, 10))
        with self.name_scope():
            self.features = Stages()
            self.features.conv1 = nn.Conv2D(6, 3, padding=1, in_channels=in_channels, activation="relu")
            self.features.norm1 = nn.BatchNorm(in_channels=6)
            self.features.pool1 = nn.MaxPool2D(2)
            self.features.conv2 = nn.Conv2D(5, 3, padding=1, in_channels=6)
            self.fc1 = nn.Dense(7, "tanh", use_bias, in_units=5 * 6 * 5)
            self.fc2 = nn.HybridSequential()
            self.fc2.add(nn.Dense(8, in_units=7), nn.PReLU())
            self.output = self.make_output(classes)

    def make_output(self, classes):
        return nn.Dense(classes, in_units=8)


def started(net, ctx=None):
    """Weights and biases that show in the output, running statistics that are not the trivial ones."""
    mx.random.seed(4)
    net.initialize(ctx=ctx)
    for key, parameter in net._collect_params_with_prefix().items():
        if key.endswith(("bias", "running_mean")):
            parameter.set_data(mx.nd.random.normal(0, 0.3, parameter.shape))
        elif key.endswith(("weight", "running_var", "gamma")) and len(parameter.shape) == 1:
            parameter.set_data(mx.nd.random.uniform(0.5, 1.5, parameter.shape))
    return net


def image(net, rows=0, columns=0, batch=2):
    height, width = net.min_size
    return mx.nd.random.normal(shape=(batch, net.in_channels, height + rows, width + columns))


def close(found, expected, tolerance=1e-5):
    expected = expected.asnumpy() if isinstance(expected, mx.nd.NDArray) else expected
    assert expected.std() > 0
    np.testing.assert_allclose(found.asnumpy(), expected, rtol=1e-4, atol=tolerance * np.abs(expected).max())


def windows_through_the_dense_layers(net, x):
    """What the dense layers say of every window of the feature map, with nothing from `to_fully_convolutional`."""
    maps = net.features(x)
    _, height, width = features_shape(net)
    rows, columns = maps.shape[2] - height + 1, maps.shape[3] - width + 1
    scores = np.zeros((x.shape[0], net.classes, rows, columns), "float32")
    for row in range(rows):
        for column in range(columns):
            hidden = maps[:, :, row:row + height, column:column + width]
            for name in net.hidden:
                hidden = getattr(net, name)(hidden)
            scores[:, :, row, column] = net.output(hidden).asnumpy()
    return scores


def features_shape(net):
    return net.features(mx.sym.var("data")).infer_shape(data=(1, net.in_channels) + net.min_size)[1][0][1:]


@pytest.mark.parametrize("make", [Small, lambda: Small(use_bias=False)] + [
    lambda name=name: gluonzoo.get_model(name) for name in LENETS])
@pytest.mark.parametrize("hybrid", [False, True])
def test_standard_size_is_the_net_and_larger_ones_its_windows(make, hybrid):
    net = started(make())
    dense = to_fully_convolutional(net)
    dense.hybridize(hybrid, static_alloc=hybrid)
    x = image(net)
    found = dense(x)
    assert found.shape == (2, net.classes, 1, 1)
    close(found.reshape((2, -1)), net(x))
    large = image(net, 8, 13)
    found = dense(large)
    assert found.shape[2] > 1 and found.shape[3] > 1
    close(found, windows_through_the_dense_layers(net, large))


@pytest.mark.parametrize("name, stride", [("lenet5", 4), ("lenet5_1998", 4), ("lenet_caffe", 4)])
def test_score_map_is_the_net_on_every_crop(name, stride):
    # No LeNet pads: each score is that of a crop of the image.
    net = started(gluonzoo.get_model(name))
    x = image(net, 2 * stride, stride)
    found = to_fully_convolutional(net)(x)
    assert found.shape == (2, 10, 3, 2)
    height, width = net.min_size
    for row in range(3):
        for column in range(2):
            top, left = row * stride, column * stride
            close(found[:, :, row, column], net(x[:, :, top:top + height, left:left + width]))


def test_hand_made_convolution():
    net = started(gluonzoo.get_model("lenet_caffe"))
    dense, x = to_fully_convolutional(net), image(net, 4, 0)
    maps = net.features(x).asnumpy()
    weight = net.ip1.weight.data().asnumpy().reshape(500, 50, 4, 4)
    windows = np.stack([maps[:, :, row:row + 4] for row in range(maps.shape[2] - 3)])
    hidden = np.maximum(np.einsum("rnchw,uchw->nur", windows, weight) + net.ip1.bias.data().asnumpy()[:, None], 0)
    expected = np.einsum("nur,ku->nkr", hidden, net.output.weight.data().asnumpy())
    close(dense(x)[:, :, :, 0], expected + net.output.bias.data().asnumpy()[:, None])
    np.testing.assert_array_equal(dense.ip1.weight.data().asnumpy(), weight)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_by_shape(name):
    spec, net = gluonzoo.model_spec(name), gluonzoo.get_model(name, classes=7)
    dense = to_fully_convolutional(net)
    channels, height, width = spec.input_shape
    assert summarize(dense, spec.input_shape).rows[-1].output_shape == (7, 1, 1)
    assert count_parameters(dense) == count_parameters(net)
    if name != "lenet5_1998":
        assert count_macs(dense, spec.input_shape) == count_macs(net, spec.input_shape)
    stride = 4 if name in LENETS else 32
    assert summarize(dense, (channels, height + stride, width + 3 * stride)).rows[-1].output_shape == (7, 2, 4)
    first = getattr(dense, net.hidden[0])
    first = first if isinstance(first, nn.Conv2D) else first[0]
    assert isinstance(first, nn.Conv2D) and first.weight.shape[1:] == features_shape(net)
    assert list(dense._collect_params_with_prefix()) == list(net._collect_params_with_prefix())
    for key, parameter in dense._collect_params_with_prefix().items():
        other = net._collect_params_with_prefix()[key]
        assert (parameter.grad_req, parameter.wd_mult) == (other.grad_req, other.wd_mult)
        assert parameter.name != other.name and parameter._data is None


@pytest.mark.parametrize("name", ["alexnet", pytest.param("zfnet", marks=pytest.mark.slow),
                                  pytest.param("vgg11_bn", marks=pytest.mark.slow)])
def test_large_networks(name):
    net = started(gluonzoo.get_model(name, classes=5))
    dense, x = to_fully_convolutional(net), image(net, batch=1)
    close(dense(x).reshape((1, -1)), net(x), 1e-4)
    large = image(net, 0, 32, batch=1)
    close(dense(large), windows_through_the_dense_layers(net, large), 1e-4)


def test_after_the_net_has_run():
    # oneDNN keeps weights in its own order once a network has run.
    net = started(gluonzoo.get_model("lenet_caffe"))
    x = image(net)
    net.hybridize(static_alloc=True, static_shape=True)
    expected = [net(x) for _ in range(2)][-1]
    close(to_fully_convolutional(net)(x).reshape((2, -1)), expected)


def test_initialised_later_or_loaded(tmp_path):
    net = Small()
    dense = to_fully_convolutional(net)
    with pytest.raises(RuntimeError):
        dense.fc1.weight.data()
    dense.initialize()
    assert np.isfinite(dense(image(net)).asnumpy()).all()
    path = str(tmp_path / "dense.params")
    dense.save_parameters(path)
    other = to_fully_convolutional(Small())
    other.load_parameters(path)
    x = image(net, 3, 3)
    np.testing.assert_array_equal(other(x).asnumpy(), dense(x).asnumpy())


def test_copies_are_independent():
    net = started(Small())
    dense, x = to_fully_convolutional(net), image(net)
    before, map_before = net(x).asnumpy(), dense(x).asnumpy()
    for parameter in dense.collect_params().values():
        parameter.set_data(parameter.data() * 2)
    np.testing.assert_array_equal(net(x).asnumpy(), before)
    again = to_fully_convolutional(net)
    for parameter in net.collect_params().values():
        parameter.set_data(parameter.data() * 0)
    np.testing.assert_array_equal(again(x).asnumpy(), map_before)


def test_dropout_is_left_out():
    net = started(Small())
    dense, x = to_fully_convolutional(net), image(net)
    assert "Dropout" not in repr(dense) and "Dropout" in repr(net)
    net.features.norm1._kwargs["use_global_stats"] = dense.features.norm1._kwargs["use_global_stats"] = True
    with autograd.train_mode():
        close(dense(x).reshape((2, -1)), net.output(net.fc2(net.fc1(net.features(x)))))
        assert np.abs(net(x).asnumpy() - dense(x).asnumpy()[:, :, 0, 0]).max() > 1e-3


def test_it_can_be_trained():
    dense = to_fully_convolutional(started(Small()))
    x = image(dense, 2, 2)
    trainer = gluon.Trainer(dense.collect_params(), "sgd", {"learning_rate": 0.1}, kvstore=None)
    losses = []
    for _ in range(5):
        with autograd.record():
            loss = gluon.loss.SoftmaxCrossEntropyLoss(axis=1)(dense(x), mx.nd.ones((2, 2, 2)))
        loss.backward()
        trainer.step(2)
        losses.append(loss.mean().asscalar())
    assert losses[-1] < losses[0]


def test_type_contexts_and_flags_are_kept():
    net = Small()
    net.cast("float64")
    started(net, ctx=[mx.cpu(0), mx.cpu(1)])
    net.fc1.weight.grad_req, net.fc2[1].alpha.wd_mult, net.features.conv1.weight.lr_mult = "null", 0.0, 3.0
    dense = to_fully_convolutional(net)
    assert {parameter.dtype for parameter in dense.collect_params().values()} == {"float64"}
    assert all(parameter.list_ctx() == [mx.cpu(0), mx.cpu(1)] for parameter in dense.collect_params().values())
    x = image(net, 1, 2).astype("float64").as_in_context(mx.cpu(1))
    assert dense(x).dtype == np.float64 and dense(x).context == mx.cpu(1)
    assert (dense.fc1.weight.grad_req, dense.fc2[1].alpha.wd_mult, dense.features.conv1.weight.lr_mult) == ("null", 0.0, 3.0)


def test_other_numbers_of_classes():
    net = started(Small(classes=4, in_channels=3))
    net.reset_classes(6)
    dense, x = to_fully_convolutional(net), image(net, 2)
    close(dense(x), windows_through_the_dense_layers(net, x))
    dense.reset_classes(9)
    assert dense(x).shape == (2, 9, 2, 1) and net(image(net)).shape == (2, 6)


@pytest.mark.filterwarnings("ignore:Cannot decide type")
@pytest.mark.parametrize("make", [Small, lambda: gluonzoo.get_model("lenet5_1998")])
def test_export(make, tmp_path):
    dense = to_fully_convolutional(started(make()))
    dense.hybridize()
    dense(image(dense))
    dense.export(str(tmp_path / "dense"))
    imported = gluon.SymbolBlock.imports(str(tmp_path / "dense-symbol.json"), ["data"], str(tmp_path / "dense-0000.params"))
    for x in (image(dense), image(dense, 9, 5, batch=3)):
        np.testing.assert_array_equal(imported(x).asnumpy(), dense(x).asnumpy())


def test_a_net_built_from_its_class():
    for net in (LeNet5(classes=3), LeNetCaffe(7, in_channels=2)):
        started(net)
        x = image(net)
        close(to_fully_convolutional(net)(x).reshape((2, -1)), net(x))


def test_smaller_inputs_are_refused():
    dense = to_fully_convolutional(gluonzoo.get_model("lenet_caffe"))
    with pytest.raises(UserError, match="at least 28x28; the input has 28x27"):
        dense(mx.nd.zeros((1, 1, 28, 27)))


@pytest.mark.parametrize("name, message", [
    ("resnet18_v1", "resnet18_v1 takes images of any size"), ("nin_cifar10", "nin_cifar10 takes images of any size from 6x6"),
    ("msra_net_a", "msra_net_a takes images of any size from 15x15")])
def test_networks_that_take_any_size(name, message):
    with pytest.raises(UserError, match=message):
        to_fully_convolutional(gluonzoo.get_model(name))


def test_what_cannot_be_converted_is_named():
    with pytest.raises(UserError, match="HybridSequential has no dense layers that could become convolutions"):
        to_fully_convolutional(nn.HybridSequential())
    with pytest.raises(UserError, match="FullyConvolutional takes images of any size from 12x10"):
        to_fully_convolutional(to_fully_convolutional(Small()))


def test_a_net_whose_layers_were_changed():
    net = Small()
    net.fc2.add(nn.Dense(8, in_units=8))
    with pytest.raises(UserError, match=r"layers of Small were changed after it was built \(fc2.2.bias\)"):
        to_fully_convolutional(net)
    net = Small()
    net.fc1 = nn.Dense(9, in_units=150)
    with pytest.raises(UserError, match=r"layers of Small were changed after it was built \(fc1.bias\)"):
        to_fully_convolutional(net)


def test_where_it_is_found():
    assert gluonzoo.to_fully_convolutional is to_fully_convolutional
    assert isinstance(to_fully_convolutional(Small()), FullyConvolutional)
