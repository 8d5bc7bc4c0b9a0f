"""What the ONNX tests share: blocks of one operator, networks whose every parameter counts, small inputs."""
import gluonzoo
from gluonzoo.layers import Network

import mxnet as mx
import numpy as np


class Op(mx.gluon.HybridBlock):
    """A function of (F, x, parameters by name) as a block; parameters are given as NumPy arrays."""

    def __init__(self, function, **values):
        super().__init__(prefix="op_")
        self._function = function
        for name, value in values.items():
            setattr(self, name, self.params.get(name, shape=value.shape))
        self.initialize()
        for name, value in values.items():
            getattr(self, name).set_data(mx.nd.array(value))

    def hybrid_forward(self, F, x, **parameters):
        return self._function(F, x, **parameters)


def prepared(name, seed=5, **options):
    """A registered network with random parameters, none of which may be left out, doubled or swapped without a trace.

    BatchNorms would hide nearly everything with the statistics they start from, biases start at zero.
    """
    mx.random.seed(seed)
    rng = np.random.RandomState(seed)
    net = gluonzoo.get_model(name, **options)
    net.initialize()
    for key, parameter in net._collect_params_with_prefix().items():
        value = parameter.data().asnumpy()
        if key.endswith(("gamma", "running_var")):
            value = value * rng.uniform(0.5, 1.5, value.shape)
            last = "conv2" if name in ("se_resnet18", "se_resnet34") else "conv3"
            if name.startswith("se_res") and key.endswith(last + ".norm.running_var"):
                # Units that double the signal would leave the last gates steps, and rounding would decide which way.
                value = value * 16
        elif key.endswith(("beta", "running_mean", "bias")) and not value.any():
            value = rng.normal(0, 0.1, value.shape)
        elif not value.any():
            value = rng.normal(0, 0.01, value.shape)
        parameter.set_data(mx.nd.array(value))
    return net


def small_shape(net, name):
    """(C, H, W) of images as small as the network takes, or of a quarter of the standard size."""
    spec = gluonzoo.model_spec(name)
    size = net.min_size if isinstance(net, Network) and net.fixed_size else [
        max(low, min(full, 64)) for low, full in zip(net.min_size, spec.input_shape[1:])]
    return (spec.input_shape[0],) + tuple(size)


def images(*shape, seed=0):
    """Random numbers of N(0, 1), float32."""
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
