"""Distribution over MXNet's parameter servers: the job's environment, the one maker of KVStores, the server process."""
from .cluster import Cluster, ClusterError

__all__ = ["Cluster", "ClusterError", "KVStore", "create", "leave"]


def __getattr__(name):
    # Not at once: a server process does without MXNet's Python package.
    if name in __all__:
        from . import kvstore
        return getattr(kvstore, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
