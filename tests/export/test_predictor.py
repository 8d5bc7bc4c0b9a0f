"""From image files to classes with nothing but an export."""
from gluonzoo import data
from gluonzoo.errors import UserError
from gluonzoo.export import ExportError, Metadata, to_symbol
from gluonzoo.export.predictor import Predictor, find_images, read_images

import numpy as np
import pytest

mx = pytest.importorskip("mxnet")

MEAN, STD = (0.25,), (0.5,)


class Brightness(mx.gluon.HybridBlock):
    """Logits (left half, right half, 0): mean of the normalised pixels of each half."""

    def hybrid_forward(self, F, x):
        left, right = F.split(F.mean(x, axis=(1, 2)), num_outputs=2, axis=1)
        halves = F.concat(F.mean(left, axis=1, keepdims=True), F.mean(right, axis=1, keepdims=True), dim=1)
        return F.concat(halves * 4, F.sum(halves, axis=1, keepdims=True) * 0, dim=1)


@pytest.fixture
def prefix(tmp_path):
    (tmp_path / "export").mkdir()
    path = str(tmp_path / "export" / "net")
    to_symbol(Brightness(), path, (1, 4, 8), metadata={"mean": MEAN, "std": STD, "classes": ("left", "right", "none")})
    return path


def picture(left, right):
    image = np.zeros((4, 8, 1), "uint8")
    image[:, :4], image[:, 4:] = left, right
    return image


def expected(left, right):
    logits = np.array([4 * ((left / 255) - 0.25) / 0.5, 4 * ((right / 255) - 0.25) / 0.5, 0])
    return np.exp(logits) / np.exp(logits).sum()


def pgm(path, image):
    path.write_bytes(b"P5 8 4 255\n" + image.tobytes())
    return str(path)


def test_probabilities_by_hand(prefix):
    predictor = Predictor(prefix)
    found = predictor.probabilities([picture(255, 0), picture(0, 128), np.repeat(picture(255, 0), 3, axis=2)])
    np.testing.assert_allclose(found, [expected(255, 0), expected(0, 128), expected(255, 0)], rtol=1e-5)


def test_predictions_are_named_and_sorted(prefix):
    (first, second), = Predictor(prefix).predict([picture(0, 255)], top=2)
    assert (first.index, first.name, second.index, second.name) == (1, "right", 2, "none")
    assert first.probability == pytest.approx(expected(0, 255)[1], rel=1e-5)
    assert len(Predictor(prefix).predict([picture(0, 255)], top=9)[0]) == 3


def test_many_images_are_each_as_alone(prefix):
    predictor = Predictor(prefix)
    images = [picture(*pair) for pair in np.random.RandomState(0).randint(0, 256, (7, 2))]
    together = predictor.probabilities(images)
    for image, row in zip(images, together):
        np.testing.assert_allclose(predictor.probabilities([image])[0], row, rtol=1e-6)


def test_an_export_without_normalisation_or_with_another_transform(tmp_path, prefix):
    to_symbol(Brightness(), str(tmp_path / "plain"), (1, 4, 8))
    with pytest.raises(ExportError, match="does not say how pixels are normalised"):
        Predictor(str(tmp_path / "plain"))
    metadata = Metadata.read(prefix + ".json")
    metadata.transform["name"] = "somebody's"
    metadata.write(prefix + ".json")
    with pytest.raises(ExportError, match="somebody's"):
        Predictor(prefix)


def test_images_and_arrays_are_read(tmp_path):
    rng = np.random.RandomState(0)
    grey, colour, many = (rng.randint(0, 256, shape).astype("uint8") for shape in ((4, 8, 1), (4, 8, 3), (2, 4, 8, 3)))
    (from_pgm,) = read_images(pgm(tmp_path / "a.pgm", grey))
    np.testing.assert_array_equal(from_pgm, np.repeat(grey, 3, axis=2))
    for name, array, images in (("g", grey[..., 0], [grey]), ("c", colour, [colour]), ("m", many, list(many))):
        np.save(str(tmp_path / name), array)
        found = read_images(str(tmp_path / (name + ".npy")))
        assert len(found) == len(images)
        for a, b in zip(found, images):
            np.testing.assert_array_equal(a, b)


def test_png_and_jpeg_are_read_without_pillow(tmp_path, monkeypatch):
    image_module = pytest.importorskip("PIL.Image")
    colour = np.random.RandomState(0).randint(0, 256, (4, 8, 3)).astype("uint8")
    image_module.fromarray(colour).save(str(tmp_path / "c.png"))
    monkeypatch.setattr(data.images, "_pillow", lambda: None)
    np.testing.assert_array_equal(read_images(str(tmp_path / "c.png"))[0], colour)


@pytest.mark.parametrize("name, content, words", [
    ("a.png", b"", "a.png"), ("a.jpg", b"text", "a.jpg"), ("a.npy", b"text", "a.npy"), ("a.npy", b"", "a.npy"),
])
def test_unreadable_files_are_named_in_one_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read_images(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("array, words", [
    (np.zeros((4, 8), "float32"), "expected pixels of uint8, found float32"),
    (np.zeros((4, 8, 2), "uint8"), r"\(1, 4, 8, 2\)"),
    (np.zeros(4, "uint8"), r"\(4,\)"), (np.zeros((0, 4, 8, 3), "uint8"), r"\(0, 4, 8, 3\)"),
    (np.array([{"an": "object"}]), "a.npy"),
])
def test_arrays_that_are_no_images(tmp_path, array, words):
    np.save(str(tmp_path / "a.npy"), array)
    with pytest.raises(ExportError, match=words):
        read_images(str(tmp_path / "a.npy"))


def test_an_archive_and_a_lying_header_are_refused(tmp_path):
    with open(str(tmp_path / "a.npy"), "wb") as file:
        np.savez(file, a=np.zeros((4, 8), "uint8"))
    with pytest.raises(ExportError, match="archive"):
        read_images(str(tmp_path / "a.npy"))
    np.save(str(tmp_path / "b.npy"), np.zeros((4, 8), "uint8"))
    raw = (tmp_path / "b.npy").read_bytes()
    (tmp_path / "b.npy").write_bytes(raw.replace(b"(4, 8), }            ", b"(4000000, 8000000), }"[:21]))
    with pytest.raises(ExportError, match="b.npy"):
        read_images(str(tmp_path / "b.npy"))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ExportError, match="absent.png.*No such file"):
        read_images(str(tmp_path / "absent.png"))


def test_files_folders_and_patterns_are_found(tmp_path):
    for name in ("b.PNG", "a.npy", "note.txt", "sub/c.jpg", "odd[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    root = str(tmp_path)

    def found(*paths):
        return [path[len(root) + 1:] for path in find_images([f"{root}/{path}" if path else root for path in paths])]

    assert found("") == ["a.npy", "b.PNG", "odd[1].png", "sub/c.jpg"]
    assert found("note.txt", "odd[1].png") == ["note.txt", "odd[1].png"]  # Named outright, whatever the name.
    assert found("**/*.jpg", "?.*") == ["sub/c.jpg", "a.npy", "b.PNG"]
    (tmp_path / "empty").mkdir()
    for path, words in (("absent.png", "no such file"), ("*.gif", "no images there"), ("empty", "no images there")):
        with pytest.raises(ExportError, match=words):
            found(path)
