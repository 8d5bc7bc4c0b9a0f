"""HTML from Python values: everything is escaped unless it was made by `tag`."""
import html

__all__ = ["Html", "tag", "join", "table", "note", "number", "shortened", "duration", "percent"]

_EMPTY = frozenset(("img", "meta", "input", "br"))


class Html(str):
    """Text that is HTML already. Any other text is escaped where it enters a page."""


def _text(value):
    if isinstance(value, Html):
        return value
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return "".join(map(_text, value))
    # Control characters are allowed in no HTML, not even escaped; names of classes and folders may hold them.
    plain = "".join(c if c >= " " or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    return html.escape(plain.encode("utf-8", "replace").decode("utf-8"), quote=True)


def join(*parts):
    """Parts one after the other; None is nothing, lists are flattened."""
    return Html(_text(parts))


def tag(element, /, *children, **attributes):
    """An element. Attributes: class_ becomes class, aria_label aria-label; None and False are left out, True stands alone."""
    parts = [element]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{_text(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    return Html(opening if element in _EMPTY else f"{opening}{join(*children)}</{element}>")


def table(header, rows, caption, **attributes):
    """A table in a box of its own that scrolls sideways; the first cell of a row is its heading.

    Args: header: cells; rows: lists of cells; a cell that is a `tag` of td or th stays as it is.
    """
    def cell(value, kind, **more):
        if isinstance(value, Html) and value.startswith(("<td", "<th")):
            return value
        return tag(kind, value, **more)

    head = tag("thead", tag("tr", [cell(value, "th", scope="col") for value in header]))
    body = tag("tbody", [tag("tr", cell(row[0], "th", scope="row"), [cell(value, "td") for value in row[1:]]) for row in rows])
    inner = tag("table", tag("caption", caption), head, body, **attributes)
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def note(*children):
    """A remark on something that is not there, and how to have it."""
    return tag("p", *children, class_="note")


def number(value, digits=4):
    """A number as people write it: 1,234,567 or 0.9876; an em dash where there is none."""
    if value is None or isinstance(value, float) and value != value:
        return "\u2014"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}"


def shortened(value):
    """A count with three digits: 61.7 k, 25.6 M, 4.09 G; an em dash where there is none."""
    if value is None:
        return "\u2014"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:#.3g} {letter}".replace(". ", " ")
    return str(value)


def percent(share, digits=2):
    """A share as percent; an em dash where there is none."""
    return "\u2014" if share is None or share != share else f"{100 * share:.{digits}f} %"


def duration(seconds):
    """Seconds as 41.3 s, 12 min 05 s or 3 h 07 min."""
    if seconds is None:
        return "\u2014"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
