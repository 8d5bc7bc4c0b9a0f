"""Small pictures inside a page: thumbnails of images, filters and feature maps as data addresses."""
import base64
import io

import numpy as np

from ..errors import UserError
from .filters import filter_tiles, first_convolution
from .maps import displayable, stage_canvas
from .picture import montage

__all__ = ["thumbnail", "address", "filter_picture", "map_pictures"]

#: Longest side of a thumbnail in pixels, and how many filters are shown at most.
SIDE, MOST_FILTERS = 96, 256
#: Stages and maps a stage that are shown at most.
STAGES, MAPS = 4, 16


def _pillow():
    try:
        from PIL import Image
    except ImportError:
        raise UserError("pictures in a report need Pillow: pip install -e '.[visual]'") from None
    return Image


def address(pixels, photograph=False):
    """A picture as a data: address; JPEG for photographs where it is smaller, else PNG.

    Shape: (h, w), (h, w, 1) or (h, w, 3) uint8.
    """
    image = _pillow().fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    forms = {}
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 82, "optimize": True})):
        if kind == "png" or photograph:
            file = io.BytesIO()
            image.save(file, kind, **options)
            forms[kind] = file.getvalue()
    kind = min(forms, key=lambda name: len(forms[name]))
    return f"data:image/{kind};base64,{base64.b64encode(forms[kind]).decode('ascii')}"


def thumbnail(image):
    """(address, width, height) of an image (h, w, 1) or (h, w, 3) uint8, its longest side at most `SIDE`."""
    height, width = image.shape[:2]
    if max(height, width) > SIDE:
        scale = SIDE / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        picture = _pillow().fromarray(image[..., 0] if image.shape[2] == 1 else image)
        image = np.asarray(picture.resize(size, _pillow().BILINEAR))
    return address(image, photograph=image.shape[-1] == 3), image.shape[1], image.shape[0]


def filter_picture(net):
    """(address, width, structural name, shape of the weights, filters shown) of a network's first convolution.

    Raises: UserError when it has none.
    """
    found = first_convolution(net)
    if not found:
        raise UserError("the network has no 2-D convolution whose filters could be shown")
    name, conv = found
    weight = conv.weight.list_data()[0].asnumpy()
    tiles = filter_tiles(weight)[:MOST_FILTERS]
    canvas = montage(tiles, columns=min(16, len(tiles)), background=0.5)
    return address(_bytes(canvas)), canvas.shape[1], name, weight.shape, len(tiles)


def _bytes(values):
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


def map_pictures(net, inputs):
    """Feature maps of one image after some of a network's stages.

    Shape: inputs (C, H, W), normalised.
    Returns: (address of the input, [(stage, shape, maps shown, address, width)]).
    Raises: UserError when the network names no stages, or matplotlib is missing.
    """
    import mxnet as mx

    from ..layers import features
    try:
        from matplotlib import colormaps
    except ImportError:
        try:
            from matplotlib.cm import get_cmap
            colormaps = {name: get_cmap(name) for name in ("magma", "RdBu_r")}
        except ImportError:
            raise UserError("feature maps need matplotlib: pip install -e '.[visual]'") from None
    stages = tuple(getattr(net, "stages", ()))
    if not stages:
        raise UserError("the network names no stages whose maps could be shown")
    chosen = tuple(stages[i] for i in np.unique(np.linspace(0, len(stages) - 1, min(STAGES, len(stages))).round().astype(int)))
    context = next(iter(net.collect_params().values())).list_ctx()[0]
    outputs = features(net, chosen)(mx.nd.array(np.asarray(inputs)[None], ctx=context))
    found = []
    for stage, output in zip(chosen, outputs if isinstance(outputs, (list, tuple)) else [outputs]):
        value = output.asnumpy()[0]
        if value.ndim != 3 or not np.isfinite(value).all():
            continue
        canvas, signed, count = stage_canvas(value, MAPS)
        colours = colormaps["RdBu_r" if signed else "magma"](np.nan_to_num(canvas))[..., :3]
        colours[np.isnan(canvas)] = 0.6
        found.append((stage, value.shape, count, address(_bytes(colours), photograph=True), canvas.shape[1]))
    return address(_bytes(displayable(inputs)), photograph=True), found
