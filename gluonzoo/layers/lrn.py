"""Local response normalization across channels.

Source: A. Krizhevsky, I. Sutskever, G. E. Hinton, ImageNet Classification with Deep Convolutional Neural Networks,
NIPS 2012, section 3.3. Differences: none known.
"""
from mxnet.gluon import HybridBlock

from ..errors import UserError
from .network import check_positive

__all__ = ["LRN"]


class LRN(HybridBlock):
    """Each value divided by (k + alpha * sum of squares)^beta; the sum goes over `size` neighbouring channels at its pixel.

    The default constants are the paper's. MXNet's and Caffe's operators divide `alpha` by the size, and MXNet's has k = 2
    where Caffe's has k = 1: numbers from a prototxt file belong here as ``LRN(5, 1e-4, 0.75, k=1, average=True)``.

    Args:
        size: channels in the sum, an odd number; those beyond the first and the last channel count as 0.
        alpha, beta, k: of the formula above.
        average: the squares are averaged over `size`, not summed, as in Caffe.
    Shape: (N, C, H, W) -> the same.
    Raises: UserError for an even size.
    """

    def __init__(self, size=5, alpha=1e-4, beta=0.75, k=2.0, average=False, prefix=None):
        check_positive(size=size)
        if size % 2 == 0:
            raise UserError(f"size is {size}; expected an odd number")
        super().__init__(prefix=prefix)
        self._arguments = {"nsize": int(size), "alpha": alpha if average else alpha * size, "beta": beta, "knorm": k}

    def hybrid_forward(self, F, x):
        # k is always written: without it MXNet's own ONNX exporter takes 1 where the operator takes 2.
        return F.LRN(x, **self._arguments)

    def __repr__(self):
        return f"LRN({', '.join(f'{name}={value}' for name, value in self._arguments.items())})"
