"""From a configuration to the network it trains: the builder's arguments, and what is changed on the built network."""
import inspect

from mxnet.gluon import nn

from .. import registry
from ..errors import UserError
from ..layers import stochastic_depth
from .finetune import load_all_but_output

__all__ = ["model_arguments", "build_network", "check_reset", "load_start"]


def _takes(model, argument):
    return argument in inspect.signature(registry.model_spec(model).builder).parameters


def model_arguments(config, train_set):
    """Builder arguments with which the network fits the data and the configuration: classes, grey images, heads, dropout.

    Raises: UserError for auxiliary heads that the network cannot have.
    """
    spec = registry.model_spec(config.model)
    arguments = {}
    if len(train_set.classes) != spec.classes:
        arguments["classes"] = len(train_set.classes)
    channels = train_set.image_shape[0] if train_set.image_shape else spec.input_shape[0]
    if channels != spec.input_shape[0]:
        arguments["in_channels"] = channels
    if config.aux:
        if not _takes(config.model, "aux"):
            able = [name for name in registry.list_models(task=spec.task) if _takes(name, "aux")]
            raise UserError(f"--aux: {config.model} has no auxiliary heads; {', '.join(able)} can have some")
        arguments["aux"] = True
    if config.dropout is not None and _takes(config.model, "dropout"):
        arguments["dropout"] = config.dropout
    return arguments


def _dropouts(block):
    if isinstance(block, nn.Dropout):
        yield block
    for child in block._children.values():
        yield from _dropouts(child)


def build_network(config, arguments):
    """The network, not initialised, with the rates of dropout and of stochastic depth that the configuration asks for.

    Raises: UserError when it asks for dropout or stochastic depth in a network that has no place for it.
    """
    net = registry.get_model(config.model, **arguments)
    if config.dropout is not None and "dropout" not in arguments:
        layers = list(_dropouts(net))
        if not layers:
            raise UserError(f"--dropout {config.dropout}: {config.model} has no dropout layer")
        for layer in layers:
            layer._rate = config.dropout
    if config.stochastic_depth:
        stochastic_depth(net, config.stochastic_depth)
    return net


def check_reset(config, train_set):
    """Raise UserError unless --reset-classes, where it is given, fits the data and there are weights to go with it."""
    if config.reset_classes is None:
        return
    if config.reset_classes != len(train_set.classes):
        raise UserError(f"--reset-classes is {config.reset_classes}; {config.dataset} has {len(train_set.classes)} classes")
    if config.weights is None:
        raise UserError(f"--reset-classes {config.reset_classes} makes a new last layer for loaded weights; name their file "
                        "with --weights")


def load_start(net, config):
    """Load --weights, all of them or all but the last layer."""
    from ..interop import WeightsError, load_weights

    if config.reset_classes is not None:
        load_all_but_output(net, config.weights)
        return
    try:
        load_weights(net, config.weights)
    except WeightsError as error:
        try:
            load_all_but_output(net, config.weights)
        except UserError:
            raise error from None
        raise UserError(f"{config.weights}: its last layer is not for the {net.classes} classes of {config.dataset}; all else "
                        f"fits: with --reset-classes {net.classes} that layer is made anew") from None
