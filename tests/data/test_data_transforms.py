"""Fitting, augmentation and normalisation against hand-worked numbers, plain loops, and Pillow."""
from gluonzoo.data import Transform, draws, resize
from gluonzoo.data.resizing import part as part_of
from gluonzoo.data.transforms import to_grey
from gluonzoo.errors import UserError

import numpy as np
import pytest

RANDOM = np.random.RandomState(3)


def raw(shape, images, **more):
    """What a transform makes of images, as pixels 0..255 (mean 0, std 1/255)."""
    indices = more.pop("indices", None)
    epoch = more.pop("epoch", 0)
    out = Transform(shape, (0.0,), (1 / 255,), **more)(images, indices, epoch)
    assert out.dtype == np.float32 and out.flags.c_contiguous and out.shape == (len(images),) + shape
    np.testing.assert_allclose(out, np.rint(out), atol=1e-3)
    return np.rint(out).astype(int)


def test_normalisation_by_hand():
    images = np.array([[[[0], [51]], [[102], [255]]]], np.uint8)
    out = Transform((1, 2, 2), (0.5,), (0.25,))(images)
    np.testing.assert_allclose(out, [[[[-2.0, -1.2], [-0.4, 2.0]]]], rtol=1e-6)
    colour = np.array([[[[255, 0, 51]]]], np.uint8)
    out = Transform((3, 1, 1), (0.5, 0.1, 0.2), (0.5, 0.2, 0.1))(colour)
    np.testing.assert_allclose(out.ravel(), [1.0, -0.5, 0.0], atol=1e-6)


def test_28_to_32_is_padded_in_the_centre():
    images = RANDOM.randint(0, 256, (3, 28, 28, 1), dtype=np.uint8)
    out = raw((1, 32, 32), images)
    np.testing.assert_array_equal(out[:, 0, 2:30, 2:30], images[..., 0])
    assert out[:, 0, :2].sum() == out[:, 0, 30:].sum() == out[:, 0, :, :2].sum() == out[:, 0, :, 30:].sum() == 0


def test_black_is_padding_before_normalisation():
    out = Transform((1, 32, 32), (0.5,), (0.5,))(np.full((1, 28, 28, 1), 255, np.uint8))
    assert out[0, 0, 0, 0] == -1 and out[0, 0, 16, 16] == 1


def test_digits_get_a_margin():
    out = raw((1, 32, 32), np.full((2, 8, 8, 1), 200, np.uint8))
    assert (out[:, 0, 4:28, 4:28] == 200).all() and out.sum() == 2 * 200 * 24 * 24
    assert (raw((1, 28, 28), np.full((1, 8, 8, 1), 200, np.uint8)) > 0).sum() == 21 * 21


def test_other_sizes_are_resized_whole():
    images = RANDOM.randint(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(raw((3, 64, 64), images).transpose(0, 2, 3, 1), resize(images, 64, 64))
    np.testing.assert_array_equal(raw((3, 28, 28), images).transpose(0, 2, 3, 1), resize(images, 28, 28))
    np.testing.assert_array_equal(raw((3, 224, 224), images[:1]).transpose(0, 2, 3, 1), resize(images[:1], 224, 224))


def test_channels_are_converted():
    grey = RANDOM.randint(0, 256, (2, 8, 8, 1), dtype=np.uint8)
    out = raw((3, 8, 8), grey)
    for channel in range(3):
        np.testing.assert_array_equal(out[:, channel], grey[..., 0])
    colour = np.array([[[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 10, 10]]]], np.uint8)
    assert raw((1, 1, 4), colour).ravel().tolist() == [76, 150, 29, 10]  # 0.299, 0.587, 0.114 of 255.
    # The mean of RGB serves a grey network too: luma of the means.
    one = Transform((1, 4, 4), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert one.mean == pytest.approx((0.299 * 0.5 + 0.587 * 0.4 + 0.114 * 0.3,), abs=1e-4)
    assert one.std == pytest.approx((0.3,))
    assert Transform((3, 4, 4), (0.5,), (0.2,)).mean == (0.5, 0.5, 0.5)


def test_grey_agrees_with_pillow():
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed: luma was not compared with it")
    image = RANDOM.randint(0, 256, (50, 60, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_grey(image)[..., 0], np.asarray(image_module.fromarray(image).convert("L")))


def test_resize_by_hand():
    image = np.array([0, 100], np.uint8).reshape(1, 2, 1)
    assert resize(image, 1, 4).ravel().tolist() == [0, 25, 75, 100]
    # Shrinking by two: triangles of half-width 2 around 1.0 and 3.0, weights 1 3 3 1 cut at the border.
    image = np.array([0, 70, 140, 210], np.uint8).reshape(1, 4, 1)
    assert resize(image, 1, 2).ravel().tolist() == [round((70 * 3 + 140) / 7), round((70 + 140 * 3 + 210 * 3) / 7)]
    assert resize(image, 1, 2, box=(0, 1, 1, 3)).ravel().tolist() == [70, 140]
    assert resize(image.repeat(3, axis=0), 3, 4).tolist() == image.repeat(3, axis=0).tolist()


@pytest.mark.parametrize("size, out, box", [
    ((8, 8), (28, 28), None), ((100, 80), (64, 50), None), ((37, 53), (37, 20), None), ((32, 32), (224, 224), None),
    ((120, 90), (32, 32), (10, 5, 100, 85)), ((60, 60), (48, 40), (0.5, 3.25, 50.75, 57.5))])
def test_resize_agrees_with_pillow(size, out, box):
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed: resizing was not compared with it")
    image = RANDOM.randint(0, 256, size + (3,), dtype=np.uint8)
    pillow_box = box and (box[1], box[0], box[3], box[2])
    result = resize(image, *out, box=box)
    for channel in range(3):  # In floating point; of bytes Pillow rounds the weights and between the two directions.
        values = image_module.fromarray(image[..., channel].astype(np.float32))
        expected = np.asarray(values.resize(out[::-1], image_module.BILINEAR, box=pillow_box))
        assert np.abs(result[..., channel] - expected).max() <= 0.5005


def test_resize_of_a_batch_is_that_of_each_image():
    images = RANDOM.randint(0, 256, (5, 20, 30, 1), dtype=np.uint8)
    together = resize(images, 33, 17)
    for image, one in zip(images, together):
        np.testing.assert_array_equal(resize(image, 33, 17), one)


def by_hand(image, index, epoch, seed, crop, flip):
    """The crop and flip of one image (h, w, c), in plain Python."""
    rows, columns, channels = image.shape
    if crop:
        down = int(draws.uniform_at(seed, epoch, index, 0) * 9)
        across = int(draws.uniform_at(seed, epoch, index, 1) * 9)
        padded = np.zeros((rows + 8, columns + 8, channels), np.uint8)
        for y in range(rows):
            for x in range(columns):
                padded[y + 4, x + 4] = image[y, x]
        image = padded[down:down + rows, across:across + columns]
    if flip and draws.uniform_at(seed, epoch, index, 2) < 0.5:
        image = image[:, ::-1]
    return image.transpose(2, 0, 1)


@pytest.mark.parametrize("augment", ["crop", "flip", "crop+flip"])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_and_flip_by_hand(augment, channels):
    images = RANDOM.randint(1, 256, (40, 10, 12, channels), dtype=np.uint8)
    indices = np.arange(500, 540)
    before = images.copy()
    out = raw((channels, 10, 12), images, train=True, augment=augment, seed=9, indices=indices, epoch=4)
    np.testing.assert_array_equal(images, before)
    for image, index, result in zip(images, indices, out):
        np.testing.assert_array_equal(result, by_hand(image, index, 4, 9, "crop" in augment, "flip" in augment))


def test_crop_of_a_padded_image_moves_it_in_one_canvas():
    images = RANDOM.randint(1, 256, (30, 28, 28, 1), dtype=np.uint8)
    out = raw((1, 32, 32), images, train=True, augment="crop", indices=np.arange(30))
    for i in range(30):
        canvas = np.zeros((32, 32, 1), np.uint8)
        canvas[2:30, 2:30] = images[i]
        np.testing.assert_array_equal(out[i], by_hand(canvas, i, 0, 0, True, False))


def test_offsets_and_flips_are_uniform():
    indices = np.arange(9000)
    for stream in (0, 1):
        counts = np.bincount(draws.integers(0, 0, indices, stream, 9), minlength=9)
        assert len(counts) == 9 and ((counts - 1000) ** 2 / 1000).sum() < 26.1  # 99.9 %, 8 degrees of freedom.
    assert abs((draws.uniform(0, 0, indices, 2) < 0.5).mean() - 0.5) < 0.02
    down, across = (draws.uniform(0, 0, indices, stream) for stream in (0, 1))
    assert abs(np.corrcoef(down, across)[0, 1]) < 0.04


@pytest.mark.parametrize("augment", ["none", "crop", "flip", "crop+flip", "resized_crop+flip", "scale_jitter"])
def test_draws_do_not_depend_on_the_batch(augment):
    images = RANDOM.randint(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    transform = Transform((3, 32, 32), (0.5,), (0.5,), train=True, augment=augment, seed=2)
    whole = transform(images, np.arange(24), 3)
    order = RANDOM.permutation(24)
    for part in np.array_split(order, 5):
        np.testing.assert_array_equal(transform(images[part], part, 3), whole[part])
    if augment != "none":
        assert not np.array_equal(transform(images, np.arange(24), 4), whole)  # Another epoch.
        other = Transform((3, 32, 32), (0.5,), (0.5,), train=True, augment=augment, seed=3)
        assert not np.array_equal(other(images, np.arange(24), 3), whole)
    still = Transform((3, 32, 32), (0.5,), (0.5,), train=False, augment=augment)
    np.testing.assert_array_equal(still(images), Transform((3, 32, 32), (0.5,), (0.5,))(images))


def test_arrays_and_lists_of_one_size_agree():
    images = RANDOM.randint(0, 256, (6, 28, 28, 3), dtype=np.uint8)
    for augment in ("none", "crop+flip", "resized_crop+flip"):
        transform = Transform((3, 32, 32), (0.5,), (0.5,), train=True, augment=augment)
        np.testing.assert_array_equal(transform(images, np.arange(6), 1), transform(list(images), np.arange(6), 1))


def ramp(rows, columns):
    """An image whose red is its row and green its column, so that a crop shows where it was taken."""
    image = np.zeros((rows, columns, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(rows)[:, None], np.arange(columns)
    return image


def test_photographs_keep_their_aspect_and_show_the_centre():
    out = raw((3, 70, 70), [ramp(160, 240)])[0]
    # 224/256 of the shorter side, 140 pixels, from 10 to 150 and from 50 to 190; each output pixel covers two.
    np.testing.assert_allclose(out[0, 1:-1, 35], 10 + 2 * np.arange(1, 69) + 0.5, atol=0.51)
    np.testing.assert_allclose(out[1, 35, 1:-1], 50 + 2 * np.arange(1, 69) + 0.5, atol=0.51)


def test_photographs_of_any_size_and_grey_in_one_batch():
    images = [ramp(160, 240), ramp(40, 30), ramp(70, 70), RANDOM.randint(0, 256, (99, 50, 1), dtype=np.uint8)]
    out = raw((3, 70, 70), images)
    np.testing.assert_array_equal(out[2], images[2].transpose(2, 0, 1))
    np.testing.assert_array_equal(out[3, 0], out[3, 2])
    assert raw((1, 70, 70), images).shape == (4, 1, 70, 70)


def test_crop_of_a_photograph_uses_its_whole_shorter_side():
    image = ramp(140, 140)
    boxes = raw((3, 70, 70), [image] * 200, train=True, augment="crop", indices=np.arange(200))
    expected = part_of(image[None], 70, 70, (0, 0, 140, 140))[0]
    assert np.abs(expected.astype(int) - resize(image, 70, 70)).max() <= 1
    for index in range(200):
        np.testing.assert_array_equal(boxes[index], by_hand(expected, index, 0, 0, True, False))


def test_resized_crop_has_area_and_ratio_as_published():
    transform = Transform((3, 32, 32), (0.5,), (0.5,), train=True, augment="resized_crop+flip")
    boxes = np.array([transform._random_box(120, 200, index, 1) for index in range(2000)])
    tall, wide = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes[:, 0].min() >= 0 and boxes[:, 2].max() <= 120 and boxes[:, 1].min() >= 0 and boxes[:, 3].max() <= 200
    assert boxes[:, 1].min() < 5 and boxes[:, 3].max() > 195
    share = tall * wide / (120 * 200)
    assert 0.07 < share.min() < 0.1 and share.max() > 0.6
    assert 0.72 < (wide / tall).min() < 0.78 and 1.28 < (wide / tall).max() < 1.37


def test_resized_crop_shows_its_box():
    transform = Transform((3, 32, 32), (0.0,), (1 / 255,), train=True, augment="resized_crop+flip")
    out = transform([ramp(120, 200)] * 50, np.arange(50), 0)
    for index in range(50):
        box = transform._random_box(120, 200, index, 0)
        flipped = draws.uniform_at(0, 0, index, 2) < 0.5
        rows, columns = out[index, 0, :, 16], out[index, 1, 16, ::-1 if flipped else 1]
        assert abs(rows.mean() + 0.5 - (box[0] + box[2]) / 2) < 1
        assert abs(columns.mean() + 0.5 - (box[1] + box[3]) / 2) < 1
        assert abs((rows[-1] - rows[0]) - (box[2] - box[0]) * 31 / 32) < 2.5 and columns[0] < columns[-1]


def test_resized_crop_of_a_very_long_image_is_its_centre():
    transform = Transform((3, 32, 32), (0.5,), (0.5,), train=True, augment="resized_crop+flip")
    top, left, bottom, right = transform._random_box(10, 1000, 0, 0)
    assert (top, bottom) == (0, 10) and left == pytest.approx(500 - 20 / 3) and right == pytest.approx(500 + 20 / 3)
    top, left, bottom, right = transform._random_box(1000, 10, 0, 0)
    assert (left, right) == (0, 10) and bottom - top == pytest.approx(40 / 3)


def test_no_images_give_an_empty_array():
    for images in (np.zeros((0, 8, 8, 1), np.uint8), []):
        out = Transform((3, 32, 32), (0.5,), (0.5,), train=True, augment="crop")(images, [], 0)
        assert out.shape == (0, 3, 32, 32) and out.dtype == np.float32


@pytest.mark.parametrize("arguments, message", [
    (((1, 32), (0.5,), (0.5,)), r"input_shape is \(1, 32\); expected \(C, H, W\)"),
    (((2, 32, 32), (0.5,), (0.5,)), r"input_shape is \(2, 32, 32\)"),
    (((3, 0, 32), (0.5,), (0.5,)), r"input_shape is \(3, 0, 32\)"),
    (((3, 32, 32), (0.5, 0.5), (0.5,)), r"mean is \(0.5, 0.5\); expected 1 or 3"),
    (((3, 32, 32), (0.5,), (float("nan"),)), "std is .*; expected 1 or 3 finite"),
    (((3, 32, 32), (0.5,), (0.0,)), r"std is \(0.0,\); expected numbers above 0"),
    (((3, 32, 32), (0.5,), (0.5,), True, "mirror"), "augmentation 'mirror' is not known; expected one or more of none, crop"),
])
def test_wrong_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        Transform(*arguments)


def test_wrong_images():
    transform = Transform((3, 32, 32), (0.5,), (0.5,), train=True, augment="flip")
    with pytest.raises(ValueError, match="2 images came with no indices"):
        transform(np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="2 images came with 1 indices"):
        transform(np.zeros((2, 32, 32, 3), np.uint8), [0])
    with pytest.raises(ValueError, match=r"an image of shape \(32, 32, 4\) and type uint8"):
        transform(np.zeros((2, 32, 32, 4), np.uint8), [0, 1])
    with pytest.raises(ValueError, match="type float32 was given; expected"):
        transform(np.zeros((2, 32, 32, 3), np.float32), [0, 1])
