"""Optimizers, the switch between two, the moving average, plateau and label smoothing: N workers are one."""


def test_workers_equal_one(job):
    outcome = job(2, 1, "craft.py")
    reports = list(outcome.reports.values())
    assert len(reports) == 2
    for same in ("digests", "histories"):
        assert reports[0][same] == reports[1][same]
    for report in reports:
        assert len(report["differences"]) == 8
        assert max(report["differences"].values()) < 2e-4, report["differences"]
