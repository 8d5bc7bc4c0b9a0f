"""Nothing is unpickled, from whatever file or socket: the sources do not ask for it, and a pickle that is let in does nothing.

More of the same, each where its reader is tested: PyTorch's files in tests/interop/test_files.py, data sets in
tests/data/test_data_finding.py, a real optimizer as a pickle in tests/distributed/test_failures.py.
"""
import ast
import hashlib
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

from gluonzoo import arrays
from gluonzoo.errors import UserError
from gluonzoo.export.predictor import read_images
from gluonzoo.interop import read
from gluonzoo.training import checkpoint
from launch.secure import JobKey
from launch.wire import MESSAGE, Unpacker, WireError, pack

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = sorted(path for folder in ("gluonzoo", "launch", "tools") for path in (ROOT / folder).rglob("*.py"))

# ---- the sources

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "jsonpickle", "multiprocessing"}
#: Methods of NumPy, pandas, PyYAML and MXNet behind which something is unpickled, or pickled for somebody who will.
CALLS = {"read_pickle", "unsafe_load", "set_optimizer", "set_states", "get_states", "load_optimizer_states",
         "save_optimizer_states", "KVStoreServer", "_init_kvstore_server_module", "find_class", "Unpickler"}


def _module(name):
    return (name or "").split(".")[0] in MODULES


def _is(node, value):
    return isinstance(node, ast.Constant) and node.value is value


def unpicklings(source):
    """[(line, what)] of what a source would unpickle with."""
    found = []
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            found += [(line, alias.name) for alias in node.names if _module(alias.name)]
        elif isinstance(node, ast.ImportFrom) and not node.level and _module(node.module):
            found.append((line, node.module))
        elif isinstance(node, ast.Attribute) and node.attr in MODULES | CALLS:
            found.append((line, node.attr))
        elif isinstance(node, ast.Call):
            found += [(line, what) for what in _of_call(node)]
    return found


def _of_call(node):
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    owner = getattr(getattr(node.func, "value", None), "id", "")
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if "allow_pickle" in keywords and not _is(keywords["allow_pickle"], False):
        yield "allow_pickle"
    if owner == "torch" and name == "load" and not _is(keywords.get("weights_only"), True):
        yield "torch.load without weights_only=True"
    if owner == "yaml" and name in ("load", "load_all", "full_load"):
        yield f"yaml.{name}"
    if isinstance(node.func, ast.Name) and name in CALLS:
        yield name
    first = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
    if name in ("__import__", "import_module") and isinstance(first, str) and _module(first):
        yield first


@pytest.mark.parametrize("source", [
    "import pickle", "import os, cPickle as p", "from pickle import loads", "def f():\n    from joblib import load",
    "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=maybe)", "torch.load(f)", "torch.load(f, weights_only=False)",
    "yaml.load(f)", "pd.read_pickle(f)", "np.compat.pickle.loads(x)", "__import__('pickle')", "importlib.import_module('dill')",
    "kv.set_optimizer(sgd)", "updater.set_states(data)", "mx.kvstore_server.KVStoreServer(kv)",
    "import multiprocessing.connection"])
def test_the_search_finds(source):
    assert unpicklings(source)


@pytest.mark.parametrize("source", [
    "import pickletools", "np.load(f, allow_pickle=False)", "np.load(f)", "torch.load(f, weights_only=True)", "json.load(f)",
    "pickle = members[0]", "'pickle'", "from .pickle_free import x"])
def test_the_search_lets_pass(source):
    assert not unpicklings(source)


def test_no_source_unpickles():
    assert len(SOURCES) > 100
    found = {str(path.relative_to(ROOT)): unpicklings(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: lines for path, lines in found.items() if lines} == {}


# ---- pickles that make a folder when they are let

class Evil:
    """Pickled, it becomes a call that makes a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture(params=[0, 2, 4])
def evil(request, tmp_path):
    """(bytes of the pickle, protocol); afterwards it must not have been followed."""
    marker = tmp_path / "unpickled"
    data = pickle.dumps(Evil(str(marker)), protocol=request.param)
    pickle.loads(data)
    marker.rmdir()              # it works where it is let
    yield data, request.param
    assert not marker.exists()


def test_files_of_arrays(evil, tmp_path):
    for name in ("x.params", "x.pth", "x.pt", "x.safetensors", "x.caffemodel", "x.npz", "x.npy", "x"):
        path = tmp_path / name
        path.write_bytes(evil[0])
        for reader in (read, arrays.load):
            with pytest.raises(UserError):
                reader(str(path))


def test_numpys_files_of_objects(evil, tmp_path):
    """A sound .npy file whose elements are pickled."""
    path = tmp_path / "x.npy"
    np.save(str(path), np.array([[Evil(str(tmp_path / "unpickled"))]], dtype=object), allow_pickle=True)
    for content in (path.read_bytes(), evil[0]):
        path.write_bytes(content)
        with pytest.raises(UserError):
            read_images(str(path))
        with pytest.raises(UserError):
            read(str(path))


@pytest.mark.parametrize("file", ["parameters.params", "optimizer.params", "state.json", "config.json", "manifest.json"])
def test_checkpoints(evil, tmp_path, file):
    """Also in one whose manifest fits: its writer was the attacker."""
    path = checkpoint.save(str(tmp_path / "checkpoints"), parameters={"w": np.ones(3, "float32")},
                           optimizer={"m": np.ones(3, "float32")}, state={"step": 3}, config={"model": "lenet5"})
    Path(path, file).write_bytes(evil[0])
    if file != "manifest.json":
        manifest = json.loads(Path(path, "manifest.json").read_text())
        manifest["files"][file] = {"bytes": len(evil[0]), "sha256": hashlib.sha256(evil[0]).hexdigest()}
        Path(path, "manifest.json").write_text(json.dumps({**manifest, "digest": checkpoint._digest(manifest)}))
    with pytest.raises(UserError):
        found = checkpoint.newest(str(tmp_path))
        assert found.arrays("parameters.params") and found.arrays("optimizer.params")


def test_what_agents_and_channels_are_told(evil):
    with pytest.raises(WireError):
        Unpacker().feed(pack(MESSAGE, 0, evil[0]))
    with pytest.raises(ValueError):
        JobKey.unpack(evil[0].decode("latin-1"))


# ---- a job's sockets

SEND = """
import os, sys, time
import gluonzoo.distributed
folder, way = sys.argv[1:]
store = gluonzoo.distributed.create("dist_sync")
print("up", flush=True)
with open(os.path.join(folder, "ports"), "w") as file:
    file.write(os.environ["DMLC_PS_ROOT_PORT"] + " " + os.environ["PORT"])
if way == "command":
    with open(os.path.join(folder, "pickle"), "rb") as file:
        store.send_command(file.read().decode("latin-1"))
time.sleep(20)
"""


def _ports(mark):
    """The ports that processes of a job listen on."""
    inodes = set()
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark.encode() in (process / "environ").read_bytes():
                inodes |= {os.readlink(handle)[8:-1] for handle in (process / "fd").iterdir()}
        except OSError:
            continue
    fields = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sorted(int(words[1].split(":")[1], 16) for words in fields if words[3] == "0A" and words[9] in inodes)


@pytest.mark.parametrize("way", ["command", "ports"])
def test_a_jobs_sockets(tmp_path, way):
    """As a command to the servers, which MXNet's own would unpickle; at every port, plain and as a message of ZeroMQ's."""
    marker, mark = tmp_path / "unpickled", uuid.uuid4().hex
    data = pickle.dumps(Evil(str(marker)), protocol=0)
    (tmp_path / "pickle").write_bytes(data)
    (tmp_path / "send.py").write_text(SEND)
    argv = [sys.executable, str(ROOT / "launch" / "launch.py"), "-n", "1", "-s", "2", "--grace", "1", "--log-dir",
            str(tmp_path / "logs"), sys.executable, str(tmp_path / "send.py"), str(tmp_path), way]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "GLUONZOO_TEST_MARK": mark}
    with open(tmp_path / "output", "wb") as output:
        job = subprocess.Popen(argv, env=environ, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        if way == "ports":
            while len(_ports(mark)) < 4 or not (tmp_path / "ports").exists():
                assert job.poll() is None and time.monotonic() < deadline, (tmp_path / "output").read_text()
                time.sleep(0.1)
            for port in _ports(mark):
                zmtp = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL" + b"\0" * 48 + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\6DEALER"
                for frame in (data, zmtp + bytes([0, len(data) % 256]) + data):
                    try:
                        with socket.create_connection(("127.0.0.1", port), 5) as sock:
                            sock.sendall(frame)
                            time.sleep(0.2)
                    except OSError:
                        continue        # ps-lite ends at the first garbage; what counts is that it does nothing else
            job.terminate()
        assert job.wait(60) != 0
    finally:
        job.kill()
        job.wait()
    text = (tmp_path / "output").read_text(errors="replace")
    assert not marker.exists(), text
    if way == "command":
        assert re.search(r"\[server \d\] error: refused a command: not JSON", text), text
