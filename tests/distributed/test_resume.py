"""A resumed run is the uninterrupted run, to the bit: one and two workers, momentum and Adam, dropout and augmentation."""
import pytest


@pytest.mark.parametrize("workers, kind, optimizer, devices, die_at", [
    (1, "device", "sgd", 1, 23), (1, "device", "adam", 2, 31), (1, "dist_sync", "adam", 1, 3),
    (2, "dist_sync", "sgd", 1, 25), pytest.param(2, "dist_sync", "adam", 1, 11, marks=pytest.mark.slow)])
def test_resumed_equals_uninterrupted(job, tmp_path, workers, kind, optimizer, devices, die_at):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    every = 7 if workers == 1 else 4
    straight = job(workers, 1, "resume.py", whole, kind, optimizer, every, 0, devices, 0)
    died = job(workers, 1, "resume.py", broken, kind, optimizer, every, die_at, devices, 0, check=False)
    assert died.code == 9, died.output
    first_checkpoint = die_at >= every
    again = job(workers, 1, "resume.py", broken, kind, optimizer, every, 0, devices, int(first_checkpoint))
    assert sorted(again.reports) == list(range(workers))
    for rank in range(workers):
        # An epoch of 1,433 images ends at update 30 (one worker) or 15 (two): a checkpoint stands there too.
        assert again.reports[rank]["resumed_at"] == (max(die_at // every * every, (die_at // (30 // workers)) * (30 // workers))
                                                     if first_checkpoint else 0)
        assert again.comparable[rank] == straight.comparable[rank]
    weights = [{k: v for k, v in report.items() if isinstance(v, str)} for report in straight.reports.values()]
    assert all(w == weights[0] for w in weights), "ranks ended with different parameters or running statistics"


def test_restart_by_the_launcher_resumes_and_equals(job, tmp_path):
    """--max-restarts: the job dies once, starts again by itself from its checkpoint, and ends as if nothing had been."""
    straight = job(2, 1, "resume.py", tmp_path / "whole", "dist_sync", "sgd", 4, 0, 1, 0)
    script = tmp_path / "dies_once.py"
    from pathlib import Path
    jobs = Path(__file__).resolve().parent / "jobs"
    script.write_text(f"""
import os, runpy, sys
sys.argv[5] = "0" if os.environ["GLUONZOO_RESTART"] != "0" else sys.argv[5]
runpy.run_path({str(jobs / 'resume.py')!r}, run_name="__main__")
""")
    again = job(2, 1, script, tmp_path / "broken", "dist_sync", "sgd", 4, 10, 1, 0, launch=("--max-restarts", "1"))
    assert again.reports[0]["resumed_at"] == 8
    assert again.comparable == straight.comparable
