"""Concatenation along the channels that can also be trained when it is hybridized."""
import itertools

__all__ = ["concat_channels"]

#: Channels in one block of oneDNN's widest memory layout (16 with AVX-512, 8 with AVX2).
BLOCK = 16


def concat_channels(F, parts, channels):
    """The channels of all `parts`, one after the other.

    In a hybridized network MXNet 1.9.1 hands Concat's backward a gradient in oneDNN's blocked layout when a convolution
    follows, and dies there of SIGFPE unless every part begins at a whole block. A slice of everything, an operator
    that oneDNN does not have, brings the gradient back to the plain layout; it is added only where it is needed.

    Args:
        channels: the number of channels of each part.
    Shape: [(N, C_i, H, W), ...] -> (N, sum of C_i, H, W).
    """
    joined = F.concat(*parts, dim=1)
    aligned = all(start % BLOCK == 0 for start in itertools.accumulate(channels[:-1]))
    return joined if aligned else F.slice_axis(joined, axis=0, begin=0, end=None)
