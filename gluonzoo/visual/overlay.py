"""The courses of several training runs in one picture."""
from ..errors import UserError
from .curves import is_number
from .picture import new_figure, save_figure
from .report_charts import spread
from .report_runs import read_runs

__all__ = ["overlaid_curves"]

#: Distinct on white in lightness too, so that they stay apart for the colour-blind; beyond seven runs with dashes.
COLOURS = ("#0066a8", "#c74a00", "#00805a", "#a8457f", "#8f6a00", "#2a86c7", "#2b2f36")
DASHES = ("-", (0, (5, 3)), (0, (1, 2)))


def overlaid_curves(runs, path, title=None):
    """Draw loss and accuracy of several runs over epochs: validation bold, training thin.

    Args:
        runs: folders of runs.
        path: the picture; its ending .svg makes an SVG, any other a PNG. An earlier one is replaced only when the new one is
            complete.
    Returns: the names of the runs that are drawn, as the legend has them.
    Raises: UserError when no run has a finished epoch, or matplotlib is missing.
    """
    found, refused = read_runs(runs)
    drawn = [run for run in found if run.epochs]
    if not drawn:
        raise UserError("; ".join([why for _, why in refused] + [f"{run.path}: no finished epoch" for run in found]))
    figure = new_figure((12, 5), "the training curves", dpi=120, constrained_layout=True)
    panels = figure.subplots(1, 2)
    dots = max(len(run.epochs) for run in drawn) <= 30
    ends, handles = {}, []
    for axes, quantity, scale in zip(panels, ("loss", "accuracy"), (1, 100)):
        for index, run in enumerate(drawn):
            look = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index // len(COLOURS) % len(DASHES)]}
            for kind, width, alpha in (("train", 0.8, 0.5), ("val", 1.8, 1.0)):
                points = run.points(f"{kind}_{quantity}", scale)
                if points:
                    axes.plot(*zip(*points), linewidth=width, alpha=alpha, marker="o" if dots else None, markersize=width + 0.8,
                              **look)
                    ends[axes, index] = points[-1]
            if scale == 1:
                handles += axes.plot([], [], linewidth=2, **look)
        values = [y for run in drawn for kind in ("train", "val") for _, y in run.points(f"{kind}_{quantity}", scale)
                  if is_number(y)]
        if scale == 1 and values and min(values) > 0 and max(values) > 30 * min(values):
            axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.set_ylabel("accuracy (%)" if scale == 100 else quantity)
        axes.grid(True, color="0.9")
        axes.set_axisbelow(True)
        axes.set_xlim(right=max((end[0] for end in ends.values()), default=None))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    names = [f"{run.key}  {run.name}" for run in drawn]
    legend = panels[1].legend(handles, names, frameon=False, fontsize=8, title="bold: validation, thin: training",
                              title_fontsize=8, handlelength=3.5, loc="center left", bbox_to_anchor=(1.03, 0.5))
    for text in legend.get_texts():
        text.set_parse_math(False)
    for axes in panels:
        _keys(axes, {index: end for (owner, index), end in ends.items() if owner is axes}, drawn)
    if title:
        figure.suptitle(title, parse_math=False)
    save_figure(figure, path)
    return names


def _keys(axes, ends, runs):
    """Write the runs' keys at the ends of their lines, kept apart. ends: {number of the run: its line's last point}."""
    height = axes.figure.get_figheight() * 0.85 * 72  # Points, about.
    scale = axes.transScale + axes.transLimits
    shares = [float(scale.transform(end)[1]) for end in ends.values()]
    for (index, _), place in zip(ends.items(), spread([share * height for share in shares], 9, 0, height)):
        axes.annotate(runs[index].key, (1.0, place / height), xycoords="axes fraction", xytext=(4, 0), va="center", fontsize=8,
                      textcoords="offset points", color=COLOURS[index % len(COLOURS)], annotation_clip=False)
