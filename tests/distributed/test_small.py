"""Pruned, shared and taught networks on several workers: the same bits on each, and what one worker gets."""


def test_workers_agree_and_equal_one(job):
    outcome = job(2, 1, "small.py")
    first, second = outcome.reports.values()
    assert first["digests"] == second["digests"] and len(first["digests"]) == 7
    for name, share in (("oneshot", 0.6), ("gradual", 0.8), ("local steps", 0.7), ("2bit", 0.7)):
        # By layer the mean of shares is the share; of "global" it is not.
        assert abs(first["zeros"][name] - share) < (0.25 if name == "gradual" else 0.005), (name, first["zeros"])
    assert first["values"]["shared"] <= 8 and first["values"]["shared, local steps"] <= 8 < first["values"]["oneshot"]
    assert set(first["differences"]) == {"oneshot", "shared", "taught"}
    assert max(first["differences"].values()) < 2e-4, first["differences"]
