"""Concatenated ReLU: every channel and its negative, so that half as many filters do.

Source: W. Shang, K. Sohn, D. Almeida, H. Lee, Understanding and Improving Convolutional Neural Networks via
Concatenated Rectified Linear Units, 2016, arXiv:1603.05201, definition 2.1; with `scale`: K.-H. Kim et al., PVANET, 2016,
arXiv:1608.08021, figure 1, which gives each of the two halves a slope and a threshold of its own. Differences: none known.
"""
from mxnet.gluon import HybridBlock

from .concat import concat_channels
from .network import check_positive

__all__ = ["CReLU"]


class CReLU(HybridBlock):
    """ReLU of [x, -x], the negatives behind all channels.

    Args:
        channels: of the input.
        scale: multiply each of the 2 x channels by a trainable scale (first 1) and add a trainable shift (first 0) before
            the ReLU.
    Shape: (N, channels, H, W) -> (N, 2 channels, H, W).
    """

    def __init__(self, channels, scale=False, prefix=None):
        check_positive(channels=channels)
        super().__init__(prefix=prefix)
        self._channels = channels
        if scale:
            with self.name_scope():
                self.scale = self.params.get("scale", shape=(1, 2 * channels, 1, 1), init="ones")
                self.shift = self.params.get("shift", shape=(1, 2 * channels, 1, 1), init="zeros")

    def hybrid_forward(self, F, x, scale=None, shift=None):
        x = concat_channels(F, [x, F.negative(x)], [self._channels] * 2)
        if scale is not None:
            x = F.broadcast_add(F.broadcast_mul(x, scale), shift)
        return F.Activation(x, act_type="relu")
