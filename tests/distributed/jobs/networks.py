"""Small networks for whole runs: small_test_net with everything that is hard to resume, plain_test_net without."""
from gluonzoo import registry

from mxnet import gluon


class Small(gluon.HybridBlock):
    """Convolution, BatchNorm, Dropout, dense."""

    def __init__(self, classes=10, in_channels=1):
        super().__init__()
        self.features = gluon.nn.HybridSequential()
        self.features.add(gluon.nn.Conv2D(6, 3, in_channels=in_channels), gluon.nn.BatchNorm(in_channels=6),
                          gluon.nn.Activation("relu"), gluon.nn.MaxPool2D(2), gluon.nn.Dropout(0.3), gluon.nn.Flatten())
        self.output = gluon.nn.Dense(classes, in_units=6 * 15 * 15)

    def hybrid_forward(self, F, x):
        return self.output(self.features(x))


class Plain(gluon.HybridBlock):
    """Two dense layers: the result depends on nothing but the samples of each update."""

    def __init__(self, classes=10, in_channels=1):
        super().__init__()
        self.features = gluon.nn.HybridSequential()
        self.features.add(gluon.nn.Flatten(), gluon.nn.Dense(24, in_units=32 * 32 * in_channels, activation="tanh"))
        self.output = gluon.nn.Dense(classes, in_units=24)

    def hybrid_forward(self, F, x):
        return self.output(self.features(x))


SPEC = {"task": "classification", "family": "test", "paper": "none", "year": 2000, "input_shape": (1, 32, 32), "classes": 10,
        "params": 1, "macs": 1}


@registry.register(registry.ModelSpec(**SPEC))
def small_test_net(classes=10, in_channels=1):
    return Small(classes, in_channels)


@registry.register(registry.ModelSpec(**SPEC))
def plain_test_net(classes=10, in_channels=1):
    return Plain(classes, in_channels)
