"""The deconvnet: which pixels made a feature map respond, for networks that are one chain of layers.

Source: M. D. Zeiler, R. Fergus, Visualizing and Understanding Convolutional Networks, 2013, arXiv:1311.2901, section 2.1: one
activation is kept, all others of the layer are set to zero, and the way down to the pixels is unpooling with the switches that
max pooling recorded, ReLU, and the filters transposed.
Differences: where pooling windows overlap and have the same maximum, what they bring back is added. Local response
normalization is passed through unchanged; BatchNorm multiplies by its scale in inference; biases play no part.
"""
import dataclasses
from typing import Tuple

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from ..errors import UserError
from ..layers import LRN, ConvNorm, MLPConv, Network, Stages
from .maps import displayable
from .picture import new_figure, save_figure

__all__ = ["Projection", "deconvnet", "deconvnet_picture"]

#: Blocks that run their children one after the other, and nothing else.
_CHAINS = (Stages, MLPConv, nn.HybridSequential, nn.Sequential)


@dataclasses.dataclass(frozen=True)
class Projection:
    """One activation and the pixels behind it.

    Args:
        index: number of the image; channel: of the feature map; position: (row, column) of the activation in it.
        activation: its value.
        pixels: (C, H, W), in the image's place.
        box: (top, left, bottom, right): the part of the image outside which all of `pixels` is zero.
    """
    index: int
    channel: int
    position: Tuple[int, int]
    activation: float
    pixels: np.ndarray
    box: Tuple[int, int, int, int]


class _Conv:
    """A convolution; back: the transposed filters."""

    def __init__(self, block):
        self._block = block

    def _run(self, x, bias=True):
        block, context = self._block, x.context
        given = dict(block._kwargs)
        arrays = [x, block.weight.data(context)]
        if not given["no_bias"] and bias:
            arrays.append(block.bias.data(context))
        else:
            given["no_bias"] = True
        return mx.nd.Convolution(*arrays, **given)

    def forward(self, x):
        return self._run(x)

    def back(self, x, signal):
        # A convolution without bias is linear: its gradient is the transposed operation, with strides, groups and padding.
        return _gradient(lambda x: self._run(x, bias=False), x, signal)


class _MaxPool:
    """Max pooling; back: unpooling, each value to the place of its window's maximum."""

    def __init__(self, block):
        self._block = block

    def forward(self, x):
        return mx.nd.Pooling(x, **self._block._kwargs)

    def back(self, x, signal):
        return _gradient(self.forward, x, signal)


class _ReLU:
    """ReLU both ways."""

    def forward(self, x):
        return mx.nd.relu(x)

    def back(self, x, signal):
        return mx.nd.relu(signal)


class _Norm:
    """BatchNorm by its running statistics; back: its scale alone."""

    def __init__(self, block):
        self._block = block

    def forward(self, x):
        return self._block(x)

    def back(self, x, signal):
        block, context = self._block, x.context
        scale = 1 / mx.nd.sqrt(block.running_var.data(context) + block._kwargs["eps"])
        if not block._kwargs["fix_gamma"]:
            scale = scale * block.gamma.data(context)
        return mx.nd.broadcast_mul(signal, scale.reshape((1, -1, 1, 1)))


class _Through:
    """A layer that the way back passes without a change."""

    def __init__(self, block):
        self._block = block

    def forward(self, x):
        return self._block(x)

    def back(self, x, signal):
        return signal


def _gradient(function, x, signal):
    """The signal through the transposed derivative of a function at x."""
    x = x.copy()
    x.attach_grad()
    with mx.autograd.record():
        y = function(x)
    y.backward(signal)
    return x.grad


def _steps(block, path):
    """The single steps of a chain, in order.

    Raises: UserError naming a layer for which the way back is not known.
    """
    kind = type(block)
    if kind in _CHAINS:
        return [step for name, child in block._children.items() for step in _steps(child, f"{path}.{name}")]
    if kind is ConvNorm:
        return [_Conv(block.conv), _Norm(block.norm)] + [_ReLU()] * block._relu
    if kind is nn.Conv2D and (block.act is None or block.act._act_type == "relu"):
        return [_Conv(block)] + [_ReLU()] * (block.act is not None)
    if kind is nn.MaxPool2D:
        return [_MaxPool(block)]
    if kind is nn.Activation and block._act_type == "relu":
        return [_ReLU()]
    if kind is nn.BatchNorm and block._kwargs["axis"] == 1:
        return [_Norm(block)]
    if kind in (LRN, nn.Dropout):
        return [_Through(block)]
    told = kind.__name__ + (f" with {block.act._act_type}" if kind is nn.Conv2D else "")
    raise UserError(f"deconvnet: no way back through {path}, a {told}; it knows chains of convolution, ReLU, max pooling, LRN, "
                    "BatchNorm and dropout, as in alexnet, zfnet and vgg16")


def _chain(net, stage):
    """All steps from the input to the end of a stage."""
    if isinstance(net, Network):
        stages, prefix = net.features, "features"
    elif type(net) in _CHAINS:
        stages, prefix = net, type(net).__name__.lower()
    else:
        raise UserError(f"deconvnet: {type(net).__name__} is not a network with named stages or a sequential block")
    names = list(stages._children)
    if stage not in names:
        raise UserError(f"{getattr(net, 'model_name', None) or type(net).__name__} has no stage called {stage!r}; its stages "
                        f"are {', '.join(names)}")
    return [step for name in names[:names.index(stage) + 1] for step in _steps(stages._children[name], f"{prefix}.{name}")]


def deconvnet(net, image, stage, channel=None, top=1):
    """Project the strongest activations of a stage down to the pixels.

    Args:
        net: a network of gluonzoo whose stages are a chain (LeNet of Caffe, AlexNet, ZFNet, VGG, ...), or a sequential block,
            whose stages are its children's names ("0", "1", ...); with weights.
        image: (C, H, W) or (N, C, H, W), the network's input, normalised; NumPy or NDArray.
        stage: name of the stage.
        channel: None: the `top` channels with the strongest responses, each on the image where it is strongest. A number: the
            `top` images in which this channel's response is strongest.
    Returns: list of at most `top` Projections, the strongest first.
    Raises: UserError for an unknown stage or channel, or a layer for which the way back is not known, which it names.
    """
    steps = _chain(net, stage)
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise UserError(f"top is {top!r}; expected a whole number of at least 1")
    x = mx.nd.array(image.asnumpy() if hasattr(image, "asnumpy") else np.asarray(image, dtype=np.float32),
                    ctx=next((parameter.list_ctx()[0] for parameter in net.collect_params().values()), mx.cpu()))
    x = x.expand_dims(0) if x.ndim == 3 else x
    if hasattr(net, "check_input"):
        net.check_input(x.shape)
    seen = []
    for step in steps:
        seen.append(x)
        x = step.forward(x)
    maps = x.asnumpy()
    if channel is not None and not 0 <= channel < maps.shape[1]:
        raise UserError(f"{stage} has no channel {channel}; it has 0 to {maps.shape[1] - 1}")
    strongest = maps.max(axis=(2, 3))  # (N, C)
    if channel is None:
        channels = np.argsort(-strongest.max(axis=0), kind="stable")[:top]
        chosen = [(int(strongest[:, number].argmax()), int(number)) for number in channels]
    else:
        chosen = [(int(number), int(channel)) for number in np.argsort(-strongest[:, channel], kind="stable")[:top]]
    return [_project(steps, [value[index:index + 1] for value in seen], maps[index], index, number)
            for index, number in chosen]


def _project(steps, seen, maps, index, channel):
    """The pixels behind the strongest activation of one map of one image."""
    row, column = np.unravel_index(int(maps[channel].argmax()), maps[channel].shape)
    signal = np.zeros((1,) + maps.shape, dtype=np.float32)
    signal[0, channel, row, column] = maps[channel, row, column]
    signal = mx.nd.array(signal, ctx=seen[0].context)
    for step, x in zip(reversed(steps), reversed(seen)):
        signal = step.back(x, signal)
    pixels = signal.asnumpy()[0]
    lit = np.abs(pixels).max(axis=0) > 0
    box = (0, 0) + lit.shape
    if lit.any():
        rows, columns = (np.flatnonzero(lit.any(axis=axis)) for axis in (1, 0))
        box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return Projection(index, channel, (int(row), int(column)), float(maps[channel, row, column]), pixels, box)


def deconvnet_picture(net, image, stage, path, channel=None, top=9, names=None):
    """Draw projections, as the paper's figure 2: left what the deconvnet gives, right the same parts of the images.

    Args: image, stage, channel, top: as in `deconvnet`; names: of the images, for the titles.
    Returns: the Projections.
    Raises: UserError as `deconvnet`, or when matplotlib is missing.
    """
    images = np.asarray(image.asnumpy() if hasattr(image, "asnumpy") else image, dtype=np.float32)
    images = images[None] if images.ndim == 3 else images
    projections = deconvnet(net, images, stage, channel, top)
    columns = int(np.ceil(np.sqrt(len(projections))))
    rows = -(-len(projections) // columns)
    single = len(images) == 1
    figure = new_figure((2 + 3.6 * (2 + single), max(2.2, 4.1 * rows / columns) + 0.5), "projections", dpi=120)
    grids = figure.add_gridspec(1, 2 + single, left=0.015, right=0.985, bottom=0.03, top=1 - 0.55 / figure.get_figheight(),
                                wspace=0.06)
    if single:
        axes = figure.add_subplot(grids[0])
        _show(axes, displayable(images[0]))
        axes.set_title("input", fontsize=9)
        for projection in projections:
            top_, left, bottom, right = projection.box
            axes.plot([left, right, right, left, left], [top_, top_, bottom, bottom, top_], linewidth=0.8, color="#ff7f0e")
        axes.set_xlim(-0.5, images.shape[3] - 0.5)
        axes.set_ylim(images.shape[2] - 0.5, -0.5)
    for side, grid in enumerate((grids[single], grids[1 + single])):
        inner = grid.subgridspec(rows, columns, wspace=0.04, hspace=0.22)
        for number, projection in enumerate(projections):
            axes = figure.add_subplot(inner[divmod(number, columns)])
            top_, left, bottom, right = projection.box
            _show(axes, _stretched(projection.pixels[:, top_:bottom, left:right]) if side == 0 else
                  displayable(images[projection.index])[top_:bottom, left:right])
            told = f"channel {projection.channel}" if channel is None else (
                names[projection.index] if names else f"image {projection.index}")
            axes.set_title(told if len(told) <= 22 else "…" + told[-21:], fontsize=7, pad=2, parse_math=False)
    what = "strongest channels" if channel is None else f"channel {channel}"
    figure.suptitle(f"{getattr(net, 'model_name', None) or type(net).__name__}, {stage}, {what}: projections, and the same parts "
                    f"of the image{'' if single else 's'}", fontsize=10, parse_math=False)
    save_figure(figure, path)
    return projections


def _stretched(pixels):
    """Zero as grey, the largest value, up or down, at the end of the scale: (C, h, w) -> (h, w, 3) in [0, 1]."""
    pixels = 0.5 + 0.5 * pixels / max(float(np.abs(pixels).max()), 1e-12)
    return (pixels if pixels.shape[0] == 3 else np.repeat(pixels[:1], 3, axis=0)).transpose(1, 2, 0)


def _show(axes, picture):
    axes.imshow(picture, interpolation="nearest" if max(picture.shape) < 60 else "bilinear")
    axes.set_axis_off()
