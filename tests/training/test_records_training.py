"""Training on packed images: stopped in mid-epoch and continued, to the bit; one worker's share of two; time spent waiting."""
import io
import os

from gluonzoo import data
from gluonzoo.data import loader, records_dataset
from gluonzoo.data.records import RecordWriter
from gluonzoo.training import checkpoint
from gluonzoo.training.loop import fit
from gluonzoo.training.run import prepare, settings

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """90 + 12 small images in blocks of about 5, 4 of which are shuffled together."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(records_dataset, "BLOCK_BYTES", 5 * 3500)
    monkeypatch.setattr(records_dataset, "BUFFER_BYTES", 20 * 3500)
    random = np.random.RandomState(0)
    for name, count in (("train", 90), ("val", 12)):
        with RecordWriter(tmp_path / f"set_{name}.rec") as writer:
            for number in range(count):
                made = io.BytesIO()
                Image.fromarray(random.randint(0, 256, (34, 34, 3), dtype=np.uint8)).save(made, "PNG")
                writer.write(number, [number % 3], made.getvalue())
    return str(tmp_path / "set")


def begin(packed, output, resume=False, **more):
    wishes = {"model": "lenet5", "dataset": "records", "data_dir": packed, "batch_size": 4, "epochs": 2, "seed": 3,
              "augment": "resized_crop+flip", "output": output, "sample_log": f"{output}-samples", **more}
    return prepare(*settings(wishes, resume))


def final(output):
    saved = checkpoint.newest(output)
    return {**saved.arrays("parameters.params"), **saved.arrays("optimizer.params")}, saved.state["step"]


def test_stopped_in_mid_epoch_and_continued_it_equals_the_uninterrupted_run(packed):
    whole = begin(packed, "whole")
    assert whole.batches.blocks[1] == 4 and whole.train_set[0].blocks[0] < 12
    fit(whole)
    first = begin(packed, "torn")
    write = first.samples_written = []
    note = first.agreement.note

    def stop_after_30():
        note()
        write.append(1)
        if len(write) == 30:
            first.stop.ask("the test")

    first.agreement.note = stop_after_30
    fit(first)
    assert first.stopped and first.position.step_in_epoch not in (0, len(first.batches))
    fit(prepare(*settings({}, "torn")))  # The checkpoint knows where the data is.
    (expected, steps), (found, again) = final("whole"), final("torn")
    assert steps == again == 2 * len(whole.batches)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    logs = [open(os.path.join(f"{name}-samples", "worker-0.jsonl")).read() for name in ("whole", "torn")]
    assert logs[0] == logs[1]


def test_the_share_of_waiting_is_in_the_record_and_the_log(packed, monkeypatch):
    run = begin(packed, "run", epochs=1)
    ticks = iter(range(10 ** 6))
    monkeypatch.setattr(loader.time, "monotonic", lambda: next(ticks) / 1000)  # The loop's clock too: the same module.
    record, = fit(run)
    assert 0 < record["data_wait"] < 1
    # Two readings around every batch, a thousandth apart.
    assert record["data_wait"] == pytest.approx(len(run.batches) / 1000 / record["seconds"])


def test_a_loader_counts_only_the_waiting(monkeypatch):
    dataset = data.ArrayDataset(np.zeros((20, 4, 4, 1), np.uint8), "toy", "train", ("a", "b"), np.zeros(20, np.int32), (1, 4, 4),
                                (0.0,), (1.0,), "none", "a test")
    now = [0.0]
    monkeypatch.setattr(loader.time, "monotonic", lambda: now[0])

    class Slow:
        def __init__(self, result):
            self._result = result

        def result(self):
            now[0] += 0.25
            return self._result

        def cancel(self):
            pass

    class Pool:
        def __init__(self, *_, **__):
            pass

        def submit(self, function, *arguments):
            return Slow(function(*arguments))

        def shutdown(self, wait):
            pass

    monkeypatch.setattr(loader, "ThreadPoolExecutor", Pool)
    batches = data.Loader(dataset, data.ShardedBatches(20, 5), lambda images, *_: images, 0)
    for _ in batches:
        now[0] += 100
    assert batches.waited == 4 * 0.25
    for _ in batches:
        pass
    assert batches.waited == 4 * 0.25
