"""Small files in the published formats, written byte by byte for the tests."""
import dataclasses
import gzip
import hashlib
import io
import os
import struct
import tarfile
import zipfile

from gluonzoo.data import catalog, published

import numpy as np


def idx_images(images):
    return struct.pack(">4I", 0x0803, *images.shape) + images.tobytes()


def idx_labels(labels):
    return struct.pack(">2I", 0x0801, len(labels)) + bytes(int(label) for label in labels)


def mnist_like(folder, count=20, split="train", packed=True, seed=0):
    """Write the two idx files of a split; the images (N, 28, 28) and labels that are in them."""
    random = np.random.RandomState(seed)
    images = random.randint(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = np.arange(count) % 10
    prefix = "train" if split == "train" else "t10k"
    for name, data in ((f"{prefix}-images-idx3-ubyte", idx_images(images)),
                       (f"{prefix}-labels-idx1-ubyte", idx_labels(labels))):
        write(os.path.join(str(folder), name + (".gz" if packed else "")), gzip.compress(data) if packed else data)
    return images, labels


def cifar_records(count, classes, seed=0):
    """CIFAR's binary records: (bytes, images (N, 32, 32, 3), labels (N, L))."""
    random = np.random.RandomState(seed)
    images = random.randint(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = np.stack([(np.arange(count) * (i + 1) + seed) % n for i, n in enumerate(classes)], axis=1)
    data = b"".join(bytes(int(value) for value in labels[i]) + b"".join(
        images[i, :, :, channel].tobytes() for channel in range(3)) for i in range(count))
    return data, images, labels


def shrink(monkeypatch, name, records, **changes):
    """Make a published set expect (train, test) records, so that small files do."""
    small = dataclasses.replace(catalog.PUBLISHED[name], records=records, **changes)
    monkeypatch.setitem(catalog.PUBLISHED, name, small)
    assert published.PUBLISHED[name] is small
    return small


def write(path, data):
    os.makedirs(os.path.dirname(str(path)), exist_ok=True)
    with open(str(path), "wb") as file:
        file.write(data)
    return str(path)


def write_zip(path, files):
    os.makedirs(os.path.dirname(str(path)), exist_ok=True)
    with zipfile.ZipFile(str(path), "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path)


def tar_gz(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def ppm(image):
    """A (h, w, 3) or (h, w) uint8 image as PPM or PGM."""
    kind = b"P6" if image.ndim == 3 else b"P5"
    return kind + b"\n# made by a test\n%d %d\n255\n" % (image.shape[1], image.shape[0]) + image.tobytes()


def snapshot(folder):
    """{path: (SHA-256, size)} of everything in a folder."""
    found = {}
    for root, folders, files in os.walk(str(folder)):
        for name in folders:
            found[os.path.join(root, name)] = "folder"
        for name in files:
            with open(os.path.join(root, name), "rb") as file:
                found[os.path.join(root, name)] = hashlib.sha256(file.read()).hexdigest()
    return found
