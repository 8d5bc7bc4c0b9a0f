"""Spatial pyramid pooling: a vector of one length from feature maps of any size.

Source: K. He, X. Zhang, S. Ren, J. Sun, Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition, 2014,
arXiv:1406.4729, section 2.2; the edges of the bins: section 3.2. Differences: none known.
"""
from mxnet.gluon import HybridBlock

from ..errors import UserError
from .network import check_positive

__all__ = ["SpatialPyramidPool"]


class SpatialPyramidPool(HybridBlock):
    """The largest value of each channel in each of n x n bins, for several n.

    Bin i of n over H rows goes from floor(i H / n) to ceil((i + 1) H / n): bins overlap where n does not divide H, and maps
    smaller than n are taken too. Where n divides H it is plain max pooling. The size is found while the network runs, so a
    hybridized or exported block takes any size as well.

    Args:
        bins: n of each level of the pyramid.
    Shape: (N, C, H, W) -> (N, C * sum of n * n); the levels one after the other, each in the order C, row, column.
    Raises: UserError for no levels or a bad number of bins.
    """

    def __init__(self, bins=(7, 3, 2, 1), prefix=None):
        bins = tuple(bins)
        if not bins:
            raise UserError("bins is empty; expected the bins on a side, one number for each level")
        check_positive(**{f"bins[{index}]": number for index, number in enumerate(bins)})
        super().__init__(prefix=prefix)
        self._bins = tuple(int(number) for number in bins)

    @property
    def total(self):
        """Bins of all levels together: the values for each channel."""
        return sum(number ** 2 for number in self._bins)

    def hybrid_forward(self, F, x):
        # The pooling of regions, with the whole map for a region. Symbols do not know their shape: ones are counted.
        ones = F.BlockGrad(F.ones_like(F.slice_axis(x, axis=1, begin=0, end=1)))
        rows = F.sum(F.slice_axis(ones, axis=3, begin=0, end=1), axis=(1, 2, 3))
        columns = F.sum(F.slice_axis(ones, axis=2, begin=0, end=1), axis=(1, 2, 3))
        zeros = F.zeros_like(rows)
        regions = F.stack(F.contrib.arange_like(rows), zeros, zeros, columns - 1, rows - 1, axis=1)
        levels = [F.flatten(F.ROIPooling(x, regions, pooled_size=(number, number), spatial_scale=1.0))
                  for number in self._bins]
        return F.concat(*levels, dim=1)
