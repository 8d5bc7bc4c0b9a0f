"""tools/measures/craft.py: every run of it is a run that tools/train.py would take; the page from logs made by hand."""
import argparse
import json
import os
import sys

from gluonzoo import model_spec
from gluonzoo.training import config

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture
def craft(monkeypatch):
    monkeypatch.syspath_prepend(os.path.join(ROOT, "tools", "measures"))
    import craft
    yield craft
    sys.modules.pop("craft")


def write_runs(craft, folder, names, accuracy):
    for name in names:
        flags = {**craft.ablation(), **craft.table()}[name]
        path = folder / name
        path.mkdir(parents=True)
        settings = {key.replace("-", "_"): value for key, value in flags.items()}
        machine = {"cpu": "A processor", "cores": 2, "mxnet": "1.9.1", "python": "3.11.2"}
        with open(path / "log.jsonl", "w") as file:
            file.write(json.dumps({"event": "start", "config": settings, "machine": machine,
                                   "data": "cifar10 train: 6000 x 3x32x32, 10 classes, from /somewhere"}) + "\n")
            file.write(json.dumps({"event": "epoch", "epoch": flags["epochs"] - 1, "step": 9, "seconds": 2.0, "cpu_seconds": 1.0,
                                   "val_accuracy": accuracy(name)}) + "\n")


def test_every_run_can_be_asked_of_the_trainer(craft):
    runs = {**craft.ablation(), **craft.table()}
    parser = argparse.ArgumentParser()
    config.add_arguments(parser)
    for name, flags in runs.items():
        words = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
        built = config.build(vars(parser.parse_args(words)))
        assert model_spec(built.model) and built.dataset == "cifar10", name
    assert len(craft.table()) >= 12 and len({flags["model"] for flags in craft.table().values()}) == len(craft.table())
    assert [len(list(filter(lambda name: name.endswith(f"-s{seed}"), runs))) for seed in craft.SEEDS] == [26, 26, 26]


def test_the_page_holds_the_tables_and_says_what_is_missing(craft, tmp_path, capsys):
    names = [f"ablation/{kind}-s{seed}" for kind in ("base", "adam", "stn-no-dropout", "stn-dropout") for seed in (0, 1)]
    # Of the base 0.40 and 0.42, of the others 0.1 more.
    write_runs(craft, tmp_path, [*names, "table/lenet5", "table/squeezenet1_1"],
               lambda name: 0.4 + 0.02 * name.endswith("1") + 0.1 * ("adam" in name))
    craft.write(str(tmp_path), str(tmp_path / "results.md"))
    page = (tmp_path / "results.md").read_text()
    assert "cifar10 train: 6000 x 3x32x32, 10 classes;" in page and "A processor, 2 cores" in page
    assert "82 of the 92 runs are not made yet" in page
    line, = [line for line in page.splitlines() if line.startswith("| lr 0.002 (0.1), optimizer adam (sgd)")]
    assert "51.00 %" in line and "+10.00" in line and "better" in line
    line, = [line for line in page.splitlines() if line.startswith("| dropout 0.5 (0)")]
    assert "+0.00" in line and "within the spread" in line
    assert [line.split(" | ")[1].strip() for line in page.splitlines() if line.startswith(("| lenet5", "| squeezenet"))] == [
        "squeezenet1_1", "lenet5"]
    assert "These runs are not made yet" not in page
    assert craft.done(str(tmp_path / "table/lenet5"), craft.table()["table/lenet5"])
    assert not craft.done(str(tmp_path / "table/nin_cifar10"), craft.table()["table/nin_cifar10"])


def test_a_page_of_what_is_there_so_far(craft, tmp_path):
    with pytest.raises(SystemExit, match="none of the runs is there"):
        craft.write(str(tmp_path), str(tmp_path / "results.md"))
    write_runs(craft, tmp_path, ["ablation/adam-s1", "table/lenet5"], lambda name: 0.4)
    craft.write(str(tmp_path), str(tmp_path / "results.md"))
    page = (tmp_path / "results.md").read_text()
    # Without the run that the others are compared with there is nothing to compare.
    assert page.count("These runs are not made yet") == 2 and "| lenet5 " in page and "90 of the 92 runs" in page
