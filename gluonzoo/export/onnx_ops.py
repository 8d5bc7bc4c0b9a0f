"""The table of MXNet operators and what they are in ONNX, for inference with float32.

Source: MXNet 1.9.1, src/operator (shapes and defaults); ONNX, docs/Operators.md, operator sets 13 to 21.
Differences: none known, but that a sum may be added in another order.
"""
import numpy as np

from .onnx_builder import axes_of, into

__all__ = ["TABLE"]

TABLE = {}
_translates = into(TABLE)


def _pair(value, default):
    """A setting of the two axes of an image: a number or one each; MXNet writes () for the default."""
    if value in (None, (), []):
        return default
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * len(default)


# One to one

for _theirs, _ours in {
        "elemwise_add": "Add", "_plus": "Add", "broadcast_add": "Add", "elemwise_sub": "Sub", "broadcast_sub": "Sub",
        "elemwise_mul": "Mul", "broadcast_mul": "Mul", "elemwise_div": "Div", "broadcast_div": "Div",
        "broadcast_maximum": "Max", "_maximum": "Max", "broadcast_minimum": "Min", "_minimum": "Min",
        "add_n": "Sum", "abs": "Abs", "negative": "Neg", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "relu": "Relu",
        "sigmoid": "Sigmoid", "tanh": "Tanh", "sign": "Sign", "_contrib_sign_ste": "Sign", "floor": "Floor",
        "erf": "Erf", "reciprocal": "Reciprocal"}.items():
    TABLE[_theirs] = lambda b, node, *values, op=_ours: b.emit(op, *values)

# A number on one side; True: on the left.
for _theirs, (_ours, _left) in {
        "_plus_scalar": ("Add", False), "_minus_scalar": ("Sub", False), "_rminus_scalar": ("Sub", True),
        "_mul_scalar": ("Mul", False), "_div_scalar": ("Div", False), "_rdiv_scalar": ("Div", True),
        "_power_scalar": ("Pow", False), "_maximum_scalar": ("Max", False), "_minimum_scalar": ("Min", False)}.items():
    def _with_number(b, node, x, op=_ours, left=_left):
        number = b.constant(float(node.attrs["scalar"]))
        return b.emit(op, number, x) if left else b.emit(op, x, number)
    TABLE[_theirs] = _with_number


@_translates("BlockGrad", "Dropout", "identity", "_copy", "stop_gradient", "make_loss", "MakeLoss")
def _nothing(b, node, x):
    """Only training knows these."""
    if node.op == "Dropout" and node.attrs.get("mode", "training") != "training":
        b.refuse("mode='always'")
    return x


# Activations

@_translates("Activation")
def _activation(b, node, x):
    kinds = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softrelu": "Softplus", "softsign": "Softsign"}
    kind = node.attrs["act_type"]
    return b.emit(kinds[kind], x) if kind in kinds else b.refuse(f"act_type={kind!r}")


@_translates("LeakyReLU")
def _leaky(b, node, x, slopes=None):
    kind, slope = node.attrs.get("act_type", "leaky"), float(node.attrs.get("slope", 0.25))
    if kind == "leaky":
        return b.emit("LeakyRelu", x, alpha=slope)
    if kind == "elu":
        return b.emit("Elu", x, alpha=slope)
    if kind == "prelu":  # ONNX broadcasts from the last axis on, MXNet's slopes belong to the channels.
        rank = len(b.sizes_of(node))
        if rank > 2:
            slopes = b.emit("Reshape", slopes, b.whole(-1, *(1,) * (rank - 2)))
        return b.emit("PRelu", x, slopes)
    return b.refuse(f"act_type={kind!r}")


@_translates("clip")
def _clip(b, node, x):
    return b.emit("Clip", x, b.constant(float(node.attrs["a_min"])), b.constant(float(node.attrs["a_max"])))


@_translates("square")
def _square(b, node, x):
    return b.emit("Mul", x, x)


@_translates("softmax", "log_softmax")
def _softmax(b, node, x, *lengths):
    if lengths or node.attrs.get("temperature") not in (None, 1.0):
        b.refuse("with lengths or a temperature")
    return b.emit("Softmax" if node.op == "softmax" else "LogSoftmax", x, axis=int(node.attrs.get("axis", -1)))


# Layers

@_translates("Convolution")
def _convolution(b, node, x, *weights):
    attrs, kernel = node.attrs, node.attrs["kernel"]
    ones, zeros = (1,) * len(kernel), (0,) * len(kernel)
    if attrs.get("layout") not in (None, "NCW", "NCHW", "NCDHW"):
        b.refuse(f"layout={attrs['layout']!r}")
    padding = _pair(attrs.get("pad"), zeros)
    return b.emit("Conv", x, *weights, kernel_shape=list(kernel), strides=list(_pair(attrs.get("stride"), ones)),
                  dilations=list(_pair(attrs.get("dilate"), ones)), pads=list(padding) * 2, group=int(attrs.get("num_group", 1)))


@_translates("FullyConnected")
def _fully_connected(b, node, x, weight, *bias):
    rank = len(b.sizes_of(node))
    if node.attrs.get("flatten", True) or rank == 2:
        return b.emit("Gemm", x if rank == 2 else b.emit("Flatten", x, axis=1), weight, *bias, transB=1)
    product = b.emit("MatMul", x, b.emit("Transpose", weight, perm=[1, 0]))
    return b.emit("Add", product, *bias) if bias else product


@_translates("BatchNorm")
def _batch_norm(b, node, x, scale, shift, mean, variance):
    if int(node.attrs.get("axis", 1)) != 1:
        b.refuse(f"axis={node.attrs['axis']}")
    if node.attrs.get("fix_gamma", True):
        value = b.graph.value(node.inputs[1])
        if value is None or not (value == 1).all():  # MXNet takes ones, whatever the array holds.
            scale = b.constant(np.ones(b.sizes_of(node, 1), dtype=np.float32))
    return b.emit("BatchNormalization", x, scale, shift, mean, variance, epsilon=float(node.attrs.get("eps", 1e-3)))


@_translates("LRN")
def _lrn(b, node, x):
    # Both divide alpha by the size. The constant has another default here than there: it is always written.
    return b.emit("LRN", x, size=int(node.attrs["nsize"]), alpha=float(node.attrs.get("alpha", 1e-4)),
                  beta=float(node.attrs.get("beta", 0.75)), bias=float(node.attrs.get("knorm", 2.0)))


@_translates("Pooling")
def _pooling(b, node, x):
    attrs, kind = node.attrs, node.attrs.get("pool_type", "max")
    if kind not in ("max", "avg"):
        b.refuse(f"pool_type={kind!r}")
    if attrs.get("layout") not in (None, "NCW", "NCHW", "NCDHW"):
        b.refuse(f"layout={attrs['layout']!r}")
    average = kind == "avg"
    if attrs.get("global_pool", False):
        return b.emit("GlobalAveragePool" if average else "GlobalMaxPool", x)
    kernel = tuple(attrs["kernel"])
    strides, padding = _pair(attrs.get("stride"), (1,) * len(kernel)), _pair(attrs.get("pad"), (0,) * len(kernel))
    convention = attrs.get("pooling_convention", "valid")
    if convention not in ("valid", "full"):
        b.refuse(f"pooling_convention={convention!r}")
    settings = {"kernel_shape": list(kernel), "strides": list(strides)}
    inside = attrs.get("count_include_pad") in (None, True)
    if convention == "full" and set(strides) != {1}:
        # Runtimes disagree about padding under ceil_mode: which windows there are, and how many pixels an average has.
        # Padded before, no window of a maximum begins outside. onnxruntime would join the zeros with an average again.
        if any(padding) and average:
            b.refuse("an average with padding and pooling_convention='full'")
        if any(padding):
            margin = [0, 0, *padding]
            x, padding = b.emit("Pad", x, b.whole(*margin, *margin), b.constant(-np.inf)), (0,) * len(kernel)
        settings["ceil_mode"], inside = 1, False
    if average and inside and any(padding):
        settings["count_include_pad"] = 1
    return b.emit("AveragePool" if average else "MaxPool", x, pads=list(padding) * 2, **settings)


@_translates("Pad")
def _pad(b, node, x):
    mode, widths = node.attrs["mode"], node.attrs["pad_width"]
    if mode not in ("constant", "edge", "reflect"):
        b.refuse(f"mode={mode!r}")
    value = [b.constant(float(node.attrs.get("constant_value", 0)))] if mode == "constant" else []
    return b.emit("Pad", x, b.whole(*widths[0::2], *widths[1::2]), *value, mode=mode)


# Sums

@_translates("mean", "sum", "max", "min")
def _reduce(b, node, x):
    attrs, rank = node.attrs, len(b.sizes_of(node))
    axes, keepdims = axes_of(attrs.get("axis"), rank), bool(attrs.get("keepdims", False))
    if attrs.get("exclude", False):
        axes = [axis for axis in range(rank) if axis not in (axes or [])]
    if node.op == "mean" and rank == 4 and axes == [2, 3]:  # Runtimes have a kernel of its own for this.
        mean = b.emit("GlobalAveragePool", x)
        return mean if keepdims else b.emit("Flatten", mean, axis=1)
    if axes is None and not keepdims:  # MXNet has no arrays without axes.
        return b.emit("Reshape", b.reduce("Reduce" + node.op.capitalize(), x, None, False), b.whole(1))
    return b.reduce("Reduce" + node.op.capitalize(), x, axes, keepdims)


@_translates("batch_dot")
def _batch_dot(b, node, left, right):
    if node.attrs.get("transpose_a", False):
        left = b.emit("Transpose", left, perm=[0, 2, 1])
    if node.attrs.get("transpose_b", False):
        right = b.emit("Transpose", right, perm=[0, 2, 1])
    return b.emit("MatMul", left, right)

