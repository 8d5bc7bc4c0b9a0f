"""The residual units of He et al. and their shortcuts.

Source: K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385,
figure 5 and sections 3.3 (shortcuts A and B) and 3.4; initialisation: the same authors, Delving Deep into Rectifiers,
2015, arXiv:1502.01852, equation 10. Differences: none known.
"""
import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from .concat import concat_channels
from .stochastic_depth import drop_branch

__all__ = ["BasicUnit", "BottleneckUnit", "ConvNorm", "ZeroPadShortcut", "he_conv", "make_shortcut",
           "residual_stage"]


def he_conv(in_channels, channels, kernel_size, strides=1, padding=None, groups=1, use_bias=False,
            weight_initializer=None):
    """A convolution that keeps the size at stride 1, with weights of variance 2 / fan_in, or as asked for.

    Args:
        kernel_size: a number, or (height, width).
        padding: a number or (height, width); by default half the kernel, rounded down.
    """
    if padding is None:
        padding = tuple(size // 2 for size in kernel_size) if isinstance(kernel_size, tuple) else kernel_size // 2
    return nn.Conv2D(channels, kernel_size, strides, padding=padding, groups=groups, in_channels=in_channels,
                     use_bias=use_bias,
                     weight_initializer=weight_initializer or mx.init.MSRAPrelu(factor_type="in", slope=0))


class ConvNorm(HybridBlock):
    """Convolution and BatchNorm, then ReLU unless `relu` is False.

    Args:
        epsilon: BatchNorm's.
        options: of `he_conv`: `padding`, `groups`, `use_bias`, `weight_initializer`.
    Shape: (N, in_channels, H, W) -> (N, channels, ceil(H / strides), ceil(W / strides)) with the default padding.
    """

    def __init__(self, in_channels, channels, kernel_size, strides=1, relu=True, epsilon=1e-5, prefix=None, **options):
        super().__init__(prefix=prefix)
        self._relu = relu
        with self.name_scope():
            self.conv = he_conv(in_channels, channels, kernel_size, strides, **options)
            self.norm = nn.BatchNorm(in_channels=channels, epsilon=epsilon)

    def hybrid_forward(self, F, x):
        x = self.norm(self.conv(x))
        return F.Activation(x, act_type="relu") if self._relu else x


class ZeroPadShortcut(HybridBlock):
    """Shortcut A: every `strides`-th pixel, and channels of zeros behind the input's; no parameters.

    Shape: (N, in_channels, H, W) -> (N, channels, ceil(H / strides), ceil(W / strides)).
    Raises: ValueError when channels is not a multiple of in_channels.
    """

    def __init__(self, in_channels, channels, strides, prefix=None):
        super().__init__(prefix=prefix)
        if channels % in_channels:
            raise ValueError(f"shortcut A from {in_channels} to {channels} channels; expected a multiple")
        self._in_channels, self._strides, self._copies = in_channels, strides, channels // in_channels - 1

    def hybrid_forward(self, F, x):
        # Pooling of one pixel subsamples as a strided slice does, and oneDNN computes it.
        x = F.Pooling(x, kernel=(1, 1), stride=(self._strides, self._strides), pool_type="avg")
        if self._copies == 0:
            return x
        zeros = F.zeros_like(x)
        return concat_channels(F, [x] + [zeros] * self._copies, [self._in_channels] * (self._copies + 1))


def make_shortcut(option, in_channels, channels, strides):
    """What a residual unit adds to its branch: None (the input itself) where the shape stays, else shortcut A or B.

    Args:
        option: "a", zeros for new channels; "b", a 1x1 convolution with BatchNorm.
    Raises: ValueError for another option.
    """
    if option not in ("a", "b"):
        raise ValueError(f"shortcut is {option!r}; expected 'a' or 'b'")
    if strides == 1 and in_channels == channels:
        return None
    if option == "a":
        return ZeroPadShortcut(in_channels, channels, strides, prefix="shortcut_")
    return ConvNorm(in_channels, channels, 1, strides, relu=False, prefix="shortcut_")


class BasicUnit(HybridBlock):
    """Two 3x3 convolutions and the shortcut around them.

    Shape: (N, in_channels, H, W) -> (N, channels, ceil(H / strides), ceil(W / strides)).
    """
    #: Channels of the unit's output for each of its `width`.
    expansion = 1
    #: Chance to take part in training (`layers.stochastic_depth`).
    survival = 1.0

    def __init__(self, in_channels, width, strides=1, shortcut="b", prefix=None):
        super().__init__(prefix=prefix)
        with self.name_scope():
            self.conv1 = ConvNorm(in_channels, width, 3, strides, prefix="conv1_")
            self.conv2 = ConvNorm(width, width, 3, relu=False, prefix="conv2_")
            self.shortcut = make_shortcut(shortcut, in_channels, width, strides)

    def hybrid_forward(self, F, x):
        shortcut = x if self.shortcut is None else self.shortcut(x)
        branch = drop_branch(F, self.conv2(self.conv1(x)), self.survival)
        return F.Activation(F.elemwise_add(branch, shortcut), act_type="relu")


class BottleneckUnit(HybridBlock):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide, and the shortcut around them.

    Args:
        stride_on_3x3: the stride is the 3x3 convolution's, not the first 1x1's as in the paper.
    Shape: (N, in_channels, H, W) -> (N, 4 width, ceil(H / strides), ceil(W / strides)).
    """
    expansion = 4
    #: Chance to take part in training (`layers.stochastic_depth`).
    survival = 1.0

    def __init__(self, in_channels, width, strides=1, shortcut="b", stride_on_3x3=False, prefix=None):
        super().__init__(prefix=prefix)
        first, second = (1, strides) if stride_on_3x3 else (strides, 1)
        with self.name_scope():
            self.conv1 = ConvNorm(in_channels, width, 1, first, prefix="conv1_")
            self.conv2 = ConvNorm(width, width, 3, second, prefix="conv2_")
            self.conv3 = ConvNorm(width, 4 * width, 1, relu=False, prefix="conv3_")
            self.shortcut = make_shortcut(shortcut, in_channels, 4 * width, strides)

    def hybrid_forward(self, F, x):
        shortcut = x if self.shortcut is None else self.shortcut(x)
        branch = drop_branch(F, self.conv3(self.conv2(self.conv1(x))), self.survival)
        return F.Activation(F.elemwise_add(branch, shortcut), act_type="relu")


def residual_stage(unit, units, in_channels, width, strides, prefix, **options):
    """`units` residual units one after the other; the first has the stride and the change of channels."""
    stage = nn.HybridSequential(prefix=prefix)
    with stage.name_scope():
        for index in range(units):
            stage.add(unit(in_channels, width, strides if index == 0 else 1, prefix=f"unit{index + 1}_", **options))
            in_channels = width * unit.expansion
    return stage
