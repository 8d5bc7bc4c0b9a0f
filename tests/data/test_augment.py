"""Augmentations by name; scale jitter; colour; and that no draw depends on the batch."""
import colorsys

from gluonzoo.data import ArrayDataset, Transform, augment, draws
from gluonzoo.data.augment_color import IMAGENET_LIGHTING, Lighting, color_jitter, lighting_for, lighting_of, lighting_shifts
from gluonzoo.errors import UserError

import numpy as np
import pytest

EVERY = ["crop+flip+color_jitter", "crop:2+pca_lighting", "flip+cutout:7", "resized_crop:0.3,0.9+flip+color_jitter:0.2,0.3,0.5",
         "scale_jitter+flip+cutout", "scale_jitter:240,300", "crop+randaugment:3,7", "flip+trivialaugment+pca_lighting:0.2"]


def images(count, height=32, width=32, channels=3, seed=5):
    return np.random.RandomState(seed).randint(0, 256, (count, height, width, channels), dtype=np.uint8)


def make(names, channels=3, size=32, **more):
    return Transform((channels, size, size), (0.4,) * channels, (0.25,) * channels, train=True, augment=names, **more)


def test_names_are_parsed_in_the_order_of_application():
    assert augment.parse("none") == {}
    found = augment.parse("mixup:0.4,0.5+cutout:16+flip+color_jitter:0.3+resized_crop")
    assert list(found.items()) == [("resized_crop", (0.08, 1.0)), ("flip", ()), ("color_jitter", (0.3, 0.3, 0.3)),
                                   ("cutout", (16,)), ("mixup", (0.4, 0.5))]
    assert augment.parse("color_jitter") == {"color_jitter": (0.4, 0.4, 0.4)}
    assert augment.parse("color_jitter:0.1,0.2") == {"color_jitter": (0.1, 0.2, 0.0)}
    assert augment.parse("cutout") == {"cutout": (None,)} and augment.parse("randaugment:3,5") == {"randaugment": (3, 5.0)}
    assert augment.parse("pca_lighting:own") == {"pca_lighting": (0.1, True)}
    assert augment.parse("pca_lighting:0.2,own") == augment.parse("pca_lighting:own,0.2") == {"pca_lighting": (0.2, True)}
    assert isinstance(augment.parse("cutout:8")["cutout"][0], int)


def test_default_stands_for_the_data_sets_own():
    assert augment.resolve("default", "crop+flip") == "crop+flip"
    assert augment.resolve("default+cutout:8", "crop+flip") == "crop+flip+cutout:8"
    assert augment.resolve("default+cutout:8", "none") == "cutout:8" and augment.resolve("default", "none") == "none"
    assert augment.resolve("flip", "crop") == "flip"


@pytest.mark.parametrize("text, message", [
    ("miror", "'miror' is not known; expected one or more of none, crop, resized_crop"),
    ("cutot:3", "did you mean cutout"),
    ("cutout:x", "cutout: side is 'x'; expected a whole number from 1 to 4096"),
    ("cutout:2.5", "side is '2.5'; expected a whole number"),
    ("mixup:0.2,3", "mixup: probability is '3'; expected a number from 0 to 1"),
    ("mixup:nan", "alpha is 'nan'"),
    ("mixup:0", "alpha is '0'"),
    ("crop+resized_crop", "crop and resized_crop exclude each other"),
    ("randaugment+trivialaugment", "randaugment and trivialaugment exclude each other"),
    ("flip+crop+flip", "names flip twice"),
    ("flip:3", "flip takes no numbers"),
    ("cutout:", "cutout takes side"),
    ("pca_lighting:mine", "pca_lighting: deviation is 'mine'"),
    ("resized_crop:0.9,0.2", "from 0.9 to 0.2; expected a rising range"),
    ("", "'' is not known"), ("flip+", "'' is not known"),
])
def test_wrong_names(text, message):
    with pytest.raises(UserError, match=message):
        augment.parse(text)


def test_every_name_is_described_with_its_numbers():
    lines = augment.describe()
    assert [line.partition(":")[0] for line in lines] == list(augment.AUGMENTATIONS)
    assert lines[0].startswith("crop:PADDING: so many black pixels") and lines[3].startswith("flip: left and right")
    assert any(line.startswith("pca_lighting:DEVIATION,own: ") for line in lines)


def test_the_training_configuration_checks_names():
    config = pytest.importorskip("gluonzoo.training.config")
    assert config.TrainConfig(augment="default+mixup:0.2").augment == "default+mixup:0.2"
    with pytest.raises(UserError, match="'mirror' is not known"):
        config.TrainConfig(augment="mirror")


@pytest.mark.parametrize("names", EVERY)
@pytest.mark.parametrize("channels", [1, 3])
def test_draws_do_not_depend_on_the_batch(names, channels):
    pytest.importorskip("PIL")
    source = images(20, channels=channels)
    transform = make(names, channels, seed=2)
    whole = transform(source, np.arange(20), 3)
    assert whole.dtype == np.float32 and whole.shape == (20, channels, 32, 32) and np.isfinite(whole).all()
    for part in (np.array([7]), np.array([3, 11, 4]), np.arange(19, -1, -1)):
        np.testing.assert_array_equal(transform(source[part], part, 3), whole[part])
    listed = transform(list(source), np.arange(20), 3)
    np.testing.assert_array_equal(listed, whole)
    assert not np.array_equal(transform(source, np.arange(20), 4), whole)
    assert not np.array_equal(make(names, channels, seed=3)(source, np.arange(20), 3), whole)
    large = list(images(3, 80, 90, channels))
    wide = make(names, channels, 72)(large, np.arange(3), 3)
    np.testing.assert_array_equal(make(names, channels, 72)(large[1:2], np.array([1]), 3), wide[1:2])
    plain = Transform((channels, 32, 32), (0.4,), (0.25,))(source)
    np.testing.assert_array_equal(Transform((channels, 32, 32), (0.4,), (0.25,), augment=names)(source), plain)


def test_scale_jitter_shows_a_crop_of_the_resized_image():
    transform = make("scale_jitter")
    boxes = np.array([transform._jittered_box(120, 200, index, 1) for index in range(4000)])
    tall, wide = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    np.testing.assert_allclose(tall, wide)
    # The crop is 224 / S of the shorter side, S uniform from 256 to 512.
    sides = 224 * 120 / tall
    assert 256 <= sides.min() < 257 and 511 < sides.max() <= 512 and abs(sides.mean() - 384) < 4 * 256 / 12 ** 0.5 / 4000 ** 0.5
    assert boxes[:, 0].min() >= 0 and boxes[:, 2].max() <= 120 + 1e-9 and boxes[:, 3].max() <= 200 + 1e-9
    share = boxes[:, 1] / (200 - wide)
    assert abs(share.mean() - 0.5) < 0.02 and share.min() < 0.01 and share.max() > 0.99
    narrow = make("scale_jitter:256,256")._jittered_box(256, 300, 3, 0)
    assert narrow[2] - narrow[0] == pytest.approx(224)
    # An input that is not square: the part has its aspect.
    box = Transform((3, 32, 64), (0.5,), (0.5,), train=True, augment="scale_jitter")._jittered_box(120, 200, 0, 0)
    assert (box[3] - box[1]) / (box[2] - box[0]) == pytest.approx(2)


def test_a_part_without_pillow_is_nearly_the_same(monkeypatch):
    pytest.importorskip("PIL")
    from gluonzoo.data import resizing

    image = images(1, 60, 90)
    with_pillow = resizing.part(image, 32, 32, (3.3, 7.8, 50.0, 60.25))
    monkeypatch.setattr(resizing, "_pillow", lambda: None)
    assert np.abs(resizing.part(image, 32, 32, (3.3, 7.8, 50.0, 60.25)).astype(int) - with_pillow).max() <= 2


def by_hand(pixels, brightness, contrast, saturation, order):
    """Colour jitter of one image (3, H, W), in plain NumPy, float64."""
    grey = np.array([0.299, 0.587, 0.114])
    pixels = pixels.astype(np.float64)
    for step in order:
        if step == 0:
            pixels = pixels * brightness
        elif step == 1:
            mean = np.tensordot(grey, pixels, 1).mean()
            pixels = mean + contrast * (pixels - mean)
        else:
            own = np.tensordot(grey, pixels, 1)
            pixels = own + saturation * (pixels - own)
        pixels = np.clip(pixels, 0, 255)
    return pixels


def test_colour_jitter_by_hand():
    planes = images(40, 9, 7).transpose(0, 3, 1, 2)
    indices = np.arange(100, 140)
    out = color_jitter(planes, (0.4, 0.3, 0.8), 5, 2, indices)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    seen = set()
    for plane, index, result in zip(planes, indices, out):
        draw = [draws.uniform_at(5, 2, index, stream) for stream in (64, 65, 66, 67)]
        factors = [1 - s + 2 * s * u for s, u in zip((0.4, 0.3, 0.8), draw)]
        order = orders[int(draw[3] * 6)]
        seen.add(order)
        np.testing.assert_allclose(result, by_hand(plane, *factors, order), atol=2e-3)
    assert len(seen) == 6
    np.testing.assert_array_equal(color_jitter(planes, (0, 0, 0), 5, 2, indices), planes)


def test_colour_jitter_agrees_with_pillow():
    enhance = pytest.importorskip("PIL.ImageEnhance")
    from gluonzoo.data import augment_color

    from PIL import Image

    image = images(1, 20, 30)
    for step, name in zip(augment_color._STEPS, ("Brightness", "Contrast", "Color")):
        for factor in (0.3, 0.9, 1.7):
            values = image.transpose(0, 3, 1, 2).astype(np.float32)
            step(values, np.full((1, 1, 1, 1), factor, np.float32))
            expected = np.asarray(getattr(enhance, name)(Image.fromarray(image[0])).enhance(factor)).astype(int)
            assert np.abs(values[0].transpose(1, 2, 0) - expected).max() <= 1.6, (name, factor)  # It rounds grey and the result.


def test_strengths_above_one_do_not_turn_colours_round():
    out = color_jitter(images(50).transpose(0, 3, 1, 2), (3.0, 0, 0), 0, 0, np.arange(50))
    assert out.min() >= 0 and out.max() <= 255
    factors = np.maximum(1 - 3.0, 0) + draws.uniform(0, 0, np.arange(5000), 64) * 4
    assert factors.min() >= 0 and factors.max() > 3.9


def test_saturation_leaves_grey_images_alone():
    grey = images(6, channels=1).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(color_jitter(grey, (0, 0, 0.9), 0, 0, np.arange(6)), grey)
    hue = colorsys.rgb_to_hsv(*(color_jitter(np.array([200, 100, 50], np.uint8).reshape(1, 3, 1, 1), (0, 0, 0.5), 1, 0, [3])
                                .ravel() / 255))[0]
    assert hue == pytest.approx(colorsys.rgb_to_hsv(200 / 255, 100 / 255, 50 / 255)[0], abs=1e-3)


def test_lighting_by_hand():
    indices = np.arange(7)
    shifts = lighting_shifts(IMAGENET_LIGHTING, 0.1, 3, 4, 1, indices)
    alphas = 0.1 * np.stack([draws.normal(4, 1, indices, 80 + 2 * k) for k in range(3)], axis=1)
    values, vectors = (np.array(part) for part in IMAGENET_LIGHTING)
    np.testing.assert_allclose(shifts, [vectors @ (alpha * values) for alpha in alphas], rtol=1e-5, atol=1e-8)
    # Into the network: the same shift for every pixel, divided by the deviation as pixels are.
    for size in (32, 72):
        source = images(7, size, size)
        lit = make("pca_lighting", size=size, seed=4)(source, indices, 1)
        plain = Transform((3, size, size), (0.4,) * 3, (0.25,) * 3)(source)
        np.testing.assert_allclose(lit - plain, np.broadcast_to(shifts[:, :, None, None] / 0.25, lit.shape), atol=2e-6)
    grey = lighting_shifts(IMAGENET_LIGHTING, 0.1, 1, 4, 1, indices)
    np.testing.assert_allclose(grey[:, 0], shifts @ [0.299, 0.587, 0.114], rtol=1e-4, atol=1e-7)


def test_lighting_has_the_covariance_that_it_was_made_of():
    # Alphas of deviation 1 on eigenvalues that are roots would give the covariance itself.
    lighting = Lighting((0.3, 0.1, 0.02), IMAGENET_LIGHTING.eigenvectors)
    shifts = lighting_shifts(lighting, 1.0, 3, 0, 0, np.arange(20000))
    vectors = np.array(lighting.eigenvectors)
    expected = vectors @ np.diag(np.square(lighting.eigenvalues)) @ vectors.T
    np.testing.assert_allclose(np.cov(shifts.T), expected, atol=0.003)
    assert np.abs(shifts.mean(axis=0)).max() < 4 * 0.3 / 20000 ** 0.5


def dataset(data):
    return ArrayDataset(data, "toy", "train", ("a", "b"), np.zeros(len(data), np.int32), data.shape[:0:-1], (0.5,), (0.2,),
                        "none", "a test")


def test_a_data_sets_own_lighting():
    random = np.random.RandomState(1)
    mixing = np.array([[1.0, 0.2, 0.1], [0.9, -0.3, 0.2], [0.8, 0.1, -0.5]])
    data = np.clip(128 + 30 * random.randn(30, 16, 16, 3) @ mixing.T, 0, 255).astype(np.uint8)
    found = lighting_of(dataset(data))
    covariance = np.cov(data.reshape(-1, 3).T / 255, bias=True)
    vectors, values = np.array(found.eigenvectors), np.array(found.eigenvalues)
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, covariance, atol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    assert values[0] > values[1] > values[2] > 0 and (vectors.sum(axis=0) >= 0).all()
    assert lighting_of(dataset(data)) == found  # The same data set, the same components, to the bit.
    assert lighting_of(dataset(data), most=5) != found
    grey = lighting_of(dataset(data[..., :1]))
    assert np.shape(grey.eigenvectors) == (1, 1) and grey.eigenvalues[0] == pytest.approx(np.var(data[..., 0] / 255))


def test_own_lighting_is_kept_for_a_resumed_run():
    data = images(12)
    with pytest.raises(UserError, match="pca_lighting:own needs the data set's components"):
        make("pca_lighting:own")
    assert lighting_for("flip+pca_lighting", dataset(data)) is None and lighting_for("none", dataset(data)) is None
    first = make("pca_lighting:own", lighting=lighting_for("pca_lighting:own", dataset(data)))
    kept = first.own_lighting
    # Whatever the data set has become, a resumed run goes on with what it began with.
    again = make("pca_lighting:own", lighting=lighting_for("pca_lighting:own", dataset(data[:3]), kept))
    np.testing.assert_array_equal(first(data, np.arange(12), 0), again(data, np.arange(12), 0))
    other = make("pca_lighting:own", lighting=lighting_for("pca_lighting:own", dataset(data[:3])))
    assert not np.array_equal(first(data, np.arange(12), 0), other(data, np.arange(12), 0))
    assert make("pca_lighting").own_lighting is None and make("flip").own_lighting is None
    with pytest.raises(UserError, match="lighting has 2 eigenvalues"):
        make("pca_lighting:own", lighting=((1, 2), ((1, 0), (0, 1))))


def test_normal_and_beta_draws():
    from math import erf, sqrt

    values = np.sort(draws.normal(3, 1, np.arange(20000), 5))
    expected = np.array([0.5 * (1 + erf(value / sqrt(2))) for value in values])
    assert np.abs(expected - (np.arange(20000) + 0.5) / 20000).max() < 1.95 / sqrt(20000)  # Kolmogorov and Smirnov, 99.9 %.
    stats = pytest.importorskip("scipy.stats")
    for alpha in (0.1, 0.2, 1.0, 2.5, 40.0):
        drawn = draws.beta(3, 1, np.arange(5000), 9, alpha)
        assert stats.kstest(drawn, "beta", (alpha, alpha)).statistic < 1.95 / sqrt(5000), alpha
        np.testing.assert_array_equal(draws.beta(3, 1, np.arange(40, 60), 9, alpha), drawn[40:60])
