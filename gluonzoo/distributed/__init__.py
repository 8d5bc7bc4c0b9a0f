"""Distribution over MXNet's parameter servers: the job's environment, the one maker of KVStores, the server process."""
from .cluster import Cluster, ClusterError
from .kvstore import KVStore, create, leave

__all__ = ["Cluster", "ClusterError", "KVStore", "create", "leave"]
