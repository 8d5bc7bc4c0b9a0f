"""The filters of a network's first convolution as a grid of small pictures."""
import numpy as np
from mxnet.gluon import Block, nn

from ..errors import UserError
from .picture import montage, new_figure, save_figure

__all__ = ["filters", "filter_tiles", "first_convolution"]

#: Tiles on a picture at most.
MOST = 4096


def first_convolution(block, path=""):
    """(structural name, block) of the first 2-D convolution, or None."""
    if isinstance(block, nn.Conv2D):
        return path or type(block).__name__, block
    for name, child in block._children.items():
        found = first_convolution(child, f"{path}.{name}" if path else name)
        if found:
            return found
    return None


def filter_tiles(weight):
    """Filters as pictures: zero is grey, and the largest weight of each filter, up or down, is at the end of the scale.

    Shape: (O, 3, h, w) -> (O, h, w, 3), colours as the filter sees them; (O, C, h, w) -> (O C, h, w), one by one.
    """
    weight = np.asarray(weight, dtype=np.float32)
    scale = np.maximum(np.abs(weight).max(axis=(1, 2, 3), keepdims=True), 1e-12)
    tiles = 0.5 + 0.5 * weight / scale
    return tiles.transpose(0, 2, 3, 1) if weight.shape[1] == 3 else tiles.reshape((-1,) + weight.shape[2:])


def filters(net, path, title=None):
    """Draw the filters of the first convolution of a network or block into a PNG file.

    Filters over 3 channels are shown in colour, others channel by channel, a row for each filter.

    Args: net: an initialised block; path: the picture, written beside its name and renamed.
    Returns: (structural name of the convolution, shape of its weights).
    Raises: UserError when there is no 2-D convolution, it is not initialised, it has too many filters for a picture, or
        matplotlib is missing.
    """
    found = first_convolution(net) if isinstance(net, Block) else None
    if not found:
        raise UserError(f"{type(net).__name__} has no 2-D convolution whose filters could be drawn")
    name, conv = found
    if conv.weight._data is None:
        raise UserError(f"{name} is not initialised; load weights first")
    weight = conv.weight.list_data()[0].asnumpy()
    tiles = filter_tiles(weight)
    if len(tiles) > MOST:
        raise UserError(f"{name} has {len(tiles):,} filters over single channels; a picture shows {MOST:,}")
    by_channel = weight.shape[1] not in (1, 3)
    canvas = montage(np.repeat(np.repeat(tiles, 4, axis=1), 4, axis=2), weight.shape[1] if by_channel else None, gap=3)
    width = min(12.0, max(4.0, canvas.shape[1] / 60))
    figure = new_figure((width, width * canvas.shape[0] / canvas.shape[1] + 0.5), "filters", dpi=120)
    axes = figure.add_axes([0.01, 0.01, 0.98, 1 - 0.01 - 0.32 / figure.get_figheight()])
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    axes.set_axis_off()
    shown = "x".join(map(str, weight.shape))
    figure.suptitle(title or f"{name}: {shown}", fontsize=10, parse_math=False)
    save_figure(figure, path)
    return name, weight.shape
