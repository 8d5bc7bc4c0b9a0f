"""Optimizers by name, and the arguments that a configuration gives them.

Weight decay. MXNet's `sgd` computes v = momentum v - lr (g + wd w), w = w + v: exactly AlexNet's
v <- 0.9 v - 0.0005 lr w - lr g (Krizhevsky et al., 2012, section 5), with the learning rate inside of what momentum
remembers. PyTorch's SGD keeps it outside (v = momentum v + g + wd w, w = w - lr v): the two differ for some updates after every
change of the rate. `nag` and `lars` here are like `sgd`; MXNet's own nag takes the weight decay of what momentum remembers from
the weight after the update, not before, which `NAG` here cures. In `adam` and `rmsprop` decay is added to the gradient before it
is divided, L2 regularisation as in the papers that used them.
"""
import mxnet as mx

from ..errors import UserError
from .lars import LARS
from .sgd import SGD

__all__ = ["NAG", "RMSProp", "create", "arguments_of", "check"]

#: Optimizers whose velocity is called `momentum`.
WITH_MOMENTUM = ("sgd", "nag", "signum", "lars")
WITH_EPSILON = ("adam", "nadam", "rmsprop")


class NAG(mx.optimizer.NAG):
    """MXNet's Nesterov momentum (Sutskever et al., 2013, section 3), with weight decay of the weight before the update.

    v = momentum v - lr (g + wd w); w = w + momentum v - lr (g + wd w). MXNet's operator writes w before it computes v.
    """

    def _update_impl(self, index, weight, grad, state, multi_precision=False):
        if state is None or multi_precision or not self._get_wd(index):
            super()._update_impl(index, weight, grad, state, multi_precision=multi_precision)
            return
        self._update_count(index)
        more = {"clip_gradient": self.clip_gradient} if self.clip_gradient else {}
        weight[:] = mx.nd.nag_mom_update(weight, grad, state, lr=self._get_lr(index), wd=self._get_wd(index),
                                         momentum=self.momentum, rescale_grad=self.rescale_grad, **more)


class RMSProp(mx.optimizer.RMSProp):
    """MXNet's RMSProp (Tieleman and Hinton, lecture 6.5, 2012), with momentum where it is asked for.

    n = rho n + (1 - rho) g^2; d = momentum d + lr g / sqrt(n + epsilon); w = w - d, with g = gradient + wd w. That is how the
    Inception and MobileNet papers' TensorFlow computes it; epsilon 1.0 is Inception-v3's. Differences from there: n begins at
    0, not at 1, and clip_gradient cuts g with its weight decay, both as in MXNet.

    Args: gamma1: rho. momentum: 0 leaves MXNet's own update. The others: of `mxnet.optimizer.RMSProp`.
    """

    def __init__(self, learning_rate=0.001, gamma1=0.9, gamma2=0.9, epsilon=1e-8, centered=False, momentum=0.0, **arguments):
        if centered and momentum:
            raise ValueError(f"momentum {momentum} with centered; the centered one has a momentum of its own, gamma2")
        super().__init__(learning_rate=learning_rate, gamma1=gamma1, gamma2=gamma2, epsilon=epsilon, centered=centered,
                         **arguments)
        self.momentum = momentum

    def create_state(self, index, weight):
        """The mean of squares, and with momentum the velocity."""
        if not self.momentum:
            return super().create_state(index, weight)
        return tuple(mx.nd.zeros(weight.shape, ctx=weight.context, dtype=weight.dtype) for _ in range(2))

    def update(self, index, weight, grad, state):
        """Update one weight."""
        if not self.momentum:
            super().update(index, weight, grad, state)
            return
        self._update_count(index)
        squares, velocity = state
        gradient = grad * self.rescale_grad + self._get_wd(index) * weight
        if self.clip_gradient:
            gradient = mx.nd.clip(gradient, -self.clip_gradient, self.clip_gradient)
        squares[:] = self.gamma1 * squares + (1 - self.gamma1) * mx.nd.square(gradient)
        velocity[:] = self.momentum * velocity + self._get_lr(index) * gradient / mx.nd.sqrt(squares + self.epsilon)
        weight -= velocity


#: Optimizers that are not MXNet's own, by name.
_OWN = {"sgd": SGD, "nag": NAG, "lars": LARS, "rmsprop": RMSProp}


def create(name, arguments):
    """An MXNet Optimizer.

    Raises: UserError for an unknown name or argument.
    """
    try:
        own = _OWN.get(name.lower()) if isinstance(name, str) else None
        return own(**arguments) if own else mx.optimizer.create(name, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer {name!r} with {arguments}: {error}") from None


def momentum_name(optimizer):
    """The attribute that holds an Optimizer's momentum, or None where it has none, or began without any."""
    return next((name for name in ("momentum", "beta1") if getattr(optimizer, name, 0)), None)


def arguments_of(config, name, rate):
    """The arguments that a `TrainConfig` decides, of the optimizer called name; each only where that optimizer has it."""
    name = name.lower()
    values = {"learning_rate": rate, "wd": config.wd}
    if name in WITH_MOMENTUM:
        values["momentum"] = config.momentum
    if name in ("adam", "nadam", "adamax"):
        values.update(beta1=config.beta1, beta2=config.beta2)
    if name == "rmsprop":
        values["gamma1"] = config.rms_decay
        if config.rms_momentum:
            values["momentum"] = config.rms_momentum
    if config.epsilon is not None and name in WITH_EPSILON:
        values["epsilon"] = config.epsilon
    if config.precision == "fp16":
        values["multi_precision"] = True
    return values


def check(config):
    """Raise UserError for optimizers that are not known, or settings that none of them has."""
    for name, rate in ((config.optimizer, config.lr), (config.switch_to, config.switch_lr)):
        made = None if name is None else create(name, arguments_of(config, name, rate))
        if made is not None and config.schedule == "one_cycle" and momentum_name(made) is None:
            raise UserError(f"--schedule one_cycle moves the momentum, and {name} has none"
                            + (f" with --momentum {config.momentum}" if name in WITH_MOMENTUM else ""))
    names = {config.optimizer.lower(), (config.switch_to or "").lower()}
    if config.epsilon is not None and not names & set(WITH_EPSILON):
        raise UserError(f"--epsilon {config.epsilon} with --optimizer {config.optimizer}, which has none; "
                        f"{', '.join(WITH_EPSILON)} do")
