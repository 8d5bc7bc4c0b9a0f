"""Weights by name, from a folder and from a server on loopback."""
import functools
import hashlib
import http.server
import json
import os
import threading

import gluonzoo
from gluonzoo import arrays
from gluonzoo.errors import UserError
from gluonzoo.interop import add_to_index, list_pretrained, load_pretrained
from gluonzoo.interop.load import arrays_for

import mxnet as mx
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    monkeypatch.delenv("GLUONZOO_WEIGHTS", raising=False)
    monkeypatch.setenv("GLUONZOO_HOME", str(tmp_path / "home"))


def network(classes=10):
    mx.random.seed(3)
    net = gluonzoo.get_model("lenet5", classes=classes)
    net.initialize()
    return net


@pytest.fixture
def folder(tmp_path):
    """A place with weights of lenet5 for 10 classes."""
    place = tmp_path / "weights"
    place.mkdir()
    path = str(place / "lenet5.params")
    arrays.save(path, arrays_for(network()))
    add_to_index(str(place), "lenet5", path, 10)
    return place


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and writes down what was asked for."""
    asked = []

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()


@pytest.fixture
def server(folder):
    Quiet.asked = []
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{web.server_address[1]}"
    web.shutdown()
    web.server_close()
    thread.join(10)


def values(net):
    return {key: parameter.data().asnumpy() for key, parameter in net._collect_params_with_prefix().items()}


def assert_lenet(net, but=()):
    for key, value in values(network()).items():
        if key not in but:
            np.testing.assert_array_equal(values(net)[key], value)


def change(folder, **fields):
    index = folder / "index.json"
    entries = json.loads(index.read_text())
    entries["lenet5"].update(fields)
    index.write_text(json.dumps(entries))


def test_index_says_what_is_there(folder):
    entry = json.loads((folder / "index.json").read_text())["lenet5"]
    content = (folder / "lenet5.params").read_bytes()
    assert entry == {"file": "lenet5.params", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "classes": 10}


def test_from_a_folder(folder, monkeypatch):
    assert_lenet(gluonzoo.get_model("lenet5", pretrained=True, root=str(folder)))
    monkeypatch.setenv("GLUONZOO_WEIGHTS", str(folder))
    assert_lenet(gluonzoo.get_model("lenet5", pretrained=True, ctx=mx.cpu(0)))
    assert list(gluonzoo.list_pretrained()) == ["lenet5"]
    net = gluonzoo.get_model("lenet5")
    assert load_pretrained(net).source == "gluonzoo"
    assert_lenet(net)


def test_another_number_of_classes(folder):
    net = gluonzoo.get_model("lenet5", pretrained=True, root=str(folder), classes=4)
    assert values(net)["output.weight"].shape == (4, 84) and net.classes == net.model_kwargs["classes"] == 4
    assert_lenet(net, but=("output.weight", "output.bias"))


def test_from_a_file(folder):
    path = str(folder / "lenet5.params")
    assert_lenet(gluonzoo.get_model("lenet5", pretrained=path))
    assert_lenet(gluonzoo.get_model("lenet5", pretrained=path, classes=4), but=("output.weight", "output.bias"))
    with pytest.raises(UserError, match="does not fit lenet_caffe"):
        gluonzoo.get_model("lenet_caffe", pretrained=path, classes=4)
    with pytest.raises(UserError, match="root .* goes with pretrained=True"):
        gluonzoo.get_model("lenet5", pretrained=path, root=str(folder))


def test_from_a_server(folder, server, tmp_path):
    assert list(list_pretrained(server)) == ["lenet5"]
    assert_lenet(gluonzoo.get_model("lenet5", pretrained=True, root=server + "/"))
    assert_lenet(gluonzoo.get_model("lenet5", pretrained=True, root=server))
    assert Quiet.asked.count("/lenet5.params") == 1, "kept after the first time"
    kept = [os.path.join(path, name) for path, _, names in os.walk(str(tmp_path / "home")) for name in names]
    assert len(kept) == 1 and kept[0].endswith("lenet5.params")
    with open(kept[0], "r+b") as file:
        file.seek(200)
        file.write(b"damage")
    assert_lenet(gluonzoo.get_model("lenet5", pretrained=True, root=server))
    assert Quiet.asked.count("/lenet5.params") == 2, "a damaged copy is had again"


def test_a_server_with_other_content(folder, server, tmp_path, monkeypatch):
    monkeypatch.setattr("gluonzoo.data.download.BACKOFF", 0)
    content = bytearray((folder / "lenet5.params").read_bytes())
    content[-1] ^= 1
    (folder / "lenet5.params").write_bytes(bytes(content))
    with pytest.raises(UserError, match="corrupted: expected SHA-256"):
        gluonzoo.get_model("lenet5", pretrained=True, root=server)
    assert not (tmp_path / "home").exists()


def test_a_folder_with_other_content(folder):
    content = bytearray((folder / "lenet5.params").read_bytes())
    content[-1] ^= 1
    (folder / "lenet5.params").write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"lenet5\.params: expected SHA-256 [0-9a-f]{64}, found"):
        gluonzoo.get_model("lenet5", pretrained=True, root=str(folder))


def test_only_what_can_be_had_is_listed(folder, server):
    index = folder / "index.json"
    entries = json.loads(index.read_text())
    entries["lenet_caffe"] = dict(entries["lenet5"], file="absent.params")
    entries["resnet18_v1"] = dict(entries["lenet5"], size=1)
    entries["no_such_network"] = entries["lenet5"]
    index.write_text(json.dumps(entries))
    assert list(list_pretrained(str(folder))) == list(list_pretrained(server)) == ["lenet5"]
    assert list_pretrained() == {}
    with pytest.raises(UserError, match="absent.params: the index offers it, but there is no such file"):
        gluonzoo.get_model("lenet_caffe", pretrained=True, root=str(folder))


@pytest.mark.parametrize("fields, words", [
    ({"file": "../secret.params"}, "plain name"), ({"file": "/etc/passwd"}, "plain name"), ({"file": "a\\b"}, "plain name"),
    ({"file": ".hidden"}, "plain name"), ({"file": ""}, "plain name"), ({"file": None}, "file as str"),
    ({"sha256": "12"}, "SHA-256"), ({"sha256": "A" * 64}, "SHA-256"), ({"size": "3"}, "size as int"), ({"size": 0}, "at least 1"),
    ({"size": True}, "size as int"), ({"classes": -1}, "at least 1"), ({"classes": 1.5}, "classes as int")])
def test_bad_entries(folder, server, fields, words):
    change(folder, **fields)
    for root in (str(folder), server):
        for ask in (lambda: gluonzoo.get_model("lenet5", pretrained=True, root=root), lambda: list_pretrained(root)):  # noqa: B023
            with pytest.raises(UserError, match=words):
                ask()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"lenet5": 3}', "[" * 100000, "\xff"])
def test_bad_indexes(folder, server, text):
    (folder / "index.json").write_bytes(text.encode("latin-1"))
    for root in (str(folder), server):
        with pytest.raises(UserError, match="expected|cannot be read"):
            list_pretrained(root)


def test_where_there_is_nothing(tmp_path, folder, server):
    with pytest.raises(UserError, match="set GLUONZOO_WEIGHTS"):
        gluonzoo.get_model("lenet5", pretrained=True)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        gluonzoo.get_model("lenet5", pretrained=True, root=str(tmp_path / "absent"))
    with pytest.raises(UserError, match="no weights of lenet_caffe; it offers lenet5"):
        gluonzoo.get_model("lenet_caffe", pretrained=True, root=str(folder))
    with pytest.raises(UserError, match="answered 404"):
        list_pretrained(server + "/nowhere")
    with pytest.raises(UserError, match="cannot be had") as caught:
        list_pretrained("http://user:secret@127.0.0.1:9")
    assert "secret" not in str(caught.value)


def test_an_index_without_end(folder, server):
    (folder / "index.json").write_text('{"lenet5": "' + "x" * (2 << 20))
    with pytest.raises(UserError, match="at most 1048576 bytes"):
        list_pretrained(server)


def test_keywords_stay_strict(folder):
    with pytest.raises(TypeError):
        gluonzoo.get_model("lenet5", pretraind=True)
    with pytest.raises(TypeError):
        gluonzoo.get_model("lenet5", pretrained=True, root=str(folder), class_count=3)
    with pytest.raises(UserError, match="root goes with pretrained"):
        gluonzoo.get_model("lenet5", root=str(folder))
    with pytest.raises(UserError, match="ctx goes with pretrained"):
        gluonzoo.get_model("lenet5", ctx=mx.cpu())
    for value in (1, 0, 3.5):
        with pytest.raises(UserError, match="expected True, False or the path"):
            gluonzoo.get_model("lenet5", pretrained=value)
    net = gluonzoo.get_model("lenet5", pretrained=True, root=str(folder))
    assert net.model_kwargs == {"classes": 10, "in_channels": 1}


def test_index_of_other_folders(folder, tmp_path):
    path = str(tmp_path / "other.params")
    arrays.save(path, arrays_for(network()))
    with pytest.raises(UserError, match="expected a file in"):
        add_to_index(str(folder), "lenet5", path, 10)
    assert list(json.loads((folder / "index.json").read_text())) == ["lenet5"]
