"""The rules of names: complete, one name for one parameter, both ways."""
import gluonzoo
from gluonzoo.errors import UserError
from gluonzoo.interop import akamaster_names, counterparts, styles
from gluonzoo.interop.mapping import Layout, MappingError, Piece, fold_epsilon, modules, rename
from gluonzoo.interop.styles import style

import numpy as np
import pytest
from mxnet.gluon import nn

PAIRS = [(name, ours) for name in ("torchvision", "timm", "akamaster") for ours in sorted(counterparts(name))]


def small():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, in_channels=3), nn.BatchNorm(in_channels=4), nn.Dense(2, in_units=4))
    return net


def test_modules_and_rename():
    net = small()
    assert list(modules(net)) == ["0", "1", "2"] and modules(net)["0"] == {"weight": (4, 3, 3, 3), "bias": (4,)}
    pieces = rename(net, [("0", "conv"), ("1", "bn"), (r"(\d)", lambda match: f"fc{match[1]}")],
                    shapes=[(r"2\.weight", lambda shape: shape + (1, 1))])
    assert [(piece.ours, piece.theirs[0], piece.shapes[0]) for piece in pieces] == [
        ("0.weight", "conv.weight", (4, 3, 3, 3)), ("0.bias", "conv.bias", (4,)), ("1.gamma", "bn.weight", (4,)),
        ("1.beta", "bn.bias", (4,)), ("1.running_mean", "bn.running_mean", (4,)), ("1.running_var", "bn.running_var", (4,)),
        ("2.weight", "fc2.weight", (2, 4, 1, 1)), ("2.bias", "fc2.bias", (2,))]


@pytest.mark.parametrize("rules, words", [
    ([("[01]", "x")], "0.weight|both called|2: no rule"), ([("0", "a"), ("1", "b")], "2: no rule"),
    ([("0", "a"), ("1", "a"), ("2", "c")], "both called a.weight")])
def test_rules_that_do_not_fit(rules, words):
    with pytest.raises(MappingError, match=words):
        rename(small(), rules)


def test_parameter_without_a_rule():
    with pytest.raises(MappingError, match="1.gamma: the rules know no such parameter"):
        rename(small(), [(r"\d", r"x\g<0>")], leaves={"weight": "weight", "bias": "bias"})


def test_folded_epsilon_keeps_the_output():
    piece = fold_epsilon(Piece("v", ("v",), ((3,),)), theirs=1e-3, ours=1e-5)
    theirs = np.array([1e-6, 0.5, 2.0])
    np.testing.assert_allclose(piece.read(theirs) + 1e-5, theirs + 1e-3)
    np.testing.assert_allclose(piece.write(piece.read(theirs))[0], theirs, atol=1e-12)


def test_ignored_names_are_whole_names():
    layout = Layout("x", (), ignored=((r"aux\..*", "aux"),))
    assert layout.why_ignored("aux.weight") == "aux"
    assert layout.why_ignored("features.aux.weight") is None


def test_styles():
    assert styles()[0] == "gluonzoo"
    assert set(counterparts("gluonzoo")) == set(gluonzoo.list_models())
    with pytest.raises(UserError, match="no name style is called 'keras'"):
        style("keras")


@pytest.mark.parametrize("name, ours", PAIRS)
def test_every_parameter_has_one_name(name, ours):
    """The rules cover every network that they claim, with one name for each parameter and their count of numbers."""
    if ours == "cifar_resnet1202_v1_a" or ours == "cifar_resnet1202_v1_b":
        pytest.skip("1,202 layers: as those of 110, and slow to build")
    net = gluonzoo.get_model(ours)
    layout = style(name).layout(net)
    parameters = net._collect_params_with_prefix()
    assert [piece.ours for piece in layout.pieces] == list(parameters)
    names = [their for piece in layout.pieces for their in piece.theirs]
    assert len(set(names)) == len(names)
    for piece in layout.pieces:
        assert np.prod(piece.shapes[0]) == np.prod(parameters[piece.ours].shape), piece
    norms = [their for their in names if their.endswith(".running_mean")]
    assert {their.replace("running_mean", "num_batches_tracked") for their in norms} == set(layout.extra)
    assert all(array.dtype == np.int64 and array.shape == () for array in layout.extra.values())
    assert layout.why_ignored("features.norm0.num_batches_tracked") and layout.why_ignored("features.weight") is None


@pytest.mark.parametrize("name", ["torchvision", "timm", "akamaster"])
def test_networks_that_a_style_does_not_know(name):
    assert style(name).layout(gluonzoo.get_model("lenet5")) is None
    assert style(name).layout(small_network()) is None


def small_network():
    from gluonzoo.classification.cifar_resnet import CifarResNet
    return CifarResNet(20)  # Not of the registry: it has no name.


# A few names by heart, from the packages' own state_dicts.
@pytest.mark.parametrize("name, ours, parameter, theirs, shape", [
    ("torchvision", "resnet50_v1b", "features.stage3.5.conv3.norm.gamma", "layer3.5.bn3.weight", (1024,)),
    ("torchvision", "resnet18_v1", "features.stage2.0.shortcut.norm.running_var", "layer2.0.downsample.1.running_var", (128,)),
    ("torchvision", "vgg16", "features.conv5_3.weight", "features.28.weight", (512, 512, 3, 3)),
    ("torchvision", "vgg16_bn", "features.conv5_3.norm.beta", "features.41.bias", (512,)),
    ("torchvision", "vgg16", "fc6.weight", "classifier.0.weight", (4096, 25088)),
    ("timm", "vgg16", "fc6.weight", "pre_logits.fc1.weight", (4096, 512, 7, 7)),
    ("timm", "vgg16", "output.bias", "head.fc.bias", (1000,)),
    ("torchvision", "alexnet_owt", "features.conv5.bias", "features.10.bias", (256,)),
    ("torchvision", "densenet121", "features.block4.15.conv3x3.conv.weight",
     "features.denseblock4.denselayer16.conv2.weight", (32, 128, 3, 3)),
    ("torchvision", "mobilenet_v2_1_0", "features.stage7.0.project.conv.weight", "features.17.conv.2.weight", (320, 960, 1, 1)),
    ("timm", "mobilenet_v2_1_0", "features.stage7.0.project.conv.weight", "blocks.6.0.conv_pwl.weight", (320, 960, 1, 1)),
    ("torchvision", "squeezenet1_0", "features.fire9.expand3x3.bias", "features.12.expand3x3.bias", (256,)),
    ("torchvision", "squeezenet1_1", "features.fire4.squeeze.weight", "features.6.squeeze.weight", (32, 128, 1, 1)),
    ("torchvision", "inception_v3", "features.inception5.b.branch_double3x3.split1.conv3x1.conv1.conv.weight",
     "Mixed_7c.branch3x3dbl_3b.conv.weight", (384, 384, 3, 1)),
    ("timm", "se_resnet50", "features.stage1.0.se.reduce.weight", "layer1.0.se_module.fc1.weight", (16, 256, 1, 1)),
    ("timm", "dpn92", "features.stage2.0.projection.conv.weight", "features.conv3_1.c1x1_w_s2.conv.weight", (576, 336, 1, 1)),
    ("akamaster", "cifar_resnet20_v1_a", "output.weight", "linear.weight", (10, 64)),
])
def test_known_names(name, ours, parameter, theirs, shape):
    pieces = {piece.ours: piece for piece in style(name).layout(gluonzoo.get_model(ours)).pieces}
    assert pieces[parameter].theirs == (theirs,) and tuple(pieces[parameter].shapes[0]) == shape


def test_old_densenet_names():
    net = gluonzoo.get_model("densenet121")
    module = style("torchvision")
    old = {"features.denseblock1.denselayer1.norm.1.weight": (64,)}
    names = [piece.theirs[0] for piece in module.layout(net, old).pieces]
    assert "features.denseblock4.denselayer16.conv.2.weight" in names and "features.norm5.weight" in names
    new = {"features.denseblock1.denselayer1.norm1.weight": (64,)}
    assert "features.denseblock4.denselayer16.conv2.weight" in [piece.theirs[0] for piece in module.layout(net, new).pieces]


@pytest.mark.parametrize("aux", [False, True])
@pytest.mark.parametrize("ours, name", [("googlenet_bn", "aux1.fc2.weight"), ("inception_v3", "AuxLogits.fc.weight")])
def test_auxiliary_heads(ours, name, aux):
    layout = style("torchvision").layout(gluonzoo.get_model(ours, aux=aux))
    assert (name in [piece.theirs[0] for piece in layout.pieces]) == aux
    assert bool(layout.why_ignored(name)) != aux
    assert "transform_input" in layout.notes[0]


def test_orders_of_akamasters_channels():
    """Its shortcut puts a quarter of the new channels before the old ones; ours puts all behind."""
    orders = akamaster_names._orders()
    for stage in (2, 3):
        channels = len(orders[stage])
        old = np.arange(channels // 2) + 1
        theirs = np.concatenate([np.zeros(channels // 4, int), old, np.zeros(channels // 4, int)])
        if stage == 2:
            np.testing.assert_array_equal(theirs[orders[2]], np.concatenate([old, np.zeros(channels // 2, int)]))
        else:  # The old channels were reordered themselves.
            np.testing.assert_array_equal(theirs[orders[3]][:32], old[orders[2]])
            assert not theirs[orders[3]][32:].any()
