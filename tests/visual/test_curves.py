"""The training curve: what is drawn, from what kind of log."""
import json
import subprocess
import sys
import zlib

from gluonzoo.errors import UserError
from gluonzoo.visual import curves, read_log, training_curve

import pytest

pytest.importorskip("matplotlib")


def epoch(number, accuracy=0.9, loss=0.5, **more):
    return dict({"event": "epoch", "epoch": number, "step": 10 * (number + 1), "train_loss": loss,
                 "train_accuracy": accuracy, "val_loss": loss + 0.1, "val_accuracy": accuracy - 0.02, "seconds": 1.0},
                **more)


def step(number, loss):
    return {"event": "step", "epoch": (number - 1) // 10, "step": number, "loss": loss, "lr": 0.1}


RUN = [step(5, 2.0), step(9, 1.5), epoch(0, 0.5, 1.0), step(15, 0.9), epoch(1, 0.8, 0.4), epoch(2, 0.75, 0.6),
       step(33, 0.3)]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn."""
    from matplotlib.figure import Figure
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **more: figures.append(self) or save(self, path, **more))
    return figures


def lines(axes):
    return {line.get_label(): [tuple(point) for point in line.get_xydata().round(6).tolist()]
            for line in axes.lines if not line.get_label().startswith("_")}


def test_two_panels_with_every_series(tmp_path, drawn):
    path = tmp_path / "curve.png"
    training_curve(RUN, path, title="a run")
    left, right = drawn[0].axes
    assert lines(left) == {
        "training, within epochs": [(0.5, 2.0), (0.9, 1.5)],
        "training": [(1, 1.0), (2, 0.4), (3, 0.6)],
        "validation, best 0.5000 (epoch 2)": [(1, 1.1), (2, 0.5), (3, 0.7)]}
    assert lines(right) == {
        "training": [(1, 50), (2, 80), (3, 75)],
        "validation, best 78.00 % (epoch 2)": [(1, 48), (2, 78), (3, 73)]}
    # The running mean starts anew in each epoch, so the epochs' lines are not joined; the last one is incomplete.
    thin = [line.get_xydata().tolist() for line in left.lines if line.get_linewidth() < 1]
    assert thin == [[[0.5, 2.0], [0.9, 1.5]], [[1.5, 0.9]], [[3.3, 0.3]]]
    assert (left.get_xlabel(), left.get_ylabel(), right.get_ylabel()) == ("epoch", "loss", "accuracy (%)")
    assert left.get_xlim()[0] == 0 and left.get_xlim()[1] >= 3.3 and left.get_ylim()[0] == 0
    assert drawn[0]._suptitle.get_text() == "a run"


def test_the_picture_is_a_png_with_something_on_it(tmp_path):
    path = tmp_path / "curve.png"
    training_curve(RUN, str(path))
    raw = path.read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(raw[16:20], "big") > 1000
    data, at = b"", 8
    while at < len(raw):
        size, kind = int.from_bytes(raw[at:at + 4], "big"), raw[at + 4:at + 8]
        data += raw[at + 8:at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    assert len(set(zlib.decompress(data))) > 50


def test_without_validation_the_best_of_training_is_told(tmp_path, drawn):
    records = [{key: value for key, value in record.items() if not key.startswith("val_")} for record in RUN]
    training_curve(records, tmp_path / "c.png")
    assert "training, best 80.00 % (epoch 2)" in lines(drawn[0].axes[1])


def test_values_that_are_no_numbers_are_left_out(tmp_path, drawn):
    records = [epoch(0), epoch(1, val_loss=float("nan"), val_accuracy=None), epoch(2, train_loss="x")]
    training_curve(records, tmp_path / "c.png")
    found = lines(drawn[0].axes[0])
    assert found["training"] == [(1, 0.5), (2, 0.5)] and len(found["validation, best 0.6000 (epoch 1)"]) == 2


def test_of_a_resumed_run_the_later_records_count(tmp_path, drawn):
    training_curve([step(5, 9.0), epoch(0, loss=9.0), step(5, 1.0), epoch(0, loss=1.0), epoch(1)], tmp_path / "c.png")
    found = lines(drawn[0].axes[0])
    assert found["training"] == [(1, 1.0), (2, 0.5)] and found["training, within epochs"] == [(0.5, 1.0)]


def test_a_log_file_with_broken_lines(tmp_path, drawn):
    log = tmp_path / "log.jsonl"
    text = "\n".join(json.dumps(record) for record in RUN)
    log.write_bytes(b"\n" + text.encode() + b'\nnull\n[1]\n\xff\xfe\n{"event": "epo')
    assert read_log(log) == RUN
    training_curve(log, tmp_path / "c.png")
    assert len(lines(drawn[0].axes[0])["training"]) == 3


@pytest.mark.parametrize("content", ["", "garbage\n", json.dumps(step(1, 1.0))])
def test_nothing_to_draw_is_an_error_and_leaves_no_picture(tmp_path, content):
    log = tmp_path / "log.jsonl"
    log.write_text(content)
    with pytest.raises(UserError, match="log.jsonl: no complete epoch"):
        training_curve(log, tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


def test_missing_log(tmp_path):
    with pytest.raises(UserError, match="absent.jsonl.*No such file"):
        training_curve(str(tmp_path / "absent.jsonl"), tmp_path / "c.png")


def test_a_failed_drawing_keeps_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "c.png"
    path.write_bytes(b"old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(curves.os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        training_curve(RUN, path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old" and [item.name for item in tmp_path.iterdir()] == ["c.png"]


def test_missing_matplotlib_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[visual\]'"):
        training_curve(RUN, tmp_path / "c.png")


def test_the_users_backend_and_pyplot_are_left_alone(root, tmp_path):
    code = ("import sys, gluonzoo.visual\n"
            "assert 'matplotlib' not in sys.modules\n"
            "import matplotlib; matplotlib.use('svg')\n"
            f"gluonzoo.visual.training_curve({[epoch(0)]!r}, {str(tmp_path / 'c.png')!r})\n"
            "assert matplotlib.get_backend().lower() == 'svg' and 'matplotlib.pyplot' not in sys.modules\n")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=str(root), timeout=120)
