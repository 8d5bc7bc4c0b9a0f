"""tools/benchmark.py on tiny sizes: that it runs, and what its files hold; and the model of cost by hand."""
import argparse
import csv
import json
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TINY = ["--repeats", "1", "--model", "lenet5", "--size", "32", "--classes", "10", "--batch-size", "4", "--steps", "2"]


@pytest.fixture
def projection(monkeypatch):
    monkeypatch.syspath_prepend(os.path.join(ROOT, "tools"))
    from benchmarks import projection
    return projection


def test_kvstore(run_program, tmp_path):
    result = run_program("tools/benchmark.py", "kvstore", "--repeats", "1", "--sizes", "4K,64K", "--workers", "2",
                         "--servers", "1", "--compression", "none,2bit,memory", "--seconds", "0.05",
                         "--csv", str(tmp_path / "rows.csv"))
    assert result.returncode == 0, result.stderr
    with open(tmp_path / "rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["compression"], row["bytes"]) for row in rows] == [
        (way, size) for way in ("none", "2bit", "memory") for size in ("4096", "65536")], result.stdout + result.stderr
    assert all(float(row["ms"]) > 0 and float(row["MB_per_s"]) > 0 for row in rows)


def test_scaling(run_program, tmp_path):
    result = run_program("tools/benchmark.py", "scaling", *TINY, "--workers", "2", "--json", str(tmp_path / "rows.json"))
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    if len(os.sched_getaffinity(0)) < 2:
        assert rows == []
        return
    assert [row["variant"] for row in rows] == ["1 process, 2 threads", "2 workers", "2 workers, no shared memory"], result.stderr
    assert rows[0]["efficiency"] == 1 and all(row["cpu_ms"] > 0 for row in rows)


def test_start(run_program):
    result = run_program("tools/benchmark.py", "start", "--workers", "3", "--servers", "1", "--steps", "2")
    assert result.returncode == 0, result.stderr
    assert "first update, s" in result.stdout and "worker: RSS, PSS, MB" in result.stdout


CONSTANTS = {"image_ms": 10.0, "step_ms": 5.0, "worker_ns": 1.0, "codec_ns": 3.0, "server_ns": 2.0, "message_ms": 0.1,
             "bytes": 100e6, "largest_bytes": 10e6, "keys": 40}


def test_the_model_of_cost_by_hand(projection):
    link = 8e9 / projection.GOODPUT  # 1 ns a byte
    # One worker, one server: compute 85, handling 100; the wire 100 against adding 200; 10 for the last key, 4 for messages.
    assert projection.step_ms(CONSTANTS, 1, 1, link, 8) == pytest.approx(85 + 100 + (200 + 10 + 4 - 80 * 2 / 3))
    # Eight workers on two servers: four times the bytes at a server, and sums that are late by 0.3 of 400.
    assert projection.step_ms(CONSTANTS, 8, 2, link, 8) == pytest.approx(185 + (800 + 120 + 40 + 2 - 80 * 2 / 3))
    # Two bits for two workers: a ninth of the bytes, and 300 for packing.
    assert projection.step_ms(CONSTANTS, 2, 2, link, 8, "2bit") == pytest.approx(
        85 + 100 / 9 + 300 + max(0, 200 / 9 + 10 / 9 + 10 / 9 + 2 - 80 * 2 / 3))
    # All on one machine with one processor: eight workers, two servers, and both ends of eight workers' channels, 2.4 ns a byte.
    assert projection.step_ms(CONSTANTS, 8, 2, link, 8, processors=1) == pytest.approx(8 * 185 + 2 * 800 + 2 * 8 * 2.4 * 100)
    # Where sending takes no longer than the backward pass it costs nothing.
    assert projection.step_ms({**CONSTANTS, "bytes": 1e3, "largest_bytes": 1e3}, 1, 1, link, 8) == pytest.approx(85.001)


def test_project(run_program, tmp_path, projection):
    (tmp_path / "constants.json").write_text(json.dumps({**CONSTANTS, "batch": 8}))
    result = run_program("tools/benchmark.py", "project", "--calibration", str(tmp_path / "constants.json"), "--workers", "8",
                         "--servers", "2", "--link", "10Gbit", "--batch-size", "8", "--json", str(tmp_path / "rows.json"))
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["workers"] for row in rows] == [1, 2, 4, 8]
    assert rows[3]["ms"] == pytest.approx(projection.step_ms(CONSTANTS, 8, 2, 10e9, 8))


@pytest.mark.parametrize("words, message", [(["nothing"], "invalid choice"), (["kvstore", "--sizes", "4X"], "'4X' is no size")])
def test_mistakes(run_program, words, message):
    result = run_program("tools/benchmark.py", *words)
    assert result.returncode != 0 and message in result.stderr and "Traceback" not in result.stderr


def test_every_benchmark_has_defaults(monkeypatch):
    monkeypatch.syspath_prepend(os.path.join(ROOT, "tools"))
    sys.modules.pop("benchmark", None)
    import benchmark
    for name in benchmark.DEFAULTS:
        assert benchmark.parse([name]).repeats >= 1


def test_infer_compares_engines_and_says_who_is_missing(run_program, tmp_path):
    result = run_program("tools/benchmark.py", "infer", "--models", "lenet5", "--batches", "1,3", "--repeats", "2", "--seconds",
                         "0.05", "--engines", "stock-omp,gluonzoo,torch", "--json", str(tmp_path / "rows.json"),
                         "--csv", str(tmp_path / "rows.csv"), "--picture", str(tmp_path / "bars.png"))
    assert result.returncode == 0, result.stderr
    assert "torch is left out" in result.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {(row["engine"], row["batch"]) for row in rows} == {
        (engine, batch) for engine in ("stock-omp", "gluonzoo") for batch in (1, 3)}
    for row in rows:
        assert len(row["values"]) == 2 and 0 < row["low"] <= row["value"] <= row["high"] and row["ms"] > 0
        assert row["p99"] >= row["p95"] and len(row["mb_values"]) == 2 and 0 < row["mb"] < 100  # The libraries are not in it.
    assert "gluonzoo, batch 3: median ratio" in result.stdout
    assert (tmp_path / "bars.png").read_bytes()[:4] == b"\x89PNG"


def test_train_compares_engines(run_program, tmp_path):
    result = run_program("tools/benchmark.py", "train", "--models", "lenet5", "--batches", "4", "--repeats", "1", "--seconds",
                         "0.05", "--engines", "stock,gluonzoo,recompute", "--segments", "2", "--json",
                         str(tmp_path / "rows.json"))
    assert result.returncode == 0, result.stderr
    assert [row["engine"] for row in json.loads((tmp_path / "rows.json").read_text())] == ["stock", "gluonzoo", "recompute"]


def test_growth_holds_speed_against_the_machine(run_program, tmp_path):
    result = run_program("tools/benchmark.py", "growth", "--models", "mobilenet_v1_0_25", "--batches", "1,2", "--image-sizes",
                         "64", "--repeats", "1", "--seconds", "0.05", "--json", str(tmp_path / "rows.json"),
                         "--picture", str(tmp_path / "growth.png"))
    assert result.returncode == 0, result.stderr
    peak, *rows = json.loads((tmp_path / "rows.json").read_text())
    assert peak["value"] > 1 and len(rows) == 2
    assert (tmp_path / "growth.png").read_bytes()[:4] == b"\x89PNG"


def test_ratios_are_against_the_best_peer(monkeypatch):
    monkeypatch.syspath_prepend(os.path.join(ROOT, "tools"))
    from benchmarks import speed

    def row(engine, value):
        return {"model": "a", "batch": 1, "engine": engine, "value": value}

    rows = [row("torch", 10.0), row("onnxruntime", 20.0), row("mxnet", 40.0), row("gluonzoo", 30.0), row("int8", 60.0)]
    assert [(ours, best, ratio) for _, _, ours, _, best, ratio in speed.ratios(rows)] == [
        ("gluonzoo", "onnxruntime", 1.5), ("int8", "onnxruntime", 3.0)]


def test_memory_is_held_against_torchs(monkeypatch, capsys):
    monkeypatch.syspath_prepend(os.path.join(ROOT, "tools"))
    from benchmarks import speed

    def row(model, engine, mb):
        return {"model": model, "batch": 1, "engine": engine, "value": 2.0, "low": 1.0, "high": 3.0, "mb": mb}

    rows = [row("a", "torch", 400.0), row("a", "gluonzoo", 100.0), row("a", "recompute", 50.0), row("b", "gluonzoo", 7.0),
            row("c", "torch-compile", 500.0), row("c", "gluonzoo", 1000.0)]
    speed.report(rows, argparse.Namespace(engines="gluonzoo,recompute,torch,torch-compile"))
    shown = capsys.readouterr().out
    cells = " | ".join(f"2.0 [1.0-3.0] {mb} MB" for mb in (100, 50, 400))
    assert f"| a | 1 | {cells} | - | torch | gluonzoo 1.00 | 0.25 |" in shown
    assert "recompute 1.00 | 0.12 |" in shown and "- | gluonzoo nan | - |" in shown
    assert "gluonzoo, batch 1: memory over torch's: median 1.12, lowest 0.25, highest 2.00" in shown


def test_memory_counts_what_came_after_the_mark(root):
    """64 MB held and 32 MB of each call; not what was there before, nor the 200 MB that were held before the calls only."""
    code = ("import speed, numpy\nbefore = numpy.ones(12500000)\nspeed.mark()\nkept = numpy.ones(8 << 20)\n"
            "used = numpy.ones(25000000)\ndel used\n"
            "speed.rounds(lambda: numpy.ones(4 << 20).sum(), 0.01)\nprint(speed.memory())")
    result = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE,
                            env={**os.environ, "PYTHONPATH": str(root / "tools" / "measures")})
    assert 92 < float(result.stdout) < 105


def test_an_unknown_engine_is_named(run_program):
    result = run_program("tools/benchmark.py", "infer", "--engines", "gluonzoo,tourch")
    assert result.returncode == 2 and "'tourch' is none" in result.stderr
