"""Image files: every kind decodes, every kind of damage is named, folders by class are listed as promised."""
import io
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

from gluonzoo import data
from gluonzoo.data import Loader, ShardedBatches, Transform, images
from gluonzoo.errors import UserError

import numpy as np
import pytest
from data_files import ppm, write, write_zip

RANDOM = np.random.RandomState(1)
PICTURE = np.kron(RANDOM.randint(0, 256, (6, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8)  # 24 x 32, blocks.

# Written with Pillow: 2x2 pixels red, green, blue, white, so that PNG is read even where Pillow is absent.
TINY_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000002000000020802000000fdd49a730000001649444154789c63f8cfc0c0f09f819181e1ffff"
    "ff0c001ef604fd09ed343e0000000049454e44ae426082")


@pytest.fixture
def pillow():
    return pytest.importorskip("PIL.Image", reason="Pillow is not installed: the kinds it writes were not read")


def encoded(image, kind, **more):
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def kinds(pillow):
    """(name, bytes, the RGB pixels expected, allowed difference)."""
    picture = pillow.fromarray(PICTURE)
    grey = picture.convert("L")
    grey_rgb = np.repeat(np.asarray(grey)[..., None], 3, axis=2)
    see_through = picture.copy()
    see_through.putalpha(100)
    palette = picture.convert("P")
    index_zero = encoded(palette, "PNG", transparency=bytes([0, 128]))
    deep = pillow.fromarray(np.asarray(grey).astype(np.uint16) * 256 + 17)
    cmyk = picture.convert("CMYK")
    return [("png", encoded(picture, "PNG"), PICTURE, 0), ("bmp", encoded(picture, "BMP"), PICTURE, 0),
            ("jpeg", encoded(picture, "JPEG", quality=100, subsampling=0), PICTURE, 4),
            ("grey png", encoded(grey, "PNG"), grey_rgb, 0), ("grey bmp", encoded(grey, "BMP"), grey_rgb, 0),
            ("grey jpeg", encoded(grey, "JPEG", quality=100), grey_rgb, 3),
            ("rgba png", encoded(see_through, "PNG"), PICTURE, 0),
            ("palette png", encoded(palette, "PNG"), np.asarray(palette.convert("RGB")), 0),
            ("transparent palette png", index_zero, np.asarray(palette.convert("RGB")), 0),
            ("1-bit png", encoded(grey.convert("1"), "PNG"), np.asarray(grey.convert("1").convert("RGB")), 0),
            ("16-bit png", encoded(deep, "PNG"), grey_rgb, 0),
            ("cmyk jpeg", encoded(cmyk, "JPEG", quality=100, subsampling=0), np.asarray(cmyk.convert("RGB")), 12),
            ("ppm", encoded(picture, "PPM"), PICTURE, 0), ("pgm", encoded(grey, "PPM"), grey_rgb, 0)]


@pytest.mark.parametrize("decoder", ["pillow", "mxnet"])
def test_kinds_of_images(pillow, decoder):
    for name, packed, expected, allowed in kinds(pillow):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read = images.decode(packed, name, decoder=decoder)
        assert read.shape == PICTURE.shape and read.dtype == np.uint8, name
        assert np.abs(read.astype(int) - expected).max() <= allowed, name
        assert images.decode(packed, name, 1, decoder).shape == PICTURE.shape[:2] + (1,)


def test_both_decoders_agree(pillow):
    for name, packed, _, _ in kinds(pillow):
        by_pillow, by_mxnet = (images.decode(packed, name, decoder=decoder) for decoder in ("pillow", "mxnet"))
        assert np.abs(by_pillow.astype(int) - by_mxnet).max() <= (1 if "cmyk" in name else 0), name


@pytest.mark.parametrize("decoder", ["pillow", "mxnet"])
def test_damaged_images_are_named(pillow, decoder):
    for name, packed, _, _ in kinds(pillow):
        for damaged in (packed[:len(packed) // 2], packed[:-40], b""):
            with pytest.raises(UserError, match=f"^{name}: cannot be read as an image \\({len(damaged)} bytes\\)"):
                images.decode(damaged, name, decoder=decoder)
    for damaged in (b"not an image at all" * 9, b"P5\n", b"\xff\xd8\xff"):
        with pytest.raises(UserError, match="^x.jpg: cannot be read as an image") as caught:
            images.decode(damaged, "x.jpg", decoder=decoder)
        assert "\n" not in str(caught.value)


def test_jpeg_with_a_preview_is_checked_to_its_own_end(pillow):
    """The preview's end marker must not pass for that of the image."""
    picture = pillow.fromarray(PICTURE)
    whole = encoded(picture, "JPEG", comment=encoded(picture, "JPEG"))
    assert images.decode(whole, "x", decoder="mxnet").shape == PICTURE.shape
    with pytest.raises(UserError, match="the JPEG data is cut short"):
        images.decode(whole[:-30], "x", decoder="mxnet")


def test_png_without_pillow(monkeypatch):
    monkeypatch.setattr(images, "_pillow", lambda: None)
    assert images.decode(TINY_PNG, "x").tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]


@pytest.mark.parametrize("packed, expected", [
    (b"P5 2 1 255\n\x05\xff", [[5, 255]]),
    (b"P5\n# a comment\n2 1\n# another\n15\n\x00\x0f", [[0, 255]]),
    (b"P5 2 1 65535 \x00\x00\xff\xff", [[0, 255]]),
    (b"P2\n2 2\n10\n0 5\n10 1\n", [[0, 128], [255, 26]]),
    (b"P6 1 1 255\n\x01\x02\x03", [[[1, 2, 3]]]),
    (b"P3 1 1 255\n1 2 3\n", [[[1, 2, 3]]]),
])
def test_netpbm_by_hand(packed, expected):
    expected = np.asarray(expected)
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    np.testing.assert_array_equal(images.decode(packed, "x"), expected)


@pytest.mark.parametrize("packed, message", [
    (b"P5 2 2 255\n\x01\x02\x03", "4 values were expected, 3 found"),
    (b"P2 2 2 255\n1 2 3", "4 values were expected, 3 found"),
    (b"P5 0 2 255\n", "size 0x2 and maximum 255"), (b"P5 2 2 0\n1234", "size 2x2 and maximum 0"),
    (b"P5 2 2 70000\n1234", "maximum 70000"), (b"P6 2\n", "header of a PGM or PPM file"),
    (b"P2 1 1 255\nx", "invalid literal"), (b"P5 99999999 99999999 255\n123", "values were expected, 3 found"),
])
def test_netpbm_damage(packed, message):
    with pytest.raises(UserError, match=message):
        images.decode(packed, "x")


def tree(classes=("cat", "dog"), splits=("train", "val"), count=3):
    """{path: bytes} of images by class; the red of an image is 10 * class + number."""
    return {f"{split}/{name}/{number}.ppm": ppm(np.full((6 + number, 8, 3), 10 * label + number, np.uint8))
            for split in splits for label, name in enumerate(classes) for number in range(count)}


def write_tree(folder, files):
    for name, packed in files.items():
        write(os.path.join(str(folder), name), packed)
    return str(folder)


def reds(dataset):
    return [int(image[0, 0, 0]) for image in dataset.images(range(len(dataset)))]


@pytest.mark.parametrize("packed", ["folder", "zip", "zip with a folder"])
def test_imagefolder(tmp_path, packed):
    files = tree()
    files.update({"train/cat/notes.txt": b"x", "train/.hidden/a.ppm": b"", "train/README": b""})
    if packed == "folder":
        root = write_tree(tmp_path / "set", files)
    else:
        prefix = "top/pets/" if "with" in packed else ""
        more = {"__MACOSX/train/cat/._0.ppm": b"", prefix + "train/": b""}
        root = write_zip(tmp_path / "set.zip", dict({prefix + name: data for name, data in files.items()}, **more))
    train, test = (data.load("imagefolder", train=split, data_dir=root) for split in (True, False))
    for dataset in (train, test):
        assert dataset.classes == ("cat", "dog") and dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert dataset.labels.dtype == np.int32 and dataset.image_shape is None and len(dataset) == 6
        assert reds(dataset) == [0, 1, 2, 10, 11, 12]
        assert [image.shape for image in dataset.images([2, 0])] == [(8, 8, 3), (6, 8, 3)]
        assert dataset.default_augment == "resized_crop+flip" and not dataset.published
    assert (train.split, test.split, train.name) == ("train", "test", "imagefolder")


def test_imagefolder_through_the_loader(tmp_path):
    root = write_tree(tmp_path, tree(count=20))
    dataset = data.load("imagefolder", data_dir=root)
    transform = Transform((3, 16, 16), dataset.mean, dataset.std, train=True, augment=dataset.default_augment)
    runs = [[part for part in Loader(dataset, ShardedBatches(40, 8, seed=1), transform, 0, threads=threads)]
            for threads in (1, 3)]
    for (batch, pixels, labels), (_, again, _) in zip(*runs):
        np.testing.assert_array_equal(pixels, again)
        np.testing.assert_array_equal(labels, batch.indices // 20)
        # Every image is of one colour, so any part of it shows which it is.
        red = np.rint((pixels[:, 0, 8, 8] * dataset.std[0] + dataset.mean[0]) * 255)
        np.testing.assert_array_equal(red, batch.indices // 20 * 10 + [
            int(os.path.basename(dataset.files[index])[:-4]) for index in batch.indices])


def test_imagefolder_extensions_in_any_case(tmp_path, pillow):
    files = tree(count=1)
    picture = pillow.fromarray(PICTURE)
    for name, kind in (("a.JPG", "JPEG"), ("b.Jpeg", "JPEG"), ("c.PNG", "PNG"), ("d.bmp", "BMP"), ("e.PGM", "PPM")):
        files[f"train/cat/{name}"] = encoded(picture.convert("L") if name == "e.PGM" else picture, kind)
    dataset = data.load("imagefolder", data_dir=write_tree(tmp_path, files))
    assert [os.path.basename(name) for name in dataset.files] == [
        "0.ppm", "a.JPG", "b.Jpeg", "c.PNG", "d.bmp", "e.PGM", "0.ppm"]
    assert all(image.shape[2] == 3 for image in dataset.images(range(7)))


def test_imagefolder_deeper_folders_and_other_kinds(tmp_path):
    files = tree(count=1)
    files["train/cat/more/images/z.ppm"] = files["train/cat/0.ppm"]
    files["train/dog/x.webp"] = files["train/dog/y.gif"] = b"?"
    with pytest.warns(UserWarning, match="2 images of kinds that are not read were left out"):
        dataset = data.load("imagefolder", data_dir=write_tree(tmp_path, files))
    assert dataset.files == ["train/cat/0.ppm", "train/cat/more/images/z.ppm", "train/dog/0.ppm"]


def test_imagefolder_splits(tmp_path):
    for number, name in enumerate(("test", "valid", "val")):  # Each of them is preferred to those before it.
        write_tree(tmp_path, tree(splits=("train", name), count=1 + number))
        assert len(data.load("imagefolder", train=False, data_dir=tmp_path)) == 2 * (1 + number)


def test_imagefolder_validation_may_lack_a_class_but_keeps_the_numbers(tmp_path):
    files = tree(classes=("ant", "bee", "cow"))
    files = {name: packed for name, packed in files.items() if not name.startswith("val/bee")}
    dataset = data.load("imagefolder", train=False, data_dir=write_tree(tmp_path, files))
    assert dataset.classes == ("ant", "bee", "cow") and dataset.labels.tolist() == [0, 0, 0, 2, 2, 2]


def test_zip_file_read_by_many_threads(tmp_path):
    dataset = data.load("imagefolder", data_dir=write_zip(tmp_path / "a.zip", tree(count=100)))
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: dataset.images(range(start % 8, 200, 8)), range(64)))
    expected = [10 * label + int(name.split("/")[-1][:-4]) for label, name in zip(dataset.labels, dataset.files)]
    for start, part in enumerate(parts):
        assert [int(image[0, 0, 0]) for image in part] == expected[start % 8::8]


def without(files, start):
    return {name: packed for name, packed in files.items() if not name.startswith(start)}


@pytest.mark.parametrize("change, train, message", [
    (lambda f: without(f, "train/dog"), True, "train: expected a folder for each of at least two classes, found only"),
    (lambda f: dict(without(f, "train"), **{"train/x.ppm": b""}), True, "at least two classes, found none"),
    (lambda f: dict(without(f, "train/dog"), **{"train/dog/a.txt": b""}), True, "dog: expected images .* found none"),
    (lambda f: dict(without(f, "train/dog"), **{"train/dog/a.gif": b""}), True, "dog: .* found 1 of other kinds"),
    (lambda f: dict(f, **{"val/emu/0.ppm": b""}), False, r"val: expected classes among .*\(cat, dog\), found emu"),
    (lambda f: without(f, "val"), False, "expected a folder val, valid or test beside train, found train"),
    (lambda f: dict(without(f, "val"), **{"val/README": b""}), False, "val: expected images by class, found none"),
    (lambda f: without(f, "train"), True, "expected a folder train with a folder for each class in it, found none in"),
])
@pytest.mark.parametrize("packed", [False, True])
def test_imagefolder_errors(tmp_path, change, train, message, packed):
    files = change(tree())
    root = write_zip(tmp_path / "a.zip", files) if packed else write_tree(tmp_path / "a", files)
    with pytest.raises(UserError, match=message) as caught:
        data.load("imagefolder", train=train, data_dir=root)
    assert "\n" not in str(caught.value) and root in str(caught.value)


def test_imagefolder_empty_class_folder(tmp_path):
    root = write_tree(tmp_path, tree())
    os.makedirs(os.path.join(root, "train", "emu"))
    with pytest.raises(UserError, match="emu: expected images .* found none"):
        data.load("imagefolder", data_dir=root)


def test_imagefolder_absent(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"found none in .*gone \(does not exist\); name the folder .* --data-dir"):
        data.load("imagefolder", data_dir=tmp_path / "gone")
    monkeypatch.setenv("GLUONZOO_DATA", str(tmp_path / "shared"))
    with pytest.raises(UserError, match="shared/imagefolder.*mxnet-home/datasets"):
        data.load("imagefolder")
    write_tree(tmp_path / "shared" / "imagefolder", tree())
    assert len(data.load("imagefolder")) == 6


def test_unreadable_image_names_the_file_and_spares_the_others(tmp_path):
    files = tree()
    files["train/dog/1.ppm"] = files["train/dog/1.ppm"][:-10]
    root = write_tree(tmp_path / "a", files)
    dataset = data.load("imagefolder", data_dir=root)
    assert len(dataset.images([0, 3, 5])) == 3
    path = os.path.join(root, "train", "dog", "1.ppm")
    with pytest.raises(UserError, match=f"^{path}: cannot be read as an image"):
        dataset.images([4])
    os.remove(path)
    with pytest.raises(UserError, match=f"^{path}: cannot be read: No such file"):
        dataset.images([4])
    zipped = data.load("imagefolder", data_dir=write_zip(tmp_path / "a.zip", files))
    with pytest.raises(UserError, match="a.zip:train/dog/1.ppm: cannot be read as an image"):
        zipped.images([4])
