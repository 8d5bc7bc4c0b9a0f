"""Caffe's names: LeNet, AlexNet, GoogLeNet, SqueezeNet and MobileNet, of the layers in their published prototxt files.

Blobs are called by their layer and number ("conv1/0": weights, "conv1/1": biases); files are only read.

Sources of the names: BVLC/caffe (examples/mnist/lenet.prototxt, models/bvlc_alexnet, models/bvlc_googlenet),
forresti/SqueezeNet, shicai/MobileNet-Caffe.

More than a copy:
- Caffe keeps a BatchNorm's mean and variance as sums with a common factor, and its scale and offset in a layer of their own.
- MobileNet's classifier is a 1x1 convolution; ours is dense, with the same numbers.
- bvlc_alexnet normalizes with other constants than the paper: the network is adapted, `lrn="caffe"`.
- Caffe's images are BGR, from 0 to 255, minus a mean; the notes of the report say so, and `reverse_channels` turns the first
  convolution round for RGB.
- bvlc_reference_caffenet pools before it normalizes, which is not this AlexNet although all names and shapes are the same:
  `compare` finds such differences in its prototxt.
"""
import re

from ..errors import UserError
from .caffe_format import read_prototxt
from .mapping import Layout, Piece, modules

__all__ = ["layout", "counterparts", "compare", "reverse_channels"]

WRITES = False

_BRANCHES = {"branch1x1": ("1x1",), "branch3x3": ("3x3_reduce", "3x3"), "branch5x5": ("5x5_reduce", "5x5"),
             "branch_pool": ("pool_proj",)}


def _lenet(path):
    return {"output": "ip2"}.get(path, path.replace("features.", ""))


def _alexnet(path):
    return {"output": "fc8"}.get(path, path.replace("features.", ""))


def _squeezenet(path):
    match = re.fullmatch(r"features\.(fire\d)\.(squeeze|expand1x1|expand3x3)", path)
    if match:
        return f"{match.group(1)}/{match.group(2).replace('squeeze', 'squeeze1x1')}"
    return {"output.0": "conv10"}.get(path, path.replace("features.", ""))


def _googlenet(path):
    head = re.fullmatch(r"aux(\d)\.(conv\.conv|dense|output)", path)
    if head:
        return f"loss{head.group(1)}/{ {'conv.conv': 'conv', 'dense': 'fc', 'output': 'classifier'}[head.group(2)]}"
    match = re.fullmatch(r"features\.inception(\d)\.(\w)\.(\w+)\.conv(\d)\.conv", path)
    if match:
        stage, module, branch, number = match.groups()
        return f"inception_{stage}{module}/{_BRANCHES[branch][int(number) - 1]}"
    return {"features.stem.conv1.conv": "conv1/7x7_s2", "features.stem.conv2.conv": "conv2/3x3_reduce",
            "features.stem.conv3.conv": "conv2/3x3", "output": "loss3/classifier"}[path]


def _mobilenet_names():
    """Caffe's name of each depthwise separable block: conv2_1 to conv5_6, conv6."""
    counts = {2: 2, 3: 2, 4: 2, 5: 6}
    return [f"conv{stage}_{number}" for stage, count in counts.items() for number in range(1, count + 1)] + ["conv6"]


def _mobilenet(net):
    blocks = []
    for path in modules(net):
        block = re.match(r"features\.stage\d\.\d+", path)
        if block and block.group() not in blocks:
            blocks.append(block.group())
    names = dict(zip(blocks, _mobilenet_names()))

    def rule(path):
        match = re.fullmatch(r"(features\.stage\d\.\d+)\.(depthwise|pointwise)\.(conv|norm)", path)
        if match:
            block, part, _ = match.groups()
            return f"{names[block]}/{'dw' if part == 'depthwise' else 'sep'}"
        return {"output": "fc7"}.get(path, "conv1")
    return rule


#: Our name -> (whose network, our path -> their layer's name, or a function of the network that gives that; notes;
#: constructor's keywords that the weights ask for).
_BGR = "Caffe's images are BGR, 0 to 255, minus the mean {}; gluonzoo.interop.caffe.reverse_channels(net) makes them RGB"
NETWORKS = {
    "lenet_caffe": ("LeNet", _lenet, ("Caffe's images are grey, divided by 256",), {}),
    "alexnet": ("bvlc_alexnet", _alexnet, (_BGR.format("of the training set"),), {"lrn": "caffe"}),
    "googlenet": ("bvlc_googlenet", _googlenet, (_BGR.format("104, 117, 123"),), {}),
    "squeezenet1_0": ("SqueezeNet v1.0", _squeezenet, (_BGR.format("104, 117, 123"),), {}),
    "squeezenet1_1": ("SqueezeNet v1.1", _squeezenet, (_BGR.format("104, 117, 123"),), {}),
}
for _width in ("1_0", "0_75", "0_5", "0_25"):
    NETWORKS[f"mobilenet_v1_{_width}"] = (
        "MobileNet", _mobilenet, (_BGR.format("103.94, 116.78, 123.68") + ", and these are times 0.017",), {})


def counterparts():
    """{our name: theirs}."""
    return {ours: theirs for ours, (theirs, *_) in NETWORKS.items()}


def _layer_names(net):
    """{path of a layer of ours: Caffe's name of it}."""
    _, rule, _, _ = NETWORKS[net.model_name]
    rule = rule(net) if rule is _mobilenet else rule
    return {path: rule(path) for path in modules(net)}


def layout(net, found=None):
    """See `styles`."""
    if net.model_name not in NETWORKS:
        return None
    title, _, notes, options = NETWORKS[net.model_name]
    pieces, names = [], _layer_names(net)
    for path, leaves in modules(net).items():
        for leaf, shape in leaves.items():
            pieces.append(_piece(f"{path}.{leaf}", names[path], leaf, shape, found or {}))
    ignored = ((r"loss[12]/.*", "of the auxiliary heads, which the network was built without"),) if not net.auxiliary else ()
    return Layout(f"Caffe's {title}", tuple(pieces), ignored, notes=notes, options=options)


def _piece(ours, name, leaf, shape, found):
    if leaf in ("gamma", "beta"):
        return Piece(ours, (f"{name}/scale/{int(leaf == 'beta')}",), (shape,))
    if leaf in ("running_mean", "running_var"):
        blob, factor = f"{name}/bn/{int(leaf == 'running_var')}", f"{name}/bn/2"
        return Piece(ours, (blob, factor), (shape, (1,)), read=_unscaled)
    theirs = f"{name}/{int(leaf == 'bias')}"
    # A dense classifier of ours that is a 1x1 convolution in the file.
    if leaf == "weight" and found.get(theirs) == (*shape, 1, 1):
        shape = (*shape, 1, 1)
    return Piece(ours, (theirs,), (tuple(shape),))


def _unscaled(total, factor):
    """Caffe's BatchNorm divides by the factor, and takes 0 for "nothing seen yet"."""
    return total / factor if factor else total * 0


def reverse_channels(net):
    """Turn the input channels of the first convolution round: a network for BGR becomes one for RGB, and back.

    Raises: UserError for a network whose first parameter is no convolution's weights of 3 input channels.
    """
    name, parameter = next(iter(net._collect_params_with_prefix().items()))
    if len(parameter.shape) != 4 or parameter.shape[1] != 3:
        raise UserError(f"{net.model_name}: {name} has shape {tuple(parameter.shape)}; expected a convolution of 3 channels")
    parameter.set_data(parameter.data(parameter.list_ctx()[0]).flip(axis=1))


def compare(net, prototxt):
    """Differences between a network and its description in a prototxt file, in words; none: they compute the same.

    Compared are channels, kernels, strides, padding, groups and biases of all convolutions and dense layers and, where the
    network is one chain, the order of normalization and pooling.

    Raises: UserError for a network that Caffe's names are not known of; FormatError for a broken file.
    """
    if net.model_name not in NETWORKS:
        raise UserError(f"caffe has no counterpart of {net.model_name}; it has those of {', '.join(sorted(NETWORKS))}")
    layers = {layer.name: layer for layer in read_prototxt(prototxt)}
    differences = []
    for path, name in _layer_names(net).items():
        if path.endswith("norm"):
            continue
        if name not in layers:
            if not path.startswith("aux"):
                differences.append(f"{name} is missing; expected a layer like {path}")
            continue
        differences += [f"{name} has {what} {theirs}; {path} has {ours}"
                        for what, ours, theirs in _settings(_block(net, path), layers[name]) if ours != theirs]
    return differences + _order(net, list(layers.values()))


def _block(net, path):
    for part in path.split("."):
        net = net._children[part]
    return net


def _settings(block, layer):
    """(what, ours, theirs) of a convolution or a dense layer."""
    found = [("biases", block.bias is not None, layer.bias)]
    if hasattr(block, "_units"):
        return found + [("outputs", block._units, layer.channels)]
    arguments = block._kwargs
    return found + [("channels", arguments["num_filter"], layer.channels), ("kernel", arguments["kernel"], layer.kernel_size),
                    ("strides", arguments["stride"], layer.strides), ("padding", arguments["pad"], layer.padding),
                    ("groups", arguments["num_group"], layer.groups)]


_ORDERED = {"Convolution": "convolution", "FullyConnected": "innerproduct", "LRN": "lrn", "Pooling": "pooling"}


def _order(net, layers):
    """What differs in the sequence of layers, where Caffe's network is a chain: each layer takes what the one before gives."""
    import json

    import mxnet as mx

    chain = [layer for layer in layers if layer.type in _ORDERED.values()]
    if not any(layer.type == "lrn" for layer in layers) or any(layer.type == "concat" for layer in layers):
        return []  # Without normalization there is nothing whose order could be mistaken.
    ours = [_ORDERED[node["op"]] for node in json.loads(net(mx.sym.var("data")).tojson())["nodes"] if node["op"] in _ORDERED]
    theirs = [layer.type for layer in chain]
    for number, (mine, their) in enumerate(zip(ours, theirs)):
        if mine != their:
            return [f"layer {number + 1} of the chain ({chain[number].name}) is {their}; the network has {mine} there"]
    return [] if len(ours) == len(theirs) else [f"the chain has {len(theirs)} layers; the network has {len(ours)}"]
