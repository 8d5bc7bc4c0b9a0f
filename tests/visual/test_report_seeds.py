"""Groups of runs that differ in their seed alone: arithmetic against hand-worked numbers, what belongs together, what is told."""
import json

from gluonzoo.errors import UserError
from gluonzoo.visual import write_comparison, write_report, write_table
from gluonzoo.visual.report_runs import read_runs
from gluonzoo.visual.report_seeds import group_runs, verdict

import pytest
from report_cases import epoch, write_log


def run(folder, accuracies, seed=0, epochs=2, seconds=(4.0, 5.0), **settings):
    """A run's folder whose epochs end at these validation accuracies."""
    config = {"model": "toy", "epochs": epochs, "seed": seed, "lr": 0.1, "augment": "none", "output": str(folder), **settings}
    records = [dict(epoch(number), val_accuracy=value, cpu_seconds=seconds[number]) for number, value in enumerate(accuracies)]
    write_log(folder, [{"event": "start", "config": config}, *records])
    return str(folder)


@pytest.fixture
def three_kinds(tmp_path):
    """The last accuracies: 0.50 0.52 0.54 of the base, 0.53 0.54 0.55 near it, 0.60 0.61 0.62 above, 0.40 0.41 0.42 below."""
    found = {}
    for name, first, step, more in (("base", 0.50, 0.02, {}), ("near", 0.53, 0.01, {"lr": 0.2}),
                                    ("above", 0.60, 0.01, {"augment": "flip|x"}), ("below", 0.40, 0.01, {"lr": 9, "epochs": 2})):
        # The best epoch is the first one: it is the last that counts.
        found[name] = [run(tmp_path / f"{name}-{seed}", [0.9, first + step * seed], seed, **more) for seed in range(3)]
    return found


def all_of(kinds):
    return [path for paths in kinds.values() for path in paths]


def test_mean_deviation_and_reading_are_those_worked_by_hand(three_kinds):
    groups, left_out = group_runs(read_runs(all_of(three_kinds))[0])
    assert not left_out and [len(group.runs) for group in groups] == [3, 3, 3, 3]
    base, near, above, below = groups
    assert base.mean == pytest.approx(0.52) and base.deviation == pytest.approx(0.02)  # sqrt((4 + 0 + 4) / 2) percent
    assert near.mean == pytest.approx(0.54) and near.deviation == pytest.approx(0.01)
    # 2 apart, deviations 2 + 1; then 9 and 11 apart.
    assert [verdict(group, base) for group in (near, above, below)] == ["within the spread", "better", "worse"]


def test_the_reading_turns_where_the_ranges_part(tmp_path):
    def group(name, *values):
        paths = [run(tmp_path / f"{name}-{seed}", [0.1, value], seed, name=name) for seed, value in enumerate(values)]
        return group_runs(read_runs(paths)[0])[0][0]

    base = group("base", 0.50, 0.52)  # 0.51, deviation 0.014142
    assert verdict(group("a", 0.528, 0.548), base) == "within the spread"  # 0.0280 apart of 0.0283
    assert verdict(group("b", 0.529, 0.549), base) == "better"
    assert verdict(group("c", 0.471, 0.491), base) == "worse"
    assert verdict(group("d", 0.9), base) == verdict(base, group("e", 0.9)) == "one seed"


def test_the_table(three_kinds, tmp_path):
    told = []
    groups = write_comparison(all_of(three_kinds)[3:], str(tmp_path / "t.md"), three_kinds["base"][1], "Title", told.append)
    # Of the base only the run that was named: the others were not given.
    assert [len(group.runs) for group in groups] == [1, 3, 3, 3] and not told
    write_comparison(all_of(three_kinds), str(tmp_path / "t.md"), three_kinds["base"][1], "Title", told.append)
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert lines[0] == "## Title" and len(lines) == 8 and not told
    cells = [[cell.strip() for cell in line[2:-2].split(" | ")] for line in lines[4:]]
    assert cells[0][1:4] == ["3", "52.00 %", "2.00"] and cells[0][6] == "9.0 s"
    assert cells[1] == ["lr 0.2 (0.1)", "3", "54.00 %", "1.00", "+2.00", "within the spread", "9.0 s"]
    assert cells[2][0] == "augment flip\\|x (none)" and cells[2][4:6] == ["+9.00", "better"]
    assert cells[3][0] == "lr 9 (0.1)" and cells[3][4:6] == ["-11.00", "worse"]


def test_what_is_no_result_is_left_out_and_told(three_kinds, tmp_path):
    paths = [run(tmp_path / "short", [0.9], 3), run(tmp_path / "again", [0.9, 0.8], 0)]
    folder = write_log(tmp_path / "blind", [{"event": "start", "config": {"epochs": 1, "seed": 7}}, epoch(0)])
    (folder / "log.jsonl").write_text((folder / "log.jsonl").read_text().replace("val_accuracy", "other"))
    told = []
    groups = write_comparison([*three_kinds["base"], *paths, str(folder)], str(tmp_path / "t.md"), three_kinds["base"][0],
                              tell=told.append)
    assert len(groups) == 1 and len(groups[0].runs) == 3
    for name, why in (("short", "epoch 1 of 2"), ("again", "seed 0"), ("blind", "no validation accuracy")):
        assert [line for line in told if name in line and why in line], told


def test_a_wrong_run_to_compare_with_is_an_error_and_nothing_is_written(three_kinds, tmp_path):
    short = run(tmp_path / "short", [0.9], 3)
    with pytest.raises(UserError, match="short: ended or still running after epoch 1 of 2; expected the folder"):
        write_comparison(all_of(three_kinds), str(tmp_path / "t.md"), short)
    with pytest.raises(UserError, match="nowhere"):
        write_comparison(all_of(three_kinds), str(tmp_path / "t.md"), str(tmp_path / "nowhere"))
    assert not (tmp_path / "t.md").exists()


def test_only_the_log_tells_processor_time(tmp_path, monkeypatch):
    """History, which is in checkpoints, must not differ between a resumed run and one that was not interrupted."""
    from gluonzoo.training.log import RunLog

    ticks = iter([10.0, 12.5])
    monkeypatch.setattr("gluonzoo.training.log.time.process_time", lambda: next(ticks))
    log, record = RunLog(str(tmp_path)), epoch(0)
    log.start_epoch(0, 1, 10)
    log.end_epoch(record, [record])
    log.close()
    assert json.loads((tmp_path / "log.jsonl").read_text())["cpu_seconds"] == 2.5 and "cpu_seconds" not in record
    assert read_runs([str(tmp_path)])[0][0].processor_seconds() == 2.5


def test_processor_time_in_the_page_and_the_table(tmp_path):
    paths = [run(tmp_path / "new", [0.1, 0.2]), str(write_log(tmp_path / "old", [epoch(0)]))]
    write_report(paths, str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert page.count(" cpu</small>") == 1 and '<small class="below">9.0 s cpu</small>' in page
    write_table(paths, str(tmp_path / "t.md"))
    head, _, *rows = [[cell.strip() for cell in line[2:-2].split(" | ")] for line in (tmp_path / "t.md").read_text().splitlines()]
    place = head.index("processor time")
    assert {row[0]: row[place] for row in rows} == {"new": "9.0 s", "old": "\u2014"}
    write_table(paths[1:], str(tmp_path / "t.md"))
    assert "processor time" not in (tmp_path / "t.md").read_text(), "a column that is empty in all lines"
