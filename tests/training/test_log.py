"""What a run shows, to a person and to a script, and what it keeps in its log."""
import io
import json

from gluonzoo.training import config as configs
from gluonzoo.training.log import RunLog
from gluonzoo.training.progress import Progress, remaining, time_text

import pytest

RECORD = {"epoch": 0, "step": 4, "train_loss": 0.5, "train_accuracy": 0.75, "val_accuracy": 0.7, "images_per_second": 1234.5,
          "seconds": 2.0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock of progress.py that stands still unless it is moved."""
    now = [1000.0]
    monkeypatch.setattr("gluonzoo.training.progress.time.monotonic", lambda: now[0])

    def move(seconds):
        now[0] += seconds
    return move


def test_times_as_people_say_them():
    assert [time_text(value) for value in (-1, 0.4, 59.4, 60, 187, 3599.4, 7490)] == [
        "0 s", "0 s", "59 s", "1:00 min", "3:07 min", "59:59 min", "2:05 h"]


def test_the_time_left():
    assert remaining(10, 2, None, None) is None
    assert remaining(10, 2, 0.5, 30.0) == 0.5 * 10 + 2 * 30
    assert remaining(10, 0, 0.5, None) == 5


def test_lines_come_at_the_interval_with_the_time_left(clock):
    out = io.StringIO()
    view = Progress(stream=out, interval=5.0)
    view.start_epoch(0, 2, 10)
    clock(4)
    view.step(2, 0.5, ("accuracy", 0.8), 0.1, 1234)
    assert out.getvalue() == "", "not yet"
    clock(2)
    view.step(3, 0.5, ("accuracy", 0.8), 0.1, 1234)
    # Six seconds for three updates: seven more of this epoch, and ten of the next.
    assert out.getvalue() == "epoch 1/2  step 3/10  loss 0.5000  accuracy 0.8000  lr 0.1  1,234 img/s  34 s to the end\n"
    clock(14)
    view.end_epoch(RECORD)
    assert out.getvalue().splitlines()[1].endswith("val accuracy 0.7000  1,234 img/s  2.0 s  20 s to the end")
    clock(10)  # A validation and a checkpoint belong to an epoch too.
    view.start_epoch(1, 2, 10)
    clock(8)
    view.step(4, 0.5, ("accuracy", 0.8), 0.1, 1234)
    assert out.getvalue().splitlines()[2].endswith("12 s to the end")
    view.end_epoch(dict(RECORD, left_out=3, data_wait=0.5), best=True)
    last = out.getvalue().splitlines()[3]
    assert "(best so far)  updates left out 3  waiting for data 50 %" in last and "to the end" not in last


def test_a_resumed_epoch_is_no_measure_for_whole_ones(clock):
    out = io.StringIO()
    view = Progress(stream=out, interval=0.0)
    view.start_epoch(3, 6, 10, done=8)
    clock(2)
    view.step(9, 0.5, ("accuracy", 0.8), 0.1, 10)
    # Two seconds for one update; the rest of this epoch is one, and two epochs of ten follow.
    assert out.getvalue().endswith("42 s to the end\n")
    clock(2)
    view.end_epoch(RECORD)
    assert "to the end" not in out.getvalue().splitlines()[-1]


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setenv("COLUMNS", "160")
    out = Terminal()
    view = Progress(stream=out)
    view.start_epoch(0, 3, 10)
    for step in range(1, 11):
        view.step(step, 0.5, ("accuracy", 0.8), 0.1, 1234)
    view._bar.refresh()  # It draws itself four times a second only.
    view.say("a word in between")
    view.end_epoch(RECORD)
    text = out.getvalue()
    assert "epoch 1/3" in text and "\r" in text and "a word in between\n" in text
    assert "/10 <" in text and "loss 0.5000  accuracy 0.8000  1,234 img/s" in text
    visible = text.split("\n")[-2].split("\r")[-1]
    assert visible.startswith("epoch 1/3  train loss 0.5000"), "the bar is gone from the line of results"


@pytest.mark.parametrize("options", [{"quiet": True}, {"lines": True}, {"style": "json"}])
def test_no_bar_where_none_is_wanted(options):
    out = Terminal()
    view = Progress(stream=out, **options)
    view.start_epoch(0, 1, 10)
    view.step(5, 0.5, ("accuracy", 0.8), 0.1, 10)
    view.end_epoch(RECORD)
    assert "\r" not in out.getvalue()


def test_quiet_keeps_results_and_what_needs_attention():
    out = io.StringIO()
    view = Progress(quiet=True, stream=out, interval=0.0)
    view.say("configuration", detail=True)
    view.say("update 3 left out")
    view.start_epoch(0, 2, 4)
    view.step(1, 0.5, ("accuracy", 0.8), 0.1, 10)
    view.event({"event": "step"})
    view.end_epoch(RECORD)
    lines = out.getvalue().splitlines()
    assert lines[0] == "update 3 left out" and lines[1].startswith("epoch 1/2  train loss") and len(lines) == 2


def log_of(folder, monkeypatch, capsys, **settings):
    monkeypatch.delenv("GLUONZOO_PROGRESS_FILE", raising=False)
    log = RunLog(folder, interval=0.0, config=configs.TrainConfig(**settings))
    log.say("hello")
    log.start({"config": {"lr": 0.1}, "machine": {"cores": 2}})
    log.start_epoch(0, 1, 4)
    log.step(0, 1, 1, None, ("accuracy", None), 0.1, 10)
    log.step(0, 2, 2, 0.5, ("accuracy", 0.8), 0.1, 10)
    log.end_epoch(dict(RECORD), [dict(RECORD)])
    log.finish({"output": "x"})
    log.close()
    return capsys.readouterr().out


def test_json_is_all_that_scripts_see(tmp_path, monkeypatch, capsys):
    events = [json.loads(line) for line in log_of(tmp_path, monkeypatch, capsys, log_format="json").splitlines()]
    assert [event["event"] for event in events] == ["message", "start", "step", "epoch", "finish"]
    assert events[0]["text"] == "hello" and events[2]["loss"] == 0.5 and events[3]["val_accuracy"] == 0.7
    kept = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert kept == events[1:4], "the log has the same, without words and end"
    assert all(event["time"] > 1.6e9 for event in kept)
    quiet = log_of(tmp_path, monkeypatch, capsys, log_format="json", quiet=True).splitlines()
    assert [json.loads(line)["event"] for line in quiet] == ["message", "start", "epoch", "finish"]


def test_best_so_far_needs_an_earlier_epoch(monkeypatch, capsys):
    log = RunLog(None)
    log.start_epoch(1, 9, 4)
    log.end_epoch(RECORD, [RECORD])
    log.end_epoch(RECORD, [dict(RECORD, val_accuracy=0.7), RECORD])
    log.end_epoch(RECORD, [dict(RECORD, val_accuracy=0.6), RECORD])
    assert ["best" in line for line in capsys.readouterr().out.splitlines()] == [False, False, True]


@pytest.mark.parametrize("launched", [False, True])
def test_other_workers_are_silent_unless_they_are_asked_for(tmp_path, monkeypatch, capsys, launched):
    if launched:
        monkeypatch.setenv("GLUONZOO_PROGRESS_FILE", str(tmp_path / "progress"))
    else:
        monkeypatch.delenv("GLUONZOO_PROGRESS_FILE", raising=False)
    for show, expected in ((False, ""), (True, "worker 2  epoch 1/1  step 3/4  loss 0.5000  accuracy 0.8000  lr 0.1  30 img/s")):
        config = configs.TrainConfig(show_workers=show)
        log = RunLog(tmp_path / "run", enabled=False, interval=0.0, rank=2, workers=4, config=config)
        log.say("hello")
        log.start({"machine": {}})
        log.start_epoch(0, 1, 4)
        log.step(0, 3, 3, 0.5, ("accuracy", 0.8), 0.1, 30)
        log.end_epoch(RECORD)
        log.close()
        shown = capsys.readouterr().out
        # The launcher itself puts the worker's name in front.
        assert shown.startswith(expected.replace("worker 2  ", "") if launched else expected) and bool(shown) == show
        assert shown.count("\n") == show
    assert not (tmp_path / "run").exists()
    assert not launched or (tmp_path / "progress").read_text() == "3\n"


def test_how_a_run_is_shown_decides_nothing():
    shown = configs.TrainConfig(quiet=True, show_workers=True, log_format="json", board_images=0, board_histograms=2)
    assert shown.as_dict() == configs.TrainConfig().as_dict()
    assert "quiet" not in shown.as_dict()


def test_the_line_of_settings_tells_those_that_were_chosen():
    text = configs.described(configs.TrainConfig(lr=0.3, clip_norm=2.0, quiet=True))
    assert "model=lenet5" in text and "lr=0.3" in text and "clip_norm=2.0" in text
    assert "momentum" not in text and "quiet" not in text
