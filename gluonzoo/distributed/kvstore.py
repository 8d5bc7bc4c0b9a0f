"""The one place a KVStore is made, and the one place a distributed process ends.

ps-lite has sharp edges that this module keeps away from the rest (measured facts): a failed worker hangs in the exit
barrier and everyone with it; a store alive at interpreter shutdown can turn success into SIGABRT; the first pull of
a key races the first push to it.
"""
import atexit
import os
import sys
import traceback

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, check_call

from ..errors import UserError
from . import cluster

__all__ = ["KVStore", "create", "leave", "KINDS"]

KINDS = ("local", "device", "dist_sync", "dist_device_sync", "dist_async")

_status = None  # What sys.exit was last called with.
_live = None  # ps-lite holds one job per process, so there is at most one distributed store.


class KVStore:
    """MXNet's KVStore with what a trainer needs. Make one with `create`.

    Attributes: kind (the name asked for), rank, num_workers, is_distributed, is_async; job_workers, the number of workers
        the job was asked for, which is larger than num_workers when it goes on with fewer.
    """

    def __init__(self, kind, store):
        self.kind = kind
        self.is_distributed = kind.startswith("dist")
        self.is_async = kind == "dist_async"
        self._store = store
        self.rank = store.rank if self.is_distributed else 0
        self.num_workers = store.num_workers if self.is_distributed else 1
        self.job_workers = cluster.job_workers(self.num_workers) if self.is_distributed else 1
        self._collectives = {}
        self._next_key = 0

    def allocate(self, count):
        """The first of count keys that nothing else uses: a key is initialised once in a job's life. Every worker must
        allocate in the same order."""
        first, self._next_key = self._next_key, self._next_key + count
        return first

    def _open(self):
        if self._store is None:
            raise RuntimeError(f"the KVStore {self.kind!r} is closed")
        return self._store

    def broadcast(self, values):
        """Give every worker rank 0's values. values: {int key: list of NDArrays, one a device}, overwritten in place.

        Returns only when every worker has every value, so that a push to the same keys cannot overtake the pull.
        """
        store = self._open()
        for key, arrays in values.items():
            # A fresh copy: an inference run may have left the array in oneDNN's own layout, which ps-lite cannot read.
            store.init(key, mx.nd.array(arrays[0].asnumpy(), dtype=arrays[0].dtype))
        for key, arrays in values.items():
            store.pull(key, out=arrays)
        mx.nd.waitall()
        self.barrier()

    def push_pull(self, key, arrays, priority=0):
        """Sum arrays (one a device) over devices and workers, in place. Asynchronous, as all of MXNet's operators."""
        self._open().pushpull(key, arrays, out=arrays, priority=priority)

    def push(self, key, arrays, priority=0):
        """Send arrays (one a device, summed) to the servers; with `dist_async` the servers' optimizer applies them."""
        self._open().push(key, arrays, priority=priority)

    def pull(self, key, arrays, priority=0):
        """Fetch the servers' value of a key into arrays."""
        self._open().pull(key, out=arrays, priority=priority)

    def gather(self, values):
        """Every worker's NumPy array (all of one shape and type), stacked by rank: (num_workers, ...), exact to the bit.

        Every worker must call it. Raises: UserError under dist_async, where the servers do not wait for all pushes.
        """
        values = np.ascontiguousarray(values)
        if not self.is_distributed:
            return values[None].copy()
        if self.is_async:
            raise UserError("gather needs dist_sync; dist_async workers never wait for one another")
        # Sent as 16-bit words in float32, each worker in a row of its own, so that the servers only add zeros. MXNet's
        # servers may round other types to float32 (they decide by a member that is never initialised), and a sum of
        # floats would depend on the order of arrival.
        padded = values.tobytes() + b"\0" * (values.nbytes % 2)
        words = np.zeros((self.num_workers, len(padded) // 2), dtype=np.float32)
        words[self.rank] = np.frombuffer(padded, dtype=np.uint16)
        if words.shape not in self._collectives:
            key = self.allocate(1)
            self.broadcast({key: [mx.nd.zeros(words.shape)]})
            self._collectives[words.shape] = key
        array = mx.nd.array(words)
        self.push_pull(self._collectives[words.shape], [array])
        rows = array.asnumpy().astype(np.uint16)
        return np.stack([np.frombuffer(row.tobytes()[:values.nbytes], dtype=values.dtype).reshape(values.shape) for row in rows])

    def all_sum(self, values):
        """The sum over all workers of a NumPy array of one shape, added in the order of ranks; every worker must call it.

        Raises: UserError under dist_async.
        """
        total = 0
        for row in self.gather(values):
            total = total + row
        return total

    def barrier(self):
        """Wait until every worker is here."""
        if self.is_distributed:
            self._open()._barrier()

    def send_command(self, body):
        """Send a text to every server's controller (`gluonzoo.distributed.server`); call it from rank 0 only."""
        if "\0" in body:
            raise ValueError("a command to the servers must not contain NUL; ps-lite ends it there")
        self._open()._send_command_to_servers(0, body)

    def close(self):
        """Leave the job in order: finish all work, meet the others in ps-lite's exit barrier, free the store.

        Where workers may die nobody is waited for: the barrier would never open. The launcher then ends the servers.
        """
        global _live
        if self._store is None:
            return
        mx.nd.waitall()
        store, self._store = self._store, None
        if self.is_distributed:
            if cluster.workers_may_die():
                check_call(_LIB.MXKVStoreSetBarrierBeforeExit(store.handle, 0))
            # Freed here, with a null handle left for KVStore.__del__, because at interpreter shutdown it aborts.
            handle, store.handle = store.handle, None
            check_call(_LIB.MXKVStoreFree(handle))
            _live = None


def create(kind="device"):
    """Make the process's KVStore.

    Args: kind: one of `KINDS`; the `dist_` kinds need a job's environment (`launch/launch.py` makes it).
        In a scheduler's or server's process, as other launchers start the same program in every role, this serves until
        the job ends and then exits.
    Raises: UserError for an unknown kind; ClusterError when the environment is not a job's.
    """
    global _live
    if kind not in KINDS:
        raise UserError(f"unknown kvstore {kind!r}; expected one of {', '.join(KINDS)}")
    if not kind.startswith("dist"):
        return KVStore(kind, mx.kv.create(kind))
    job = cluster.Cluster.from_environment()
    if job.role != "worker":
        from . import server
        os._exit(server.serve())
    if _live is not None:
        raise UserError("this process has a distributed KVStore already; ps-lite allows one a process, share it")
    job.apply()
    # An escaping exception must end this process at once: its exit barrier would hang the whole job.
    sys.excepthook = _fail
    if sys.exit is not _exit:
        sys.exit = _exit
        atexit.register(_close_at_exit)
    _live = KVStore(kind, mx.kv.create(kind))
    return _live


def _fail(kind, error, trace):
    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
    else:
        traceback.print_exception(kind, error, trace)
    leave(2 if isinstance(error, UserError) else 130 if issubclass(kind, KeyboardInterrupt) else 1)


def _exit(status=None):
    """`sys.exit` in a distributed worker: it also leaves word of the status for `_close_at_exit`, which cannot see it."""
    global _status
    _status = status
    raise SystemExit(status)


def _close_at_exit():
    if _live is None:
        return
    if _status not in (None, 0):
        # A worker that gives up must not wait in the exit barrier for others that wait for its gradients.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_status if isinstance(_status, int) else 1)
    _live.close()


def leave(code=0):
    """End this process with an exit code that the launcher can trust; outside a distributed job a plain ``sys.exit``.

    With code 0 the store is closed in order first; with any other the process ends at once, so that the launcher sees
    the failure and ends the rest instead of everyone waiting in a barrier.
    """
    if _live is None:
        sys.exit(code)
    if code == 0:
        _live.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
