"""tools/pack.py: what MXNet makes of its files, kills, exit codes, the way to training."""
import os
import signal
import subprocess
import sys
import time

from gluonzoo.data.records import RecordFile

import mxnet as mx
import numpy as np
import pytest
from PIL import Image


def folder_of(path, count, side=20):
    for number in range(count):
        place = path / f"class{number % 3}" / f"{number:05d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        small = np.random.RandomState(number).randint(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((side, side), Image.BICUBIC).save(place)
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """1,400 small images: six chunks."""
    return folder_of(tmp_path_factory.mktemp("many") / "photos", 1400, 12)


def packing_processes(mark):
    """Numbers of the processes whose environment has this mark."""
    found = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/environ", "rb") as file:
                if mark.encode() in file.read() and int(number) != os.getpid():
                    found.append(int(number))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("ending", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
                                    pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_ends_the_same_and_leaves_no_process(run_program, many, tmp_path, root, ending):
    assert run_program("tools/pack.py", many, "-o", "whole", "--processes", "2").returncode == 0
    mark, kills, sizes = f"PACK_TEST={tmp_path}", 0, [1, 30000, 120000]
    command = [sys.executable, str(root / "tools" / "pack.py"), str(many), "-o", "torn", "--processes", "2"]
    environment = {**os.environ, "PYTHONPATH": str(root), "PACK_TEST": str(tmp_path)}
    for size in sizes:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
        rec = tmp_path / "torn.packing" / ".rec"
        while process.poll() is None and not (rec.exists() and rec.stat().st_size >= size):
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(ending)
            kills += process.wait(60) != 0
    assert kills > 0
    deadline = time.monotonic() + 30
    while packing_processes(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not packing_processes(mark)
    assert run_program("tools/pack.py", many, "-o", "torn").returncode == 0
    for name in (".rec", ".idx", ".lst"):
        assert (tmp_path / f"torn{name}").read_bytes() == (tmp_path / f"whole{name}").read_bytes()
    assert sorted(os.listdir(tmp_path)) == sorted(f"{stem}{name}" for stem in ("torn", "whole")
                                                  for name in (".rec", ".idx", ".lst", ".json"))
    assert run_program("tools/pack.py", "--verify", "torn", "--decode").returncode == 0


def test_mxnet_reads_what_is_packed(run_program, tmp_path):
    folder = folder_of(tmp_path / "photos", 30)
    done = run_program("tools/pack.py", folder, "-o", "sub/some")
    assert done.returncode == 0 and "sub/some.rec: 30 images" in done.stdout, done.stderr
    prefix = str(tmp_path / "sub" / "some")
    photos = mx.gluon.data.vision.ImageRecordDataset(prefix + ".rec")
    iterator = mx.io.ImageRecordIter(path_imgrec=prefix + ".rec", path_imgidx=prefix + ".idx", path_imglist=prefix + ".lst",
                                     data_shape=(3, 20, 20), batch_size=10)
    batches = [(batch.data[0].asnumpy(), batch.label[0].asnumpy()) for batch in iterator]
    images, labels = (np.concatenate(parts) for parts in zip(*batches))
    assert len(photos) == len(images) == 30
    lines = [line.split("\t") for line in open(prefix + ".lst").read().splitlines()]
    for index, (_, label, path) in enumerate(lines):
        expected = mx.image.imdecode((folder / path).read_bytes()).asnumpy()
        image, found = photos[index]
        np.testing.assert_array_equal(image.asnumpy(), expected)
        np.testing.assert_array_equal(images[index], expected.transpose(2, 0, 1))
        assert found == labels[index] == float(label) == int(path[5])


def test_im2rec_makes_the_same_file_of_our_list_and_we_of_its(run_program, tmp_path):
    """MXNet's own program; several labels too (its --pack-label)."""
    pytest.importorskip("cv2", reason="im2rec imports OpenCV")
    folder = folder_of(tmp_path / "photos", 12)
    names = sorted(os.path.relpath(os.path.join(base, name), folder) for base, _, found in os.walk(folder) for name in found)
    (tmp_path / "theirs.lst").write_text("".join(f"{n}\t{n % 3}\t{n / 4}\t{name}\n" for n, name in enumerate(names)))
    program = os.path.join(os.path.dirname(mx.__file__), "tools", "im2rec.py")
    code = ("import gluonzoo, runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", code, program, "theirs", str(folder), "--pass-through", "--pack-label"],
                          cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert run_program("tools/pack.py", "theirs.lst", "--root", folder, "-o", "ours").returncode == 0
    assert (tmp_path / "ours.rec").read_bytes() == (tmp_path / "theirs.rec").read_bytes()
    assert (tmp_path / "ours.idx").read_bytes() == (tmp_path / "theirs.idx").read_bytes()
    file = RecordFile(tmp_path / "theirs.rec")
    assert [file.read(n).labels.tolist() for n in range(12)] == [[n % 3, n / 4] for n in range(12)]


def test_broken_images_have_an_exit_code_of_their_own(run_program, tmp_path):
    folder = folder_of(tmp_path / "photos", 9)
    (folder / "class1" / "00001.jpg").write_bytes(b"\xff\xd8 broken")
    for _ in range(2):  # Packed, and found to be there already.
        done = run_program("tools/pack.py", folder, "-o", "some")
        assert done.returncode == 3 and "8 images" in done.stdout
        assert "1 images cannot be read and were left out; they are listed in some.broken.txt" in done.stderr
    assert (tmp_path / "some.broken.txt").read_text().startswith("class1/00001.jpg\t")


@pytest.mark.parametrize("words, message", [
    (("photos",), "expected -o PREFIX"), ((), "expected one of FOLDER|LIST"),
    (("photos", "-o", "x", "--pass-through", "--resize", "9"), "--pass-through keeps the files as they are"),
    (("photos", "-o", "x", "--train-ratio", "1.5"), "--train-ratio 1.5"),
    (("photos", "-o", "x", "--quality", "0"), "--quality 0"),
    (("absent", "-o", "x"), "error: absent: no such folder or list"),
    (("photos/class0", "-o", "x"), "expected a folder for each of at least two classes"),
    (("--imagenet", "photos", "-o", "x"), "ILSVRC2012_img_train.tar does not exist"),
    (("--verify", "absent"), "absent.rec: cannot be read")])
def test_mistakes_end_with_2_and_write_nothing(run_program, tmp_path, words, message):
    folder_of(tmp_path / "photos", 6)
    done = run_program("tools/pack.py", *words)
    assert done.returncode == 2 and message in done.stderr
    assert os.listdir(tmp_path) == ["photos"]


def test_from_a_folder_to_training_and_back(run_program, tmp_path):
    folder = folder_of(tmp_path / "photos", 60)
    assert run_program("tools/pack.py", folder, "-o", "some", "--train-ratio", "0.8").returncode == 0
    command = ["tools/train.py", "--model", "lenet5", "--dataset", "records", "--data-dir", "some", "--augment", "none",
               "--batch-size", "8", "--epochs", "2", "--output", "run"]
    done = run_program(*command)
    assert done.returncode == 0, done.stderr
    assert "3 classes, from some_train.rec" in done.stdout
    with open(tmp_path / "run" / "log.jsonl") as file:
        assert file.read().count('"data_wait": 0.') == 2


def test_train_and_val_folders_become_two_files(run_program, tmp_path):
    folder_of(tmp_path / "set" / "train", 9)
    folder_of(tmp_path / "set" / "val", 3)
    assert run_program("tools/pack.py", "set", "-o", "some").returncode == 0
    assert len(RecordFile(tmp_path / "some_train.rec")) == 9 and len(RecordFile(tmp_path / "some_val.rec")) == 3
