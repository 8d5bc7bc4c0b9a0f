"""Networks for whole runs that take a second: registered only while a test runs."""
import contextlib

from gluonzoo import registry
from gluonzoo.layers import BasicUnit, ConvNorm, GlobalAveragePool, Network, Stages

from mxnet import gluon

__all__ = ["small_networks"]


class SmallResidual(Network):
    """Convolution, two residual units, dropout, dense. Takes 8x8 images."""

    def __init__(self, classes=10, in_channels=1):
        super().__init__(classes, in_channels)
        with self.name_scope():
            self.features = Stages()
            with self.features.name_scope():
                self.features.stem = ConvNorm(in_channels, 4, 3)
                self.features.unit1 = BasicUnit(4, 4)
                self.features.unit2 = BasicUnit(4, 8, 2)
            self.pool, self.dropout = GlobalAveragePool(), gluon.nn.Dropout(0.2)
            self.output = gluon.nn.Dense(classes, in_units=8)

    def hybrid_forward(self, F, x):
        return self.output(self.dropout(self.pool(self.features(x))))


class SmallDense(Network):
    """Two dense layers: the result depends on nothing but the samples of each update. Takes 8x8 images."""

    def __init__(self, classes=10, in_channels=1):
        super().__init__(classes, in_channels)
        with self.name_scope():
            self.features = gluon.nn.Dense(16, in_units=64 * in_channels, activation="tanh")
            self.output = gluon.nn.Dense(classes, in_units=16)

    def hybrid_forward(self, F, x):
        return self.output(self.features(x))


def small_residual(classes=10, in_channels=1):
    """A builder, as the registry has them."""
    return SmallResidual(classes, in_channels)


def small_dense(classes=10, in_channels=1):
    """A builder, as the registry has them."""
    return SmallDense(classes, in_channels)


@contextlib.contextmanager
def small_networks():
    """Within, `small_residual` and `small_dense` can be had by name."""
    registry.list_models()
    spec = registry.ModelSpec(task="classification", family="test", paper="none", year=2000, input_shape=(1, 8, 8), classes=10,
                              params=1, macs=1)
    names = [builder.__name__ for builder in (small_residual, small_dense)]
    try:
        for builder in (small_residual, small_dense):
            registry.register(spec)(builder)
        yield
    finally:
        for name in names:
            registry._specs.pop(name, None)
