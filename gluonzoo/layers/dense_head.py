"""Networks that end in dense layers, and the same networks as convolutions, for images larger than the standard.

Source: the conversion: P. Sermanet, D. Eigen, X. Zhang, M. Mathieu, R. Fergus, Y. LeCun, OverFeat, 2013, arXiv:1312.6229,
section 3.5; K. Simonyan, A. Zisserman, Very Deep Convolutional Networks, 2014, arXiv:1409.1556, section 3.2.
"""
import math

import mxnet as mx
from mxnet.gluon import nn

from ..errors import UserError
from .network import Network

__all__ = ["DenseHeadNetwork", "FullyConvolutional", "to_fully_convolutional"]


class DenseHeadNetwork(Network):
    """A network whose feature map, always of the same size, feeds hidden dense layers and then `output`.

    A subclass names its hidden layers in `hidden`, in order; `to_fully_convolutional` makes convolutions of all that is
    nn.Dense in them, keeps what works value by value (activations), and asks a block that has the method
    `as_convolution(shape)` for what `_as_convolution` returns.

    Args:
        size: (H, W) of the images that it takes.
    Shape: (N, in_channels) + size -> (N, classes).
    """
    #: Names of the hidden layers. Each is an nn.Dense, or an nn.HybridSequential with one.
    hidden = ()
    #: Fraction of the hidden units that is left out in training, after each hidden layer.
    dropout_rate = 0.0

    def __new__(cls, *args, **kwargs):
        net = super().__new__(cls)
        net._arguments = args, kwargs
        return net

    def __init__(self, classes, in_channels, size):
        super().__init__(classes, in_channels, min_size=size, fixed_size=True)
        self.dropout = nn.Dropout(self.dropout_rate) if self.dropout_rate else None

    def hybrid_forward(self, F, x):
        x = self.features(x)
        for name in self.hidden:
            x = getattr(self, name)(x)
            if self.dropout is not None:
                x = self.dropout(x)
        return self.output(x)

    def another(self):
        """A second, uninitialised network of the same configuration, with as many classes as this one has now."""
        args, kwargs = self._arguments
        net = type(self)(*args, **kwargs)
        if net.classes != self.classes:
            net.reset_classes(self.classes)
        return net


def _as_convolution(block, shape):
    """The block for feature maps of (C, H, W) = `shape` and larger, and the shape that it gives for one map of `shape`."""
    if isinstance(block, nn.Dense):
        # Dense and convolution keep their weights in the same order: units, channels, rows, columns.
        bias, activation = block.bias, block.act
        return nn.Conv2D(block._units, shape[1:], in_channels=shape[0], weight_initializer=block.weight.init,
                         activation=activation and activation._act_type, use_bias=bias is not None,
                         bias_initializer=bias and bias.init), (block._units, 1, 1)
    if isinstance(block, nn.HybridSequential):
        blocks = nn.HybridSequential()
        for child in block._children.values():
            child, shape = _as_convolution(child, shape)
            blocks.add(child)
        return blocks, shape
    if hasattr(block, "as_convolution"):
        return block.as_convolution(shape)
    return block, shape


class FullyConvolutional(Network):
    """What `to_fully_convolutional` gives: `features`, then the dense layers of `net` as convolutions of the same names.

    There is no dropout in it. The structural names of the parameters are those of `net`; the dense layers' weights have other
    shapes. `reset_classes` works as for any network.

    Shape: (N, in_channels, H, W), at least `min_size` -> (N, classes, H', W').
    """

    def __init__(self, net):
        super().__init__(net.classes, net.in_channels, min_size=net.min_size)
        self._hidden = net.hidden
        twin = net.another()
        self._make_dense_output = twin.make_output
        _, (shape,), _ = twin.features(mx.sym.var("data")).infer_shape(data=(1, net.in_channels) + net.min_size)
        shape = shape[1:]
        with self.name_scope():
            self.features = twin.features
            for name in self._hidden:
                layer, shape = _as_convolution(getattr(twin, name), shape)
                setattr(self, name, layer)
            self._channels = shape[0]
            self.output = self.make_output(net.classes)

    def make_output(self, classes):
        return _as_convolution(self._make_dense_output(classes), (self._channels, 1, 1))[0]

    def hybrid_forward(self, F, x):
        x = self.features(x)
        for name in self._hidden:
            x = getattr(self, name)(x)
        return self.output(x)


def to_fully_convolutional(net):
    """A new network with the weights of `net` whose dense layers are convolutions: it takes larger images as well.

    The first dense layer becomes a convolution as large as the feature map of a standard image, the others become 1x1. At the
    standard size the output is `net`'s, as a map of 1x1; of a larger image it is the map of what `net` says of every window of
    the feature map. Average the map for dense evaluation. At the borders of its windows `net` itself sees zeros where it pads,
    the new network sees the image's next pixels.

    The weights are copied, with their type and to the devices where they are: training one network does not change the other.
    From an uninitialised `net` comes an uninitialised network. Dropout is left out.

    Returns: FullyConvolutional, not hybridized.
    Raises: UserError for a network without such dense layers; the message names it.
    """
    name = getattr(net, "model_name", None) or type(net).__name__
    if not isinstance(net, DenseHeadNetwork):
        if isinstance(net, Network) and not net.fixed_size:
            raise UserError(f"{name} takes images of any size from {'x'.join(map(str, net.min_size))} on as it is; "
                            "to_fully_convolutional is for networks with dense layers over a map, such as alexnet or vgg16")
        raise UserError(f"{name} has no dense layers that could become convolutions; "
                        "expected a network such as alexnet, zfnet, vgg16 or lenet5")
    dense = FullyConvolutional(net)
    old, new = net._collect_params_with_prefix(), dense._collect_params_with_prefix()
    changed = sorted(key for key in set(old) | set(new)
                     if key not in old or key not in new or math.prod(old[key].shape) != math.prod(new[key].shape))
    if changed:
        raise UserError(f"the layers of {name} were changed after it was built ({changed[0]}); expected those of its class")
    for key, parameter in new.items():
        _take_over(parameter, old[key])
    return dense


def _take_over(parameter, other):
    """Give a new parameter the state of another one that has as many values."""
    parameter.grad_req, parameter.lr_mult, parameter.wd_mult = other.grad_req, other.lr_mult, other.wd_mult
    parameter.cast(other.dtype)
    if other._data is not None:
        contexts = other.list_ctx()
        parameter._load_init(other.data(contexts[0]).reshape(parameter.shape), contexts)
