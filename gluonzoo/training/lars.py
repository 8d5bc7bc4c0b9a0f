"""LARS: a learning rate for every layer, for large batches."""
import mxnet as mx

__all__ = ["LARS"]


class LARS(mx.optimizer.Optimizer):
    """Layer-wise adaptive rate scaling over SGD with momentum.

    For a weight w with gradient g: ratio = eta |w| / (|g| + wd |w| + eps), or 1 where |w| or |g| is 0; v = momentum v +
    rate ratio (g + wd w); w = w - v. Arrays of one dimension, biases and BatchNorm's gamma and beta, have the ratio 1.
    Nothing is read back to Python, so that updates stay asynchronous.

    Source: You, Gitman, Ginsburg, "Large Batch Training of Convolutional Networks", 2017, algorithm 1 and equation 6.
    Differences: none known; what has no ratio is not in the paper, but in all its implementations.
    Differences from MXNet's LARS: that one tells biases by names it only has with `param_idx2name`, and its "momentum
    correction" takes effect for the first four arrays of an update only, by a rate that no saved state holds.
    """

    def __init__(self, learning_rate=0.1, momentum=0.9, eta=0.001, eps=1e-9, **arguments):
        super().__init__(learning_rate=learning_rate, **arguments)
        self.momentum, self.eta, self.eps = momentum, eta, eps

    def create_state(self, index, weight):
        """Momentum, or None without."""
        return mx.nd.zeros(weight.shape, ctx=weight.context, dtype=weight.dtype) if self.momentum else None

    def update(self, index, weight, grad, state):
        """Update one weight."""
        self._update_count(index)
        rate, decay = self._get_lr(index), self._get_wd(index)
        rates, decays = mx.nd.array([rate], ctx=weight.context), mx.nd.array([decay], ctx=weight.context)
        more = {"rescale_grad": self.rescale_grad, "num_weights": 1}
        if self.clip_gradient:
            more["clip_gradient"] = self.clip_gradient
        if weight.ndim > 1:
            norms = [mx.nd.multi_sum_sq(array, num_arrays=1) for array in (weight, grad)]
            mx.nd.multi_lars(rates, *norms, decays, eta=self.eta, eps=self.eps, rescale_grad=self.rescale_grad, out=rates)
        if state is None:
            mx.nd.preloaded_multi_sgd_update(weight, grad, rates, decays, out=weight, **more)
        else:
            mx.nd.preloaded_multi_sgd_mom_update(weight, grad, state, rates, decays, out=weight, momentum=self.momentum, **more)
