"""Packing: the same bytes whatever the processes and interruptions; broken images; ways to make images anew; verification."""
import io
import json
import os
import shutil

from gluonzoo.data import images, packing, packing_check, packing_list
from gluonzoo.data.records import RecordFile, read_list
from gluonzoo.data.records_dataset import RecordDataset
from gluonzoo.errors import UserError

import numpy as np
import pytest
from PIL import Image


def photo(number, width=40, height=30):
    small = np.random.RandomState(number).randint(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.BICUBIC)


def folder_of(path, count=40, classes=("ant", "bee", "cat")):
    for number in range(count):
        place = path / classes[number % len(classes)] / f"{number:03d}.{'png' if number % 4 == 0 else 'jpg'}"
        place.parent.mkdir(parents=True, exist_ok=True)
        photo(number).save(place)
    return path


@pytest.fixture
def chunks_of_7(monkeypatch):
    monkeypatch.setattr(packing, "CHUNK", 7)


def everything(prefix):
    """{ending: bytes} of what was packed."""
    return {ending: open(str(prefix) + ending, "rb").read() for ending in packing.ENDINGS if os.path.exists(str(prefix) + ending)}


def test_files_are_kept_to_the_byte_and_the_same_with_any_number_of_processes(tmp_path, chunks_of_7):
    folder = folder_of(tmp_path / "photos")
    listing = packing_list.from_folder(folder)
    ticks = []
    packed = packing.pack(listing, tmp_path / "one", processes=1, tick=ticks.append)
    assert packed == (40, 0, os.path.getsize(tmp_path / "one.rec"), True) and sum(ticks) == 40
    packing.pack(listing, tmp_path / "three", processes=3)
    one, three = everything(tmp_path / "one"), everything(tmp_path / "three")
    assert one[".rec"] == three[".rec"] and one[".idx"] == three[".idx"] and one[".lst"] == three[".lst"]
    keys, labels, paths = read_list(tmp_path / "one.lst")
    file = RecordFile(tmp_path / "one.rec")
    assert keys == list(range(40)) and sorted(paths) != paths
    for position, (key, label, path) in enumerate(zip(keys, labels, paths)):
        record = file.read(position)
        assert record.data == (folder / path).read_bytes()
        assert record.id == key and tuple(record.labels) == label
        assert ("ant", "bee", "cat")[int(label[0])] == path.split("/")[0]
    assert RecordDataset(tmp_path / "one.rec").classes == ("ant", "bee", "cat")
    assert not os.path.exists(tmp_path / "one.packing")
    assert packing.pack(listing, tmp_path / "one").new is False
    assert everything(tmp_path / "one") == one


def test_interrupted_at_every_chunk_it_ends_the_same(tmp_path, chunks_of_7, monkeypatch):
    listing = packing_list.from_folder(folder_of(tmp_path / "photos"))
    packing.pack(listing, tmp_path / "whole", processes=2)
    wait_for, calls = packing._Workers.wait_for, []

    def interrupted(self, chunk):
        wait_for(self, chunk)
        calls.append(chunk)
        raise KeyboardInterrupt

    done = []
    for _ in range(3):
        monkeypatch.setattr(packing._Workers, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            packing.pack(listing, tmp_path / "torn", processes=2)
        # A kill in the middle of an append, and a kill between append and removal, leave this.
        rec = tmp_path / "torn.packing" / ".rec"
        with open(rec, "ab") as file:
            file.write(b"half of a chunk")
        monkeypatch.setattr(packing._Workers, "wait_for", lambda self, chunk, limit=calls[-1]: (
            wait_for(self, chunk) if chunk <= limit else interrupted(self, chunk)))
        with pytest.raises(KeyboardInterrupt):
            packing.pack(listing, tmp_path / "torn", processes=2, tick=done.append)
    monkeypatch.setattr(packing._Workers, "wait_for", wait_for)
    again = []
    packing.pack(listing, tmp_path / "torn", processes=2, tick=again.append)
    assert again[0] > 0 and sum(again) == 40
    for ending, data in everything(tmp_path / "whole").items():
        assert everything(tmp_path / "torn")[ending] == data.replace(b"whole.", b"torn."), ending


def test_damage_to_unfinished_work_is_found_and_made_again(tmp_path, chunks_of_7, monkeypatch):
    listing = packing_list.from_folder(folder_of(tmp_path / "photos"))
    packing.pack(listing, tmp_path / "whole", processes=2)
    wait_for = packing._Workers.wait_for

    def stop_at_4(self, chunk):
        wait_for(self, chunk)
        if chunk == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(packing._Workers, "wait_for", stop_at_4)
    with pytest.raises(KeyboardInterrupt):
        packing.pack(listing, tmp_path / "hurt", processes=1)
    rec = tmp_path / "hurt.packing" / ".rec"
    data = bytearray(rec.read_bytes())
    data[len(data) // 2] ^= 1
    rec.write_bytes(data)
    (tmp_path / "hurt.packing" / "0000004.rec").write_bytes(b"x")
    monkeypatch.setattr(packing._Workers, "wait_for", wait_for)
    packing.pack(listing, tmp_path / "hurt", processes=2)
    assert everything(tmp_path / "hurt")[".rec"] == everything(tmp_path / "whole")[".rec"]


@pytest.mark.parametrize("moved", range(5))
def test_a_kill_while_the_finished_files_are_renamed(tmp_path, chunks_of_7, monkeypatch, moved):
    listing = packing_list.from_folder(folder_of(tmp_path / "photos", 9))
    monkeypatch.setattr(packing, "_move", lambda folder, prefix: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        packing.pack(listing, tmp_path / "some")
    monkeypatch.undo()
    for ending in [".rec", ".idx", ".lst", ".json"][:moved]:
        os.replace(tmp_path / "some.packing" / ending, str(tmp_path / "some") + ending)
    assert packing.pack(listing, tmp_path / "some") == (9, 0, os.path.getsize(tmp_path / "some.rec"), True)
    assert packing_check.verify(str(tmp_path / "some"), decode=True) == (9, True)
    assert not os.path.exists(tmp_path / "some.packing")


def test_broken_images_are_left_out_and_listed(tmp_path, chunks_of_7):
    folder = folder_of(tmp_path / "photos")
    whole = (folder / "bee" / "001.jpg").read_bytes()
    (folder / "bee" / "001.jpg").write_bytes(whole[:len(whole) // 2])
    (folder / "cat" / "002.jpg").write_bytes(b"")
    (folder / "ant" / "note.png").write_bytes(b"this is no picture")
    packed = packing.pack(packing_list.from_folder(folder), tmp_path / "some", processes=2)
    assert packed[:2] == (38, 3)
    broken = dict(line.split("\t") for line in open(tmp_path / "some.broken.txt").read().splitlines())
    assert sorted(broken) == ["ant/note.png", "bee/001.jpg", "cat/002.jpg"]
    assert all("cannot be read as an image" in reason for reason in broken.values())
    assert len(read_list(tmp_path / "some.lst")[0]) == 38 == len(RecordDataset(tmp_path / "some.rec"))
    assert packing_check.verify(str(tmp_path / "some"), decode=True) == (38, True)


def test_nothing_is_written_when_no_image_can_be_read(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "x.jpg").write_bytes(b"no")
    with pytest.raises(UserError, match="none of 2 images can be read; the first: .*x.jpg"):
        packing.pack(packing_list.from_folder(tmp_path / "photos"), tmp_path / "some")
    assert not [name for name in os.listdir(tmp_path) if name.startswith("some.") and name != "some.packing"]


def test_resized_and_encoded_anew(tmp_path):
    folder = folder_of(tmp_path / "photos", 8)
    listing = packing_list.from_folder(folder, seed=None)

    def packed(name, **options):
        packing.pack(listing, tmp_path / name, options)
        file = RecordFile(tmp_path / f"{name}.rec")
        return [file.read(number).data for number in range(8)]

    originals = [(folder / entry.path).read_bytes() for entry in listing.entries]
    for original, data in zip(originals, packed("png", encoding="png")):
        assert data.startswith(b"\x89PNG")
        np.testing.assert_array_equal(images.decode(data, "x"), images.decode(original, "x", decoder="pillow"))
    for original, data in zip(originals, packed("small", resize=15)):
        assert Image.open(io.BytesIO(data)).size == (20, 15)
        # Kept of its kind: lossless stays lossless.
        assert data[:2] == original[:2]
        if original.startswith(b"\x89PNG"):
            np.testing.assert_array_equal(images.decode(data, "x"), np.asarray(
                Image.open(io.BytesIO(original)).resize((20, 15), Image.LANCZOS)))
    assert packed("same", resize=30) == originals  # The shorter side has that length already.
    fine, coarse = packed("fine", encoding="jpg", quality=95), packed("coarse", encoding="jpg", quality=30)
    assert all(data.startswith(b"\xff\xd8") for data in fine + coarse) and sum(map(len, coarse)) < sum(map(len, fine))


def test_kinds_that_mxnet_does_not_decode_become_png(tmp_path):
    for number, name in enumerate(("ant", "bee")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        photo(number).save(tmp_path / "photos" / name / "x.ppm")
    packing.pack(packing_list.from_folder(tmp_path / "photos", seed=None), tmp_path / "some")
    record = RecordFile(tmp_path / "some.rec").read(1)
    assert record.data.startswith(b"\x89PNG")
    np.testing.assert_array_equal(images.decode(record.data, "x"), np.asarray(photo(1)))


def test_a_list_keeps_its_order_keys_and_labels(tmp_path):
    folder_of(tmp_path / "photos", 6)
    names = sorted(os.path.relpath(os.path.join(base, name), tmp_path / "photos")
                   for base, _, found in os.walk(tmp_path / "photos") for name in found)
    (tmp_path / "some.lst").write_text("".join(f"{50 - n}\t{n}\t0.25\t{name}\n" for n, name in enumerate(names)))
    packing.pack(packing_list.from_list(tmp_path / "some.lst", tmp_path / "photos"), tmp_path / "made")
    file = RecordFile(tmp_path / "made.rec")
    assert file.keys.tolist() == [50 - n for n in range(6)]
    assert [file.read(n).labels.tolist() for n in range(6)] == [[n, 0.25] for n in range(6)]
    (tmp_path / "some.lst").write_text("1\t0\tx.jpg\n1\t0\ty.jpg\n")
    with pytest.raises(UserError, match="the key 1 comes twice"):
        packing_list.from_list(tmp_path / "some.lst", tmp_path)


def test_a_split_divides_every_image_once(tmp_path):
    listing = packing_list.from_folder(folder_of(tmp_path / "photos"))
    parts = packing_list.split(listing, 0.7, 0.1)
    assert {name: len(part.entries) for name, part in parts.items()} == {"train": 28, "val": 8, "test": 4}
    assert sorted(entry for part in parts.values() for entry in part.entries) == sorted(listing.entries)
    with pytest.raises(UserError, match="--train-ratio 0.01 leaves no image of 40 for train"):
        packing_list.split(listing, 0.01)


def test_other_files_are_never_replaced_unasked(tmp_path, chunks_of_7):
    listing = packing_list.from_folder(folder_of(tmp_path / "photos", 12))
    (tmp_path / "some.rec").write_bytes(b"precious")
    with pytest.raises(UserError, match=r"some\.rec: exists and is not what this command makes"):
        packing.pack(listing, tmp_path / "some")
    assert (tmp_path / "some.rec").read_bytes() == b"precious"
    packing.pack(listing, tmp_path / "some", overwrite=True)
    with pytest.raises(UserError, match="exists and is not what"):
        packing.pack(listing, tmp_path / "some", {"resize": 10})
    (tmp_path / "photos" / "bee" / "001.jpg").write_bytes(b"broken")
    assert packing.pack(listing, tmp_path / "some", {"resize": 10}, overwrite=True).broken == 1
    shutil.rmtree(tmp_path / "photos")
    folder_of(tmp_path / "photos", 12)
    assert packing.pack(listing, tmp_path / "some", overwrite=True).broken == 0
    assert not os.path.exists(tmp_path / "some.broken.txt")


def test_two_at_once_and_another_unfinished_pack_are_refused(tmp_path, monkeypatch):
    listing = packing_list.from_folder(folder_of(tmp_path / "photos", 6))
    plan = packing._plan(listing, packing.OPTIONS)
    with packing._work_folder(str(tmp_path / "some"), plan), pytest.raises(UserError, match="another process is packing here"):
        packing.pack(listing, tmp_path / "some")
    monkeypatch.setattr(packing, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        packing.pack(listing, tmp_path / "some")
    monkeypatch.undo()
    with pytest.raises(UserError, match="holds an unfinished pack with another options"):
        packing.pack(listing, tmp_path / "some", {"quality": 50})
    with pytest.raises(UserError, match="holds an unfinished pack with another list of images"):
        packing.pack(packing_list.from_folder(tmp_path / "photos", seed=3), tmp_path / "some")
    assert packing.pack(listing, tmp_path / "some").images == 6


def test_a_packing_process_that_dies_is_named(tmp_path, monkeypatch):
    listing = packing_list.from_folder(folder_of(tmp_path / "photos", 6))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(packing.sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="a packing process ended with exit code 1.*goes on where it was"):
        packing.pack(listing, tmp_path / "some")


@pytest.mark.parametrize("ending, message", [
    (".rec", r"some\.rec: expected SHA-256 .* by the manifest, found .*: it was changed or is damaged"),
    (".idx", r"some\.idx: expected SHA-256"), (".lst", r"some\.lst: expected SHA-256")])
def test_verify_finds_one_changed_bit(tmp_path, ending, message):
    packing.pack(packing_list.from_folder(folder_of(tmp_path / "photos", 9)), tmp_path / "some")
    assert packing_check.verify(str(tmp_path / "some.rec")) == (9, True)
    path = str(tmp_path / "some") + ending
    data = bytearray(open(path, "rb").read())
    data[len(data) // 2] ^= 1
    open(path, "wb").write(data)
    with pytest.raises(UserError, match=message):
        packing_check.verify(str(tmp_path / "some"))
    os.unlink(path)
    with pytest.raises(UserError, match=rf"some\{ending}: does not exist; the manifest"):
        packing_check.verify(str(tmp_path / "some"))


def test_verify_without_a_manifest_checks_every_record(tmp_path):
    packing.pack(packing_list.from_folder(folder_of(tmp_path / "photos", 9)), tmp_path / "some")
    os.unlink(tmp_path / "some.json")
    assert packing_check.verify(str(tmp_path / "some")) == (9, False)
    file = RecordFile(tmp_path / "some.rec")
    data = bytearray(open(tmp_path / "some.rec", "rb").read())
    data[int(file.offsets[4]) + 12:int(file.offsets[4]) + 16] = np.float32(9).tobytes()
    open(tmp_path / "some.rec", "wb").write(data)
    place = f"record 4 at byte {file.offsets[4]}"
    with pytest.raises(UserError, match=rf"{place}: expected labels .* as in the list, found \(9.0,\)"):
        packing_check.verify(str(tmp_path / "some"))
    os.unlink(tmp_path / "some.lst")
    json.dump({"format": "other"}, open(tmp_path / "some.json", "w"))
    with pytest.raises(UserError, match="cannot be read as a manifest"):
        packing_check.verify(str(tmp_path / "some"))
