"""The environment of one process in a parameter-server job; the only place that reads ``DMLC_*`` and the launcher's words.

The names are the contract of MXNet's own launcher (dmlc tracker), so jobs started by either launcher look the same.
"""
import os
from dataclasses import dataclass

from ..errors import UserError

__all__ = ["Cluster", "ClusterError", "role", "in_job", "job_workers", "workers_may_die", "shared_memory", "restarts",
           "big_array_bound"]

ROLES = ("scheduler", "server", "worker")
_REQUIRED = ("DMLC_ROLE", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT", "DMLC_NUM_WORKER", "DMLC_NUM_SERVER")


class ClusterError(UserError):
    """The environment does not describe a job this process can join."""


def role(environ=None):
    """This process's role: "scheduler", "server", "worker", or None outside a job."""
    return (os.environ if environ is None else environ).get("DMLC_ROLE") or None


def _number(environ, name, low, high):
    text = environ[name]
    if not text.isdigit() or not low <= int(text) <= high:
        raise ClusterError(f"{name} is {text!r}; expected a whole number from {low} to {high}")
    return int(text)


def in_job(environ=None):
    """Whether ``launch/launch.py`` watches this worker: SIGUSR1 is its word for an orderly stop, SIGTERM for the end."""
    return bool((os.environ if environ is None else environ).get("GLUONZOO_PROGRESS_FILE"))


def job_workers(num_workers, environ=None):
    """The number of workers the job was asked for, by which the global batch goes; num_workers, those there are, by default."""
    environ = os.environ if environ is None else environ
    return _number(environ, "GLUONZOO_JOB_WORKERS", 1, 100000) if environ.get("GLUONZOO_JOB_WORKERS") else num_workers


def workers_may_die(environ=None):
    """Whether the rest of the workers go on when one dies (dist_async, ``launch.py --tolerate-workers``)."""
    return (os.environ if environ is None else environ).get("GLUONZOO_TOLERATE_WORKERS") == "1"


def shared_memory(environ=None):
    """Whether workers of one host may do without the servers, adding gradients in memory; GLUONZOO_SHARED_MEMORY=0 says no."""
    return (os.environ if environ is None else environ).get("GLUONZOO_SHARED_MEMORY") != "0"


def restarts(environ=None):
    """How often the launcher has started this job again."""
    environ = os.environ if environ is None else environ
    return _number(environ, "GLUONZOO_RESTART", 0, 10**9) if environ.get("GLUONZOO_RESTART") else 0


def big_array_bound(environ=None):
    """Number of elements from which on ps-lite cuts an array over all servers."""
    environ = os.environ if environ is None else environ
    name = "MXNET_KVSTORE_BIGARRAY_BOUND"
    return _number(environ, name, 1, 10**12) if environ.get(name) else 1000000


@dataclass(frozen=True)
class Cluster:
    """One process's view of its job: its role, how many workers and servers there are, where the scheduler listens."""

    role: str
    num_workers: int
    num_servers: int
    root_uri: str
    root_port: int
    node_host: str = "127.0.0.1"
    interface: str = "lo"

    @classmethod
    def from_environment(cls, environ=None):
        """Read and check the environment.

        Raises: ClusterError naming the variable that is missing or wrong, and how to start a job.
        """
        environ = os.environ if environ is None else environ
        missing = [name for name in _REQUIRED if not environ.get(name)]
        if missing:
            raise ClusterError(f"this process is not part of a distributed job ({', '.join(missing)} not set); start it "
                               "with: python launch/launch.py -n WORKERS -s SERVERS COMMAND, or use --kvstore device")
        if environ["DMLC_ROLE"] not in ROLES:
            raise ClusterError(f"DMLC_ROLE is {environ['DMLC_ROLE']!r}; expected one of {', '.join(ROLES)}")
        root = environ["DMLC_PS_ROOT_URI"]
        local = root in ("127.0.0.1", "localhost", "::1")
        return cls(role=environ["DMLC_ROLE"],
                   num_workers=_number(environ, "DMLC_NUM_WORKER", 1, 100000),
                   num_servers=_number(environ, "DMLC_NUM_SERVER", 1, 100000),
                   root_uri=root, root_port=_number(environ, "DMLC_PS_ROOT_PORT", 1, 65535),
                   node_host=environ.get("DMLC_NODE_HOST", "127.0.0.1" if local else ""),
                   interface=environ.get("DMLC_INTERFACE", "lo" if local else ""))

    def environment(self):
        """The variables that ps-lite reads, as a dict of strings. Empty addresses are left to ps-lite."""
        values = {"DMLC_ROLE": self.role, "DMLC_NUM_WORKER": str(self.num_workers),
                  "DMLC_NUM_SERVER": str(self.num_servers), "DMLC_PS_ROOT_URI": self.root_uri,
                  "DMLC_PS_ROOT_PORT": str(self.root_port)}
        if self.node_host:
            values["DMLC_NODE_HOST"] = self.node_host
        if self.interface:
            values["DMLC_INTERFACE"] = self.interface
        return values

    def apply(self):
        """Write the variables into this process's environment, before ps-lite starts.

        A job whose scheduler is on loopback so listens on loopback only, also when only the required variables were set.
        """
        os.environ.update(self.environment())
