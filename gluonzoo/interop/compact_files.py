"""gluonzoo's own small files (`gluonzoo.compact`): sparse, shared and binary arrays."""
from ..compact import files

__all__ = ["read", "write"]


def read(path):
    """{name: array}. Raises: arrays.FormatError, OSError."""
    return files.load(path)[0]


def write(path, values):
    """Write named arrays without facts about their network."""
    files.save(path, values)
