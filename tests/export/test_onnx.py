"""What to_onnx writes, refuses and leaves behind, and what load_onnx reads."""
import dataclasses

import gluonzoo
from gluonzoo import arrays
from gluonzoo.data import Transform
from gluonzoo.export import ExportError, load_onnx, to_onnx
from gluonzoo.export import onnx as onnx_export

import mxnet as mx
import numpy as np
import pytest
from onnx_nets import Op, images, prepared

onnx = pytest.importorskip("onnx", reason="ONNX export needs onnx")
pytest.importorskip("onnxruntime", reason="ONNX export is checked by onnxruntime")

LABELS = tuple(f"class {letter}, ü" for letter in "abcdefghij")


@pytest.fixture(scope="module")
def net():
    return prepared("cifar_resnet20_v1_a")


@pytest.fixture(scope="module")
def path(net, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("onnx") / "sub" / "net.onnx")
    to_onnx(net, path, metadata={"classes": LABELS, "mean": [0.5], "std": [0.25], "dataset": "cifar10"})
    return path


def live(net, x):
    return net(mx.nd.array(x)).asnumpy()


def test_any_batch_and_any_size_of_image(net, path):
    exported = load_onnx(path)
    assert exported.input_shape == (None, 3, None, None) and exported.outputs == ("output",) and not exported.preprocess
    for shape in ((1, 3, 32, 32), (5, 3, 32, 32), (2, 3, 33, 50), (1, 3, 8, 8)):
        x = images(*shape)
        np.testing.assert_allclose(exported(x), live(net, x), rtol=1e-4, atol=1e-5 * abs(live(net, x)).max())


def test_what_the_file_says_of_itself(net, path):
    found = load_onnx(path)
    said = found.metadata
    assert (said.model, said.classes, said.mean, said.std, said.dataset) == (
        "cifar_resnet20_v1_a", LABELS, (0.5,), (0.25,), "cifar10")
    assert (said.input_shape, said.outputs, said.gluonzoo) == ((3, 32, 32), ("output",), gluonzoo.__version__)
    values = {name: parameter.data().asnumpy() for name, parameter in net._collect_params_with_prefix().items()}
    assert found.parameters_sha256 == arrays.digest(values)
    values["output.bias"] = values["output.bias"] + 1
    assert found.parameters_sha256 != arrays.digest(values)
    model = onnx.load(path)
    assert model.producer_name == "gluonzoo" and model.opset_import[0].version == 13 and model.ir_version == 8
    assert {item.name for item in model.graph.initializer} == set(values), "constants are no initializers"
    assert {item.key: item.value for item in model.metadata_props}["model"] == "cifar_resnet20_v1_a"


def test_the_network_is_not_changed_and_still_trains(tmp_path):
    net = prepared("cifar_resnet20_v1_a")
    before = {name: parameter.data().asnumpy() for name, parameter in net._collect_params_with_prefix().items()}
    to_onnx(net, str(tmp_path / "a.onnx"))
    assert all(np.array_equal(parameter.data().asnumpy(), before[name])
               for name, parameter in net._collect_params_with_prefix().items())
    with mx.autograd.record():
        loss = net(mx.nd.array(images(4, 3, 16, 16))).square().sum()
    loss.backward()
    assert all(np.abs(parameter.grad().asnumpy()).max() > 0 for parameter in net.collect_params().values()
               if parameter.grad_req != "null")


def test_the_same_network_gives_the_same_bytes(net, path, tmp_path):
    again = str(tmp_path / "again.onnx")
    to_onnx(net, again, metadata={"classes": LABELS, "mean": [0.5], "std": [0.25], "dataset": "cifar10"})
    with open(path, "rb") as one, open(again, "rb") as other:
        assert one.read() == other.read()


@pytest.mark.parametrize("name, channels", [("cifar_resnet20_v1_a", 3), ("lenet5", 1)])
def test_with_preprocess_images_go_in_and_probabilities_come_out(name, channels, tmp_path):
    net, path = prepared(name), str(tmp_path / "net.onnx")
    mean, std = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    exported = to_onnx(net, path, with_preprocess=True, metadata={"mean": mean, "std": std})
    assert exported.input_shape == (None, 32, 32, channels) and exported.difference.relative <= 1e-5
    model = load_onnx(path)
    assert model.inputs == ("images",) and model.outputs == ("probabilities",) and model.preprocess
    pixels = np.random.RandomState(1).randint(0, 256, (4, 32, 32, channels)).astype("uint8")
    expected = mx.nd.softmax(net(mx.nd.array(Transform((channels, 32, 32), mean, std)(pixels)))).asnumpy()
    np.testing.assert_allclose(model(pixels), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model(pixels).sum(axis=1), 1, rtol=1e-5)
    with pytest.raises(ExportError, match=r"any, 32, 32.*uint8, received \(4, .*float32"):
        model(pixels.astype("float32"))


def test_with_preprocess_takes_the_main_output_only(tmp_path):
    path = str(tmp_path / "net.onnx")
    net = Op(lambda F, x, w: [F.broadcast_mul(F.mean(x, axis=(2, 3)), w), x], w=images(1, 3))
    to_onnx(net, path, (3, 8, 9), with_preprocess=True, metadata={"mean": [0.5], "std": [0.5]})
    assert load_onnx(path).outputs == ("probabilities",)


def test_with_preprocess_averages_maps_of_scores(tmp_path):
    """As Predictor does for a fully convolutional network."""
    path, w = str(tmp_path / "net.onnx"), images(5, 3, 1, 1)
    net = Op(lambda F, x, w: F.Convolution(x, w, kernel=(1, 1), num_filter=5, no_bias=True), w=w)
    to_onnx(net, path, (3, 8, 9), with_preprocess=True, metadata={"mean": [0.5], "std": [0.5]})
    pixels = np.random.RandomState(1).randint(0, 256, (2, 8, 9, 3)).astype("uint8")
    scores = ((pixels / 255 - 0.5) / 0.5).mean(axis=(1, 2)) @ w[:, :, 0, 0].T
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(load_onnx(path)(pixels), expected, rtol=1e-4)


def test_outputs_that_are_no_operators_own_value(tmp_path):
    path = str(tmp_path / "net.onnx")

    def function(F, x, w):
        y = F.broadcast_add(x, w)
        return [F.identity(y), F.Dropout(y), x, w]

    to_onnx(Op(function, w=images(1, 3, 1, 1)), path, (3, 4, 5))
    x, found = images(2, 3, 4, 5), load_onnx(path)
    outputs = found(x)
    assert found.outputs == outputs._fields == ("output0", "output1", "output2", "output3")
    for output, expected in zip(outputs, (x + images(1, 3, 1, 1), x + images(1, 3, 1, 1), x, images(1, 3, 1, 1))):
        np.testing.assert_allclose(output, expected, rtol=1e-6)


@pytest.fixture
def wrong(monkeypatch):
    """wrong(operator, function): let the table translate an operator another way."""
    return lambda op, function: monkeypatch.setitem(onnx_export.TABLE, op, function)


def test_a_wrong_translation_is_found_and_its_layer_named(net, wrong, tmp_path):
    right = onnx_export.TABLE["BatchNorm"]

    def epsilon(b, node, *values):
        if node.name.startswith("features.stage2.1.conv1"):
            node = dataclasses.replace(node, attrs=dict(node.attrs, eps=0.01))
        return right(b, node, *values)

    old = tmp_path / "net.onnx"
    old.write_bytes(b"old")
    wrong("BatchNorm", epsilon)
    with pytest.raises(ExportError, match=r"first layer that differs is BatchNorm 'features\.stage2\.1\.conv1"):
        to_onnx(net, str(old), force=True)
    assert [item.name for item in tmp_path.iterdir()] == ["net.onnx"] and old.read_bytes() == b"old"


def test_a_size_frozen_where_it_is_free_is_found(net, wrong, tmp_path):
    wrong("mean", lambda b, node, x: b.emit("Flatten", b.emit("AveragePool", x, kernel_shape=[8, 8]), axis=1))
    with pytest.raises(ExportError):  # Right for 32x32, not for the larger images of the check.
        to_onnx(net, str(tmp_path / "net.onnx"))
    assert not list(tmp_path.iterdir())


def rounding(F, x, w, turned, places):
    """x w, taken in one order, less x w taken in another: 0 but for rounding; each layer by itself is exact to rounding."""
    other = F.FullyConnected(F.take(x, places, axis=1), turned, num_hidden=8, no_bias=True)
    return F.FullyConnected(x, w, num_hidden=8, no_bias=True), other


@pytest.fixture
def sums():
    w, places = images(8, 2000, seed=3) / 50, np.random.RandomState(1).permutation(2000)
    return {"w": w, "turned": w[:, places], "places": places.astype("float32")}


def test_a_network_that_enlarges_rounding_passes_only_by_a_tolerance(sums, tmp_path):
    def function(F, x, **values):
        one, other = rounding(F, x, **values)
        return F.elemwise_sub(one, other) + one * 1e-3

    path = str(tmp_path / "net.onnx")
    with pytest.raises(ExportError, match=r"first layer that differs is (_plus|elemwise|broadcast)\w+ .* by itself agrees .* "
                                          "enlarges rounding"):
        to_onnx(Op(function, **sums), path, (2000,))
    assert not list(tmp_path.iterdir())
    assert 1e-5 < to_onnx(Op(function, **sums), path, (2000,), tolerance=1e-1).difference.relative < 1e-1


def test_signs_near_zero_may_differ_but_layers_must_not(sums, wrong, tmp_path):
    """The sign of a sum that is 0 up to rounding: every layer is right, whatever sign comes out."""
    def function(F, x, **values):
        return F.contrib.sign_ste(F.elemwise_sub(*rounding(F, x, **values)))

    net, path = Op(function, **sums), str(tmp_path / "near.onnx")
    assert to_onnx(net, path, (2000,)).difference.relative <= 1e-5
    x = images(16, 2000)
    assert (load_onnx(path)(x) != live(net, x)).any(), "these signs must differ, or the test shows nothing"
    wrong("_contrib_sign_ste", lambda b, node, x: b.emit("Sign", b.emit("Add", x, b.constant(0.5))))
    with pytest.raises(ExportError, match="first layer that differs is _contrib_sign_ste"):
        to_onnx(Op(lambda F, x: F.contrib.sign_ste(x)), str(tmp_path / "sign.onnx"), (100,))


@pytest.mark.parametrize("arguments, words", [
    ({"path": "net.bin"}, "ends in .onnx"),
    ({"opset": 12}, "opset is 12; expected 13 to 21"),
    ({"opset": "13"}, "opset is '13'"),
    ({"with_preprocess": True}, "mean and std"),
    ({"input_shape": (3, 4)}, "does not take an input"),
    ({"metadata": {"colour": "red"}}, "colour"),
])
def test_bad_arguments_are_named_before_anything_is_written(net, arguments, words, tmp_path):
    arguments = dict({"path": "net.onnx"}, **arguments)
    with pytest.raises(ExportError, match=words):
        to_onnx(net, str(tmp_path / arguments.pop("path")), **arguments)
    assert not list(tmp_path.iterdir())


def test_other_refusals(net, path, tmp_path):
    with pytest.raises(ExportError, match="already there; use force"):
        to_onnx(net, path)
    with pytest.raises(ExportError, match="no values yet"):
        to_onnx(gluonzoo.get_model("lenet5"), str(tmp_path / "a.onnx"))
    with pytest.raises(ExportError, match="BilinearSampler .* at least 16"):
        to_onnx(prepared("stn_mnist"), str(tmp_path / "a.onnx"), opset=13)
    half = prepared("lenet5")
    half.cast("float64")
    with pytest.raises(ExportError, match="float64; expected float32"):
        to_onnx(half, str(tmp_path / "a.onnx"))
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_said_with_the_command(net, monkeypatch, tmp_path):
    import sys
    for name in ("onnx", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ExportError, match=rf"package {name}, .*pip install 'gluonzoo\[export\]'"):
                to_onnx(net, str(tmp_path / "net.onnx"))


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x08\x12\x04"])
def test_load_onnx_refuses_what_is_no_model(content, tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(ExportError, match="x.onnx: onnxruntime refuses"):
        load_onnx(str(path))
    with pytest.raises(ExportError, match="no such file"):
        load_onnx(str(tmp_path / "absent.onnx"))


def test_load_onnx_takes_other_peoples_files_and_says_damaged_metadata(path, tmp_path):
    model, other = onnx.load(path), str(tmp_path / "other.onnx")
    item = next(item for item in model.metadata_props if item.key == "input_shape")
    item.value = "[3, 32"
    onnx.save(model, other)
    with pytest.raises(ExportError, match="metadata is damaged"):
        load_onnx(other)
    del model.metadata_props[:]
    onnx.save(model, other)
    assert load_onnx(other).metadata is None and load_onnx(other)(images(1, 3, 32, 32)).shape == (1, 10)
