"""The parameters that a trainer trains: found, checked, and told apart."""
import mxnet as mx
import numpy as np
from mxnet.gluon.parameter import DeferredInitializationError, Parameter

from ..errors import UserError

__all__ = ["trainable_parameters", "contexts_of", "without_decay", "all_finite"]

#: Parameters of these last names get no weight decay with ``decay_bias_and_norm=False``.
_UNDECAYED = ("bias", "gamma", "beta")


def _named_parameters(params):
    """{name: Parameter} from a Block (structural names), a ParameterDict, a dict, or a list of Parameters."""
    if isinstance(params, mx.gluon.Block):
        return dict(params._collect_params_with_prefix())
    if isinstance(params, (list, tuple)):
        params = {getattr(parameter, "name", ""): parameter for parameter in params}
    if not hasattr(params, "items"):
        raise TypeError(f"params is {type(params).__name__}; expected a Block, a ParameterDict, a dict or a list")
    named = dict(params.items())
    for name, parameter in named.items():
        if not isinstance(parameter, Parameter):
            raise TypeError(f"params[{name!r}] is {type(parameter).__name__}; expected a Parameter")
    return named


def trainable_parameters(params):
    """{name: Parameter} of those that have a gradient.

    Raises: UserError when there is none; TypeError when params is something else.
    """
    named = {name: parameter for name, parameter in _named_parameters(params).items() if parameter.grad_req != "null"}
    if not named:
        raise UserError("params holds no parameter with a gradient; nothing to train")
    return named


def contexts_of(named):
    """The devices that all parameters share.

    Raises: RuntimeError when a parameter has no array yet; UserError when one is sparse or on other devices.
    """
    contexts = None
    for name, parameter in named.items():
        try:
            here = parameter.list_ctx()
            parameter.list_data()
        except DeferredInitializationError:
            raise RuntimeError(f"the shape of parameter {name!r} is not known yet: give in_channels or in_units, or run "
                               "one forward pass, before making a Trainer, so that all workers start equal") from None
        if (parameter._stype, parameter._grad_stype) != ("default", "default"):
            raise UserError(f"parameter {name!r} is sparse ({parameter._stype}, gradient {parameter._grad_stype}); "
                            "this trainer is for dense parameters")
        if contexts is not None and here != contexts:
            raise UserError(f"parameter {name!r} is on {here}; the others are on {contexts}")
        contexts = here
    return contexts


def without_decay(names):
    """Those of the names that are biases, or BatchNorm's gamma or beta."""
    return [name for name in names if name.rpartition(".")[2].rpartition("_")[2] in _UNDECAYED]


def all_finite(arrays, ctx, dtype):
    """Whether all elements of arrays of one type, on one device, are finite; waits for them."""
    if dtype != np.float32:
        return mx.nd.multiall_finite(*arrays, num_arrays=len(arrays)).asscalar() > 0
    # Zero times what is not finite is NaN. A product of vectors takes a thirtieth of multiall_finite's time.
    zeros = mx.nd.zeros((max(array.size for array in arrays),), ctx=ctx)
    return mx.nd.add_n(*[mx.nd.dot(array.reshape((-1,)), zeros[:array.size]) for array in arrays]).asscalar() == 0
