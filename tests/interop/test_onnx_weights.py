"""Parameters from ONNX files: to the bit from our own, by name from others', and a clear refusal of what is broken."""
import random
import struct

import gluonzoo
from gluonzoo import arrays
from gluonzoo.errors import UserError
from gluonzoo.interop import WeightsError, load_weights, read

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="ONNX files need onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def saved(tmp_path, *tensors, name="x.onnx", properties=None):
    """The path of a model that only holds these initializers."""
    made = helper.make_graph([helper.make_node("Identity", ["data"], ["output"])], "g",
                             [helper.make_tensor_value_info("data", 1, [1])], [helper.make_tensor_value_info("output", 1, [1])],
                             list(tensors))
    model = helper.make_model(made, producer_name="someone", ir_version=8)
    helper.set_model_props(model, properties or {})
    path = tmp_path / name
    path.write_bytes(model.SerializeToString())
    return str(path)


def parameters(net):
    return {name: parameter.data().asnumpy() for name, parameter in net._collect_params_with_prefix().items()}


@pytest.fixture(scope="module")
def net():
    net = gluonzoo.get_model("cifar_resnet20_v1_b")
    net.initialize()
    for parameter in net.collect_params().values():
        parameter.set_data(parameter.data() * 1.01 + 0.003)
    return net


@pytest.mark.parametrize("preprocess", [False, True])
def test_round_trip_to_the_bit(net, tmp_path, preprocess):
    pytest.importorskip("onnxruntime", reason="the export is checked by onnxruntime")
    from gluonzoo.export import to_onnx
    path = str(tmp_path / "net.anything")
    to_onnx(net, path[:-9] + ".onnx", with_preprocess=preprocess, metadata={"mean": [0.5], "std": [0.5]})
    (tmp_path / "net.onnx").rename(path)  # A file is known by what is in it.
    other = gluonzoo.get_model("cifar_resnet20_v1_b")
    report = load_weights(other, path)
    assert report.format == "onnx" and report.source == "gluonzoo" and not report.unused and not report.missing
    mine, theirs = parameters(net), parameters(other)
    assert all(np.array_equal(mine[name].view(np.uint32), theirs[name].view(np.uint32)) for name in mine)
    assert arrays.digest(read(path).arrays) == arrays.digest(mine)
    with pytest.raises(WeightsError, match="does not fit cifar_resnet20_v1_a"):
        load_weights(gluonzoo.get_model("cifar_resnet20_v1_a", classes=3), path)


def test_names_of_others_are_found_as_in_any_format(net, tmp_path):
    """A torch network's parameters keep their names in ONNX, where they were not folded: whose they are is found by name."""
    from gluonzoo.interop.load import arrays_for
    small = gluonzoo.get_model("squeezenet1_1")
    small.initialize()
    values = arrays_for(small, "torchvision")
    path = saved(tmp_path, *(numpy_helper.from_array(value, name) for name, value in values.items()))
    other = gluonzoo.get_model("squeezenet1_1")
    assert load_weights(other, path).source == "torchvision"
    mine, theirs = parameters(small), parameters(other)
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_every_way_to_hold_elements(tmp_path):
    values = np.arange(6, dtype="float32").reshape(2, 3)
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [2, 3], values.ravel())
    assert not typed.HasField("raw_data")
    bf16 = TensorProto(name="bf16", data_type=TensorProto.BFLOAT16, dims=[6],
                       raw_data=(values.ravel().view(np.uint32) >> 16).astype("<u2").tobytes())
    found = read(saved(tmp_path, typed, bf16, numpy_helper.from_array(values, "raw"),
                       numpy_helper.from_array(values.astype("float16"), "half"),
                       numpy_helper.from_array(values.astype("float64"), "double"),
                       numpy_helper.from_array(np.zeros((0, 3), "float32"), "empty"),
                       helper.make_tensor("numbers", TensorProto.INT64, [2], [7, -1]))).arrays
    for name in ("typed", "raw", "half", "double"):
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == np.float32
    np.testing.assert_array_equal(found["bf16"], values.ravel())
    assert found["empty"].shape == (0, 3) and found["numbers"].tolist() == [7, -1]


def tensor(**fields):
    return TensorProto(**dict({"name": "w", "data_type": TensorProto.FLOAT}, **fields))


@pytest.mark.parametrize("broken, words", [
    (tensor(dims=[2], raw_data=b"1234"), "'w' with 8 bytes for shape .*found 4"),
    (tensor(dims=[1 << 40, 1 << 40], raw_data=b"1234"), "'w' with .* bytes .*found 4"),
    (tensor(dims=[1 << 62]), "'w' with .*found 0"),
    (tensor(dims=[0, 1 << 62, 1 << 62], raw_data=b""), "shape NumPy can hold"),
    (tensor(dims=[-1], raw_data=b""), "sizes from 0 on"),
    (tensor(dims=[1] * 40, raw_data=b"1234"), "at most 32 axes"),
    (tensor(dims=[2], float_data=[1.0]), "'w' with 2 elements"),
    (tensor(dims=[1], data_type=TensorProto.STRING, string_data=[b"x"]), "of a type among"),
    (tensor(dims=[1], data_type=9999, raw_data=b"1"), "of a type among"),
    (tensor(dims=[1], data_location=TensorProto.EXTERNAL), "another file .external data"),
    (tensor(dims=[1], raw_data=struct.pack("<f", float("nan"))), "finite"),
    (tensor(name="", dims=[1], raw_data=b"1234"), "a name each"),
])
def test_broken_arrays_are_named(broken, words, tmp_path):
    with pytest.raises(UserError, match=words):
        read(saved(tmp_path, broken))


def test_other_broken_files(net, tmp_path):
    w = tensor(dims=[1], raw_data=b"\0\0\0\0")
    with pytest.raises(UserError, match="'w' again"):
        read(saved(tmp_path, w, w))
    with pytest.raises(UserError, match="found none"):
        read(saved(tmp_path))
    with pytest.raises(UserError, match="SHA-256 0123456789ab"):
        read(saved(tmp_path, w, properties={"parameters_sha256": "0123456789abcdef"}))
    path = tmp_path / "cut.onnx"
    with open(saved(tmp_path, numpy_helper.from_array(np.ones(1000, "float32"), "w")), "rb") as file:
        content = file.read()
    path.write_bytes(content[:len(content) // 2])
    with pytest.raises(UserError, match="cut.onnx.*a sound ONNX model"):
        read(str(path))
    with pytest.raises(WeightsError, match="does not fit cifar_resnet20"):
        load_weights(net, saved(tmp_path, w))
    model = onnx.load(saved(tmp_path, w))
    model.graph.sparse_initializer.add()
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="sparse"):
        read(str(path))


def test_a_missing_package_is_said_with_the_command(tmp_path, monkeypatch):
    import sys
    path = saved(tmp_path, tensor(dims=[1], raw_data=b"1234"))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"package onnx, .*pip install 'gluonzoo\[export\]'"):
        read(path)


def test_hundreds_of_mutated_files_are_read_or_refused(tmp_path):
    """Nothing but UserError comes out, whatever bit is turned, cut or put in."""
    from gluonzoo.interop.onnx import read as read_onnx
    values = {"a.weight": np.ones((3, 2), "float32"), "b": np.arange(4, dtype="float64")}
    with open(saved(tmp_path, *(numpy_helper.from_array(value, name) for name, value in values.items())), "rb") as file:
        sound = file.read()
    rng, refused = random.Random(1), 0
    for _ in range(600):
        content = bytearray(sound)
        for _ in range(rng.choice((1, 2, 4))):
            place, kind = rng.randrange(len(content)), rng.randrange(4)
            if kind == 0:
                content[place] ^= 1 << rng.randrange(8)
            elif kind == 1:
                content[place:place] = bytes(rng.choice((0, 0x7F, 0x80, 0xFF)) for _ in range(rng.randint(1, 9)))
            elif kind == 2:
                del content[place:place + rng.randint(1, 20)]
            else:
                content[place:place + 8] = struct.pack("<q", rng.choice((-1, 0, 1 << 31, 1 << 40, (1 << 63) - 1)))
        path = tmp_path / "case.onnx"
        path.write_bytes(bytes(content))
        try:
            assert all(array.nbytes <= 4 * len(content) for array in read_onnx(str(path)).values())
        except UserError:
            refused += 1
    assert refused > 200
