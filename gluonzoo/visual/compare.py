"""Published accuracy against multiply-adds, one disc a network: many names on one picture, none over another."""
import math

import numpy as np

from ..accuracies import ACCURACIES, macs_at
from ..errors import UserError
from ..registry import model_spec
from .picture import new_figure, save_figure

__all__ = ["accuracy_picture", "place_labels"]

#: Points² of disc for a million parameters.
AREA = 5.0
#: Distances between a disc and its label that are tried, in pixels, and directions, in steps of a full circle.
DISTANCES, DIRECTIONS = (3, 9, 18, 30, 45, 62, 82, 105, 130), 32
#: Prices of a bad place for a label: a square pixel over another label, over a small disc or over a large one, a
#: crossing of a leader, a pixel of distance.
ON_LABEL, ON_SMALL, ON_LARGE, CROSSING, DISTANCE = 60.0, 12.0, 0.5, 900.0, 3.0
#: Radius in pixels from which on a disc has room for (a part of) a label.
LARGE = 24

#: Distinct on white, and dark enough for text.
COLOURS = ("#1f5fa8", "#c2410c", "#2f7d32", "#8e2a9b", "#b3261e", "#00707a", "#8a6100", "#5b4bb5", "#a3195b", "#4d5c2e",
           "#0b6e4f", "#7a4b2a", "#37474f", "#3f51b5", "#9c4a00", "#00695c", "#6d1b1b", "#455a94")


def accuracy_picture(names, path, size=(15, 10)):
    """Draw published top-1 accuracy against multiply-adds; the area of a disc is the number of parameters.

    Multiply-adds are those at the size at which the accuracy was measured. Hollow discs: the figure is of several crops
    of each image, or its source does not say.

    Args:
        names: networks with an entry in `gluonzoo.accuracies.ACCURACIES`.
        path: the PNG file to write; an earlier one is replaced only when the new one is complete.
        size: of the picture in inches.
    Returns: {name: multiply-adds}.
    Raises: UserError for a network without a published accuracy, or when matplotlib is missing.
    """
    missing = [name for name in names if name not in ACCURACIES]
    if missing or not names:
        raise UserError(f"{missing[0] if missing else 'an empty list'} has no published accuracy (gluonzoo.accuracies)")
    figure = new_figure(size, "the comparison", dpi=120)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.055, right=0.985, top=0.95, bottom=0.065)
    names = sorted(names, key=lambda name: -model_spec(name).params)  # Small discs above large ones.
    macs = {name: macs_at(name, ACCURACIES[name].size) for name in names}
    families = sorted({model_spec(name).family for name in names}, key=str.lower)
    colours = {name: COLOURS[families.index(model_spec(name).family) % len(COLOURS)] for name in names}
    x, y = np.array([macs[name] / 1e9 for name in names]), np.array([ACCURACIES[name].top1 for name in names])
    areas = np.array([AREA * model_spec(name).params / 1e6 for name in names])
    for index, name in enumerate(names):
        filled = ACCURACIES[name].single_crop
        axes.scatter(x[index], y[index], areas[index], facecolor=colours[name] if filled else "white", alpha=0.3, zorder=2,
                     edgecolor="none")
        axes.scatter(x[index], y[index], areas[index], facecolor="none", edgecolor=colours[name], linewidth=1, zorder=2)
    _axes(axes, x, y)
    _area_legend(axes)
    _labels(figure, axes, names, colours, x, y, np.sqrt(areas / math.pi) * figure.dpi / 72)
    save_figure(figure, path)
    return macs


def _axes(axes, x, y):
    from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator

    axes.set_xscale("log")
    axes.set_xlim(x.min() / 1.5, x.max() * 1.6)
    # By the logarithm of the error, or the best networks, of which there are most, would stand on top of each other.
    axes.set_yscale("function", functions=(lambda top1: -np.log(np.maximum(100 - top1, 1e-3)), lambda v: 100 - np.exp(-v)))
    least, most = 100 - y.max(), 100 - y.min()
    axes.set_ylim(100 - most * 1.06, 100 - least / 1.06)
    step = next(step for step in (5, 2, 1, 0.5, 0.2, 0.1) if 1.12 * (most - least) + 0.1 * least >= 2 * step or step == 0.1)
    axes.yaxis.set_major_locator(MultipleLocator(step))
    axes.yaxis.set_minor_locator(MultipleLocator(step / 5))
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.set_xlabel("multiply-adds of one image (billions, logarithmic)")
    axes.set_ylabel("published top-1 accuracy on ImageNet's validation set (%), logarithmic in the error")
    axes.set_title("area: parameters;  hollow: several crops, or crops not stated", fontsize=10, color="0.35")
    axes.grid(True, color="0.92")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _area_legend(axes):
    millions = (1, 10, 50, 150)
    handles = [axes.scatter([], [], AREA * number, facecolor="0.85", edgecolor="0.4") for number in millions]
    axes.legend(handles, [f"{number} million" for number in millions], title="parameters", loc="lower right",
                labelspacing=1.5, borderpad=2, handletextpad=1.5, frameon=False)


def _labels(figure, axes, names, colours, x, y, radii):
    """Write the names beside the discs, with a thin leader where one stands off."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [axes.text(0, 0, name, fontsize=8, color=colours[name], zorder=4) for name in names]
    sizes = np.array([(box.width, box.height) for box in (text.get_window_extent(renderer) for text in texts)])
    points = axes.transData.transform(np.stack([x, y], axis=1))
    blocked = [axes.get_legend().get_window_extent(renderer).extents]
    centres = place_labels(points, radii, sizes, axes.get_window_extent(renderer).extents, blocked)
    back = axes.transData.inverted()
    for text, name, point, radius, size, centre in zip(texts, names, points, radii, sizes, centres):
        text.set_position(back.transform(centre))
        text.set_ha("center")
        text.set_va("center")
        end = np.clip(point, centre - size / 2, centre + size / 2)  # The nearest point of the label.
        gap = np.linalg.norm(end - point)
        if gap > radius + 8:
            start = point + (end - point) * min(radius, gap) / gap
            (x0, y0), (x1, y1) = back.transform([start, end])
            axes.plot([x0, x1], [y0, y1], color=colours[name], linewidth=0.6, alpha=0.7, zorder=3)


def place_labels(points, radii, sizes, frame, blocked=(), rounds=6):
    """Places for labels beside discs, so that they keep off each other, the discs and each other's leaders.

    Greedy, the most crowded first, then every label again in the light of all others, until nothing changes.

    Shape: points (N, 2), radii (N,), sizes (N, 2), all in pixels -> (N, 2), the labels' centres.
    Args:
        frame: (left, bottom, right, top) that labels stay within.
        blocked: boxes (left, bottom, right, top) that are taken.
        rounds: how often every label is looked at.
    """
    count = len(points)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    crowding = -(1 / (1 + distances / 40)).sum(axis=1)
    centres = np.full((count, 2), np.nan)
    taken = np.array(list(blocked), dtype=float).reshape(-1, 4)
    for _ in range(rounds):
        changed = False
        for index in np.argsort(crowding, kind="stable"):
            choices = _candidates(points[index], radii[index], sizes[index])
            others = np.array([j for j in range(count) if j != index and not np.isnan(centres[j, 0])], dtype=int)
            prices = _prices(choices, index, others, points, radii, sizes, centres, frame, taken)
            best = choices[int(np.argmin(prices))]
            changed |= not np.array_equal(best, centres[index])
            centres[index] = best
        if not changed:
            break
    return centres


def _candidates(point, radius, size):
    """Centres of a label around its disc, and over it."""
    angles = np.arange(DIRECTIONS) * 2 * math.pi / DIRECTIONS
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # From the centre of a box of this size to its edge, in each direction.
    half = np.min(size / 2 / np.maximum(np.abs(ways), 1e-9), axis=1)
    rings = [point + ways * (radius + distance + half)[:, None] for distance in DISTANCES]
    return np.concatenate(([point[None]] if radius > size[0] / 2 else []) + rings)


def _overlap(low, high, other_low, other_high):
    """Areas that boxes share: (K, 2), (K, 2), (M, 2), (M, 2) -> (K, M)."""
    sides = np.minimum(high[:, None], other_high[None]) - np.maximum(low[:, None], other_low[None])
    return np.prod(np.maximum(sides, 0), axis=2)


def _prices(choices, index, others, points, radii, sizes, centres, frame, taken):
    """What each of the candidate centres of one label would cost; others are the labels that have a place."""
    margin = np.array([3.0, 1.5])
    low, high = choices - sizes[index] / 2 - margin, choices + sizes[index] / 2 + margin
    frame = np.asarray(frame, dtype=float)
    out = np.maximum(frame[:2] - low, 0).sum(axis=1) + np.maximum(high - frame[2:], 0).sum(axis=1)
    price = 1e4 * out + 200 * _overlap(low, high, taken[:, :2], taken[:, 2:]).sum(axis=1)
    inner = np.maximum(radii * 0.8, 1.5)[:, None]  # A disc as the square of about its area.
    weight = np.where(radii < LARGE, ON_SMALL, ON_LARGE)
    weight[index] = ON_LARGE
    price += (_overlap(low, high, points - inner, points + inner) * weight).sum(axis=1)
    gaps = np.linalg.norm(np.clip(points[index], low, high) - points[index], axis=1)
    price += DISTANCE * np.maximum(gaps - radii[index], 0)
    if len(others):
        other_low, other_high = centres[others] - sizes[others] / 2, centres[others] + sizes[others] / 2
        price += ON_LABEL * _overlap(low, high, other_low, other_high).sum(axis=1)
        ends = np.clip(points[others], other_low, other_high)
        price += CROSSING * _leaders_through(points[others], ends, low, high)
        own = np.clip(points[index], low, high)
        for share in np.linspace(0.1, 1, 10):
            place = points[index] + share * (own - points[index])
            inside = np.all((place[:, None] > other_low[None]) & (place[:, None] < other_high[None]), axis=2)
            price += CROSSING / 4 * inside.sum(axis=1)
    return price


def _leaders_through(starts, ends, low, high):
    """How many of the leaders pass through each box: (M, 2), (M, 2), (K, 2), (K, 2) -> (K,)."""
    hit = np.zeros((len(low), len(starts)), dtype=bool)
    for share in np.linspace(0, 1, 15):
        place = starts + share * (ends - starts)
        hit |= np.all((place[None] > low[:, None]) & (place[None] < high[:, None]), axis=2)
    return hit.sum(axis=1)
