"""timm's names (pytorch-image-models), of its `.safetensors` files and `state_dict`s.

Networks, and what is not the same: see `NETWORKS` and `counterparts`. Not here, because timm's are other networks under a
like name: resnetv2 (no BatchNorm in the stem), mobilenetv1 (ReLU6), seresnet18 and 34 (other pooling), legacy_seresnet18
and 34 (a ReLU before SE), darknet53 (another slope of its ReLUs).
"""
from . import torch_rules
from .torch_layout import torch_layout

__all__ = ["layout", "counterparts", "NETWORKS"]

#: Our name -> (timm's name, rules).
NETWORKS = {
    "vgg11": ("vgg11", torch_rules.timm_vgg),
    "vgg11_bn": ("vgg11_bn", torch_rules.timm_vgg),
    "vgg13": ("vgg13", torch_rules.timm_vgg),
    "vgg13_bn": ("vgg13_bn", torch_rules.timm_vgg),
    "vgg16": ("vgg16", torch_rules.timm_vgg),
    "vgg16_bn": ("vgg16_bn", torch_rules.timm_vgg),
    "vgg19": ("vgg19", torch_rules.timm_vgg),
    "vgg19_bn": ("vgg19_bn", torch_rules.timm_vgg),
    "inception_v3": ("inception_v3", torch_rules.timm_inception_v3),
    "inception_v4": ("inception_v4", torch_rules.timm_inception_v4),
    "inception_resnet_v2": ("inception_resnet_v2", torch_rules.timm_inception_resnet_v2),
    "xception": ("legacy_xception", torch_rules.timm_xception),
    "resnet18_v1": ("resnet18", torch_rules.resnet),
    "resnet18_v1b": ("resnet18", torch_rules.resnet),
    "resnet34_v1": ("resnet34", torch_rules.resnet),
    "resnet34_v1b": ("resnet34", torch_rules.resnet),
    "resnet50_v1b": ("resnet50", torch_rules.resnet),
    "resnet101_v1b": ("resnet101", torch_rules.resnet),
    "resnet152_v1b": ("resnet152", torch_rules.resnet),
    "resnext50_32x4d": ("resnext50_32x4d", torch_rules.resnet),
    "resnext101_32x4d": ("resnext101_32x4d", torch_rules.resnet),
    "resnext101_64x4d": ("resnext101_64x4d", torch_rules.resnet),
    "se_resnet50_b": ("seresnet50", torch_rules.resnet),
    "se_resnet50": ("legacy_seresnet50", torch_rules.timm_senet),
    "se_resnet101": ("legacy_seresnet101", torch_rules.timm_senet),
    "se_resnet152": ("legacy_seresnet152", torch_rules.timm_senet),
    "se_resnext50_32x4d": ("legacy_seresnext50_32x4d", torch_rules.timm_senet),
    "se_resnext101_32x4d": ("legacy_seresnext101_32x4d", torch_rules.timm_senet),
    "senet154": ("legacy_senet154", torch_rules.timm_senet),
    "densenet121": ("densenet121", torch_rules.densenet),
    "densenet161": ("densenet161", torch_rules.densenet),
    "densenet169": ("densenet169", torch_rules.densenet),
    "densenet201": ("densenet201", torch_rules.densenet),
    "mobilenet_v2_0_5": ("mobilenetv2_050", torch_rules.timm_mobilenet_v2),
    "mobilenet_v2_0_75": ("mobilenetv2_075", torch_rules.timm_mobilenet_v2),
    "mobilenet_v2_1_0": ("mobilenetv2_100", torch_rules.timm_mobilenet_v2),
    "mobilenet_v2_1_4": ("mobilenetv2_140", torch_rules.timm_mobilenet_v2),
    "dpn68": ("dpn68", torch_rules.timm_dpn),
    "dpn92": ("dpn92", torch_rules.timm_dpn),
    "dpn98": ("dpn98", torch_rules.timm_dpn),
    "dpn107": ("dpn107", torch_rules.timm_dpn),
    "dpn131": ("dpn131", torch_rules.timm_dpn),
}


def layout(net, found=None):
    """See `styles`."""
    if net.model_name not in NETWORKS:
        return None
    name, rules = NETWORKS[net.model_name]
    return torch_layout(net, f"timm's {name}", **rules(net, found))


def counterparts():
    return {ours: theirs for ours, (theirs, _) in NETWORKS.items()}
