"""Export to MXNet's symbol format: what is written, who can read it, and what is refused."""
import json
import os

import gluonzoo
from gluonzoo import arrays
from gluonzoo.export import ExportError, Metadata, load_symbol, symbol, to_symbol
from gluonzoo.export.metadata import sha256

import numpy as np
import pytest

mx = pytest.importorskip("mxnet")
nn = mx.gluon.nn

FILES = ["net-0000.params", "net-symbol.json", "net.json"]


class Small(mx.gluon.HybridBlock):
    """Convolution, BatchNorm, dropout, and two outputs by name where asked."""

    def __init__(self, aux=False):
        super().__init__()
        self._aux = aux
        with self.name_scope():
            self.body = nn.HybridSequential()
            self.body.add(nn.Conv2D(4, 3, in_channels=2), nn.BatchNorm(in_channels=4), nn.Dropout(0.5))
            self.output = nn.Dense(3, in_units=4 * 4 * 4)
            self.extra = nn.Dense(2, in_units=4 * 4 * 4)  # Not in the graph without `aux`.

    def hybrid_forward(self, F, x):
        x = self.body(x)
        return [self.output(x), [self.extra(x), x]] if self._aux else self.output(x)


def small(aux=False, seed=1):
    mx.random.seed(seed)
    net = Small(aux)
    net.initialize(mx.init.Normal(0.5))
    # Running statistics that matter.
    net.body[1].running_mean.set_data(mx.nd.random.normal(shape=4))
    net.body[1].running_var.set_data(mx.nd.random.uniform(0.5, 2, shape=4))
    return net


def inputs(batch=2, shape=(2, 6, 6)):
    return mx.nd.array(np.random.RandomState(batch).randn(batch, *shape))


def export(net, tmp_path, **kwargs):
    return to_symbol(net, str(tmp_path / "net"), (2, 6, 6), **kwargs)


def listing(tmp_path):
    return sorted(os.listdir(str(tmp_path)))


def state(net):
    """Everything a caller could see change."""
    values = {name: [data.asnumpy() for data in parameter.list_data()] for name, parameter in
              net._collect_params_with_prefix().items()}
    facts = {name: (parameter.grad_req, parameter.dtype, parameter.list_ctx(), parameter.name)
             for name, parameter in net._collect_params_with_prefix().items()}
    return values, facts, [block._active for block in (net, net.body, net.output)]


@pytest.mark.smoke
def test_round_trip_to_the_bit(tmp_path):
    net = small()
    result = export(net, tmp_path)
    assert listing(tmp_path) == FILES
    assert (result.difference.absolute, result.difference.relative) == (0.0, 0.0)
    block, metadata = load_symbol(str(tmp_path / "net"))
    for batch in (1, 5):
        np.testing.assert_array_equal(block(inputs(batch)).asnumpy(), net(inputs(batch)).asnumpy())
    assert metadata.input_shape == (2, 6, 6) and metadata.model is None and metadata.outputs == ("output",)
    assert metadata.gluonzoo == gluonzoo.__version__
    for role, path in (("symbol", result.symbol), ("parameters", result.parameters)):
        assert metadata.files[role] == (os.path.basename(path), sha256(path))


@pytest.mark.smoke
def test_mxnets_own_readers_take_it(tmp_path):
    net = small()
    result = export(net, tmp_path)
    expected = net(inputs()).asnumpy()
    block = mx.gluon.SymbolBlock.imports(result.symbol, ["data"], result.parameters)
    np.testing.assert_array_equal(block(inputs()).asnumpy(), expected)
    graph, args, aux = mx.model.load_checkpoint(str(tmp_path / "net"), 0)
    assert sorted(aux) == ["body.1.running_mean", "body.1.running_var"]
    module = mx.mod.Module(graph, label_names=None)
    module.bind([("data", (2, 2, 6, 6))], for_training=False)
    module.set_params(args, aux)
    module.forward(mx.io.DataBatch([inputs()]), is_train=False)
    np.testing.assert_allclose(module.get_outputs()[0].asnumpy(), expected, rtol=1e-6, atol=1e-6)


def test_names_are_structural_and_unused_parameters_stay_out(tmp_path):
    result = export(small(), tmp_path)
    with open(result.symbol, encoding="utf-8") as file:
        nodes = json.load(file)["nodes"]
    names = [node["name"] for node in nodes]
    assert len(set(names)) == len(names)
    assert {"data", "body.0.weight", "body.1.gamma", "output.bias", "body.0.fwd", "output.fwd"} <= set(names)
    assert sorted(arrays.load(result.parameters)) == sorted(
        ["arg:body.0.weight", "arg:body.0.bias", "arg:body.1.gamma", "arg:body.1.beta", "arg:output.weight",
         "arg:output.bias", "aux:body.1.running_mean", "aux:body.1.running_var"])


def test_the_same_network_gives_the_same_bytes_whatever_came_before(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    net, twin = small(seed=5), small(seed=5)
    first, _ = export(net, tmp_path / "a"), twin(inputs())
    twin.hybridize()
    twin(inputs())
    second = export(twin, tmp_path / "b")
    again = export(net, tmp_path / "a", force=True)  # Tracing counts up inside MXNet.
    for one, two in ((first, second), (again, second)):
        for field in ("symbol", "parameters", "metadata"):
            with open(getattr(one, field), "rb") as a, open(getattr(two, field), "rb") as b:
                assert a.read() == b.read()


@pytest.mark.parametrize("how", ["eager", "hybridized", "static", "hybridized and run"])
def test_the_callers_network_stays_as_it_was(tmp_path, how):
    net = small()
    if how != "eager":
        net.hybridize(static_alloc=how == "static", static_shape=how == "static")
    if how.endswith("run"):
        net(inputs())
    net.body[0].weight.grad_req = "add"
    before = state(net)
    mx.random.seed(9)
    expected = mx.nd.random.uniform(shape=2).asnumpy()
    mx.random.seed(9)
    with mx.autograd.record():
        export(net, tmp_path)
        assert mx.autograd.is_recording() and mx.autograd.is_training()
    np.testing.assert_array_equal(mx.nd.random.uniform(shape=2).asnumpy(), expected)
    after = state(net)
    assert after[1:] == before[1:]
    for name in before[0]:
        np.testing.assert_array_equal(after[0][name], before[0][name])
    with mx.autograd.record():
        loss = net(inputs()).sum()
    loss.backward()
    assert net.body[0].weight.grad().asnumpy().any()
    assert not np.array_equal(net.body[1].running_mean.data().asnumpy(), before[0]["body.1.running_mean"][0])


def test_weights_stay_readable_for_a_kvstore(tmp_path):
    net = mx.gluon.nn.HybridSequential()
    net.add(nn.Conv2D(16, 3, in_channels=16), nn.Conv2D(16, 3, in_channels=16))
    net.initialize()
    to_symbol(net, str(tmp_path / "net"), (16, 20, 20))
    mx.nd.waitall()
    # Inference reorders weights in place; DLPack, like ps-lite, refuses such an array.
    for parameter in net.collect_params().values():
        parameter.data().to_dlpack_for_read()


def test_several_devices_give_the_first_ones_parameters(tmp_path):
    net = small()
    net.collect_params().reset_ctx([mx.cpu(1), mx.cpu(0)])
    net.body[1].running_mean.list_data()[1][:] = 77
    assert export(net, tmp_path).difference.absolute == 0.0
    assert [str(ctx) for ctx in net.output.weight.list_ctx()] == ["cpu(1)", "cpu(0)"]
    assert net.body[1].running_mean.list_data()[1].asnumpy().tolist() == [77] * 4


def test_several_outputs(tmp_path):
    net = small(aux=True)
    export(net, tmp_path)
    block, metadata = load_symbol(str(tmp_path / "net"))
    assert metadata.outputs == ("output0", "output1_0", "output1_1")
    live, exported = net(inputs()), block(inputs())
    for a, b in zip((live[0], live[1][0], live[1][1]), exported):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())


def test_a_shared_block_is_written_once(tmp_path):
    net = nn.HybridSequential()
    dense = nn.Dense(3, in_units=3, activation="relu")
    net.add(dense, nn.BatchNorm(in_channels=3), dense)
    net.initialize()
    result = to_symbol(net, str(tmp_path / "net"), (3,))
    with open(result.symbol, encoding="utf-8") as file:
        names = [node["name"] for node in json.load(file)["nodes"]]
    assert len(set(names)) == len(names)
    assert "arg:0.weight" in arrays.load(result.parameters) and "arg:2.weight" not in arrays.load(result.parameters)


def test_an_import_can_be_exported_again(tmp_path):
    net = small()
    export(net, tmp_path)
    block, _ = load_symbol(str(tmp_path / "net"))
    to_symbol(block, str(tmp_path / "again"), (2, 6, 6))
    np.testing.assert_array_equal(load_symbol(str(tmp_path / "again"))[0](inputs()).asnumpy(), net(inputs()).asnumpy())


def test_metadata_of_the_caller(tmp_path):
    own = {"classes": ["a", "b", "c"], "mean": [0.5], "std": np.array([0.25]), "dataset": "own"}
    export(small(), tmp_path, metadata=own)
    found = Metadata.read(str(tmp_path / "net.json"))
    assert (found.classes, found.mean, found.std, found.dataset) == (("a", "b", "c"), (0.5,), (0.25,), "own")


def test_registered_networks_bring_their_shape_and_how_they_were_built(tmp_path):
    net = gluonzoo.get_model("lenet5", classes=7, in_channels=3)
    net.initialize()
    to_symbol(net, str(tmp_path / "net"))
    metadata = Metadata.read(str(tmp_path / "net.json"))
    assert (metadata.model, metadata.input_shape) == ("lenet5", (3, 32, 32))
    assert metadata.model_kwargs == {"classes": 7, "in_channels": 3}
    with pytest.raises(ExportError, match="3 class names for a network of 7 classes"):
        to_symbol(net, str(tmp_path / "other"), metadata={"classes": "abc"})


@pytest.mark.parametrize("source", ["net", "net.json", "net-symbol.json", "net-0000.params", ""])
def test_every_way_to_name_an_export(tmp_path, source):
    export(small(), tmp_path)
    block, metadata = load_symbol(str(tmp_path / source) if source else tmp_path)
    assert block(inputs()).shape == (2, 3) and metadata.input_shape == (2, 6, 6)


def test_an_export_of_mxnets_own_is_read_as_a_pair(tmp_path):
    net = small()
    net.hybridize()
    expected = net(inputs()).asnumpy()
    net.export(str(tmp_path / "theirs"), epoch=3)
    block, metadata = load_symbol((tmp_path / "theirs-symbol.json", tmp_path / "theirs-0003.params"))
    np.testing.assert_array_equal(block(inputs()).asnumpy(), expected)
    assert metadata is None


def test_existing_files_are_not_replaced_without_force(tmp_path):
    (tmp_path / "net.json").write_text("mine")
    with pytest.raises(ExportError, match=r"net\.json: already there.*--force"):
        export(small(), tmp_path)
    assert listing(tmp_path) == ["net.json"] and (tmp_path / "net.json").read_text() == "mine"
    export(small(), tmp_path, force=True)
    assert listing(tmp_path) == FILES
    load_symbol(str(tmp_path / "net"))


def test_folders_are_made(tmp_path):
    export(small(), tmp_path / "a" / "b")
    assert listing(tmp_path / "a" / "b") == FILES


def test_a_prefix_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = to_symbol(small(), "net", (2, 6, 6))
    assert (result.symbol, listing(tmp_path)) == ("net-symbol.json", FILES)
    assert load_symbol("net")[0](inputs()).shape == (2, 3)


def uninitialised():
    return Small()


def deferred():
    net = nn.HybridSequential()
    net.add(nn.Dense(3))
    net.initialize()
    return net


def not_hybrid():
    net = nn.Sequential()
    net.add(nn.Dense(3, in_units=2))
    net.initialize()
    return net


def broken_values():
    net = small()
    net.output.bias.set_data(mx.nd.array([1, float("nan"), 2]))
    return net


def random_in_inference():
    class Noisy(mx.gluon.HybridBlock):
        def hybrid_forward(self, F, x):
            return F.broadcast_add(x, F.random.normal(shape=(1, 1, 1, 1)))

    return Noisy()


@pytest.mark.parametrize("make, kwargs, words", [
    (uninitialised, {}, "no values yet.*body.0.weight"),
    (deferred, {}, "no values yet.*run it once"),
    (not_hybrid, {}, "expected a HybridBlock, received Sequential"),
    (lambda: "lenet5", {}, "expected a HybridBlock, received str"),
    (broken_values, {}, "output.bias holds NaN"),
    (small, {"input_shape": None}, "give input_shape"),
    (small, {"input_shape": (2, 0, 6)}, "input_shape is"),
    (small, {"input_shape": "wide"}, "input_shape"),
    (small, {"input_shape": (5, 6, 6)}, "does not run on float32 inputs"),
    (small, {"metadata": {"colour": 1}}, "metadata has colour"),
    (small, {"metadata": {"mean": [0.1]}}, "both or neither"),
    (small, {"metadata": {"mean": 0.1, "std": 1}}, "metadata"),
])
def test_what_cannot_be_exported(tmp_path, make, kwargs, words):
    with pytest.raises(ExportError, match=words) as caught:
        to_symbol(make(), str(tmp_path / "net"), **dict({"input_shape": (2, 6, 6)}, **kwargs))
    assert listing(tmp_path) == [] and "\n" not in str(caught.value)


def test_input_refused_by_the_network_leaves_no_file(tmp_path):
    net = gluonzoo.get_model("lenet5")
    net.initialize()
    with pytest.raises(gluonzoo.errors.UserError, match="exactly 32x32"):
        to_symbol(net, str(tmp_path / "net"), (1, 28, 28))
    assert listing(tmp_path) == []


def test_a_mismatch_is_an_error_and_leaves_no_file(tmp_path, monkeypatch):
    def damaged(path, values):
        save(path, {name: value * np.float32(1.001) for name, value in values.items()})

    save = arrays.save
    export(small(seed=8), tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    monkeypatch.setattr(symbol.arrays, "save", damaged)
    with pytest.raises(ExportError, match="differs from the live one by"):
        export(small(), tmp_path, force=True)
    assert {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)} == before


def test_a_network_that_is_no_function_is_an_error(tmp_path):
    with pytest.raises(ExportError, match="differs from the live one"):
        to_symbol(random_in_inference(), str(tmp_path / "net"), (2, 6, 6))
    assert listing(tmp_path) == []


def test_a_disk_that_fails_leaves_no_file(tmp_path, monkeypatch):
    def full(path, values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(symbol.arrays, "save", full)
    with pytest.raises(OSError, match="No space"):
        export(small(), tmp_path)
    assert listing(tmp_path) == []


def test_a_prefix_must_name_a_file(tmp_path):
    for prefix in (str(tmp_path), str(tmp_path) + "/", ""):
        with pytest.raises(ExportError, match="expected FOLDER/NAME"):
            to_symbol(small(), prefix, (2, 6, 6))


@pytest.mark.parametrize("name", ["net-0000.params", "net-symbol.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_files_are_refused_by_name(tmp_path, name, damage):
    export(small(), tmp_path)
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content) if damage == "flip" else bytes(content[:-1]))
    with pytest.raises(ExportError, match="No such file" if damage == "remove" else "SHA-256") as caught:
        load_symbol(str(tmp_path / "net"))
    assert name in str(caught.value)


def test_files_that_do_not_belong_together(tmp_path):
    export(small(), tmp_path)
    pair = str(tmp_path / "net-symbol.json"), str(tmp_path / "net-0000.params")
    whole = arrays.load(pair[1])

    def refused(values, words):
        arrays.save(pair[1], values)
        with pytest.raises(ExportError, match=words) as caught:
            load_symbol(pair)
        assert "net-0000.params" in str(caught.value)

    def zeros(*shape):
        return np.zeros(shape, "float32")

    refused({name: value for name, value in whole.items() if name != "arg:output.bias"}, "output.bias")
    refused(dict(whole, **{"arg:more": zeros(1)}), "has no more")
    refused(dict(whole, **{"arg:output.weight": zeros(3, 7)}),
            r"output.weight has shape \(3, 7\); the graph expects \(3, 64\)")
    refused(dict(whole, **{"aux:body.1.running_mean": zeros(9)}),
            r"running_mean has shape \(9,\); the graph expects \(4,\)")
    refused(dict(whole, **{"aux:output.bias": zeros(3)}), "both as arg: and as aux:")
    arrays.save(pair[1], whole)
    assert load_symbol(pair)[0](inputs()).shape == (2, 3)


def test_parameters_are_checked_before_mxnet_sees_them(tmp_path):
    export(small(), tmp_path)
    path = tmp_path / "net-0000.params"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(arrays.FormatError, match="net-0000.params"):
        load_symbol((tmp_path / "net-symbol.json", path))


@pytest.mark.parametrize("change", [
    lambda graph: [], lambda graph: {}, lambda graph: dict(graph, nodes=3), lambda graph: dict(graph, heads=[]),
    lambda graph: dict(graph, heads=[[10 ** 6, 0, 0]]), lambda graph: dict(graph, heads=[[-1, 0, 0]]),
    lambda graph: dict(graph, arg_nodes=[10 ** 6]), lambda graph: dict(graph, arg_nodes=None),
    lambda graph: dict(graph, nodes=[dict(node, inputs=[[10 ** 6, 0, 0]]) for node in graph["nodes"]]),
    lambda graph: dict(graph, nodes=[dict(node, inputs=[[len(graph["nodes"]) - 1, 0, 0]]) for node in graph["nodes"]]),
    lambda graph: dict(graph, nodes=[dict(node, name=None) for node in graph["nodes"]]),
    lambda graph: dict(graph, nodes=[dict(node, op="NoSuchOperator") for node in graph["nodes"]]),
])
def test_broken_graphs_are_refused(tmp_path, change):
    export(small(), tmp_path)
    path = tmp_path / "net-symbol.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ExportError, match="net-symbol.json"):
        load_symbol((path, tmp_path / "net-0000.params"))


def test_no_export_there(tmp_path):
    with pytest.raises(ExportError, match="no export there"):
        load_symbol(str(tmp_path / "absent"))
    with pytest.raises(ExportError, match="found none"):
        load_symbol(str(tmp_path))
    export(small(), tmp_path)
    to_symbol(small(), str(tmp_path / "two"), (2, 6, 6))
    with pytest.raises(ExportError, match="net.json, two.json"):
        load_symbol(str(tmp_path))


def test_metadata_without_files_is_refused(tmp_path):
    Metadata(input_shape=(1,)).write(str(tmp_path / "net.json"))
    with pytest.raises(ExportError, match="expected symbol and parameters"):
        load_symbol(str(tmp_path / "net"))


def test_a_mismatch_names_the_first_layer_that_differs(tmp_path, monkeypatch):
    """The parameter file is written with one number changed, somewhere in the middle."""
    from gluonzoo import arrays
    net, save = gluonzoo.get_model("cifar_resnet20_v1_a"), arrays.save
    net.initialize()

    def changed(path, values):
        values["arg:features.stage2.1.conv2.norm.beta"] = values["arg:features.stage2.1.conv2.norm.beta"] + np.float32(0.5)
        save(path, values)

    monkeypatch.setattr("gluonzoo.export.symbol.arrays.save", changed)
    with pytest.raises(ExportError, match=r"the first layer that differs is BatchNorm 'features\.stage2\.1\.conv2\."):
        to_symbol(net, str(tmp_path / "net"))
    assert not list(tmp_path.iterdir())
