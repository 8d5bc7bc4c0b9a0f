"""Published accuracies on ImageNet's validation set (ILSVRC 2012), only where the source was looked up.

Figures of the same network differ between sources, by training recipe and test protocol; each entry says both. A
network whose figure was not found at a source that could be read has none here.
"""
import dataclasses
from typing import Optional

from .errors import UserError
from .registry import get_model, list_models, model_spec

__all__ = ["Accuracy", "ACCURACIES", "published", "macs_at"]

_TORCHVISION = "torchvision 0.28.0 weight metadata, IMAGENET1K_V1"
_CAFFE = "https://github.com/BVLC/caffe models/{}/readme.md"
_HE = "https://github.com/KaimingHe/deep-residual-networks README.md"
_RESNEXT = "https://github.com/facebookresearch/ResNeXt README.md"
_SENET = "https://github.com/hujie-frank/SENet README.md"
_DPN = "https://github.com/cypw/DPNs README.md"
_SLIM = "https://github.com/tensorflow/models research/slim/README.md"
_MOBILENET_V1 = "https://github.com/tensorflow/models research/slim/nets/mobilenet_v1.md"
_MOBILENET_V2 = "https://github.com/tensorflow/models research/slim/nets/mobilenet/README.md"
_SHUFFLENET = "https://github.com/megvii-model/ShuffleNet-Series README.md"
_XNOR = "https://github.com/allenai/XNOR-Net README.md"


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """One published figure.

    Args:
        top1, top5: percent of the validation images; top5 is None where the source has none.
        protocol: "SIZE single crop", "SIZE, 10 crops", ..., perhaps with what is special; it begins with the size.
        source: where it was read.
    """
    top1: float
    top5: Optional[float]
    protocol: str
    source: str

    @property
    def size(self):
        """Height and width of the test images in pixels."""
        return int(self.protocol.split()[0].rstrip(","))

    @property
    def single_crop(self):
        """Whether the figure is of one crop of each image."""
        return "single crop" in self.protocol


def _crop(size, source, figures):
    return {name: Accuracy(top1, top5, f"{size} single crop", source) for name, (top1, top5) in figures.items()}


def _errors(size, source, figures):
    """The same from errors, as papers of the time give them."""
    return _crop(size, source, {name: (round(100 - top1, 3), None if top5 is None else round(100 - top5, 3))
                                for name, (top1, top5) in figures.items()})


#: Name of a network: its `Accuracy`. Networks that are not registered (yet) may be among them.
ACCURACIES = {
    **_crop(224, _TORCHVISION, {
        "alexnet_owt": (56.522, 79.066),
        "vgg11": (69.02, 88.628), "vgg13": (69.928, 89.246), "vgg16": (71.592, 90.382), "vgg19": (72.376, 90.876),
        "vgg11_bn": (70.37, 89.81), "vgg13_bn": (71.586, 90.374), "vgg16_bn": (73.36, 91.516),
        "vgg19_bn": (74.218, 91.842),
        "googlenet_bn": (69.778, 89.53),
        # Its ResNets have the stride on the 3x3: v1b. For the basic unit that is the same network.
        "resnet18_v1": (69.758, 89.078), "resnet34_v1": (73.314, 91.42),
        "resnet50_v1b": (76.13, 92.862), "resnet101_v1b": (77.374, 93.546), "resnet152_v1b": (78.312, 94.046),
        "resnext50_32x4d": (77.618, 93.698),
        "densenet121": (74.434, 91.972), "densenet161": (77.138, 93.56), "densenet169": (75.6, 92.806),
        "densenet201": (76.896, 93.37),
        "squeezenet1_0": (58.092, 80.42), "squeezenet1_1": (58.178, 80.624),
    }),
    **_crop(299, _TORCHVISION, {"inception_v3": (77.294, 93.45)}),
    **_crop(227, _CAFFE.format("bvlc_alexnet"), {"alexnet": (57.1, 80.2)}),
    **_crop(224, _CAFFE.format("bvlc_googlenet"), {"googlenet": (68.7, 88.9)}),
    **_crop(224, "https://gist.github.com/mavenlin/d802a5849de39225bcc6 (by the paper's author)",
            {"nin_imagenet": (59.36, None)}),
    "zfnet": Accuracy(61.7, 83.6, "224, 10 crops", "Zeiler and Fergus, table 2, in the slides at https://speakerdeck.com/"
                      "hakka_labs/visualization-and-understanding-convolutional-neural-networks"),
    **_errors(224, _HE, {"resnet50_v1": (24.7, 7.8), "resnet101_v1": (23.6, 7.1), "resnet152_v1": (23.0, 6.7)}),
    **_crop(320, _SLIM + " (quotes arXiv:1603.05027)", {"resnet200_v2": (79.9, 95.2)}),
    **_errors(224, _RESNEXT, {"resnext101_32x4d": (21.2, None), "resnext101_64x4d": (20.4, None)}),
    **_errors(224, _SENET, {
        "se_bn_inception": (23.62, 7.04), "se_resnet50": (22.37, 6.36), "se_resnet101": (21.75, 5.72),
        "se_resnet152": (21.34, 5.54), "se_resnext50_32x4d": (20.97, 5.54), "se_resnext101_32x4d": (19.81, 4.96),
        "senet154": (18.68, 4.47),
    }),
    **_errors(224, _DPN, {"dpn68": (23.57, 6.93), "dpn92": (20.73, 5.37), "dpn98": (20.15, 5.15),
                          "dpn131": (19.93, 5.12)}),
    **_crop(299, _SLIM, {"inception_v4": (80.2, 95.2), "inception_resnet_v2": (80.4, 95.3)}),
    **_crop(299, "https://keras.io/api/applications", {"xception": (79.0, 94.5)}),
    **_errors(331, "https://github.com/open-mmlab/polynet README.md", {"polynet": (18.71, 4.25)}),
    **_crop(224, _MOBILENET_V1, {"mobilenet_v1_1_0": (70.9, 89.9), "mobilenet_v1_0_75": (68.4, 88.2),
                                 "mobilenet_v1_0_5": (63.3, 84.9), "mobilenet_v1_0_25": (49.8, 74.2)}),
    **_crop(224, _MOBILENET_V2, {"mobilenet_v2_1_4": (75.0, 92.5), "mobilenet_v2_1_0": (71.8, 91.0),
                                 "mobilenet_v2_0_75": (69.8, 89.6), "mobilenet_v2_0_5": (65.4, 86.4)}),
    **{name: Accuracy(round(100 - top1, 3), round(100 - top5, 3), "224, crops not stated", _SHUFFLENET)
       for name, (top1, top5) in {
           "shufflenet_v1_g3_1_0": (32.2, 12.3), "shufflenet_v1_g8_1_0": (32.0, 13.6),
           "shufflenet_v1_g3_0_5": (42.7, 20.0), "shufflenet_v2_0_5": (38.9, 17.4), "shufflenet_v2_1_0": (30.6, 11.1),
           "shufflenet_v2_1_5": (27.4, 9.4), "shufflenet_v2_2_0": (25.0, 7.6)}.items()},
    **{name: Accuracy(top1, None, "224, crops not stated", _XNOR)
       for name, top1 in {"bwn_alexnet": 56.8, "xnor_alexnet": 43.3}.items()},
}


def published(pattern="*"):
    """Names of registered networks that match the pattern and have a published accuracy, sorted.

    Raises: UserError when there is none; the message says how many match the pattern alone.
    """
    matching = list_models(pattern)
    names = [name for name in matching if name in ACCURACIES]
    if not names:
        raise UserError(f"of the {len(matching)} networks whose names match {pattern!r} none has a published accuracy "
                        "with a source (gluonzoo.accuracies)")
    return names


def macs_at(name, size):
    """Multiply-adds of a registered network for an image of size x size, the size at which its accuracy was measured."""
    from .summary import count_macs

    spec = model_spec(name)
    shape = (spec.input_shape[0], size, size)
    return spec.macs if shape == tuple(spec.input_shape) else count_macs(get_model(name), shape)
