"""Pre-activation: BatchNorm and ReLU come before each convolution, and nothing stands on the way around them.

Source: K. He, X. Zhang, S. Ren, J. Sun, Identity Mappings in Deep Residual Networks, 2016, arXiv:1603.05027, figure 4 (e)
and the appendix; the shortcut of a unit that changes the shape begins behind the unit's first BatchNorm and ReLU and has no
BatchNorm of its own, as in the authors' github.com/KaimingHe/resnet-1k-layers. Differences: none known.
"""
import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from .network import check_flag
from .residual import he_conv
from .stochastic_depth import drop_branch

__all__ = ["PreBasicUnit", "PreBottleneckUnit", "expect_variances"]


class PreBasicUnit(HybridBlock):
    """Two 3x3 convolutions, each behind BatchNorm and ReLU, and the way around them.

    Args:
        active_shortcut: a convolution around the unit begins behind the unit's first BatchNorm and ReLU, as in the authors'
            code, not before them as in GluonCV's CIFAR networks.
    Shape: (N, in_channels, H, W) -> (N, width, ceil(H / strides), ceil(W / strides)).
    """
    #: Channels of the unit's output for each of its `width`.
    expansion = 1
    #: Chance to take part in training (`layers.stochastic_depth`).
    survival = 1.0

    def __init__(self, in_channels, width, strides=1, active_shortcut=True, prefix=None):
        check_flag(active_shortcut=active_shortcut)
        super().__init__(prefix=prefix)
        self._active_shortcut = active_shortcut
        with self.name_scope():
            self.norm1 = nn.BatchNorm(in_channels=in_channels)
            self.conv1 = he_conv(in_channels, width, 3, strides)
            self.norm2 = nn.BatchNorm(in_channels=width)
            self.conv2 = he_conv(width, width, 3)
            self.shortcut = _projection(in_channels, width, strides)

    def hybrid_forward(self, F, x):
        active = F.Activation(self.norm1(x), act_type="relu")
        branch = F.Activation(self.norm2(self.conv1(active)), act_type="relu")
        around = x if self.shortcut is None else self.shortcut(active if self._active_shortcut else x)
        return F.elemwise_add(drop_branch(F, self.conv2(branch), self.survival), around)


class PreBottleneckUnit(HybridBlock):
    """1x1, 3x3 and 1x1 convolutions, each behind BatchNorm and ReLU, and the way around them.

    Args:
        stride_on_3x3: the stride is the 3x3 convolution's, not the first 1x1's as in the authors' code.
    Shape: (N, in_channels, H, W) -> (N, 4 width, ceil(H / strides), ceil(W / strides)).
    """
    expansion = 4
    #: Chance to take part in training (`layers.stochastic_depth`).
    survival = 1.0

    def __init__(self, in_channels, width, strides=1, stride_on_3x3=False, prefix=None):
        super().__init__(prefix=prefix)
        first, second = (1, strides) if stride_on_3x3 else (strides, 1)
        with self.name_scope():
            self.norm1 = nn.BatchNorm(in_channels=in_channels)
            self.conv1 = he_conv(in_channels, width, 1, first)
            self.norm2 = nn.BatchNorm(in_channels=width)
            self.conv2 = he_conv(width, width, 3, second)
            self.norm3 = nn.BatchNorm(in_channels=width)
            self.conv3 = he_conv(width, 4 * width, 1)
            self.shortcut = _projection(in_channels, 4 * width, strides)

    def hybrid_forward(self, F, x):
        active = F.Activation(self.norm1(x), act_type="relu")
        branch = F.Activation(self.norm2(self.conv1(active)), act_type="relu")
        branch = F.Activation(self.norm3(self.conv2(branch)), act_type="relu")
        branch = drop_branch(F, self.conv3(branch), self.survival)
        return F.elemwise_add(branch, x if self.shortcut is None else self.shortcut(active))


def _projection(in_channels, channels, strides):
    """The 1x1 convolution around a unit, or None where the shape stays: the input itself."""
    return None if strides == 1 and in_channels == channels else he_conv(in_channels, channels, 1, strides)


def expect_variances(stages, last, variance):
    """Let the running variances of new units begin where training finds them, not at 1.

    Every unit adds about 1 to the variance of what goes around it. With running variances of 1 an untrained network's
    inference would double it instead: float32 overflows after some 250 units. Training does not use these numbers.

    Args:
        stages: lists of units, one after the other.
        last: the BatchNorm behind the last unit.
        variance: of the first unit's input.
    """
    for unit in (unit for stage in stages for unit in stage):
        unit.norm1.running_var.init = mx.init.Constant(variance)
        variance = 1 + (variance if unit.shortcut is None else 1)
    last.running_var.init = mx.init.Constant(variance)
