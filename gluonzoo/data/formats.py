"""The published binary formats: idx (MNIST) and CIFAR's records. Every byte is checked; nothing is unpickled.

Source: idx: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", file formats: a big-endian magic number 0x0803
(images) or 0x0801 (labels), the sizes as 32-bit numbers, then one byte an element. CIFAR: A. Krizhevsky,
"The CIFAR-10 dataset", binary version: one label byte (CIFAR-100: coarse, then fine), then 32x32 red, green, blue.
Differences: none known.
"""
import gzip
import io
import struct
import zlib

import numpy as np

from ..errors import UserError

__all__ = ["plain_bytes", "read_idx_images", "read_idx_labels", "read_cifar"]

_MAGIC = {1: 0x0801, 3: 0x0803}
#: Deflate cannot shrink data more than this, so a header that promises more is wrong, whatever it says.
_MOST_SHRUNK = 1032


def _wrong(name, offset, expected, found):
    return UserError(f"{name}: at byte {offset}: expected {expected}, found {found}")


def _is_gzip(data):
    return data[:2] == b"\x1f\x8b"


def plain_bytes(name, data, most=None):
    """`data` itself, or what it unpacks to where it is gzip (recognised by its first bytes); at most `most` bytes.

    Raises: UserError when the gzip data is cut short or damaged.
    """
    if not _is_gzip(data):
        return data if most is None else data[:most]
    packed = io.BytesIO(data)
    try:
        with gzip.GzipFile(fileobj=packed) as file:
            return file.read() if most is None else file.read(most)
    except EOFError as error:
        raise _wrong(name, len(data), "more gzip data", "the end of the file: it is cut short") from error
    except (OSError, zlib.error) as error:
        raise _wrong(name, packed.tell(), "sound gzip data", f"damage ({error})") from error


def _read_idx(name, data, dimensions, shape=()):
    """An idx file as an array of uint8 with `dimensions` axes, the last of which must be `shape`."""
    length = 4 + 4 * dimensions
    header = plain_bytes(name, data, length)
    if len(header) < length:
        raise _wrong(name, len(header), f"a header of {length} bytes", "the end of the file")
    magic, count, *rest = struct.unpack(f">{1 + dimensions}I", header)
    if magic != _MAGIC[dimensions]:
        raise _wrong(name, 0, f"magic number 0x{_MAGIC[dimensions]:08x}", f"0x{magic:08x}")
    if count == 0:
        raise _wrong(name, 4, "at least one element", "a count of 0")
    if tuple(rest) != shape:
        raise _wrong(name, 8, " x ".join(map(str, shape)), " x ".join(map(str, rest)))
    size = length + count * int(np.prod(shape, dtype=np.int64))
    if size > len(data) * (_MOST_SHRUNK if _is_gzip(data) else 1):
        end = len(data) if _is_gzip(data) else min(len(data), size)
        raise _wrong(name, end, f"{size} bytes for the {count} elements that the header counts",
                     f"the end of the file after {len(data)} bytes")
    plain = plain_bytes(name, data, size + 1)
    if len(plain) < size:
        raise _wrong(name, len(plain), f"{size} bytes for the {count} elements that the header counts",
                     f"the end of the data after {len(plain)} bytes")
    if len(plain) > size:
        raise _wrong(name, size, f"the end of the file after {count} elements", "more bytes")
    return np.frombuffer(plain, dtype=np.uint8, offset=length).reshape((count,) + shape)


def read_idx_images(name, data, shape):
    """Images of an idx file.

    Shape: -> (N, h, w, 1) uint8 with (h, w) = `shape`.
    Args: name: the file's name, for messages; data: its bytes, gzip or not.
    Raises: UserError with file, offset, expected and found.
    """
    return _read_idx(name, data, 3, tuple(shape))[..., None]


def read_idx_labels(name, data, classes):
    """Labels of an idx file, each below `classes`.

    Shape: -> (N,) int32.
    Raises: UserError with file, offset, expected and found.
    """
    labels = _read_idx(name, data, 1)
    _check_labels(name, labels, classes, 8, 1)
    return labels.astype(np.int32)


def _check_labels(name, labels, classes, offset, stride):
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise _wrong(name, offset + int(wrong[0]) * stride, f"a label from 0 to {classes - 1}", int(labels[wrong[0]]))


def read_cifar(name, data, classes, records):
    """One file of the binary version of CIFAR.

    Shape: -> images (N, 32, 32, 3) uint8, labels (N, L) int32 with L = len(classes).
    Args: classes: number of classes of every label byte: (10,) or (20, 100).
        records: images that the published file holds.
    Raises: UserError with file, offset, expected and found.
    """
    size = len(classes) + 3072
    if len(data) != records * size:
        raise _wrong(name, min(len(data), records * size), f"{records * size} bytes ({records} records of {size})",
                     f"{len(data)} bytes ({len(data) / size:g} records)")
    table = np.frombuffer(data, dtype=np.uint8).reshape(records, size)
    for column, count in enumerate(classes):
        _check_labels(name, table[:, column], count, column, size)
    images = table[:, len(classes):].reshape(records, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), table[:, :len(classes)].astype(np.int32)
