"""Parameters of a network as named NumPy arrays, in and out, with every name and shape checked before anything changes."""
import numpy as np

from ..errors import UserError

__all__ = ["get_parameters", "set_parameters", "load_weights"]


def get_parameters(net):
    """{structural name: NumPy array} of a network, from its first device."""
    import mxnet as mx
    mx.nd.waitall()  # A backward pass still running writes running statistics without the engine knowing.
    return {name: parameter.list_data()[0].asnumpy() for name, parameter in net._collect_params_with_prefix().items()}


def set_parameters(net, values, source):
    """Set all parameters of an initialised network, on all its devices.

    Args: values: {structural name: NumPy array}; source: where they come from, for the error.
    Raises: UserError naming the first missing, unexpected or misshapen array; the network is then unchanged.
    """
    parameters = net._collect_params_with_prefix()
    for name, parameter in parameters.items():
        if name not in values:
            raise UserError(f"{source}: parameter {name} of the network is missing")
        if tuple(values[name].shape) != tuple(parameter.shape):
            raise UserError(f"{source}: {name} has shape {tuple(values[name].shape)}; the network expects "
                            f"{tuple(parameter.shape)}")
        if values[name].dtype != np.dtype(parameter.dtype):
            raise UserError(f"{source}: {name} is {values[name].dtype}; the network expects {np.dtype(parameter.dtype)}")
    extra = sorted(set(values) - set(parameters))
    if extra:
        raise UserError(f"{source}: {len(extra)} arrays fit no parameter, first {extra[0]}; they are another network's")
    import mxnet as mx
    for name, parameter in parameters.items():
        parameter.set_data(mx.nd.array(values[name], dtype=values[name].dtype))


def load_weights(net, path, source="auto", skip_output=False):
    """Load a file of any format and names that `gluonzoo.interop` knows into a network.

    Args: source, skip_output: as in `interop.load_weights`.
    Returns: `interop.Report`.
    Raises: UserError when the file is missing, damaged or another network's; nothing is then changed.
    """
    from ..interop import load_weights
    return load_weights(net, path, source, skip_output)
