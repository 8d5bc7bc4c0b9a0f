"""The torch network of a gluonzoo name: from torchvision or timm, or the few that neither has. Made-up weights."""
import torch
from torch import nn

__all__ = ["make", "input_size"]

#: {gluonzoo: name in torchvision.models}; the same layers, so the same arithmetic.
TORCHVISION = {"alexnet_owt": "alexnet", "vgg16": "vgg16", "googlenet_bn": "googlenet", "inception_v3": "inception_v3",
               "resnet18_v1b": "resnet18", "resnet50_v1b": "resnet50", "resnext50_32x4d": "resnext50_32x4d",
               "densenet121": "densenet121", "squeezenet1_1": "squeezenet1_1", "mobilenet_v2_1_0": "mobilenet_v2",
               "shufflenet_v2_1_0": "shufflenet_v2_x1_0"}
#: What torchvision lacks.
TIMM = {"mobilenet_v1_1_0": "mobilenetv1_100", "xception": "legacy_xception"}


def input_size(name):
    """Height and width that a network takes."""
    return {"inception_v3": 299, "xception": 299, "alexnet": 227}.get(name, 224)


def alexnet():
    """A. Krizhevsky et al., 2012: grouped convolutions, local response normalisation."""
    def norm():
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4), nn.ReLU(True), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(True), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(True), nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(True),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(True), nn.MaxPool2d(3, 2), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(9216, 4096), nn.ReLU(True), nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU(True),
        nn.Linear(4096, 1000))


class Inception(nn.Module):
    """The module of GoogLeNet without BatchNorm. Args: the six widths of table 1 of C. Szegedy et al., 2014."""

    def __init__(self, inputs, one, three_before, three, five_before, five, pool):
        super().__init__()
        def conv(inputs, width, kernel):
            return nn.Sequential(nn.Conv2d(inputs, width, kernel, padding=kernel // 2), nn.ReLU(True))
        self.branches = nn.ModuleList([
            conv(inputs, one, 1), nn.Sequential(conv(inputs, three_before, 1), conv(three_before, three, 3)),
            nn.Sequential(conv(inputs, five_before, 1), conv(five_before, five, 5)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, pool, 1))])

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


def googlenet():
    """C. Szegedy et al., 2014, table 1, without the auxiliary heads."""
    def pool():
        return nn.MaxPool2d(3, 2, ceil_mode=True)
    def norm():
        return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(True), pool(), norm(), nn.Conv2d(64, 64, 1), nn.ReLU(True),
        nn.Conv2d(64, 192, 3, padding=1), nn.ReLU(True), norm(), pool(),
        Inception(192, 64, 96, 128, 16, 32, 32), Inception(256, 128, 128, 192, 32, 96, 64), pool(),
        Inception(480, 192, 96, 208, 16, 48, 64), Inception(512, 160, 112, 224, 24, 64, 64),
        Inception(512, 128, 128, 256, 24, 64, 64), Inception(512, 112, 144, 288, 32, 64, 64),
        Inception(528, 256, 160, 320, 32, 128, 128), pool(),
        Inception(832, 256, 160, 320, 32, 128, 128), Inception(832, 384, 192, 384, 48, 128, 128),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(1024, 1000))


def declare_operators():
    """torchvision's compiled operators are missing beside the processor-only torch; its import only wants them declared."""
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def make(name):
    """The network in evaluation mode. Raises: SystemExit with the reason when there is none."""
    own = {"alexnet": alexnet, "googlenet": googlenet}
    if name in own:
        return own[name]().eval()
    if name in TIMM:
        import timm
        return timm.create_model(TIMM[name], pretrained=False).eval()
    if name not in TORCHVISION:
        raise SystemExit(f"no network of torch is known for {name}")
    try:
        import torchvision
    except RuntimeError:
        make.library = declare_operators()  # Kept: with it go the operators.
        import torchvision
    more = {"aux_logits": False, "init_weights": False} if name.startswith(("googlenet", "inception")) else {}
    return getattr(torchvision.models, TORCHVISION[name])(weights=None, **more).eval()
