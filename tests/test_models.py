"""What every registered network must do; a new one is tested by being registered.

Counts and shapes are inferred, nothing is run for them. What must run uses two images of about a quarter of the standard size
(or the one size the network takes): the last maps then still have several pixels, and no gradient vanishes.
"""
import csv
import inspect
import math
import os
import subprocess
import sys
import tempfile

import gluonzoo
from gluonzoo.errors import UserError
from gluonzoo.layers import features
from gluonzoo.summary import count_macs, count_parameters, summarize

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon

NAMES = gluonzoo.list_models()
#: Networks that share a row of models.csv with another name.
SAME_AS = {"resnet18_v1b": "resnet18_v1", "resnet34_v1b": "resnet34_v1"}
#: Networks that `make test` runs, at least one of each family but the heaviest (`SLOW_FAMILIES`: 80 million parameters and
#: more, or hundreds of layers); `make slow` runs the others too. All of them are checked without being run.
RUN = ("lenet5", "lenet5_1998", "lenet_caffe", "alexnet_owt", "nin_cifar10", "googlenet",
       "googlenet_bn", "bn_inception", "inception_v2", "inception_v3", "inception_v4", "inception_resnet_v1", "resnet18_v1",
       "resnet18_v1_a", "resnet50_v1", "resnet50_v1b", "resnet18_v2", "resnet50_v2", "resnet50_v2_stride1x1",
       "cifar_resnet20_v1_a", "cifar_resnet20_v1_b", "cifar_resnet20_v2", "cifar_resnet164_v2", "resnext50_32x4d",
       "cifar_resnext29_32x4d", "densenet121", "cifar_densenet_l40_k12", "cifar_densenet_bc_l100_k12", "se_resnet18",
       "se_resnet50", "se_resnext50_32x4d", "se_bn_inception", "squeezenet1_0", "squeezenet1_1", "mobilenet_v1_0_5",
       "mobilenet_v2_1_0", "shufflenet_v1_g1_0_25", "shufflenet_v1_g3_1_0", "shufflenet_v2_1_0", "xception", "dpn68",
       "xnor_resnet18", "stn_mnist", "darknet19")
SLOW_FAMILIES = {"ZFNet", "VGG", "MSRA-net", "PolyNet", "PVANet"}
#: The same builder with aux=True: (row of models.csv, multiply-adds of the whole graph; the rows of the last two count the
#: graph without the heads, and their notes give the number for the whole one).
AUXILIARY = {"googlenet": ("googlenet_aux", 1591044096), "googlenet_bn": ("googlenet_bn_aux", 1506748416),
             "inception_v3": ("inception_v3_aux", 5718899296)}

every_name = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def table():
    """models.csv by name."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    shared = os.environ.get("GLUONZOO_SHARED") or os.path.join(root, "shared")
    path = os.path.join(shared, "zoo", "models.csv")
    if not os.path.exists(path):
        pytest.skip(f"no {path}: the table of counts is not part of the checkout (set GLUONZOO_SHARED)")
    with open(path, newline="") as file:
        return {row["model_id"]: row for row in csv.DictReader(file)}


def small_input(net, name, batch=2):
    spec = gluonzoo.model_spec(name)
    # The smallest images end in maps of one pixel, where two images are too few for a BatchNorm.
    size = net.min_size if net.fixed_size else [
        max(low + 32 if low > 32 else low, full // 4 if full <= 32 else 32 * math.ceil(full / 128))
        for low, full in zip(net.min_size, spec.input_shape[1:])]
    return mx.nd.random.normal(shape=(batch, spec.input_shape[0]) + tuple(size))


def gradients(net, x):
    """One training step's gradients by structural name; the loss is softmax cross entropy."""
    label = mx.nd.arange(x.shape[0])
    with autograd.record():
        loss = gluon.loss.SoftmaxCrossEntropyLoss()(net(x), label)
    loss.backward()
    return {key: parameter.grad().asnumpy() for key, parameter in net._collect_params_with_prefix().items()
            if parameter.grad_req != "null"}


def without_dropout(net):
    """The network itself; the random choices of two ways to run it would differ."""
    net.apply(lambda block: setattr(block, "_rate", 0) if isinstance(block, gluon.nn.Dropout) else None)
    return net


def set_momentum(net, momentum):
    """Of every BatchNorm; 0 makes the running statistics those of the next batch."""
    def change(block):
        if isinstance(block, gluon.nn.BatchNorm):
            block._kwargs["momentum"] = momentum
    net.apply(change)


class Sample:
    """A network after one eager training step, with everything that the other ways of running it must reproduce.

    The running statistics are those of the batch: with untouched ones the signal of a deep residual network doubles
    at every unit, and outputs of 1e30 prove nothing.
    """

    def __init__(self, name):
        mx.random.seed(7)
        self.name, self.net = name, without_dropout(gluonzoo.get_model(name))
        self.net.initialize()
        for key, parameter in self.net._collect_params_with_prefix().items():
            # Weights that start at zero let no gradient through to the layers before them.
            if key.endswith("weight") and not parameter.data().asnumpy().any():
                parameter.set_data(mx.nd.random.normal(0, 0.01, parameter.shape))
        self.x = small_input(self.net, name)
        set_momentum(self.net, 0.0)
        self.gradients = gradients(self.net, self.x)
        set_momentum(self.net, 0.9)
        self.output = self.net(self.x).asnumpy()


@pytest.fixture(scope="module", params=[pytest.param(name, marks=[] if name in RUN else [pytest.mark.slow])
                                        for name in NAMES])
def sample(request):
    return Sample(request.param)


@pytest.fixture
def folder():
    # Not tmp_path: pytest keeps those, and these files have hundreds of megabytes.
    with tempfile.TemporaryDirectory() as path:
        yield path


@every_name
def test_counts_are_the_specification(name):
    spec, net = gluonzoo.model_spec(name), gluonzoo.get_model(name)
    assert count_parameters(net) == spec.params
    assert count_macs(net, spec.input_shape, spec.counting) == spec.macs


@every_name
def test_specification_is_the_table(name, table):
    spec, row = gluonzoo.model_spec(name), table[SAME_AS.get(name, name)]
    if row["params_flag"] == "exact":
        assert (spec.params, spec.macs) == (int(row["params"]), int(row["macs"]))
    else:  # The builder says what was chosen, and the few published figures are met roughly.
        assert row["params_flag"] in ("approx", "not fixed by paper") and spec.notes
        assert spec.params == pytest.approx(int(row["params"] or spec.params), rel=0.01)
        assert spec.macs == pytest.approx(int(row["macs"] or spec.macs), rel=0.05)
    assert (spec.paper, str(spec.year), spec.task, spec.family) == (
        row["paper"], row["year"], row["task"], row["family"])
    assert "x".join(map(str, spec.input_shape)) == row["input_shape"] and str(spec.classes) == row["output_shape"]
    assert row["arxiv"].startswith("none") or row["arxiv"] in spec.link


def test_every_row_of_the_table_is_registered(table):
    rows = {name for name, row in table.items() if row["task"] == "classification"}
    assert rows - {name for name, _ in AUXILIARY.values()} == set(NAMES) - set(SAME_AS)
    assert rows >= {name for name, _ in AUXILIARY.values()}


def test_every_family_is_run():
    assert set(RUN) <= set(NAMES)
    families = {gluonzoo.model_spec(name).family for name in NAMES}
    assert {gluonzoo.model_spec(name).family for name in RUN} == families - SLOW_FAMILIES and SLOW_FAMILIES < families


def test_auxiliary_heads_are_those_of_the_table(table):
    with_heads = {name for name in NAMES if "aux" in inspect.signature(gluonzoo.model_spec(name).builder).parameters}
    assert with_heads == set(AUXILIARY)
    for name, (row, macs) in AUXILIARY.items():
        net, shape = gluonzoo.get_model(name, aux=True), gluonzoo.model_spec(name).input_shape
        assert count_parameters(net) == int(table[row]["params"])
        assert count_macs(net, shape) == macs
        assert str(macs) in (table[row]["macs"], table[row]["notes"].split("training graph macs ")[-1].split()[0])


@pytest.mark.parametrize("name", AUXILIARY)
def test_auxiliary_outputs_are_named_in_every_mode(name, folder):
    net, plain = gluonzoo.get_model(name, classes=4, aux=True), gluonzoo.get_model(name, classes=4)
    net.initialize()
    names = ("output",) + net.auxiliary
    assert len(names) > 1 and net.model_kwargs["aux"] is True
    x = mx.nd.random.normal(shape=(1,) + gluonzoo.model_spec(name).input_shape)
    expected = net(x)
    net.hybridize()
    for outputs in (expected, net(x)):
        assert outputs._fields == names and all(output.shape == (1, 4) for output in outputs)
    with autograd.record():
        assert net(x)._fields == names
    net.reset_classes(7)
    assert [output.shape for output in net(x)] == [(1, 7)] * len(names)
    shared = net._collect_params_with_prefix()
    assert set(plain._collect_params_with_prefix()) == {
        key for key in shared if key.split(".")[0] not in net.auxiliary}
    with pytest.raises(UserError, match="aux is 'yes'"):
        gluonzoo.get_model(name, aux="yes")


@every_name
def test_output_shape_and_stages(name):
    spec, net = gluonzoo.model_spec(name), gluonzoo.get_model(name)
    assert summarize(net, spec.input_shape).rows[-1].output_shape == (spec.classes,)
    maps = features(net, net.stages)(mx.sym.var("data"))
    _, shapes, _ = mx.sym.Group(maps).infer_shape(data=(1,) + spec.input_shape)
    assert len(shapes) == len(net.stages) and all(len(shape) == 4 for shape in shapes)
    assert [shape[2] for shape in shapes] == sorted((shape[2] for shape in shapes), reverse=True)
    _, (last,), _ = net.features(mx.sym.var("data")).infer_shape(data=(1,) + spec.input_shape)
    assert last == shapes[-1]


@every_name
def test_other_classes_and_channels(name):
    spec, net = gluonzoo.model_spec(name), gluonzoo.get_model(name, classes=3, in_channels=5)
    assert (net.model_kwargs["classes"], net.model_kwargs["in_channels"]) == (3, 5)
    assert summarize(net, (5,) + spec.input_shape[1:]).rows[-1].output_shape == (3,)


@every_name
def test_bad_arguments(name):
    with pytest.raises(TypeError, match="clases"):
        gluonzoo.get_model(name, clases=10)
    for bad in (0, -1, 2.5, "10", True, None):
        with pytest.raises(ValueError, match="classes is"):
            gluonzoo.get_model(name, classes=bad)
        with pytest.raises(ValueError, match="in_channels is"):
            gluonzoo.get_model(name, in_channels=bad)


@every_name
def test_wrong_inputs_are_named(name):
    spec, net = gluonzoo.model_spec(name), gluonzoo.get_model(name)
    channels, height, width = spec.input_shape
    for hybrid in (False, True):
        net.hybridize(hybrid)
        with pytest.raises(UserError, match=f"{name} takes 4 dimensions.* has 3"):
            net(mx.nd.zeros((channels, height, width)))
        with pytest.raises(UserError, match=f"{name} takes {channels} channels; the input has {channels + 1}"):
            net(mx.nd.zeros((1, channels + 1, height, width)))
        low, wide = net.min_size
        if low > 1 or net.fixed_size:
            with pytest.raises(UserError, match=f"{low}x{wide}; the input has {low - 1}x{wide}"):
                net(mx.nd.zeros((1, channels, low - 1, wide)))
        if net.fixed_size:
            with pytest.raises(UserError, match=f"exactly {low}x{wide}; the input has {low}x{wide + 1}"):
                net(mx.nd.zeros((1, channels, low, wide + 1)))


@every_name
def test_reset_classes(name):
    net = gluonzoo.get_model(name)
    net.reset_classes(5)
    with pytest.raises(RuntimeError):
        next(iter(net.output.collect_params().values())).data()
    net.output.initialize()  # Nothing else is looked at; a whole large network takes a second to fill.
    before = {key: parameter for key, parameter in net._collect_params_with_prefix().items()
              if not key.startswith("output.")}
    net.reset_classes(7)
    after = net._collect_params_with_prefix()
    assert all(after[key] is parameter for key, parameter in before.items())
    assert net.classes == 7 and net.model_kwargs["classes"] == 7
    assert all(np.isfinite(parameter.data().asnumpy()).all() for parameter in net.output.collect_params().values())
    assert summarize(net, gluonzoo.model_spec(name).input_shape).rows[-1].output_shape == (7,)
    assert set(after) == set(gluonzoo.get_model(name, classes=7)._collect_params_with_prefix())
    with pytest.raises(ValueError, match="classes is 0"):
        net.reset_classes(0)
    assert net.classes == 7


def test_gradients_are_finite_and_not_zero(sample):
    assert np.isfinite(sample.output).all() and sample.output.std() > 0
    for key, gradient in sample.gradients.items():
        assert np.isfinite(gradient).all(), key
        assert np.abs(gradient).max() > 0, key
    assert sum(gradient.size for gradient in sample.gradients.values()) == gluonzoo.model_spec(sample.name).params


@pytest.mark.parametrize("static", [False, True])
def test_hybrid_is_eager(sample, static, folder):
    other = copy_of(sample, folder)
    other.hybridize(static_alloc=static, static_shape=static)
    for _ in range(2):  # A static graph plans its memory in the first call and uses the plan in the second.
        np.testing.assert_array_equal(other(sample.x).asnumpy(), sample.output)
    # A bias before a BatchNorm has no gradient but for rounding: it is measured against the largest of the network.
    largest = max(np.abs(gradient).max() for gradient in sample.gradients.values())
    for key, gradient in gradients(other, sample.x).items():
        expected = sample.gradients[key]
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, err_msg=key,
                                   atol=1e-4 * np.abs(expected).max() + 1e-5 * largest)


def copy_of(sample, folder):
    """Another instance with the same parameters, through a file; the file goes."""
    path = os.path.join(folder, "net.params")
    sample.net.save_parameters(path)
    other = without_dropout(gluonzoo.get_model(sample.name))
    other.load_parameters(path)
    os.remove(path)
    return other


def test_parameters_load_into_another_instance(sample, folder):
    other = copy_of(sample, folder)
    np.testing.assert_array_equal(other(sample.x).asnumpy(), sample.output)
    names = set(other._collect_params_with_prefix())
    assert not any(other.prefix.rstrip("_") in key for key in names)


@pytest.mark.filterwarnings("ignore:Cannot decide type")
def test_export_is_the_live_net_to_the_bit(sample, folder):
    net = copy_of(sample, folder)
    net.hybridize()
    net(sample.x)
    prefix = os.path.join(folder, sample.name)
    net.export(prefix)
    imported = gluon.SymbolBlock.imports(prefix + "-symbol.json", ["data"], prefix + "-0000.params")
    np.testing.assert_array_equal(imported(sample.x).asnumpy(), sample.output)
    if net.fixed_size:
        x = small_input(net, sample.name, batch=1)
    else:  # Another number of images, and an odd size.
        x = mx.nd.random.normal(shape=(1, sample.x.shape[1], sample.x.shape[2] + 5, sample.x.shape[3] + 3))
    np.testing.assert_array_equal(imported(x).asnumpy(), sample.net(x).asnumpy())
    assert np.isfinite(imported(x).asnumpy()).all()


def test_smallest_input_works(sample):
    x = mx.nd.random.normal(shape=(1, sample.x.shape[1]) + sample.net.min_size)
    assert np.isfinite(sample.net(x).asnumpy()).all()


@pytest.mark.slow
def test_memory_of_the_largest_network(folder):
    """Built, initialised, one training step, saved and loaded by another instance: below 8 GiB at its highest."""
    largest = max(NAMES, key=lambda name: gluonzoo.model_spec(name).params)
    program = f"""
import gluonzoo
from tests.test_models import Sample, copy_of
sample = Sample({largest!r})
copy_of(sample, {folder!r})
with open("/proc/self/status") as file:  # getrusage would also tell of the process that started this one.
    print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
"""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, timeout=600, check=True,
                          env=dict(os.environ, PYTHONPATH=root))
    assert 2**20 < int(done.stdout) < 8 * 2**20  # KiB
