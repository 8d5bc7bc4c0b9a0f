"""A bundle says what gluonzoo's Predictor says of the same image files, without gluonzoo and without MXNet."""
import ast
import json
import os
import subprocess
import sys
import venv

import gluonzoo
from gluonzoo import data
from gluonzoo.export import ExportError, Metadata, bundle
from gluonzoo.export.bundle import FILES
from gluonzoo.export.predictor import Predictor, read_images

import numpy as np
import pytest
from onnx_nets import prepared

pytest.importorskip("onnx", reason="ONNX export needs onnx")
pytest.importorskip("onnxruntime", reason="ONNX export is checked by onnxruntime")
Image = pytest.importorskip("PIL.Image", reason="predict.py reads images with Pillow")

MEAN, STD = (0.45, 0.5, 0.4), (0.2, 0.25, 0.3)
LABELS = [f"kind {number}, ä" for number in range(10)]


@pytest.fixture(scope="module")
def net():
    return prepared("cifar_resnet20_v1_a")


@pytest.fixture(scope="module")
def made(net, tmp_path_factory):
    return bundle(net, str(tmp_path_factory.mktemp("bundles") / "cifar"), metadata={"classes": LABELS, "mean": MEAN, "std": STD})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files of every kind that the transform tells apart: larger, long, a little smaller, tiny; grey, RGBA, palette, 16 bits."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.RandomState(0)
    small = rng.randint(0, 256, (9, 7, 3)).astype("uint8")
    for name, size in (("large.png", (97, 61)), ("long.png", (40, 300)), ("exact.png", (32, 32)), ("margin.png", (28, 26)),
                       ("tiny.png", (8, 8)), ("between.png", (20, 20)), ("low.png", (60, 30)), ("photo.jpg", (120, 90))):
        Image.fromarray(small).resize(size, Image.BILINEAR).save(str(folder / name))
    picture = Image.open(str(folder / "large.png"))
    picture.convert("L").save(str(folder / "grey.png"))
    picture.convert("RGBA").save(str(folder / "rgba.png"))
    picture.convert("P").save(str(folder / "palette.png"))
    Image.fromarray(np.asarray(picture.convert("L")).astype("uint16") * 255).save(str(folder / "deep.png"))
    return sorted(str(path) for path in folder.iterdir())


def said(python, folder, pictures, environment):
    """{path: [[name, probability], ...]} that predict.py prints."""
    done = subprocess.run([python, "-I", os.path.join(folder, "predict.py"), "--json", *pictures], capture_output=True, text=True,
                          timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        found.update(json.loads(line))
    return found


def expected(net, shape, labels, pictures):
    predictor = Predictor.of(net, Metadata(shape, mean=MEAN, std=STD, classes=tuple(labels)))
    return {path: predictor.predict(read_images(path))[0] for path in pictures}


def agree(found, wanted):
    assert list(found) == list(wanted)
    for path, guesses in wanted.items():
        assert [name for name, _ in found[path]] == [guess.name for guess in guesses], path
        np.testing.assert_allclose([share for _, share in found[path]], [guess.probability for guess in guesses], rtol=2e-4,
                                   atol=1e-7, err_msg=path)


def test_files(made, net):
    assert sorted(os.listdir(made.folder)) == sorted(FILES) and made.model.difference.relative <= 1e-5
    with open(os.path.join(made.folder, "labels.json"), encoding="utf-8") as file:
        assert json.load(file) == LABELS
    with open(os.path.join(made.folder, "preprocessing.json"), encoding="utf-8") as file:
        rule = json.load(file)
    assert (rule["height"], rule["width"], rule["channels"], rule["mean"]) == (32, 32, 3, list(MEAN))
    with open(os.path.join(made.folder, "README.md"), encoding="utf-8") as file:
        readme = file.read()
    assert "cifar_resnet20_v1_a" in readme and "32x32" in readme and "{" not in readme.replace('{"images": images}', "")


def test_the_program_is_short_and_imports_three_packages(made):
    with open(os.path.join(made.folder, "predict.py"), encoding="utf-8") as file:
        text = file.read()
    names = {alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    assert len(text.splitlines()) <= 60 and names == {"json", "math", "os", "sys", "numpy", "onnxruntime", "PIL"}


def test_images_are_fitted_to_the_bit(made, pictures):
    """fit of predict.py is gluonzoo.data.Transform before the normalisation, for RGB and for grey."""
    scope = {"__file__": os.path.join(made.folder, "predict.py"), "__name__": "predict"}
    with open(scope["__file__"], encoding="utf-8") as file:
        exec(compile(file.read(), scope["__file__"], "exec"), scope)
    for shape in ((3, 32, 32), (1, 32, 32), (3, 24, 40), (3, 100, 60)):
        scope["RULE"].update(channels=shape[0], height=shape[1], width=shape[2])
        transform = data.Transform(shape, [0.0], [1 / 255])  # Its output is the pixels themselves.
        for path in pictures:
            fitted = scope["fit"](scope["read"](path))
            assert fitted.dtype == np.uint8
            ours = np.rint(transform(read_images(path)))[0].transpose(1, 2, 0)
            np.testing.assert_array_equal(fitted, ours, err_msg=f"{path} for {shape}")


def test_predictions_are_the_predictors(net, made, pictures):
    agree(said(sys.executable, made.folder, pictures, os.environ), expected(net, (3, 32, 32), LABELS, pictures))


def test_a_grey_network_without_names_of_classes(pictures, tmp_path):
    net = prepared("lenet5")
    made = bundle(net, str(tmp_path / "lenet"), metadata={"mean": MEAN, "std": STD})
    numbers = [str(number) for number in range(10)]
    agree(said(sys.executable, made.folder, pictures, os.environ), expected(net, (1, 32, 32), numbers, pictures))


def test_text_and_no_arguments(made, pictures):
    program = os.path.join(made.folder, "predict.py")
    done = subprocess.run([sys.executable, program, pictures[0]], capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert lines[0] == pictures[0] and len(lines) == 6 and lines[1].strip().split("  ")[1] in LABELS
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "python predict.py IMAGE" in done.stderr


def test_replacing(net, tmp_path):
    folder = tmp_path / "b"
    details = {"metadata": {"mean": MEAN, "std": STD}}
    bundle(net, str(folder), **details)
    with pytest.raises(ExportError, match="already there; use force"):
        bundle(net, str(folder), **details)
    (folder / "labels.json").write_text("[]")
    bundle(net, str(folder), force=True, **details)
    assert len(json.loads((folder / "labels.json").read_text())) == 10
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match="found thesis.txt; nothing was removed"):
        bundle(net, str(folder), force=True, **details)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="found no folder"):
        bundle(net, str(tmp_path / "file"), force=True, **details)
    with pytest.raises(ExportError, match="mean and std"):
        bundle(net, str(tmp_path / "c"))
    with pytest.raises(ExportError, match="no values yet"):
        bundle(gluonzoo.get_model("lenet5"), str(tmp_path / "c"), **details)
    assert sorted(os.listdir(str(tmp_path))) == ["b", "file"]


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory):
    """A Python with numpy, pillow and onnxruntime, and nothing else."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(str(folder), with_pip=True)
    python = str(folder / "bin" / "python")
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", "numpy", "pillow", "onnxruntime"], capture_output=True,
                          text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"pip cannot install numpy, pillow and onnxruntime: {done.stderr.strip()[-200:]}")
    return python


@pytest.mark.slow
def test_in_an_environment_without_mxnet(net, made, pictures, bare_python):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([bare_python, "-c", "import mxnet"], capture_output=True, env=environment)
    assert done.returncode != 0
    agree(said(bare_python, made.folder, pictures, environment), expected(net, (3, 32, 32), LABELS, pictures))
