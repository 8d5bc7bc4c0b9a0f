"""What the folder of a training run tells: settings, course, machine, and what of it is missing or broken."""
import json
import os
import statistics
from dataclasses import dataclass, field
from typing import Dict, List, Optional

from ..errors import UserError
from .curves import epoch_records, is_number, read_log

__all__ = ["RunFacts", "read_run", "read_runs", "MOST_RUNS", "key_of"]

MOST_RUNS = 100
#: Points of a curve within epochs that are drawn at most.
MOST_POINTS = 400


@dataclass
class RunFacts:
    """A run as the report sees it.

    Args:
        path, name: its folder, and the shortest end of it that no other run of the report has.
        key: A, B, ..., the sign for it on the page.
        config: settings by name, {} when nothing tells them.
        epochs: its log's records of epochs, the later of two of the same number. steps: those within epochs.
        start: the log's last record of a beginning (machine, versions, workers), or None.
        checkpoint: its newest sound checkpoint, or None.
        problems: sentences on what is broken or missing.
    """

    path: str
    name: str
    key: str = "A"
    config: Dict[str, object] = field(default_factory=dict)
    epochs: List[dict] = field(default_factory=list)
    steps: List[dict] = field(default_factory=list)
    start: Optional[dict] = None
    checkpoint: Optional[object] = None
    problems: List[str] = field(default_factory=list)

    @property
    def model(self):
        """The network's name, or None."""
        return self.config.get("model")

    @property
    def dataset(self):
        """The data set's name, or None."""
        return self.config.get("dataset")

    def best(self):
        """(accuracy, epoch from 1, "validation" or "training") of the best epoch; None when no epoch tells one."""
        for kind, words in (("val_accuracy", "validation"), ("train_accuracy", "training")):
            found = [(record[kind], record["epoch"] + 1) for record in self.epochs if is_number(record.get(kind))]
            if found:
                value, epoch = max(found, key=lambda pair: pair[0])
                return value, epoch, words
        return None

    def seconds(self):
        """Seconds of training, validation left out, or None."""
        found = [record["seconds"] for record in self.epochs if is_number(record.get("seconds"))]
        return sum(found) if found else None

    def processor_seconds(self):
        """Seconds of processor time, validation included, or None where not every epoch's record tells them."""
        found = [record.get("cpu_seconds") for record in self.epochs]
        return sum(found) if found and all(map(is_number, found)) else None

    def speed(self):
        """Median over epochs of images a second, or None."""
        found = [record["images_per_second"] for record in self.epochs if is_number(record.get("images_per_second"))]
        return statistics.median(found) if found else None

    def waited(self):
        """Share of the training time in which the network waited for data, or None."""
        found = [(record["data_wait"] * record["seconds"], record["seconds"]) for record in self.epochs
                 if is_number(record.get("data_wait")) and is_number(record.get("seconds"))]
        total = sum(seconds for _, seconds in found)
        return sum(waited for waited, _ in found) / total if total else None

    def state(self):
        """How far it came, in words."""
        planned, done = self.config.get("epochs"), self.epochs[-1]["epoch"] + 1 if self.epochs else 0
        if not done:
            return "no epoch finished"
        if not is_number(planned):
            return f"{done} epochs"
        return f"finished, {done} epochs" if done >= planned else f"ended or still running after epoch {done} of {planned}"

    def points(self, quantity, scale=1.0):
        """[(epochs done, value)] of an epochs' quantity such as "val_loss"."""
        return [(record["epoch"] + 1, scale * record[quantity]) for record in self.epochs if is_number(record.get(quantity))]

    def points_by_time(self, quantity, scale=1.0):
        """[(minutes of training, value)] of an epochs' quantity."""
        minutes, found = 0.0, []
        for record in self.epochs:
            minutes += record["seconds"] / 60 if is_number(record.get("seconds")) else 0.0
            if is_number(record.get(quantity)):
                found.append((minutes, scale * record[quantity]))
        return found

    def speeds(self):
        """[(minutes since the run's beginning, images a second)]: within epochs where the log has times, else an epoch each."""
        timed = [record for record in self.steps if is_number(record.get("time")) and is_number(record.get("images_per_second"))]
        if len(timed) < 2:
            return self.points_by_time("images_per_second")
        # A resumed run's pause is no training: a gap of more than a minute beyond the usual is left out of the axis.
        gaps = [max(0.0, b["time"] - a["time"]) for a, b in zip(timed, timed[1:])]
        usual = statistics.median(gaps)
        clock, found = 0.0, [(0.0, timed[0]["images_per_second"])]
        for gap, record in zip(gaps, timed[1:]):
            clock += gap if gap <= usual + 60 else usual
            found.append((clock / 60, record["images_per_second"]))
        return thinned(found)


def thinned(points, most=MOST_POINTS):
    """At most `most` of the points: means of neighbours, the last point itself."""
    if len(points) <= most:
        return points
    size = -(-len(points) // (most - 1))
    groups = [points[first:first + size] for first in range(0, len(points), size)]
    means = [tuple(sum(values) / len(group) for values in zip(*group)) for group in groups]
    return means if means[-1] == points[-1] else means + [points[-1]]


def key_of(index):
    """A, B, ..., Z, AA, AB, ... for 0, 1, ..."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def read_run(path):
    """Read one run's folder.

    Raises: UserError when there is neither a log nor a checkpoint in it.
    """
    from ..training import checkpoint

    run = RunFacts(path=path, name=os.path.basename(os.path.abspath(path)))
    log = os.path.join(path, "log.jsonl")
    if os.path.exists(log):
        try:
            _read_log(run, log)
        except UserError as error:
            run.problems.append(str(error))
    else:
        run.problems.append("log.jsonl is missing, so there are no curves; tools/train.py writes it")
    try:
        run.checkpoint = checkpoint.newest(path, tell=run.problems.append)
        if run.checkpoint is None:
            run.problems.append("there is no checkpoint, so no pictures of what the network does; tools/train.py writes one at "
                                "the end of every epoch")
    except (checkpoint.CheckpointError, OSError) as error:
        run.problems.append(str(error))
    if run.checkpoint is not None:
        history = run.checkpoint.state.get("history")
        if not run.epochs and isinstance(history, list):
            run.epochs = epoch_records([dict(record, event="epoch") for record in history if isinstance(record, dict)])
        run.config = dict(run.config, **run.checkpoint.config)
    if not run.epochs and not run.steps and run.checkpoint is None and run.start is None:
        raise UserError(f"{path}: no training run; expected log.jsonl or checkpoints/ in it"
                        + (f" ({run.problems[0]})" if os.path.exists(log) else ""))
    return run


def _read_log(run, log):
    """Fill in what the log tells."""
    with open(log, "rb") as file:
        lines = sum(1 for line in file if line.strip())
    records = read_log(log)
    if len(records) < lines:
        run.problems.append(f"{lines - len(records)} of the {lines} lines of log.jsonl are broken and left out")
    run.epochs = epoch_records(records)
    if not run.epochs:
        run.problems.append("its log holds no finished epoch yet")
    latest = {record["step"]: record for record in records if record.get("event") == "step" and is_number(record.get("step"))}
    run.steps = [latest[step] for step in sorted(latest)]
    starts = [record for record in records if record.get("event") == "start"]
    if starts:
        run.start = starts[-1]
        settings = run.start.get("config")
        run.config = dict(settings) if isinstance(settings, dict) else {}


def read_runs(paths):
    """Read runs' folders for one page.

    Returns: ([RunFacts], [(path, why it cannot be shown)]).
    Raises: UserError when a path does not exist, there are too many, or no run at all is left.
    """
    unique = list(dict.fromkeys(os.path.normpath(path) for path in paths))
    if not 1 <= len(unique) <= MOST_RUNS:
        raise UserError(f"{len(unique)} runs for one report; expected 1 to {MOST_RUNS}")
    for path in unique:
        if not os.path.exists(path):
            raise UserError(f"{path}: no such folder; expected a run's folder, as tools/train.py --output writes it")
    runs, refused = [], []
    for path in unique:
        try:
            if not os.path.isdir(path):
                raise UserError(f"{path}: a file; expected a run's folder")
            runs.append(read_run(path))
        except UserError as error:
            refused.append((path, str(error)))
    if not runs:
        raise UserError("no run to report on: " + "; ".join(why for _, why in refused))
    _name(runs)
    return runs, refused


def _name(runs):
    """Keys, and the shortest ends of paths that tell the runs apart."""
    parts = [os.path.abspath(run.path).strip(os.sep).split(os.sep) for run in runs]
    depth = 1
    while depth < max(map(len, parts)) and len({tuple(p[-depth:]) for p in parts}) < len(parts):
        depth += 1
    for index, (run, pieces) in enumerate(zip(runs, parts)):
        run.key, run.name = key_of(index), "/".join(pieces[-depth:])


def _told(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def differing(runs, skip=("output", "classes", "mean", "std", "model_arguments", "input_shape")):
    """Settings by whether they differ: ({name: [value a run]}, {name: value}).

    Values are texts, None where a run does not tell: its version had no such setting, or it has no configuration.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.config if name not in skip))
    different, same = {}, {}
    for name in names:
        values = [_told(run.config[name]) if name in run.config else None for run in runs]
        known = {value for value in values if value is not None}
        if len(known) > 1:
            different[name] = values
        else:
            same[name] = known.pop()
    return different, same
