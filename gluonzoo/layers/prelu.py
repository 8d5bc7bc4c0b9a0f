"""The parametric rectifier, with gradients that are right in a hybridized network too.

Source: K. He, X. Zhang, S. Ren, J. Sun, Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet
Classification, 2015, arXiv:1502.01852, section 2.1. Differences: none known.
"""
import mxnet as mx
from mxnet.gluon import HybridBlock

from .network import check_positive

__all__ = ["PReLU"]


class PReLU(HybridBlock):
    """x where it is positive, x times a trained slope of its channel elsewhere; no weight decay on the slopes.

    Not MXNet's own operator (gluon.nn.PReLU): in a hybridized network of MXNet 1.9.1 that one writes its output over its input,
    which its backward pass needs, when a convolution stands before it and a pooling or a dense layer behind it. The slopes'
    gradient then comes out multiplied by the slope, without a word.

    Args:
        channels: number of slopes.
        slope: what they start from.
        dims: dimensions of the input after the channels: 2 for images, 0 for the output of a dense layer.
    Shape: (N, channels, ...) -> the same.
    """

    def __init__(self, channels, slope=0.25, dims=2, prefix=None):
        check_positive(channels=channels)
        super().__init__(prefix=prefix)
        self._shape = (1, -1) + (1,) * dims
        with self.name_scope():
            self.alpha = self.params.get("alpha", shape=(int(channels),), init=mx.init.Constant(slope), wd_mult=0.0)

    def hybrid_forward(self, F, x, alpha):
        positive = F.Activation(x, act_type="relu")
        negative = F.elemwise_sub(x, positive)
        return F.elemwise_add(positive, F.broadcast_mul(negative, F.reshape(alpha, shape=self._shape)))
