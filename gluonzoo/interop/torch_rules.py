"""Rules from the paths of our layers to those of PyTorch packages, family by family.

Each function returns the keywords of `torch_layout.torch_layout`: `rules`, and where needed `shapes`, `ignored`, `notes`,
`epsilon`. They take the network and, where files differ in age, the names in the file.
"""
import math
import re

from .mapping import modules

__all__ = ["alexnet", "vgg", "timm_vgg", "googlenet", "inception_v3", "timm_inception_v3", "timm_inception_v4",
           "timm_inception_resnet_v2", "timm_xception", "resnet", "timm_senet", "densenet", "mobilenet_v2", "timm_mobilenet_v2",
           "shufflenet_v2", "squeezenet", "timm_dpn"]

_CONV_BN = {"conv": "conv", "norm": "bn"}
_UNIT = r"features\.stage(\d)\.(\d+)\."


def resnet(net, found=None, head="fc", excite="se"):
    """ResNet, ResNeXt and SE-ResNet as torchvision and timm have them; the same names in both."""
    return {"rules": [
        (r"features\.stem\.0\.conv", "conv1"),
        (r"features\.stem\.0\.norm", "bn1"),
        (_UNIT + r"conv(\d)\.conv", r"layer\1.\2.conv\3"),
        (_UNIT + r"conv(\d)\.norm", r"layer\1.\2.bn\3"),
        (_UNIT + r"se\.reduce", rf"layer\1.\2.{excite}.fc1"),
        (_UNIT + r"se\.expand", rf"layer\1.\2.{excite}.fc2"),
        (_UNIT + r"shortcut\.conv", r"layer\1.\2.downsample.0"),
        (_UNIT + r"shortcut\.norm", r"layer\1.\2.downsample.1"),
        (r"output", head),
    ]}


def timm_senet(net, found=None):
    """timm's legacy_se*, which are Cadene's conversions of the authors' models: a stem of its own, `se_module`."""
    rules = resnet(net, head="last_linear", excite="se_module")["rules"]
    stem = [(r"features\.stem\.(\d)\.conv", lambda match: f"layer0.conv{int(match[1]) + 1}"),
            (r"features\.stem\.(\d)\.norm", lambda match: f"layer0.bn{int(match[1]) + 1}")]
    return {"rules": stem + rules}


def densenet(net, found=None):
    """torchvision's and timm's; files older than torchvision 0.2.1 write `norm.1` where newer ones write `norm1`."""
    dot = "." if found and any(re.fullmatch(r".*denselayer\d+\.norm\.\d\..*", name) for name in found) else ""
    layer = r"features\.block(\d)\.(\d+)\."

    def inner(kind, number):
        return lambda match: f"features.denseblock{match[1]}.denselayer{int(match[2]) + 1}.{kind}{dot}{number}"

    return {"rules": [
        (r"features\.stem\.0\.conv", "features.conv0"),
        (r"features\.stem\.0\.norm", "features.norm0"),
        (layer + r"conv1x1\.norm", inner("norm", 1)),
        (layer + r"conv1x1\.conv", inner("conv", 1)),
        (layer + r"conv3x3\.norm", inner("norm", 2)),
        (layer + r"conv3x3\.conv", inner("conv", 2)),
        (r"features\.transition(\d)\.conv1x1\.(norm|conv)", r"features.transition\1.\2"),
        (r"features\.norm\.norm", "features.norm5"),
        (r"output", "classifier"),
    ]}


def mobilenet_v2(net, found=None):
    """torchvision's: bottlenecks are numbered through, and their layers too."""
    starts = {1: 1, 2: 2, 3: 4, 4: 7, 5: 11, 6: 14, 7: 17}

    def layer(match):
        stage, unit, part, kind = int(match[1]), int(match[2]), match[3], match[4] == "norm"
        first = stage == 1  # It has no expansion.
        place = {"expand": 0, "depthwise": 0 if first else 1, "project": 1 if first else 2}[part]
        inner = f"{place}.{int(kind)}" if part != "project" else str(place + kind)
        return f"features.{starts[stage] + unit}.conv.{inner}"

    return {"rules": [
        (r"features\.stem\.conv", "features.0.0"), (r"features\.stem\.norm", "features.0.1"),
        (_UNIT + r"(expand|depthwise|project)\.(conv|norm)", layer),
        (r"features\.head\.conv", "features.18.0"), (r"features\.head\.norm", "features.18.1"),
        (r"output", "classifier.1"),
    ]}


def timm_mobilenet_v2(net, found=None):
    """timm's: the first stage's unit is of another class than the others, with other names."""
    def layer(match):
        stage, unit, part, norm = int(match[1]) - 1, match[2], match[3], match[4] == "norm"
        names = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")} if stage == 0 else \
            {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}
        return f"blocks.{stage}.{unit}.{names[part][norm]}"

    return {"rules": [
        (r"features\.stem\.conv", "conv_stem"), (r"features\.stem\.norm", "bn1"),
        (_UNIT + r"(expand|depthwise|project)\.(conv|norm)", layer),
        (r"features\.head\.conv", "conv_head"), (r"features\.head\.norm", "bn2"),
        (r"output", "classifier"),
    ]}


def shufflenet_v2(net, found=None):
    """torchvision's."""
    def layer(match):
        places = {"shortcut.0": ("branch1", 0), "shortcut.1": ("branch1", 2), "conv1": ("branch2", 0),
                  "depthwise": ("branch2", 3), "conv2": ("branch2", 5)}
        branch, place = places[match[3]]
        return f"stage{match[1]}.{match[2]}.{branch}.{place + (match[4] == 'norm')}"

    return {"rules": [
        (r"features\.stem\.0\.conv", "conv1.0"), (r"features\.stem\.0\.norm", "conv1.1"),
        (_UNIT + r"(shortcut\.[01]|conv1|depthwise|conv2)\.(conv|norm)", layer),
        (r"features\.conv5\.conv", "conv5.0"), (r"features\.conv5\.norm", "conv5.1"),
        (r"output", "fc"),
    ]}


def squeezenet(net, found=None):
    """torchvision's: fire modules are numbered with the poolings between them."""
    places = (3, 4, 5, 7, 8, 9, 10, 12) if net.model_name == "squeezenet1_0" else (3, 4, 6, 7, 9, 10, 11, 12)
    return {"rules": [
        (r"features\.conv1", "features.0"),
        (r"features\.fire(\d)\.(squeeze|expand1x1|expand3x3)",
         lambda match: f"features.{places[int(match[1]) - 2]}.{match[2]}"),
        (r"output\.0", "classifier.1"),
    ]}


def timm_dpn(net, found=None):
    """timm's. Its networks have an ELU where the authors' have the last ReLU, so that its outputs are others."""
    def unit(match):
        stage, number, part = int(match[1]), int(match[2]) + 1, match[3]
        their = {"conv1": "c1x1_a", "conv2": "c3x3_b", "conv3": "c1x1_c",
                 "projection": "c1x1_w_s1" if stage == 1 else "c1x1_w_s2"}[part]
        return f"features.conv{stage + 1}_{number}.{their}.{'bn' if match[4] == 'norm' else 'conv'}"

    return {"epsilon": 1e-3, "rules": [
        (r"features\.stem\.0\.conv", "features.conv1_1.conv"), (r"features\.stem\.0\.norm", "features.conv1_1.bn"),
        (_UNIT + r"(conv[123]|projection)\.(conv|norm)", unit),
        (r"features\.(?:final|norm)\.\w+", "features.conv5_bn_ac.bn"),
        (r"output\.0", "classifier"),
    ], "notes": ("timm's DPN has an ELU before the last pooling, this one the authors' ReLU: outputs are not timm's",)}


def _flat(shape):
    """A dense layer's weights; of a network turned into convolutions too."""
    return shape[0], math.prod(shape[1:])


def alexnet(net, found=None):
    """torchvision's. Both flatten a map channel by channel, so that dense weights keep their order."""
    places = {1: 0, 2: 3, 3: 6, 4: 8, 5: 10}
    return {"rules": [(r"features\.conv(\d)", lambda match: f"features.{places[int(match[1])]}"),
                      (r"fc6", "classifier.1"), (r"fc7", "classifier.4"), (r"output", "classifier.6")],
            "shapes": [(r"(fc\d|output)\.weight", _flat)]}


def _vgg_features(net):
    """Places in one sequence of convolutions, BatchNorms, ReLUs and poolings -> rule."""
    names, place = {}, 0
    for name in net.stages:
        if name.startswith("pool"):
            place += 1
            continue
        normed = f"features.{name}.norm" in modules(net)
        names[f"features.{name}" + (".conv" if normed else "")] = f"features.{place}"
        names[f"features.{name}.norm"] = f"features.{place + 1}"
        place += 3 if normed else 2
    return (r"features\..*", lambda match: names[match[0]])


def vgg(net, found=None):
    """torchvision's. Both flatten a map channel by channel, so that dense weights keep their order."""
    return {"rules": [_vgg_features(net), (r"fc6", "classifier.0"), (r"fc7", "classifier.3"), (r"output", "classifier.6")],
            "shapes": [(r"(fc\d|output)\.weight", _flat)]}


def timm_vgg(net, found=None):
    """timm's: the first two dense layers are 7x7 and 1x1 convolutions there, the same weights in four axes."""
    return {"rules": [_vgg_features(net), (r"fc6", "pre_logits.fc1"), (r"fc7", "pre_logits.fc2"), (r"output", "head.fc")],
            "shapes": [(r"fc6\.weight", lambda shape: (4096, 512, 7, 7)), (r"fc7\.weight", lambda shape: (4096, 4096, 1, 1)),
                       (r"output\.weight", _flat)]}


#: torchvision sets transform_input=True for its published weights.
_TRANSFORM_INPUT = ("torchvision's network with transform_input=True (its published weights) takes images normalised with "
                    "ImageNet's mean and deviation, and makes (pixels - 0.5) / 0.5 of them; this one has no such step: normalise "
                    "so at once",)


def googlenet(net, found=None):
    """torchvision's; its `branch3` is named 5x5 here, and is 3x3 in both."""
    branches = {"branch1x1.conv1": "branch1", "branch3x3.conv1": "branch2.0", "branch3x3.conv2": "branch2.1",
                "branch5x5.conv1": "branch3.0", "branch5x5.conv2": "branch3.1", "branch_pool.conv1": "branch4.1"}
    return {"epsilon": 1e-3, "notes": _TRANSFORM_INPUT, "rules": [
        (r"features\.stem\.conv(\d)\.(conv|norm)", lambda match: f"conv{match[1]}.{_CONV_BN[match[2]]}"),
        (r"features\.inception(\d)\.(\w)\.(\w+\.\w+)\.(conv|norm)",
         lambda match: f"inception{match[1]}{match[2]}.{branches[match[3]]}.{_CONV_BN[match[4]]}"),
        (r"(aux\d)\.conv\.(conv|norm)", lambda match: f"{match[1]}.conv.{_CONV_BN[match[2]]}"),
        (r"(aux\d)\.dense", r"\1.fc1"), (r"(aux\d)\.output", r"\1.fc2"), (r"output", "fc"),
    ], "ignored": () if net.auxiliary else ((r"aux[12]\..*", "of an auxiliary head; aux=True builds the network with them"),)}


def inception_v3(net, found=None, notes=_TRANSFORM_INPUT):
    """torchvision's and timm's, whose modules have the letters of TensorFlow's."""
    stem = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")
    letters = {("3", "a"): "5b", ("3", "b"): "5c", ("3", "c"): "5d", ("4", "reduction"): "6a", ("4", "a"): "6b", ("4", "b"): "6c",
               ("4", "c"): "6d", ("4", "d"): "6e", ("5", "reduction"): "7a", ("5", "a"): "7b", ("5", "b"): "7c"}

    def unit(match):
        stage, module, branch, rest, kind = match.groups()
        their = re.sub(r"_double(\dx\d)", r"\1dbl", branch)
        split = re.fullmatch(r"split\d\.conv(1x3|3x1)\.conv1", rest)
        number = rest[-1] if split is None else ("3" if "dbl" in their else "2") + {"1x3": "a", "3x1": "b"}[split[1]]
        # Branches of one convolution have no number.
        alone = their in ("branch1x1", "branch_pool") or (stage, module, their) == ("4", "reduction", "branch3x3")
        return f"Mixed_{letters[stage, module]}.{their}{'' if alone else '_' + number}.{_CONV_BN[kind]}"

    return {"epsilon": 1e-3, "notes": notes, "rules": [
        (r"features\.stem\.conv(\d)\.(conv|norm)", lambda match: f"Conv2d_{stem[int(match[1]) - 1]}.{_CONV_BN[match[2]]}"),
        (r"features\.inception(\d)\.(\w+)\.(branch\w+)\.(.+)\.(conv|norm)", unit),
        (r"aux1\.conv(\d)\.(conv|norm)", lambda match: f"AuxLogits.conv{int(match[1]) - 1}.{_CONV_BN[match[2]]}"),
        (r"aux1\.output", "AuxLogits.fc"), (r"output", "fc"),
    ], "ignored": () if net.auxiliary else ((r"AuxLogits\..*", "of the auxiliary head; aux=True builds the network with it"),)}


def timm_inception_v3(net, found=None):
    """timm's: torchvision's names; no network of timm normalises its input."""
    return inception_v3(net, found, ())


def timm_inception_v4(net, found=None):
    """timm's: modules are numbered through; branches count from 0, and those with a split inside have names of their own."""
    starts = {"3": 3, "4": 4, "5": 5, "6": 10, "7": 18}  # Place of TensorFlow's Mixed_3a, 4a, 5a, 6a, 7a.
    branches = {"4a": ("3x3", "7x7"), "6a": ("3x3", "3x3dbl"), "7a": ("3x3", "7x7x3"), "5": ("1x1", "3x3", "3x3dbl", "_pool"),
                "6": ("1x1", "7x7", "7x7dbl", "_pool"), "7": ("1x1", "3x3", "3x3dbl", "_pool")}

    def unit(match):
        group, letter, branch, rest, kind = match.groups()
        place, kind, module = starts[group] + ord(letter) - ord("a"), _CONV_BN[kind], group + letter
        if module in ("3a", "5a"):  # A convolution beside a pooling.
            return f"features.{place}.conv.{kind}"
        number = branches.get(module, branches.get(group)).index(branch)
        if number == 0 and module not in ("4a", "7a"):
            return f"features.{place}.branch0.{kind}"
        if group == "7" and letter != "a" and number in (1, 2):
            split = re.fullmatch(r"split\d\.conv(1x3|3x1)\.conv1", rest)
            index = int(rest[-1]) - 1 if split is None else {1: "1", 2: "3"}[number] + {"1x3": "a", "3x1": "b"}[split[1]]
            return f"features.{place}.branch{number}_{index}.{kind}"
        return f"features.{place}.branch{number}.{1 if branch == '_pool' else int(rest[-1]) - 1}.{kind}"

    return {"epsilon": 1e-3, "rules": [
        (r"features\.stem1\.conv(\d)\.(conv|norm)", lambda match: f"features.{int(match[1]) - 1}.{_CONV_BN[match[2]]}"),
        (r"features\.\w+\.mixed_(\d)(\w)\.branch(\w+)\.(.+)\.(conv|norm)", unit), (r"output", "last_linear")]}


def timm_inception_resnet_v2(net, found=None):
    """timm's."""
    stem = {("1", "1"): "1a", ("1", "2"): "2a", ("1", "3"): "2b", ("2", "1"): "3b", ("2", "2"): "4a"}
    #: Stage -> name of its first module and of the residual ones, and both kinds' branches.
    stages = {"1": ("mixed_5b", "repeat", ("1x1", "5x5", "3x3dbl", "_pool"), ("1x1", "3x3", "3x3dbl")),
              "2": ("mixed_6a", "repeat_1", ("3x3", "3x3dbl"), ("1x1", "7x7")),
              "3": ("mixed_7a", "repeat_2", ("3x3a", "3x3b", "3x3dbl"), ("1x1", "3x3"))}

    def residual(stage, number):
        return "block8" if (stage, number) == ("3", "10") else f"{stages[stage][1]}.{int(number) - 1}"

    def unit(match):
        stage, number, branch, index, kind = match.groups()
        their = stages[stage][0] if number is None else residual(stage, number)
        place = stages[stage][2 if number is None else 3].index(branch)
        if place == 0 and their != "mixed_7a":
            return f"{their}.branch0.{_CONV_BN[kind]}"
        return f"{their}.branch{place}.{1 if branch == '_pool' else int(index) - 1}.{_CONV_BN[kind]}"

    return {"epsilon": 1e-3, "rules": [
        (r"features\.stem(\d)\.conv(\d)\.(conv|norm)", lambda match: f"conv2d_{stem[match[1], match[2]]}.{_CONV_BN[match[3]]}"),
        (r"features\.stage(\d)\.(?:split1|unit(\d+)\.branches)\.branch(\w+)\.conv(\d)\.(conv|norm)", unit),
        (r"features\.stage(\d)\.unit(\d+)\.project", lambda match: f"{residual(match[1], match[2])}.conv2d"),
        (r"features\.final\.(conv|norm)", lambda match: f"conv2d_7b.{_CONV_BN[match[1]]}"),
        (r"output", "classif"),
    ]}


def timm_xception(net, found=None):
    """timm's legacy_xception, Cadene's conversion of Keras's."""
    starts = {"1": 1, "2": 2, "3": 3, "4": 12}
    parts = {"depthwise": "conv1", "pointwise": "pointwise"}

    def unit(match):
        stage, number, index, part = match[1], int(match[2]), int(match[3]), match[4]
        place = 3 * index + (0 if stage == "1" else 1)  # A ReLU comes before the others' first convolution.
        return f"block{starts[stage] + number}.rep." + (f"{place + 1}" if part == "norm" else f"{place}.{parts[part]}")

    def last(match):
        number = {"1": 3, "3": 4}[match[1]]
        return f"bn{number}" if match[2] == "norm" else f"conv{number}.{parts[match[2]]}"

    return {"rules": [
        (r"features\.stem\.(\d)\.(conv|norm)", lambda match: f"{'bn' if match[2] == 'norm' else 'conv'}{int(match[1]) + 1}"),
        (_UNIT + r"shortcut\.(conv|norm)",
         lambda match: f"block{starts[match[1]] + int(match[2])}.{'skipbn' if match[3] == 'norm' else 'skip'}"),
        (_UNIT + r"convs\.(\d)\.(\w+)", unit), (r"features\.stage4\.([13])\.(\w+)", last), (r"output", "fc"),
    ]}
