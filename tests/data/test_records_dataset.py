"""Records as a data set: the images, reading ahead in blocks, sharding, resuming, labels that are wrong."""
import io
import threading

from gluonzoo.data import Loader, ShardedBatches, Transform, load, records_dataset, records_reader
from gluonzoo.data.records import RecordError, RecordWriter
from gluonzoo.data.records_dataset import RecordDataset, find_records
from gluonzoo.data.records_reader import ReadAhead
from gluonzoo.errors import UserError

import mxnet as mx
import numpy as np
import pytest
from PIL import Image


def picture(number, side=24):
    pixels = np.random.RandomState(number).randint(0, 256, (side, side + 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((side * 2, side), Image.BICUBIC))


def png(pixels):
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "PNG")
    return made.getvalue()


def write(path, count, labels=None):
    """A file of PNGs, so that pixels come back exactly; the list and index beside it."""
    with RecordWriter(path) as writer:
        for number in range(count):
            writer.write(number + 100, [number % 3 if labels is None else labels[number]], png(picture(number)))
    return str(path)


def test_images_and_labels_come_back(tmp_path):
    dataset = load("records", data_dir=write(tmp_path / "some.rec", 10))
    assert len(dataset) == 10 and dataset.classes == ("0", "1", "2") and dataset.labels.tolist() == [0, 1, 2] * 3 + [0]
    for index, image in zip([7, 0, 9], dataset.images([7, 0, 9])):
        np.testing.assert_array_equal(image, picture(index))


def test_mxnets_own_record_data_set_reads_the_same(tmp_path):
    path = write(tmp_path / "some.rec", 6)
    theirs, ours = mx.gluon.data.vision.ImageRecordDataset(path), RecordDataset(path)
    for index in range(6):
        image, label = theirs[index]
        np.testing.assert_array_equal(image.asnumpy(), ours.images([index])[0])
        assert label == ours.labels[index]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few records, so that 200 are many groups."""
    monkeypatch.setattr(records_dataset, "BLOCK_BYTES", 20000)
    monkeypatch.setattr(records_dataset, "BUFFER_BYTES", 80000)
    monkeypatch.setattr(records_reader, "GAP", 3000)
    monkeypatch.setattr(records_reader, "PIECE", 15000)


def flat(images, indices, epoch):
    return np.stack([image[:2, :2].reshape(-1).astype(np.float32) for image in images])


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_once_over_all_workers_and_with_the_right_pixels(tmp_path, small_blocks, workers, shuffle):
    dataset = RecordDataset(write(tmp_path / "some.rec", 200))
    assert dataset.blocks[1] == 4 and 2 <= dataset.blocks[0] < 12
    order = ShardedBatches(200, 7 * workers, shuffle=shuffle, blocks=dataset.blocks).order(2).tolist()
    parts = [list(Loader(dataset, ShardedBatches(200, 7, rank, workers, shuffle=shuffle, blocks=dataset.blocks), flat, 2,
                         threads=2)) for rank in range(workers)]
    assert len({len(part) for part in parts}) == 1
    seen = []
    for step in zip(*parts):
        for batch, images, labels in step:
            for index, image, label in zip(batch.indices, images, labels):
                np.testing.assert_array_equal(image, flat([picture(index)], None, 0)[0])
                assert label == index % 3
            seen += batch.indices.tolist()
    assert sorted(seen) == list(range(200)) and seen == order
    assert (seen == list(range(200))) != shuffle


def test_the_order_keeps_blocks_together_and_changes_with_seed_and_epoch():
    def order(epoch, seed=5):
        return ShardedBatches(1000, 10, seed=seed, blocks=(20, 4)).order(epoch)

    first = order(0)
    assert sorted(first) == list(range(1000))
    # 80 samples that follow each other come from 4 blocks; which ones, and how they are mixed, is random.
    groups = [set((first[start:start + 80] // 20).tolist()) for start in range(0, 960, 80)]
    assert all(len(group) == 4 for group in groups) and len(set.union(*groups)) == 48
    assert sum(max(group) - min(group) == 3 for group in groups) < 3
    assert (np.diff(first[:80]) < 0).any() and len(set((first[:20] // 20).tolist())) > 1
    assert order(1).tolist() != first.tolist() != order(0, 6).tolist()
    np.testing.assert_array_equal(order(0), first)
    # A set that is one group is shuffled through and through, as any other data set.
    np.testing.assert_array_equal(ShardedBatches(80, 10, seed=5, blocks=(20, 4)).order(3),
                                  ShardedBatches(80, 10, seed=5).order(3))


def test_groups_are_this_workers_samples_in_their_order():
    batches = ShardedBatches(1000, 6, 1, 4, seed=2, blocks=(20, 4))
    for start in (0, 17, len(batches)):
        groups = batches.groups(1, start)
        mine = [index for batch in batches.epoch(1, start) for index in batch.indices.tolist()]
        assert [index for group in groups for index in group.tolist()] == mine
        assert all(len(set((group // 20).tolist())) <= 4 for group in groups)


def test_resumed_in_mid_epoch_to_the_bit(tmp_path, small_blocks):
    dataset = RecordDataset(write(tmp_path / "some.rec", 120))
    transform = Transform((3, 16, 16), dataset.mean, dataset.std, train=True, augment="resized_crop+flip", seed=4)

    def run(start):
        return [(batch.indices.tolist(), images.copy()) for batch, images, _ in Loader(
            dataset, ShardedBatches(120, 8, seed=4, blocks=dataset.blocks), transform, 3, start=start)]

    whole, rest = run(0), run(9)
    assert len(rest) == 6
    for (indices, images), (again, same) in zip(whole[9:], rest):
        assert indices == again
        np.testing.assert_array_equal(images, same)


def test_the_reader_goes_forward_in_each_group_and_reads_nothing_twice(tmp_path, small_blocks):
    dataset = RecordDataset(write(tmp_path / "some.rec", 200))
    file, reads = dataset.record_file, []
    stored = file.stored
    file.stored = lambda start, stop: reads.append((start, stop)) or stored(start, stop)
    groups = ShardedBatches(200, 10, seed=1, blocks=dataset.blocks).groups(0)
    with ReadAhead(file, groups) as reader:
        for group in groups:
            for index in group.tolist():
                assert reader.stored(index) == stored(int(file.offsets[index]), int(file.ends[index]))
    assert sum(stop - start for start, stop in reads) == file.size
    backwards = sum(later[0] < earlier[1] for earlier, later in zip(reads, reads[1:]))
    assert len(groups) > 5 and backwards <= len(groups) - 1
    assert len(reads) < 200 / 2


def test_the_reader_stays_at_most_a_group_ahead(tmp_path, small_blocks):
    dataset = RecordDataset(write(tmp_path / "some.rec", 200))
    groups = ShardedBatches(200, 10, seed=1, blocks=dataset.blocks).groups(0)
    with ReadAhead(dataset.record_file, groups) as reader:
        reader.stored(int(groups[0][0]))
        with reader._changed:
            assert reader._changed.wait_for(lambda: reader._done == 1, timeout=30)
        assert len(reader._held) == len(groups[0]) + len(groups[1]) - 1
        # Asked for out of turn, and twice: as of images that are mixed into others.
        assert reader.stored(int(groups[0][0])) == reader.stored(int(groups[0][0]))
        assert reader.stored(int(groups[3][0]))
    assert not [thread for thread in threading.enumerate() if "read-ahead" in thread.name]


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_in_one_group_is_held_in_pieces(tmp_path, small_blocks, shuffle):
    """As of a caller that knows nothing of blocks: the whole file must not come into memory at once."""
    dataset = RecordDataset(write(tmp_path / "some.rec", 200))
    batches = ShardedBatches(200, 10, shuffle=shuffle)
    group, = batches.groups(0)
    sizes = dataset.record_file.ends - dataset.record_file.offsets
    with ReadAhead(dataset.record_file, [group], 60000) as reader:
        assert np.concatenate(reader._groups).tolist() == group.tolist()
        assert all(sizes[part].sum() <= 60000 + sizes.max() for part in reader._groups) and len(reader._groups) > 5
        for index in group.tolist():
            assert reader.stored(index)
            with reader._changed:
                assert sum(map(len, reader._held.values())) <= 3 * (60000 + sizes.max())
    with ReadAhead(dataset.record_file, [group], 1) as reader:  # A record is larger than that.
        assert [len(part) for part in reader._groups] == [1] * 200
    seen = [int(label) for _, _, labels in Loader(dataset, batches, flat, 0) for label in labels]
    assert sorted(seen) == sorted(dataset.labels.tolist())


def test_leaving_early_ends_the_reader(tmp_path, small_blocks):
    dataset = RecordDataset(write(tmp_path / "some.rec", 200))
    for _ in Loader(dataset, ShardedBatches(200, 5, blocks=dataset.blocks), flat, 0):
        break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gluonzoo-loader")]


def test_damage_while_reading_ahead_reaches_the_loop(tmp_path, small_blocks):
    path = write(tmp_path / "some.rec", 60)
    dataset = RecordDataset(path)
    with open(path, "rb+") as file:
        file.truncate(int(dataset.record_file.offsets[30]))
    with pytest.raises(RecordError, match=r"some\.rec: at byte \d+: expected \d+ more bytes, found the end of the file"):
        list(Loader(dataset, ShardedBatches(60, 5, blocks=dataset.blocks), flat, 0))


@pytest.mark.parametrize("label, message", [
    (-1.0, "expected a label that is a whole number from 0 on, found -1"),
    (1.5, "a label that is a whole number from 0 on, found 1.5"),
    (float("nan"), "found nan"), (3e9, "found 3e\\+09")])
def test_a_label_that_is_no_class_is_named_with_its_byte(tmp_path, label, message):
    path = write(tmp_path / "some.rec", 3, [0, label, 1])
    with pytest.raises(RecordError, match=r"some\.rec: record 101 at byte \d+: .*" + message):
        RecordDataset(path)


def test_labels_and_classes_that_contradict(tmp_path):
    path = write(tmp_path / "some.rec", 4)
    with pytest.raises(RecordError, match="record 102 at byte .*: expected a label from 0 to 1, found 2"):
        RecordDataset(path, classes=("a", "b"))
    (tmp_path / "some.lst").write_text("".join(f"{100 + n}\t{n % 2}\tx.png\n" for n in range(4)))
    dataset = RecordDataset(path)
    with pytest.raises(RecordError, match=r"record 102 at byte \d+: expected label 0 as in the list, found \[2.0\]"):
        dataset.images([2])
    (tmp_path / "some.lst").write_text("".join(f"{100 + n}\t{n % 2}\t7\tx.png\n" for n in range(4)))
    with pytest.raises(RecordError, match="record 100 at byte 0: expected one label, the number of a class, found 2 labels"):
        RecordDataset(path)
    (tmp_path / "some.lst").unlink()
    for text in ("{", '{"format": "gluonzoo records 1", "classes": 3}'):
        (tmp_path / "some.json").write_text(text)
        with pytest.raises(RecordError, match=r"some\.json: cannot be read: "):
            RecordDataset(path)
    for text in ("[1]", '{"images": []}'):  # Somebody's own.
        (tmp_path / "some.json").write_text(text)
        assert RecordDataset(path).classes == ("0", "1", "2")


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    with RecordWriter(tmp_path / "some.rec") as writer:
        writer.write(3, [0], b"\xff\xd8 no image")
    with pytest.raises(UserError, match=r"some\.rec: record 3 at byte 0: cannot be read as an image"):
        RecordDataset(tmp_path / "some.rec").images([0])


def test_files_are_found_by_prefix_folder_and_pair(tmp_path):
    train, val = write(tmp_path / "birds_train.rec", 9), write(tmp_path / "birds_val.rec", 3)
    for wanted in (train, str(tmp_path / "birds"), str(tmp_path), f"{train},{val}"):
        assert find_records(wanted) == (train, val)
    assert load("records", False, str(tmp_path)).classes == ("0", "1", "2")
    other = write(tmp_path / "cats.rec", 3)
    assert find_records(other) == (other, None) == find_records(other[:-4])
    with pytest.raises(UserError, match="no validation images beside .*cats.rec"):
        load("records", False, other)
    with pytest.raises(UserError, match="no file .*dogs_train.rec, .*dogs-train.rec, .*dogs.rec"):
        load("records", True, str(tmp_path / "dogs"))
    with pytest.raises(UserError, match="records: name a .rec file"):
        load("records")
    with pytest.raises(UserError, match="names .*absent.rec, which is not a file"):
        find_records(f"{train},{tmp_path}/absent.rec")
    write(tmp_path / "cats_val.rec", 3)
    (tmp_path / "sub").mkdir()
    with pytest.raises(UserError, match="expected one training file in .*sub .*found no .rec file"):
        find_records(str(tmp_path / "sub"))


def test_validation_labels_beyond_the_classes_of_training(tmp_path):
    write(tmp_path / "a_train.rec", 3, [0, 1, 0])
    write(tmp_path / "a_val.rec", 2, [0, 2])
    with pytest.raises(RecordError, match="a_val.rec: record 101 at byte .*: expected a label from 0 to 1, found 2"):
        load("records", False, str(tmp_path / "a"))
