"""The squeeze-and-excitation block.

Source: J. Hu, L. Shen, S. Albanie, G. Sun, E. Wu, Squeeze-and-Excitation Networks, 2017, arXiv:1709.01507, section 3,
equations 2 to 4; the biases are those of the authors' published models (github.com/hujie-frank/SENet). Differences: none
known. GluonCV's block has no biases in its SE-ResNets.
"""
from mxnet.gluon import HybridBlock

from ..errors import UserError
from .network import check_positive
from .residual import he_conv

__all__ = ["SqueezeExcite"]


class SqueezeExcite(HybridBlock):
    """Weighs every channel by a number in (0, 1) that is computed from the means of all channels.

    The two dense layers in between are 1x1 convolutions, so that their weights have the authors' shapes.

    Args:
        channels: of the input, at least `reduction`.
        reduction: the layer in the middle has channels / reduction outputs, rounded down.
    Shape: (N, channels, H, W) -> the same.
    Raises: UserError when nothing is left in the middle.
    """

    def __init__(self, channels, reduction=16, prefix=None):
        check_positive(channels=channels, reduction=reduction)
        if channels < reduction:
            raise UserError(f"{channels} channels with reduction {reduction} leave none in the middle; expected channels "
                            f"of at least {reduction}")
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.reduce = he_conv(channels, channels // reduction, 1, use_bias=True)
            self.expand = he_conv(channels // reduction, channels, 1, use_bias=True)

    def hybrid_forward(self, F, x):
        means = F.mean(x, axis=(2, 3), keepdims=True)                                       # N x C x 1 x 1
        hidden = F.Activation(self.reduce(means), act_type="relu")                          # N x C / reduction x 1 x 1
        return F.broadcast_mul(x, F.sigmoid(self.expand(hidden)))
