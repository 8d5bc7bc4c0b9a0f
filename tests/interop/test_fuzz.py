"""Thousands of broken files: each is refused or read, nothing crashes, nothing is executed."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def fuzz(tmp_path, seed, count):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent.parent), str(HERE)])}
    done = subprocess.run([sys.executable, str(HERE / "fuzz_worker.py"), str(seed), str(count), str(tmp_path)],
                          capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout.splitlines()[-1])
    assert sum(map(sum, results.values())) == count
    for name, (loaded, refused) in results.items():
        assert refused > 0.3 * (loaded + refused), f"{name}: hardly any mutation was noticed"
    return results


def test_a_hundred_mutated_files(tmp_path):
    fuzz(tmp_path, seed=1, count=120)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_thousands_of_mutated_files(tmp_path, seed):
    results = fuzz(tmp_path, seed, count=2000)
    assert {"params", "zip", "legacy"} <= set(results)
    assert any(loaded for loaded, _ in results.values()), "a changed element is no fault of the format"
