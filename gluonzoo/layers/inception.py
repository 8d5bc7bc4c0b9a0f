"""Inception modules: several branches of convolutions see the same map, and their outputs are joined along the channels.

Source: C. Szegedy et al., Going Deeper with Convolutions, 2014, arXiv:1409.4842, figure 2; the later modules (two 3x3
instead of a 5x5, 1xn and nx1 instead of nxn, split ends, reductions): C. Szegedy et al., Rethinking the Inception
Architecture for Computer Vision, 2015, arXiv:1512.00567, figures 5, 6, 7 and 10. Differences: none known.
"""
import functools

from mxnet.gluon import HybridBlock, nn

from ..errors import UserError
from .concat import concat_channels
from .network import Stages, check_positive
from .residual import ConvNorm

__all__ = ["Inception", "conv_chain", "inception_stage", "max_pool", "average_pool", "reducing_max_pool"]

#: Makers of the poolings inside modules: over 3x3 pixels; the first two keep the size, zeros outside count in the average.
max_pool = functools.partial(nn.MaxPool2D, 3, 1, padding=1)
average_pool = functools.partial(nn.AvgPool2D, 3, 1, padding=1)
reducing_max_pool = functools.partial(nn.MaxPool2D, 3, 2)


def conv_chain(in_channels, steps, unit=ConvNorm, prefix=None):
    """Blocks one after the other, and how many channels come out: the pair (Stages, channels).

    Args:
        steps: a list; each step is one of
            a tuple (channels, kernel_size), (channels, kernel_size, strides) or (channels, kernel_size, strides, padding):
            a convolution, called `conv1`, `conv2`, ...; the padding is half the kernel by default;
            a dict of branches, as `Inception` takes: a split whose ends are joined again, called `split1`, ...;
            a function that makes a block without parameters that keeps the number of channels, such as a pooling: called
            `fixed1`, ...
        unit: makes a convolution from (in_channels, channels, kernel_size, strides, padding=, prefix=).
    Raises: UserError for a step of another form.
    """
    check_positive(in_channels=in_channels)
    if not steps:
        raise UserError("a chain of convolutions has no steps; expected at least one")
    chain, channels, counts = Stages(prefix=prefix), in_channels, {"conv": 0, "split": 0, "fixed": 0}
    with chain.name_scope():
        for step in steps:
            kind = "split" if isinstance(step, dict) else "fixed" if callable(step) else "conv"
            counts[kind] += 1
            name = f"{kind}{counts[kind]}"
            if kind == "split":
                block = Inception(channels, step, unit, prefix=f"{name}_")
                channels = block.channels
            elif kind == "fixed":
                block = step()
            else:
                channels, block = _convolution(channels, step, unit, f"{name}_")
            setattr(chain, name, block)
    return chain, channels


def _convolution(in_channels, step, unit, prefix):
    if not isinstance(step, tuple) or not 2 <= len(step) <= 4:
        raise UserError(f"a step of a branch is {step!r}; expected (channels, kernel_size[, strides[, padding]]), a dict of "
                        "branches or a function that makes a pooling")
    channels, kernel_size, strides, padding = step + (1, None)[len(step) - 2:]
    check_positive(channels=channels)
    return channels, unit(in_channels, channels, kernel_size, strides, padding=padding, prefix=prefix)


class Inception(HybridBlock):
    """An Inception module: branches that all see the input, joined along the channels in the order given.

    For example GoogLeNet's 3a, with BatchNorm::

        Inception(192, {"branch1x1": [(64, 1)],
                        "branch3x3": [(96, 1), (128, 3)],
                        "branch5x5": [(16, 1), (32, 5)],
                        "branch_pool": [max_pool, (32, 1)]})

    Args:
        branches: {name: steps of `conv_chain`}; every branch must give the same height and width.
        unit: of `conv_chain`; a convolution with BatchNorm and ReLU by default.
    Shape: (N, in_channels, H, W) -> (N, channels, H', W'); the size stays unless the steps have strides or less padding.
    Raises: UserError when there are no branches, or a step has another form.
    """

    def __init__(self, in_channels, branches, unit=ConvNorm, prefix=None):
        super().__init__(prefix=prefix)
        if not branches:
            raise UserError("an Inception module has no branches; expected at least one")
        self._widths = {}
        with self.name_scope():
            for name, steps in branches.items():
                branch, channels = conv_chain(in_channels, steps, unit, prefix=f"{name}_")
                setattr(self, name, branch)
                self._widths[name] = channels

    @property
    def channels(self):
        """Channels of the output: the sum of the branches'."""
        return sum(self._widths.values())

    def hybrid_forward(self, F, x):
        maps = [self._children[name](x) for name in self._widths]
        return concat_channels(F, maps, list(self._widths.values()))


def inception_stage(in_channels, modules, unit=ConvNorm, module=Inception, prefix=None):
    """Inception modules one after the other, and how many channels come out: the pair (Stages, channels).

    Args:
        modules: {name: branches of a module, or a function that makes a pooling}.
        module: the class of the modules, `Inception` or one that is made like it and has `channels`.
    """
    stage, channels = Stages(prefix=prefix), in_channels
    with stage.name_scope():
        for name, branches in modules.items():
            if callable(branches):
                block = branches()
            else:
                block = module(channels, branches, unit, prefix=f"{name}_")
                channels = block.channels
            setattr(stage, name, block)
    return stage, channels
