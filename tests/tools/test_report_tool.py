"""tools/report.py: pages and pictures of runs from the command line."""
import json
import re

import pytest


def write_log(folder, epochs, offset=0.0):
    folder.mkdir(parents=True)
    records = [{"event": "epoch", "epoch": n, "step": 10 * n + 10, "train_loss": 1 / (n + 1), "train_accuracy": 0.5 + 0.1 * n,
                "val_loss": 1.1 / (n + 1), "val_accuracy": 0.45 + 0.1 * n + offset, "seconds": 2.0} for n in range(epochs)]
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_page_of_two_runs(run_program, tmp_path):
    write_log(tmp_path / "a", 4)
    write_log(tmp_path / "b", 3, 0.05)
    (tmp_path / "notes.txt").write_text("no run")
    done = run_program("tools/report.py", "a", "b", "notes.txt", "-o", "page.html", "--title", "Two runs")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"wrote page.html: 2 runs, 0\.\d\d MB\n", done.stdout)
    assert "notes.txt: a file; expected a run's folder" in done.stderr
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "<h1>Two runs</h1>" in page and "75.00 %" in page and "70.00 %" in page


def test_a_table_for_a_readme(run_program, tmp_path):
    write_log(tmp_path / "a_1", 4)
    write_log(tmp_path / "b|c", 3, 0.3)
    done = run_program("tools/report.py", "a_1", "b|c", "-o", "table.md", "--title", "Table")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[0] == "## Table" and [cell.strip() for cell in lines[2].split(" | ")][3] == "best validation accuracy"
    assert lines[4].startswith("| b\\|c ") and "95.00 %" in lines[4], "the best first"
    assert lines[5].startswith("| a_1 ") and "75.00 %" in lines[5] and len(lines) == 6


def test_a_table_of_seeds(run_program, tmp_path):
    for name, offset, config in (("a", 0.0, {"seed": 0}), ("b", 0.02, {"seed": 1}), ("c", 0.3, {"lr": 1, "seed": 0})):
        write_log(tmp_path / name, 2, offset)
        with open(tmp_path / name / "log.jsonl", "a") as file:
            file.write(json.dumps({"event": "start", "config": {"epochs": 2, **config}}) + "\n")
    done = run_program("tools/report.py", "b", "c", "-o", "table.md", "--against", "a")
    assert done.returncode == 0 and done.stdout == "wrote table.md: 2 groups of 3 runs\n", done.stderr
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert "| 56.00 % " in lines[2] and "| 1.41 " in lines[2] and lines[3].startswith("| lr 1 (none) ") and "one seed" in lines[3]


@pytest.mark.parametrize("ending, begin", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_curves_of_two_runs_in_a_picture(run_program, tmp_path, ending, begin):
    pytest.importorskip("matplotlib")
    write_log(tmp_path / "a", 4)
    write_log(tmp_path / "b$x^2$", 3)
    done = run_program("tools/report.py", "a", "b$x^2$", "-o", f"curves.{ending}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote curves.{ending}: 2 runs\n"
    assert (tmp_path / f"curves.{ending}").read_bytes().startswith(begin)


@pytest.mark.parametrize("arguments, words", [
    (("nowhere", "-o", "page.html"), ("nowhere", "no such folder")),
    (("a", "-o", "page.pdf"), ("page.pdf", ".html, .png, .svg or .md")),
    (("a", "-o", "curves.png", "--evaluate"), ("--evaluate", "curves.png")),
    (("a", "-o", "page.html", "--against", "a"), ("--against", "page.html")),
    (("a", "-o", "page.html", "--images", "-1"), ("-1", "0 or more")),
    (("a", "-o", "page.html", "--evaluate", "--batch-size", "0"), ("--batch-size is 0",)),
    (("a", "-o", "no/page.html"), ("no/page.html", "no such folder")),
    (("empty", "-o", "page.html"), ("empty", "log.jsonl"))])
def test_mistakes_are_told_in_a_line(run_program, tmp_path, arguments, words):
    write_log(tmp_path / "a", 1)
    (tmp_path / "empty").mkdir()
    done = run_program("tools/report.py", *arguments)
    assert done.returncode == 2 and all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.glob("page*"))
