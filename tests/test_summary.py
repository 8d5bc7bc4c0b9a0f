"""Counting parameters and multiply-adds: against numbers worked out by hand, and through the program."""
import importlib.util
import json
import time

import gluonzoo
from gluonzoo.errors import UserError
from gluonzoo.summary import count_macs, count_parameters, format_table, overview, summarize

import mxnet as mx
import pytest
from mxnet.gluon import Block, HybridBlock, nn


def sequential(*layers, kind=nn.HybridSequential):
    net = kind()
    net.add(*layers)
    return net


def only_row(layer, input_shape, **options):
    row, = summarize(sequential(layer), input_shape, **options).rows
    return row.output_shape, row.params, row.macs


@pytest.mark.parametrize("layer, input_shape, expected", [
    # 8 filters of 3*3*3 weights, 6*6 places.
    (nn.Conv2D(8, 3, in_channels=3), (3, 8, 8), ((8, 6, 6), 8 * 27 + 8, 8 * 27 * 36)),
    (nn.Conv2D(8, 3, in_channels=3, use_bias=False, strides=2, padding=1), (3, 7, 9), ((8, 4, 5), 216, 216 * 20)),
    # Depthwise: every filter sees one channel.
    (nn.Conv2D(6, (3, 1), in_channels=6, groups=6), (6, 5, 5), ((6, 3, 5), 18 + 6, 18 * 15)),
    (nn.Conv2D(4, 3, in_channels=2, dilation=2), (2, 9, 9), ((4, 5, 5), 4 * 18 + 4, 4 * 18 * 25)),
    # A deconvolution's 5*5 inputs each meet the 3*4*4 weights of their channel, for all 2 channels.
    (nn.Conv2DTranspose(3, 4, 2, in_channels=2), (2, 5, 5), ((3, 12, 12), 2 * 3 * 16 + 3, 25 * 2 * 3 * 16)),
    (nn.Conv1D(5, 3, in_channels=2), (2, 10), ((5, 8), 35, 5 * 6 * 8)),
    (nn.Dense(10, in_units=20), (20,), ((10,), 210, 200)),
    (nn.Dense(10, in_units=20, use_bias=False), (5, 4), ((10,), 200, 200)),
    # Every one of 7 rows meets all weights.
    (nn.Dense(10, in_units=20, flatten=False), (7, 20), ((7, 10), 210, 7 * 200)),
    (nn.BatchNorm(in_channels=4), (4, 2, 2), ((4, 2, 2), 8, 0)),
    (nn.BatchNorm(in_channels=4, scale=False), (4, 2, 2), ((4, 2, 2), 4, 0)),
    (nn.MaxPool2D(2), (4, 6, 6), ((4, 3, 3), 0, 0)),
])
def test_a_layer(layer, input_shape, expected):
    assert only_row(layer, input_shape) == expected


def test_connections_count_the_biases():
    assert only_row(nn.Conv2D(6, 5, in_channels=1), (1, 32, 32), counting="connections")[2] == 122304  # C1 of LeNet-5
    assert only_row(nn.Dense(84, in_units=120), (120,), counting="connections")[2] == 10164  # F6
    assert only_row(nn.Dense(84, in_units=120, use_bias=False), (120,), counting="connections")[2] == 10080
    with pytest.raises(ValueError, match="'flops'"):
        count_macs(nn.Dense(1, in_units=1), (1,), counting="flops")


def test_shapes_not_known_yet_are_inferred_but_not_guessed():
    net = sequential(nn.Conv2D(8, 3), nn.Dense(10), kind=nn.Sequential)
    summary = summarize(net, (3, 8, 8))
    assert [(row.name, row.type, row.params) for row in summary.rows] == [("0", "Conv2D", 224), ("1", "Dense", 2890)]
    with pytest.raises(UserError, match="conv.*_weight.*in_channels or in_units"):
        count_parameters(net)
    net.initialize()
    net(mx.nd.zeros((1, 3, 8, 8)))
    assert count_parameters(net) == summary.params == 3114


class Twice(HybridBlock):
    """One convolution on two sizes, and one weight in two layers."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.conv = nn.Conv2D(4, 3, in_channels=4, padding=1)
            self.first = nn.Dense(16, in_units=16, flatten=False)
            self.second = nn.Dense(16, in_units=16, flatten=False, params=self.first.params)

    def hybrid_forward(self, F, x):
        small = self.conv(F.Pooling(self.conv(x), kernel=(2, 2), stride=(2, 2)))
        return self.second(self.first(F.reshape(small, shape=(0, 4, -1)))), small


def test_what_runs_twice_counts_twice_but_its_parameters_once():
    summary = summarize(Twice(), (4, 8, 8))
    conv, first, second = summary.rows
    assert (conv.params, conv.macs) == (148, 144 * (64 + 16))
    assert conv.output_shape == (4, 8, 8)
    assert first.params + second.params == 272 and first.macs + second.macs == 2 * 4 * 256
    assert summary.params == count_parameters(Twice()) == 420


class Computed(HybridBlock):
    """A convolution whose weights are computed from a parameter, and one whose weights come from the input."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.scale = self.params.get("scale", shape=(1,))

    def hybrid_forward(self, F, x, scale):
        ones = F.ones((2, 3, 3, 3))
        x = F.Convolution(x, F.broadcast_mul(ones, scale), kernel=(3, 3), num_filter=2, no_bias=True)
        kernel = F.slice(x, begin=(0, 0, 0, 0), end=(1, 2, 3, 3))
        return F.Convolution(x, kernel, kernel=(3, 3), num_filter=1, no_bias=True)


def test_computed_weights_are_counted_too():
    summary = summarize(Computed(), (3, 8, 8))
    assert [(row.name, row.params, row.macs) for row in summary.rows] == [
        ("computed", 1, 54 * 36), ("(rest)", 0, 18 * 16)]
    assert "54" not in summary.text().splitlines()[0] and "(rest)" in summary.text()


def test_frozen_parameters_are_not_trainable():
    net = gluonzoo.get_model("lenet5")
    net.features.collect_params().setattr("grad_req", "null")
    assert count_parameters(net) == summarize(net, (1, 32, 32)).params == 61706 - 156 - 2416
    assert count_parameters(gluonzoo.get_model("lenet5_1998")) == 60000  # The RBF codes have no gradient.


def test_counting_needs_no_parameters_leaves_no_hooks_and_is_quick():
    net = gluonzoo.get_model("resnet152_v1")
    start = time.process_time()
    assert count_macs(net, (3, 224, 224)) == 11282415616
    assert time.process_time() - start < 1
    assert not net._forward_hooks and not net.output._forward_hooks
    assert all(parameter._data is None for parameter in net.collect_params().values())


def test_a_hybridized_initialised_net_can_be_summarised_and_still_runs():
    net = gluonzoo.get_model("lenet5")
    net.initialize()
    net.hybridize(static_alloc=True)
    x = mx.nd.ones((1, 1, 32, 32))
    before = net(x).asnumpy()
    assert summarize(net, (1, 32, 32)).macs == 416520
    assert (net(x).asnumpy() == before).all()


class Numbers(Block):
    def forward(self, x):
        return mx.nd.array(x.asnumpy())


@pytest.mark.parametrize("net, input_shape, message", [
    (lambda: gluonzoo.get_model("lenet5"), (1, 32, 31), "lenet5 takes images of exactly 32x32; the input has 32x31"),
    (lambda: gluonzoo.get_model("lenet5"), (32, 32), "lenet5 takes 4 dimensions"),
    (Numbers, (3,), "symbols cannot pass through Numbers"),
    (lambda: sequential(nn.Conv2D(3, 9, in_channels=1)), (1, 4, 4), "cannot take an input of shape 1x4x4"),
    (lambda: sequential(nn.Dense(3, in_units=5)), (4,), "cannot take an input of shape 4"),
])
def test_what_cannot_be_summarised(net, input_shape, message):
    with pytest.raises(UserError, match=message) as caught:
        summarize(net(), input_shape)
    assert "\n" not in str(caught.value)


def test_table_layout():
    assert format_table(("net", "size"), [("a", "1,000"), ("bcde", "7")]).splitlines() == [
        "net    size", "----  -----", "a     1,000", "bcde      7"]
    assert format_table(("net", "size"), [("a", "1,000")], markdown=True).splitlines() == [
        "| net |  size |", "| --- | ----: |", "| a   | 1,000 |"]


def test_overview_shows_what_the_registry_knows():
    line = overview(["lenet5_1998", "resnet18_v1"], markdown=True).splitlines()[2:]
    assert [cell.strip() for cell in line[0].split("|")[1:-1]] == [
        "lenet5_1998", "Gradient-Based Learning Applied to Document Recognition", "1998", "1x32x32", "60,000",
        "340,908 (connections)"]
    assert "1,814,073,344" in line[1] and "3x224x224" in line[1]


@pytest.fixture
def program(root, monkeypatch, capsys):
    """tools/summarize.py in this process: program("lenet5") -> what it prints."""
    spec = importlib.util.spec_from_file_location("summarize_program", root / "tools" / "summarize.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["summarize.py", *arguments])
        assert module.main() == 0
        return capsys.readouterr().out
    return run


def test_program_prints_layers(program):
    lines = program("lenet5").splitlines()
    assert lines[2].split() == ["features.c1.0", "Conv2D", "6x28x28", "156", "117,600", "18,816"]
    assert lines[-2].split() == ["total", "input", "1x32x32", "61,706", "416,520", "58,408"]
    assert lines[-1] == "memory in float32: parameters 246.8 kB, all layers' outputs for one image 58.4 kB"


def test_program_takes_other_inputs_and_classes(program):
    found = json.loads(program("resnet18_v1", "--input-shape", "1,65,33", "--classes", "7", "--json"))
    assert found["input_shape"] == [1, 65, 33] and found["rows"][-1]["output_shape"] == [7]
    assert found["rows"][0]["params"] == 64 * 49
    assert "| output" in program("lenet5", "--markdown")


def test_program_shows_all_networks(program):
    table = program("--all", "--markdown").splitlines()
    assert len(table) == 2 + len(gluonzoo.list_models()) and all(line.startswith("| ") for line in table)
    names = [spec["name"] for spec in json.loads(program("lenet*", "--all", "--json"))]
    assert names == ["lenet5", "lenet5_1998", "lenet_caffe"]
    with pytest.raises(UserError, match="no network's name matches 'q"):
        program("q*", "--all")


@pytest.mark.parametrize("arguments, message", [
    ((), "name a network"),
    (("lenet5", "--input-shape", "3,x"), "invalid"),
    (("lenet5", "--input-shape", "3,0,5"), "not C,H,W"),
    (("--all", "--classes", "3"), "takes no --input-shape"),
    (("lenet5", "--json", "--markdown"), "exclude each other"),
])
def test_program_refuses_bad_arguments(program, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        program(*arguments)
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_program_shows_one_line_and_exit_code_2_for_a_mistake(run_program):
    done = run_program("tools/summarize.py", "lenet6")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: no network is called 'lenet6'; the nearest are lenet5")
    assert done.stderr.count("\n") == 1
