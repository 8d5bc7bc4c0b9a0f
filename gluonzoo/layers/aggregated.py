"""The residual unit of ResNeXt, a sum of many small transformations, and its grouped convolution.

Source: S. Xie, R. Girshick, P. Dollar, Z. Tu, K. He, Aggregated Residual Transformations for Deep Neural Networks, 2016,
arXiv:1611.05431, figure 3 (c); the stride's place: github.com/facebookresearch/ResNeXt. Differences: none known.
"""
from mxnet.gluon import HybridBlock

from ..errors import UserError
from .network import check_positive
from .residual import ConvNorm, make_shortcut
from .stochastic_depth import drop_branch

__all__ = ["GroupedConvNorm", "ResNeXtUnit", "plain_layout"]


def plain_layout(F, x):
    """`x` itself, in the plain memory layout.

    MXNet 1.9.1 keeps what oneDNN's convolutions give in their own layouts. That of a convolution with small groups is one
    that oneDNN's fast BatchNorm does not know, forward or backward: next to such a convolution its reference kernel takes
    most of the time. A slice of everything is an operator that oneDNN does not have, and so the map comes back plain. With
    one on each side of every grouped convolution ResNeXt-50 trains 2.8 times as fast, and infers 1.7 times as fast.
    """
    return F.slice_axis(x, axis=0, begin=0, end=None)


class GroupedConvNorm(ConvNorm):
    """Convolution in groups and BatchNorm, then ReLU unless `relu` is False: a faster ConvNorm with the same numbers.

    Args: those of `ConvNorm`, `groups` among them.
    Shape: (N, in_channels, H, W) -> (N, channels, ceil(H / strides), ceil(W / strides)) with the default padding.
    """

    def hybrid_forward(self, F, x):
        x = self.norm(plain_layout(F, self.conv(plain_layout(F, x))))
        return F.Activation(x, act_type="relu") if self._relu else x


class ResNeXtUnit(HybridBlock):
    """1x1, grouped 3x3 and 1x1 convolutions, and the shortcut around them; the stride is the 3x3's.

    Args:
        width: a quarter of the output's channels.
        groups: the cardinality, C.
        group_width: channels of one group where `width` is 64, d; it grows with `width`.
    Shape: (N, in_channels, H, W) -> (N, 4 width, ceil(H / strides), ceil(W / strides)).
    Raises: UserError when a group would have no channel.
    """
    #: Channels of the unit's output for each of its `width`.
    expansion = 4
    #: Chance to take part in training (`layers.stochastic_depth`).
    survival = 1.0

    def __init__(self, in_channels, width, strides=1, groups=32, group_width=4, shortcut="b", prefix=None):
        check_positive(groups=groups, group_width=group_width)
        if width * group_width < 64:
            raise UserError(f"width is {width} and group_width {group_width}; expected a product of at least 64, one channel "
                            "in each group")
        super().__init__(prefix=prefix)
        middle = groups * (width * group_width // 64)
        with self.name_scope():
            self.conv1 = ConvNorm(in_channels, middle, 1, prefix="conv1_")
            self.conv2 = GroupedConvNorm(middle, middle, 3, strides, groups=groups, prefix="conv2_")
            self.conv3 = ConvNorm(middle, 4 * width, 1, relu=False, prefix="conv3_")
            self.shortcut = make_shortcut(shortcut, in_channels, 4 * width, strides)

    def hybrid_forward(self, F, x):
        shortcut = x if self.shortcut is None else self.shortcut(x)
        branch = drop_branch(F, self.conv3(self.conv2(self.conv1(x))), self.survival)
        return F.Activation(F.elemwise_add(branch, shortcut), act_type="relu")
