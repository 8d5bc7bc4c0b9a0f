"""The course of a training run as a picture: loss and accuracy, training and validation."""
import json
import math
import os

from ..errors import UserError
from .picture import new_figure, save_figure

__all__ = ["training_curve", "read_log", "epoch_records", "is_number"]

_TRAIN, _VALIDATION = "#2166ac", "#c2410c"


def read_log(path):
    """The records of a run's JSON-lines log; lines that are no JSON object (a killed run's last) are left out.

    Raises: UserError when the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot read the log: {error.strerror}") from None
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def training_curve(log, path, title=None):
    """Draw a run's loss and accuracy over epochs into a PNG file, or an SVG where the path ends so.

    Left the loss: thin the training loss within epochs, bold at their ends, and the validation loss. Right the
    accuracy in percent. The best validation value (else training value) is marked. Of an epoch that is in the log
    twice, because the run was resumed, the later record counts.

    Args:
        log: a run's ``log.jsonl``, or its records.
        path: the picture to write; an earlier one is replaced only when the new one is complete.
    Raises: UserError when the log holds no complete epoch, or matplotlib is missing.
    """
    records = read_log(log) if isinstance(log, (str, os.PathLike)) else [item for item in log if isinstance(item, dict)]
    epochs, steps = epoch_records(records), _steps(records)
    if not epochs:
        name = log if isinstance(log, (str, os.PathLike)) else "the log"
        raise UserError(f"{name}: no complete epoch in it; nothing to draw")
    figure = new_figure((11, 4.2), "the training curve", dpi=120, constrained_layout=True)
    from matplotlib.ticker import MaxNLocator
    left, right = figure.subplots(1, 2, sharex=True)
    for number, points in enumerate(steps):
        left.plot(*zip(*points), color=_TRAIN, linewidth=0.8, alpha=0.45,
                  label=None if number else "training, within epochs")
    for axes, quantity, scale, best in ((left, "loss", 1, min), (right, "accuracy", 100, max)):
        _draw(axes, epochs, quantity, scale, best)
        axes.set_xlabel("epoch")
        axes.set_ylabel("accuracy (%)" if scale == 100 else quantity)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True, color="0.9")
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        _limit(axes, scale)
        if axes.lines:
            axes.legend(frameon=False, loc="best")
    # The panels share this axis.
    left.set_xlim(0, 1.03 * max([1] + [max(line.get_xdata()) for axes in (left, right) for line in axes.lines]))
    if title:
        figure.suptitle(title)
    save_figure(figure, path)


def is_number(value):
    """Whether a record's value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def epoch_records(records):
    """Epoch records by number, the later of two; in order."""
    found = {record["epoch"]: record for record in records
             if record.get("event") == "epoch" and is_number(record.get("epoch"))}
    return [found[number] for number in sorted(found)]


def _steps(records):
    """For each epoch with step records, its points (epochs done, loss); the loss is a mean that starts anew each time.

    The number of steps in an epoch comes from the records of complete ones.
    """
    lengths = [record["step"] / (record["epoch"] + 1) for record in records if record.get("event") == "epoch"
               and is_number(record.get("epoch")) and is_number(record.get("step")) and record["step"] > 0]
    found = {}
    for record in records if lengths else ():
        if record.get("event") == "step" and all(is_number(record.get(key)) for key in ("epoch", "step", "loss")):
            # Of a step that is there twice, because the run was resumed from before it, the later record counts.
            found.setdefault(record["epoch"], {})[record["step"]] = record["loss"]
    return [[(step / max(lengths), found[epoch][step]) for step in sorted(found[epoch])] for epoch in sorted(found)]


def _draw(axes, epochs, quantity, scale, best):
    """One panel: training and validation values at the ends of epochs, the best one ringed and told in the legend."""
    series = []
    for kind, name, colour in (("train", "training", _TRAIN), ("val", "validation", _VALIDATION)):
        key = f"{kind}_{quantity}"
        points = [(record["epoch"] + 1, scale * record[key]) for record in epochs if is_number(record.get(key))]
        if points:
            series.append((name, colour, points))
    for name, colour, points in series:
        label = name
        if name == series[-1][0]:  # Validation where there is one.
            x, y = best(points, key=lambda point: point[1])
            label += f", best {y:.2f} %" if scale == 100 else f", best {y:.4f}"
            label += f" (epoch {x})"
            axes.plot([x], [y], marker="o", markersize=10, markerfacecolor="none", markeredgecolor=colour,
                      markeredgewidth=1.5)
        axes.plot(*zip(*points), color=colour, linewidth=1.8, marker="o", markersize=3.5, label=label)


def _limit(axes, scale):
    """Losses from zero on, and no accuracy far above 100 %."""
    values = [float(value) for line in axes.lines for value in line.get_ydata()]
    if not values:
        return
    low, high = min(values), max(values)
    room = 0.06 * max(high - low, 1 if scale == 100 else 0.1 * abs(high), 1e-6)
    if scale == 100:
        axes.set_ylim(max(0, low - room) if high > low else low - 1, min(100 + 0.3 * room, high + room))
    else:
        axes.set_ylim(0 if low >= 0 else low - room, high + room)
