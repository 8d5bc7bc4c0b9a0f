"""Images shared out among processes: order, results, broken images, dead processes, an end without remains."""
import os
import signal
import subprocess
import sys
import time

from gluonzoo.errors import UserError
from gluonzoo.export import ExportError, Pool, to_symbol
from gluonzoo.export.pool import PoolError

import mxnet as mx
import numpy as np
import pytest


class Brightness(mx.gluon.HybridBlock):
    """Logits (left half, right half): mean of the normalised pixels of each half."""

    def hybrid_forward(self, F, x):
        halves = F.split(F.mean(x, axis=(1, 2)), num_outputs=2, axis=1)
        return F.concat(*[F.mean(half, axis=1, keepdims=True) for half in halves], dim=1)


def expected(left, right):
    logits = np.array([left / 255, right / 255])
    return np.exp(logits) / np.exp(logits).sum()


def pgm(path, left, right):
    image = np.zeros((4, 8), "uint8")
    image[:, :4], image[:, 4:] = left, right
    path.write_bytes(b"P5 8 4 255\n" + image.tobytes())


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """(export, folder of 40 images, array of 7, their pairs of brightness in order of the images)."""
    folder = tmp_path_factory.mktemp("job")
    prefix = str(folder / "net")
    to_symbol(Brightness(), prefix, (1, 4, 8), metadata={"mean": (0.0,), "std": (1.0,), "classes": ("left", "right")})
    pairs = [tuple(pair) for pair in np.random.RandomState(0).randint(0, 256, (47, 2))]
    (folder / "photos").mkdir()
    for number, pair in enumerate(pairs[:40]):
        pgm(folder / "photos" / f"{number:02d}.pgm", *pair)
    many = np.zeros((7, 4, 8), "uint8")[..., None]
    for image, (left, right) in zip(many, pairs[40:]):
        image[:, :4], image[:, 4:] = left, right
    np.save(str(folder / "many.npy"), many)
    return prefix, str(folder / "photos"), str(folder / "many.npy"), pairs


def check(results, pairs):
    assert len(results) == len(pairs)
    for result, pair in zip(results, pairs):
        assert result.error is None
        found = {guess.name: guess.probability for guess in result.predictions}
        np.testing.assert_allclose([found["left"], found["right"]], expected(*pair), rtol=1e-5)


def children():
    """Processes of pools on this machine that are ours."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()


def test_results_are_those_of_one_process_in_the_order_of_the_images(job):
    prefix, photos, many, pairs = job
    found, told = {}, []
    for jobs in (1, 2):
        with Pool(prefix, jobs, batch_size=5, tell=told.append) as pool:
            found[jobs] = list(pool.predict([photos, many]))
            assert (pool.jobs, pool.threads) == (jobs, 1 if jobs == 2 else pool.threads)
            if jobs == 2:
                begun = pool.predict([photos] * 20)  # Left after one image, with many pieces waiting.
                check([next(begun)], pairs[:1])
                check(list(pool.predict(photos)), pairs[:40])  # With the same processes.
        check(found[jobs], pairs)
    names = [os.path.join(photos, f"{number:02d}.pgm") for number in range(40)] + [f"{many}[{index}]" for index in range(7)]
    assert [result.name for result in found[2]] == [result.name for result in found[1]] == names
    assert not children() and not told


def test_a_broken_image_ends_the_job_or_is_passed_over(job, tmp_path):
    prefix, photos, _, pairs = job
    files = [os.path.join(photos, f"{number:02d}.pgm") for number in range(9)]
    broken = str(tmp_path / "broken.pgm")
    with open(broken, "wb") as file:
        file.write(b"P5 8 4 255\nshort")
    np.save(str(tmp_path / "floats.npy"), np.zeros((2, 4, 8, 1)))
    paths = [*files[:4], broken, *files[4:], str(tmp_path / "floats.npy")]
    for jobs in (1, 2):
        with Pool(prefix, jobs, batch_size=4) as pool:
            results = pool.predict(paths)
            check([next(results) for _ in range(4)], pairs[:4])
            with pytest.raises(UserError, match="broken.pgm"):
                next(results)
        with Pool(prefix, jobs, batch_size=4, keep_going=True) as pool:
            results = list(pool.predict(paths))
        assert "broken.pgm: cannot be read" in results[4].error and not results[4].lost and results[4].predictions is None
        assert [("uint8" in result.error, result.name[-12:]) for result in results[-2:]] == [
            (True, "loats.npy[0]"), (True, "loats.npy[1]")]
        check(results[:4] + results[5:-2], pairs[:9])
    assert not children()


#: Put before everything a process imports: it dies of what the file .killer says, as often as its number tells.
KILLER = """
import os, signal, sys
if "gluonzoo.export.pool_worker" in open("/proc/self/cmdline").read():
    class Deadly:
        def __getattr__(self, name):
            return getattr(self.file, name)
        def __init__(self, file):
            self.file = file
        @property
        def buffer(self):
            return self
        def __iter__(self):
            for line in self.file.buffer:
                with open(os.environ["KILLER"]) as plan:
                    name, times = plan.read().split()
                if name.encode() in line and int(times):
                    with open(os.environ["KILLER"], "w") as plan:
                        plan.write(f"{name} {int(times) - 1}")
                    os.kill(os.getpid(), signal.SIGKILL)
                yield line
    sys.stdin = Deadly(sys.stdin)
"""


@pytest.fixture
def deadly(tmp_path, monkeypatch):
    """deadly("07.pgm", 1): the process that is given this image is killed, so many times."""
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "sitecustomize.py").write_text(KILLER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hooks"))
    monkeypatch.setenv("KILLER", str(tmp_path / "plan"))
    return lambda name, times: (tmp_path / "plan").write_text(f"{name} {times}")


def test_images_of_a_process_that_dies_are_tried_once_more(job, deadly):
    prefix, photos, _, pairs = job
    deadly("07.pgm", 1)
    told = []
    with Pool(prefix, 2, batch_size=4, tell=told.append) as pool:
        check(list(pool.predict(photos)), pairs[:40])
    (line,) = told
    assert "ended by SIGKILL while it had" in line and "07.pgm" in line and "tried once more" in line
    assert not children()


@pytest.mark.slow
def test_images_that_kill_twice_are_lost_and_the_others_are_kept(job, deadly):
    prefix, photos, _, pairs = job
    deadly("07.pgm", 99)
    told = []
    with Pool(prefix, 2, batch_size=4, tell=told.append) as pool:
        results = list(pool.predict(photos))
    lost = [result for result in results if result.lost]
    assert [os.path.basename(result.name) for result in lost] == ["04.pgm", "05.pgm", "06.pgm", "07.pgm"]
    assert all("SIGKILL, twice" in result.error for result in lost)
    check(results[:4] + results[8:], pairs[:4] + pairs[8:40])
    assert len(told) == 2 and "that was the second time" in told[1]
    assert not children()


@pytest.mark.slow
def test_where_no_process_can_live(job, deadly):
    prefix, photos, _, _ = job
    deadly("model", 99)  # It is in the first line that each is sent.
    told = []
    with pytest.raises(PoolError, match="no process of the pool is left"), Pool(prefix, 2, tell=told.append) as pool:
        list(pool.predict(photos))
    assert len(told) == 6 and all("while it started" in line for line in told)
    assert not children()


def test_mistakes(job, tmp_path):
    prefix, photos, _, _ = job
    with pytest.raises(UserError, match="nowhere"), Pool(str(tmp_path / "nowhere"), 2) as pool:
        list(pool.predict(photos))
    with pytest.raises(ExportError, match="absent: no such file"), Pool(prefix, 2) as pool:
        pool.predict(str(tmp_path / "absent"))
    with pytest.raises(UserError, match="jobs is 'some'"):
        Pool(prefix, "some")
    with pytest.raises(UserError, match="Brightness; processes open it themselves"):
        Pool(Brightness())
    with pytest.raises(UserError, match="batch_size is 0"):
        Pool(prefix, 2, 0)
    assert not children()


@pytest.mark.parametrize("word", [signal.SIGINT, *(pytest.param(word, marks=pytest.mark.slow)
                                                   for word in (signal.SIGTERM, signal.SIGKILL))])
def test_whatever_ends_the_program_ends_its_processes(root, job, tmp_path, word):
    prefix, photos, _, _ = job
    command = [sys.executable, str(root / "tools" / "predict.py"), *[photos] * 400, "--model", prefix, "--jobs", "2",
               "--batch-size", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                               env={**os.environ, "PYTHONPATH": str(root)})
    try:
        process.stdout.readline()  # Both are at work.
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            before = file.read().split()
        workers = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and parent(pid) == process.pid]
        assert len(workers) == 2 and len(before) <= 2
        process.send_signal(word)
        process.stdout.close()
        process.wait(timeout=60)
        end = time.monotonic() + 30
        while any(os.path.exists(f"/proc/{pid}") and state(pid) != "Z" for pid in workers):
            assert time.monotonic() < end
            time.sleep(0.05)
        if word == signal.SIGINT:
            assert process.returncode == 130
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _stat(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def parent(pid):
    try:
        return int(_stat(pid)[1])
    except OSError:
        return None


def state(pid):
    try:
        return _stat(pid)[0]
    except OSError:
        return "Z"
