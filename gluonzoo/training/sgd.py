"""SGD with MXNet's faster kernel for large arrays."""
import mxnet as mx

__all__ = ["SGD"]

#: Arrays of at least this many elements are updated one by one. MXNet's kernel for several arrays at once needs nearly twice as
#: long an element; it saves operators, which is what counts for smaller ones.
LARGE = 1 << 14


class SGD(mx.optimizer.SGD):
    """MXNet's SGD, the same to the bit: with momentum large float32 arrays go to `sgd_mom_update` instead of
    `multi_sgd_mom_update`, which computes the same in the same order, but without vector instructions."""

    def _update_impl(self, indices, weights, grads, states, multi_precision=False):
        if not isinstance(indices, (tuple, list)):
            indices, weights, grads, states = [indices], [weights], [grads], [states]
        alone = [self.momentum > 0 and not multi_precision and weight.size >= LARGE
                 and weight.stype == gradient.stype == "default" for weight, gradient in zip(weights, grads)]
        for position in [position for position, large in enumerate(alone) if large]:
            index, weight = indices[position], weights[position]
            self._update_count(index)
            mx.nd.sgd_mom_update(weight, grads[position], states[position], out=weight, lr=self._get_lr(index),
                                 wd=self._get_wd(index), momentum=self.momentum, rescale_grad=self.rescale_grad,
                                 **({"clip_gradient": self.clip_gradient} if self.clip_gradient else {}))
        rest = [[values[position] for position, large in enumerate(alone) if not large]
                for values in (indices, weights, grads, states)]
        if rest[0]:
            super()._update_impl(*rest, multi_precision=multi_precision)
