"""ImageNet from its tar files: a small tree in the published layout; MATLAB's format against SciPy's writer."""
import io
import os
import tarfile

from gluonzoo.data import Loader, ShardedBatches, imagenet, load, packing, packing_list
from gluonzoo.data.matlab import read_mat
from gluonzoo.data.records_dataset import RecordDataset
from gluonzoo.errors import UserError

import numpy as np
import pytest
from PIL import Image

scipy_io = pytest.importorskip("scipy.io", reason="SciPy writes the .mat files that are read here")

#: wnid, words, ILSVRC2012_ID (another order than the wnids'), training images.
SYNSETS = [("n03000003", "zebra finch, finch", 1, 3), ("n01000001", "tench, Tinca tinca", 2, 4), ("n02000002", "crane", 3, 2)]
#: By ILSVRC2012_ID: zebra finch, crane, tench, tench, crane.
TRUTH = [1, 3, 2, 2, 3]
SORTED = ["n01000001", "n02000002", "n03000003"]


def jpeg(number):
    small = np.random.RandomState(number).randint(0, 256, (4, 5, 3), dtype=np.uint8)
    made = io.BytesIO()
    Image.fromarray(small).resize((25, 20), Image.BICUBIC).save(made, "JPEG")
    return made.getvalue()


def tar(files, mode="w"):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as packed:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            packed.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def meta(compressed=True):
    inner = ("n09999999", "animal, beast", 4, 0)  # A synset with children is no class.
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", object), ("words", object), ("gloss", object), ("num_children", "f8"),
             ("children", object), ("wordnet_height", "f8"), ("num_train_images", "f8")]
    rows = np.zeros((4, 1), dtype=[(name, object) for name, _ in kinds])
    for place, (wnid, words, number, count) in enumerate([*SYNSETS, inner]):
        leaf = wnid != inner[0]
        rows[place, 0] = (np.uint16(number), wnid, words, "some gloss", np.uint8(0 if leaf else 2),
                          np.zeros((1, 0)) if leaf else np.array([[1.0, 2.0]]), np.uint8(0), np.uint16(count))
    made = io.BytesIO()
    scipy_io.savemat(made, {"synsets": rows}, do_compression=compressed)
    return made.getvalue()


def tree(folder, compressed=True):
    """The three files, small; {name: bytes} of the images."""
    folder.mkdir()
    images, number, classes = {}, 0, []
    for wnid, _, _, count in sorted(SYNSETS):
        members = []
        for _ in range(count):
            members.append((f"{wnid}_{number}.JPEG", jpeg(number)))
            number += 1
        classes.append((f"{wnid}.tar", tar(members)))
        images.update((f"{wnid}/{name}", data) for name, data in members)
    (folder / imagenet.TRAINING).write_bytes(tar(classes))
    # In another order than by name, which the ground truth goes by.
    validation = [(f"ILSVRC2012_val_{place + 1:08d}.JPEG", jpeg(100 + place)) for place in (3, 0, 4, 1, 2)]
    images.update(validation)
    (folder / imagenet.VALIDATION).write_bytes(tar(validation))
    truth = "".join(f"{number}\n" for number in TRUTH).encode()
    (folder / imagenet.DEVKIT).write_bytes(tar([
        ("ILSVRC2012_devkit_t12/data/meta.mat", meta(compressed)),
        ("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth)], "w:gz"))
    return images


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The folder of a small tree that passes the checks of size and MD5, and its images."""
    images = tree(tmp_path / "ilsvrc")
    known = {name: (os.path.getsize(tmp_path / "ilsvrc" / name), imagenet._md5(str(tmp_path / "ilsvrc" / name)))
             for name in (imagenet.TRAINING, imagenet.VALIDATION, imagenet.DEVKIT)}
    monkeypatch.setattr(imagenet, "_PUBLISHED", known)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return str(tmp_path / "ilsvrc"), images


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("use", ["first", "from the index"])
def test_training_images_and_classes(small, use):
    folder, images = small
    for _ in range(1 if use == "first" else 2):
        dataset = load("imagenet", data_dir=folder)
    assert dataset.classes == ("n01000001 tench", "n02000002 crane", "n03000003 zebra finch")
    assert dataset.labels.tolist() == [0] * 4 + [1] * 2 + [2] * 3
    for (name, _, _), image in zip(dataset.files, dataset.images(range(9))):
        np.testing.assert_array_equal(image, decoded(images[name]))
    assert os.path.exists(os.path.join(folder, imagenet.TRAINING + ".index"))


def test_validation_labels_are_by_name_and_sorted_wnid(small):
    folder, images = small
    dataset = load("imagenet", False, folder)
    found = {name: int(label) for (name, _, _), label in zip(dataset.files, dataset.labels)}
    for place, number in enumerate(TRUTH):
        wnid = next(wnid for wnid, _, known, _ in SYNSETS if known == number)
        assert found[f"ILSVRC2012_val_{place + 1:08d}.JPEG"] == SORTED.index(wnid)
    for (name, _, _), image in zip(dataset.files, dataset.images(range(5))):
        np.testing.assert_array_equal(image, decoded(images[name]))


def test_read_in_blocks_every_image_once(small):
    dataset = load("imagenet", data_dir=small[0])
    loader = Loader(dataset, ShardedBatches(9, 2, blocks=(2, 2)), lambda images, *_: np.stack(images), 0)
    seen = []
    for batch, pixels, labels in loader:
        for index, image, label in zip(batch.indices, pixels, labels):
            np.testing.assert_array_equal(image, dataset.images([index])[0])
            assert label == dataset.labels[index]
        seen += batch.indices.tolist()
    assert sorted(seen) == list(range(9))


def test_packed_from_the_tar_files(small, tmp_path):
    folder, images = small
    for train, labels in ((True, [0] * 4 + [1] * 2 + [2] * 3), (False, [2, 1, 0, 0, 1])):
        packing.pack(packing_list.from_imagenet(folder, train), tmp_path / f"p{train}", processes=2)
        dataset = RecordDataset(str(tmp_path / f"p{train}.rec"))
        assert dataset.classes == ("n01000001 tench", "n02000002 crane", "n03000003 zebra finch")
        assert sorted(dataset.labels.tolist()) == sorted(labels)
        names = [line.split("\t")[2] for line in (tmp_path / f"p{train}.lst").read_text().splitlines()]
        assert sorted(names) == sorted(name for name in images if ("/" in name) == train)
        for index, name in enumerate(names):
            assert dataset.record_file.read(index).data == images[name]


def test_the_index_is_of_this_very_file_and_whole(small):
    folder, _ = small
    path = os.path.join(folder, imagenet.VALIDATION)
    rows = imagenet.tar_index(path)
    index = path + ".index"
    whole = open(index).read()
    for torn in (whole[:-30], whole.replace("\t", " ", 1), "", "[]\n"):
        open(index, "w").write(torn)
        assert imagenet.tar_index(path) == rows and open(index).read() == whole
    os.utime(path, ns=(1, 1))
    imagenet.tar_index(path)
    assert '"modified": 1,' in open(index).read()


def test_an_index_in_the_cache_where_the_folder_cannot_be_written(small, monkeypatch, tmp_path):
    folder, _ = small
    path = os.path.join(folder, imagenet.VALIDATION)
    os.mkdir(path + ".index")  # Nothing can be renamed to this.
    rows = imagenet.tar_index(path)
    assert len(os.listdir(tmp_path / "cache" / "gluonzoo")) == 1
    monkeypatch.setattr(imagenet, "_scan", None)
    assert imagenet.tar_index(path) == rows


def test_files_that_are_not_the_published_ones(small, monkeypatch):
    folder, _ = small
    with pytest.raises(UserError, match="is not a folder; name the one that holds ILSVRC2012_img_train.tar"):
        load("imagenet", data_dir=folder + "x")
    path = os.path.join(folder, imagenet.TRAINING)
    data = bytearray(open(path, "rb").read())
    data[700] ^= 1
    open(path, "wb").write(data)
    with pytest.raises(UserError, match=r"img_train.tar: expected the published file with MD5 \w+, found \w+: it is damaged"):
        imagenet.check_files(folder, "md5")
    open(path, "wb").write(data[:-512])
    with pytest.raises(UserError, match=r"img_train.tar: expected the published file of \d+ bytes, found .*: it is cut short"):
        load("imagenet", data_dir=folder)
    monkeypatch.setenv("GLUONZOO_IMAGENET_CHECK", "some")
    with pytest.raises(UserError, match="the check of ImageNet's files is 'some'; expected one of md5, size, none"):
        load("imagenet", data_dir=folder)
    os.unlink(os.path.join(folder, imagenet.DEVKIT))
    with pytest.raises(UserError, match="ILSVRC2012_devkit_t12.tar.gz does not exist"):
        imagenet.load_imagenet(folder, True, "none")


def test_tar_files_that_are_cut_short_or_lack_images(small):
    folder, _ = small
    path = os.path.join(folder, imagenet.TRAINING)
    data = open(path, "rb").read()
    open(path, "wb").write(data[:len(data) // 2])
    with pytest.raises(UserError, match="expected a whole tar file of"):
        imagenet.load_imagenet(folder, True, "none")
    path = os.path.join(folder, imagenet.VALIDATION)
    open(path, "wb").write(tar([("ILSVRC2012_val_00000001.JPEG", jpeg(1))]))
    with pytest.raises(UserError, match="expected 5 images, as many as the ground truth has lines, found 1"):
        imagenet.load_imagenet(folder, False, "none")


def test_a_class_with_too_few_images(small):
    folder, _ = small
    path = os.path.join(folder, imagenet.TRAINING)
    classes = [(f"{wnid}.tar", tar([(f"{wnid}_{n}.JPEG", jpeg(n)) for n in range(count - (wnid == SORTED[1]))]))
               for wnid, _, _, count in SYNSETS]
    open(path, "wb").write(tar(classes))
    with pytest.raises(UserError, match="expected 2 images of class n02000002 as the devkit says, found 1"):
        imagenet.training_files(folder)
    assert len(imagenet.training_files(folder, "none")[2]) == 8


def test_the_published_facts():
    # Sizes and digests as the organisers' download page and torchvision's data set have them.
    assert imagenet._PUBLISHED[imagenet.TRAINING] == (147897477120, "1d675b47d978889d74fa0da5fadfb00e")
    assert imagenet._PUBLISHED[imagenet.VALIDATION] == (6744924160, "29b22e2961454d5413ddabcf34fc5622")
    assert imagenet._PUBLISHED[imagenet.DEVKIT][1] == "fa75699e90414af021442c21a62c3abf"


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab_files_against_scipy(compressed):
    values = {"numbers": np.arange(6.0).reshape(2, 3), "small": np.uint8([[7]]), "text": "häß", "empty": np.zeros((0, 0)),
              "wide": np.array([[2 ** 40]], dtype=np.int64), "cells": np.array(["one", "two"], dtype=object)}
    made = io.BytesIO()
    scipy_io.savemat(made, values, do_compression=compressed)
    found = read_mat("some.mat", made.getvalue())
    assert set(found) == set(values) and found["text"] == "häß" and found["cells"] == ["one", "two"]
    for name in ("numbers", "small", "wide", "empty"):
        np.testing.assert_array_equal(found[name], values[name])
    table = read_mat("meta.mat", meta(compressed))["synsets"]
    assert [row["WNID"] for row in table] == [row[0] for row in SYNSETS] + ["n09999999"]
    assert [int(row["ILSVRC2012_ID"].item()) for row in table] == [1, 2, 3, 4]
    np.testing.assert_array_equal(table[3]["children"], [[1, 2]])


def test_damaged_matlab_files_end_in_an_error_that_names_them():
    data = meta(False)
    with pytest.raises(UserError, match="x.mat: expected a MATLAB file of level 5, found 10 bytes"):
        read_mat("x.mat", data[:10])
    with pytest.raises(UserError, match="x.mat: cannot be read as a MATLAB file of level 5: .* cut short"):
        read_mat("x.mat", data[:-100])
    packed = bytearray(meta(True))
    packed[200:220] = bytes(20)
    with pytest.raises(UserError, match="x.mat: cannot be read .* (damaged compression|compressed data)"):
        read_mat("x.mat", bytes(packed))
    random = np.random.RandomState(0)
    for _ in range(300):  # Whatever is changed: a value or a UserError, nothing else.
        torn = bytearray(data)
        for place in random.randint(128, len(data), 3):
            torn[place] = random.randint(256)
        try:
            read_mat("x.mat", bytes(torn))
        except UserError as error:
            assert "x.mat" in str(error)
