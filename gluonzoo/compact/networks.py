"""Compact files of whole networks: what is known of one goes into the file, and the file is a network again."""
import numpy as np

from ..errors import UserError
from . import files

__all__ = ["FACTS", "facts_of", "open_compact", "binary_weights", "one_shot"]

#: Of a checkpoint's configuration: what the network is built from and how its images are made.
FACTS = ("model", "model_arguments", "stochastic_depth", "binary", "binary_skip", "dataset", "classes", "mean", "std",
         "input_shape")


def facts_of(config):
    """What a compact file keeps of a checkpoint's configuration."""
    return {name: config[name] for name in FACTS if config.get(name) is not None}


def open_compact(path, ctx=None):
    """The network of a compact file, and its facts.

    Returns: (net, initialised and filled; dict with some of `FACTS`).
    Raises: arrays.FormatError for a damaged file; UserError for one that does not say whose its arrays are.
    """
    from ..training.building import inference_network
    from ..training.weights import set_parameters

    values, facts = files.load(path)
    if "model" not in facts:
        raise UserError(f"{path} does not say what network it is of; load it with gluonzoo.interop.load_weights")
    net = inference_network(facts)
    net.initialize(ctx=ctx)
    set_parameters(net, values, path)
    return net, facts


def binary_weights(net):
    """The weights that a network's binary convolutions compute with, {structural name: alpha sign(W)}, from its first device.

    In their place of the real ones they give the same network, and take a bit each in a compact file. Alpha is chosen so that the
    layer, which takes the mean of their absolute values anew, finds exactly the same.
    """
    import mxnet as mx

    from ..layers import BinaryWeightConv2D, binarize
    from ..training.finetune import _blocks

    found = {}
    for path, block in _blocks(net):
        if isinstance(block, BinaryWeightConv2D):
            weight = block.weight.list_data()[0]
            for _ in range(20):
                fixed = binarize(mx.nd, weight, block._size)
                if np.array_equal(fixed.asnumpy(), weight.asnumpy()):
                    break
                weight = fixed
            found[f"{path}.weight"] = weight.asnumpy()
    return found


def one_shot(net, prune=0.0, scope="layer", bits=None, init="linear", skip="", seed=0):
    """Prune and share a network's weights at once, without any training: pruned first, then shared.

    Args: prune: share of the weights that go, 0: none; scope: as in `training.pruning.choose_masks`; bits, init: as in `share`,
        None: no
        sharing; skip: layers that stay, as in `layers.weight_names`.
    Returns: {structural name: new values} of those that changed.
    """
    from ..layers import weight_names
    from ..training.pruning import choose_masks
    from .sharing import share

    parameters = net._collect_params_with_prefix()
    weights = {name: parameters[name].list_data()[0].asnumpy() for name in weight_names(net, skip)}
    if prune:
        masks = choose_masks(weights, prune, scope)
        weights = {name: np.where(masks[name], weight, np.float32(0)) for name, weight in weights.items()}
    if bits is not None:
        weights = {name: share(weight, bits, init, seed + number).array()
                   for number, (name, weight) in enumerate(weights.items())}
    return weights if prune or bits is not None else {}
