"""The loading benchmark: its images are like photographs in size, and every way on this machine gives a figure."""
import argparse
import glob
import os

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def loading(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "tools"))
    from benchmarks import loading
    return loading


@pytest.mark.parametrize("with_photos", [False, True])
def test_the_images_are_of_one_size_and_compress_like_photographs(loading, tmp_path, with_photos):
    source = None
    if with_photos:
        (tmp_path / "photos").mkdir()
        small = np.random.RandomState(0).randint(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(small).resize((600, 400), Image.BICUBIC).save(tmp_path / "photos" / "a.jpg", quality=95)
        source = str(tmp_path / "photos")
    mean = loading.make_photos(str(tmp_path / "made"), 20, source)
    files = sorted(glob.glob(str(tmp_path / "made" / "*" / "*.jpg")))
    assert len(files) == 20 and len({os.path.dirname(path) for path in files}) == 10
    assert mean == sum(map(os.path.getsize, files)) / 20 and 5_000 < mean < 60_000
    pictures = [np.asarray(Image.open(path)) for path in files]
    assert {picture.shape for picture in pictures} == {(256, 256, 3)}
    assert len({picture.tobytes() for picture in pictures}) == 20


@pytest.mark.slow
def test_every_way_gives_a_figure(loading, capsys, monkeypatch):
    monkeypatch.delenv("GLUONZOO_DATA", raising=False)
    rows = loading.load(argparse.Namespace(images=24, batch_size=8, repeats=1, torch_python=None))
    printed = capsys.readouterr()
    assert [row["variant"] for row in rows][:2] == ["gluonzoo records, threads", "ImageRecordIter"]
    assert len(rows) == 6, printed.err
    assert all(row["median"] > 0 for row in rows) and rows[0]["ratio"] == 1.0
    assert "24 JPEGs of 256 x 256 pixels" in printed.out and "torch is left out" in printed.out
