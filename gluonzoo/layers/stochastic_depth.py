"""Stochastic depth: residual units that training leaves out at random, whole batches at a time.

Source: G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, Deep Networks with Stochastic Depth, 2016, arXiv:1603.09382,
equations 2 (training), 4 (linear decay) and 5 (inference). Differences: a unit that is left out is computed all the same and
multiplied by zero, so no time is saved, and its BatchNorms see the batch; with several devices or workers each draws for its own
part of the batch.
"""
import numbers

from mxnet.gluon import HybridBlock

from ..errors import UserError

__all__ = ["drop_branch", "stochastic_depth", "survival_rates"]


def drop_branch(F, branch, survival):
    """A unit's branch before it is added to the shortcut: b f(x) in training, b being 1 with the chance `survival`, else 0;
    survival f(x) in inference. With survival 1 the branch itself.

    Shape: (N, C, H, W) -> the same.
    """
    if survival == 1:
        return branch
    # One draw for the whole batch; Dropout divides what it keeps by the chance of keeping it.
    return F.Dropout(branch, p=1 - survival, axes=(0, 1, 2, 3)) * survival


def survival_rates(units, rate):
    """The chances of L units, first to last, to take part: 1 - l / L * rate for unit l."""
    return [1 - (index + 1) / units * rate for index in range(units)]


def _units(block):
    """The residual units of a block, in the order in which they were made: blocks with an attribute `survival`."""
    if hasattr(block, "survival"):
        yield block
    for child in block._children.values():
        yield from _units(child)


def stochastic_depth(net, rate):
    """Give the residual units of a network chances to be left out in training, linear from near 0 to `rate` in the last one.

    Parameters and their names stay as they are. Weights that were trained this way need it in inference too, with the same
    rate; a checkpoint remembers.

    Args: net: hybridized or not; rate: 1 - p_L, 0 (none) to below 1; the paper's is 0.5.
    Returns: the number of units.
    Raises: UserError for another rate, or a network without residual units.
    """
    if not isinstance(rate, numbers.Real) or isinstance(rate, bool) or not 0 <= rate < 1:
        raise UserError(f"stochastic depth is {rate!r}; expected a number of at least 0 and below 1")
    units = list(_units(net))
    if not units:
        name = getattr(net, "model_name", None) or type(net).__name__
        raise UserError(f"stochastic depth leaves out residual units; {name} has none")
    for unit, survival in zip(units, survival_rates(len(units), float(rate))):
        unit.survival = survival
    if isinstance(net, HybridBlock) and net._active:
        net.hybridize(True, **dict(net._flags))  # Forgets the graph that it was compiled to.
    return len(units)
