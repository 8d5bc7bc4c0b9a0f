"""The parameter file: the same bytes as MXNet's, every fault named, the old file safe."""
import errno
import os
import random
import shutil
import struct
import subprocess

import gluonzoo  # noqa: F401  (cures MXNet on this NumPy before it is imported)
from gluonzoo import arrays
from gluonzoo.errors import UserError

import numpy as np
import pytest

mx = pytest.importorskip("mxnet")

TYPES = ("float32", "float64", "float16", "uint8", "int8", "int32", "int64", "bool")


def sample(dtype, shape=(2, 3)):
    """Different elements of either sign, among them the largest of the type."""
    rng = np.random.RandomState(len(shape))
    value = rng.randint(-100, 100, shape).astype(dtype)
    if value.size and np.dtype(dtype).kind in "iu":
        value.reshape(-1)[0] = np.iinfo(dtype).max
    return value


def written(path, values):
    arrays.save(str(path), values)
    with open(str(path), "rb") as file:
        return file.read()


def by_mxnet(path, values):
    mx.nd.save(str(path), {name: mx.nd.array(value, dtype=value.dtype) for name, value in values.items()})
    with open(str(path), "rb") as file:
        return file.read()


def one_array(magic=0xF993FAC9, storage=0, rank=2, sizes=(2, 1), device=1, flag=0, body=b"\0" * 8):
    """One array's bytes, each field open to a lie; None leaves it out."""
    parts = [struct.pack("<I", magic)]
    parts += [struct.pack("<i", value) for value in (storage, rank) if value is not None]
    parts += [struct.pack("<q", size) for size in sizes]
    return b"".join(parts) + struct.pack("<iii", device, 0, flag) + body


def one_file(array=None, count=1, names=(b"w",), name_count=None, magic=0x112, reserved=0, tail=b""):
    head = struct.pack("<QQQ", magic, reserved, count) + (one_array() if array is None else array)
    foot = struct.pack("<Q", len(names) if name_count is None else name_count)
    return head + foot + b"".join(struct.pack("<Q", len(name)) + name for name in names) + tail


def loaded(tmp_path, content):
    path = tmp_path / "case.params"
    path.write_bytes(content)
    return arrays.load(str(path))


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1,), (2, 3), (2, 1, 3, 4)])
def test_bytes_are_mxnets(tmp_path, dtype, shape):
    values = {"weight": sample(dtype, shape), "name with spaces and é": sample(dtype)}
    content = written(tmp_path / "ours", values)
    assert content == by_mxnet(tmp_path / "theirs", values)
    back = arrays.load(str(tmp_path / "theirs"))
    assert list(back) == list(values)
    for name, value in values.items():
        assert back[name].dtype == value.dtype and back[name].flags.writeable
        np.testing.assert_array_equal(back[name], value)
    for name, value in mx.nd.load(str(tmp_path / "ours")).items():
        assert value.dtype == values[name].dtype
        np.testing.assert_array_equal(value.asnumpy(), values[name])


def test_no_arrays_at_all(tmp_path):
    assert written(tmp_path / "ours", {}) == by_mxnet(tmp_path / "theirs", {})
    assert arrays.load(str(tmp_path / "ours")) == {}


def test_order_of_memory_and_of_bytes_does_not_show(tmp_path):
    plain = np.arange(12, dtype="float32").reshape(3, 4)
    content = written(tmp_path / "plain", {"w": plain})
    assert written(tmp_path / "big", {"w": plain.astype(">f4")}) == content
    assert written(tmp_path / "fortran", {"w": np.asfortranarray(plain)}) == content
    assert written(tmp_path / "view", {"w": np.repeat(plain, 2, axis=1)[:, ::2]}) == content


def test_empty_arrays_as_mxnet_writes_them(tmp_path):
    values = {"none": np.zeros((0, 3), "float32"), "also": np.zeros((2, 0), "int64")}
    with mx.util.np_shape(True):
        theirs = {name: mx.nd.zeros(value.shape, dtype=value.dtype) for name, value in values.items()}
    mx.nd.save(str(tmp_path / "theirs"), theirs)
    assert written(tmp_path / "ours", values) == (tmp_path / "theirs").read_bytes()
    back = arrays.load(str(tmp_path / "ours"))
    assert {name: (value.shape, value.dtype) for name, value in back.items()} == \
        {name: (value.shape, value.dtype) for name, value in values.items()}


def test_array_without_axes_as_mxnet_writes_it_under_np_shape(tmp_path):
    ours = written(tmp_path / "ours", {"s": np.array(2.5, "float32")})
    with mx.util.np_shape(True):
        mx.nd.save(str(tmp_path / "theirs"), {"s": mx.nd.array(np.array(2.5, "float32"))})
        assert mx.nd.load(str(tmp_path / "ours"))["s"].asnumpy() == np.float32(2.5)
    assert ours == (tmp_path / "theirs").read_bytes()
    value = arrays.load(str(tmp_path / "theirs"))["s"]
    assert value.shape == () and value == np.float32(2.5)


def test_bfloat16_keeps_its_bits(tmp_path):
    words = np.array([0x3F80, 0x4049, 0xFF80], "<u2")
    back = loaded(tmp_path, one_file(one_array(rank=1, sizes=(3,), flag=12, body=words.tobytes())))["w"]
    np.testing.assert_array_equal(back["bfloat16"], words)
    assert written(tmp_path / "again", {"w": back}) == (tmp_path / "case.params").read_bytes()


def test_older_layouts_read_as_mxnet_reads_them(tmp_path):
    body = np.array([[1.5], [-2.0]], "<f4")
    first = one_array(magic=0xF993FAC8, storage=None, body=body.tobytes())
    ancient = struct.pack("<IIIiii", 2, 2, 1, 1, 0, 0) + body.tobytes()
    for content in (first, ancient):
        np.testing.assert_array_equal(loaded(tmp_path, one_file(content))["w"], body)
        np.testing.assert_array_equal(mx.nd.load(str(tmp_path / "case.params"))["w"].asnumpy(), body)


def test_numpy_shape_layout_and_gpu_arrays_are_read(tmp_path):
    body = np.array([[1.5], [-2.0]], "<f4")
    for content in (one_array(magic=0xF993FACA, body=body.tobytes()), one_array(device=2, body=body.tobytes())):
        np.testing.assert_array_equal(loaded(tmp_path, one_file(content))["w"], body)


@pytest.mark.parametrize("content, offset, words", [
    (b"", 0, "first 8 bytes"),
    (b"PK\x03\x04 a zip file, say", 0, "0x112"),
    (one_file(reserved=7), 8, "reserved"),
    (one_file(count=1 << 60), 16, "number of arrays"),
    (one_file(count=0), 24, "number of names"),
    (one_file(count=2), 80, "array 1 of 2"),
    (one_file(one_array(magic=0xDEADBEEF)), 24, "0xdeadbeef"),
    (one_file(one_array(storage=1)), 28, "row_sparse"),
    (one_file(one_array(storage=2)), 28, "csr"),
    (one_file(one_array(storage=9)), 28, "unknown"),
    (one_file(one_array(rank=33)), 36, "33 axes"),
    (one_file(one_array(rank=-1)), 36, "-1 axes"),
    (one_file(one_array(rank=0, sizes=(), body=b"")), 24, "without shape"),
    (one_file(one_array(sizes=(2, -1))), 36, "(2, -1)"),
    (one_file(one_array(sizes=(1 << 62, 1 << 62))), 64, "bytes up to the end"),
    (one_file(one_array(sizes=(0, (1 << 63) - 1), flag=6, body=b"")), 64, "NumPy can hold"),
    (one_file(one_array(device=4)), 52, "type 4"),
    (one_file(one_array(flag=8)), 60, "type 8"),
    (one_file(one_array(flag=7, body=b"\1\2")), 65, "found 2"),
    (one_file(names=(b"w", b"v")), 72, "2 names"),
    (one_file(name_count=0, names=()), 72, "0 names"),
    (one_file(one_array() * 2, count=2, names=(b"w", b"w")), 145, "'w' again"),
    (one_file(names=(b"\xff\xfe",)), 88, "UTF-8"),
    (one_file()[:-1], 88, "name 0 (1 bytes)"),
    (one_file()[:70], 64, "array 0 of 1"),
    (one_file(tail=b"more"), 89, "4 more bytes"),
], ids=lambda value: None if isinstance(value, bytes) else str(value))
def test_faults_are_named_with_their_place(tmp_path, content, offset, words):
    with pytest.raises(arrays.FormatError) as caught:
        loaded(tmp_path, content)
    assert caught.value.offset == offset
    assert words in str(caught.value) and "case.params" in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)


def test_sound_file_for_the_faults_above(tmp_path):
    assert loaded(tmp_path, one_file())["w"].shape == (2, 1)  # Else each fault might be another's.


def test_sparse_file_of_mxnet_is_refused(tmp_path):
    mx.nd.save(str(tmp_path / "sparse"), {"s": mx.nd.zeros((3, 4), stype="csr")})
    with pytest.raises(arrays.FormatError, match="csr"):
        arrays.load(str(tmp_path / "sparse"))


def test_every_truncation_is_refused(tmp_path):
    whole = written(tmp_path / "whole", {"a": sample("float32"), "b": sample("bool"), "": sample("int8", (1,))})
    for length in range(len(whole)):
        with pytest.raises(arrays.FormatError):
            loaded(tmp_path, whole[:length])


def test_mutated_files_load_or_raise_format_error(tmp_path):
    rng = random.Random(3)
    whole = written(tmp_path / "whole", {"a": sample("float32"), "flag": sample("bool"), "c": sample("int64", (1, 2))})
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(content))
            kind = rng.randrange(4)
            if kind == 0:
                content[place] ^= 1 << rng.randrange(8)
            elif kind == 1:
                content[place:place + 8] = struct.pack("<q", rng.choice((-1, 0, 1 << 31, 1 << 40, (1 << 63) - 1)))
            elif kind == 2:
                del content[place:place + rng.randint(1, 9)]
            else:
                content[place:place] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 9)))
            if not content:
                break
        try:
            values = loaded(tmp_path, bytes(content))
        except arrays.FormatError:
            refused += 1
        else:
            assert sum(value.nbytes for value in values.values()) <= len(content)
    assert 200 < refused < 400  # Some flips only change elements, and such a file must load.


def test_no_memory_is_taken_for_a_lie(tmp_path):
    import tracemalloc
    tracemalloc.start()
    try:
        for content in (one_file(one_array(sizes=(1 << 20, 1 << 12))), one_file(count=1 << 31),
                        one_file(name_count=1)[:73] + struct.pack("<Q", 1 << 33)):
            with pytest.raises(arrays.FormatError):
                loaded(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("values, error, words", [
    ([np.zeros(1)], TypeError, "received list"),
    ({3: np.zeros(1)}, TypeError, "expected str"),
    ({"a": [1.0]}, TypeError, "'a': expected a NumPy array, received list"),
    ({"a": np.zeros(1, "complex64")}, TypeError, "complex64"),
    ({"a": np.zeros(1, "uint32")}, TypeError, "uint32"),
    ({"a": np.array([None])}, TypeError, "object"),
    ({"a\ud800": np.zeros(1)}, ValueError, "UTF-8"),
])
def test_what_cannot_be_saved_is_refused_before_anything_changes(tmp_path, values, error, words):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error, match=words):
        arrays.save(str(path), values)
    assert path.read_bytes() == b"old" and os.listdir(str(tmp_path)) == ["file"]


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        arrays.load(str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError):
        arrays.save(str(tmp_path / "absent" / "file"), {})
    with pytest.raises(IsADirectoryError):
        arrays.save(str(tmp_path), {})
    assert os.listdir(str(tmp_path)) == []


def test_path_objects(tmp_path):
    arrays.save(tmp_path / "file", {"a": sample("int8")})
    np.testing.assert_array_equal(arrays.load(tmp_path / "file")["a"], sample("int8"))


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken):
    path = tmp_path / "file"
    old = written(path, {"a": sample("float32")})

    def fail(*args):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(arrays.os, broken, fail)
    with pytest.raises(OSError, match="broken disk"):
        arrays.save(str(path), {"a": sample("float64")})
    monkeypatch.undo()
    assert path.read_bytes() == old and os.listdir(str(tmp_path)) == ["file"]


@pytest.mark.parametrize("damage", ["flip", "cut", "grow"])
def test_a_disk_that_lies_is_found_out(tmp_path, monkeypatch, damage):
    path = tmp_path / "file"
    old = written(path, {"a": sample("float32")})
    sync = os.fsync

    def corrupting_sync(handle):
        sync(handle)
        size = os.fstat(handle).st_size
        if damage == "flip":
            os.pwrite(handle, b"\xff", size // 2)
        else:
            os.ftruncate(handle, size + (1 if damage == "grow" else -1))

    monkeypatch.setattr(arrays.os, "fsync", corrupting_sync)
    with pytest.raises(OSError, match="read back|longer"):
        arrays.save(str(path), {"a": np.zeros((5, 5), "float32")})
    monkeypatch.undo()
    assert path.read_bytes() == old and os.listdir(str(tmp_path)) == ["file"]


def test_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("needs root and mount to make a small file system")
    if subprocess.call(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], stderr=subprocess.DEVNULL):
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        path = disk / "file"
        old = written(path, {"a": np.ones(10000, "float32")})
        with pytest.raises(OSError) as caught:
            arrays.save(str(path), {"a": np.zeros(100000, "float32")})
        assert caught.value.errno == errno.ENOSPC
        assert path.read_bytes() == old and os.listdir(str(disk)) == ["file"]
    finally:
        subprocess.check_call(["umount", str(disk)])
