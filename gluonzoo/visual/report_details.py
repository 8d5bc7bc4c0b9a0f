"""The parts of a report on one run: confusion matrix, errors as pictures, filters and feature maps."""
import numpy as np

from .report_charts import Line, chart
from .report_html import Html, join, note, number, percent, table, tag
from .report_predictions import confusion, pairs, reliability
from .report_sections import badge

__all__ = ["run_details", "confusion_table"]

#: Up to this many classes the matrix is a table of counts; above, a picture and the pairs confused most often.
LARGEST_TABLE = 25
#: Shades of a cell, as in report.css (--right-0 ...).
SHADES = 8
PAIRS = 12


def run_details(run, index, predictions, pictures, missing, opened):
    """All there is to see of one run, to be opened and closed.

    Args:
        predictions: `evaluation.Predictions` or None; pictures: what `report._pictures` made.
        missing: {part: why it is not there}.
        opened: whether it is open at first.
    """
    def part(name, title, *children):
        return tag("section", tag("h3", title, id=f"{name}-{run.key}"), children or note(missing.get(name, "There is none.")),
                   aria_labelledby=f"{name}-{run.key}", class_="part")

    best = run.best()
    words = [run.state()] + ([f"best {percent(best[0])}"] if best else [])
    body = []
    if predictions is None:
        body.append(part("predictions", "Predictions"))
    else:
        body.append(part("confusion", "Confusion matrix", _confusion(run, predictions)))
        body.append(part("wrong", "Most wrong", _most_wrong(predictions, pictures, missing)))
        body.append(part("pairs", "Classes confused most often", _pairs(predictions, pictures, missing)))
        body.append(part("calibration", "Calibration", _calibration(run, index, predictions)))
    body.append(part("filters", "Filters of the first convolution",
                     *([_filters(pictures["filters"])] if "filters" in pictures else [])))
    body.append(part("maps", "Feature maps", *([_maps(pictures["maps"])] if "maps" in pictures else [])))
    return tag("details", tag("summary", badge(run, index), tag("span", " ", ", ".join(words), class_="remark")),
               tag("p", "Folder: ", tag("code", run.path), class_="remark"), body, class_="run", id=f"run-{run.key}", open=opened)


def _shade(value, largest, kind):
    """A cell's class. The root brings out small counts: one error in a thousand is to be seen."""
    if not value or not largest:
        return None
    return f"{kind}{max(1, min(SHADES, int(np.ceil(SHADES * np.sqrt(value / largest)))))}"


def confusion_table(counts, classes, caption):
    """Counts by true class (rows) and answer (columns), with each class's share of right answers."""
    counts = np.asarray(counts)
    right = np.diagonal(counts).max(initial=0)
    wrong = (counts - np.diag(np.diagonal(counts))).max(initial=0)
    head = ["true \\ answer"] + [tag("th", tag("span", name), scope="col", class_="slanted") for name in classes] + ["right"]
    rows = []
    for row, name in enumerate(classes):
        cells = [tag("td", str(value), class_=_shade(value, right if row == column else wrong, "r" if row == column else "w"),
                     title=f"{value} of true {name} called {classes[column]}")
                 for column, value in enumerate(counts[row].tolist())]
        total = int(counts[row].sum())
        rows.append([name] + cells + [tag("td", percent(counts[row, row] / total if total else None, 1))])
    return table(head, rows, caption, class_="confusion numbers")


def _confusion(run, predictions):
    counts = confusion(predictions)
    wrong = int(len(predictions.labels) - np.trace(counts))
    caption = (f"True classes (rows) and answers (columns) on {len(predictions.labels):,} {predictions.split} images of "
               f"{predictions.dataset}")
    when = f" at update {predictions.step:,}" if predictions.step >= 0 else ""
    words = tag("p", f"{percent(1 - wrong / len(predictions.labels))} right, {wrong:,} wrong{when}. Blue: right answers; orange: "
                "errors, on a scale of their own.", class_="remark")
    if len(predictions.classes) <= LARGEST_TABLE:
        return join(words, confusion_table(counts, predictions.classes, caption))
    totals, right = counts.sum(axis=1), np.diagonal(counts)
    shares = np.where(totals > 0, right / np.maximum(totals, 1), np.nan)
    order = np.argsort(np.where(np.isnan(shares), 2, shares), kind="stable")
    rows = [[predictions.classes[k], f"{int(right[k]):,} of {int(totals[k]):,}", percent(float(shares[k]), 1), _worst(counts, k,
             predictions.classes)] for k in order]
    body = table(["true class", "right", "share", "most often taken for"], rows, f"Classes, the hardest first, {caption}",
                 class_="numbers")
    heading = tag("summary", f"All {len(rows)} classes, the hardest first")
    return join(words, _heat(counts, caption), tag("details", heading, body))


def _worst(counts, row, classes):
    others = counts[row].copy()
    others[row] = 0
    return f"{classes[int(others.argmax())]} ({int(others.max())})" if others.any() else "\u2014"


def _heat(counts, caption):
    """A matrix too large for a table as a picture: dark is few, bright many; errors and right answers on scales of their own."""
    from .report_pictures import address

    size = len(counts)
    own = np.eye(size, dtype=bool)
    picture = np.zeros((size, size, 3))
    for mask, colour in ((own, (0.35, 0.68, 0.95)), (~own, (1.0, 0.62, 0.2))):
        largest = counts[mask].max(initial=0)
        if largest:
            picture += (np.sqrt(np.where(mask, counts, 0) / largest))[..., None] * np.array(colour)
    pixels = np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)
    if size > 500:  # Cells below a pixel would vanish: the largest of each block stays.
        block = -(-size // 500)
        padded = np.zeros((-(-size // block) * block,) * 2 + (3,), np.uint8)
        padded[:size, :size] = pixels
        pixels = padded.reshape(len(padded) // block, block, len(padded) // block, block, 3).max(axis=(1, 3))
    return tag("img", src=address(pixels), alt=f"Heat map: {caption}. The pairs and the table tell its figures.", class_="heat",
               width=len(pixels), height=len(pixels))


def _image(shown, number_, caption):
    source, width, height = shown
    return tag("figure", tag("img", src=source, alt=f"test image {number_}", width=width, height=height),
               tag("figcaption", caption), class_="shot")


def _small(share):
    return "below 0.01 %" if share < 1e-4 else percent(float(share))


def _kept(text):
    """A caption in which no line ends between a number and its sign: there is little room below a small picture."""
    return text.replace(" %", "\u00a0%").replace("no. ", "no.\u00a0")


def _said(predictions, row):
    """What was said of one wrong image."""
    names = predictions.classes
    return join(tag("b", names[predictions.labels[row]]), " taken for ", tag("b", names[predictions.guesses[row]]), tag(
        "small", _kept(f" {percent(float(predictions.confidence[row]), 1)}; true class {_small(predictions.likelihood[row])}; "
                       f"no. {predictions.index[row]}")))


def _most_wrong(predictions, pictures, missing):
    rows = [row for row in pictures.get("wrong", ()) if row in pictures["images"]]
    if not rows:
        wrong = (predictions.labels != predictions.guesses).any()
        return note(missing.get("images", "No images were asked for.") if wrong else "Every image is answered right.")
    words = tag("p", "The errors of which the network was surest: those to whose true class it gave the least probability.",
                class_="remark")
    shots = [_image(pictures["images"][row], predictions.index[row], _said(predictions, row)) for row in rows]
    return join(words, tag("div", shots, class_="shots"))


def _pairs(predictions, pictures, missing):
    found = pairs(predictions, PAIRS)
    if not found:
        return note("Every image is answered right.")
    names, parts = predictions.classes, []
    for true, guess, rows in found:
        shots = [_image(pictures["images"][row], predictions.index[row], tag(
                     "small", _kept(f"{percent(float(predictions.confidence[row]), 0)}, no. {predictions.index[row]}")))
                 for row in rows.tolist() if row in pictures["images"] and row in pictures.get("pairs", ())]
        title = join(tag("b", names[true]), " taken for ", tag("b", names[guess]), f": {len(rows)}")
        parts.append(join(tag("h4", title), tag("div", shots, class_="shots small") if shots else Html("")))
    if not pictures["images"]:
        parts.insert(0, note(missing.get("images", "No images were asked for.")))
    return join(parts)


def _calibration(run, index, predictions):
    error, points = reliability(predictions)
    points = [(100 * sure, 100 * share) for sure, share in points]
    lines = [Line(index, run.key, run.name, points), Line(-1, "=", "perfectly calibrated", [(0.0, 0.0), (100.0, 100.0)])]
    drawn = chart("Right answers by confidence", lines, "confidence, %", "%", percent=True)
    return join(tag("p", f"Expected calibration error {percent(error)}; mean confidence "
                    f"{percent(float(predictions.confidence.mean()))}.", class_="remark"), tag("div", drawn, class_="charts"))


def _filters(found):
    source, width, name, shape, shown = found
    count = shape[0] * (1 if shape[1] == 3 else shape[1])
    words = f"{name}: {' x '.join(map(str, shape))}" + (f"; the first {shown} of {count}" if shown < count else "")
    return tag("figure", tag("img", src=source, alt=f"Filters of {name}, grey is zero", class_="pixels",
                             style=f"width:{_width(width)}px"), tag("figcaption", words))


def _width(pixels):
    """A width on the page that is a whole multiple of the picture's, about 400."""
    return pixels * max(1, min(8, round(400 / pixels)))


def _maps(found):
    source, index, stages = found
    first = tag("figure", tag("img", src=source, alt=f"The input, test image {index}", class_="pixels map"),
                tag("figcaption", f"input, test image {index}"))
    rest = [tag("figure", tag("img", src=address, alt=f"Maps of {stage}", class_="pixels map"),
                tag("figcaption", f"{stage}: {count} of {number(shape[0])} maps, {shape[1]} x {shape[2]}"))
            for stage, shape, count, address, _ in stages]
    return tag("div", first, rest, class_="maps")
