"""Who failed, from exit codes alone."""
import os
import signal
import subprocess
from collections import namedtuple

from launch.processes import DeathOrder
from launch.roles import FINISHED, ORDERLY, judge, tolerated

import pytest

Fake = namedtuple("Fake", "name is_worker code ended")
NOW = 100.0


def roles(text):
    """``w0=0@5 s0 sch=-9@7``: worker 0 ended with 0 at 5, server 0 runs, the scheduler was killed at 7."""
    made = []
    for word in text.split():
        name, _, rest = word.partition("=")
        code, _, ended = rest.partition("@")
        made.append(Fake(name, name.startswith("w"), int(code) if code else None, float(ended) if ended else None))
    return made


@pytest.mark.parametrize("text, expected", [
    ("sch s0 w0 w1", None),
    ("sch s0 w0=0@5 w1", None),
    ("sch s0 w0=0@5 w1=0@6", FINISHED),
    ("sch=0@6 s0=0@6 w0=0@5 w1=0@6", FINISHED),
    ("sch=-9@6 s0=1@6 w0=0@5 w1=0@6", FINISHED),       # too late to matter
    ("sch s0 w0=3@5 w1", "w0"),
    ("sch s0 w0=0@5 w1=-11@6", "w1"),
    ("sch s0 w0=1@7 w1=1@6", "w1"),
    ("sch s0 w0=1@7 w1=0@6", "w0"),
    ("sch s0=-9@5 w0 w1", "s0"),
    ("sch=1@5 s0 w0 w1", "sch"),
    ("sch s0=1@5 w0 w1=0@3", "s0"),
    ("sch s0=1@5 w0=1@4 w1", "w0"),
    ("sch s0=0@%g w0 w1" % (NOW - 0.5 * ORDERLY), None),
    ("sch s0=0@%g w0 w1" % (NOW - 1.5 * ORDERLY), "s0"),
    ("sch=0@%g s0 w0 w1" % (NOW - 1.5 * ORDERLY), "sch"),
    ("sch=0@50 s0=0@50 w0 w1", None),                  # ps-lite has shut down in order: workers may finish alone
    ("sch=0@50 s0=0@50 w0 w1=4@70", "w1"),
    ("sch=0@50 s0=0@50 s1 w0 w1", "sch"),
    (f"sch s0=0@{NOW - 1:g} w0=1@{NOW - 0.5:g} w1", "s0"),     # the server went first
])
def test_judge(text, expected):
    verdict = judge(roles(text), NOW)
    assert getattr(verdict, "name", verdict) == expected


def test_the_kernel_knows_the_order_of_deaths():
    order = DeathOrder()
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(6)]
    try:
        for child in children:
            order.add(child.pid)
        wanted = [children[i].pid for i in (3, 0, 5, 1)]
        for pid in wanted:
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        for child in children:      # reaped in another order, as after a while without looking
            if child.pid in wanted:
                child.wait()
        ranks = {child.pid: order.rank(child.pid) for child in children}
    finally:
        for child in children:
            child.kill()
            child.wait()
        order.close()
    if not any(ranks.values()):
        pytest.skip("no pidfds on this kernel")
    assert sorted(wanted, key=ranks.get) == wanted
    assert [pid for pid in ranks if ranks[pid] == 0] == [children[2].pid, children[4].pid]


@pytest.mark.parametrize("text, limit, expected, spared", [
    ("sch s0 w0 w1=9@5 w2", 1, None, "w1"),
    ("sch s0 w0 w1=9@5 w2=1@7", 1, "w2", "w1"),
    ("sch s0 w0 w1=9@7 w2=1@5", 1, "w1", "w2"),
    ("sch s0 w0 w1=9@7 w2=1@5", 2, None, "w2 w1"),
    ("sch s0 w0=1@5 w1 w2", 2, "w0", ""),               # never worker 0
    ("sch s0 w0=0@5 w1=9@4 w2=0@6", 1, FINISHED, "w1"),
    ("sch s0=1@4 w0 w1=9@5", 1, "s0", "w1"),
])
def test_workers_that_are_spared(text, limit, expected, spared):
    made = roles(text)
    verdict = judge(made, NOW, limit)
    assert getattr(verdict, "name", verdict) == expected
    assert " ".join(role.name for role in tolerated(made, limit)) == spared
