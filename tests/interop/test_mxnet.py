"""Weights of MXNet's own zoo, and of GluonCV where it is installed, give their networks' outputs in ours."""
import os
import sys

import gluonzoo
from gluonzoo import arrays
from gluonzoo.errors import UserError
from gluonzoo.interop import load_weights
from gluonzoo.interop.mxnet_names import NETWORKS, layout, prefixed_names

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon.model_zoo import vision

#: Networks that `gluon.model_zoo` has, and the smallest images that its fixed poolings allow. The slow ones take seconds each.
ZOO = {"resnet18_v1": 33, "resnet50_v1": 33, "resnet18_v2": 33, "resnet50_v2": 33, "squeezenet1_0": 224, "squeezenet1_1": 224,
       "mobilenet_v1_0_25": 33, "densenet121": 224, "inception_v3": 299}
SLOW_ZOO = {"alexnet_owt": 224, "vgg11": 224, "vgg11_bn": 224, "resnet34_v1": 33, "resnet101_v1": 33, "resnet152_v1": 33,
            "resnet34_v2": 33, "resnet101_v2": 33, "resnet152_v2": 33, "mobilenet_v1_1_0": 33, "mobilenet_v1_0_75": 33,
            "mobilenet_v1_0_5": 33, "densenet161": 224, "densenet169": 224, "densenet201": 224, "vgg16": 224, "vgg19_bn": 224}


def randomise(net, seed=1):
    """Values that keep the signal's size; running statistics that are not the trivial ones."""
    random = np.random.RandomState(seed)
    for name, parameter in net._collect_params_with_prefix().items():
        shape = parameter.shape
        if name.endswith(("gamma", "running_var")):
            value = random.uniform(0.5, 1.5, shape)
        else:
            value = random.normal(0, 0.1 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[1:])), shape)
        # The gates of a squeeze stay half open: saturated ones would make chaos of rounding.
        parameter.set_data(mx.nd.array(0.01 * value if ".se." in name else value))


def reference(net, size, channels=3):
    """A network of theirs with random weights, images and outputs."""
    net.initialize()
    x = mx.nd.random.normal(shape=(2, channels, size, size))
    net(x)
    randomise(net)
    first = next(iter(net.features._children.values())) if hasattr(net, "features") else None
    if isinstance(first, mx.gluon.nn.BatchNorm):  # Of the input: made without offset. Its mean is the next test's.
        first.beta.set_data(mx.nd.zeros(channels))
        first.running_mean.set_data(mx.nd.zeros(channels))
    return net, x, net(x).asnumpy()


def save(net, x, folder, style):
    """The path of a file of `save_parameters`, `export` or, as old as can be, `collect_params().save` in MXNet 0.x's layout."""
    path = os.path.join(str(folder), f"{style}.params")
    if style == "structural":
        net.save_parameters(path)
    elif style == "export":
        net.hybridize()
        net(x)
        net.export(path[:-len(".params")])
        path = path[:-len(".params")] + "-0000.params"
    else:
        net.collect_params().save(path)
        to_0x(path)
    return path


def to_0x(path):
    """Write a file again as MXNet 0.x did: no magic before an array, sizes of 32 bits."""
    found = arrays.load(path)
    content = np.array([0x112, 0, len(found)], "<u8").tobytes()
    for array in found.values():
        content += np.array([array.ndim, *array.shape, 1, 0, 0], "<u4").tobytes() + array.tobytes()
    content += np.array([len(found)], "<u8").tobytes()
    for name in found:
        content += np.array([len(name)], "<u8").tobytes() + name.encode()
    with open(path, "wb") as file:
        file.write(content)


def check(name, theirs, size, folder, styles):
    theirs, x, expected = reference(theirs, size, gluonzoo.model_spec(name).input_shape[0])
    for style in styles:
        net = gluonzoo.get_model(name, classes=expected.shape[1])
        report = load_weights(net, save(theirs, x, folder, style))
        assert report.source == "mxnet" and not report.missing
        output = net(x).asnumpy()
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=style)


@pytest.mark.parametrize("name", [*ZOO, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_ZOO)])
@pytest.mark.filterwarnings("ignore:Cannot decide type")
def test_model_zoo(name, tmp_path):
    styles = ("structural", "export", "0.x") if name == "resnet18_v2" else ("structural", "export")
    theirs = vision.get_model(NETWORKS[name][0][0], classes=10)
    check(name, theirs, {**ZOO, **SLOW_ZOO}[name], tmp_path, styles)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ZOO and name not in SLOW_ZOO])
@pytest.mark.filterwarnings("ignore")
def test_gluoncv(name, tmp_path):
    hidden = sys.modules.get("torch")
    sys.modules["torch"] = None  # GluonCV refuses to be imported beside torch 2.
    try:
        zoo = pytest.importorskip("gluoncv.model_zoo", reason="GluonCV is in the extra vision")
    finally:
        del sys.modules["torch"]
        if hidden is not None:
            sys.modules["torch"] = hidden
    ours = gluonzoo.get_model(name)
    standard = gluonzoo.model_spec(name).input_shape[1]
    size = standard if ours.fixed_size or standard <= 64 or name == "googlenet_bn" else 64
    check(name, zoo.get_model(NETWORKS[name][0][0], classes=10), size, tmp_path, ("structural", "export"))


def test_mean_of_the_input_is_exact_but_for_the_border(tmp_path):
    theirs, x, _ = reference(vision.get_model("resnet18_v2", classes=10), 161)
    mean = np.array([0.3, -0.2, 0.5], "float32")
    theirs.features[0].running_mean.set_data(mx.nd.array(mean))
    net = gluonzoo.get_model("resnet18_v2", classes=10)
    path = save(theirs, x, tmp_path, "structural")
    assert "input_norm" in str(load_weights(net, path))
    # The first map, after convolution, BatchNorm and ReLU, away from the border.
    expected = x
    for index in range(4):
        expected = theirs.features[index](expected)
    got = mx.nd.relu(net.features.stem[0].norm(net.features.stem[0].conv(x)))
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(got.asnumpy()[inner], expected.asnumpy()[inner], rtol=0, atol=1e-4)
    assert np.abs(got.asnumpy() - expected.asnumpy()).max() > 0.01


def test_input_norm_is_a_copy(tmp_path):
    theirs, x, _ = reference(vision.get_model("resnet18_v2", classes=10), 65)
    theirs.features[0].running_mean.set_data(mx.nd.array([0.3, -0.2, 0.5]))
    net = gluonzoo.get_model("resnet18_v2", classes=10, input_norm=True)
    report = load_weights(net, save(theirs, x, tmp_path, "structural"))
    expected = theirs(x).asnumpy()
    np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert not report.notes


def test_names_with_counters():
    expected = {"features.0": "conv0", "features.1": "batchnorm0", "features.4.0.body.0": "stage1_conv0",
                "features.4.0.se.0": "stage1_conv1", "features.4.0.downsample.0": "stage1_conv2",
                "features.4.1.body.0": "stage1_conv3", "features.4.2.body.0": "stage1_conv4",
                "features.4.10.body.0": "stage1_conv5", "output": "dense0"}
    kinds = {path: name.rstrip("0123456789").replace("stage1_", "") for path, name in sorted(expected.items(), reverse=True)}
    assert prefixed_names(kinds, [(r"features\.4\..*", "stage1_")]) == expected


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_has_one_place(name):
    net = gluonzoo.get_model(name)
    pieces = layout(net).pieces
    assert [piece.ours for piece in pieces] == list(net._collect_params_with_prefix())
    first = [piece.theirs[0] for piece in pieces if piece.theirs]
    assert len(set(first)) == len(first)


def test_another_networks_file_is_refused(tmp_path):
    theirs = vision.get_model("resnet34_v1", classes=10)
    theirs.initialize()
    x = mx.nd.ones((1, 3, 32, 32))
    theirs(x)
    net = gluonzoo.get_model("resnet18_v1", classes=10)
    with pytest.raises(UserError, match="does not fit resnet18_v1; closest is MXNet's resnet18_v1: 80 without a place"):
        load_weights(net, save(theirs, x, tmp_path, "structural"))
    assert net.output.weight._data is None  # Nothing was changed.
