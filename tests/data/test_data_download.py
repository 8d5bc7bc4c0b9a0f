"""Downloads from a real HTTP server on loopback that misbehaves on demand."""
import contextlib
import dataclasses
import gzip
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time

from gluonzoo import data
from gluonzoo.data import catalog, download
from gluonzoo.errors import UserError

import pytest
from data_files import cifar_records, mnist_like, shrink, tar_gz, write

BODY = bytes(range(256)) * 2000
RESOURCE = catalog.Resource("file.bin", len(BODY), hashlib.sha256(BODY).hexdigest())


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what the server's `answers` hold for the path: one of a list for each request, the last for ever."""

    def do_GET(self):
        with self.server.lock:
            self.server.seen.append(self.path)
            answers = self.server.answers.get(self.path, ["404"])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        body, kind = answer if isinstance(answer, tuple) else (b"", answer)
        if kind == "drop":
            return
        self.send_response(int(kind) if kind.isdigit() else 200)
        if kind == "encoded":
            self.send_header("Content-Encoding", "gzip")
        if kind != "unknown length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            if kind == "cut":
                body = body[:len(body) // 2]
            for start in range(0, len(body), 50000):
                self.wfile.write(body[start:start + 50000])
                time.sleep(0.05 if kind == "slow" else 0)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.seen, server.lock = {}, [], threading.Lock()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def fetch(server, folder, resource=RESOURCE, paths=("/file.bin",)):
    return download.fetch(resource, str(folder), [server.url + path for path in paths])


def failure(server, folder, **more):
    with pytest.raises(UserError) as caught:
        fetch(server, folder, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["200", "slow", "unknown length"])
def test_good_download(server, tmp_path, kind, capsys):
    server.answers["/file.bin"] = [(BODY, kind)]
    path = fetch(server, tmp_path / "new" / "folder")
    assert path == str(tmp_path / "new" / "folder" / "file.bin")
    assert open(path, "rb").read() == BODY
    assert os.listdir(os.path.dirname(path)) == ["file.bin"]
    assert "downloading file.bin (0.5 MB) to" in capsys.readouterr().err
    assert fetch(server, tmp_path / "new" / "folder") == path and server.seen == ["/file.bin"]


def test_served_as_encoded_is_kept_as_it_is(server, tmp_path):
    """A server may declare a .gz file as an encoding; it must not be unpacked on the way."""
    packed = gzip.compress(BODY)
    server.answers["/file.bin"] = [(packed, "encoded")]
    resource = catalog.Resource("file.bin", len(packed), hashlib.sha256(packed).hexdigest())
    assert open(fetch(server, tmp_path, resource), "rb").read() == packed


def test_recompressed_file_is_known_by_what_is_in_it(server, tmp_path):
    resource = catalog.Resource("f.gz", 1000, "0" * 64, hashlib.sha256(BODY).hexdigest())
    packed = gzip.compress(BODY, 1)
    server.answers["/file.bin"] = [(packed, "200")]
    assert open(fetch(server, tmp_path, resource), "rb").read() == packed
    os.remove(str(tmp_path / "f.gz"))
    server.answers["/file.bin"] = [(gzip.compress(BODY + b"!"), "200")]
    assert "corrupted: expected SHA-256 000" in failure(server, tmp_path, resource=resource)


def test_absent_is_not_tried_again(server, tmp_path):
    message = failure(server, tmp_path / "new")
    assert message == (f"file.bin could not be downloaded: {server.url}/file.bin: the server answered 404 Not Found")
    assert server.seen == ["/file.bin"]
    assert os.listdir(str(tmp_path)) == []  # The folder that was made for it is gone too.


@pytest.mark.parametrize("kind, message", [
    ("cut", f"cut short: expected {len(BODY)} bytes, found {len(BODY) // 2}"),
    ("500", "the server answered 500"), ("503", "the server answered 503"), ("drop", "onnection")])
def test_failures_are_tried_three_times(server, tmp_path, kind, message):
    write(tmp_path / "other", b"stays")
    server.answers["/file.bin"] = [(BODY, kind)]
    assert message in failure(server, tmp_path)
    assert server.seen == ["/file.bin"] * 3
    assert os.listdir(str(tmp_path)) == ["other"]


def test_corrupted(server, tmp_path):
    wrong = b"!" + BODY[1:]
    server.answers["/file.bin"] = [(wrong, "200")]
    message = failure(server, tmp_path)
    assert (f"/file.bin: corrupted: expected SHA-256 {RESOURCE.sha256} ({len(BODY)} bytes), found "
            f"{hashlib.sha256(wrong).hexdigest()} ({len(BODY)} bytes)") in message
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("first", [("500",), ("drop",), ((BODY, "cut"),), ((b"wrong", "200"), (BODY, "cut"))])
def test_failure_then_success(server, tmp_path, first):
    server.answers["/file.bin"] = list(first) + [(BODY, "200")]
    assert open(fetch(server, tmp_path), "rb").read() == BODY
    assert len(server.seen) == len(first) + 1 and os.listdir(str(tmp_path)) == ["file.bin"]


def test_backoff_grows(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(download, "BACKOFF", 1.0)
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    failure(server, tmp_path, paths=["/file.bin", "/gone"])
    server.answers["/file.bin"] = ["500"]
    failure(server, tmp_path, paths=["/file.bin", "/gone"])
    assert [pause for pause in pauses if pause >= 1] == [1.0, 2.0]


def test_second_mirror(server, tmp_path):
    server.answers.update({"/a": [(b"wrong", "200")], "/c": [(BODY, "200")]})
    assert open(fetch(server, tmp_path, paths=["/a", "/b", "/c"]), "rb").read() == BODY
    assert server.seen == ["/a", "/b", "/c"]


def test_every_mirror_is_named(server, tmp_path):
    server.answers["/a"] = [(b"wrong", "200")]
    message = failure(server, tmp_path, paths=["/a", "/b"])
    assert f"{server.url}/a: corrupted" in message and f"{server.url}/b: the server answered 404" in message


def test_no_server(tmp_path):
    with pytest.raises(UserError, match="http://127.0.0.1:9/f: .*refused") as caught:
        download.fetch(RESOURCE, str(tmp_path), ["http://user:secret@127.0.0.1:9/f"])
    assert "secret" not in str(caught.value) and "object at" not in str(caught.value)


def test_endless_answer_is_cut_off(server, tmp_path):
    server.answers["/file.bin"] = [(bytes(3 << 20), "unknown length")]
    resource = dataclasses.replace(RESOURCE, size=1000)
    assert "expected 1000 bytes, found more than" in failure(server, tmp_path, resource=resource)
    assert server.seen == ["/file.bin"] and os.listdir(str(tmp_path)) == []


def test_folder_that_cannot_be_written(server, tmp_path):
    server.answers["/file.bin"] = [(BODY, "200")]
    path = write(tmp_path / "file", b"not a folder")
    message = failure(server, os.path.join(path, "below"))
    assert message.startswith(f"{path}/below: cannot hold the download of file.bin: ")
    assert server.seen == [] and open(path, "rb").read() == b"not a folder"


def test_disk_full(server, tmp_path, monkeypatch):
    server.answers["/file.bin"] = [(BODY, "200")]

    def full(descriptor):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(download.os, "fsync", full)
    assert failure(server, tmp_path) == f"{tmp_path}: cannot hold the download of file.bin: No space left on device"
    assert os.listdir(str(tmp_path)) == [] and server.seen == ["/file.bin"]


def test_interrupt_leaves_nothing(server, tmp_path, monkeypatch):
    server.answers["/file.bin"] = [(BODY, "200")]
    monkeypatch.setattr(download.os, "fsync", lambda descriptor: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        fetch(server, tmp_path)
    assert os.listdir(str(tmp_path)) == []


def test_old_part_is_replaced(server, tmp_path):
    server.answers["/file.bin"] = [(BODY, "200")]
    write(tmp_path / "file.bin.part", b"from a killed process")
    assert open(fetch(server, tmp_path), "rb").read() == BODY
    assert os.listdir(str(tmp_path)) == ["file.bin"]


PROGRAM = """
import sys
from gluonzoo.data import catalog, download
print(download.fetch(catalog.Resource("file.bin", int(sys.argv[1]), sys.argv[2]), sys.argv[3], [sys.argv[4]]))
"""


def start(server, folder, request):
    arguments = [str(RESOURCE.size), RESOURCE.sha256, str(folder), server.url + "/file.bin"]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM] + arguments, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    request.addfinalizer(process.kill)
    return process


def test_two_processes_download_once(server, tmp_path, request):
    server.answers["/file.bin"] = [(BODY, "slow")]
    folder = tmp_path / "new"
    with download.locked(str(folder)):  # Both are up and waiting before either can begin.
        processes = [start(server, folder, request) for _ in range(2)]
        for process in processes:
            assert "waiting for another process that downloads" in process.stderr.readline()
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert output.strip() == str(folder / "file.bin")
    assert server.seen == ["/file.bin"]
    assert os.listdir(str(folder)) == ["file.bin"] and (folder / "file.bin").read_bytes() == BODY


def test_lock_of_a_folder_that_was_removed_meanwhile(server, tmp_path, request):
    """The process before us made the folder, failed and removed it; we make it again."""
    server.answers["/file.bin"] = [(BODY, "200")]
    folder = tmp_path / "new" / "er"
    with download.locked(str(folder)):
        process = start(server, folder, request)
        assert "waiting for another process" in process.stderr.readline()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and (folder / "file.bin").read_bytes() == BODY, errors


def publish(server, monkeypatch, tmp_path):
    """A small MNIST and CIFAR-10 on the server; the folder with MNIST's files."""
    source = tmp_path / "source"
    mnist_like(source)
    mnist_like(source, split="test")
    entry = catalog.PUBLISHED["mnist"]
    splits = []
    for resources in entry.resources:
        split = []
        for resource in resources:
            body = (source / resource.file).read_bytes()
            server.answers[f"/base/mnist/{resource.file}"] = [(body, "200")]
            split.append(catalog.Resource(resource.file, len(body), hashlib.sha256(body).hexdigest()))
        splits.append(tuple(split))
    monkeypatch.setitem(catalog.PUBLISHED, "mnist", dataclasses.replace(entry, resources=tuple(splits)))
    files = {f"cifar-10-batches-bin/data_batch_{i}.bin": cifar_records(2, (10,), i)[0] for i in range(1, 6)}
    files["cifar-10-batches-bin/test_batch.bin"] = cifar_records(4, (10,))[0]
    body = tar_gz(files)
    server.answers["/base/cifar10/cifar-10-binary.tar.gz"] = [(body, "200")]
    tar = catalog.Resource("cifar-10-binary.tar.gz", len(body), hashlib.sha256(body).hexdigest())
    shrink(monkeypatch, "cifar10", (10, 4), resources=((tar,), (tar,)))
    monkeypatch.setenv("GLUONZOO_DATA_URL", server.url + "/base/")
    return source


def test_load_downloads_what_is_absent(server, tmp_path, home, monkeypatch):
    publish(server, monkeypatch, tmp_path)
    place = tmp_path / "place"
    assert len(data.load("mnist", data_dir=place)) == 20
    assert sorted(os.listdir(str(place / "mnist"))) == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    assert len(server.seen) == 2
    assert len(data.load("mnist", data_dir=place)) == 20 and len(server.seen) == 2
    assert len(data.load("mnist", train=False, data_dir=place)) == 20 and len(server.seen) == 4
    assert len(data.load("cifar10", data_dir=place)) == 10 and len(server.seen) == 5
    assert len(data.load("cifar10", train=False, data_dir=place)) == 4 and len(server.seen) == 5
    assert os.listdir(str(place / "cifar10")) == ["cifar-10-binary.tar.gz"] and not home.exists()


def test_where_load_downloads_to(server, tmp_path, home, monkeypatch):
    publish(server, monkeypatch, tmp_path)
    data.load("mnist")
    assert (home / "mnist" / "train-images-idx3-ubyte.gz").is_file()
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("GLUONZOO_DATA", str(shared))
    data.load("cifar10")
    assert os.listdir(str(shared)) == ["cifar10"]
    monkeypatch.setenv("GLUONZOO_DATA", str(tmp_path / "absent"))
    data.load("mnist", train=False)
    assert not (tmp_path / "absent").exists() and len(os.listdir(str(home / "mnist"))) == 4


def test_interrupted_set_is_completed(server, tmp_path, monkeypatch):
    source = publish(server, monkeypatch, tmp_path)
    name = "train-images-idx3-ubyte.gz"
    write(tmp_path / "place" / "mnist" / name, (source / name).read_bytes())
    assert len(data.load("mnist", data_dir=tmp_path / "place")) == 20
    assert server.seen == ["/base/mnist/train-labels-idx1-ubyte.gz"]


def test_load_without_download_or_server(server, tmp_path, monkeypatch):
    publish(server, monkeypatch, tmp_path)
    with pytest.raises(UserError, match="was not found"):
        data.load("mnist", data_dir=tmp_path / "place", download=False)
    assert server.seen == []
    server.answers.clear()
    with pytest.raises(UserError, match=r"mnist \(train\) was not found: train-images-idx3-ubyte.gz could not be "
                                        r"downloaded: .*404 Not Found; looked in .*place/mnist, .*; get train-images"):
        data.load("mnist", data_dir=tmp_path / "place")
    assert not (tmp_path / "place").exists()


def test_load_refuses_corrupted_and_cut_downloads(server, tmp_path, monkeypatch):
    publish(server, monkeypatch, tmp_path)
    path = "/base/mnist/train-labels-idx1-ubyte.gz"
    good = server.answers[path][0][0]
    for answer, message in (((good[:-1] + b"!", "200"), "corrupted: expected SHA-256"),
                            ((good, "cut"), f"cut short: expected {len(good)} bytes, found {len(good) // 2}")):
        server.answers[path] = [answer]
        with pytest.raises(UserError, match=message):
            data.load("mnist", data_dir=tmp_path / "place")
        assert os.listdir(str(tmp_path / "place" / "mnist")) == ["train-images-idx3-ubyte.gz"]
    server.answers[path] = [(good, "200")]
    assert len(data.load("mnist", data_dir=tmp_path / "place")) == 20


def test_data_dir_that_is_a_file_cannot_be_downloaded_to(tmp_path):
    path = write(tmp_path / "mnist.bin", b"?")
    with pytest.raises(UserError, match="expected a folder or a zip file with MNIST, found another file"):
        data.load("mnist", data_dir=path)


def test_our_mirrors_end_in_the_file_names():
    from gluonzoo.data import published
    urls = published._urls(catalog.PUBLISHED["cifar10"], catalog.PUBLISHED["cifar10"].resources[0][0])
    assert urls[0] == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz" and len(urls) == 2
