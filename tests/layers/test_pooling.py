"""Global average pooling against NumPy, forward and backward."""
from gluonzoo.layers import GlobalAveragePool

import mxnet as mx
import numpy as np


def test_mean_over_pixels_and_its_gradient():
    block = GlobalAveragePool()
    block.hybridize()
    images = np.random.RandomState(0).randn(2, 5, 4, 6).astype("float32")
    array = mx.nd.array(images)
    array.attach_grad()
    weight = np.arange(10, dtype="float32").reshape(2, 5)
    with mx.autograd.record():
        out = block(array)
        loss = (out * mx.nd.array(weight)).sum()
    loss.backward()
    np.testing.assert_allclose(out.asnumpy(), images.mean(axis=(2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(array.grad.asnumpy(), np.broadcast_to(weight[:, :, None, None] / 24, images.shape), rtol=1e-6)
