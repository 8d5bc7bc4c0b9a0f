"""What a trainer must be given back to go on as if nothing had happened: its optimizer's state, saved and loaded."""
import json

import numpy as np

from ..distributed import cluster
from ..errors import UserError
from .compression import CompressedSum
from .states import fill_state, flatten_state, set_update_counts

__all__ = ["SavedState"]


class SavedState:
    """The part of `Trainer` that saves and loads."""

    def state_dict(self):
        """Optimizer state as {name: NumPy array}: "parameter:<name>[/i...]" and the numbers of updates, "updates".

        With 2-bit compression also what it holds back, "residual:<bucket>"; `synchronize` comes first then. With a loss scaler
        also its state, "loss_scale".

        Raises: UserError under dist_async, whose state lives on the servers (`save_server_states`).
        """
        if self.kvstore.is_async:
            raise UserError("under dist_async the optimizer's state is on the servers; use save_server_states(folder)")
        if self._calls:
            raise UserError(f"{self._calls} of {self._accumulate} accumulation calls are pending; save after an update")
        if self._local and self._local.pending:
            raise UserError("workers have made local steps since the last average; have every one call synchronize() first")
        values = {}
        counts = self._optimizer._all_index_update_counts.get(self._contexts[0].device_id, {})
        for index, name in enumerate(self._names):
            values.update(flatten_state(f"parameter:{name}", self._updaters[0].states.get(index)))
        if isinstance(self._exchange, CompressedSum):
            values.update(self._exchange.state())
        if self.loss_scaler:
            values["loss_scale"] = self.loss_scaler.state()
        values["updates"] = np.array([counts.get(i, 0) for i in range(len(self._names))], dtype=np.int64)
        return values

    def load_state_dict(self, values):
        """Restore what `state_dict` returned, on every device.

        Raises: UserError naming the entry when the state is another network's or optimizer's; nothing is changed then.
        """
        if self.kvstore.is_async:
            raise UserError("under dist_async the optimizer's state is on the servers; use load_server_states(folder)")
        if "updates" not in values or values["updates"].shape != (len(self._names),):
            found = values["updates"].shape if "updates" in values else "none"
            raise UserError(f"optimizer state counts updates of {found} parameters; expected ({len(self._names)},)")
        counts = {index: int(count) for index, count in enumerate(values["updates"]) if count}
        fresh = []
        for device in range(len(self._contexts)):
            used, states = {"updates", "loss_scale"}, {}
            for index in counts:
                weight = self._parameters[index].list_data()[device]
                states[index] = self._optimizer.create_state_multi_precision(index, weight)
                fill_state(f"parameter:{self._names[index]}", states[index], values, used)
            # What a compression held back is of no use without it; it was a part of gradients to come.
            extra = sorted(name for name in set(values) - used if not name.startswith("residual:"))
            if extra:
                raise UserError(f"optimizer state {extra[0]} fits no parameter; it is another network's or optimizer's")
            fresh.append(states)
        if isinstance(self._exchange, CompressedSum):
            self._exchange.load(values)
        if self.loss_scaler and "loss_scale" in values:
            self.loss_scaler.load(values["loss_scale"])
        for updater, states in zip(self._updaters, fresh):
            updater.states = states
            updater.states_synced = dict.fromkeys(states, True)
        set_update_counts(self._optimizer, counts, devices=1 + max(ctx.device_id for ctx in self._contexts))

    def save_states(self, path):
        """Write the optimizer's state to a file in MXNet's array format."""
        from .. import arrays
        arrays.save(path, self.state_dict())

    def load_states(self, path):
        """Read what `save_states` wrote. Raises: UserError when the file is damaged or another network's."""
        from .. import arrays
        self.load_state_dict(arrays.load(path))

    def save_server_states(self, folder):
        """Under dist_async, have every server write its optimizer state into folder (on the server's host); rank 0 calls."""
        self.kvstore.send_command(json.dumps({"op": "save", "folder": str(folder)}))

    def load_server_states(self, folder):
        """Under dist_async, have every server read its part of what `save_server_states` wrote, also when there were more or
        fewer servers then: arrays that ps-lite cuts over the servers are joined and cut anew. Rank 0 calls."""
        self.kvstore.send_command(json.dumps({"op": "load", "folder": str(folder),
                                              "bound": cluster.big_array_bound()}))
