"""dist_async: the optimizer runs on the servers, set up, saved and restored by JSON commands."""


def test_one_worker_equals_local_training_and_resumes(job, tmp_path):
    folder = tmp_path / "states"
    folder.mkdir()
    assert job(1, 2, "asynchronous.py", 8, folder, "save").reports[0]["difference"] <= 1e-6
    assert sorted(path.name for path in folder.iterdir()) == ["net.params", "server-0.params", "server-1.params"]
    assert job(1, 2, "asynchronous.py", 8, folder, "load").reports[0]["difference"] <= 1e-6


def test_two_workers_train(job):
    outcome = job(2, 1, "asynchronous.py", 10, "-", "-")
    assert all(0 < report["size"] < 10 for report in outcome.reports.values())
