"""Names of MXNet's own networks: `gluon.model_zoo.vision` and GluonCV, in both styles that their files have.

`save_parameters` writes structural names ("features.4.0.body.0.weight"). `export`, `collect_params().save` and everything
older write names with a prefix and a counter for each kind of layer within a scope ("resnetv10_stage1_conv0_weight"),
which this module counts out from the structure. Files are only read.

More than a copy:
- `resnet50_v1`, `101`, `152`: theirs have biases on the 1x1 convolutions of the bottlenecks, each just before a BatchNorm. A
  bias there only moves the mean: running mean of ours = theirs - bias.
- `resnet*_v2`, `cifar_resnet*_v2`: theirs begin with a BatchNorm without scale and offset. Its variance goes into the weights
  of the first convolution, W / sqrt(variance + epsilon), and its mean into the running means of the BatchNorms that see the
  first convolution's output, as sum(W mean / sqrt(variance + epsilon)). Away from the border that is exact. At the border
  their padding stands for the mean and ours for zero, so that the outermost pixels differ when the mean is not zero:
  ``get_model("resnet50_v2", input_norm=True)`` has the BatchNorm itself and is exact.
- `mobilenet_v2_1_0`: theirs (GluonCV's) has no bias in the classifier; ours gets zeros.
- Some of GluonCV's networks compute something else with the same parameters; ours are adapted to them: no ReLU behind the stem
  of `cifar_resnet*_v1_b` (`stem_relu=False`), shortcuts of `cifar_resnet*_v2` that begin before BatchNorm and ReLU
  (`active_shortcut=False`), a padded first pooling in `se_*` and `senet154` (`padded_pool=True`).
- `se_resnet*`: GluonCV's have biases on 1x1 convolutions, as above, and none in the squeeze; ours gets zeros there.

Not here, because theirs are other networks under a like name: mobilenetv2 of `gluon.model_zoo` (a 1x1 convolution more) and its
narrow widths (rounded otherwise), shufflenet_v1, xception.
"""
import collections
import re

import numpy as np

from . import mxnet_rules as rules
from .mapping import Layout, Piece, modules

__all__ = ["layout", "counterparts", "NETWORKS", "prefixed_names"]

WRITES = False


def _stages(first, count=4):
    return [(rf"features\.{first + index}\..*", f"stage{index + 1}_") for index in range(count)]


def _v1b_scopes(struct):
    return [(r"layer(\d)\..*\.downsample\..*", r"down\1_"), (r"layer(\d)\..*", r"layers\1_")]


def _dense_scopes(struct):
    return [(rf"features\.{4 + 2 * index}\..*", f"stage{index + 1}_") for index in range(4)]


def _mobilenet_v2_scopes(struct):
    units = [(rf"features\.{3 + index}\.out\..*", f"features_linearbottleneck{index}_") for index in range(17)]
    return units + [(r"features\..*", "features_"), (r"output\.0", "output_pred")]


def _shuffle_scopes(struct):
    """A scope for each unit, counted over all stages."""
    units = sorted({path.rpartition(".branch")[0] for path in struct if ".branch" in path}, key=_natural)
    return [(re.escape(unit) + r"\..*", f"shuffleunitv2{index}_") for index, unit in enumerate(units)]


def _inception_v3_scopes(struct):
    names = ("A1", "A2", "A3", "B", "C1", "C2", "C3", "C4", "D", "E1", "E2")
    return [(rf"features\.{7 + index}\..*", f"{name}_") for index, name in enumerate(names)]


def _googlenet_scopes(struct):
    return [(r"inception(\d\w)\..*", r"Mixed_\1_")]


def _plain_scopes(struct):
    return []


def _options(name):
    """What GluonCV's network of a name computes differently."""
    if re.fullmatch(r"cifar_resnet\d+_v1_b", name):
        return {"stem_relu": False}
    if re.fullmatch(r"cifar_resnet\d+_v2", name):
        return {"active_shortcut": False}
    return {"padded_pool": True} if name.startswith("se") else {}


#: Our name -> (their names, rules, scopes). The packages' networks are the same where they have one name.
NETWORKS = {"alexnet_owt": (("alexnet",), rules.alexnet, _plain_scopes),
            "squeezenet1_0": (("squeezenet1.0",), rules.squeezenet((4, 8)), _plain_scopes),
            "squeezenet1_1": (("squeezenet1.1",), rules.squeezenet((3, 5)), _plain_scopes),
            "mobilenet_v2_1_0": (("mobilenetv2_1.0",), rules.mobilenet_v2, _mobilenet_v2_scopes),
            "shufflenet_v2_1_0": (("shufflenet_v2",), rules.shufflenet_v2, _shuffle_scopes),
            "inception_v3": (("inceptionv3",), rules.inception_v3, _inception_v3_scopes),
            "googlenet_bn": (("googlenet",), rules.googlenet, _googlenet_scopes),
            "darknet53": (("darknet53",), rules.darknet53, _plain_scopes)}
NETWORKS.update({f"vgg{depth}{norm}": ((f"vgg{depth}{norm}",), rules.vgg, _plain_scopes)
                 for depth in (11, 13, 16, 19) for norm in ("", "_bn")})
#: The rules of networks that begin with a BatchNorm, for ImageNet and for CIFAR.
_PREACTIVATED = (rules.resnet_v2(5), rules.resnet_v2(2))
for _depth in (18, 34, 50, 101, 152):
    NETWORKS[f"resnet{_depth}_v1"] = ((f"resnet{_depth}_v1",), rules.resnet(4), lambda struct: _stages(4))
    NETWORKS[f"resnet{_depth}_v1b"] = ((f"resnet{_depth}_v1b",), rules.resnet_v1b, _v1b_scopes)
    NETWORKS[f"resnet{_depth}_v2"] = ((f"resnet{_depth}_v2",), _PREACTIVATED[0], lambda struct: _stages(5))
for _name in ("resnext50_32x4d", "resnext101_32x4d", "resnext101_64x4d", "se_resnext50_32x4d", "se_resnext101_32x4d"):
    NETWORKS[_name] = ((_name,), rules.resnet(4), lambda struct: _stages(4))
for _depth in (18, 34, 50, 101, 152):
    NETWORKS[f"se_resnet{_depth}"] = ((f"se_resnet{_depth}_v1",), rules.resnet(4), lambda struct: _stages(4))
NETWORKS["senet154"] = (("senet_154",), rules.resnet(10, ((0, 1), (3, 4), (6, 7))), lambda struct: _stages(10))
for _depth in (20, 56, 110):
    NETWORKS[f"cifar_resnet{_depth}_v1_b"] = ((f"cifar_resnet{_depth}_v1",), rules.resnet(2), lambda struct: _stages(2, 3))
    NETWORKS[f"cifar_resnet{_depth}_v2"] = ((f"cifar_resnet{_depth}_v2",), _PREACTIVATED[1], lambda struct: _stages(2, 3))
for _name in ("cifar_resnext29_16x64d", "cifar_resnext29_32x4d"):
    NETWORKS[_name] = ((_name,), rules.resnet(3), lambda struct: _stages(3, 3))
for _depth in (121, 161, 169, 201):
    NETWORKS[f"densenet{_depth}"] = ((f"densenet{_depth}",), rules.densenet, _dense_scopes)
for _width, _their in (("1_0", "1.0"), ("0_75", "0.75"), ("0_5", "0.5"), ("0_25", "0.25")):
    NETWORKS[f"mobilenet_v1_{_width}"] = ((f"mobilenet{_their}",), rules.mobilenet_v1, _plain_scopes)


def counterparts():
    """{our name: theirs}."""
    return {ours: names[0] for ours, (names, _, _) in NETWORKS.items()}


def _natural(path):
    """Sorts as their constructors run: by index; a shortcut's layers are made after those of the body."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, "~" if part == "downsample" else part)
                 for part in path.split("."))


def prefixed_names(layers, scopes):
    """{structural path: name with scope and counter} of layers.

    Args:
        layers: {structural path: "conv", "batchnorm" or "dense"}.
        scopes: (regular expression of a path, its scope); a scope without a trailing underscore is the whole name.
    """
    names, counters = {}, collections.Counter()
    for path in sorted(layers, key=_natural):
        scope = next((re.fullmatch(pattern, path).expand(scope) for pattern, scope in scopes if re.fullmatch(pattern, path)), "")
        if scope and not scope.endswith("_"):
            names[path] = scope
            continue
        kind = layers[path]
        names[path] = f"{scope}{kind}{counters[scope, kind]}"
        counters[scope, kind] += 1
    return names


def _kind(leaves):
    if "gamma" in leaves:
        return "batchnorm"
    return "conv" if len(leaves["weight"]) == 4 else "dense"


def _spelling(found, names):
    """A function from (structural path, leaf) to the name in the file: structural, or with the file's own prefix."""
    some_path, some_name = next(iter(names.items()))
    ends = [name for name in found or () if re.fullmatch(rf"(.*_)?{re.escape(some_name)}_(weight|gamma)", name)]
    if not found or not ends or any(name.startswith(some_path + ".") for name in found):
        return lambda path, leaf: f"{path}.{leaf}"
    # Several layers end alike ("conv0" of the stem and of "stage1_"): the prefix of the whole network is the shortest.
    prefix = min(ends, key=len).rpartition(f"{some_name}_")[0]
    return lambda path, leaf: f"{prefix}{names[path]}_{leaf}"


def layout(net, found=None):
    """See `styles`."""
    if net.model_name not in NETWORKS:
        return None
    (title, *_), rule, scopes = NETWORKS[net.model_name]
    layers = modules(net)
    theirs = rule(list(layers))
    for path in layers:
        theirs.setdefault(path, path)  # "output"
    kinds = {theirs[path]: _kind(leaves) for path, leaves in layers.items()}
    folds_input = rule in _PREACTIVATED and "features.input_norm" not in layers
    if folds_input:
        kinds["features.0"] = "batchnorm"
    if net.model_name == "mobilenet_v2_1_0":
        kinds["output.0"] = "conv"
    if re.fullmatch(r"se_resnet\d+", net.model_name):
        kinds.update({path: "dense" for path in kinds if ".se." in path})
    spell = _spelling(found, prefixed_names(kinds, scopes(list(kinds))))
    pieces, notes = [], []
    for path, leaves in layers.items():
        for leaf, shape in leaves.items():
            pieces.append(Piece(f"{path}.{leaf}", (spell(theirs[path], leaf),), (shape,)))
    if folds_input:
        pieces, notes = _fold_input_norm(pieces, spell, net)
    elif net.model_name == "mobilenet_v2_1_0":
        pieces = [_without_bias(piece, "output") for piece in pieces]
    else:
        pieces = _fold_biases(pieces, found or ())
        if re.fullmatch(r"se_resnet\d+", net.model_name):
            pieces = [_dense_squeeze(piece) for piece in pieces]
    # GluonCV registers the last layer of GoogLeNet twice.
    ignored = ((r"head\.2\.(weight|bias)", "the last layer once more"),) if net.model_name == "googlenet_bn" else ()
    return Layout(f"MXNet's {title}", tuple(pieces), ignored, notes=tuple(notes), options=_options(net.model_name))


def _without_bias(piece, path):
    """Of a layer of theirs without bias: zeros; the classifier is a 1x1 convolution."""
    if piece.ours == f"{path}.weight":
        return piece._replace(shapes=((*piece.shapes[0], 1, 1),))
    if piece.ours == f"{path}.bias":
        shape = piece.shapes[0]
        return piece._replace(theirs=(), shapes=(), read=lambda: np.zeros(shape, dtype=np.float32))
    return piece


def _dense_squeeze(piece):
    """The layers of a squeeze are dense and have no bias."""
    if not re.search(r"\.se\.(reduce|expand)\.", piece.ours):
        return piece
    shape = piece.shapes[0]
    if piece.ours.endswith("bias"):
        return piece._replace(theirs=(), shapes=(), read=lambda: np.zeros(shape, dtype=np.float32))
    return piece._replace(shapes=(shape[:2],))


def _fold_biases(pieces, found):
    """Biases that the file has and we have not, each just before a BatchNorm, move its running mean."""
    folded, convolution = [], None
    taken = {name for piece in pieces for name in piece.theirs}
    for piece in pieces:
        path, _, leaf = piece.ours.rpartition(".")
        if leaf == "weight" and len(piece.shapes[0]) == 4:
            convolution = (path, piece.theirs[0][:-len("weight")] + "bias", piece.shapes[0][0])
        if leaf == "running_mean" and convolution and path == convolution[0][:-len("conv")] + "norm":
            _, bias, channels = convolution
            if bias in found and bias not in taken:
                piece = piece._replace(theirs=piece.theirs + (bias,), shapes=piece.shapes + ((channels,),),
                                       read=lambda mean, bias: mean - bias)
        folded.append(piece)
    return folded


def _fold_input_norm(pieces, spell, net):
    """Put the BatchNorm of the input into the first convolution and the BatchNorms that see its output.

    In the CIFAR networks those are the first ones of the units on the way to the first change of shape.
    """
    channels, epsilon = net.in_channels, 1e-5
    mean, variance, gamma, beta = (spell("features.0", leaf) for leaf in ("running_mean", "running_var", "gamma", "beta"))
    first = next(piece for piece in pieces if piece.ours in ("features.stem.0.conv.weight", "features.stem.weight"))
    see = r"stem\.0\.norm" if first.ours.endswith("conv.weight") else r"(stage1\.\d+\.norm1|stage2\.0\.norm1)"

    def scaled(weight, variance):
        return weight / np.sqrt(variance + epsilon).reshape(1, -1, 1, 1)

    folded = []
    for piece in pieces:
        if piece is first:
            # gamma counts as 1 whatever the file says: the layer is made with scale=False.
            piece = piece._replace(theirs=piece.theirs + (variance, gamma), shapes=piece.shapes + ((channels,),) * 2,
                                   read=lambda weight, variance, gamma: scaled(weight, variance))
        elif re.fullmatch(rf"features\.{see}\.running_mean", piece.ours):
            piece = piece._replace(
                theirs=piece.theirs + first.theirs + (mean, variance, beta),
                shapes=piece.shapes + first.shapes + ((channels,),) * 3,
                read=lambda running, weight, mean, variance, beta: running + (
                    weight.sum(axis=(2, 3)) @ (mean / np.sqrt(variance + epsilon) - beta)))
        folded.append(piece)
    return folded, ["the BatchNorm of their input went into the first convolution and the BatchNorms after it; the outermost "
                    "pixels differ unless its running mean is zero (input_norm=True keeps it)"]
