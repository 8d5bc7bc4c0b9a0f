"""Runs that differ in their seed alone, put together: mean and deviation of each group, and its distance from one of them."""
import dataclasses
import json
import os
import statistics
from typing import List

from ..errors import UserError
from ..summary import format_table
from .curves import is_number
from .picture import write_text
from .report_html import duration
from .report_runs import RunFacts, read_runs
from .report_table import plain

__all__ = ["Group", "group_runs", "verdict", "write_comparison"]

#: Settings in which the runs of a group may differ, or that decide no result.
_FREE = {"seed", "output", "data_dir", "sample_log", "keep", "checkpoint_every", "validate_every", "quiet", "show_workers",
         "log_format", "board_images", "board_histograms", "lighting"}
#: Settings that follow from others, the network's and the data set's.
_DERIVED = {"classes", "mean", "std", "model_arguments", "input_shape", "recipe_values"}


@dataclasses.dataclass
class Group:
    """Runs of the same settings. final: the last epoch's validation accuracy of each, in [0, 1]; of at least one."""

    runs: List[RunFacts]
    final: List[float]

    @property
    def mean(self):
        """Mean of the final accuracies."""
        return statistics.fmean(self.final)

    @property
    def deviation(self):
        """Standard deviation over the seeds, divisor n - 1; None of a single run."""
        return statistics.stdev(self.final) if len(self.final) > 1 else None


def _settings(run):
    return {name: value for name, value in run.config.items() if name not in _FREE and name not in _DERIVED}


def group_runs(runs):
    """Put runs together that differ in nothing but their seed.

    Returns: ([`Group`], [(run, why it is in none)]), groups in the order of their first runs.
    """
    groups, left_out = {}, []
    for run in runs:
        planned = run.config.get("epochs")
        last = run.epochs[-1] if run.epochs else {}
        if not is_number(planned) or last.get("epoch", -1) + 1 < planned:
            left_out.append((run, run.state()))
        elif not is_number(last.get("val_accuracy")):
            left_out.append((run, "its last epoch has no validation accuracy"))
        else:
            group = groups.setdefault(json.dumps(_settings(run), sort_keys=True), Group([], []))
            if run.config.get("seed") in [other.config.get("seed") for other in group.runs]:
                left_out.append((run, f"its settings and its seed {run.config.get('seed')} are another run's too"))
                continue
            group.runs.append(run)
            group.final.append(last["val_accuracy"])
    return list(groups.values()), left_out


def verdict(group, base):
    """What the distance of two groups' means says, as words.

    "within the spread" when the ranges mean - deviation to mean + deviation overlap; else "better" or "worse"; "one seed" when a
    deviation is not known. It is a plain reading of few runs, not a test of significance.
    """
    if group.deviation is None or base.deviation is None:
        return "one seed"
    distance = group.mean - base.mean
    if abs(distance) <= group.deviation + base.deviation:
        return "within the spread"
    return "better" if distance > 0 else "worse"


def difference(group, base):
    """In which settings a group differs from another, as text: "optimizer adam (sgd), lr 0.002 (0.05)"."""
    mine, others = _settings(group.runs[0]), _settings(base.runs[0])
    parts = []
    for name in dict.fromkeys([*mine, *others]):
        if mine.get(name) != others.get(name):
            parts.append(f"{name} {_told(mine.get(name))} ({_told(others.get(name))})")
    return ", ".join(parts)


def _told(value):
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def write_comparison(paths, output, against, title=None, tell=None):
    """Write a table, as Markdown, of groups of runs that differ in their seed alone, compared with one of the groups.

    Args: paths: runs' folders. against: the folder of one run of the group that the others are compared with. output, title,
        tell: as of `report_table.write_table`.
    Returns: the [`Group`] in the table, the one compared with first.
    Raises: UserError when no run can be read, `against` is not a finished one of them, or the file cannot be written.
    """
    tell = tell or (lambda line: None)
    runs, refused = read_runs([*paths, against])
    for _, why in refused:
        tell(f"not shown: {why}")
    groups, left_out = group_runs(runs)
    for run, why in left_out:
        tell(f"not shown: {run.path}: {why}")
    wanted = os.path.normpath(against)
    base = next((group for group in groups if wanted in [os.path.normpath(run.path) for run in group.runs]), None)
    if base is None:
        why = dict((os.path.normpath(run.path), why) for run, why in left_out).get(wanted, "it cannot be read")
        raise UserError(f"--against {against}: {why}; expected the folder of a finished run")
    groups.remove(base)
    groups.insert(0, base)
    rows = []
    for group in groups:
        spread = "\u2014" if group.deviation is None else f"{100 * group.deviation:.2f}"
        times = [run.processor_seconds() for run in group.runs]
        rows.append(("the others are compared with this" if group is base else plain(difference(group, base)),
                     str(len(group.runs)), f"{100 * group.mean:.2f} %", spread,
                     "\u2014" if group is base else f"{100 * (group.mean - base.mean):+.2f}",
                     "\u2014" if group is base else verdict(group, base),
                     duration(statistics.fmean(times)) if None not in times else "\u2014"))
    header = ("setting (in brackets: of the first line)", "seeds", "final validation accuracy, mean", "standard deviation",
              "difference", "reading", "processor time of a run")
    text = (f"## {title}\n\n" if title else "") + format_table(header, rows, markdown=True) + "\n"
    write_text(output, text)
    return groups
