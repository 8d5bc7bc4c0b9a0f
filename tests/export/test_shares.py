"""How a batch job is shared out: processors, memory, the choice of processes, pieces."""
import os

from gluonzoo.errors import UserError
from gluonzoo.export import shares

import pytest


def topology(folder, cores):
    """Files as of /sys/devices/system/cpu: {processor: (socket, core)}."""
    for cpu, (socket, core) in cores.items():
        path = folder / f"cpu{cpu}" / "topology"
        path.mkdir(parents=True)
        (path / "physical_package_id").write_text(f"{socket}\n")
        (path / "core_id").write_text(f"{core}\n")
    return str(folder)


def test_processors_are_shared_without_rest(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = shares.processor_shares(3, cpus=range(8), quota=8, root=str(tmp_path))
    assert [cpus for cpus, _ in found] == [{0, 1}, {2, 3, 4}, {5, 6, 7}] and [threads for _, threads in found] == [2, 2, 2]
    assert shares.processor_shares(2, cpus=[4, 9], quota=2, root=str(tmp_path)) == [({4}, 1), ({9}, 1)]
    # More processes than processors share them.
    assert [cpus for cpus, _ in shares.processor_shares(3, cpus=[1, 2], quota=2, root=str(tmp_path))] == [{1}, {2}, {1}]


def test_threads_of_a_core_stay_together(tmp_path, monkeypatch):
    """Two sockets of two cores of two threads, numbered as Linux does: siblings are 4 apart."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    root = topology(tmp_path, {cpu: (cpu // 2 % 2, cpu % 2) for cpu in range(8)})
    assert [cpus for cpus, _ in shares.processor_shares(4, cpus=range(8), quota=8, root=root)] == [{0, 4}, {1, 5}, {2, 6}, {3, 7}]


def test_a_quota_and_the_users_threads_limit(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads for _, threads in shares.processor_shares(2, cpus=range(64), quota=4, root=str(tmp_path))] == [2, 2]
    assert [len(cpus) for cpus, _ in shares.processor_shares(2, cpus=range(64), quota=4, root=str(tmp_path))] == [32, 32]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert [threads for _, threads in shares.processor_shares(2, cpus=range(8), quota=8, root=str(tmp_path))] == [1, 1]


def test_pieces_keep_order_and_shrink_at_the_end():
    items = list(range(100))
    assert list(shares.pieces(items, 32, 1)) == [items[:32], items[32:64], items[64:96], items[96:]]
    for jobs in (2, 3, 8):
        for size in (1, 3, 32):
            cut = list(shares.pieces(items, size, jobs))
            assert sum(cut, []) == items and max(map(len, cut)) <= size
    assert [len(piece) for piece in shares.pieces(items, 32, 2)] == [16, 16, 16, 8, 8, 8, 4, 4, 4, 4, 4, 4, 4]
    assert list(shares.pieces([], 32, 2)) == []


def test_the_choice_of_processes():
    # 1000 images of 0.04 s with one thread and 0.06 with all: 100 s alone, 5 + 10 + 60 with four.
    assert shares.choose_jobs(1000, 0.04, 0.06, 5.0, 4) == 4
    assert shares.choose_jobs(1000, 0.04, 0.06, 5.0, 1) == 1
    assert [shares.choose_jobs(1000, 0.04, 0.06, start, 4) for start in (29.9, 30.1)] == [4, 1]
    assert shares.choose_jobs(1000, 0.0, 0.1, 5.0, 4) == 1  # All processors are at work already.
    # 80 % of 3 GB hold two processes of 1 GB; of 1 GB none beside this one.
    assert [shares.choose_jobs(1000, 0.04, 0.06, 5.0, 4, 10**9, free) for free in (3 * 10**9, 10**9, None)] == [2, 1, 4]


def test_memory_is_what_machine_and_control_groups_leave(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    (tmp_path / "groups").write_text("0::/a/b\n")
    (tmp_path / "a" / "b").mkdir(parents=True)

    def available():
        return shares.available_memory(str(tmp_path / "meminfo"), str(tmp_path / "groups"), str(tmp_path))

    assert available() == 5000 * 1024
    (tmp_path / "a" / "memory.max").write_text("3000000\n")
    (tmp_path / "a" / "memory.current").write_text("1000000\n")
    (tmp_path / "a" / "b" / "memory.max").write_text("max\n")
    (tmp_path / "a" / "b" / "memory.current").write_text("1000\n")
    assert available() == 2000000
    assert shares.available_memory(str(tmp_path / "none"), str(tmp_path / "none"), str(tmp_path)) is None
    assert 10**6 < shares.own_memory() < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("jobs", [0, -1, "0", "two", 1.5, None, True])
def test_numbers_of_processes_that_are_none(jobs):
    with pytest.raises(UserError, match="expected a whole number of at least 1, or auto"):
        shares.check_jobs(jobs)
    assert shares.check_jobs("auto") is None and shares.check_jobs("3") == 3
