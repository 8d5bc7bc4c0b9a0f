"""Fine-tuning: which parameters stay as they are, and weights that are loaded without the last layer."""
from mxnet.gluon import nn

from ..errors import UserError

__all__ = ["freeze", "load_all_but_output"]


def _blocks(block, path=""):
    """(structural path, block) of a block and everything below it."""
    yield path, block
    for name, child in block._children.items():
        yield from _blocks(child, f"{path}.{name}" if path else name)


def _below(name, prefix):
    return name == prefix or name.startswith(prefix + ".")


def freeze(net, prefixes):
    """Keep the parameters whose structural names are, or are below, one of the prefixes as they are.

    They get no gradient. BatchNorms among them normalise by their running statistics in training too, and keep these.
    Call it before the network is hybridized and before its Trainer is made.

    Args: prefixes: names such as "features" or "features.stage1", a list or a text with commas.
    Returns: names of the frozen parameters.
    Raises: UserError, before anything is changed, for a prefix that fits nothing, or when nothing is left to train.
    """
    prefixes = [part.strip() for part in (prefixes.split(",") if isinstance(prefixes, str) else prefixes)]
    parameters = net._collect_params_with_prefix()
    for prefix in prefixes:
        if not any(_below(name, prefix) for name in parameters):
            choices = dict.fromkeys(".".join(name.split(".")[:depth]) for depth in (1, 2) for name in parameters
                                    if name.count(".") >= depth)
            raise UserError(f"freeze: no parameters are called {prefix!r}; there are {', '.join(choices)}")
    frozen = [name for name in parameters if any(_below(name, prefix) for prefix in prefixes)]
    if not any(parameter.grad_req != "null" for name, parameter in parameters.items() if name not in set(frozen)):
        raise UserError(f"freeze: {','.join(prefixes)} is all that could be trained; leave at least one layer out")
    for name in frozen:
        parameters[name].grad_req = "null"
    for path, block in _blocks(net):
        if isinstance(block, nn.BatchNorm) and any(_below(path, prefix) for prefix in prefixes):
            block._kwargs["use_global_stats"] = True
    return frozen


def load_all_but_output(net, path):
    """Load weights of the same network with any number of classes; its last layers keep their fresh values.

    Args: net: initialised, with the number of classes that is wanted; path: a file of any format and names that
        `gluonzoo.interop` knows.
    Returns: names of the parameters that were not loaded.
    Raises: UserError when the file is missing, damaged or another network's; the network is then unchanged.
    """
    from ..interop import load_weights

    return list(load_weights(net, path, skip_output=True).missing)
