"""Files of arrays, sound and hostile."""
import importlib.util
import io
import os
import pickle
import struct
import tracemalloc
import zipfile

from gluonzoo import arrays
from gluonzoo.errors import UserError
from gluonzoo.interop import read
from gluonzoo.interop.files import write

import numpy as np
import pytest
from weight_files import Raw, call, name, safetensors, sample, tensor, torch_legacy, torch_zip
from weight_files import pickle as small_pickle

needs_safetensors = pytest.mark.skipif(importlib.util.find_spec("safetensors") is None, reason="safetensors is not installed")


def put(tmp_path, content, file="case.bin"):
    path = tmp_path / file
    path.write_bytes(content)
    return str(path)


def check_sample(found):
    expected = sample()
    assert set(found) == set(expected)
    for key, array in expected.items():
        wanted = array.astype("float32") if array.dtype.kind == "f" else array
        assert found[key].dtype == wanted.dtype and found[key].shape == wanted.shape, key
        np.testing.assert_array_equal(found[key], wanted, err_msg=key)


@pytest.mark.parametrize("make, form", [
    (torch_zip, "torch"), (torch_legacy, "torch"), pytest.param(safetensors, "safetensors", marks=needs_safetensors)])
def test_formats_are_found_by_content(tmp_path, make, form):
    contents = read(put(tmp_path, make(sample()), "misleading.params"))
    assert contents.format == form
    check_sample(contents.arrays)


def test_params(tmp_path):
    values = {key: array for key, array in sample().items() if array.ndim}
    path = str(tmp_path / "case.pth")  # The ending is wrong on purpose.
    arrays.save(path, {f"{'aux' if 'running' in key else 'arg'}:{key}": array for key, array in values.items()})
    contents = read(path)
    assert contents.format == "params"
    assert set(contents.arrays) == set(values)
    assert contents.arrays["half"].dtype == np.float32
    arrays.save(path, {"arg:a": np.zeros(1, "float32"), "b": np.ones(1, "float32")})
    assert set(read(path).arrays) == {"arg:a", "b"}, "only taken off where all names have it"
    arrays.save(path, {"arg:a": np.zeros(1, "float32"), "aux:a": np.ones(1, "float32")})
    with pytest.raises(UserError, match="arg:a and aux:a"):
        read(path)


@pytest.mark.parametrize("make", [torch_zip, torch_legacy])
@pytest.mark.parametrize("wrap", [
    lambda state: {"state_dict": state, "epoch": 3, "best": 0.5},
    lambda state: {"epoch": 3, "model": {"module." + key: value for key, value in state.items()}},
    lambda state: {"module._orig_mod." + key: value for key, value in state.items()},
    lambda state: Raw(call(name("collections", "OrderedDict"), ())
                      + b"(" + b"".join(small_pickle(key)[2:-1] + value for key, value in state.items()) + b"u"
                      + small_pickle({"_metadata": {"": {"version": 1}}})[2:-1] + b"b"),
])
def test_wrappers_and_prefixes(tmp_path, make, wrap):
    check_sample(read(put(tmp_path, make(sample(), wrap=wrap))).arrays)


@needs_safetensors
def test_bfloat16(tmp_path):
    values = np.array([1.0, -2.5, 3.140625], "float32")
    bits = (values.view("uint32") >> 16).astype("uint16")
    content = safetensors({"w": bits.view("float16")}, kinds={"w": "BF16"})
    np.testing.assert_array_equal(read(put(tmp_path, content)).arrays["w"], values)
    content = torch_zip({"w": bits.view("float16")}, kind="BFloat16Storage")
    np.testing.assert_array_equal(read(put(tmp_path, content)).arrays["w"], values)


def test_views_of_a_storage(tmp_path):
    base = np.arange(24, dtype="float32").reshape(4, 6)
    content = torch_zip({"w": base}, shape=(6, 4), strides=(1, 6))
    np.testing.assert_array_equal(read(put(tmp_path, content)).arrays["w"], base.T)
    content = torch_legacy({"w": base}, shape=(3,), strides=(2,), offset=5)
    np.testing.assert_array_equal(read(put(tmp_path, content)).arrays["w"], [5, 7, 9])
    content = torch_zip({"w": base}, shape=(0, 4), strides=(4, 1), offset=24)
    assert read(put(tmp_path, content)).arrays["w"].shape == (0, 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(tmp_path, bad):
    values = {"good": np.ones(3, "float32"), "layer.weight": np.array([1, bad, 2], "float32")}
    path = put(tmp_path, torch_zip(values))
    with pytest.raises(UserError, match=r"layer\.weight.* 1 of 3"):
        read(path)
    np.testing.assert_array_equal(read(path, allow_nonfinite=True).arrays["layer.weight"], values["layer.weight"])


def test_float64_beyond_float32(tmp_path):
    with pytest.raises(UserError, match="w: expected finite"):
        read(put(tmp_path, torch_zip({"w": np.array([1e300])})))


@pytest.mark.parametrize("content, words", [
    (b"", "0 bytes"), (b"<!DOCTYPE html><html>", "DOCTYPE"), (b"version https://git-lfs.github.com/spec/v1\n", "version"),
    (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF")])
def test_unknown_formats(tmp_path, content, words):
    with pytest.raises(UserError, match=words) as caught:
        read(put(tmp_path, content))
    assert "params, torch, safetensors" in str(caught.value)


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read(tmp_path / "absent")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read(tmp_path)


class Evil:
    """Pickled, it becomes a call that makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("place", ["zip", "plain", "legacy"])
def test_nothing_is_executed(tmp_path, protocol, place):
    marker = str(tmp_path / "executed")
    evil = pickle.dumps({"w": Evil(marker)}, protocol=protocol)
    pickle.loads(evil)
    os.rmdir(marker)  # The attack works where it is let.
    content = {"zip": torch_zip({}, data=evil), "plain": evil,
               "legacy": torch_legacy({}) + evil}[place]
    if place == "legacy":
        head = small_pickle(0x1950A86A20F9469CFC6C) + small_pickle(1001) + small_pickle({"little_endian": True})
        content = head + evil
    with pytest.raises(UserError):
        read(put(tmp_path, content))
    assert not os.path.exists(marker)
    if protocol == 2:
        with pytest.raises(UserError, match="mkdir, which is refused"):
            read(put(tmp_path, content))


@pytest.mark.parametrize("function", [
    name("os", "system"), name("builtins", "eval"), name("torch", "load"), name("torch.nn.modules.conv", "Conv2d"),
    name("torch._utils", "_rebuild_tensor_v2.__globals__"), name("collections", "OrderedDict.__init__"),
    name("torch", "FloatStorage.__class__"), name("torch.storage", "_load_from_bytes")])
def test_names_outside_the_list(tmp_path, function):
    for build in (torch_zip({}, data=small_pickle({"w": call(function, ("echo",))})),
                  torch_zip({"w": np.zeros(1, "float32")}, wrap=lambda state: {"state_dict": state, "x": Raw(function)})):
        with pytest.raises(UserError, match="which is refused"):
            read(put(tmp_path, build))


@pytest.mark.parametrize("value", [
    [1, 2], 3, "text", {}, {"w": 3}, {"w": [1.0]}, {"epoch": 3, "optimizer": {"lr": 0.1}},
    Raw(call(name("collections", "OrderedDict"), ())), Raw(name("torch", "FloatStorage"))])
def test_pickles_without_tensors(tmp_path, value):
    with pytest.raises(UserError, match="expected"):
        read(put(tmp_path, torch_zip({}, data=small_pickle(value))))


def test_tensors_beside_other_things(tmp_path):
    content = torch_zip({"w": np.zeros(2, "float32")}, wrap=lambda state: dict(state, epoch=3))
    with pytest.raises(UserError, match="'epoch' with a int"):
        read(put(tmp_path, content))


@pytest.mark.parametrize("lies, words", [
    ({"elements": 1 << 40}, "expected 4398046511104 bytes"), ({"elements": 5}, "expected 20 bytes"),
    ({"kind": "DoubleStorage"}, "expected 48 bytes"),
    ({"shape": (1 << 20, 1 << 20), "strides": (0, 0)}, "within its storage"), ({"shape": (7,), "strides": (1,)}, "within"),
    ({"shape": (3,), "strides": (3,)}, "within"), ({"offset": 1}, "within"), ({"offset": -1}, "offset"),
    ({"strides": (-2, 1)}, "strides"), ({"strides": (2,)}, "rank"), ({"shape": ("a", 2)}, "shape"),
    ({"shape": (1,) * 40, "strides": (1,) * 40}, "rank"), ({"shape": (0, 1 << 40), "strides": (1, 1)}, "NumPy can hold"),
    ({"shape": (2.0, 3)}, "shape"), ({"shape": (True, 3)}, "shape")])
def test_lies_about_sizes(tmp_path, lies, words):
    values = {"w": np.zeros((3, 2), "float32")}
    for make in (torch_zip, torch_legacy):
        path = put(tmp_path, make(values, **lies))
        tracemalloc.start()
        try:
            with pytest.raises(UserError, match=words if make is torch_zip else None):
                read(path)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


def test_many_tensors_on_one_storage(tmp_path):
    array = np.zeros(10000, "float32")
    state = {f"w{index}": tensor(array, 0) for index in range(3)}
    content = torch_zip({"w": array}, wrap=lambda _: state)
    assert len(read(put(tmp_path, content)).arrays) == 3, "tied weights are nothing bad"
    state = {f"w{index}": tensor(array, 0, shape=(100, 100)[:2], strides=(1, 100)) for index in range(300)}
    with pytest.raises(UserError, match="bytes in all, found more"):
        read(put(tmp_path, torch_zip({"w": array}, wrap=lambda _: state)))


def flipped_member(content):
    """The archive with one bit of the first storage turned over."""
    place = content.index(b"archive/data/0") + len(b"archive/data/0") + 3
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1:]


@pytest.mark.parametrize("make, words", [
    (lambda values: torch_zip(values, compress=True), "without compression"),
    (lambda values: torch_zip(values, members={"archive/data.pkl/x/data.pkl": b"."}), "one data.pkl, found 2"),
    (lambda values: torch_zip(values, members={"archive/constants.pkl": b"."}), "TorchScript"),
    (lambda values: torch_zip(values, order=b"big"), "little-endian"),
    (lambda values: torch_zip(values, data=small_pickle({"w": tensor(values["w"], 9)})), "archive/data/9"),
    (lambda values: torch_zip(values, data=b""), "ValueError|instruction|pickle"),
    (lambda values: torch_zip(values, data=b"\x80\x02}q\x00"), "pickle"),
    (lambda values: torch_zip(values)[:-40], "zip archive"),
    (lambda values: flipped_member(torch_zip(values)), "checksum"),
    (lambda values: b"PK\x03\x04" + bytes(100), "zip archive"),
])
def test_broken_archives(tmp_path, make, words):
    with pytest.raises(UserError, match=words):
        read(put(tmp_path, make({"w": np.ones((3, 2), "float32")})))


def test_zip_bomb_and_npz(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", small_pickle({}))
        archive.writestr("archive/data/0", bytes(50 << 20))
    assert len(content.getvalue()) < 100000
    with pytest.raises(UserError, match="without compression"):
        read(put(tmp_path, content.getvalue()))
    np.savez(str(tmp_path / "a.npz"), w=np.zeros(3))
    with pytest.raises(UserError, match="one data.pkl, found 0"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("make", [
    lambda values: torch_legacy(values)[:-1], lambda values: torch_legacy(values, keys=["0"]),
    lambda values: torch_legacy(values, keys=["0", "1", "2"]), lambda values: torch_legacy(values, counts=[6, 1 << 60]),
    lambda values: torch_legacy(values, keys=["0", "0"]), lambda values: torch_legacy(values, keys=[0, 1]),
    lambda values: torch_legacy(values).replace(b"\x6c\xfc\x9c\x46", b"\x6c\xfc\x9c\x47"),
    lambda values: torch_legacy(values).replace(b"J\xe9\x03\0\0", b"J\xea\x03\0\0"),
    lambda values: torch_legacy(values, elements=1 << 50)])
def test_broken_legacy_files(tmp_path, make):
    values = {"v": np.ones((3, 2), "float32"), "w": np.ones(4, "float32")}
    assert set(read(put(tmp_path, torch_legacy(values))).arrays) == {"v", "w"}
    with pytest.raises(UserError):
        read(put(tmp_path, make(values)))


@needs_safetensors
@pytest.mark.parametrize("options, words", [
    ({"size": 1 << 62}, "formats"), ({"size": 3}, "JSON|header"), ({"tail": b"more"}, "28 bytes of arrays"),
    ({"header": {"w": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 24]}}}, "'w'"),
    ({"header": {"w": {"dtype": "F32", "shape": [-3, -2], "data_offsets": [0, 24]}}}, "'w'"),
    ({"header": {"w": {"dtype": "F32", "shape": [3.0, 2], "data_offsets": [0, 24]}}}, "'w'"),
    ({"header": {"w": {"dtype": "F32", "shape": [True, 6], "data_offsets": [0, 24]}}}, "'w'"),
    ({"header": {"w": {"dtype": "F99", "shape": [3, 2], "data_offsets": [0, 24]}}}, "type among"),
    ({"header": {"w": {"dtype": ["F32"], "shape": [3, 2], "data_offsets": [0, 24]}}}, "type among"),
    ({"header": {"w": {"dtype": "F32", "shape": [3, 2]}}}, "data_offsets"), ({"header": {"w": 3}}, "'w'"),
    ({"header": {"w": {"dtype": "F32", "shape": [3, 2], "data_offsets": [24, 0]}}}, "'w'"),
    ({"header": {"v": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}}}, "offset 24"),
    ({"header": {"w": {"dtype": "F32", "shape": [3, 1], "data_offsets": [12, 24]}}}, "offset 0"),
    ({"header": {"w": {"dtype": "F32", "shape": [0] + [1] * 40, "data_offsets": [0, 0]}}}, "'w'"),
])
def test_broken_safetensors(tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        read(put(tmp_path, safetensors({"w": np.ones((3, 2), "float32")}, **options)))


@needs_safetensors
@pytest.mark.parametrize("header", [b'{"a":' * 100000, b'{"w": 1, "w": 2}', b"{\xff}", b"{]"])
def test_headers_that_are_no_json(tmp_path, header):
    with pytest.raises(UserError, match="JSON"):
        read(put(tmp_path, struct.pack("<Q", len(header)) + header))


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(UserError, match=r"pip install 'gluonzoo\[interop\]'"):
        read(put(tmp_path, safetensors({"w": np.zeros(1, "float32")})))
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UserError, match=r"pip install 'gluonzoo\[torch\]'"):
        write(tmp_path / "a.pth", {"w": np.zeros(1, "float32")})
    assert not (tmp_path / "a.pth").exists()


@pytest.mark.parametrize("file", ["a.params", pytest.param("a.safetensors", marks=needs_safetensors)])
def test_writing(tmp_path, file, monkeypatch):
    path = tmp_path / file
    values = {"w": np.arange(6, dtype="float32").reshape(2, 3), "count": np.array(3, dtype="int64")}
    write(path, values)
    found = read(path).arrays
    assert set(found) == set(values) and all(np.array_equal(found[key], values[key]) for key in values)
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write(path, {"w": np.zeros(3, "float32")})
    assert path.read_bytes() == before and os.listdir(str(tmp_path)) == [file]


def test_unknown_ending(tmp_path):
    with pytest.raises(UserError, match=r"ends in \.params, \.safetensors"):
        write(tmp_path / "weights.h5", {"w": np.zeros(1, "float32")})
    assert os.listdir(str(tmp_path)) == []
