"""Initialisation that MXNet does not have."""
import mxnet as mx

__all__ = ["TruncatedNormal"]


@mx.init.register
class TruncatedNormal(mx.init.Initializer):
    """Normal values of which none is further than two standard deviations from 0; those that are, are drawn again.

    As TensorFlow's initialiser of that name: the deviation of what remains is 0.88 times `sigma`.

    Args:
        sigma: standard deviation before the tails are cut off.
    """

    def __init__(self, sigma=0.01):
        super().__init__(sigma=sigma)
        self.sigma = sigma

    def _init_weight(self, name, array):
        def draw():
            return mx.nd.random.normal(0, 1, array.shape, ctx=array.context)
        values = draw()
        while float(values.abs().max().asscalar()) > 2:
            values = mx.nd.where(values.abs() > 2, draw(), values)
        array[:] = self.sigma * values
