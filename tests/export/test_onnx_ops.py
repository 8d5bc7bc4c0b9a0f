"""Every operator of the table against MXNet's own, at the lowest operator set, 18 and 21; the check is to_onnx's own.

Two image sizes and two batch sizes run through each, so a size that was frozen where it is free cannot pass.
"""
import gluonzoo  # noqa: F401  (cures MXNet before it is imported)
from gluonzoo.export import ExportError, to_onnx
from gluonzoo.export.onnx import TABLE

import numpy as np
import pytest
from onnx_nets import Op, images

pytest.importorskip("onnx", reason="ONNX export needs onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX export is checked by onnxruntime")

W = {"weight": images(6, 2, 3, 3, seed=1), "bias": images(6, seed=2)}
NORM = {"gamma": images(4, seed=1), "beta": images(4, seed=2), "mean": images(4, seed=3), "var": abs(images(4, seed=4)) + 0.5}
PLACES = np.array([2, 0, 3, 9, -1], "float32")


def pool(**options):
    return lambda F, x: F.Pooling(x, kernel=(3, 2), **options)


def norm(**options):
    return lambda F, x, gamma, beta, mean, var: F.BatchNorm(x, gamma, beta, mean, var, **options)


def affine(F, x, theta=None):
    angles = F.reshape(F.mean(x, axis=(1, 2, 3)), shape=(-1, 1))
    turned = F.broadcast_add(F.broadcast_mul(angles, theta), theta)
    return F.BilinearSampler(x, F.GridGenerator(turned, transform_type="affine", target_shape=(5, 9)))


def warp(F, x):
    flow = F.slice_axis(x, axis=1, begin=0, end=2)
    return F.BilinearSampler(x, F.GridGenerator(flow, transform_type="warp"))


def regions(F, x):
    first = F.mean(x, axis=(1, 2, 3))
    zero = F.zeros_like(first)
    boxes = F.stack(F.contrib.arange_like(first), zero + 1, zero, zero + 6, zero + 5, axis=1)
    return F.ROIPooling(x, boxes, pooled_size=(3, 2), spatial_scale=1.0)


#: (function of F, x and parameters, parameters); x is (N, 4, 9, 11) and larger.
CASES = {
    "arithmetic": (lambda F, x: F.elemwise_add(F.elemwise_sub(x * 3, x / 7), F.elemwise_mul(x, 2 - x)), {}),
    "numbers": (lambda F, x: (x + 1.5) * (x - 0.5) + (1 - x) + 2 / (F.abs(x) + 1) + F.abs(x) ** 3, {}),
    "number_bounds": (lambda F, x: F.maximum(x, 0.3) + F.minimum(x, -0.1), {}),
    "elemwise_div": (lambda F, x: F.elemwise_div(x, F.exp(x)), {}),
    "bounds": (lambda F, x: F.broadcast_maximum(x, -x) + F.broadcast_minimum(x, x * 2), {}),
    "broadcast": (lambda F, x, w: F.broadcast_div(F.broadcast_sub(F.broadcast_mul(F.broadcast_add(x, w), w), w), w),
                  {"w": images(1, 4, 1, 1)}),
    "add_n": (lambda F, x: F.add_n(x, x * 2, F.negative(x) * 5), {}),
    "unary": (lambda F, x: F.relu(x) + F.sigmoid(x) * F.tanh(x) + F.sqrt(F.abs(x)) + F.log(F.abs(x) + 1) + F.erf(x), {}),
    "steps": (lambda F, x: F.floor(x) + F.reciprocal(F.abs(x) + 1) + F.square(x), {}),
    "signs": (lambda F, x: F.sign(x) * 2 + F.contrib.sign_ste(x), {}),
    "activations": (lambda F, x: sum((F.Activation(x, act_type=kind) for kind in ("relu", "tanh", "sigmoid", "softrelu",
                                                                                 "softsign")), x), {}),
    "leaky": (lambda F, x: F.LeakyReLU(x, act_type="leaky", slope=0.1) + F.LeakyReLU(x, act_type="elu", slope=0.3), {}),
    "leaky_default": (lambda F, x: F.LeakyReLU(x), {}),
    "prelu": (lambda F, x, gamma: F.LeakyReLU(x, gamma, act_type="prelu"), {"gamma": images(4, seed=1)}),
    "clip": (lambda F, x: F.clip(x, -0.5, 1), {}),
    "softmax": (lambda F, x: F.softmax(x, axis=1) + F.log_softmax(x), {}),
    "nothing": (lambda F, x: F.identity(F.BlockGrad(F.Dropout(x, p=0.5))), {}),
    "conv": (lambda F, x, weight, bias: F.Convolution(x, weight, bias, kernel=(3, 3), num_filter=6, num_group=2), W),
    "conv_all": (lambda F, x, weight: F.Convolution(x, weight, kernel=(3, 3), num_filter=6, num_group=2, no_bias=True,
                                                    stride=(2, 1), pad=(0, 2), dilate=(1, 2)), {"weight": W["weight"]}),
    "dense": (lambda F, x, weight, bias: F.FullyConnected(F.mean(x, axis=(2, 3)), weight, bias, num_hidden=3),
              {"weight": images(3, 4), "bias": images(3)}),
    "dense_flat": (lambda F, x, weight: F.FullyConnected(F.Pooling(x, kernel=(1, 1), global_pool=True), weight, num_hidden=3,
                                                         no_bias=True), {"weight": images(3, 4)}),
    "dense_last": (lambda F, x, weight, bias: F.FullyConnected(F.transpose(x, axes=(0, 2, 3, 1)), weight, bias, num_hidden=3,
                                                               flatten=False), {"weight": images(3, 4), "bias": images(3)}),
    "norm": (norm(fix_gamma=False, eps=1e-5), NORM),
    "norm_defaults": (norm(), NORM),  # Gamma is taken for 1, whatever it holds, and epsilon is 1e-3.
    "norm_of_vectors": (lambda F, x, **p: norm(fix_gamma=False)(F, F.mean(x, axis=(2, 3)), **p), NORM),
    "lrn": (lambda F, x: F.LRN(x * 100, nsize=3, alpha=0.02, beta=0.6, knorm=1.5), {}),
    "lrn_defaults": (lambda F, x: F.LRN(x * 100, nsize=5), {}),
    "max": (pool(pool_type="max"), {}),
    "max_stride": (pool(stride=(2, 3), pad=(1, 1)), {}),
    "max_full": (pool(stride=(2, 2), pooling_convention="full"), {}),
    "max_full_pad": (pool(stride=(2, 2), pad=(1, 1), pooling_convention="full"), {}),
    "max_full_step": (pool(pad=(1, 1), pooling_convention="full"), {}),
    "avg": (pool(pool_type="avg", stride=(2, 2)), {}),
    "avg_pad": (pool(pool_type="avg", stride=(2, 1), pad=(1, 1)), {}),
    "avg_pad_outside": (pool(pool_type="avg", stride=(2, 1), pad=(1, 1), count_include_pad=False), {}),
    "avg_full": (pool(pool_type="avg", stride=(2, 2), pooling_convention="full"), {}),
    "one_pixel": (lambda F, x: F.Pooling(x, kernel=(1, 1), stride=(2, 2), pool_type="avg"), {}),
    "global": (lambda F, x: F.Pooling(x, kernel=(1, 1), global_pool=True, pool_type="avg")
               + F.Pooling(x, kernel=(1, 1), global_pool=True, pool_type="max"), {}),
    "pad": (lambda F, x: F.Pad(x, mode="constant", pad_width=(0, 0, 0, 0, 0, 2, 1, 3), constant_value=0.5), {}),
    "pad_modes": (lambda F, x: F.Pad(x, mode="edge", pad_width=(0, 0, 0, 0, 2, 1, 1, 2))
                  + F.Pad(x, mode="reflect", pad_width=(0, 0, 0, 0, 2, 1, 1, 2)), {}),
    "mean": (lambda F, x: F.mean(x, axis=(2, 3)), {}),
    "mean_keepdims": (lambda F, x: F.broadcast_add(F.mean(x, axis=(2, 3), keepdims=True),
                                                 F.mean(x, axis=1, keepdims=True)), {}),
    "sums": (lambda F, x: F.sum(x, axis=-1) + F.max(x, axis=3) - F.min(x, axis=(3,)), {}),
    "sum_exclude": (lambda F, x: F.sum(F.mean(x, axis=(0, 1), exclude=True, keepdims=True), axis=(2, 3)), {}),
    "sum_all": (lambda F, x: F.broadcast_add(x, F.reshape(F.mean(x), shape=(1, 1, 1, 1))), {}),
    "batch_dot": (lambda F, x: F.batch_dot(F.reshape(x, shape=(0, 0, -1)), F.reshape(x, shape=(0, 0, -1)), transpose_b=True),
                  {}),
    "batch_dot_left": (lambda F, x: F.batch_dot(F.reshape(x, shape=(0, 0, -3)), F.mean(x, axis=3), transpose_a=True), {}),
    "flatten": (lambda F, x: F.Flatten(F.Flatten(F.mean(x, axis=(2, 3), keepdims=True))), {}),
    "concat": (lambda F, x: F.concat(x, x * 2, dim=-1), {}),
    "concat_one": (lambda F, x: F.concat(x, dim=1), {}),
    "stack": (lambda F, x: F.stack(x, x * 2, axis=-1), {}),
    "split": (lambda F, x: F.elemwise_sub(*F.split(x, num_outputs=2, axis=1)), {}),
    "split_squeeze": (lambda F, x: F.concat(*F.split(x, num_outputs=4, axis=1, squeeze_axis=True), dim=1), {}),
    "slice_axis": (lambda F, x: F.slice_axis(F.slice_axis(x, axis=1, begin=1, end=3), axis=-1, begin=-4, end=-1), {}),
    "slice_axis_all": (lambda F, x: F.slice_axis(F.slice_axis(x, axis=0, begin=0, end=None), axis=1, begin=0, end=4), {}),
    "slice_axis_rest": (lambda F, x: F.slice_axis(x, axis=2, begin=3, end=None), {}),
    "slice": (lambda F, x: F.slice(x, begin=(None, 1, 0, 2), end=(None, None, -2, None), step=(None, 2, 3, 1)), {}),
    "transpose": (lambda F, x: F.transpose(F.transpose(x, axes=(0, 2, 3, 1))), {}),
    "axes": (lambda F, x: F.squeeze(F.expand_dims(F.expand_dims(x, axis=0), axis=-1), axis=(0, 5)), {}),
    "broadcast_axis": (lambda F, x: F.broadcast_axis(F.mean(x, axis=(1, 2), keepdims=True), axis=(1, 2), size=(3, 2)), {}),
    "broadcast_like": (lambda F, x: F.broadcast_like(F.mean(x, axis=(2, 3), keepdims=True), x), {}),
    "filled": (lambda F, x: F.concat(F.zeros_like(x), F.ones_like(x), x, dim=1), {}),
    "arange_like": (lambda F, x: F.broadcast_add(x, F.contrib.arange_like(x, axis=3)), {}),
    "arange_like_steps": (lambda F, x: F.contrib.arange_like(F.mean(x, axis=(1, 2, 3)), start=2.0, step=0.5), {}),
    "take": (lambda F, x, places: F.take(x, places, axis=1), {"places": PLACES}),  # 9 and -1 are clipped.
    "reshape_like": (lambda F, x: F.reshape_like(F.transpose(x, axes=(0, 1, 3, 2)), x), {}),
    "reshape": (lambda F, x: F.reshape(x, shape=(0, 2, -1)), {}),
    "reshape_joined": (lambda F, x: F.reshape(x, shape=(-3, -2)), {}),
    "reshape_rest": (lambda F, x: F.reshape(x, shape=(0, 0, -3, 1)), {}),
    "reshape_reverse": (lambda F, x: F.reshape(x, shape=(-1, 2, 2, 0, 0), reverse=True), {}),
    "shuffle": (lambda F, x: F.reshape(F.transpose(F.reshape(x, shape=(-1, 2, 2, 0, 0), reverse=True), axes=(0, 2, 1, 3, 4)),
                                       shape=(-1, 4, 0, 0), reverse=True), {}),
    "roi": (regions, {}),
    "adaptive": (lambda F, x: F.contrib.AdaptiveAvgPooling2D(x, output_size=(4, 3)), {}),
    "adaptive_one": (lambda F, x: F.contrib.AdaptiveAvgPooling2D(x, output_size=1), {}),
    "adaptive_default": (lambda F, x: F.contrib.AdaptiveAvgPooling2D(x), {}),
    "adaptive_divides": (lambda F, x: F.contrib.AdaptiveAvgPooling2D(F.slice(x, begin=(0, 0, 0, 0), end=(None, None, 8, 9)),
                                                                     output_size=(4, 3)), {}),
    "affine": (affine, {"theta": np.array([[0.9, 0.2, 0.1, -0.3, 1.1, 0.05]], "float32")}),
    "warp": (warp, {}),
    "upsampling": (lambda F, x: F.UpSampling(x, scale=2, sample_type="nearest"), {}),
}
#: Operators that are other names in a symbol.
SAME = {"_plus", "_maximum", "_minimum", "stop_gradient", "identity", "make_loss", "MakeLoss", "flatten", "concat", "split",
        "reshape", "broadcast_axes"}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "op.onnx")


@pytest.mark.parametrize("opset", [None, 18, 21])
@pytest.mark.parametrize("name", CASES)
def test_operator(name, opset, path):
    if opset == 21 and tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 18):
        pytest.skip(f"onnxruntime {onnxruntime.__version__} knows operator sets up to 19 or 20")
    function, values = CASES[name]
    exported = to_onnx(Op(function, **values), path, (4, 9, 11), opset=opset)
    needed = 16 if name in ("affine", "warp") else 13
    assert exported.opset == (opset or needed)
    assert exported.input_shape == (None, 4, None, None), "the height and width of every case are free"


def test_every_operator_of_the_table_has_a_case():
    from gluonzoo.export.graph import Graph
    run = {node.op for function, values in CASES.values() for node in Graph.from_net(Op(function, **values)).operators}
    assert set(TABLE) - SAME <= run


@pytest.mark.parametrize("function, words", [
    (lambda F, x: F.cos(x), "operator cos of node"),
    (lambda F, x: F.elemwise_add(x, F.Pooling(x, kernel=(1, 1), pool_type="lp", p_value=2)), "Pooling .*pool_type='lp'"),
    (pool(pool_type="avg", stride=(2, 2), pad=(1, 1), pooling_convention="full"), "Pooling .*padding and .*'full'"),
    (lambda F, x: F.Activation(x, act_type="relu") + F.LeakyReLU(x, act_type="gelu"), "LeakyReLU .*act_type='gelu'"),
    (lambda F, x: F.Dropout(x, mode="always"), "Dropout .*always"),
    (lambda F, x: F.slice(x, begin=(None, 3), end=(None, 0), step=(None, -1)), "slice .*negative step"),
    (lambda F, x: F.softmax(x, temperature=2.0), "softmax .*temperature"),
])
def test_what_has_no_translation_is_named(function, words, path, tmp_path):
    with pytest.raises(ExportError, match=words):
        to_onnx(Op(function), path, (4, 9, 11))
    assert not list(tmp_path.iterdir())
