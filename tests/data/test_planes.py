"""The quick way through a photograph: the numbers of the plain way, and memory that is used again only when it is free."""
import io

from gluonzoo.data import Transform, images, planes, resizing

import numpy as np
import pytest
from PIL import Image, ImageOps

cv2 = pytest.importorskip("cv2")


@pytest.fixture(params=["opencv", "without"])
def with_and_without(request, monkeypatch):
    if request.param == "without":
        monkeypatch.setattr(planes, "_found", [None])


def photos(count=6, channels=3):
    random = np.random.RandomState(0)
    return [random.randint(0, 256, (40 + 3 * n, 70 - 5 * n, channels), dtype=np.uint8) for n in range(count)]


@pytest.mark.parametrize("shape", [(3, 24, 20), (1, 24, 20)])
@pytest.mark.parametrize("channels", [3, 1])
def test_the_numbers_are_those_of_arithmetic_in_float32(with_and_without, shape, channels):
    """Cropped, mirrored and normalised one at a time, against NumPy over the whole batch."""
    transform = Transform(shape, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), train=True, augment="resized_crop+flip", seed=3)
    pictures, indices = photos(channels=channels), np.arange(10, 16)
    made = transform(pictures, indices, 2)
    flips = 0
    for place, (picture, index) in enumerate(zip(pictures, indices)):
        box = transform._random_box(*picture.shape[:2], int(index), 2)
        prepared = transform._channels(picture[None])
        if prepared.shape[3] < shape[0]:
            prepared = np.repeat(prepared, 3, axis=3)
        shown = resizing.part(prepared, *shape[1:], box)[0].transpose(2, 0, 1)
        expected = [[plane.astype(np.float32) * np.float32(1 / (255 * std)) + np.float32(-mean / std)
                     for plane, mean, std in zip(view, transform.mean, transform.std)] for view in (shown, shown[..., ::-1])]
        same = [np.array_equal(made[place], np.stack(view)) for view in expected]
        assert sum(same) == 1
        flips += same[1]
    assert 0 < flips < len(pictures)


def test_one_image_alone_is_as_in_a_batch(with_and_without):
    transform = Transform((3, 24, 20), (0.5,), (0.2,), train=True, augment="resized_crop+flip", seed=3)
    together = transform(photos(), np.arange(6), 1).copy()
    for place, picture in enumerate(photos()):
        np.testing.assert_array_equal(transform([picture], [place], 1)[0], together[place])


def test_parts_follow_opencv_and_shrinking_by_half_or_more_takes_means(with_and_without):
    image = np.random.RandomState(1).randint(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    made = resizing.part(image, 24, 24, (0, 0, 96, 96)).astype(int)
    # Means of areas of 4x4; Pillow's triangle is wider, so only about the same.
    means = image[0].reshape(24, 4, 24, 4, 3).mean(axis=(1, 3))
    assert np.abs(made[0] - means).mean() < (0.51 if planes.opencv() else 12)
    larger = resizing.part(image, 48, 48, (8, 8, 32, 32)).astype(int)
    expected = resizing.resize(image[:, 8:32, 8:32], 48, 48)
    if planes.opencv() is None:  # At the part's border Pillow looks at the pixels beyond it.
        expected = resizing.resize(image, 48, 48, (8, 8, 32, 32))
    assert np.abs(larger - expected).max() <= 2


@pytest.mark.parametrize("kind", ["colour", "grey", "progressive", "fine chroma", "rotated by EXIF"])
def test_jpegs_decode_to_pillows_pixels(kind):
    picture = Image.fromarray(np.random.RandomState(2).randint(0, 256, (9, 11, 3), dtype=np.uint8)).resize((61, 47))
    options = {"progressive": {"progressive": True}, "fine chroma": {"subsampling": 0}}.get(kind, {})
    if kind == "grey":
        picture = picture.convert("L")
    if kind == "rotated by EXIF":
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif}
    made = io.BytesIO()
    picture.save(made, "JPEG", quality=90, **options)
    if kind == "rotated by EXIF":
        assert ImageOps.exif_transpose(Image.open(made)).size == (47, 61)
    found = images.decode(made.getvalue(), "x.jpg", decoder="opencv")
    assert found.shape == (47, 61, 3)
    np.testing.assert_array_equal(found, images.decode(made.getvalue(), "x.jpg", decoder="pillow"))


def test_cmyk_and_damage_are_left_to_pillow():
    made = io.BytesIO()
    Image.fromarray(photos(1)[0]).convert("CMYK").save(made, "JPEG")
    np.testing.assert_array_equal(images.decode(made.getvalue(), "x"), images.decode(made.getvalue(), "x", decoder="pillow"))
    made = io.BytesIO()
    Image.fromarray(photos(1)[0]).save(made, "JPEG")
    for torn in (made.getvalue()[:-40], made.getvalue()[:30], b"\xff\xd8\xff"):
        with pytest.raises(ValueError, match="x.jpg: cannot be read as an image"):
            images.decode(torn, "x.jpg")


def test_opencv_leaves_the_environment_alone(monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    monkeypatch.setattr(planes, "_found", [])
    assert planes.opencv() is not None
    import os
    assert os.environ["LD_LIBRARY_PATH"] == "/somewhere"


def test_buffers_are_used_again_only_when_nobody_holds_them():
    buffers = planes.Buffers(most=2)
    first = buffers.take((4, 3))
    first[:] = 1
    part = first[1:2]
    second = buffers.take((4, 3))
    second[:] = 2
    assert not np.shares_memory(first, second) and (first == 1).all()
    del first
    third = buffers.take((4, 3))  # A part of the first is still held.
    third[:] = 3
    assert (part == 1).all() and not np.shares_memory(part, third)
    address = second.ctypes.data
    del second
    smaller = buffers.take((2, 3))
    assert smaller.ctypes.data == address and smaller.shape == (2, 3)
    other = buffers.take((4, 5))
    assert other.shape == (4, 5) and not np.shares_memory(other, smaller)


def test_batches_that_are_kept_stay_as_they_are():
    transform = Transform((3, 24, 20), (0.5,), (0.2,), train=True, augment="resized_crop+flip", seed=3)
    kept = [transform(photos(), np.arange(6), epoch) for epoch in range(20)]
    for epoch, batch in enumerate(kept):
        np.testing.assert_array_equal(batch, transform(photos(), np.arange(6), epoch))
