"""Where the published sets are found, in which forms, what is refused, and what the messages say."""
import gzip
import os
import subprocess
import sys

from gluonzoo import data
from gluonzoo.data import augment, catalog, published
from gluonzoo.errors import UserError

import numpy as np
import pytest
from data_files import cifar_records, idx_labels, mnist_like, ppm, shrink, snapshot, tar_gz, write, write_zip


def found(name, train=True, data_dir=None):
    return data.load(name, train=train, data_dir=data_dir, download=False)


def test_names():
    assert data.names() == ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "imagefolder", "records", "imagenet")


@pytest.mark.parametrize("name, message", [
    ("minst", "data set 'minst' is not known; expected one of digits, .*; nearest: mnist"),
    ("CIFAR10", "nearest: cifar10, "), ("fashion-mnist", "nearest: fashion_mnist, "),
    ("zzz", "expected one of digits, mnist, fashion_mnist, cifar10, cifar100, imagefolder, records, imagenet$")])
def test_unknown_name(name, message):
    with pytest.raises(UserError, match=message):
        data.load(name)


def test_digits():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: its digits were not read")
    from sklearn.datasets import load_digits
    train, test = data.load("digits"), data.load("digits", train=False)
    assert (len(train), len(test)) == (1433, 364)
    for dataset in (train, test):
        assert dataset.image_shape == (1, 8, 8) and dataset.classes == tuple("0123456789")
        assert dataset.data.shape == (len(dataset), 8, 8, 1) and dataset.data.dtype == np.uint8
        assert dataset.labels.dtype == np.int32 and dataset.default_augment == "none"
        assert dataset.data.max() == 255 and dataset.data.min() == 0
    # Together they are scikit-learn's images, each once, and the first of every class is a test image.
    original = load_digits()
    both = np.concatenate([train.data, test.data])[..., 0]
    assert sorted(map(bytes, both)) == sorted(map(bytes, np.rint(original.images * 255 / 16).astype(np.uint8)))
    np.testing.assert_array_equal(test.labels[:10], np.arange(10))
    np.testing.assert_array_equal(np.rint(test.data[0, ..., 0] * (16 / 255)), original.images[0])
    for label in range(10):
        count = (original.target == label).sum()
        assert (test.labels == label).sum() == -(-count // 5)
    pixels = train.data / 255.0
    assert train.mean == pytest.approx((pixels.mean(),), abs=1e-4) and train.std == pytest.approx(
        (pixels.std(),), abs=1e-4)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[demo\]'"):
        data.load("digits")


def test_dataset_object(tmp_path):
    images, labels = mnist_like(tmp_path / "mnist")
    dataset = found("mnist", data_dir=tmp_path)
    assert len(dataset) == 20 and dataset.name == "mnist" and dataset.split == "train"
    assert dataset.image_shape == (1, 28, 28) and dataset.classes == tuple("0123456789")
    np.testing.assert_array_equal(dataset.data[..., 0], images)
    np.testing.assert_array_equal(dataset.labels, labels)
    some = dataset.images(np.array([3, 0]))
    np.testing.assert_array_equal(some[..., 0], images[[3, 0]])
    some[:] = 0
    np.testing.assert_array_equal(dataset.data[..., 0], images)
    assert repr(dataset) == (f"mnist train: 20 x 1x28x28, 10 classes, from {tmp_path}/mnist (not the published files)")


@pytest.mark.parametrize("name, folder", [
    ("mnist", "mnist"), ("mnist", "MNIST/raw"), ("mnist", ""), ("fashion_mnist", "fashion_mnist"),
    ("fashion_mnist", "fashion-mnist"), ("fashion_mnist", "FashionMNIST/raw"), ("fashion_mnist", "")])
@pytest.mark.parametrize("packed", [True, False])
def test_idx_folders(tmp_path, name, folder, packed):
    images, _ = mnist_like(tmp_path / folder, split="test", packed=packed)
    np.testing.assert_array_equal(found(name, False, tmp_path).data[..., 0], images)
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz"):
        found(name, True, tmp_path)


def test_idx_with_dots(tmp_path):
    mnist_like(tmp_path, packed=False)
    for name in os.listdir(str(tmp_path)):
        os.rename(str(tmp_path / name), str(tmp_path / name.replace("-idx", ".idx")))
    assert len(found("mnist", data_dir=tmp_path)) == 20


def test_order_of_places(tmp_path, home, monkeypatch):
    counts = {"argument": 11, "variable": 12, "mxnet": 13}
    mnist_like(tmp_path / "argument" / "mnist", counts["argument"])
    mnist_like(tmp_path / "variable" / "mnist", counts["variable"])
    mnist_like(home / "mnist", counts["mxnet"])
    assert len(found("mnist")) == counts["mxnet"]
    monkeypatch.setenv("GLUONZOO_DATA", str(tmp_path / "variable"))
    assert len(found("mnist")) == counts["variable"]
    assert len(found("mnist", data_dir=tmp_path / "argument")) == counts["argument"]
    assert len(found("mnist", data_dir=tmp_path / "empty")) == counts["variable"]


def test_home_folder_without_mxnet_home(tmp_path, monkeypatch):
    monkeypatch.delenv("MXNET_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    mnist_like(tmp_path / ".mxnet" / "datasets" / "fashion-mnist")
    assert len(found("fashion_mnist")) == 20
    assert len(found("fashion_mnist", data_dir="~/.mxnet/datasets")) == 20


def known_labels(monkeypatch):
    """Give MNIST and Fashion-MNIST known training labels of 20 samples; {name: labels}."""
    import dataclasses
    import hashlib
    labels = {"mnist": np.arange(20) % 10, "fashion_mnist": np.arange(20)[::-1] % 10}
    for name, values in labels.items():
        entry = catalog.PUBLISHED[name]
        images, file = entry.resources[0]
        file = dataclasses.replace(file, plain=hashlib.sha256(idx_labels(values)).hexdigest())
        monkeypatch.setitem(catalog.PUBLISHED, name, dataclasses.replace(
            entry, resources=((images, file), entry.resources[1])))
    return labels


def as_set(folder, labels):
    mnist_like(folder)
    write(os.path.join(str(folder), "train-labels-idx1-ubyte.gz"), gzip.compress(idx_labels(labels)))


def test_fashion_is_not_taken_for_mnist(tmp_path, monkeypatch):
    labels = known_labels(monkeypatch)
    as_set(tmp_path / "shared", labels["fashion_mnist"])
    as_set(tmp_path / "wrong" / "mnist", labels["fashion_mnist"])
    before = snapshot(tmp_path)
    # Directly in the shared folder: taken for what they are, passed over for what they are not.
    monkeypatch.setenv("GLUONZOO_DATA", str(tmp_path / "shared"))
    dataset = found("fashion_mnist")
    assert dataset.published and len(dataset) == 20
    with pytest.raises(UserError, match=r"mnist \(train\) was not found"):
        found("mnist")
    # In a place that the user named, or a folder named so: an error that says whose they are.
    for place in ("shared", "wrong"):
        with pytest.raises(UserError, match="expected the labels of MNIST, found those of Fashion-MNIST"):
            found("mnist", data_dir=tmp_path / place)
    assert snapshot(tmp_path) == before


def test_unknown_idx_files_directly_in_a_shared_folder_are_nobodys(tmp_path, monkeypatch):
    mnist_like(tmp_path)
    monkeypatch.setenv("GLUONZOO_DATA", str(tmp_path))
    for name in ("mnist", "fashion_mnist"):
        with pytest.raises(UserError, match="was not found"):
            found(name)
        assert len(found(name, data_dir=tmp_path)) == 20  # Named for this set, they are meant.


def test_damaged_files_are_named_and_kept(tmp_path):
    mnist_like(tmp_path / "mnist")
    path = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=f"^{path}: at byte {len(whole) - 100}: expected more gzip data, found the end"):
        data.load("mnist", data_dir=tmp_path)  # Even when downloading is allowed.
    assert snapshot(tmp_path) == before
    path.write_bytes(whole)
    labels = tmp_path / "mnist" / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx_labels(np.zeros(19, int))))
    with pytest.raises(UserError, match=f"^{labels}: at byte 4: expected 20 labels, one for each image in {path}, "
                                        f"found 19"):
        found("mnist", data_dir=tmp_path)
    labels.write_bytes(gzip.compress(idx_labels([3, 10] * 10)))
    with pytest.raises(UserError, match=f"^{labels}: at byte 9: expected a label from 0 to 9, found 10"):
        found("mnist", data_dir=tmp_path)


CIFAR = {"cifar10": ((10,), [f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"], "cifar-10-batches-bin",
                     "cifar-10-binary.tar.gz"),
         "cifar100": ((20, 100), ["train.bin"], ["test.bin"], "cifar-100-binary", "cifar-100-binary.tar.gz")}


def cifar_like(monkeypatch, name, train=20, test=6):
    """Small files of a CIFAR set: ({file: bytes}, training images, training labels)."""
    shrink(monkeypatch, name, (train, test))
    classes, train_files, test_files = CIFAR[name][:3]
    each = train // len(train_files)
    parts = [cifar_records(each, classes, seed) for seed in range(len(train_files))]
    files = {file: part[0] for file, part in zip(train_files, parts)}
    files[test_files[0]] = cifar_records(test, classes, 9)[0]
    return files, np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts])


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_in_all_forms(tmp_path, monkeypatch, name):
    files, images, labels = cifar_like(monkeypatch, name)
    folder, tar = CIFAR[name][3:]
    below = {f"{folder}/{file}": packed for file, packed in files.items()}
    for place in ("a", f"b/{folder}", f"c/{name}", f"d/{name}/{folder}"):
        for file, packed in files.items():
            write(tmp_path / place / file, packed)
    write(tmp_path / "e" / tar, tar_gz(below))
    write(tmp_path / "f" / name / tar, tar_gz(files))
    write_zip(tmp_path / "g" / f"{name}-small.zip", below)
    places = [tmp_path / place for place in "abcdefg"]
    places += [tmp_path / "e" / tar, tmp_path / "g" / f"{name}-small.zip"]
    for place in places:
        train, test = found(name, True, place), found(name, False, place)
        np.testing.assert_array_equal(train.data, images)
        np.testing.assert_array_equal(train.labels, labels[:, -1])
        assert train.labels.dtype == np.int32 and train.published and len(test) == 6
        assert train.image_shape == (3, 32, 32) and len(train.classes) == {"cifar10": 10, "cifar100": 100}[name]
        if name == "cifar100":
            np.testing.assert_array_equal(train.coarse_labels, labels[:, 0])
        else:
            assert train.coarse_labels is None


def test_cifar10_is_found_in_shared_folders_and_general_names_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("GLUONZOO_DATA", str(tmp_path))
    for name in ("cifar10", "cifar100"):
        for file, packed in cifar_like(monkeypatch, name)[0].items():
            write(tmp_path / file, packed)
    assert len(found("cifar10")) == 20
    with pytest.raises(UserError, match="cifar100 .* was not found"):
        found("cifar100")  # train.bin could be anybody's,
    assert len(found("cifar100", data_dir=tmp_path)) == 20  # unless the place was named for it.


def test_cifar10_does_not_take_a_zip_file_of_cifar100(tmp_path, monkeypatch):
    write_zip(tmp_path / "cifar100.zip", {"x": b""})
    write_zip(tmp_path / "cifar-100-images.zip", {"x": b""})
    with pytest.raises(UserError, match="was not found"):
        found("cifar10", data_dir=tmp_path)
    with pytest.raises(UserError, match="cifar-100-images.zip: expected CIFAR-100 in it"):
        found("cifar100", data_dir=tmp_path)


def test_cifar_damage(tmp_path, monkeypatch):
    files, _, _ = cifar_like(monkeypatch, "cifar10")
    for file, packed in files.items():
        write(tmp_path / file, packed)
    path = write(tmp_path / "data_batch_3.bin", files["data_batch_3.bin"][:-1])
    with pytest.raises(UserError, match=rf"^{path}: at byte 12291: expected 12292 bytes \(4 records of 3073\), found"):
        found("cifar10", data_dir=tmp_path)
    os.remove(path)
    with pytest.raises(UserError, match="has data_batch_1.bin, but not data_batch_3.bin"):
        found("cifar10", data_dir=tmp_path)


def test_tar_damage(tmp_path, monkeypatch):
    files, _, _ = cifar_like(monkeypatch, "cifar10")
    path = tmp_path / "cifar-10-binary.tar.gz"
    whole = tar_gz(files)
    for damaged in (whole[:len(whole) // 2], whole[:200] + bytes(100) + whole[300:], b"not a tar file"):
        write(path, damaged)
        with pytest.raises(UserError, match=f"^{path}: expected a whole tar file, found one that is damaged or cut"):
            found("cifar10", data_dir=tmp_path)
        assert path.read_bytes() == damaged
    del files["data_batch_2.bin"]
    write(path, tar_gz(files))
    with pytest.raises(UserError, match=f"^{path}: expected data_batch_2.bin in it, found none of that name"):
        found("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("name, file", [
    ("cifar10", "cifar-10-batches-py/data_batch_1"), ("cifar10", "cifar-10-python.tar.gz"), ("cifar10", "batches.meta"),
    ("cifar10", "cifar10/cifar-10-batches-py/data_batch_1"), ("cifar100", "cifar-100-python/train"),
    ("cifar100", "meta")])
def test_the_python_version_is_refused_unread(tmp_path, monkeypatch, name, file):
    import pickle

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it-was-unpickled"),)
    write(tmp_path / file, pickle.dumps(Trap()))
    # No download is tried either: `download` is left at True.
    with pytest.raises(UserError, match="the Python version of CIFAR-.* not read because unpickling .* can run any code"
                                        "; put the binary version https://.*/cifar-10*-binary.tar.gz into ") as caught:
        data.load(name, data_dir=tmp_path)
    assert not (tmp_path / "it-was-unpickled").exists() and "\n" not in str(caught.value)
    if file.endswith(".tar.gz"):
        with pytest.raises(UserError, match="the Python version of CIFAR-10"):
            data.load(name, data_dir=tmp_path / file)


CIFAR10 = catalog.PUBLISHED["cifar10"].classes


def by_class(classes, size=(32, 32), count=2, splits=("train", "test")):
    return {f"{split}/{name}/{number}.ppm": ppm(np.full(size + (3,), 10 * label + number, np.uint8))
            for split in splits for label, name in enumerate(classes) for number in range(count)}


def test_images_by_class_for_a_published_set(tmp_path, monkeypatch):
    files = by_class(catalog.PUBLISHED["cifar10"].classes)
    for name, packed in files.items():
        write(tmp_path / "folder" / "cifar10" / name, packed)
    write_zip(tmp_path / "zip" / "cifar10_jpg.zip", {f"cifar10/{name}": packed for name, packed in files.items()})
    write(tmp_path / "shared" / "x", b"")
    for place in ("folder", "folder/cifar10", "zip", "zip/cifar10_jpg.zip"):
        for train in (True, False):
            dataset = found("cifar10", train, tmp_path / place)
            assert dataset.labels.tolist() == [label for label in range(10) for _ in range(2)]
            assert dataset.data[:, 5, 5, 1].tolist() == [10 * label + i for label in range(10) for i in range(2)]
            assert dataset.data.shape == (20, 32, 32, 3) and not dataset.published
            assert dataset.mean == catalog.PUBLISHED["cifar10"].mean
    monkeypatch.setenv("GLUONZOO_DATA", str(tmp_path / "zip"))
    assert len(found("cifar10")) == 20
    monkeypatch.setenv("GLUONZOO_DATA", str(tmp_path / "folder" / "cifar10"))  # A train/ directly in it is anybody's.
    with pytest.raises(UserError, match="was not found"):
        found("cifar10")


def test_classes_of_images_keep_the_labels_of_the_set(tmp_path):
    """Fashion-MNIST's labels are not in alphabetical order, and a folder cannot be called T-shirt/top."""
    names = [name.lower().replace("/", "_").replace(" ", "_") for name in catalog.PUBLISHED["fashion_mnist"].classes]
    for label, name in enumerate(names):
        write(tmp_path / "a" / "train" / name / "0.ppm", ppm(np.full((28, 28), label, np.uint8)))
    for label in range(10):
        write(tmp_path / "b" / "train" / f"{label:02}" / "0.ppm", ppm(np.full((28, 28, 3), label, np.uint8)))
    for place in "ab":
        dataset = found("fashion_mnist", data_dir=tmp_path / place)
        assert dataset.data.shape == (10, 28, 28, 1) and dataset.data[:, 0, 0, 0].tolist() == list(range(10))
        assert dataset.labels.tolist() == list(range(10)) and dataset.classes[0] == "T-shirt/top"


@pytest.mark.parametrize("classes, size, message", [
    (CIFAR10[:9], (32, 32), r"expected the 10 classes of CIFAR-10 \(airplane, .* and 5 more\), found 9 \(airplane"),
    (CIFAR10[:9] + ("lorry",), (32, 32), r"expected the 10 classes of CIFAR-10 \(.*\), found 10 \(airplane"),
    (CIFAR10, (28, 32), "airplane/0.ppm: expected 32x32 pixels as CIFAR-10 has, found 32x28"),
])
def test_images_by_class_that_are_another_set(tmp_path, classes, size, message):
    for name, packed in by_class(classes, size).items():
        write(tmp_path / name, packed)
    with pytest.raises(UserError, match=message):
        found("cifar10", data_dir=tmp_path)


def test_images_by_class_without_test_split(tmp_path):
    for name, packed in by_class("0123456789", (28, 28), splits=("train",)).items():
        write(tmp_path / name, packed)
    with pytest.raises(UserError, match="expected a folder test, val or valid beside train, found train"):
        found("mnist", False, tmp_path)


def test_zip_damage(tmp_path):
    files = by_class("0123456789", (28, 28))
    path = write_zip(tmp_path / "mnist.zip", files)
    whole = open(path, "rb").read()
    write(path, whole[:-200])
    with pytest.raises(UserError, match=f"^{path}: expected a zip file, found one that is damaged .*bytes"):
        found("mnist", data_dir=path)
    at = whole.index(files["train/3/1.ppm"])
    write(path, whole[:at + 100] + bytes([whole[at + 100] ^ 1]) + whole[at + 101:])
    with pytest.raises(UserError, match=f"^{path}:train/3/1.ppm: cannot be read from the zip file: Bad CRC-32"):
        found("mnist", data_dir=path)
    write(tmp_path / "mnist.tar", b"")
    with pytest.raises(UserError, match="mnist.tar: expected a folder or a zip file with MNIST, found another file"):
        found("mnist", data_dir=tmp_path / "mnist.tar")


def test_absent_says_where_and_how(tmp_path, home, monkeypatch):
    with pytest.raises(UserError) as caught:
        found("fashion_mnist", data_dir=tmp_path / "here")
    message = str(caught.value)
    for part in ("fashion_mnist (train) was not found: looked in ", f"{tmp_path}/here/fashion_mnist, {tmp_path}/here, ",
                 f"{home}/fashion_mnist, {home} ($GLUONZOO_DATA is not set)",
                 "get train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz from https://raw.github", "--data-dir",
                 "set $GLUONZOO_DATA to the folder above fashion_mnist"):
        assert part in message
    assert "\n" not in message and not (tmp_path / "here").exists()
    monkeypatch.setenv("GLUONZOO_DATA", str(tmp_path / "shared"))
    with pytest.raises(UserError, match="shared/cifar10, .*get cifar-10-binary.tar.gz from https://www.cs.toronto"):
        found("cifar10")


def test_half_a_set_is_mentioned(tmp_path):
    mnist_like(tmp_path / "mnist")
    os.remove(str(tmp_path / "mnist" / "train-labels-idx1-ubyte.gz"))
    with pytest.raises(UserError, match="mnist has train-images-idx3-ubyte.gz, but not train-labels-idx1-ubyte.gz"):
        found("mnist", data_dir=tmp_path)


def test_catalog_is_consistent():
    for name, entry in catalog.PUBLISHED.items():
        assert entry.name == name and entry.folders[0] == name
        assert len(entry.mean) == len(entry.std) == entry.image_shape[0]
        assert len(set(entry.classes)) == len(entry.classes) == (entry.cifar[-1][1] if entry.cifar else 10)
        assert augment.parse(entry.augment) is not None and len(entry.mirrors) >= 2
        for resource in entry.resources[0] + entry.resources[1]:
            assert len(resource.sha256) == 64 and len(resource.plain) in (0, 64) and resource.size > 0
        digests = [resource.sha256 for resource in entry.resources[0] + entry.resources[1]]
        assert len(set(digests)) == len({r.file for r in entry.resources[0] + entry.resources[1]})
        assert all(mirror.endswith("/") for mirror in entry.mirrors)
    assert list(catalog.PUBLISHED["cifar100"].classes) == sorted(catalog.PUBLISHED["cifar100"].classes)
    assert published.default_roots()


def test_importing_is_light():
    """Packages that are not needed to import must be imported where they are used, or not at all."""
    program = ("import sys, gluonzoo; before = set(sys.modules); import gluonzoo.data; "
               "print(sorted(name for name in set(sys.modules) - before if '.' not in name))")
    output = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=60, check=True,
                            text=True).stdout
    for name in ("PIL", "sklearn", "scipy", "tqdm", "requests", "cv2", "matplotlib", "pickle"):
        assert repr(name) not in output
