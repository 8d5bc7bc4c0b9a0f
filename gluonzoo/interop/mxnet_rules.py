"""Where MXNet's own networks have the layers of ours: rules for `mxnet_names`, one function a family.

A rule takes the paths of our layers in order ("features.stage1.0.conv1.conv") and gives {our path: structural path in
`gluon.model_zoo.vision` and GluonCV ("features.4.0.body.0")}; a path that it leaves out is the same in both ("output").
Their lists number layers without parameters as well.
"""
import re

__all__ = ["vgg", "alexnet", "squeezenet", "resnet", "resnet_v1b", "resnet_v2", "densenet",
           "mobilenet_v1", "mobilenet_v2", "shufflenet_v2", "darknet53", "inception_v3", "googlenet"]


def vgg(paths):
    """One flat list: convolution [, BatchNorm], ReLU, after each stage a pooling; then dense layers with dropout."""
    found, index, stage = {}, 0, "1"
    for path in paths:
        match = re.fullmatch(r"features\.conv(\d)_\d+(\.conv|\.norm)?", path)
        if match is None:
            break
        if match.group(1) != stage and match.group(2) != ".norm":
            index, stage = index + 1, match.group(1)
        found[path] = f"features.{index}"
        index += 1 if match.group(2) == ".conv" else 2
    found.update({"fc6": f"features.{index + 1}", "fc7": f"features.{index + 3}"})
    return found


def alexnet(paths):
    return dict(zip(paths, [f"features.{index}" for index in (0, 2, 4, 5, 6, 9, 11)]))


def squeezenet(first_pools):
    """Convolution, ReLU, pooling, then fire modules with poolings among them."""
    def rules(paths):
        found, index = {"features.conv1": "features.0", "output.0": "output.0"}, 3
        for number in range(2, 10):
            names = ("squeeze", "0.0"), ("expand1x1", "1.0.0"), ("expand3x3", "1.1.0")
            found.update({f"features.fire{number}.{ours}": f"features.{index}.{theirs}" for ours, theirs in names})
            index += 2 if number in first_pools else 1
        return found
    return rules


def resnet(first, stem=((0, 1),)):
    """Stages of `body` and `downsample`; `first`: index of the first stage, `stem`: of convolutions and BatchNorms."""
    def rules(paths):
        found = {}
        for path in paths:
            match = re.fullmatch(r"features\.stage(\d)\.(\d+)\.(\w+)\.(\w+)", path)
            if match is None:
                match = re.fullmatch(r"features\.stem\.(?:(\d)\.)?(conv|norm)", path)
                if match:
                    found[path] = f"features.{stem[int(match.group(1) or 0)][match.group(2) == 'norm']}"
                continue
            stage, unit, part, layer = match.groups()
            if part == "se":
                inner = "se.0" if layer == "reduce" else "se.2"
            elif part == "shortcut":
                inner = f"downsample.{int(layer == 'norm')}"
            else:
                inner = f"body.{3 * (int(part[-1]) - 1) + int(layer == 'norm')}"
            found[path] = f"features.{first + int(stage) - 1}.{unit}.{inner}"
        return found
    return rules


def resnet_v1b(paths):
    found = {"features.stem.0.conv": "conv1", "features.stem.0.norm": "bn1", "output": "fc"}
    for path in paths:
        match = re.fullmatch(r"features\.stage(\d)\.(\d+)\.(conv(\d)|shortcut)\.(conv|norm)", path)
        if match:
            stage, unit, _, number, layer = match.groups()
            inner = f"downsample.{int(layer == 'norm')}" if number is None else f"{layer.replace('norm', 'bn')}{number}"
            found[path] = f"layer{stage}.{unit}.{inner}"
    return found


def resnet_v2(first):
    """After the input's BatchNorm: the stem, units of bn and conv, a last BatchNorm."""
    def rules(paths):
        found = {"features.stem.0.conv": "features.1", "features.stem": "features.1", "features.stem.0.norm": "features.2",
                 "features.norm.norm": f"features.{first + len({path[:15] for path in paths if '.stage' in path})}",
                 "features.input_norm": "features.0"}
        for path in paths:
            match = re.fullmatch(r"features\.stage(\d)\.(\d+)\.(norm|conv|shortcut)(\d?)", path)
            if match:
                stage, unit, part, number = match.groups()
                inner = "downsample" if part == "shortcut" else part.replace("norm", "bn") + number
                found[path] = f"features.{first + int(stage) - 1}.{unit}.{inner}"
        return found
    return rules


def densenet(paths):
    found = {"features.stem.0.conv": "features.0", "features.stem.0.norm": "features.1", "features.norm.norm": "features.11"}
    inner = {("1x1", "norm"): 0, ("1x1", "conv"): 2, ("3x3", "norm"): 3, ("3x3", "conv"): 5}
    for path in paths:
        match = re.fullmatch(r"features\.(block|transition)(\d)\.(?:(\d+)\.)?conv(\dx\d)\.(norm|conv)", path)
        if match:
            part, number, layer, size, kind = match.groups()
            index = 2 + 2 * int(number) + (part == "transition")
            found[path] = (f"features.{index}.{layer}.1.{inner[size, kind]}" if part == "block"
                           else f"features.{index}.{inner[size, kind]}")
    return found


def mobilenet_v1(paths):
    """One flat list of convolution, BatchNorm, ReLU."""
    layers = [path for path in paths if path.startswith("features.")]
    return {path: f"features.{index // 2 * 3 + index % 2}" for index, path in enumerate(layers)}


def mobilenet_v2(paths):
    found = {"features.stem.conv": "features.0", "features.stem.norm": "features.1", "features.head.conv": "features.20",
             "features.head.norm": "features.21", "output": "output.0"}
    units = []
    for path in paths:
        match = re.fullmatch(r"(features\.stage\d\.\d+)\.(expand|depthwise|project)\.(conv|norm)", path)
        if match:
            unit, part, layer = match.groups()
            if unit not in units:
                units.append(unit)
            # The first unit has no expansion.
            number = ("expand", "depthwise", "project").index(part) - (len(units) == 1)
            found[path] = f"features.{2 + len(units)}.out.{3 * number + int(layer == 'norm')}"
    return found


def shufflenet_v2(paths):
    found = {"features.stem.0.conv": "features.0.0", "features.stem.0.norm": "features.0.1",
             "features.conv5.conv": "features.5.0", "features.conv5.norm": "features.5.1"}
    for path in paths:
        match = re.fullmatch(r"features\.stage(\d)\.(\d+)\.(shortcut\.(\d)|conv1|depthwise|conv2)\.(conv|norm)", path)
        if match:
            stage, unit, part, number, layer = match.groups()
            inner = (f"branch1_conv.{number}" if number is not None
                     else f"branch2_conv.{('conv1', 'depthwise', 'conv2').index(part)}")
            found[path] = f"features.{stage}.{unit}.{inner}.{int(layer == 'norm')}"
    return found


def darknet53(paths):
    """A flat list of convolutions and residual units."""
    found, units = {"features.stem.conv": "features.0.0", "features.stem.norm": "features.0.1"}, []
    for path in paths:
        match = re.fullmatch(r"(features\.stage\d\.\d+)\.(?:conv(\d)\.)?(conv|norm)", path)
        if match:
            unit, number, layer = match.groups()
            if unit not in units:
                units.append(unit)
            inner = "" if number is None else f"body.{int(number) - 1}."
            found[path] = f"features.{len(units)}.{inner}{int(layer == 'norm')}"
    return found


_BRANCHES = {"branch1x1": 0, "branch3x3": 1, "branch5x5": 2, "branch_double3x3": 2, "branch7x7": 1, "branch_double7x7": 2,
             "branch7x7x3": 1, "branch_pool": 3}
#: Inception-v3's modules in the order of their list.
_MODULES = ("inception3.a", "inception3.b", "inception3.c", "inception4.reduction", "inception4.a", "inception4.b",
            "inception4.c", "inception4.d", "inception5.reduction", "inception5.a", "inception5.b")


def inception_v3(paths):
    found = {}
    for path in paths:
        match = re.fullmatch(r"features\.stem\.conv(\d)\.(conv|norm)", path)
        if match:
            found[path] = f"features.{(0, 1, 2, 4, 5)[int(match.group(1)) - 1]}.{int(match.group(2) == 'norm')}"
        match = re.fullmatch(r"features\.(inception\d\.\w+)\.(\w+?)\.(conv\d|split1\.\w+)(?:\.conv1)?\.(conv|norm)", path)
        if match:
            module, branch, inner, layer = match.groups()
            index = _BRANCHES[branch]
            if module.endswith("reduction"):
                index = 0 if branch == "branch3x3" else 1
            elif module.startswith("inception3") and branch == "branch5x5":
                index = 1
            position = f"{7 + _MODULES.index(module)}.{index}.{_v3_inner(module, branch, inner)}"
            found[path] = f"features.{position}.{int(layer == 'norm')}"
    return found


def _v3_inner(module, branch, inner):
    """Path of a convolution within its branch; the last modules' branches end in two that run side by side."""
    if branch == "branch_pool":
        return "1"
    splits = module in _MODULES[-2:] and branch != "branch1x1"
    if not inner.startswith("split"):
        number = int(inner[-1]) - 1
        return f"0.{number}" if splits and branch == "branch_double3x3" else f"{number}.0" if splits else f"{number}"
    return f"1.{('conv1x3', 'conv3x1').index(inner.partition('.')[2])}.0"


def googlenet(paths):
    found = {}
    for path in paths:
        match = re.fullmatch(r"features\.stem\.conv(\d)\.(conv|norm)", path)
        if match:
            found[path] = f"conv{match.group(1)}.{int(match.group(2) == 'norm')}"
        match = re.fullmatch(r"features\.(inception\d)\.(\w)\.(\w+)\.conv(\d)\.(conv|norm)", path)
        if match:
            block, module, branch, number, layer = match.groups()
            position = 1 if branch == "branch_pool" else int(number) - 1
            found[path] = f"{block}{module}.{_BRANCHES[branch]}.{position}.{int(layer == 'norm')}"
    return found
