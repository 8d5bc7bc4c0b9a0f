"""Weight sharing in a run: k-means at its beginning, then the clusters' centres are trained.

Source: see `gluonzoo.compact.sharing`.
"""
from ..compact.sharing import share
from ..errors import UserError
from ..layers.weight_layers import weight_names
from .constraints import Tied

__all__ = ["shared_parameters", "begin_sharing"]


def shared_parameters(net, skip):
    """{name: Parameter} of the weights that are shared: those that are trained. Raises: UserError when there are none."""
    parameters = net._collect_params_with_prefix()
    found = {name: parameters[name] for name in weight_names(net, skip) if parameters[name].grad_req != "null"}
    if not found:
        raise UserError("the frozen layers leave nothing whose weights could be shared")
    return found


def begin_sharing(net, bits, init="linear", skip="", seed=0):
    """Cluster the weights of each layer and set them to the centres, on all devices; zeros stay zeros.

    Args: bits: 1 to 8, so 2 ** bits centres a layer; init: of `compact.INITS`; skip: as in `weight_names`.
    Returns: the `Tied` constraint that keeps them shared.
    Raises: UserError for bad settings; nothing is changed then.
    """
    parameters, found = shared_parameters(net, skip), {}
    for number, (name, parameter) in enumerate(parameters.items()):
        values = parameter.list_data()[0].asnumpy()
        found[name] = share(values, bits, init, seed + number)
    for name, parameter in parameters.items():
        parameter.set_data(found[name].array().astype(parameter.dtype))
    # Where codes[0] is not 0 the first cluster is one like the others.
    zeros = [name for name, shared in found.items() if shared.codes[0] == 0]
    return Tied(parameters, {name: shared.indices for name, shared in found.items()}, zeros)
