"""What all pictures share: a figure of its own, written beside its name and renamed; matplotlib only when needed."""
import math
import os

import numpy as np

from ..errors import UserError

__all__ = ["new_figure", "save_figure", "write_text", "montage"]


def new_figure(size, what, **options):
    """A matplotlib Figure with its own canvas, so that the backend that the user chose stays.

    Args: size: (width, height) in inches; what: what is being drawn, for the error.
    Raises: UserError that names the extra when matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(f"drawing {what} needs matplotlib: pip install -e '.[visual]'") from None
    figure = Figure(figsize=size, **options)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure, path):
    """Write a figure as PNG, or as SVG where the path ends so; an earlier file is replaced only when the new one is complete."""
    beside = f"{os.fspath(path)}.tmp-{os.getpid()}"
    try:
        figure.savefig(beside, format="svg" if os.fspath(path).lower().endswith(".svg") else "png")
        os.replace(beside, path)
    finally:
        if os.path.exists(beside):
            os.unlink(beside)


def write_text(output, text):
    """Write a text file beside its name and rename it. Raises: UserError when it cannot be written."""
    beside = f"{os.fspath(output)}.tmp-{os.getpid()}"
    try:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(beside, output)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}") from None
    finally:
        if os.path.exists(beside):
            os.unlink(beside)


def montage(tiles, columns=None, gap=1, background=1.0):
    """Tiles side by side on one canvas.

    Shape: (N, h, w, ...) in [0, 1] -> (rows (h + gap) + gap, columns (w + gap) + gap, ...).
    """
    count, height, width = tiles.shape[:3]
    columns = columns or math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap) + tiles.shape[3:], background, np.float32)
    for index, tile in enumerate(tiles):
        top, left = (gap + place * (extent + gap) for place, extent in zip(divmod(index, columns), (height, width)))
        canvas[top:top + height, left:left + width] = tile
    return canvas
