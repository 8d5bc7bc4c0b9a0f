"""The channel shuffle of ShuffleNets.

Source: X. Zhang, X. Zhou, M. Lin, J. Sun, ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
Devices, 2017, arXiv:1707.01083, section 3.1. Differences: none known (the authors' PyTorch code of ShuffleNet v1 turns
the permutation round: it splits the channels into n of g, not g of n).
"""
from mxnet.gluon import HybridBlock

from ..errors import UserError
from .network import check_positive

__all__ = ["ChannelShuffle"]


class ChannelShuffle(HybridBlock):
    """Channels as `groups` rows of n, transposed: channel i * n + j goes to place j * groups + i.

    A grouped convolution that follows sees channels of every group before it. One group stays as it is. Only operators
    that ONNX has too, and no size of the image is fixed.

    Shape: (N, channels, H, W) -> the same.
    Raises: UserError when channels is not a multiple of groups.
    """

    def __init__(self, channels, groups, prefix=None):
        super().__init__(prefix=prefix)
        check_positive(channels=channels, groups=groups)
        if channels % groups:
            raise UserError(f"{channels} channels in {groups} groups; expected a multiple of the number of groups")
        self._channels, self._groups = channels, groups

    def hybrid_forward(self, F, x):
        if self._groups == 1:
            return x
        # Zeros copy a size; counted from the end, they need not know what stands before them. Codes -2 to -4 would do as
        # well, but do not export to ONNX; reshape_like's backward cannot read oneDNN's blocked layouts.
        rows = F.reshape(x, shape=(-1, self._groups, self._channels // self._groups, 0, 0), reverse=True)
        return F.reshape(F.transpose(rows, axes=(0, 2, 1, 3, 4)), shape=(-1, self._channels, 0, 0), reverse=True)

    def __repr__(self):
        return f"ChannelShuffle({self._channels}, groups={self._groups})"
