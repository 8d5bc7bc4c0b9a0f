"""The report on training runs: what it reads, counts, draws and says where something is missing."""
import itertools
import json
import re
import shutil
from html.parser import HTMLParser

from gluonzoo.errors import UserError
from gluonzoo.evaluation import Predictions
from gluonzoo.visual import write_report
from gluonzoo.visual.report_charts import Line, chart, spread, ticks
from gluonzoo.visual.report_details import confusion_table
from gluonzoo.visual.report_html import Html, duration, shortened, tag
from gluonzoo.visual.report_predictions import confusion, find, pairs, reliability
from gluonzoo.visual.report_runs import RunFacts, differing, key_of, read_run, read_runs, thinned

import numpy as np
import pytest
from report_cases import HOSTILE, epoch, step, write_answers, write_log

pytest.importorskip("PIL")

VOID = ("meta", "img", "br", "input", "line", "path")


class Outline(HTMLParser):
    """Elements with their attributes; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.text = [], [], ""
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID[:4]:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data

    def ids(self):
        return [attributes["id"] for _, attributes in self.found if "id" in attributes]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a LeNet-5 that was trained for an epoch, with checkpoints."""
    pytest.importorskip("sklearn")
    from gluonzoo.training import train
    folder = tmp_path_factory.mktemp("runs") / "digits"
    train({"dataset": "digits", "epochs": 1, "output": str(folder), "board_images": 0})
    return folder


def test_everything_is_escaped_but_what_tag_made():
    assert tag("p", "<b>", Html("<i>"), None, ["&", 3], class_='a"b', data_x=None, hidden=True) == (
        '<p class="a&quot;b" hidden>&lt;b&gt;<i>&amp;3</p>')
    assert tag("img", src="x") == '<img src="x">'
    assert tag("p", "a\0b\x1bc\ud800") == "<p>a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c?</p>"


def test_words_for_numbers():
    assert [shortened(value) for value in (None, 999, 61706, 999_600, 25_557_032, 4_089_000_000)] == [
        "\u2014", "999", "61.7 k", "1.00 M", "25.6 M", "4.09 G"]
    assert [duration(value) for value in (None, 41.26, 725, 11_220)] == ["\u2014", "41.3 s", "12 min 05 s", "3 h 07 min"]
    assert [key_of(index) for index in (0, 25, 26, 27, 701, 702)] == ["A", "Z", "AA", "AB", "ZZ", "AAA"]


@pytest.mark.parametrize("low, high, expected", [
    (0, 10, [0, 2, 4, 6, 8, 10]), (0, 6, [0, 1, 2, 3, 4, 5, 6]), (0.02, 0.61, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
    (97.3, 98.9, [97.5, 98, 98.5]), (-1, 1, [-1, -0.5, 0, 0.5, 1])])
def test_ticks_are_round_numbers_inside(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_labels_are_moved_apart_by_the_least_squares():
    assert spread([], 10, 0, 100) == []
    assert spread([50, 20], 10, 0, 100) == [50, 20]
    # Two at one place go both ways; three at an edge are pushed back from it.
    assert spread([50, 50], 10, 0, 100) == [45, 55]
    assert spread([0, 0, 0], 10, 0, 100) == [5, 15, 25]
    assert spread([99, 98], 10, 0, 100) == [95, 85]
    # More than fit: evenly.
    assert spread([3.0] * 20, 17, 0, 300) == pytest.approx([7.5 + 15 * i for i in range(20)])
    # Against a search over a grid of all placements.
    wanted, gap = [10, 14, 15, 40], 5
    best = min((sum((a - b) ** 2 for a, b in zip(places, wanted)), places)
               for places in itertools.combinations([5 + x / 2 for x in range(72)], 4)
               if all(b - a >= gap for a, b in zip(places, places[1:])))[0]
    found = spread(wanted, gap, 0, 100)
    assert all(b - a >= gap - 1e-9 for a, b in zip(found, found[1:]))
    assert sum((a - b) ** 2 for a, b in zip(found, wanted)) <= best + 1e-9


def test_a_chart_draws_each_point_at_its_place():
    drawn = chart("T", [Line(0, "A", "one", [(1, 10.0), (2, 20.0)]), Line(8, "I", "two", [(4, 15.0)])], "epochs", "units",
                  from_zero=True)
    outline = Outline(drawn)
    paths = [attributes for name, attributes in outline.found if name == "path" and "data-points" in attributes]
    assert [path["data-points"] for path in paths] == ["1,10 2,20", "4,15"]
    # x from 0 to 4; y from 0 to 20 and 6 % of the values' range above.
    top = 20 + 0.06 * 10
    expected = [(250, 1000 - 1000 * 10 / top), (500, 1000 - 1000 * 20 / top)]
    numbers = list(map(float, re.findall(r"[\d.]+", paths[0]["d"])))
    assert numbers == pytest.approx([value for point in expected for value in point], abs=0.06)
    assert (paths[0]["class"], paths[1]["class"]) == ("line c0", "line c1") and paths[0].get("stroke-dasharray") is None
    assert paths[1]["stroke-dasharray"], "the eighth run has the second one's colour"
    assert "I two" in outline.text and "15" in outline.text
    assert "logarithmic" in chart("T", [Line(0, "A", "a", [(1, 0.01), (2, 5.0)])], "epochs", "loss")
    assert "None of the runs" in chart("T", [Line(0, "A", "a", [])], "epochs", "loss")


def test_the_course_of_a_run(tmp_path):
    folder = write_log(tmp_path / "a", [step(5), epoch(0, 0.5), epoch(1, 0.8), step(13), step(15), epoch(1, 0.7), epoch(2, 0.6)],
                       tail='{"event": "step", "epo')
    run = read_run(str(folder))
    assert run.best() == (pytest.approx(0.68), 2, "validation"), "the later of two records of an epoch counts"
    assert np.array(run.points("val_accuracy", 100)) == pytest.approx(np.array([(1, 48), (2, 68), (3, 58)]))
    assert run.points_by_time("train_loss") == [(0.5, 0.5), (1.0, 0.5), (1.5, 0.5)]
    assert (run.seconds(), run.speed(), run.waited()) == (90, 101, 0.25)
    assert run.speeds() == [(0.0, 95.0), (0.4, 103.0), (0.5, 105.0)]
    assert run.state() == "3 epochs" and any("1 of the 8 lines" in problem for problem in run.problems)


def test_the_pause_of_a_resumed_run_is_no_training():
    run = RunFacts("", "", steps=[step(n, time=time) for n, time in ((1, 0), (2, 6), (3, 12), (4, 5000), (5, 5006))])
    assert [minutes for minutes, _ in run.speeds()] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_a_long_course_is_thinned_to_means():
    points = [(float(i), float(i % 2)) for i in range(1000)]
    found = thinned(points, 100)
    assert len(found) <= 100 and found[-1] == points[-1]
    assert found[0] == (5.0, pytest.approx(5 / 11)) and found == sorted(found)
    assert thinned(points[:100], 100) == points[:100]


def test_what_is_no_run_is_named(tmp_path):
    good = write_log(tmp_path / "good", [epoch(0)])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    write_log(tmp_path / "torn", [], tail="{\n\0\xff")
    runs, refused = read_runs([str(good), str(tmp_path / "empty"), str(tmp_path / "file"), str(tmp_path / "torn"), str(good)])
    assert [run.name for run in runs] == ["good"] and runs[0].key == "A"
    assert [path.rsplit("/", 1)[1] for path, _ in refused] == ["empty", "file", "torn"]
    assert all(path in why for path, why in refused)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        read_runs([str(good), str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="no run to report on"):
        read_runs([str(tmp_path / "empty")])
    with pytest.raises(UserError, match="expected 1 to 100"):
        read_runs([])


def test_names_are_as_long_as_it_takes(tmp_path):
    runs, _ = read_runs([str(write_log(tmp_path / a / b / "run", [epoch(0)])) for a, b in (("x", "1"), ("x", "2"), ("y", "1"))])
    assert [run.name for run in runs] == ["x/1/run", "x/2/run", "y/1/run"]


def test_settings_that_differ():
    def run(**config):
        return RunFacts("", "", config=config)

    different, same = differing([run(lr=0.1, model="a", new=1, output="x"), run(lr=0.2, model="a", output="y")])
    assert different == {"lr": ["0.1", "0.2"]}
    assert same == {"model": "a", "new": "1"}, "a setting that an older version did not have differs from nothing"


ANSWERS = Predictions(index=np.arange(8), labels=np.array([0, 0, 0, 1, 1, 2, 2, 2]), guesses=np.array([0, 1, 1, 1, 0, 2, 2, 1]),
                      confidence=np.array([0.9, 0.6, 0.8, 0.7, 0.99, 1.0, 0.5, 0.55]),
                      likelihood=np.array([0.9, 0.3, 0.2, 0.7, 0.01, 1.0, 0.5, 0.2]), classes=("a", "b", "c"), dataset="d")


def test_errors_are_counted_and_sorted():
    assert confusion(ANSWERS).tolist() == [[1, 2, 0], [1, 1, 0], [0, 1, 2]]
    assert [(true, guess, rows.tolist()) for true, guess, rows in pairs(ANSWERS, 2)] == [(0, 1, [2, 1]), (1, 0, [4])]
    assert len(pairs(ANSWERS, 99)) == 3
    table = Outline(confusion_table(confusion(ANSWERS), ANSWERS.classes, "C"))
    cells = [attributes.get("class") for name, attributes in table.found if name == "td"]
    assert cells == ["r6", "w8", None, None, "w6", "r6", None, None, None, "w6", "r8", None], "errors have their own scale"
    assert [attributes["scope"] for name, attributes in table.found if name == "th"].count("row") == 3


def test_calibration_by_hand():
    # Right-closed bins of 1/15: 0.5 and 0.55 are in (7/15, 8/15] and (8/15, 9/15], and so on; each of the others alone, but for
    # 0.6 (= 9/15) with 0.55.
    error, points = reliability(ANSWERS)
    by_hand = (abs(0.5 - 1) * 1 + abs((0.55 + 0.6) / 2 - 0) * 2 + abs(0.7 - 1) + abs(0.8 - 0) + abs(0.9 - 1) + abs(
        (0.99 + 1.0) / 2 - 0.5) * 2) / 8
    assert error == pytest.approx(by_hand)
    assert points[0] == (0.5, 1.0) and points[-1] == pytest.approx((0.995, 0.5))


def test_a_page_says_what_is_missing_and_how_to_have_it(tmp_path):
    full = write_log(tmp_path / "full", [epoch(0), epoch(1)])
    write_log(tmp_path / "begun", [{"event": "start", "config": {"model": "lenet5", "lr": 0.1, "epochs": 5}, "machine": {
        "cpu": "A processor", "memory_bytes": 8 * 2**30}}, step(3)])
    (tmp_path / "none").mkdir()
    told = []
    write_report([str(full), str(tmp_path / "begun"), str(tmp_path / "none")], tmp_path / "page.html", tell=told.append)
    page = (tmp_path / "page.html").read_text()
    outline = Outline(page)
    for words in ("none: no training run; expected log.jsonl or checkpoints/", "there is no checkpoint", "8.0 GiB", "--evaluate",
                  "its log holds no finished", "The settings of A are not known", "A processor", "The log of A does not tell"):
        assert words in outline.text, words
    assert any("none: no training run" in line for line in told)
    assert {"problems", "summary", "curves", "throughput", "settings", "runs", "machines", "run-A", "run-B"} <= set(outline.ids())
    assert len(outline.ids()) == len(set(outline.ids()))
    assert not list(tmp_path.glob("*.tmp*"))


def test_names_from_outside_stay_text(tmp_path):
    folder = write_log(tmp_path / "<img src=x onerror=alert(1)>", [
        {"event": "start", "machine": {"cpu": HOSTILE}, "config": {"model": HOSTILE, "dataset": "</script><b>", HOSTILE: 1}},
        epoch(0)])
    write_answers(folder, [0, 1, 1], [0, 0, 1], [HOSTILE, "b"])
    write_report([str(folder)], tmp_path / "page.html", title=HOSTILE)
    page = (tmp_path / "page.html").read_text()
    outline = Outline(page)
    assert [name for name, _ in outline.found].count("script") == 1
    assert not any(key.startswith("on") for _, attributes in outline.found for key in attributes)
    assert "<script>window.hit = 1</script>" in outline.text
    assert "\x01" not in page


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    write_report([str(write_log(tmp_path / "a", [epoch(0)]))], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    outline = Outline(page)
    assert not re.findall(r"https?://|@import|url\(", page)
    for name, attributes in outline.found:
        assert attributes.get("src", "data:").startswith("data:"), (name, attributes)
        assert attributes.get("href", "#").startswith("#"), (name, attributes)
    policy = [attributes["content"] for name, attributes in outline.found if attributes.get("http-equiv")]
    assert policy and policy[0].startswith("default-src 'none'")


def test_a_real_run_is_shown_whole(trained, tmp_path):
    first = tmp_path / "first.html"
    write_report([str(trained)], first)
    assert "tools/report.py" in Outline(first.read_text()).text and not (trained / "predictions.npz").exists()
    page = tmp_path / "page.html"
    runs = write_report([str(trained)], page, evaluate=True)
    outline = Outline(page.read_text())
    record = json.loads((trained / "log.jsonl").read_text().splitlines()[-1])
    saved = find(runs[0])
    assert float((saved.labels == saved.guesses).mean()) == pytest.approx(record["val_accuracy"])
    shots = [attributes for name, attributes in outline.found if name == "img" and attributes["alt"].startswith("test image")]
    wrong = int((saved.labels != saved.guesses).sum())
    assert len(shots) >= min(wrong, 24) > 0
    assert f"{100 * record['val_accuracy']:.2f} %" in outline.text and "61.7 k" in outline.text and "417 k" in outline.text
    for words in ("features.c1.0: 6 x 1 x 5 x 5", "c1: 6 of 6 maps, 28 x 28", "Expected calibration error", "taken for"):
        assert words in outline.text, words
    captions = re.findall(r"<small>[^<]*no\.[^<]*</small>", page.read_text())
    assert captions and not any(re.search(r"\d %|no\. \d", caption) for caption in captions), "a number parted from its sign"
    for wanted in ("filters-A", "maps-A", "confusion-A", "wrong-A", "pairs-A", "calibration-A"):
        assert wanted in outline.ids()
    assert page.stat().st_size < 1_000_000


def test_pictures_are_of_the_predictions_images_or_not_at_all(trained, tmp_path):
    run = read_run(str(trained))
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    classes = run.checkpoint.config["classes"]
    write_answers(copy, [1, 1, 1], [0, 1, 1], classes, step=run.checkpoint.state["step"])  # The set begins with another class.
    write_report([str(copy)], tmp_path / "page.html")
    assert "are not those that the predictions are of" in (tmp_path / "page.html").read_text()
    write_answers(copy, [1], [0], classes, step=3)
    write_report([str(copy)], tmp_path / "page.html")
    assert "predictions.npz is of update 3, the newest checkpoint of update" in (tmp_path / "page.html").read_text()
    (copy / "predictions.npz").write_bytes(b"PK\x03\x04 no archive")
    write_report([str(copy)], tmp_path / "page.html")
    assert "expected a file of predictions" in (tmp_path / "page.html").read_text()


def test_a_broken_checkpoint_is_named_and_the_curves_stay(trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    for path in copy.glob("checkpoints/*/parameters.params"):
        path.write_bytes(path.read_bytes()[:-1])
    write_report([str(copy)], tmp_path / "page.html")
    text = Outline((tmp_path / "page.html").read_text()).text
    assert "parameters.params has" in text and "This run has no sound checkpoint" in text and "Validation accuracy" in text


def test_many_classes_become_a_picture(tmp_path):
    folder = write_log(tmp_path / "a", [epoch(0)])
    labels = list(range(100)) * 2
    write_answers(folder, labels, [label if place % 7 else (label + 1) % 100 for place, label in enumerate(labels)],
                  [f"class {n}" for n in range(100)])
    write_report([str(folder)], tmp_path / "page.html")
    outline = Outline((tmp_path / "page.html").read_text())
    assert [attributes["width"] for name, attributes in outline.found if name == "img"] == ["100"]
    assert "All 100 classes, the hardest first" in outline.text


def test_twenty_runs_stay_small(tmp_path):
    paths = []
    for number in range(20):
        folder = write_log(tmp_path / f"run-{number}", [epoch(n, 0.5 + 0.01 * n + 0.001 * number) for n in range(40)])
        write_answers(folder, [0, 1] * 50, [0, 1] * 49 + [1, 0], ["a", "b"])
        paths.append(str(folder))
    write_report(paths, tmp_path / "page.html")
    outline = Outline((tmp_path / "page.html").read_text())
    assert (tmp_path / "page.html").stat().st_size < 2_000_000
    looks = {(attributes["class"], attributes.get("stroke-dasharray")) for name, attributes in outline.found
             if name == "path" and "data-points" in attributes and attributes["data-run"] != "-1"}
    assert len(looks) == 20, "no two runs are drawn alike"


def test_an_earlier_page_survives_a_failure(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("old")
    with pytest.raises(UserError):
        write_report([str(tmp_path / "none")], page)
    with pytest.raises(UserError, match="no such folder"):
        write_report([str(write_log(tmp_path / "a", [epoch(0)]))], tmp_path / "no" / "page.html")
    assert page.read_text() == "old"
