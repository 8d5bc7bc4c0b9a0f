"""The process of a scheduler or server: ``python -m gluonzoo.distributed.server`` with the role in the environment.

MXNet's own server unpickles whatever reaches its port. This one takes commands only as JSON objects of a few known
forms and unpickles nothing:

- ``{"op": "optimizer", "name": "sgd", "arguments": {...}, "lr_mult": {...}, "wd_mult": {...}}``
- ``{"op": "learning_rate", "value": 0.1}``
- ``{"op": "save", "folder": path}``: write the optimizer's state, one file a server, in MXNet's array format.
- ``{"op": "load", "folder": path, "bound": 1000000}``: read this server's part of what any number of servers wrote.

A command that is none of these, or fails, ends the process with exit code 3 and a message, so that the launcher sees it:
an exception inside MXNet's callback would vanish.

When the launcher starts it, MXNet's C library alone is loaded, in a sixth of the time that the package takes; that comes when a
command needs it.
"""
import ctypes
import json
import math
import os
import re
import sys
import traceback

import numpy as np

__all__ = ["OPTIMIZERS", "check_command", "share", "Server", "serve", "main"]

#: Optimizers a job may name. Each update depends only on the key's own weight, gradient and state.
OPTIMIZERS = ("sgd", "nag", "adam", "rmsprop", "adagrad", "adadelta", "signum")

COMMAND_FAILED = 3
_FORMS = {"optimizer": {"op", "name", "arguments", "lr_mult", "wd_mult"}, "learning_rate": {"op", "value"},
          "save": {"op", "folder"}, "load": {"op", "folder", "bound"}}
_STATE_FILE = re.compile(r"server-(\d+)\.params")


def _check_numbers(where, values):
    for name, value in values.items():
        if not isinstance(name, str) or not (isinstance(value, (bool, type(None)))
                                             or isinstance(value, (int, float)) and math.isfinite(value)):
            raise ValueError(f"{where} {name!r} is {value!r}; expected a finite number, true, false or null")


def check_command(text):
    """Parse and check one command.

    Returns: the command as a dict.
    Raises: ValueError that names what was received when the text is not a command of a known form.
    """
    try:
        command = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not JSON ({error}): {text[:80]!r}") from None
    if not isinstance(command, dict) or command.get("op") not in _FORMS:
        raise ValueError(f"unknown command {text[:80]!r}; expected a JSON object with op one of {', '.join(_FORMS)}")
    form = _FORMS[command["op"]]
    if set(command) != form:
        raise ValueError(f"command {command['op']!r} has fields {sorted(command)}; expected {sorted(form)}")
    if command["op"] == "optimizer":
        if command["name"] not in OPTIMIZERS:
            raise ValueError(f"optimizer {command['name']!r} is not allowed; expected one of {', '.join(OPTIMIZERS)}")
        for field in ("arguments", "lr_mult", "wd_mult"):
            if not isinstance(command[field], dict):
                raise ValueError(f"{field} is {command[field]!r}; expected a JSON object")
            _check_numbers(field, command[field])
    elif command["op"] == "learning_rate":
        _check_numbers("learning_rate", {"value": command["value"]})
    elif not isinstance(command["folder"], str) or not os.path.isdir(command["folder"]):
        raise ValueError(f"folder {command['folder']!r} does not exist on this server")
    if command["op"] == "load" and (not isinstance(command["bound"], int) or command["bound"] < 1):
        raise ValueError(f"bound is {command['bound']!r}; expected a whole number of at least 1")
    return command


def share(key, size, rank, servers, bound):
    """Which elements of a key's flat array live on one server.

    Args: key: the KVStore's key; size: its elements; rank, servers: which of how many servers; bound: the number of elements
        from which on arrays are cut (``MXNET_KVSTORE_BIGARRAY_BOUND`` of the workers).
    Returns: (first, last), or None when the server has nothing of it.
    Source: MXNet 1.9.1, ``src/kvstore/kvstore_dist.h``, EncodeDefaultKey.
    """
    if size < bound:
        return (0, size) if key * 9973 % servers == rank else None
    # C's round(), which takes halves away from zero; Python's takes them to the even number.
    return tuple(math.floor(size / servers * number + 0.5) for number in (rank, rank + 1))


def join_states(files):
    """Join what several servers saved: arrays that were cut, in the order of the servers; of counts the largest.

    A server keeps the counts it was once given also for keys that it has no longer, or never had.

    Args: files: [{name: NumPy array}] in the order of the servers.
    """
    parts = {}
    for values in files:
        for name, value in values.items():
            parts.setdefault(name, []).append(value)
    return {name: np.max(pieces, axis=0) if name.startswith("count/") else np.concatenate(pieces)
            for name, pieces in parts.items()}


class _Store:
    """What a scheduler or server needs of a KVStore, over MXNet's C interface."""

    def __init__(self, library):
        self._library, self.handle = library, ctypes.c_void_p()
        self.check(library.MXKVStoreCreate(b"dist", ctypes.byref(self.handle)))

    def check(self, code):
        """Raise RuntimeError with MXNet's words when a call has failed."""
        if code:
            raise RuntimeError(self._library.MXGetLastError().decode("utf-8", "replace"))

    @property
    def rank(self):
        """Number of this node among those of its role."""
        number = ctypes.c_int()
        self.check(self._library.MXKVStoreGetRank(self.handle, ctypes.byref(number)))
        return number.value

    def run(self, controller):
        """MXNet's server loop; returns when the job ends."""
        self.check(self._library.MXKVStoreRunServer(self.handle, controller, None))


class Server:
    """The server loop around MXNet's, with a controller of its own. servers: how many there are."""

    def __init__(self, store, servers):
        self._store, self._servers = store, servers
        self._updater = self._updating = None
        self._controller_reference = None  # ctypes keeps no reference; the callback must outlive run().

    def handle(self, text):
        """Carry out one command (see the module's docstring).

        Raises: ValueError for a command of no known form; OSError when a state file cannot be written or read.
        """
        command = check_command(text)
        if command["op"] == "optimizer":
            from .. import runtime
            mx = runtime.prepare()
            optimizer = mx.optimizer.create(command["name"], **command["arguments"])
            optimizer.set_lr_mult({int(key): value for key, value in command["lr_mult"].items()})
            optimizer.set_wd_mult({int(key): value for key, value in command["wd_mult"].items()})
            self._updater = mx.optimizer.get_updater(optimizer)
            self._updating = mx.kvstore.KVStore(self._store.handle)
            self._updating._set_updater(self._updater)
            return
        if self._updater is None:
            raise ValueError(f"command {command['op']!r} came before an optimizer")
        if command["op"] == "learning_rate":
            self._updater.optimizer.set_learning_rate(command["value"])
        elif command["op"] == "save":
            self._save(os.path.join(command["folder"], f"server-{self._store.rank}.params"))
        else:
            self._load(command["folder"], command["bound"])

    def _save(self, path):
        from .. import arrays
        from ..training.states import flatten_state, update_counts

        values = {f"count/{key}": count for key, count in update_counts(self._updater.optimizer).items()}
        for key, state in self._updater.states.items():
            values.update(flatten_state(f"state/{key}", state))
        arrays.save(path, values)

    def _load(self, folder, bound):
        from .. import arrays
        from ..training.states import restore_states

        ranks = sorted(int(match.group(1)) for match in map(_STATE_FILE.fullmatch, os.listdir(folder)) if match)
        if not ranks or ranks != list(range(len(ranks))):
            raise ValueError(f"folder {folder} holds the states of servers {ranks}; expected those of 0, 1, ... without a gap")
        whole = join_states([arrays.load(os.path.join(folder, f"server-{rank}.params")) for rank in ranks])
        mine, sizes = {}, {}
        for name, value in whole.items():
            if name.startswith("state/"):
                key = int(name.split("/")[1])
                if value.ndim != 1 or sizes.setdefault(key, value.size) != value.size:
                    raise ValueError(f"{folder}: {name} has shape {value.shape}; expected a flat array as long as the weight")
                part = share(key, value.size, self._store.rank, self._servers, bound)
                if part is not None:
                    mine[name] = value[part[0]:part[1]]
        # All counts, because those of an optimizer without state do not say where their key lives.
        mine.update({name: value for name, value in whole.items() if name.startswith("count/")})
        restore_states(self._updater, mine)

    def _control(self, head, body, _):
        try:
            if head != 0:
                raise ValueError(f"command number {head}; expected 0")
            self.handle(body.decode("utf-8"))
        except ValueError as error:
            print(f"error: refused a command: {error}", file=sys.stderr, flush=True)
            os._exit(COMMAND_FAILED)
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(COMMAND_FAILED)

    def run(self):
        """Serve until the workers have left the job."""
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self._controller_reference = prototype(self._control)
        self._store.run(self._controller_reference)


def serve():
    """Join the job named by the environment as its scheduler or server and serve until it ends. Returns the exit code."""
    from .cluster import Cluster, ClusterError

    job = Cluster.from_environment()
    if job.role == "worker":
        raise ClusterError("DMLC_ROLE is 'worker'; gluonzoo.distributed.server runs as scheduler or server")
    job.apply()
    from .. import runtime

    library = None if "mxnet" in sys.modules else runtime.load_library()
    if library is None:
        runtime.prepare()
        from mxnet.base import _LIB as library
    Server(_Store(library), job.num_servers).run()
    sys.stdout.flush()
    sys.stderr.flush()
    return 0


def main():
    """The program: ends without interpreter shutdown, during which freeing the store can abort."""
    from ..errors import UserError

    try:
        code = serve()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
