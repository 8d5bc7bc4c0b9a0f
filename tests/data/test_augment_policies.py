"""RandAugment and TrivialAugment: each operation against NumPy or Pillow itself, and what is drawn."""
import collections

from gluonzoo.data import Transform
from gluonzoo.data import augment_policies as policies
from gluonzoo.errors import UserError

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: the policies were not tested")
RANDOM = np.random.RandomState(4)
PIXELS = RANDOM.randint(0, 256, (12, 16, 3), dtype=np.uint8)
FILL = (10, 20, 30)


def applied(name, strength, pixels=PIXELS):
    grey = pixels.ndim == 2
    return np.asarray(policies.apply(Image.fromarray(pixels), name, strength, FILL[0] if grey else FILL))


def test_operations_on_values_by_hand():
    np.testing.assert_array_equal(applied("identity", 0), PIXELS)
    np.testing.assert_array_equal(applied("posterize", 3), PIXELS & 0b11111000)
    np.testing.assert_array_equal(applied("solarize", 256 - 100), np.where(PIXELS < 100, PIXELS, 255 - PIXELS))
    np.testing.assert_array_equal(applied("solarize", 0), PIXELS)
    np.testing.assert_array_equal(applied("solarize", 256), 255 - PIXELS)
    assert np.abs(applied("brightness", -0.4).astype(int) - PIXELS * 0.6).max() <= 1
    assert np.abs(applied("brightness", 0.5).astype(int) - np.minimum(PIXELS * 1.5, 255)).max() <= 1
    low, high = PIXELS.min(axis=(0, 1)).astype(float), PIXELS.max(axis=(0, 1))
    assert np.abs(applied("autocontrast", 0) - (PIXELS - low) * 255 / (high - low)).max() <= 1.01
    grey = np.asarray(Image.fromarray(PIXELS).convert("L")).astype(int)
    assert np.abs(applied("color", -1.0).astype(int) - grey[..., None]).max() <= 1
    assert np.abs(applied("contrast", -1.0).astype(int) - grey.mean()).max() <= 1
    flat = np.full((5, 5, 3), 90, np.uint8)
    np.testing.assert_array_equal(applied("sharpness", 0.9, flat), flat)
    assert applied("sharpness", 0.9)[2:-2].std() > PIXELS[2:-2].std() > applied("sharpness", -0.9)[2:-2].std()
    dark = (np.arange(65536).reshape(256, 256) // 512).astype(np.uint8)
    assert np.abs(applied("equalize", 0, dark) - 255 / 127 * dark).max() < 1.5  # 0 to 127 are spread over the whole range.


def test_operations_on_places_by_hand():
    moved = applied("translate_x", 3.0)
    np.testing.assert_array_equal(moved[:, :-3], PIXELS[:, 3:])
    assert (moved[:, -2:] == FILL).all()
    np.testing.assert_array_equal(applied("translate_y", -2.0)[2:], PIXELS[:-2])
    assert (applied("translate_y", -2.0)[0] == FILL).all()
    # Half a turn exchanges all corners; a quarter turn of a square its rows and columns.
    np.testing.assert_array_equal(applied("rotate", 180.0), PIXELS[::-1, ::-1])
    square = RANDOM.randint(0, 256, (9, 9), dtype=np.uint8)
    np.testing.assert_array_equal(applied("rotate", 90.0, square), np.rot90(square))
    # Row y is moved by y times the tangent (of its centre); rows of one value show nothing but where it came from.
    ramp = np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8), (12, 16)).copy()
    sheared = applied("shear_x", 0.5, ramp).astype(float)
    for y in range(12):
        assert sheared[y, 5] == pytest.approx(ramp[y, 5] + 10 * 0.5 * (y + 0.5), abs=1)
    down = applied("shear_y", 0.5, ramp.T.copy()).astype(float)
    np.testing.assert_array_equal(down.T[:12, :12], sheared[:12, :12])
    assert applied("shear_x", 0.9, ramp)[11, 15] == FILL[0]


def test_grey_images_keep_their_channel():
    grey = PIXELS[..., 0]
    for name in policies.OPERATIONS:
        assert applied(name, 0.5, grey).shape == grey.shape
    np.testing.assert_array_equal(applied("color", 0.9, grey), grey)


@pytest.fixture
def told(monkeypatch):
    """The operations that are applied, in order: a list of (name, strength)."""
    calls = []

    def apply(image, name, strength, fill, modules=None):
        calls.append((name, strength, fill))
        return image
    monkeypatch.setattr(policies, "apply", apply)
    return calls


def planes(count, height=20, width=40):
    return np.zeros((count, 3, height, width), np.uint8)


def test_randaugment_draws_every_operation_equally_often_at_its_strength(told):
    policies.randaugment(planes(2000), 3, 6.0, (0.5, 0.2, 0.1), 0, 1, np.arange(2000))
    assert len(told) == 6000 and {fill for _, _, fill in told} == {(128, 51, 26)}
    counts = collections.Counter(name for name, _, _ in told)
    assert len(counts) == 14
    assert sum((count - 6000 / 14) ** 2 / (6000 / 14) for count in counts.values()) < 34.6  # 99.9 %, 13 degrees of freedom.
    largest = {"rotate": 18.0, "solarize": 153.6, "posterize": 2.4, "shear_x": 0.18, "shear_y": 0.18, "color": 0.54,
               "contrast": 0.54, "brightness": 0.54, "sharpness": 0.54, "translate_x": 40 * 60 / 224,
               "translate_y": 20 * 60 / 224}
    for name, strength, _ in told:
        assert abs(strength) == pytest.approx(largest.get(name, 0)), name
    negative = collections.Counter(name for name, strength, _ in told if strength < 0)
    assert set(negative) == set(largest) - {"solarize", "posterize"}
    assert all(0.4 < negative[name] / counts[name] < 0.6 for name in negative)


def test_trivialaugment_draws_one_operation_at_any_strength(told):
    policies.trivialaugment(planes(6000), (0.5,) * 3, 0, 1, np.arange(6000))
    assert len(told) == 6000 and len({name for name, _, _ in told}) == 14
    strengths = sorted({round(abs(strength), 9) for name, strength, _ in told if name == "rotate"})
    np.testing.assert_allclose(strengths, np.arange(31) * 135 / 30)
    assert max(strength for name, strength, _ in told if name == "translate_x") == 32.0
    assert max(strength for name, strength, _ in told if name == "posterize") == 6.0


def test_large_magnitudes_ask_for_nothing_impossible():
    images = RANDOM.randint(0, 256, (300, 3, 12, 16), dtype=np.uint8)
    out = policies.randaugment(images, 2, 30.0, (0.5,) * 3, 0, 0, np.arange(300))
    assert out.shape == images.shape and out.dtype == np.uint8


def test_images_do_not_depend_on_the_batch_and_the_source_is_kept():
    images = RANDOM.randint(0, 256, (20, 3, 12, 16), dtype=np.uint8)
    before = images.copy()
    whole = policies.randaugment(images, 2, 9.0, (0.5,) * 3, 1, 2, np.arange(20))
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(policies.randaugment(images[5:9], 2, 9.0, (0.5,) * 3, 1, 2, np.arange(5, 9)), whole[5:9])
    assert not np.array_equal(whole, before)


def test_without_pillow_the_error_says_what_to_install(monkeypatch):
    import builtins
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "PIL" or name.startswith("PIL."):
            raise ImportError(name)
        return real(name, *args, **kwargs)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"need Pillow: pip install -e '\.\[visual\]'"):
        Transform((3, 8, 8), (0.5,), (0.2,), train=True, augment="randaugment")(np.zeros((1, 8, 8, 3), np.uint8), [0])
