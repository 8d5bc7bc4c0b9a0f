"""Any network's convolutions made binary: a Binary-Weight-Network or an XNOR-Network of it.

Source: M. Rastegari, V. Ordonez, J. Redmon, A. Farhadi, XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
Networks, 2016, arXiv:1603.05279: sections 3.1 and 3.2; 3.2 and figure 3 for the BatchNorm before a binary input; first and last
layer stay real (section 4.1). Differences: only convolutions become binary, dense layers stay; activations and BatchNorms of the
network stay where they are, so that an XNOR-Network has both its own BatchNorm before a convolution and the network's after it.
"""
from mxnet.gluon import HybridBlock, nn

from ..errors import UserError
from .binary import BinaryConv2D, BinaryWeightConv2D
from .weight_layers import weight_names

__all__ = ["BINARY", "NormBinaryConv2D", "binary_convolutions"]

#: What is binary: nothing, the weights (Binary-Weight-Network), the inputs too (XNOR-Network), these with equation 11's scale K.
BINARY = ("none", "weights", "inputs", "inputs_scaled")


class NormBinaryConv2D(BinaryConv2D):
    """BatchNorm, sign and binary convolution, the block of an XNOR-Network (figure 3).

    Args, shape: as of `BinaryConv2D`.
    """

    def __init__(self, in_channels, channels, kernel_size, strides=1, padding=0, use_bias=False, weight_initializer=None,
                 input_scale=False, prefix=None):
        super().__init__(in_channels, channels, kernel_size, strides, padding, use_bias, weight_initializer, input_scale, prefix)
        with self.name_scope():
            self.norm = nn.BatchNorm(in_channels=in_channels)

    def hybrid_forward(self, F, x, weight, bias=None):
        return super().hybrid_forward(F, self.norm(x), weight, bias)


def _parents(block, path=""):
    """(parent, child's key, child, child's path) of everything below a block."""
    for key, child in list(block._children.items()):
        here = f"{path}.{key}" if path else key
        yield block, key, child, here
        yield from _parents(child, here)


def _binary(conv, kind):
    """The binary convolution that stands for a convolution, with its options."""
    options, scaled = conv._kwargs, kind == "inputs_scaled"
    if options["num_group"] > 1 or set(options["dilate"]) != {1}:
        raise UserError(f"the convolution {conv.name} has {options['num_group']} groups and dilation {options['dilate']}; binary "
                        "ones have neither: name its layers with --binary-skip")
    layer = BinaryWeightConv2D if kind == "weights" else NormBinaryConv2D
    more = {} if kind == "weights" else {"input_scale": scaled}
    made = layer(conv.weight.shape[1], options["num_filter"], options["kernel"], options["stride"], options["pad"],
                 use_bias=conv.bias is not None, weight_initializer=conv.weight.init, prefix=conv.prefix, **more)
    made.act = conv.act
    return made


def binary_convolutions(net, kind, skip="first,last"):
    """Put binary convolutions in the place of a network's convolutions, but for some layers.

    With "weights" parameters keep their names and shapes, so that weights trained otherwise can be loaded; with "inputs" each
    such convolution has a BatchNorm of its own too, ``norm``. Call it before the network is initialised.

    Args: kind: of `BINARY`; skip: layers that stay real, as in `weight_names`.
    Returns: names of the binary weights.
    Raises: UserError for another kind, an initialised network, a convolution with groups or dilation, or when nothing would
        become binary.
    """
    if kind not in BINARY:
        raise UserError(f"binary is {kind!r}; expected one of {', '.join(BINARY)}")
    if kind == "none":
        return []
    names, made = set(weight_names(net, skip)), []
    chosen = [(parent, key, child, path) for parent, key, child, path in _parents(net)
              if f"{path}.weight" in names and type(child) is nn.Conv2D]
    if not chosen:
        raise UserError(f"{getattr(net, 'model_name', None) or type(net).__name__} without {skip or 'nothing'} has no "
                        "convolution that could become binary")
    if any(child.weight._data is not None for _, _, child, _ in chosen):
        raise UserError("the network is initialised; convolutions become binary before that")
    replacements = [_binary(child, kind) for _, _, child, _ in chosen]
    for (parent, key, child, path), new in zip(chosen, replacements):
        parent._children[key] = new
        for name, value in vars(parent).items():
            if value is child:
                parent.__dict__[name] = new
        made.append(f"{path}.weight")
    if isinstance(net, HybridBlock) and net._active:
        net.hybridize(True, **dict(net._flags))
    return made
