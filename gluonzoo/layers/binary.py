"""Convolutions with binary weights, and with binary weights and inputs, trained with straight-through gradients.

Source: M. Rastegari, V. Ordonez, J. Redmon, A. Farhadi, XNOR-Net: ImageNet Classification Using Binary Convolutional
Neural Networks, 2016, arXiv:1603.05279, sections 3.1 and 3.2, equations 6 and 11; the authors' code: allenai/XNOR-Net
(util.lua, newLayers/BinActiveZ.lua). Real numbers are stored and updated, binary ones are computed with: floating point
operators with values of -1 and 1, which no bit operations replace, so that every network trains, exports and counts as
any other.
Differences: sign(0) is 0 as in the authors' code, not 1; the padding of a binary input is 0 as well. The authors' training
loop also centres the weights over the input channels and clips them to [-1, 1] before every step, and multiplies their
gradients by n (1 - 1 / in_channels); the paper says nothing of these, and neither is done here.
"""
import math

import mxnet as mx
from mxnet.gluon import nn

from .network import check_positive

__all__ = ["sign", "binarize", "BinaryWeightConv2D", "BinaryConv2D"]


def sign(F, x):
    """-1, 0 or 1; its gradient passes straight through where -1 <= x <= 1 and is 0 elsewhere."""
    return F.contrib.sign_ste(F.clip(x, -1, 1))


def binarize(F, weight, size):
    """alpha sign(W) of each filter W, where alpha is the mean of |W| over its n weights.

    The gradient is the paper's: that of the binary weight times 1 / n + alpha where |W_i| <= 1, and times 1 / n elsewhere.

    Args:
        size: n.
    Shape: (channels, in_channels, kernel height, kernel width) -> the same.
    """
    alpha = F.mean(F.abs(weight), axis=(1, 2, 3), keepdims=True)
    binary = F.broadcast_mul(F.BlockGrad(alpha), sign(F, weight))
    return binary + (weight - F.BlockGrad(weight)) / size  # The second term is 0 and has the gradient 1 / n.


class BinaryWeightConv2D(nn.Conv2D):
    """Convolution of a real input with binary filters and their scales (section 3.1, Binary-Weight-Networks).

    Args:
        kernel_size, strides, padding: a number or (height, width).
        weight_initializer: of the real weights; by default N(0, 2 / fan_in), the authors'.
    Shape: (N, in_channels, H, W) -> (N, channels, ...), as of `nn.Conv2D`.
    """

    def __init__(self, in_channels, channels, kernel_size, strides=1, padding=0, use_bias=False, weight_initializer=None,
                 prefix=None):
        check_positive(in_channels=in_channels, channels=channels)
        super().__init__(channels, kernel_size, strides, padding, in_channels=in_channels, use_bias=use_bias, prefix=prefix,
                         weight_initializer=weight_initializer or mx.init.MSRAPrelu(factor_type="in", slope=0))
        self._size = math.prod(self.weight.shape[1:])

    def hybrid_forward(self, F, x, weight, bias=None):
        return super().hybrid_forward(F, x, binarize(F, weight, self._size), bias)


class BinaryConv2D(BinaryWeightConv2D):
    """Convolution of the input's signs with binary filters and their scales (section 3.2, XNOR-Networks).

    A BatchNorm belongs before it. The gradient of the signs is that of `sign`.

    Args:
        input_scale: also multiply by K, the mean of |x| over channels and window (equation 11), through which the gradient
            flows too. The authors' code leaves K out: less than 1 % of AlexNet's accuracy, and all the floating point work.
    Shape: (N, in_channels, H, W) -> (N, channels, ...), as of `nn.Conv2D`.
    """

    def __init__(self, in_channels, channels, kernel_size, strides=1, padding=0, use_bias=False, weight_initializer=None,
                 input_scale=False, prefix=None):
        super().__init__(in_channels, channels, kernel_size, strides, padding, use_bias, weight_initializer, prefix)
        self._input_scale = input_scale

    def hybrid_forward(self, F, x, weight, bias=None):
        if not self._input_scale:
            return super().hybrid_forward(F, sign(F, x), weight, bias)
        options = self._kwargs
        y = F.Convolution(sign(F, x), binarize(F, weight, self._size), **dict(options, no_bias=True))
        scale = F.Pooling(F.mean(F.abs(x), axis=1, keepdims=True), kernel=options["kernel"], stride=options["stride"],
                          pad=options["pad"], pool_type="avg", count_include_pad=True)
        y = F.broadcast_mul(y, scale)
        y = y if bias is None else F.broadcast_add(y, F.reshape(bias, shape=(1, -1, 1, 1)))
        return y if self.act is None else self.act(y)
