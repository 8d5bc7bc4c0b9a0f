"""Spatial transformer: a network looks at a map, decides on an affine transformation, and the map is sampled through it.

Source: M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu, Spatial Transformer Networks, 2015, arXiv:1506.02025,
sections 3.1 to 3.3, equations 1 and 5. Coordinates go from -1 to 1 between the centres of the corner pixels, as the paper's
height- and width-normalised ones do and MXNet's operators have them (PyTorch: `align_corners=True`); outside is 0.
Differences: none known.
"""
import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ..errors import UserError
from .network import check_positive

__all__ = ["SpatialTransformer", "Values", "sample_affine"]


@mx.init.register
class Values(mx.init.Initializer):
    """The given numbers, one for each element. (MXNet's own Constant can be written down only once.)"""

    def __init__(self, values):
        super().__init__(values=list(values))
        self.values = list(values)

    def _init_weight(self, name, array):
        array[:] = mx.nd.array(self.values, ctx=array.context).reshape(array.shape)


def sample_affine(F, x, theta, size=None):
    """The map `x` at the points to which `theta` sends a regular grid, by bilinear interpolation.

    Args:
        theta: (N, 6); (source x, source y) = theta as a 2x3 matrix times (target x, target y, 1).
        size: (height, width) of the output, each at least 2; by default that of `x`, whatever it is.
    Shape: (N, C, H, W), H and W at least 2 -> (N, C) + size.
    """
    if size is not None:
        return F.BilinearSampler(x, F.GridGenerator(theta, transform_type="affine", target_shape=size))
    # The operator's affine grid has one fixed size; no flow at all has the size of the map, and gives the regular grid.
    still = F.zeros_like(F.slice_axis(x, axis=1, begin=0, end=1))
    grid = F.GridGenerator(F.concat(still, still, dim=1), transform_type="warp")                    # N x 2 x H x W
    points = F.reshape(F.concat(grid, F.ones_like(still), dim=1), shape=(0, 3, -1))                 # N x 3 x HW
    source = F.batch_dot(F.reshape(theta, shape=(-1, 2, 3)), points)                                # N x 2 x HW
    return F.BilinearSampler(x, F.reshape_like(source, grid))


class SpatialTransformer(HybridBlock):
    """Localisation network, affine grid and bilinear sampling.

    It starts as the identity: the last layer of the localisation has weights of 0 and the identity as its bias. In the first
    step that layer alone has a gradient, and what stands before it from the second on.

    Args:
        localisation: a HybridBlock, (N, C, H, W) -> (N, in_units) or anything that flattens to it.
        in_units: what `localisation` gives for one input.
        size: (height, width) of the output, each at least 2; by default that of the input.
    Shape: (N, C, H, W), H and W at least 2 -> (N, C) + size.
    """

    def __init__(self, localisation, in_units, size=None, prefix=None):
        check_positive(in_units=in_units)
        if size is not None:
            height, width = size
            check_positive(height=height, width=width)
            if min(size) < 2:
                raise UserError(f"size is {height}x{width}; expected at least 2x2, whose pixels reach from -1 to 1")
        super().__init__(prefix=prefix)
        self._size = size
        with self.name_scope():
            self.localisation = localisation
            self.theta = nn.Dense(6, in_units=in_units, weight_initializer="zeros",
                                  bias_initializer=Values((1, 0, 0, 0, 1, 0)), prefix="theta_")

    def hybrid_forward(self, F, x):
        return sample_affine(F, x, self.theta(self.localisation(x)), self._size)
