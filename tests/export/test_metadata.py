"""The JSON beside an export: written, read, and refused when it is not sound."""
import json

from gluonzoo.export import ExportError, Metadata
from gluonzoo.export.metadata import sha256

import pytest

FULL = dict(input_shape=(3, 8, 8), model="net", model_kwargs={"classes": 2}, outputs=("main", "aux"),
            classes=("käse", "b"), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), dataset="digits",
            files={"symbol": ("n-symbol.json", "a" * 64), "parameters": ("n-0000.params", "b" * 64)})


@pytest.mark.parametrize("fields", [FULL, {"input_shape": (1,)}, dict(FULL, mean=(0.5,), std=(0.5,))])
def test_what_is_written_is_read(tmp_path, fields):
    path = str(tmp_path / "n.json")
    metadata = Metadata(**fields)
    metadata.write(path)
    assert Metadata.read(path) == metadata


def test_arguments_that_json_cannot_hold_are_told_in_words(tmp_path):
    path = str(tmp_path / "n.json")
    Metadata(input_shape=(1,), model_kwargs={"norm": complex(1, 2)}).write(path)
    assert Metadata.read(path).model_kwargs == {"norm": "(1+2j)"}


@pytest.mark.parametrize("field, value, words", [
    ("input_shape", (), "input_shape"), ("input_shape", (3, 0, 8), "input_shape"),
    ("input_shape", (3, 8.5), "input_shape"), ("input_shape", "abc", "input_shape"),
    ("input_shape", (True,), "input_shape"),
    ("model", 3, "model"), ("model_kwargs", [], "model_kwargs"), ("outputs", (), "outputs"),
    ("outputs", (1,), "outputs"),
    ("classes", "abc", "classes"), ("classes", (1, 2), "classes"), ("dataset", 1, "dataset"),
    ("mean", (0.1, 0.2), "mean has 2 numbers"), ("mean", None, "both or neither"), ("mean", ("a",), "mean"),
    ("mean", (float("nan"),) * 3, "mean"), ("std", (1.0, 0.0, 1.0), "std"), ("std", (True,) * 3, "std"),
    ("transform", {}, "transform"), ("gluonzoo", None, "gluonzoo"),
    ("files", {"symbol": ("../n", "a")}, "files"), ("files", {"symbol": ("/etc/passwd", "a")}, "files"),
    ("files", {"symbol": ("..", "a")}, "files"), ("files", {"symbol": ("n", 3)}, "files"),
])
def test_unsound_values_are_refused_in_memory_and_in_a_file(tmp_path, field, value, words):
    fields = dict(FULL, **{field: value})
    with pytest.raises(ExportError, match=words):
        Metadata(**fields)
    path = tmp_path / "n.json"
    Metadata(**FULL).write(str(path))
    content = json.loads(path.read_text(encoding="utf-8"))
    content[field] = value if field != "files" else {role: {"name": n, "sha256": d} for role, (n, d) in value.items()}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ExportError, match=words) as caught:
        Metadata.read(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content, words", [
    (b"", "not a JSON file"), (b"{", "not a JSON file"), (b"\xff\xfe{}", "not a JSON file"),
    pytest.param(b"[" * 100000, "not a JSON file", id="deep"),
    (b"[]", "gluonzoo export"), (b"{}", "gluonzoo export"), (b'{"format": "other"}', "gluonzoo export"),
    (b'{"format": "gluonzoo-export", "version": 2, "input_shape": [1]}', "version 1"),
    (b'{"format": "gluonzoo-export", "version": 1}', "input_shape"),
    (b'{"format": "gluonzoo-export", "version": 1, "input_shape": [1], "extra": 1}', "extra"),
    (b'{"format": "gluonzoo-export", "version": 1, "input_shape": [1], "files": []}', "files"),
    (b'{"format": "gluonzoo-export", "version": 1, "input_shape": [1], "files": {"symbol": {"name": "n"}}}', "sha256"),
])
def test_other_files_are_refused(tmp_path, content, words):
    path = tmp_path / "n.json"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=words) as caught:
        Metadata.read(str(path))
    assert "\n" not in str(caught.value)


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256(str(tmp_path / "f")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
