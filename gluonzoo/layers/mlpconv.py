"""The mlpconv layer: a small multilayer perceptron slides over the image.

Source: M. Lin, Q. Chen, S. Yan, Network In Network, 2013, arXiv:1312.4400, section 3.1 and equation 2.
Differences: none known.
"""
from mxnet.gluon import HybridBlock, nn

from ..errors import UserError

__all__ = ["MLPConv"]


class MLPConv(HybridBlock):
    """A convolution and 1x1 convolutions behind it, each followed by a ReLU.

    The 1x1 convolutions are the paper's cascaded cross channel parametric pooling, hence their name.

    Args:
        channels: of the convolution and of each 1x1 convolution, in order.
        padding: of the first; by default half the kernel, rounded down.
        weight_initializer: of all, or one for each.
    Shape: (N, in_channels, H, W) -> (N, channels[-1], H', W'), the same size at stride 1 with the default padding.
    Raises: UserError for no channels, or another number of initializers.
    """

    def __init__(self, in_channels, channels, kernel_size, strides=1, padding=None, weight_initializer=None, prefix=None):
        channels = tuple(channels)
        if not channels:
            raise UserError("channels is empty; expected the channels of the convolution and of each 1x1 convolution")
        if not isinstance(weight_initializer, (tuple, list)):
            weight_initializer = (weight_initializer,) * len(channels)
        if len(weight_initializer) != len(channels):
            raise UserError(f"{len(weight_initializer)} initializers for {len(channels)} layers; expected one, or one for each")
        super().__init__(prefix=prefix)
        with self.name_scope():
            for index, (width, initializer) in enumerate(zip(channels, weight_initializer)):
                if index == 0:
                    self.conv = nn.Conv2D(width, kernel_size, strides, kernel_size // 2 if padding is None else padding,
                                          activation="relu", in_channels=in_channels, weight_initializer=initializer)
                else:
                    setattr(self, f"cccp{index}", nn.Conv2D(width, 1, activation="relu", in_channels=in_channels,
                                                            weight_initializer=initializer))
                in_channels = width

    def hybrid_forward(self, F, x):
        for layer in self._children.values():
            x = layer(x)
        return x
