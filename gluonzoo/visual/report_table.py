"""The table of a report as Markdown, for a README or an issue."""
import gc

from ..errors import UserError
from ..summary import format_table
from . import report_predictions
from .picture import write_text
from .report import costs_of
from .report_html import duration, number, percent, shortened
from .report_runs import read_runs

__all__ = ["write_table", "plain"]


def write_table(paths, output, title=None, tell=None):
    """Write the runs' table as Markdown: accuracy, input, time, parameters, multiply-adds, speed; the best accuracy first.

    Args: as of `report.write_report`.
    Returns: the [RunFacts] in the table.
    Raises: UserError when no run can be read, or the file cannot be written.
    """
    tell = tell or (lambda line: None)
    runs, refused = read_runs(paths)
    for _, why in refused:
        tell(f"not shown: {why}")
    rows = []
    for run in runs:
        best, (params, macs), test = run.best(), (None, None), None
        if run.checkpoint is not None:
            try:
                params, macs = costs_of(run, run.checkpoint.net())
            except Exception as error:  # Of a network this version does not have, or has otherwise.
                tell(f"{run.path}: the network cannot be built: {error}")
            gc.collect()
        try:
            said = report_predictions.find(run)
            test = float((said.labels == said.guesses).mean()) if said is not None else None
        except UserError as error:
            tell(str(error))
        kind = "" if best is None or best[2] == "validation" else f" ({best[2]})"
        rows.append((best[0] if best else -1.0, (
            plain(run.name), plain(run.model), plain(run.dataset), (percent(best[0]) + kind) if best else "\u2014",
            percent(test), str(run.epochs[-1]["epoch"] + 1) if run.epochs else "0", duration(run.seconds()),
            duration(run.processor_seconds()), shortened(params), _shape(run), shortened(macs),
            number(run.speed() and round(run.speed())))))
    header = ("run", "network", "data set", "best validation accuracy", "test accuracy", "epochs", "training time",
              "processor time", "parameters", "input", "multiply-adds", "images/s")
    shown = [row for _, row in sorted(rows, key=lambda pair: (pair[1][2], -pair[0]))]
    # Columns that no run has anything for are left out.
    kept = [index for index, name in enumerate(header)
            if name not in ("test accuracy", "processor time", "input") or any(row[index] != "\u2014" for row in shown)]
    header, shown = [header[index] for index in kept], [[row[index] for index in kept] for row in shown]
    text = (f"## {title}\n\n" if title else "") + format_table(header, shown, markdown=True) + "\n"
    write_text(output, text)
    return runs


def _shape(run):
    """The input that multiply-adds are of."""
    shape = run.config.get("input_shape")
    return "x".join(map(str, shape)) if isinstance(shape, (list, tuple)) else "\u2014"


def plain(text):
    """Text that Markdown leaves alone."""
    words = " ".join(str(text if text is not None else "\u2014").split())
    return "".join("\\" + c if c in "\\|*`<>[]" else c for c in words)
