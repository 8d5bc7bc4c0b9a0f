"""RecordIO: ours against MXNet's own C++ in both directions, and damage named with its place."""
import struct

from gluonzoo.data import records
from gluonzoo.data.records import RecordError, RecordFile, RecordWriter, frame, pack_record, unpack_record

import mxnet as mx
import numpy as np
import pytest

MAGIC = struct.pack("<I", 0xced7230a)
#: The magic number at multiples of 4 is taken out and the record parted; anywhere else it stays.
AWKWARD = [b"", b"a", b"abcd", b"abcde", MAGIC, MAGIC * 3, b"abcd" + MAGIC + b"xy", b"a" + MAGIC + b"bcd", MAGIC + b"12345",
           b"1234" + MAGIC, b"12" + MAGIC + b"34" + MAGIC + b"5678" + MAGIC, bytes(range(256)) * 300]


def write_by_mxnet(path, payloads):
    writer = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "w")
    for number, payload in enumerate(payloads):
        writer.write_idx(number, payload)
    writer.close()


@pytest.mark.parametrize("payload", AWKWARD, ids=range(len(AWKWARD)))
def test_a_record_is_written_byte_for_byte_as_by_mxnet(tmp_path, payload):
    writer = mx.recordio.MXRecordIO(str(tmp_path / "one.rec"), "w")
    writer.write(payload)
    writer.close()
    assert frame(payload) == (tmp_path / "one.rec").read_bytes()


def test_mxnets_file_is_read(tmp_path):
    path = tmp_path / "theirs.rec"
    write_by_mxnet(path, AWKWARD)
    file = RecordFile(path)
    assert [file.payload(number) for number in range(len(file))] == AWKWARD
    (tmp_path / "theirs.idx").unlink()  # Without an index the records are found all the same.
    scanned = RecordFile(path)
    assert scanned.offsets.tolist() == file.offsets.tolist()
    assert [scanned.payload(number) for number in range(len(scanned))] == AWKWARD


def test_ours_is_read_by_mxnet(tmp_path):
    rows = [(7, [3.0], b"image"), (9, [1.0, 2.5, -4.0], b"two" + MAGIC), (12, [0.0], MAGIC)]
    with RecordWriter(tmp_path / "ours.rec") as writer:
        for row in rows:
            writer.write(*row)
    reader = mx.recordio.MXIndexedRecordIO(str(tmp_path / "ours.idx"), str(tmp_path / "ours.rec"), "r")
    assert reader.keys == [7, 9, 12]
    for number, labels, data in rows:
        header, found = mx.recordio.unpack(reader.read_idx(number))
        assert (header.id, bytes(found)) == (number, data)
        assert header.flag == (0 if len(labels) == 1 else len(labels))
        np.testing.assert_array_equal(np.ravel(header.label), np.float32(labels))
    reader.close()


def test_labels_of_one_and_several_numbers():
    record = unpack_record(mx.recordio.pack(mx.recordio.IRHeader(0, 4.0, 11, 0), b"abc"))
    assert (record.id, record.labels.tolist(), record.data) == (11, [4.0], b"abc")
    record = unpack_record(mx.recordio.pack(mx.recordio.IRHeader(0, np.array([1, 2, 3.5], np.float32), 2 ** 40, 0), b"abc"))
    assert (record.id, record.labels.tolist(), record.data) == (2 ** 40, [1.0, 2.0, 3.5], b"abc")
    assert pack_record(5, [1.5, 2.5], b"x") == struct.pack("<IfQQ2f", 2, 0, 5, 0, 1.5, 2.5) + b"x"


def packed(tmp_path, count=5):
    path = tmp_path / "some.rec"
    with RecordWriter(path) as writer:
        for number in range(count):
            writer.write(number, [number], bytes([number]) * 100)
    return path


def test_a_file_cut_short_is_named_with_its_byte(tmp_path):
    path = packed(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(RecordError, match=r"some\.rec: at byte 536: expected 124 bytes of a record, found the end after 94"):
        RecordFile(path)
    path.write_bytes(whole[:300])
    with pytest.raises(RecordError, match=r"record 3 begins at byte 396; .*some\.rec ends at byte 300: it is cut short"):
        RecordFile(path)
    (tmp_path / "some.idx").unlink()
    with pytest.raises(RecordError, match=r"at byte 272: expected 124 bytes of a record, found the end at byte 300"):
        RecordFile(path)


def test_damage_inside_is_named_with_its_byte(tmp_path):
    path = packed(tmp_path)
    data = bytearray(path.read_bytes())
    data[264:268] = b"????"
    path.write_bytes(data)
    file = RecordFile(path)  # First and last are sound.
    with pytest.raises(RecordError, match=r"at byte 264: expected magic number 0xced7230a, found 0x3f3f3f3f"):
        file.read(2)
    (tmp_path / "some.idx").unlink()
    with pytest.raises(RecordError, match=r"at byte 264: expected magic number"):
        RecordFile(path)


@pytest.mark.parametrize("text, message", [
    ("0\t0\n1\n", r"line 2: expected a key and an offset, found b'1'"),
    ("0\t0\nx\t132\n", r"line 2: expected a key and an offset, found b'x\\t132'"),
    ("", r"expected a line for each record of .*some\.rec \(660 bytes\), found none"),
    ("0\t132\n1\t264\n", r"first record begins at byte 132 .* expected byte 0"),
    ("0\t0\n1\t132\n2\t132\n", r"records 1 and 2 both begin at byte 132"),
    ("0\t0\n1\t99999\n", r"record 1 begins at byte 99999; .* ends at byte 660"),
    ("0\t0\n1\t264\n", r"record 0 at byte 0 ends at byte 132; by the index the next one begins at byte 264"),
    ("0\t0\n1\t130\n", r"at byte 8: expected 124 bytes of a record, found the end after 122"),
])
def test_an_index_that_does_not_fit_is_refused(tmp_path, text, message):
    path = packed(tmp_path)
    (tmp_path / "some.idx").write_text(text)
    with pytest.raises(RecordError, match=message):
        RecordFile(path)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(RecordError, match="absent.rec: cannot be read: No such file"):
        RecordFile(tmp_path / "absent.rec")
    (tmp_path / "empty.rec").write_bytes(b"")
    with pytest.raises(RecordError, match="at byte 0: expected records, found an empty file"):
        RecordFile(tmp_path / "empty.rec")


def test_a_record_too_long_for_the_format_is_refused(monkeypatch):
    monkeypatch.setattr(records, "LONGEST", 99)
    with pytest.raises(RecordError, match="a record of 100 bytes: the format has room for 99"):
        frame(b"x" * 100)


def test_lists(tmp_path):
    path = tmp_path / "some.lst"
    path.write_bytes("3\t1.000000\ta b/ä.jpg\r\n5\t1\t2.5\tc.jpg\n\n".encode())
    assert records.read_list(path) == ([3, 5], [(1.0,), (1.0, 2.5)], ["a b/ä.jpg", "c.jpg"])
    path.write_text("3\t1\tx.jpg\n4\tcat\ty.jpg\n")
    with pytest.raises(RecordError, match=r"line 2: expected a key, labels and a path with tabs between, found"):
        records.read_list(path)
