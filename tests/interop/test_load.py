"""Weights into networks and out of them, without another package."""
import gluonzoo
from gluonzoo import arrays
from gluonzoo.errors import UserError
from gluonzoo.interop import load_weights, read, save_weights
from gluonzoo.interop.load import arrays_for

import mxnet as mx
import numpy as np
import pytest
from weight_files import safetensors, torch_legacy, torch_zip


def network(name="cifar_resnet20_v1_a", seed=0, **options):
    """A network with random values in every parameter, running statistics too."""
    net = gluonzoo.get_model(name, **options)
    net.initialize()
    rng = np.random.RandomState(seed)
    for parameter in net._collect_params_with_prefix().values():
        values = rng.rand(*parameter.shape) + 0.5 if parameter.shape[1:] == () else rng.randn(*parameter.shape) * 0.1
        parameter.set_data(mx.nd.array(values))
    return net


def parameters(net):
    return {key: value.data().asnumpy() for key, value in net._collect_params_with_prefix().items()}


def assert_same(one, other):
    one, other = parameters(one), parameters(other)
    assert set(one) == set(other)
    for key in one:
        np.testing.assert_allclose(one[key], other[key], rtol=1e-6, err_msg=key)


@pytest.mark.parametrize("name, style", [
    ("cifar_resnet20_v1_a", "gluonzoo"), ("cifar_resnet20_v1_a", "akamaster"), ("cifar_resnet20_v1_b", "akamaster"),
    ("shufflenet_v2_0_5", "torchvision"), ("squeezenet1_1", "torchvision"), ("mobilenet_v2_0_5", "torchvision"),
    ("mobilenet_v2_0_5", "timm"), ("googlenet_bn", "torchvision"), ("dpn68", "timm")])
def test_out_and_in_again(tmp_path, name, style):
    net = network(name)
    path = str(tmp_path / "weights.params")
    save_weights(net, path, style)
    other = gluonzoo.get_model(name)
    report = load_weights(other, path)  # Not initialised, and the names are found out.
    assert_same(net, other)
    assert report.source == style and report.format == "params"
    assert sorted(report.placed) == sorted(parameters(net)) and report.missing == ()
    counters = sum(key.endswith("running_mean") for key in report.placed)
    assert len(report.unused) == (counters if style != "gluonzoo" else 0)
    assert all(key.endswith("num_batches_tracked") for key, _ in report.unused)
    assert str(len(report.placed)) in str(report)


@pytest.mark.parametrize("make", [torch_zip, torch_legacy])
def test_cifar_files_of_akamaster(tmp_path, make):
    net = network()
    values = {key: value for key, value in arrays_for(net, "akamaster").items() if "num_batches" not in key}
    path = tmp_path / "resnet20.th"
    path.write_bytes(make(values, wrap=lambda state: {
        "state_dict": {"module." + key: value for key, value in state.items()}, "best_prec1": 91.7}))
    other = network(seed=1)
    report = load_weights(other, path)
    assert_same(net, other)
    assert report.source == "akamaster" and report.unused == ()


def test_safetensors_of_torchvision(tmp_path):
    pytest.importorskip("safetensors")
    net = network("resnet18_v1b")
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(arrays_for(net, "torchvision")))
    other = gluonzoo.get_model("resnet18_v1b")
    assert load_weights(other, path).title == "torchvision's resnet18"
    assert_same(net, other)
    save_weights(other, tmp_path / "back.safetensors", "torchvision")
    found = read(tmp_path / "back.safetensors").arrays
    assert found["bn1.num_batches_tracked"].dtype == np.int64 and found["bn1.num_batches_tracked"].shape == ()
    assert set(found) == set(arrays_for(net, "torchvision"))


def saved(tmp_path, net, style="gluonzoo", change=None):
    values = arrays_for(net, style)
    if change:
        change(values)
    path = str(tmp_path / "changed.params")
    arrays.save(path, values)
    return path


def check_refused(net, path, words, **options):
    before = parameters(net)
    with pytest.raises(UserError, match=words) as caught:
        load_weights(net, path, **options)
    for key, value in parameters(net).items():
        np.testing.assert_array_equal(value, before[key], err_msg="changed although the file was refused")
    assert "\n" not in str(caught.value)
    return caught.value


def test_missing_unplaced_and_misshapen_are_all_listed(tmp_path):
    net = network()

    def change(values):
        del values["layer1.0.conv1.weight"], values["layer1.0.bn2.running_var"]
        values["layer9.weight"] = values.pop("layer2.0.conv1.weight")
        values["linear.weight"] = values["linear.weight"].reshape(64, 10)

    error = check_refused(network(seed=1), saved(tmp_path, net, "akamaster", change), "closest is akamaster's resnet20")
    assert set(error.missing) == {"layer1.0.conv1.weight", "layer1.0.bn2.running_var", "layer2.0.conv1.weight"}
    assert error.unplaced == ("layer9.weight",)
    assert error.misshapen == (("linear.weight", (64, 10), (10, 64)),)
    for name in error.missing + error.unplaced + ("linear.weight",):
        assert name in str(error)


def test_same_size_in_other_shape_is_refused(tmp_path):
    def change(values):
        values["layer1.0.conv1.weight"] = values["layer1.0.conv1.weight"].reshape(16, 144)

    check_refused(network(seed=1), saved(tmp_path, network(), "akamaster", change), r"\(16, 144\), expected \(16, 16, 3, 3\)")


def test_another_network_is_refused(tmp_path):
    path = saved(tmp_path, network())
    check_refused(network("cifar_resnet32_v1_a"), path, "does not fit cifar_resnet32_v1_a.*missing in the file")
    check_refused(network("cifar_resnet20_v1_b"), path, "features.stage2.0.shortcut.conv.weight")
    check_refused(network("lenet5"), path, "does not fit lenet5")


def test_skip_output(tmp_path):
    net = network(classes=7)
    path = saved(tmp_path, net, "akamaster")
    other = network(seed=1)
    check_refused(other, path, r"linear\.weight is \(7, 64\), expected \(10, 64\).*skip_output=True")
    head = {key: value for key, value in parameters(other).items() if key.startswith("output.")}
    report = load_weights(other, path, skip_output=True)
    assert set(report.missing) == set(head) == {"output.weight", "output.bias"}
    assert {name for name, _ in report.unused} >= {"linear.weight", "linear.bias"}
    found, expected = parameters(other), {**parameters(net), **head}
    for key in found:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-6, err_msg=key)


def test_skip_output_leaves_auxiliary_heads_too(tmp_path):
    path = saved(tmp_path, network("googlenet_bn", classes=3, aux=True), "torchvision")
    report = load_weights(network("googlenet_bn", classes=5, aux=True, seed=1), path, skip_output=True)
    assert set(report.missing) == {f"{head}output.{leaf}" for head in ("", "aux1.", "aux2.") for leaf in ("weight", "bias")}
    plain = load_weights(network("googlenet_bn", classes=3, seed=1), path)
    assert sum("auxiliary head" in reason for _, reason in plain.unused) > 10
    check_refused(network("googlenet_bn", classes=3, aux=True, seed=1), saved(
        tmp_path, network("googlenet_bn", classes=3), "torchvision"), "aux1.fc1.weight")


def test_whole_numbers_are_refused(tmp_path):
    def change(values):
        values["linear.bias"] = np.arange(10)

    check_refused(network(seed=1), saved(tmp_path, network(), "akamaster", change), "linear.bias: expected floating point")


def test_nonfinite(tmp_path):
    def change(values):
        values["bn1.running_mean"][3] = np.nan

    path = saved(tmp_path, network(), "akamaster", change)
    net = network(seed=1)
    check_refused(net, path, r"bn1\.running_mean")
    load_weights(net, path, allow_nonfinite=True)
    assert np.isnan(parameters(net)["features.stem.norm.running_mean"]).sum() == 1


def test_sources(tmp_path):
    path = saved(tmp_path, network(), "akamaster")
    assert load_weights(network(seed=1), path, source="akamaster").source == "akamaster"
    check_refused(network(seed=1), path, "as gluonzoo's cifar_resnet20_v1_a", source="gluonzoo")
    check_refused(network(seed=1), path, "torchvision has no counterpart of cifar_resnet20_v1_a", source="torchvision")
    check_refused(network(seed=1), path, "source is 'keras'; expected auto, gluonzoo", source="keras")


def test_two_styles_with_other_meanings_must_be_told_apart(tmp_path, monkeypatch):
    from gluonzoo.interop import timm_names
    real = timm_names.layout

    def reversed_layout(net, found=None):
        layout = real(net, found)
        return layout and layout.replace(pieces=tuple(
            piece._replace(read=lambda array: -array) if piece.ours == "output.bias" else piece for piece in layout.pieces))

    path = saved(tmp_path, network("resnet18_v1"), "torchvision")
    net = network("resnet18_v1", seed=1)
    assert load_weights(net, path).source == "torchvision", "the same names with the same meaning are no question"
    monkeypatch.setattr(timm_names, "layout", reversed_layout)
    check_refused(net, path, "torchvision's resnet18 and, differently, as timm's resnet18")
    assert load_weights(net, path, source="timm").source == "timm"


def test_an_export_loads(tmp_path):
    net = network("lenet5")
    values = {("aux:" if "running" in key else "arg:") + key: value for key, value in parameters(net).items()}
    arrays.save(str(tmp_path / "e.params"), values)
    other = gluonzoo.get_model("lenet5")
    load_weights(other, tmp_path / "e.params")
    assert_same(net, other)


def test_several_devices_and_types(tmp_path):
    net = network("lenet5")
    path = saved(tmp_path, net)
    other = gluonzoo.get_model("lenet5")
    load_weights(other, path, ctx=[mx.cpu(0), mx.cpu(1)])
    for key, parameter in other._collect_params_with_prefix().items():
        for copy in parameter.list_data():
            np.testing.assert_array_equal(copy.asnumpy(), parameters(net)[key])
    other = gluonzoo.get_model("lenet5")
    other.cast("float64")
    load_weights(other, path)
    assert all(value.dtype == np.float64 for value in parameters(other).values())


def test_what_cannot_be_saved(tmp_path):
    path = tmp_path / "a.params"
    with pytest.raises(UserError, match="initialised"):
        save_weights(gluonzoo.get_model("lenet5"), path)
    with pytest.raises(UserError, match="timm has no counterpart of lenet5"):
        save_weights(network("lenet5"), path, "timm")
    with pytest.raises(UserError, match="no name style"):
        save_weights(network("lenet5"), path, "keras")
    assert not path.exists()


def test_training_starts_from_any_file(tmp_path):
    from gluonzoo.training import load_weights as training_load
    net = network()
    path = saved(tmp_path, net, "akamaster")
    other = network(seed=1)
    training_load(other, path)
    assert_same(net, other)
