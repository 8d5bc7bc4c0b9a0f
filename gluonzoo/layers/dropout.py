"""Dropout that checks its rate when it is made."""
import numbers

from mxnet.gluon import nn

from ..errors import UserError

__all__ = ["make_dropout"]


def make_dropout(rate):
    """A Dropout layer, or None where the rate is 0: a layer that does nothing would still copy its input.

    Args:
        rate: share of the values that training sets to zero, at least 0 and below 1.
    Raises: UserError for another rate.
    """
    if not isinstance(rate, numbers.Real) or isinstance(rate, bool) or not 0 <= rate < 1:
        raise UserError(f"dropout is {rate!r}; expected a number of at least 0 and below 1")
    return nn.Dropout(float(rate)) if rate else None
