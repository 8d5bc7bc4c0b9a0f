"""torchvision's names, of its `.pth` files and `state_dict`s.

Networks, and what is not the same: see `NETWORKS` and `counterparts`.
"""
from . import torch_rules
from .torch_layout import torch_layout

__all__ = ["layout", "counterparts", "NETWORKS"]

#: Our name -> (torchvision's name and the arguments it needs, rules).
NETWORKS = {
    "alexnet_owt": ("alexnet", torch_rules.alexnet),
    "vgg11": ("vgg11", torch_rules.vgg),
    "vgg11_bn": ("vgg11_bn", torch_rules.vgg),
    "vgg13": ("vgg13", torch_rules.vgg),
    "vgg13_bn": ("vgg13_bn", torch_rules.vgg),
    "vgg16": ("vgg16", torch_rules.vgg),
    "vgg16_bn": ("vgg16_bn", torch_rules.vgg),
    "vgg19": ("vgg19", torch_rules.vgg),
    "vgg19_bn": ("vgg19_bn", torch_rules.vgg),
    "googlenet_bn": ("googlenet", torch_rules.googlenet),
    "inception_v3": ("inception_v3", torch_rules.inception_v3),
    "resnet18_v1": ("resnet18", torch_rules.resnet),
    "resnet18_v1b": ("resnet18", torch_rules.resnet),
    "resnet34_v1": ("resnet34", torch_rules.resnet),
    "resnet34_v1b": ("resnet34", torch_rules.resnet),
    "resnet50_v1b": ("resnet50", torch_rules.resnet),
    "resnet101_v1b": ("resnet101", torch_rules.resnet),
    "resnet152_v1b": ("resnet152", torch_rules.resnet),
    "resnext50_32x4d": ("resnext50_32x4d", torch_rules.resnet),
    "resnext101_64x4d": ("resnext101_64x4d", torch_rules.resnet),
    "densenet121": ("densenet121", torch_rules.densenet),
    "densenet161": ("densenet161", torch_rules.densenet),
    "densenet169": ("densenet169", torch_rules.densenet),
    "densenet201": ("densenet201", torch_rules.densenet),
    "mobilenet_v2_1_0": ("mobilenet_v2", torch_rules.mobilenet_v2),
    "mobilenet_v2_0_5": ("mobilenet_v2(width_mult=0.5)", torch_rules.mobilenet_v2),
    "mobilenet_v2_0_75": ("mobilenet_v2(width_mult=0.75)", torch_rules.mobilenet_v2),
    "mobilenet_v2_1_4": ("mobilenet_v2(width_mult=1.4)", torch_rules.mobilenet_v2),
    "shufflenet_v2_0_5": ("shufflenet_v2_x0_5", torch_rules.shufflenet_v2),
    "shufflenet_v2_1_0": ("shufflenet_v2_x1_0", torch_rules.shufflenet_v2),
    "shufflenet_v2_1_5": ("shufflenet_v2_x1_5", torch_rules.shufflenet_v2),
    "shufflenet_v2_2_0": ("shufflenet_v2_x2_0", torch_rules.shufflenet_v2),
    "squeezenet1_0": ("squeezenet1_0", torch_rules.squeezenet),
    "squeezenet1_1": ("squeezenet1_1", torch_rules.squeezenet),
}


def layout(net, found=None):
    """See `styles`."""
    if net.model_name not in NETWORKS:
        return None
    name, rules = NETWORKS[net.model_name]
    return torch_layout(net, f"torchvision's {name}", **rules(net, found))


def counterparts():
    return {ours: theirs for ours, (theirs, _) in NETWORKS.items()}
