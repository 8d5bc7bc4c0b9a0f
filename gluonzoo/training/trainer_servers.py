"""The part of a trainer that is another one under dist_async: the servers hold the weights and make the updates."""
import json

from ..distributed.server import OPTIMIZERS
from ..errors import UserError

__all__ = ["UpdatesOnServers"]


class UpdatesOnServers:
    """The part of `Trainer` for ``dist_async``."""

    def _start_on_servers(self):
        """Give the servers rank 0's weights and the optimizer.

        Raises: UserError for what only workers can do.
        """
        store = self.kvstore
        if self._json is None or self._json["name"] not in OPTIMIZERS:
            raise UserError(f"dist_async runs the optimizer on the servers; name one of {', '.join(OPTIMIZERS)}")
        if self._json["name"] == "rmsprop" and self._json["arguments"].get("momentum") or self.loss_scaler is not None:
            raise UserError("rmsprop with momentum and loss scaling need the update on the worker; dist_async updates on the "
                            "servers")
        if self._accumulate > 1:
            raise UserError("accumulate needs the update on the worker; dist_async updates on the servers")
        self._first_key = store.allocate(len(self._parameters))
        store.broadcast({self._first_key + i: p.list_data() for i, p in enumerate(self._parameters)})
        if store.rank == 0:
            multipliers = {name: {self._first_key + i: value for i, value in values.items()}
                           for name, values in (("lr_mult", self._lr_mult), ("wd_mult", self._wd_mult))}
            store.send_command(json.dumps({**self._json, **multipliers}))
            self._sent_rate = self.learning_rate
        store.barrier()

    def _step_on_servers(self, samples):
        if self.kvstore.rank == 0 and self.learning_rate != self._sent_rate:
            self.kvstore.send_command(json.dumps({"op": "learning_rate", "value": self.learning_rate}))
            self._sent_rate = self.learning_rate
        # Every worker makes updates of its own here, so each decides by its own gradients.
        self.left_out = not self._finite([gradient for parameter in self._parameters for gradient in parameter.list_grad()])
        for device in range(len(self._contexts)):
            arrays = [parameter.list_grad()[device] for parameter in self._parameters]
            for array in arrays:
                # The servers sum over devices, so each device's share is divided by this worker's whole number.
                array /= max(samples, 1)
            if self._clip_norm is not None:
                self._scale_to_norm(arrays, 1.0)
        for index, parameter in enumerate(self._parameters):
            if not self.left_out:
                self.kvstore.push(self._first_key + index, parameter.list_grad(), priority=-index)
            self.kvstore.pull(self._first_key + index, parameter.list_data(), priority=-index)
