"""Each known fault of MXNet's own exporter, in a run where it fails or gives wrong numbers and ours gives the network's.

So that a fault is seen by itself, the others are cured in the fixture: `stock` stands in for what onnx dropped, and `pinned` lets
the exporter stamp the operator set that it writes.
"""
import importlib.util
import sys
import types

import gluonzoo  # noqa: F401  (cures MXNet before it is imported)
from gluonzoo.export import load_onnx, symbol, to_onnx

import mxnet as mx
import numpy as np
import pytest
from onnx_nets import Op, images, prepared

onnx = pytest.importorskip("onnx", reason="ONNX export needs onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX export is checked by onnxruntime")


def _mapping():
    """What onnx.mapping was up to 1.18."""
    kinds = [np.dtype(name) for name in ("float32", "float64", "float16", "uint8", "int8", "int32", "int64", "bool")]
    module = types.ModuleType("onnx.mapping")
    module.NP_TYPE_TO_TENSOR_TYPE = {kind: onnx.helper.np_dtype_to_tensor_dtype(kind) for kind in kinds}
    module.TENSOR_TYPE_TO_NP_TYPE = {number: kind for kind, number in module.NP_TYPE_TO_TENSOR_TYPE.items()}
    return module


@pytest.fixture
def fresh(monkeypatch):
    """MXNet's exporter imported anew: it enters its operators while it is imported, and only where onnx can be."""
    for name in [name for name in sys.modules if name.startswith("mxnet.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    return lambda: importlib.import_module("mxnet.onnx")


@pytest.fixture
def stock(fresh, monkeypatch, tmp_path):
    """stock(net, shape) -> path of the file that MXNet's exporter writes."""
    try:
        importlib.import_module("onnx.mapping")
    except ImportError:
        monkeypatch.setitem(sys.modules, "onnx.mapping", _mapping())
        monkeypatch.setattr(onnx, "mapping", sys.modules["onnx.mapping"], raising=False)
    try:
        exporter = fresh()
    except Exception as error:
        pytest.skip(f"MXNet's own exporter does not import here: {error}")

    def export(net, shape):
        parameters = symbol._parameters(net)
        _, graph = symbol._trace(net, parameters)
        values = {name[4:]: mx.nd.array(value) for name, value in symbol._values(graph, parameters).items()}
        path = str(tmp_path / "stock.onnx")
        return exporter.export_model(mx.sym.load_json(graph), values, [shape], np.float32, path)
    return export


@pytest.fixture
def pinned(stock, monkeypatch):
    """As stock, but the files are stamped with operator set 13, which is what their nodes are of."""
    make = onnx.helper.make_model

    def export(net, shape):
        with monkeypatch.context() as patch:
            patch.setattr(onnx.defs, "onnx_opset_version", lambda: 13)
            patch.setattr(onnx.helper, "make_model", lambda graph, **_: make(
                graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8))
            patch.setattr(onnx.checker, "check_graph", lambda *_: None)  # It takes the newest operator set for granted.
            return stock(net, shape)
    return export


def run(path, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"data": x})[0]


def distance(net, path, x):
    expected = net(mx.nd.array(x)).asnumpy()
    return np.abs(run(path, x) - expected).max() / np.abs(expected).max()


def ours(net, shape, tmp_path):
    """The distance of our file's output, for the same random input."""
    path = str(tmp_path / "ours.onnx")
    to_onnx(net, path, shape[1:])
    return distance(net, path, images(*shape))


def test_operator_set_is_stamped_as_the_newest(stock, tmp_path):
    """Its ReduceMean has the form of 13; the stamp says 18 and later, where that form is gone."""
    net = Op(lambda F, x: F.mean(x, axis=(1, 2)))
    with pytest.raises(Exception, match="(?s)axes|Unsupported model|opset"):
        run(stock(net, (1, 3, 8, 8)), images(1, 3, 8, 8))
    assert ours(net, (1, 3, 8, 8), tmp_path) < 1e-5
    model = onnx.load(str(tmp_path / "ours.onnx"))
    assert (model.opset_import[0].version, model.ir_version) == (13, 8) and onnx.defs.onnx_opset_version() > 17


def test_the_module_that_onnx_dropped(fresh, tmp_path):
    """onnx.mapping, which MXNet's exporter imports, is not in onnx from 1.19 on."""
    if importlib.util.find_spec("onnx.mapping") is not None:
        pytest.skip(f"onnx {onnx.__version__} still has onnx.mapping")
    net = Op(lambda F, x: F.relu(x))
    with pytest.raises(ImportError):
        exporter = fresh()
        exporter.export_model(net(mx.sym.var("data")), {}, [(1, 3)], np.float32, str(tmp_path / "stock.onnx"))
    assert ours(net, (1, 3), tmp_path) == 0


def test_the_constant_of_lrn(pinned, tmp_path):
    """MXNet's operator takes knorm 2 where none is given; its exporter writes 1. Nothing is said: numbers are wrong."""
    net = Op(lambda F, x: F.LRN(x, nsize=5))
    x = images(1, 8, 6, 6)
    assert distance(net, pinned(net, x.shape), x) > 0.5
    assert ours(net, x.shape, tmp_path) < 1e-5


def test_adaptive_pooling_beyond_one(pinned, tmp_path):
    net = Op(lambda F, x: F.contrib.AdaptiveAvgPooling2D(x, output_size=4))
    with pytest.raises(NotImplementedError, match="output_size != 1"):
        pinned(net, (1, 3, 9, 10))
    assert ours(net, (1, 3, 9, 10), tmp_path) < 1e-5


@pytest.mark.parametrize("name, operator", [("xnor_resnet18", "_contrib_sign_ste"), ("stn_mnist", "GridGenerator")])
def test_operators_that_it_lacks(name, operator, pinned, tmp_path):
    """The signs of binary convolutions; the sampling of a spatial transformer."""
    net = prepared(name)
    shape = (1, 1, 28, 28) if name == "stn_mnist" else (1, 3, 64, 64)
    with pytest.raises(AttributeError, match=f"No conversion function .* {operator}"):
        pinned(net, shape)
    path = str(tmp_path / "ours.onnx")
    assert to_onnx(net, path, shape[1:]).difference.relative <= 1e-5 and load_onnx(path).metadata.model == name


@pytest.mark.parametrize("name, function", [
    ("sampling", lambda F, x: F.BilinearSampler(x, F.slice_axis(x, axis=1, begin=0, end=2))),
    ("reshape", lambda F, x: F.reshape(x, shape=(-3, -2))),
])
def test_other_forms(name, function, pinned, tmp_path):
    net, shape = Op(function), (2, 4, 6, 7)
    with pytest.raises(Exception, match="(?s)No conversion|not supported|not yet|shape"):
        run(pinned(net, shape), images(*shape))
    assert ours(net, shape, tmp_path) < 1e-5


@pytest.mark.parametrize("name, shape", [("squeezenet1_1", (2, 3, 64, 64)), ("shufflenet_v1_g3_0_25", (2, 3, 64, 64))])
def test_whole_networks_are_out_of_reach_of_the_stamp(name, shape, stock, tmp_path):
    """Two networks of the registry as a user would export them: none of the files runs."""
    net = prepared(name)
    with pytest.raises(Exception, match="(?s)axes|Unsupported model|opset|ReduceMean"):
        run(stock(net, shape), images(*shape))
    assert ours(net, shape, tmp_path) < 1e-5
