"""The binary formats: what is read is what was written, and every kind of damage is named."""
import gzip
import struct

from gluonzoo.data import formats
from gluonzoo.errors import UserError

import numpy as np
import pytest
from data_files import cifar_records, idx_images, idx_labels

IMAGES = np.random.RandomState(0).randint(0, 256, (3, 28, 28), dtype=np.uint8)


def images_error(data):
    with pytest.raises(UserError) as caught:
        formats.read_idx_images("the-file", data, (28, 28))
    assert str(caught.value).startswith("the-file: at byte ") and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_round_trip(pack):
    read = formats.read_idx_images("f", pack(idx_images(IMAGES)), (28, 28))
    assert read.shape == (3, 28, 28, 1) and read.dtype == np.uint8
    np.testing.assert_array_equal(read[..., 0], IMAGES)
    labels = formats.read_idx_labels("f", pack(idx_labels([7, 0, 9])), 10)
    assert labels.dtype == np.int32 and labels.tolist() == [7, 0, 9]


def test_idx_of_several_gzip_members():
    data = idx_images(IMAGES)
    read = formats.read_idx_images("f", gzip.compress(data[:1000]) + gzip.compress(data[1000:]), (28, 28))
    np.testing.assert_array_equal(read[..., 0], IMAGES)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_wrong_contents(pack):
    good = idx_images(IMAGES)
    assert "byte 0: expected magic number 0x00000803, found 0x00000801" in images_error(
        pack(struct.pack(">I", 0x0801) + good[4:]))
    assert "byte 4: expected at least one element, found a count of 0" in images_error(
        pack(struct.pack(">4I", 0x0803, 0, 28, 28)))
    assert "byte 8: expected 28 x 28, found 32 x 28" in images_error(pack(struct.pack(">4I", 0x0803, 3, 32, 28) + good))
    assert "byte 2368: expected the end of the file after 3 elements, found more bytes" in images_error(
        pack(good + b"!"))
    assert "byte 10: expected a header of 16 bytes, found the end" in images_error(pack(good[:10]))
    message = images_error(pack(good[:1500]))
    assert "expected 2368 bytes for the 3 elements" in message and "1500 bytes" in message


def test_idx_header_that_promises_far_too_much_allocates_nothing():
    message = images_error(struct.pack(">4I", 0x0803, 0xFFFFFFFF, 28, 28) + bytes(100))
    assert f"expected {16 + 0xFFFFFFFF * 784} bytes" in message and "after 116 bytes" in message
    assert "expected" in images_error(gzip.compress(struct.pack(">4I", 0x0803, 0xFFFFFFFF, 28, 28) + bytes(100)))


def test_gzip_damage():
    packed = gzip.compress(idx_images(IMAGES))
    cut = images_error(packed[:len(packed) // 2])
    assert f"at byte {len(packed) // 2}: expected more gzip data, found the end of the file: it is cut short" in cut
    assert "expected more gzip data" in images_error(packed[:-4])
    wrong_sum = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]
    assert "expected sound gzip data, found damage (CRC check failed" in images_error(wrong_sum)
    assert "expected sound gzip data, found damage" in images_error(packed[:40] + bytes(200) + packed[240:])
    assert "expected sound gzip data, found damage" in images_error(packed + b"more")


def test_idx_label_out_of_range():
    with pytest.raises(UserError, match="f: at byte 10: expected a label from 0 to 9, found 10"):
        formats.read_idx_labels("f", idx_labels([1, 2, 10, 11]), 10)
    with pytest.raises(UserError, match="byte 0: expected magic number 0x00000801, found 0x00000803"):
        formats.read_idx_labels("f", idx_images(IMAGES), 10)


@pytest.mark.parametrize("classes", [(10,), (20, 100)])
def test_cifar_round_trip(classes):
    data, images, labels = cifar_records(30, classes)
    read, read_labels = formats.read_cifar("f", data, classes, 30)
    assert read.dtype == np.uint8 and read_labels.dtype == np.int32
    np.testing.assert_array_equal(read, images)
    np.testing.assert_array_equal(read_labels, labels)


def test_cifar_damage():
    data = cifar_records(3, (10,))[0]
    with pytest.raises(UserError, match=r"f: at byte 9000: expected 9219 bytes \(3 records of 3073\), found 9000"):
        formats.read_cifar("f", data[:9000], (10,), 3)
    with pytest.raises(UserError, match=r"at byte 6146: expected 9219 bytes .*found 6146 bytes \(2 records\)"):
        formats.read_cifar("f", data[:6146], (10,), 3)
    with pytest.raises(UserError, match="at byte 9219: expected 9219 bytes .*found 9220 bytes"):
        formats.read_cifar("f", data + b"!", (10,), 3)
    wrong = bytearray(data)
    wrong[3073] = 10
    with pytest.raises(UserError, match="f: at byte 3073: expected a label from 0 to 9, found 10"):
        formats.read_cifar("f", bytes(wrong), (10,), 3)
    fine = bytearray(cifar_records(3, (20, 100))[0])
    fine[2 * 3074 + 1] = 100
    with pytest.raises(UserError, match="f: at byte 6149: expected a label from 0 to 99, found 100"):
        formats.read_cifar("f", bytes(fine), (20, 100), 3)
