"""Caffe's files: read by field numbers, placed by name, and OpenCV's importer of Caffe gives the same outputs."""
import struct

import gluonzoo
from gluonzoo.arrays import FormatError
from gluonzoo.errors import UserError
from gluonzoo.interop import caffe, load_weights, read
from gluonzoo.interop.mapping import modules

import mxnet as mx
import numpy as np
import pytest
from caffe_files import blob, caffemodel, field, layer_text, varint

pytest.importorskip("google.protobuf", reason="protobuf is in the extra caffe")


def write(path, content):
    path.write_bytes(content)
    return str(path)


def values(net, seed=0):
    """{our name: random array} that keeps the size of the signal."""
    random, found = np.random.RandomState(seed), {}
    for name, parameter in net._collect_params_with_prefix().items():
        shape = parameter.shape
        if name.endswith(("gamma", "running_var")):
            found[name] = random.uniform(0.5, 1.5, shape)
        else:
            found[name] = random.normal(0, 0.1 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[1:])), shape)
    return {name: array.astype(np.float32) for name, array in found.items()}


def layers_of(net, arrays, names):
    """What `caffemodel` writes for a network: [(name, type, blobs)]; BatchNorms as sums with the factor 4."""
    found = []
    for path, leaves in modules(net).items():
        name = names[path]
        if "gamma" in leaves:
            mean, variance = (4 * arrays[f"{path}.{leaf}"] for leaf in ("running_mean", "running_var"))
            found.append((f"{name}/bn", "BatchNorm", [mean, variance, np.array([4.0])]))
            found.append((f"{name}/scale", "Scale", [arrays[f"{path}.gamma"], arrays[f"{path}.beta"]]))
        else:
            kind = "Convolution" if len(leaves["weight"]) == 4 else "InnerProduct"
            found.append((name, kind, [arrays[f"{path}.{leaf}"] for leaf in ("weight", "bias") if leaf in leaves]))
    return found


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_blobs_of_all_generations(tmp_path, generation):
    weights, biases = np.arange(54.0).reshape(2, 3, 3, 3), np.array([1.0, -2.0])
    dense, one = np.arange(6.0).reshape(3, 2), np.array([[5.0, 6.0]])
    path = write(tmp_path / "a.caffemodel", caffemodel([
        ("conv1", "Convolution", [weights, biases]), ("ip1", "InnerProduct", [dense, np.arange(3.0)]),
        ("ip2", "InnerProduct", [one, np.array([7.0])])], generation))
    contents = read(path)
    assert contents.format == "caffe"
    expected = {"conv1/0": weights, "conv1/1": biases, "ip1/0": dense, "ip1/1": np.arange(3.0), "ip2/0": one, "ip2/1": [7.0]}
    assert set(contents.arrays) == set(expected)
    for name, array in expected.items():
        assert contents.arrays[name].dtype == np.float32
        np.testing.assert_array_equal(contents.arrays[name], np.asarray(array, np.float32), err_msg=name)


def test_double_blobs(tmp_path):
    inner = field(7, field(1, varint(2))) + field(8, struct.pack("<2d", 0.5, -3.0))
    content = field(100, field(1, "a") + field(2, "Bias") + field(7, inner))
    np.testing.assert_array_equal(read(write(tmp_path / "a.caffemodel", content)).arrays["a/0"], [0.5, -3.0])


def sized(shape, size):
    """A layer with one blob of this shape and so many bytes."""
    return field(100, field(1, "a") + field(7, field(7, field(1, shape)) + field(5, b"\0" * size)))


@pytest.mark.parametrize("content, message", [
    (field(1, "net"), "layers with parameters, found 0 layers"),
    (field(1, "net") + b"\xa2\x06\xff\x01", "a Caffe network, found something else"),
    (sized(varint(3), 8), "3 numbers in a/0, found 2"),
    (sized(varint(1), 5), "whole numbers of f4 in a/0, found 5 bytes"),
    (sized(varint(2 ** 62) + varint(2 ** 62), 8), "found 2"),
    (field(100, field(1, "a") + field(7, blob([1.0]))) * 2, "two layers called 'a'")])
def test_broken_files(tmp_path, content, message):
    with pytest.raises(FormatError, match=message):
        read(write(tmp_path / "a.caffemodel", field(1, "net") + content))


def test_every_cut_of_a_file_is_refused(tmp_path):
    content = caffemodel([("conv1", "Convolution", [np.ones((1, 1, 2, 2)), np.ones(1)])])
    read(write(tmp_path / "whole.caffemodel", content))
    for length in range(len(content) - 1):
        with pytest.raises(UserError):
            read(write(tmp_path / "cut.caffemodel", content[:length]))


def test_batch_norm_without_statistics(tmp_path):
    net = gluonzoo.get_model("mobilenet_v1_0_25", classes=3)
    arrays = values(net)
    layers = layers_of(net, arrays, caffe._layer_names(net))
    layers = [(name, kind, [0 * array for array in blobs] if kind == "BatchNorm" else blobs) for name, kind, blobs in layers]
    load_weights(net, write(tmp_path / "a.caffemodel", caffemodel(layers)))
    assert not net.features.stem.norm.running_mean.data().asnumpy().any()


def test_alexnet_is_adapted_to_caffes_normalization(tmp_path):
    net = gluonzoo.get_model("alexnet", classes=5)
    path = write(tmp_path / "a.caffemodel", caffemodel(layers_of(net, values(net), caffe._layer_names(net)), 1))
    report = load_weights(net, path)
    assert report.source == "caffe" and report.options == {"lrn": "caffe"} and "lrn='caffe'" in str(report)
    assert net.model_kwargs["lrn"] == "caffe" and "BGR" in str(report)
    assert net.features.norm1._arguments == {"nsize": 5, "alpha": 1e-4, "beta": 0.75, "knorm": 1.0}


def test_the_index_keeps_what_weights_were_trained_with(tmp_path, run_program):
    net = gluonzoo.get_model("alexnet", classes=5)
    path = write(tmp_path / "a.caffemodel", caffemodel(layers_of(net, values(net), caffe._layer_names(net))))
    done = run_program("tools/convert.py", path, tmp_path / "alexnet.params", "--model", "alexnet", "--classes", "5",
                       "--index", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "these weights want the network as get_model('alexnet', lrn='caffe')" in done.stdout
    again = gluonzoo.get_model("alexnet", classes=5, pretrained=True, root=str(tmp_path))
    assert again.model_kwargs["lrn"] == "caffe" and again.features.norm1._arguments["knorm"] == 1.0


def test_reverse_channels():
    net = gluonzoo.get_model("mobilenet_v1_0_25", classes=3)
    net.initialize()
    net(mx.nd.ones((2, 3, 32, 32)))
    x = mx.nd.random.normal(shape=(1, 3, 32, 32))
    expected = net(x).asnumpy()
    caffe.reverse_channels(net)
    assert np.abs(net(x).asnumpy() - expected).max() > 0
    np.testing.assert_allclose(net(x.flip(axis=1)).asnumpy(), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(UserError, match="expected a convolution of 3 channels"):
        caffe.reverse_channels(gluonzoo.get_model("lenet_caffe"))


# The networks once more as prototxt, from the papers' tables, for OpenCV's importer of Caffe's files.

class Text:
    """Collects a prototxt; `top` is the blob that the next layer takes."""

    def __init__(self, shape):
        self.layers = ['input: "data"\n' + "\n".join(f"input_dim: {size}" for size in shape)]
        self.top = "data"

    def add(self, name, kind, bottoms=None, **settings):
        self.layers.append(layer_text(name, kind, bottoms or [self.top], name, **settings))
        self.top = name

    def conv(self, name, channels, kernel_size, stride=1, pad=0, group=1, relu=True, bias=True):
        self.add(name, "Convolution", convolution_param=dict(num_output=channels, kernel_size=kernel_size, stride=stride, pad=pad,
                                                             group=group, bias_term=bias))
        if relu:
            self.add(f"relu_{name}", "ReLU")

    def pool(self, name, kind, kernel_size, stride, pad=0):
        self.add(name, "Pooling", pooling_param=dict(pool=kind, kernel_size=kernel_size, stride=stride, pad=pad))

    def dense(self, name, outputs, relu=False):
        self.add(name, "InnerProduct", inner_product_param=dict(num_output=outputs))
        if relu:
            self.add(f"relu_{name}", "ReLU")

    def norm(self, name):
        self.add(name, "LRN", lrn_param=dict(local_size=5, alpha=0.0001, beta=0.75))


def lenet(shape, classes):
    text = Text(shape)
    text.conv("conv1", 20, 5, relu=False)
    text.pool("pool1", "MAX", 2, 2)
    text.conv("conv2", 50, 5, relu=False)
    text.pool("pool2", "MAX", 2, 2)
    text.dense("ip1", 500, relu=True)
    text.dense("ip2", classes)
    return text


def alexnet(shape, classes, norm_first=True):
    text = Text(shape)
    for number, (channels, size, stride, pad, group) in enumerate(
            [(96, 11, 4, 0, 1), (256, 5, 1, 2, 2), (384, 3, 1, 1, 1), (384, 3, 1, 1, 2), (256, 3, 1, 1, 2)], 1):
        text.conv(f"conv{number}", channels, size, stride, pad, group)
        if number < 3 and norm_first:
            text.norm(f"norm{number}")
        if number in (1, 2, 5):
            text.pool(f"pool{number}", "MAX", 3, 2)
        if number < 3 and not norm_first:
            text.norm(f"norm{number}")
    text.dense("fc6", 4096, relu=True)
    text.dense("fc7", 4096, relu=True)
    text.dense("fc8", classes)
    return text


def squeezenet(shape, classes):
    text = Text(shape)
    text.conv("conv1", 64, 3, 2)
    text.pool("pool1", "MAX", 3, 2)
    for number, (squeeze, expand) in enumerate([(16, 64)] * 2 + [(32, 128)] * 2 + [(48, 192)] * 2 + [(64, 256)] * 2, 2):
        name = f"fire{number}"
        text.conv(f"{name}/squeeze1x1", squeeze, 1)
        squeezed = text.top
        text.conv(f"{name}/expand1x1", expand, 1)
        first, text.top = text.top, squeezed
        text.conv(f"{name}/expand3x3", expand, 3, pad=1)
        text.add(f"{name}/concat", "Concat", [first, text.top])
        if number in (3, 5):
            text.pool(f"pool{number}", "MAX", 3, 2)
    text.conv("conv10", classes, 1)
    text.add("pool10", "Pooling", pooling_param=dict(pool="AVE", global_pooling=True))
    return text


def googlenet(shape, classes):
    text = Text(shape)
    text.conv("conv1/7x7_s2", 64, 7, 2, 3)
    text.pool("pool1/3x3_s2", "MAX", 3, 2)
    text.norm("pool1/norm1")
    text.conv("conv2/3x3_reduce", 64, 1)
    text.conv("conv2/3x3", 192, 3, pad=1)
    text.norm("conv2/norm2")
    text.pool("pool2/3x3_s2", "MAX", 3, 2)
    table = {"3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64), "4a": (192, 96, 208, 16, 48, 64),
             "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64),
             "4e": (256, 160, 320, 32, 128, 128), "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128)}
    for module, (one, reduce3, three, reduce5, five, pool) in table.items():
        name, before, tops = f"inception_{module}", text.top, []
        for branch in ([("1x1", one, 1)], [("3x3_reduce", reduce3, 1), ("3x3", three, 3)],
                       [("5x5_reduce", reduce5, 1), ("5x5", five, 5)], [("pool", None, 3), ("pool_proj", pool, 1)]):
            text.top = before
            for part, channels, size in branch:
                if channels is None:
                    text.pool(f"{name}/pool", "MAX", 3, 1, 1)
                else:
                    text.conv(f"{name}/{part}", channels, size, pad=size // 2)
            tops.append(text.top)
        text.add(f"{name}/output", "Concat", tops)
        if module in ("3b", "4e"):
            text.pool(f"pool{module[0]}", "MAX", 3, 2)
    text.add("pool5", "Pooling", pooling_param=dict(pool="AVE", global_pooling=True))
    text.dense("loss3/classifier", classes)
    return text


def mobilenet(shape, classes, width=0.25):
    text = Text(shape)

    def unit(name, channels, size, stride=1, group=1):
        text.conv(name, channels, size, stride, size // 2, group, relu=False, bias=False)
        text.add(f"{name}/bn", "BatchNorm")
        text.add(f"{name}/scale", "Scale", scale_param=dict(bias_term=True))
        text.add(f"{name}/relu", "ReLU")

    channels = int(32 * width)
    unit("conv1", channels, 3, 2)
    widths = [64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
    for name, wide, stride in zip(caffe._mobilenet_names(), widths, strides):
        unit(f"{name}/dw", channels, 3, stride, channels)
        channels = int(wide * width)
        unit(f"{name}/sep", channels, 1)
    text.add("pool6", "Pooling", pooling_param=dict(pool="AVE", global_pooling=True))
    text.conv("fc7", classes, 1, relu=False)
    return text


NETWORKS = {"lenet_caffe": (lenet, (1, 28, 28)), "alexnet": (alexnet, (3, 227, 227)), "squeezenet1_1": (squeezenet, (3, 79, 79)),
            "googlenet": (googlenet, (3, 96, 96)), "mobilenet_v1_0_25": (mobilenet, (3, 64, 64))}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_equal_opencvs(tmp_path, name):
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is in the extra test")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip(f"OpenCV {cv2.__version__} no longer reads Caffe's files")
    make, shape = NETWORKS[name]
    net = gluonzoo.get_model(name, classes=6)
    layers = layers_of(net, values(net, 3), caffe._layer_names(net))
    if name.startswith("mobilenet"):  # Its published classifier is a convolution.
        name_of_last, _, (weights, biases) = layers[-1]
        layers[-1] = (name_of_last, "Convolution", [weights[..., None, None], biases])
    weights = write(tmp_path / "net.caffemodel", caffemodel(layers))
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text("\n".join(make((1,) + shape, 6).layers))
    x = np.random.RandomState(1).normal(0, 20, (1,) + shape).astype(np.float32)
    reference = cv2.dnn.readNetFromCaffe(str(prototxt), weights)
    reference.setInput(x)
    expected = reference.forward().reshape(1, 6)
    assert load_weights(net, weights).source == "caffe"
    output = net(mx.nd.array(x)).asnumpy()
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert caffe.compare(net, str(prototxt)) == []


def test_compare_finds_the_other_alexnet(tmp_path):
    prototxt = tmp_path / "caffenet.prototxt"
    prototxt.write_text("\n".join(alexnet((1, 3, 227, 227), 1000, norm_first=False).layers))
    differences = caffe.compare(gluonzoo.get_model("alexnet"), str(prototxt))
    assert differences == ["layer 2 of the chain (pool1) is pooling; the network has lrn there"]


def test_compare_names_every_difference(tmp_path):
    text = lenet((1, 1, 28, 28), 10)
    settings = dict(num_output=21, kernel_h=5, kernel_w=3, stride=[1, 1], pad=2, bias_term=False)
    text.layers[1] = layer_text("conv1", "Convolution", ["data"], "conv1", convolution_param=settings)
    prototxt = tmp_path / "lenet.prototxt"
    prototxt.write_text("\n".join(text.layers[:-1]))
    differences = " | ".join(caffe.compare(gluonzoo.get_model("lenet_caffe"), str(prototxt)))
    for part in ("conv1 has biases False", "conv1 has channels 21; features.conv1 has 20", "conv1 has kernel (5, 3)",
                 "conv1 has padding (2, 2)", "ip2 is missing"):
        assert part in differences
    assert "strides" not in differences


def test_compare_wants_a_known_network_and_a_prototxt(tmp_path):
    prototxt = tmp_path / "a.prototxt"
    prototxt.write_text('layer { name: "a" type: "Convolution"')
    with pytest.raises(FormatError, match="a Caffe network's text"):
        caffe.compare(gluonzoo.get_model("lenet_caffe"), str(prototxt))
    with pytest.raises(UserError, match="caffe has no counterpart of lenet5"):
        caffe.compare(gluonzoo.get_model("lenet5"), str(prototxt))
