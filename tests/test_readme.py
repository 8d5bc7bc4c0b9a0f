"""What the README promises: its example runs, its table of networks is the registry's, its programs exist, the main job works."""
import os
import re
import subprocess
import sys

from gluonzoo import list_models
from gluonzoo.summary import overview

import pytest


@pytest.fixture
def readme(root):
    return (root / "README.md").read_text(encoding="utf-8")


@pytest.mark.smoke
def test_the_example_of_a_block_in_ones_own_code_runs(readme, root, tmp_path):
    example = re.search(r"```python\n(.*?)```", readme, re.S).group(1)
    assert len(example.strip().splitlines()) <= 12
    result = subprocess.run([sys.executable, "-c", example + "print(loss.mean().asscalar() > 0)"], capture_output=True, text=True,
                            timeout=120, cwd=str(tmp_path), env={**os.environ, "PYTHONPATH": str(root)})
    assert result.returncode == 0 and result.stdout.strip() == "True", result.stderr


def test_the_table_of_networks_is_the_registry(readme):
    rows = re.findall(r"^\| (\w+) +\|.*\|$", readme.partition("## Networks")[2].partition("## What has not")[0], re.M)
    assert [row for row in rows if row != "network"] == list_models()
    assert overview(list_models(), markdown=True).strip() in readme


def test_every_program_named_exists(readme, root):
    for name in set(re.findall(r"\b((?:tools|launch)/\w+\.py)\b", readme)):
        assert (root / name).is_file(), name
    makefile = (root / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)\b", readme)) - {"it"}:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_every_flag_in_the_readme_is_known(readme, run_program):
    known = "".join(run_program(*program.split(), "--help").stdout for program in (
        "tools/train.py", "launch/launch.py", "launch/launch.py check", "tools/export.py", "tools/predict.py",
        "tools/summarize.py", "tools/benchmark.py", "tools/convert.py", "tools/visualize.py", "tools/evaluate.py",
        "tools/report.py", "tools/pack.py", "tools/compress.py"))
    for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", readme)) - {"--no-deps"}:
        assert flag in known, flag


@pytest.mark.smoke
def test_the_main_job(run_program, tmp_path):
    """make demo: 1 scheduler, 1 server, 2 workers, 97 %, and an export equal to the live network in a fresh process."""
    result = run_program("tools/demo.py", "--output", tmp_path / "demo", timeout=400)
    assert result.returncode == 0, result.stdout + result.stderr
    accuracy = float(re.search(r"accuracy +([\d.]+) %", result.stdout).group(1))
    assert accuracy >= 97
    assert "equal, to the bit" in result.stdout
    for name in ("lenet5-symbol.json", "lenet5-0000.params", "lenet5.json", "curve.png", "log.jsonl", "roles/worker-0.log"):
        assert (tmp_path / "demo" / name).stat().st_size > 0
    assert (tmp_path / "demo" / "roles" / "worker-1.log").exists()  # Empty: only rank 0 talks.
    assert (tmp_path / "demo" / "curve.png").read_bytes().startswith(b"\x89PNG")
