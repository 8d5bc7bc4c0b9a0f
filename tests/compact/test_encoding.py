"""Arrays in few bits: the bits themselves by hand, every way of storing against the array, and files that are damaged."""
import json

from gluonzoo import arrays, compact
from gluonzoo.compact import bits, encoding, files
from gluonzoo.errors import UserError

import numpy as np
import pytest


def test_packed_numbers_by_hand():
    # 5 = 101, 2 = 010, 7 = 111, lowest bit first: 101 010 11 | 1 0000000.
    np.testing.assert_array_equal(bits.pack(np.array([5, 2, 7], np.uint8), 3), [0b11010101, 0b00000001])
    np.testing.assert_array_equal(bits.unpack(np.array([0b11010101, 1], np.uint8), 3, 3), [5, 2, 7])


@pytest.mark.parametrize("width", range(1, 9))
def test_packing_comes_back(width, monkeypatch):
    monkeypatch.setattr(bits, "_PART", 16)
    random = np.random.RandomState(width)
    for count in (0, 1, 15, 16, 17, 83):
        numbers = random.randint(0, 2 ** width, count).astype(np.uint8)
        packed = bits.pack(numbers, width)
        assert packed.dtype == np.uint8 and len(packed) == bits.packed_size(count, width)
        np.testing.assert_array_equal(bits.unpack(packed, count, width), numbers)


def test_gaps_by_hand():
    # Two bits: 0, 1, 2 zeros and then an element; 3: three zeros and none yet. Elements at 0, 3, 4 and 12, so 0, 2, 0 and 7
    # zeros.
    numbers = bits.gaps(np.array([0, 3, 4, 12]), 2)
    assert numbers.tolist() == [0, 2, 0, 3, 3, 1]
    assert bits.positions(numbers, 2).tolist() == [0, 3, 4, 12]
    # Bytes with 1 bit: 13 numbers, 2; with 2 bits: 6 numbers, 2; with 3: 5 (7 zeros are a bridge and none), 2; with 4: 4, 2.
    assert bits.best_gap_bits(np.array([0, 3, 4, 12])) == (1, 13)
    assert bits.best_gap_bits(np.arange(0, 5000, 50)) == (6, 100)
    assert bits.gaps(np.array([], int), 3).tolist() == [] and bits.positions(np.zeros(0, np.uint8), 3).tolist() == []


def test_entropy_by_hand():
    assert encoding.entropy(np.array([0, 0, 1, 2])) == 1.5
    assert encoding.entropy(np.array([7, 7])) == 0 and encoding.entropy(np.array([], int)) == 0


def cases():
    random = np.random.RandomState(0)
    dense = random.randn(20, 30).astype(np.float32)
    sparse = np.where(random.rand(20, 30) < 0.1, dense, np.float32(0))
    few = random.choice(random.randn(12).astype(np.float32), (20, 30))
    negative = sparse.copy()
    negative[0, :3] = -0.0, np.nan, -np.inf
    signs = np.sign(random.randn(20, 5, 6)).astype(np.float32) * random.rand(20, 1, 1).astype(np.float32)
    return {
        "dense": (dense, "values"), "half sparse": (np.where(random.rand(20, 30) < 0.5, dense, np.float32(0)), "values, bitmap"),
        "sparse": (sparse, "values, gaps"), "shared": (few, "12 codes"),
        "shared and sparse": (np.where(random.rand(20, 30) < 0.1, few, np.float32(0)), "codes, gaps"),
        "signs": (signs, "signs and scales"), "special": (negative, "values"),
        "zeros": (np.zeros((64, 64), np.float32), ""), "one value": (np.full((64, 64), 3.5, np.float32), "1 codes"),
        "nothing": (np.zeros((0, 4), np.float32), "values"), "scalar": (np.array(2.5, np.float32), "values"),
        "float16": (dense.astype(np.float16), "values"), "float64": (dense.astype(np.float64), "values"),
        "int32": (random.randint(-5, 5, 300).astype(np.int32), "codes"), "int64": (random.randint(-2**60, 2**60, 9), "values"),
        "uint8": (random.randint(0, 255, 50).astype(np.uint8), ""), "int8": (random.randint(-9, 9, 500).astype(np.int8), ""),
        "bool": (random.rand(100) < 0.5, ""), "big-endian": (dense.astype(">f4"), "values"),
        "not contiguous": (dense.T, "values"), "257 values": (np.arange(1, 258, dtype=np.float32).repeat(3), "values"),
        "256 values": (np.tile(random.randn(256).astype(np.float32), 9)[random.permutation(2304)], "256 codes")}


@pytest.mark.parametrize("name", cases())
def test_every_array_comes_back_to_the_bit(name, tmp_path):
    array, stored = cases()[name]
    report = compact.save(str(tmp_path / "a.compact"), {"x": array})
    assert stored in report.rows[0].stored
    found = compact.load(str(tmp_path / "a.compact"))[0]["x"]
    assert found.shape == array.shape and found.dtype == array.dtype.newbyteorder("=")
    assert found.tobytes() == np.ascontiguousarray(array, array.dtype.newbyteorder("=")).tobytes()


def test_sizes_by_hand(tmp_path):
    """What is stored is what arithmetic says, and a file is its streams and its header."""
    random = np.random.RandomState(1)
    signs = np.where(random.rand(64, 8, 5, 5) < 0.5, np.float32(-0.25), np.float32(0.25))
    signs *= (1 + np.arange(64, dtype=np.float32)).reshape((64, 1, 1, 1))
    entry, streams = encoding.encode(signs)
    # A bit each, which nothing deflates, and 64 float32 scales that perhaps are deflated.
    assert len(streams[1][1]) == 64 * 8 * 25 // 8 and len(streams[0][1]) <= 64 * 4
    codes = random.randint(0, 16, 8000)
    entry, streams = encoding.encode((codes + 1).astype(np.float32))
    assert entry["values"] == {"kind": "codebook", "codes": 16, "bits": 4} and len(streams[1][1]) == 8000 * 4 // 8
    report = compact.save(str(tmp_path / "x"), {"x": (codes + 1).astype(np.float32)})
    row = report.rows[0]
    shares = np.bincount(codes) / 8000
    np.testing.assert_allclose(row.bits_each, -(shares * np.log2(shares)).sum())
    assert (row.before, row.zeros, row.different) == (32000, 0, 16)
    assert report.after == (tmp_path / "x").stat().st_size and 4000 < row.after < 4070


def test_facts_and_order_are_kept(tmp_path):
    values = {"b": np.ones(2, np.float32), "a": np.zeros(3, np.float32), "c.d": np.arange(4.0)}
    compact.save(str(tmp_path / "x"), values, {"model": "lenet5", "classes": ["a", "b"]})
    found, facts = compact.load(str(tmp_path / "x"))
    assert list(found) == ["b", "a", "c.d"] and facts == {"model": "lenet5", "classes": ["a", "b"]}
    assert files.read_facts(str(tmp_path / "x")) == facts


def test_other_types_are_refused_and_nothing_is_written(tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(UserError, match="x: y: expected an array of one of .*, received complex128"):
        compact.save(str(tmp_path / "x"), {"y": np.zeros(2, complex)})
    assert (tmp_path / "x").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_every_changed_byte_and_every_cut_is_refused(tmp_path):
    path, values = tmp_path / "x", {name: array for name, (array, _) in cases().items() if name in ("sparse", "signs", "zeros")}
    compact.save(str(path), values)
    whole = path.read_bytes()
    for place in list(range(0, 60)) + list(range(60, len(whole), 37)) + [len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1:])
        with pytest.raises(arrays.FormatError, match="expected"):
            compact.load(str(path))
    for length in [0, 3, 47, 48, 100, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(arrays.FormatError):
            compact.load(str(path))
    path.write_bytes(whole + b"x")
    with pytest.raises(arrays.FormatError):
        compact.load(str(path))


def forge(path, change):
    """Change a file's header and put right every checksum, as a hostile writer would."""
    import hashlib
    whole = path.read_bytes()
    length = int.from_bytes(whole[8:16], "little")
    header = json.loads(whole[48:48 + length])
    change(header)
    raw = json.dumps(header).encode()
    path.write_bytes(whole[:8] + len(raw).to_bytes(8, "little") + hashlib.sha256(raw).digest() + raw + whole[48 + length:])


@pytest.mark.parametrize("change, message", [
    (lambda entry: entry.update(shape=[1 << 20, 1 << 20]), "more than"), (lambda entry: entry.update(shape=[-1]), "shape"),
    (lambda entry: entry.update(shape=["a"]), "shape"), (lambda entry: entry.update(dtype="object"), "type 'object'"),
    (lambda entry: entry["positions"].update(kind="pickle"), "kinds"), (lambda entry: entry.update(elements=10**6), "elements"),
    (lambda entry: entry["positions"].update(width=60), "width"),
    (lambda entry: entry["values"].update(kind="signs"), "bits|signs"),
    (lambda entry: entry["streams"].pop(), "streams"), (lambda entry: entry["streams"][0].__setitem__(2, 1 << 40), "stream"),
    (lambda entry: entry["streams"][0].__setitem__(1, 1), "belong|stream"),
    (lambda entry: entry.update(shape=[3]), "element|positions"),
    (lambda entry: entry.pop("values"), "values"), (lambda entry: entry["positions"].update(count=5), "belong|inflated|gaps")])
def test_hostile_headers_are_refused(tmp_path, change, message):
    path = tmp_path / "x"
    compact.save(str(path), {"x": cases()["sparse"][0]})
    forge(path, lambda header: change(header["arrays"][0]))
    with pytest.raises(arrays.FormatError, match=message):
        compact.load(str(path))


def test_a_file_of_another_version_is_named(tmp_path):
    compact.save(str(tmp_path / "x"), {})
    forge(tmp_path / "x", lambda header: header.update(version=2))
    with pytest.raises(arrays.FormatError, match="expected version 1, found 2"):
        compact.load(str(tmp_path / "x"))


def test_weights_are_read_like_any_others(tmp_path):
    import gluonzoo
    from gluonzoo.interop import files as any_files
    from gluonzoo.interop import load_weights, save_weights
    from gluonzoo.training.weights import get_parameters
    net, other = (gluonzoo.get_model("lenet5") for _ in range(2))
    for one in (net, other):
        one.initialize()
    save_weights(net, str(tmp_path / "net.compact"))
    assert any_files.read(str(tmp_path / "net.compact")).format == "compact"
    load_weights(other, str(tmp_path / "net.compact"))
    mine, theirs = get_parameters(net), get_parameters(other)
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)
