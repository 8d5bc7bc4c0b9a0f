"""An image and what a network takes it for, on one picture."""
from .picture import new_figure, save_figure

__all__ = ["prediction_picture"]


def prediction_picture(image, guesses, path, title=None):
    """Draw an image with its likeliest classes and their probabilities beside it.

    Shape: image (h, w, 1) or (h, w, 3) uint8.
    Args: guesses: `Prediction`s, the likeliest first; path: the PNG file to write.
    Raises: UserError when matplotlib is missing.
    """
    figure = new_figure((9, 4), "a prediction", dpi=100)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1, 1)})
    figure.subplots_adjust(left=0.02, right=0.97, top=0.88, bottom=0.06, wspace=0.06)
    grey = image.shape[2] == 1
    left.imshow(image[..., 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=255,
                interpolation="nearest" if max(image.shape) < 200 else "antialiased")
    left.set_axis_off()
    for row, guess in enumerate(guesses):
        right.barh(row, guess.probability, height=0.36, color="#1f5fa8" if row == 0 else "#9db8d6")
        name = str(guess.index) if guess.name is None else guess.name
        label = name if len(name) <= 48 else name[:47] + "…"
        right.text(0, row - 0.28, f"{label}  {100 * guess.probability:.1f} %", va="bottom", ha="left", fontsize=11,
                   parse_math=False)
    right.set_xlim(0, 1)
    right.set_ylim(max(len(guesses), 3) - 0.4, -0.8)
    right.set_axis_off()
    if title:
        figure.suptitle(title if len(title) <= 90 else "…" + title[-89:], fontsize=11, parse_math=False)
    save_figure(figure, path)
