"""Charts of several runs for a page: lines in SVG, all writing in HTML, so that both keep their size at any width.

Every chart is readable without JavaScript: its lines end in the runs' keys, differ by dashes as well as by colour, and its
values stand in a table below. JavaScript adds the values under the pointer.
"""
import math
from dataclasses import dataclass
from typing import List, Tuple

from .report_html import Html, join, number, table, tag

__all__ = ["Line", "chart", "ticks", "spread"]

#: Colours in report.css (--c0 to --c6), dashes: 7 x 3 runs look different, and all have their key.
COLOURS, DASHES = 7, ("", "6 4", "1 5")
#: Height of the plot in CSS pixels, as report.css has it, and of a line's key at its end.
HEIGHT, LABEL = 300, 17


@dataclass
class Line:
    """One run's line. index: the run's number on the page; points: [(x, y)], x rising."""

    index: int
    key: str
    name: str
    points: List[Tuple[float, float]]


def ticks(low, high, most=6):
    """Round numbers that cover low to high: steps of 1, 2 or 5 times a power of ten, at most `most` + 1 of them inside."""
    if not high > low:
        high = low + (abs(low) or 1)
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if (high - low) / (factor * power) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(position * step, 12) for position in range(first, math.floor(high / step + 1e-9) + 1)]


def spread(places, gap, low, high):
    """Move places apart to at least `gap`, within low to high, by the least squares in all; where there is no room, evenly.

    Shape: N numbers -> N numbers in the same order.
    """
    if not places:
        return []
    gap = min(gap, (high - low) / len(places))
    order = sorted(range(len(places)), key=lambda i: places[i])
    # Without the gaps the order is all that is asked: an isotonic regression, by pooling neighbours that violate it.
    pools = []
    for rank, index in enumerate(order):
        pools.append((places[index] - rank * gap, 1))
        while len(pools) > 1 and pools[-1][0] < pools[-2][0]:
            (later, n), (earlier, m) = pools.pop(), pools.pop()
            pools.append(((later * n + earlier * m) / (n + m), n + m))
    least, most = low + gap / 2, high - gap / 2 - (len(places) - 1) * gap
    shifts = [min(max(value, least), most) for value, count in pools for _ in range(count)]
    found = [0.0] * len(places)
    for rank, index in enumerate(order):
        found[index] = shifts[rank] + rank * gap
    return found


class _Axis:
    """Maps values to 0..1000."""

    def __init__(self, low, high, logarithmic=False):
        self.logarithmic = logarithmic
        self.low, self.high = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
        if not self.high > self.low:
            self.high = self.low + (abs(self.low) or 1) * (0.1 if not logarithmic else 1)

    def __call__(self, value):
        value = math.log10(value) if self.logarithmic else value
        return 1000 * (value - self.low) / (self.high - self.low)

    def ticks(self):
        if not self.logarithmic:
            return ticks(self.low, self.high)
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        steps = (1,) if self.high - self.low > 3 else (1, 2, 5)
        return [factor * 10.0 ** decade for decade in decades for factor in steps
                if self.low - 1e-9 <= decade + math.log10(factor) <= self.high + 1e-9]


def _axes(lines, percent, from_zero):
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    low, high = min(ys), max(ys)
    logarithmic = not percent and not from_zero and low > 0 and high / low > 30
    if logarithmic:
        y_axis = _Axis(low / 1.1, high * 1.1, True)
    else:
        room = 0.06 * (high - low) or 0.05 * abs(high) or 1
        top = min(high + room, 100.0) if percent and high <= 100 else high + room
        y_axis = _Axis(0.0 if from_zero and low >= 0 else max(0.0, low - room) if low >= 0 else low - room, top)
    return _Axis(min(xs + [0.0]), max(xs)), y_axis


def _path(line, x_axis, y_axis):
    places = " ".join(f"{x_axis(x):.1f} {1000 - y_axis(y):.1f}" for x, y in line.points)
    data = " ".join(f"{x:.6g},{y:.6g}" for x, y in line.points)
    look = {"class_": f"line c{line.index % COLOURS}", "vector_effect": "non-scaling-stroke", "data_run": line.index}
    dash = DASHES[line.index // COLOURS % len(DASHES)]
    end_x, end_y = (x_axis(line.points[-1][0]), 1000 - y_axis(line.points[-1][1]))
    # A line that ends early is led on to its key.
    lead = tag("path", d=f"M{end_x:.1f} {end_y:.1f}H1000", **dict(look, class_=f"lead c{line.index % COLOURS}")) \
        if end_x < 995 else None
    parts = [lead, tag("path", d=f"M{places}", data_points=data, stroke_dasharray=dash or None, **look)]
    if len(line.points) <= 30:
        # Strokes of no length with round ends: dots that the stretched picture leaves round.
        dots = "".join(f"M{x_axis(x):.1f} {1000 - y_axis(y):.1f}h0" for x, y in line.points)
        parts.append(tag("path", d=dots, **dict(look, class_=f"dots c{line.index % COLOURS}")))
    return join(parts)


def _keys(lines, y_axis):
    """The runs' keys at the ends of their lines, kept apart."""
    wanted = [HEIGHT * (1 - y_axis(line.points[-1][1]) / 1000) for line in lines]
    places = spread(wanted, LABEL, 0, HEIGHT)
    return [tag("span", tag("b", line.key), tag("span", " ", line.name, class_="long"), data_run=line.index,
                class_=f"end c{line.index % COLOURS}", style=f"top:{place:.1f}px", title=line.name)
            for line, place in zip(lines, places)]


def chart(title, lines, x_label, y_label, percent=False, from_zero=False, values=True):
    """A figure of the runs' lines.

    Args:
        lines: `Line`s; those without points are left out, and a figure without any says so.
        percent: values are percent: two digits, not beyond 100. from_zero: the axis begins at 0.
        values: whether all values stand in a table below; else the ends, least and greatest of each line.
    """
    lines = [line for line in lines if line.points]
    caption = tag("figcaption", tag("b", title), f", {y_label}")
    if not lines:
        return tag("figure", caption, tag("p", "None of the runs has it in its log.", class_="note"), class_="chart")
    x_axis, y_axis = _axes(lines, percent, from_zero)
    grid = [tag("line", x1=0, x2=1000, y1=f"{1000 - y_axis(y):.1f}", y2=f"{1000 - y_axis(y):.1f}", class_="grid",
                vector_effect="non-scaling-stroke") for y in y_axis.ticks()]
    drawing = tag("svg", grid, [_path(line, x_axis, y_axis) for line in lines], viewBox="0 0 1000 1000",
                  preserveAspectRatio="none", aria_hidden="true", focusable="false")
    scales = [tag("span", _short(y), class_="y", style=f"top:{100 - y_axis(y) / 10:.2f}%") for y in y_axis.ticks()]
    x_ticks = x_axis.ticks()
    scales += [tag("span", _short(x), class_="x minor" if place % 2 else "x", style=f"left:{x_axis(x) / 10:.2f}%")
               for place, x in enumerate(x_ticks)]
    said = (f"{title}: {y_label} over {x_label}, {len(lines)} {'run' if len(lines) == 1 else 'runs'}. "
            "The arrow keys read out values; the table below holds them.")
    plot = tag("div", drawing, scales, _keys(lines, y_axis), tag("span", class_="guide", hidden=True), class_="plot",
               tabindex="0", role="group", aria_label=said, data_x=x_label, data_y=y_label,
               data_low=f"{x_axis.low:.9g}", data_high=f"{x_axis.high:.9g}", data_digits=2 if percent else None)
    label = tag("p", x_label, f"{'; logarithmic scale' if y_axis.logarithmic else ''}", class_="axis")
    below = _values(lines, x_label, title, percent) if values else _extremes(lines, title, percent)
    return tag("figure", caption, plot, label, tag("div", class_="readout", role="status", aria_live="polite"), below,
               class_="chart")


def _short(value):
    """A tick's writing."""
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e\u2212").replace("e+", "e").replace("e-", "e\u2212")
    return f"{value:,.6g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _written(value, percent):
    return "" if value is None else f"{value:.2f}" if percent else number(float(value), 5)


def _values(lines, x_label, title, percent):
    columns = [dict(line.points) for line in lines]
    rows = [[_written(x, False)] + [_written(column.get(x), percent) for column in columns]
            for x in sorted({x for column in columns for x in column})]
    body = table([x_label] + [_head(line) for line in lines], rows, f"Values of {title.lower()}", class_="numbers")
    return tag("details", tag("summary", "Values as a table"), body)


def _extremes(lines, title, percent):
    rows = []
    for line in lines:
        ys = [y for _, y in line.points]
        rows.append([_head(line)] + [_written(y, percent) for y in (ys[0], min(ys), max(ys), ys[-1])])
    body = table(["run", "first", "least", "greatest", "last"], rows, f"Values of {title.lower()}", class_="numbers")
    return tag("details", tag("summary", "Values as a table"), body)


def _head(line):
    return join(Html(tag("b", line.key)), " ", line.name)
