"""Test protocols: which crops of an image, in which size, and whose they are."""
from gluonzoo.data import Transform, resize
from gluonzoo.errors import UserError
from gluonzoo.evaluation import Protocol
from gluonzoo.evaluation.views import Views, grid
from gluonzoo.export.crops import ten_crops, whole_images

import numpy as np
import pytest


def transform(size=56, channels=3):
    return Transform((channels, size, size), (0.0,), (1 / 255,))


def images(*shapes):
    return [np.random.RandomState(number).randint(0, 256, shape, dtype=np.uint8) for number, shape in enumerate(shapes)]


def shown(sources, size=56, **protocol):
    """Per image its views as pixels, in the order in which they come."""
    groups, = Views(Protocol(**protocol), [transform(size)])(sources)
    found = [[] for _ in sources]
    for planes, owners in groups:
        assert planes.dtype == np.float32 and len(planes) == len(owners)
        for view, owner in zip(planes, owners):
            found[owner].append(np.rint(view).astype(int).transpose(1, 2, 0))
    return found


def test_one_crop_is_the_transform():
    sources = images((80, 100, 3), (60, 60, 3))
    expected = np.rint(transform()(sources)).astype(int).transpose(0, 2, 3, 1)
    for mirror in (False, True):
        for views, image in zip(shown(sources, mirror=mirror), expected):
            assert len(views) == 1 + mirror
            np.testing.assert_array_equal(views[0], image)
            np.testing.assert_array_equal(views[-1], image[:, ::-1] if mirror else image)


def test_ten_crops_are_those_of_predict():
    sources = images((64, 64, 3), (100, 80, 3))
    expected = np.rint(ten_crops(sources, transform())).astype(int).transpose(0, 1, 3, 4, 2)
    for views, crops in zip(shown(sources, crops="10"), expected):
        np.testing.assert_array_equal(np.stack(views), crops)


def test_dense_is_the_whole_image():
    sources = images((64, 64, 3), (100, 80, 3), (64, 64, 3), (128, 128, 3))
    found, expected = shown(sources, crops="dense"), whole_images(sources, transform())
    for views, image in zip(found, expected):
        assert len(views) == 1
        np.testing.assert_array_equal(views[0], np.rint(image[0]).astype(int).transpose(1, 2, 0))
    groups, = Views(Protocol("dense"), [transform()])(sources)
    assert [len(owners) for _, owners in groups] == [3, 1]  # Those of one size are run together.
    assert [view.shape[:2] for view in shown(sources, crops="dense", scales=(56, 96))[1]] == [(70, 56), (120, 96)]
    assert len(shown(sources, crops="dense", scales=(64, 96), mirror=True)[0]) == 4


def test_a_grid_of_any_number_of_crops():
    assert grid(1, 10, 20) == [(5, 10)]
    assert grid(4, 8, 20) == [(0, 0), (0, 20), (8, 0), (8, 20)]
    assert grid(5, 8, 20) == [(0, 0), (0, 20), (4, 10), (8, 0), (8, 20)]  # Corners and centre.
    assert grid(25, 8, 20) == [(top, left) for top in (0, 2, 4, 6, 8) for left in (0, 5, 10, 15, 20)]
    assert grid(9, 0, 2) == [(0, 0), (0, 1), (0, 2)] * 3
    for count in range(1, 60):
        places = grid(count, 1000, 1000)
        assert len(places) == len(set(places)) == count
        assert sorted((top, 1000 - left) for top, left in places) == sorted(places)  # Left and right are symmetric.
        if count > 3:
            assert {0, 1000} <= {top for top, _ in places} and {0, 1000} <= {left for _, left in places}


@pytest.mark.parametrize("crops, places, mirrored", [("50", 25, True), ("9", 9, False), ("2", 1, True), ("3", 3, False)])
def test_crops_on_a_grid_show_the_whole_image(crops, places, mirrored):
    image, = images((64, 96, 3))
    views, = shown([image], crops=crops)
    expected = [image[top:top + 56, left:left + 56] for top, left in grid(places, 8, 40)]
    assert len(views) == int(crops) == Protocol(crops).views_of_an_image()
    np.testing.assert_array_equal(np.stack(views[:places]), expected)
    if mirrored:
        np.testing.assert_array_equal(np.stack(views[places:]), np.stack(expected)[:, :, ::-1])


def test_googlenets_144_crops():
    image, = images((72, 72, 3))
    views, = shown([image], crops="144")
    assert len(views) == Protocol("144").views_of_an_image() == 144
    # The second of the scales 64, 72, 80, 88 is the image's own: three times the same square, here the whole image.
    second = views[18:36]
    corners = [(0, 0), (0, 16), (16, 0), (16, 16), (8, 8)]
    for square in (second[:6], second[6:12], second[12:]):
        for view, (top, left) in zip(square, corners):
            np.testing.assert_array_equal(view, image[top:top + 56, left:left + 56])
        np.testing.assert_array_equal(square[5], resize(image, 56, 56))
    np.testing.assert_array_equal(np.stack(views[72:]), np.stack(views[:72])[:, :, ::-1])
    # A wide image: its squares are left, middle and right.
    wide, = images((72, 100, 3))
    views, = shown([wide], crops="144", scales=(72,))
    assert len(views) == 36
    for number, left in enumerate((0, 14, 28)):
        np.testing.assert_array_equal(views[6 * number], wide[:56, left:left + 56])
        np.testing.assert_array_equal(views[6 * number + 5], resize(wide[:, left:left + 72], 56, 56))
    tall, = shown([wide.transpose(1, 0, 2)], crops="144", scales=(72,))
    np.testing.assert_array_equal(tall[6], wide.transpose(1, 0, 2)[14:70, :56])


def test_several_scales():
    image, = images((80, 80, 3))
    views, = shown([image], scales=(56, 80))
    np.testing.assert_array_equal(views[0], resize(image, 56, 56))
    np.testing.assert_array_equal(views[1], image[12:68, 12:68])
    assert len(shown([image], crops="10", scales=(60, 64, 80))[0]) == 30 == Protocol("10", (60, 64, 80)).views_of_an_image()
    assert Protocol("1", (60, 64), True).views_of_an_image() == 4 and Protocol("dense").views_of_an_image() == 1


def test_grey_and_colour_in_one_batch():
    sources = images((64, 64, 3), (64, 64, 1))
    assert all(view.shape == (56, 56, 3) for views in shown(sources, crops="10") for view in views)
    groups, = Views(Protocol("dense"), [transform(56, 1)])(sources)
    assert groups[0][0].shape == (2, 1, 64, 64)
    assert Views(Protocol(), [transform()])([]) == [[]]


@pytest.mark.parametrize("arguments, message", [
    (("0",), "crops is '0'; expected dense, or a number from 1"), (("all",), "crops is 'all'"), (("-3",), "crops is '-3'"),
    (("1", (0,)), r"scales are \(0,\); expected whole numbers of at least 1"), (("1", (1.5,)), "scales are"),
])
def test_wrong_protocols(arguments, message):
    with pytest.raises(UserError, match=message):
        Protocol(*arguments)


def test_a_scale_smaller_than_the_crops_is_refused():
    with pytest.raises(UserError, match="scale 50 is smaller than the crops, 56x56; expected at least 56, or crops dense"):
        Views(Protocol("10", (64, 50)), [transform()])
    Views(Protocol("dense", (50,)), [transform()])
