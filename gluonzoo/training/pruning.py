"""Magnitude pruning during training: when, how much, and which weights.

Sources: S. Han, J. Pool, J. Tran, W. Dally, Learning both Weights and Connections for Efficient Neural Networks, 2015,
arXiv:1506.02626 (prune the smallest weights, train the others on, perhaps again and again; thresholds in units of a layer's
standard deviation); M. Zhu, S. Gupta, To prune, or not to prune: exploring the efficacy of pruning for model compression, 2017,
arXiv:1710.01878, equation 1 (the gradual schedule). Differences: weights once pruned stay pruned; Han et al. set a threshold by
hand for each network, here the share of weights that goes is given; dropout's rate stays as it is (--dropout changes it).
"""
import numpy as np

from ..errors import UserError
from ..layers.weight_layers import weight_names
from .constraints import Masks

__all__ = ["SCHEDULES", "SCOPES", "target_sparsity", "choose_masks", "sparsity_of", "Pruner"]

SCHEDULES = ("gradual", "iterative", "oneshot")

#: What weights are compared with: those of their layer, all, or all after division by their layer's standard deviation.
SCOPES = ("layer", "global", "std")


def target_sparsity(step, final, schedule="gradual", begin=0, end=0, every=100, rounds=5, initial=0.0):
    """The share of weights that are to be zero in an update; it never falls.

    Args:
        step: number of the update from 0.
        final: what is reached at `end`.
        schedule: "oneshot": final from begin on; "iterative": rounds equally far apart from begin to end, each of which prunes
            the same share of the weights that are left; "gradual": final + (initial - final) (1 - (t - begin) / (end - begin))^3,
            where t moves on every `every` updates (Zhu and Gupta, equation 1).
    """
    if step < begin:
        return initial
    if schedule == "oneshot" or step >= end:
        return final
    if schedule == "iterative":
        # Rounds 1 to `rounds`, the first at begin and the last at end.
        done = 1 + (step - begin) * (rounds - 1) // (end - begin)
        return 1 - (1 - initial) * ((1 - final) / (1 - initial)) ** (done / rounds)
    t = begin + (step - begin) // every * every
    return final + (initial - final) * (1 - (t - begin) / (end - begin)) ** 3


def _smallest(sizes, count):
    """A bool array that is True at the `count` smallest elements; of equal ones the first go first."""
    if count <= 0:
        return np.zeros(sizes.shape, dtype=bool)
    limit = np.partition(sizes, count - 1)[count - 1]
    found = sizes < limit
    ties = np.flatnonzero(sizes == limit)
    found[ties[:count - int(found.sum())]] = True
    return found


def choose_masks(weights, sparsity, scope="layer", before=None):
    """Which weights stay: {name: bool array}, False at the smallest.

    The numbers are exact: round(sparsity n) weights go, of each layer or of all, but at least one of each layer stays.

    Args: weights: {name: NumPy array}; sparsity: 0 to below 1; scope: of `SCOPES`; before: masks whose False ones stay so.
    Raises: UserError for settings out of range.
    """
    if not 0 <= sparsity < 1:
        raise UserError(f"sparsity is {sparsity}; expected at least 0 and below 1")
    if scope not in SCOPES:
        raise UserError(f"scope is {scope!r}; expected one of {', '.join(SCOPES)}")
    sizes = {}
    for name, weight in weights.items():
        size = np.abs(weight.astype(np.float64)).reshape(-1)
        if scope == "std":
            # Of the weights that are left: zeros of earlier rounds are no part of the distribution.
            left = weight.reshape(-1) if before is None else weight[before[name]]
            size = size / max(float(left.astype(np.float64).std()), 1e-300)
        if before is not None:
            size[~before[name].reshape(-1)] = -1
        sizes[name] = size
    if scope == "layer":
        gone = {name: _smallest(size, min(round(sparsity * size.size), size.size - 1)) for name, size in sizes.items()}
    else:
        for size in sizes.values():
            # A layer without any weight would cut the network in two.
            size[np.argmax(size)] = np.inf
        everything = np.concatenate(list(sizes.values()))
        flat = _smallest(everything, min(round(sparsity * everything.size), everything.size - len(sizes)))
        ends = np.cumsum([0] + [size.size for size in sizes.values()])
        gone = {name: flat[start:stop] for name, start, stop in zip(sizes, ends, ends[1:])}
    return {name: ~gone[name].reshape(weight.shape) for name, weight in weights.items()}


def sparsity_of(weights):
    """{name: (zeros, elements)} of arrays by name."""
    return {name: (int(weight.size - np.count_nonzero(weight)), int(weight.size)) for name, weight in weights.items()}


class Pruner:
    """Prunes a run's network by its configuration; the same on every worker.

    Args: net: initialised; config: `TrainConfig`; total_steps: updates of the run.
    Attributes: masks: the `Masks`, for the trainer; reached: sparsity pruned to so far.
    """

    def __init__(self, net, config, total_steps):
        self._config = config
        names = weight_names(net, config.prune_skip)
        parameters = net._collect_params_with_prefix()
        self._parameters = {name: parameters[name] for name in names if parameters[name].grad_req != "null"}
        if not self._parameters:
            raise UserError(f"--freeze {config.freeze} leaves nothing that could be pruned")
        self.masks, self.reached = Masks(self._parameters), 0.0
        last = max(total_steps - 1, 0)
        self.begin = min(round(config.prune_begin * total_steps), last)
        self.end = min(max(round(config.prune_end * total_steps), self.begin), last)

    def begin_run(self):
        """Set the masks with which a run begins: none, or where weights are zero with --keep-zeros."""
        whole = self._config.keep_zeros
        self.masks.set({name: (values != 0) | (not whole) for name, values in self._weights().items()})
        self.reached = self.sparsity()

    def _weights(self):
        return {name: parameter.list_data()[0].asnumpy() for name, parameter in self._parameters.items()}

    def sparsity(self):
        """Share of the weights that the masks hold at zero."""
        kept = sum(int(mask.sum()) for mask in self.masks.masks.values())
        return 1 - kept / sum(mask.size for mask in self.masks.masks.values())

    def update(self, step, synchronize):
        """Prune if update `step` asks for more than was reached. synchronize: called before weights are looked at.

        Returns: whether the masks changed.
        """
        config = self._config
        if not config.prune:
            return False
        target = target_sparsity(step, config.prune, config.prune_schedule, self.begin, self.end, config.prune_every,
                                 config.prune_rounds)
        if target <= self.reached:
            return False
        synchronize()
        self.masks.set(choose_masks(self._weights(), target, config.prune_scope, self.masks.masks))
        self.reached = target
        return True
