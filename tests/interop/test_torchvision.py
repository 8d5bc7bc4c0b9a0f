"""Outputs of torchvision's, timm's and akamaster's networks against ours with the same weights, both ways.

Needs torch, torchvision and timm beside MXNet in one environment (Python 3.11 with NumPy 1.23 has them all).
"""
import importlib.util
import re
import sys

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import gluonzoo  # noqa: E402
from gluonzoo.interop import counterparts, load_weights, read, save_weights  # noqa: E402

import mxnet as mx  # noqa: E402
import numpy as np  # noqa: E402

#: Networks of the fast set: small, one of each kind of rules.
QUICK = [("torchvision", "resnet18_v1"), ("torchvision", "resnet50_v1b"), ("torchvision", "densenet121"),
         ("torchvision", "mobilenet_v2_1_0"), ("torchvision", "shufflenet_v2_1_0"), ("torchvision", "squeezenet1_0"),
         ("torchvision", "squeezenet1_1"), ("torchvision", "googlenet_bn"), ("torchvision", "inception_v3"),
         ("timm", "mobilenet_v2_1_0"), ("timm", "se_resnet50"), ("timm", "se_resnet50_b"), ("timm", "dpn68"),
         ("timm", "xception"), ("timm", "inception_resnet_v2"), ("timm", "inception_v4")]
#: timm's and torchvision's names are the same for these: one of them is enough.
SAME = {name for name in counterparts("timm") if re.match(r"resnet|resnext|densenet", name)} & set(counterparts("torchvision"))
#: Other names of the same network, or larger ones of rules that are tested already.
LEFT_OUT = {"resnet18_v1b", "resnet34_v1b", "se_resnet152", "senet154", "dpn107", "dpn131"}
SLOW = [(style, name) for style in ("torchvision", "timm") for name in sorted(counterparts(style))
        if (style, name) not in QUICK and name not in LEFT_OUT and not (style == "timm" and name in SAME)]


def import_torchvision():
    """torchvision, and what must be kept while it is used.

    Its wheel beside a torch for processors only cannot load its own operators, and its import fails for want of two of them; they
    are declared then. Where it can, they must not be: two declarations end the process.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    try:
        return importlib.import_module("torchvision"), None
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for text in ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                     "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"):
            library.define(text)
        return importlib.import_module("torchvision"), library


@pytest.fixture(scope="module")
def build():
    """build(style, text) -> a network of theirs, in evaluation mode."""
    torch.set_num_threads(1)
    torchvision, _library = import_torchvision()
    timm = pytest.importorskip("timm", reason="timm is not installed")

    def made(style, text, **options):
        name, arguments = re.fullmatch(r"(\w+)(?:\(width_mult=([\d.]+)\))?", text).groups()
        if arguments:
            options["width_mult"] = float(arguments)
        if style == "akamaster":
            return Akamaster((int(name[6:]) - 2) // 6, **options).eval()
        if style == "timm":
            net = timm.create_model(name, pretrained=False, **options).eval()
            if name.startswith("dpn"):
                net.features.conv5_bn_ac.bn.act = torch.nn.ReLU()  # The authors', where timm has an ELU.
            return net
        if name in ("googlenet", "inception_v3"):
            options = {"aux_logits": False, "init_weights": False, **options}
        return getattr(torchvision.models, name)(weights=None, **options).eval()

    yield made


class AkamasterUnit(torch.nn.Module):
    """A basic unit whose shortcut puts zeros on both sides of the channels."""

    def __init__(self, inputs, channels, stride, option):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(channels)
        self.conv2 = torch.nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(channels)
        self.stride, self.quarter = stride, (channels - inputs) // 2
        if option == "b" and inputs != channels:
            self.shortcut = torch.nn.Sequential(torch.nn.Conv2d(inputs, channels, 1, stride, bias=False),
                                                torch.nn.BatchNorm2d(channels))
        else:
            self.shortcut = self.zeros

    def zeros(self, x):
        return torch.nn.functional.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, self.quarter, self.quarter))

    def forward(self, x):
        branch = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(branch + self.shortcut(x))


class Akamaster(torch.nn.Module):
    """ResNet of 6 n + 2 layers for CIFAR with that author's names and shortcut."""

    def __init__(self, units, option="a"):
        super().__init__()
        self.conv1, self.bn1 = torch.nn.Conv2d(3, 16, 3, 1, 1, bias=False), torch.nn.BatchNorm2d(16)
        inputs = 16
        for stage, channels in enumerate((16, 32, 64), 1):
            layers = []
            for index in range(units):
                layers.append(AkamasterUnit(inputs, channels, 2 if stage > 1 and index == 0 else 1, option))
                inputs = channels
            setattr(self, f"layer{stage}", torch.nn.Sequential(*layers))
        self.linear = torch.nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def randomise(net):
    """Random weights that keep the signal's size, and random BatchNorms with running statistics, none like another."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if key.endswith("running_var") or (value.ndim == 1 and key.endswith("weight")):
                value.copy_(torch.rand(value.shape, generator=generator) * 0.5 + 0.75)
            elif not value.is_floating_point():
                value.fill_(5)
            elif value.ndim == 1:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
            else:
                value.copy_(torch.randn(value.shape, generator=generator) * (2 / np.prod(value.shape[1:])) ** 0.5)
            # The gates of a hundred layers of random SE amplify roundings to the size of the outputs, theirs in float32
            # against theirs in float64 too. Quieter branches and gates keep the network a network.
            if re.search(r"layer\d.*(bn3\.weight|se\w*\.fc\d\.weight)", key) and hasattr(net, "layer1"):
                value.mul_(0.2)
    return net


def outputs(net, x):
    """Main output of theirs."""
    with torch.no_grad():
        found = net(torch.from_numpy(x))
    return (found if torch.is_tensor(found) else found[0]).numpy()


def check(tmp_path, build, style, name, ours=None, theirs=None):
    """Theirs into ours, the same outputs; ours into a new one of theirs, strictly, the same outputs."""
    text = counterparts(style)[name]
    their = randomise(build(style, text, **(theirs or {})))
    torch.save(their.state_dict(), str(tmp_path / "theirs.pth"))
    net = gluonzoo.get_model(name, **(ours or {}))
    report = load_weights(net, tmp_path / "theirs.pth")
    assert len(report.placed) == len(net._collect_params_with_prefix()) and not report.missing
    size = net.min_size if net.fixed_size else tuple(max(64, side) for side in net.min_size)
    x = np.random.RandomState(1).randn(2, 3, *size).astype("float32")
    expected = outputs(their, x)
    found = net(mx.nd.array(x))
    found = (found.output if net.auxiliary else found).asnumpy()
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"{style} {name}: relative difference {difference:.2e}")
    assert expected.std(axis=0).max() > 1e-3 * np.abs(expected).max(), "the images give different outputs"
    assert difference < 1e-4

    save_weights(net, tmp_path / "ours.pth", style)
    back = build(style, text, **(theirs or {}))
    back.load_state_dict(torch.load(str(tmp_path / "ours.pth"), weights_only=True), strict=True)
    np.testing.assert_allclose(outputs(back, x), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("style, name", QUICK)
def test_same_outputs(tmp_path, build, style, name):
    check(tmp_path, build, style, name)


@pytest.mark.slow
@pytest.mark.parametrize("style, name", SLOW)
def test_same_outputs_of_the_others(tmp_path, build, style, name):
    check(tmp_path, build, style, name)


@pytest.mark.parametrize("option", ["a", "b"])
@pytest.mark.parametrize("layers", [20, 56])
def test_akamaster(tmp_path, build, layers, option):
    check(tmp_path, build, "akamaster", f"cifar_resnet{layers}_v1_{option}", theirs={"option": option})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet_bn", "inception_v3"])
def test_with_auxiliary_heads(tmp_path, build, name):
    check(tmp_path, build, "torchvision", name, ours={"aux": True}, theirs={"aux_logits": True})


def test_safetensors_of_the_package(tmp_path, build):
    package = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    their = randomise(build("torchvision", "resnet18"))
    package.save_file(their.state_dict(), str(tmp_path / "theirs.safetensors"))
    net = gluonzoo.get_model("resnet18_v1")
    load_weights(net, tmp_path / "theirs.safetensors")
    save_weights(net, tmp_path / "ours.safetensors", "torchvision")
    state = package.load_file(str(tmp_path / "ours.safetensors"))
    build("torchvision", "resnet18").load_state_dict(state, strict=True)
    for key, value in their.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(state[key], value), key


@pytest.mark.parametrize("new", [True, False])
def test_reading_is_that_of_torch(tmp_path, new):
    """Without unpickling, the same arrays as torch.load(weights_only=True)."""
    torch.manual_seed(3)
    base = torch.randn(7, 5)
    state = {"a": base, "view": base[2:4], "turned": base.t(), "half": base.half(), "brain": base.bfloat16(),
             "double": base.double(), "count": torch.tensor(5), "flag": base > 0, "byte": torch.arange(5).to(torch.uint8),
             "parameter": torch.nn.Parameter(base[:, 0].clone()), "empty": torch.empty(0, 3), "one": base[3, 2]}
    path = str(tmp_path / "state.pt")
    torch.save({"state_dict": state, "epoch": 3, "best": 0.5, "name": "x", "none": None}, path,
               _use_new_zipfile_serialization=new)
    expected, found = torch.load(path, weights_only=True)["state_dict"], read(path).arrays
    assert list(found) == list(expected)
    for key, value in expected.items():
        value = value.detach()
        value = (value.float() if value.is_floating_point() else value).numpy()
        assert found[key].dtype == value.dtype and found[key].shape == value.shape
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    torch.save(torch.nn.Linear(2, 3), path, _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match="torch.nn.modules.linear.Linear, which is refused"):
        read(path)
