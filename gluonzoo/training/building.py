"""From a configuration to the network it trains: the builder's arguments, and what is changed on the built network."""
import inspect
import os

import numpy as np
from mxnet.gluon import nn

from .. import registry
from ..errors import UserError
from ..layers import binary_convolutions, stochastic_depth
from .finetune import load_all_but_output

__all__ = ["model_arguments", "build_network", "inference_network", "check_reset", "load_start"]


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
    _change(net, config.as_dict())
    return net


def _change(net, settings):
    """Change a built network's layers as settings, a dict of `TrainConfig`'s fields, ask for."""
    if settings.get("stochastic_depth"):
        stochastic_depth(net, settings["stochastic_depth"])
    if settings.get("binary", "none") != "none":
        binary_convolutions(net, settings["binary"], settings.get("binary_skip", "first,last"))


def inference_network(settings):
    """The network of a checkpoint's settings (a dict), without auxiliary heads, not initialised."""
    arguments = {name: value for name, value in settings.get("model_arguments", {}).items() if name != "aux"}
    net = registry.get_model(settings["model"], **arguments)
    _change(net, settings)
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
    """Load --weights, a file or a checkpoint: all of them or all but the last layer."""
    from ..interop import WeightsError, load_weights
    from ..sources import is_checkpoint

    if is_checkpoint(config.weights):
        _load_checkpoint(net, config)
        return
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


def _load_checkpoint(net, config):
    """Take over the weights of a checkpoint or a run's newest one: their moving average, where it has that."""
    from . import checkpoint
    from .weights import get_parameters, set_parameters

    saved = checkpoint.load(config.weights)
    if config.reset_classes is not None:
        load_all_but_output(net, os.path.join(saved.path, "ema.params" if saved.has("ema.params") else "parameters.params"))
        return
    values = get_parameters(saved.net())
    heads = tuple(f"{name}." for name in net.auxiliary)
    fresh = {name: value for name, value in get_parameters(net).items() if heads and name.startswith(heads)}
    set_parameters(net, {name: value.astype(np.dtype(net._collect_params_with_prefix()[name].dtype))
                         if name in net._collect_params_with_prefix() else value for name, value in {**fresh, **values}.items()},
                   saved.path)
