"""What a network's stages make of an image: feature maps as grids."""
import math

import mxnet as mx
import numpy as np

from ..layers import features
from .picture import montage, new_figure, save_figure

__all__ = ["feature_maps", "stage_canvas", "displayable"]

#: Maps of a stage that are shown at most.
MOST = 64


def displayable(image):
    """A network's input as a picture, its own range stretched to all of black to white.

    Shape: (C, H, W) -> (H, W, 3) in [0, 1].
    """
    image = np.asarray(image, dtype=np.float32)
    low, high = image.min(), image.max()
    image = (image - low) / max(high - low, 1e-12)
    return np.repeat(image[:1] if image.shape[0] != 3 else image, 1 if image.shape[0] == 3 else 3, axis=0).transpose(1, 2, 0)


def stage_canvas(maps, most=MOST):
    """A stage's maps as a grid on one scale: the strongest ones, in the order of their channels.

    Shape: (C, h, w) -> a canvas of numbers in [0, 1], NaN between the tiles.
    Returns: (canvas, whether there are values below zero, which then is at 0.5, and the number of maps shown).
    """
    strongest = np.sort(np.argsort(-maps.max(axis=(1, 2)), kind="stable")[:most])
    high = float(np.percentile(np.abs(maps), 99.7))
    signed = bool(maps.min() < -0.02 * high)  # Before a ReLU, say: zero is white then, and below it blue.
    low = -high if signed else 0.0
    tiles = np.clip((maps[strongest] - low) / max(high - low, 1e-12), 0, 1)
    enlarge = max(1, round(32 / max(tiles.shape[1:])))  # So that the gaps stay thin beside maps of few pixels.
    tiles = np.repeat(np.repeat(tiles, enlarge, axis=1), enlarge, axis=2)
    return montage(tiles, gap=max(1, tiles.shape[1] // 24), background=np.nan), signed, len(strongest)


def feature_maps(net, image, stages, path, most=MOST):
    """Draw an image and its feature maps after the named stages into a PNG file.

    All maps of a stage share one scale, so that a silent map stays dark; maps with values below zero go from blue over
    white to red. Of a stage with more than `most` maps those with the strongest response are shown, in the order of their
    channels.

    Args:
        net: a network of gluonzoo with weights.
        image: its input (C, H, W) or (1, C, H, W), normalised; NumPy or NDArray.
        stages: names of stages.
    Returns: {stage: shape of its maps}.
    Raises: UserError for a stage that the network does not have, or when matplotlib is missing.
    """
    stages = (stages,) if isinstance(stages, str) else tuple(stages)
    inputs = np.asarray(image.asnumpy() if hasattr(image, "asnumpy") else image, dtype=np.float32)
    inputs = inputs[None] if inputs.ndim == 3 else inputs[:1]
    block = features(net, stages)
    context = next(iter(net.collect_params().values())).list_ctx()[0]
    maps = [value.asnumpy()[0] for value in block(mx.nd.array(inputs, ctx=context))]
    rows = math.ceil((len(maps) + 1) / 3) if len(maps) > 2 else 1
    columns = math.ceil((len(maps) + 1) / rows)
    figure = new_figure((4.6 * columns, 4.9 * rows), "feature maps", dpi=120, constrained_layout=True)
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in panels:
        axes.set_axis_off()
    panels[0].imshow(displayable(inputs[0]), interpolation="nearest" if inputs.shape[2] < 100 else "antialiased")
    panels[0].set_title("input {}x{}x{}".format(*inputs.shape[1:]), fontsize=10)
    for axes, stage, value in zip(panels[1:], stages, maps):
        canvas, signed, count = stage_canvas(value, most)
        axes.set_facecolor("0.6")
        axes.imshow(canvas, cmap="RdBu_r" if signed else "magma", vmin=0, vmax=1, interpolation="nearest")
        shown = "all" if count == len(value) else f"{count} of"
        axes.set_title("{}: {} {} maps {}x{}".format(stage, shown, *value.shape), fontsize=10, parse_math=False)
    save_figure(figure, path)
    return {stage: value.shape for stage, value in zip(stages, maps)}
