"""Optimizer state as named NumPy arrays and back, so that it can be saved without pickle."""
import mxnet as mx
import numpy as np

from ..errors import UserError

__all__ = ["flatten_state", "restore_states", "update_counts", "set_update_counts"]


def flatten_state(name, state):
    """One weight's optimizer state (None, NDArray, or nested tuples of them) as {name[/i...]: NumPy array}."""
    if state is None:
        return {}
    if isinstance(state, (list, tuple)):
        values = {}
        for index, part in enumerate(state):
            values.update(flatten_state(f"{name}/{index}", part))
        return values
    return {name: state.asnumpy()}


def fill_state(name, state, values, used):
    """Copy named arrays into a freshly created state of the same structure.

    Raises: UserError when an array is missing or has another shape than the optimizer's state.
    """
    if state is None:
        return
    if isinstance(state, (list, tuple)):
        for index, part in enumerate(state):
            fill_state(f"{name}/{index}", part, values, used)
        return
    if name not in values:
        raise UserError(f"optimizer state {name} is missing; the state was saved by another optimizer or network")
    if tuple(values[name].shape) != tuple(state.shape):
        raise UserError(f"optimizer state {name} has shape {tuple(values[name].shape)}; expected {tuple(state.shape)}")
    state[:] = mx.nd.array(values[name], dtype=state.dtype)
    used.add(name)


def update_counts(optimizer):
    """{weight index: number of updates so far}; Adam's bias correction and schedules depend on it."""
    return {index: np.array([count], dtype=np.int64) for index, count in optimizer._index_update_count.items()}


def set_update_counts(optimizer, counts, devices=1):
    """Set the numbers of updates, {weight index: count}, for each of the devices that share the optimizer."""
    counts = {index: int(count) for index, count in counts.items()}
    optimizer._all_index_update_counts = {device: dict(counts) for device in range(devices)}
    optimizer._index_update_count = optimizer._all_index_update_counts[0]
    optimizer.num_update = max([optimizer.begin_num_update, *counts.values()])


def restore_states(updater, values):
    """Fill a server's updater from `Server._save`'s arrays: "count/<key>" and "state/<key>[/i]"."""
    counts = {int(name.split("/")[1]): int(value[0]) for name, value in values.items() if name.startswith("count/")}
    parts = {}
    for name, value in values.items():
        kind, key, *rest = name.split("/")
        if kind == "state":
            parts.setdefault(int(key), {})[tuple(int(i) for i in rest)] = mx.nd.array(value, dtype=value.dtype)

    def build(tree):
        if () in tree:
            return tree[()]
        size = 1 + max(path[0] for path in tree)
        return tuple(build({path[1:]: v for path, v in tree.items() if path[0] == i}) for i in range(size))

    for key, tree in parts.items():
        updater.states[key] = build(tree)
        updater.states_synced[key] = True
    set_update_counts(updater.optimizer, counts)
