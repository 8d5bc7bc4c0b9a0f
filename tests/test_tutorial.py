"""The tutorial notebook runs from its first cell to its last, and does what it says."""
import json
import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("onnxruntime")

#: Runs the code cells one after the other in one namespace, as a kernel does, and names the cell that fails.
RUNNER = """
import json, sys
names = {"__name__": "__main__"}
for number, source in enumerate(json.load(open(sys.argv[1]))):
    print(f"--- cell {number}", flush=True)
    exec(compile(source, f"cell {number}", "exec"), names)
"""


@pytest.fixture(scope="module")
def notebook(request):
    path = request.config.rootpath / "docs" / "tutorial.ipynb"
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_is_a_clean_notebook_of_ten_code_cells(notebook):
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len(code) == 10
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code), "no outputs in the repository"
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


def test_it_runs_from_images_to_an_exported_network(notebook, tmp_path, root):
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (tmp_path / "cells.json").write_text(json.dumps(sources))
    environment = {**os.environ, "PYTHONPATH": str(root), "MPLBACKEND": "Agg"}
    done = subprocess.run([sys.executable, "-c", RUNNER, "cells.json"], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert done.stdout.count("--- cell") == 10
    assert float(re.search(r"validation accuracy ([\d.]+) %", done.stdout).group(1)) > 93, done.stdout
    assert (tmp_path / "tutorial.html").stat().st_size > 50_000
    # What predict.py said of images whose folders are their classes.
    answers = re.findall(r"^digit_photos/val/(\d)/\S+\n\s+([\d.]+)\s+(\d)$", done.stdout, re.MULTILINE)
    assert len(answers) == 5 and sum(true == answer for true, _, answer in answers) >= 4, done.stdout[-1500:]
