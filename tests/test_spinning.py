"""The switch between waiting awake and sleeping: what decides it, and that it leaves nothing behind."""
import os
import subprocess
import sys
import threading

from gluonzoo import runtime, spinning

import pytest


@pytest.mark.parametrize("processors, threads, others, expected", [
    (2, 2, 0.0, False), (2, 2, 0.2, False), (2, 2, 0.5, True), (2, 2, 1.0, True),
    (8, 2, 5.0, False),  # There is room for both.
    (8, 8, 0.5, True), (2, 1, 2.0, False),  # One thread waits for nobody.
])
def test_when_threads_should_not_wait_awake(processors, threads, others, expected):
    assert spinning.crowded(processors, threads, others) is expected


def test_what_others_use():
    before, now = (10.0, 100.0, 40.0, 2), (12.0, 103.5, 41.0, 2)
    assert spinning.Watch.others(before, now) == pytest.approx(1.25)  # 3.5 seconds in two, 1 of them ours.
    assert spinning.Watch.others(before, before) == 0.0
    assert spinning.Watch.others((10.0, 100.0, 40.0, 2), (11.0, 100.5, 41.0, 2)) == 0.0  # Clocks of different grain.


def test_a_look_counts_this_process_and_its_loaders():
    watch = spinning.Watch(2)
    before = watch._look()
    assert before is not None and before[3] == len(os.sched_getaffinity(0))
    done = threading.Event()

    def work():
        while not done.is_set():
            sum(range(20000))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(200):
            done.wait(0.05)
            now = watch._look()
            if now[1] - before[1] > 1.0:
                break
    finally:
        done.set()
        thread.join()
    # The loop's time is on the processors, but is no computing thread's: it counts as somebody else's.
    assert watch.others(before, now) > 0.1


def tasks():
    return len(os.listdir("/proc/self/task"))


def test_the_switch_has_a_team_only_while_it_is_on():
    watch = spinning.Watch(2)
    watch.switch(False)
    assert not watch.sleepy
    before = tasks()
    watch.switch(True)
    watch.switch(True)
    assert watch.sleepy and tasks() == before + 2  # The team's two threads.
    watch.switch(False)
    assert not watch.sleepy
    for _ in range(100):
        if tasks() <= before:
            break
        threading.Event().wait(0.05)
    assert tasks() <= before


@pytest.mark.parametrize("setting, expected", [
    ({}, "True"), ({"GOMP_SPINCOUNT": "1000"}, "False"), ({"OMP_WAIT_POLICY": "passive"}, "False"),
    ({"OMP_NUM_THREADS": "1"}, "False")])
def test_a_users_own_choice_is_left_alone(setting, expected):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    code = "import gluonzoo.runtime; print(gluonzoo.runtime._watcher is not None)"
    result = subprocess.run([sys.executable, "-c", code], env={**clean, "OMP_NUM_THREADS": "2", **setting},
                            capture_output=True, text=True)
    assert result.stdout.strip() == expected, result.stderr


def test_only_the_engines_thread_has_a_team():
    code = ("import ctypes, gluonzoo, mxnet as mx\n"
            "openmp = ctypes.CDLL('libgomp.so.1')\n"
            "print(openmp.omp_get_max_threads(), gluonzoo.runtime.threads_in_use())\n"
            "gluonzoo.runtime.set_threads(3)\n"
            "print(openmp.omp_get_max_threads(), gluonzoo.runtime.threads_in_use())\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.stdout.split() == ["1", "2", "1", "3"], result.stderr
    # An engine that computes in the calling thread needs all threads there.
    result = subprocess.run([sys.executable, "-c", code], env={**environment, "MXNET_ENGINE_TYPE": "NaiveEngine"},
                            capture_output=True, text=True)
    assert result.stdout.split() == ["2", "2", "3", "3"], result.stderr
    assert runtime.threads_in_use() >= 1
