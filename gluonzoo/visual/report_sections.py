"""The parts of a report that show all runs side by side: summary, curves, settings, machines, problems."""
import time

from .report_charts import COLOURS, Line, chart
from .report_html import duration, join, note, number, percent, shortened, table, tag
from .report_runs import differing

__all__ = ["summary", "curves", "settings", "machines", "problems", "section", "badge"]


def section(name, title, *children):
    """A part of the page with an anchor."""
    return tag("section", tag("h2", title, id=f"{name}-title"), *children, id=name, aria_labelledby=f"{name}-title")


def badge(run, index, link=False):
    """A run's key in its colour, and its name."""
    name = tag("a", run.name, href=f"#run-{run.key}") if link else run.name
    return join(tag("span", run.key, class_=f"key c{index % COLOURS}", data_run=index), " ", name)


def _sortable(value, shown, **more):
    return tag("td", shown, data_value="" if value is None else value, **dict({"class_": None}, **more))


def _top(best, others):
    """The class of the best of several runs on a data set."""
    return "top" if best and len(others) > 1 and best[0] == max(others) else None


def _count(value):
    """A large number, short; exact under the pointer."""
    return _sortable(value, shortened(value), title=None if value is None else f"{value:,}")


def summary(runs, costs, predictions):
    """The table of runs. costs: {index: (parameters, multiply-adds)}; predictions: {index: evaluation.Predictions}."""
    columns = ["run", "model", "data set", "best accuracy", "test accuracy", "epochs", "training time", "parameters",
               "multiply-adds", "images/s"]
    waiting = any(run.waited() is not None for run in runs)
    columns += ["waiting for data"] * waiting
    scores = {index: run.best() for index, run in enumerate(runs)}
    top = {}  # Accuracies on different data sets do not compare.
    for index, best in scores.items():
        if best:
            top.setdefault(runs[index].dataset, []).append(best[0])
    rows = []
    for index, run in enumerate(runs):
        best, (params, macs) = scores[index], costs.get(index, (None, None))
        shown = [percent(best[0]), tag("small", f" {'' if best[2] == 'validation' else best[2] + ', '}epoch {best[1]}")] \
            if best else "\u2014"
        said = predictions.get(index)
        test = float((said.labels == said.guesses).mean()) if said is not None else None
        planned = run.config.get("epochs")
        done = run.epochs[-1]["epoch"] + 1 if run.epochs else 0
        rows.append([
            tag("th", badge(run, index, link=True), scope="row", data_value=run.name), run.model or "\u2014",
            run.dataset or "\u2014",
            _sortable(best and best[0], shown, class_=_top(best, top.get(run.dataset, ()))),
            _sortable(test, percent(test)),
            _sortable(done, [str(done), "" if planned in (None, done) else tag("small", f" of {planned}")]),
            _sortable(run.seconds(), [duration(run.seconds()), "" if run.processor_seconds() is None else tag(
                "small", duration(run.processor_seconds()), " cpu", class_="below")]), _count(params), _count(macs),
            _sortable(run.speed(), number(run.speed() and round(run.speed())))]
            + [_sortable(run.waited(), percent(run.waited(), 1))] * waiting)
    head = [tag("th", tag("button", name, tag("span", class_="arrow", aria_hidden="true"), type="button"), scope="col")
            for name in columns]
    words = [tag("p", "Best accuracy: the highest of any epoch on the validation images, which for data sets with two parts are "
                 "the test images; green: the best of several runs on a data set. Training time is without validation, "
                 "by the clock; cpu is the processor time of worker 0, validation included.",
                 class_="remark")]
    if not predictions:
        words.append(note("Test accuracy is of saved predictions; ", tag("code", "tools/report.py --evaluate"), " makes them."))
    return section("summary", "Runs", table(head, rows, "Runs, a line each; the headings sort", class_="sortable numbers"), words)


def _lines(runs, of):
    return [Line(index, run.key, run.name, of(run)) for index, run in enumerate(runs)]


def curves(runs):
    """Charts of all runs, and the switches that show and hide runs."""
    switches = [tag("button", tag("span", run.key, class_=f"key c{index % COLOURS}"), " ", run.name, type="button",
                    aria_pressed="true", data_switch=index) for index, run in enumerate(runs)] if len(runs) > 1 else []
    charts = [
        chart("Validation accuracy", _lines(runs, lambda run: run.points("val_accuracy", 100)), "epochs", "%", percent=True),
        chart("Validation loss", _lines(runs, lambda run: run.points("val_loss")), "epochs", "cross-entropy"),
        chart("Training accuracy", _lines(runs, lambda run: run.points("train_accuracy", 100)), "epochs", "%", percent=True),
        chart("Training loss", _lines(runs, lambda run: run.points("train_loss")), "epochs", "cross-entropy"),
        chart("Validation accuracy by time", _lines(runs, lambda run: run.points_by_time("val_accuracy", 100)),
              "minutes of training", "%", percent=True),
        chart("Learning rate", _lines(runs, lambda run: run.points("lr")), "epochs", "at an epoch's end", from_zero=True)]
    return section("curves", "Curves", tag("div", switches, class_="switches", role="group", aria_label="Show or hide runs")
                   if switches else None, tag("div", charts, class_="charts"))


def throughput(runs):
    """Images a second over the time of training."""
    drawn = chart("Throughput", _lines(runs, lambda run: run.speeds()), "minutes of training", "images a second", from_zero=True,
                  values=False)
    return section("throughput", "Throughput", tag("div", drawn, class_="charts"))


def settings(runs):
    """What differs between the runs' settings, and below it what is the same."""
    different, same = differing(runs)
    unknown = [run.key for run in runs if not run.config]
    parts = []
    if unknown:
        parts.append(note(f"The settings of {', '.join(unknown)} are not known: no checkpoint, and no beginning in the log."))
    if len(runs) > 1 and different:
        head = ["setting"] + [tag("th", badge(run, index), scope="col") for index, run in enumerate(runs)]
        rows = []
        for name, values in different.items():
            known = [value for value in values if value is not None]
            usual = max(known, key=known.count)
            # With two runs both values stand out; with more those that most runs do not have.
            rows.append([tag("code", name)] + [
                tag("td", "\u2014" if value is None else value,
                    class_="other" if value is not None and (len(runs) == 2 or value != usual) else None) for value in values])
        parts.append(table(head, rows, "Settings that differ"))
    elif len(runs) > 1:
        parts.append(tag("p", "All runs have the same settings."))
    if same:
        shown = table(["setting", "value"], [[tag("code", name), value] for name, value in same.items()],
                      "Settings that are the same" if len(runs) > 1 else "Settings")
        words = f"{len(same)} settings are the same in all runs" if len(runs) > 1 else "All settings"
        parts.append(tag("details", tag("summary", words), shown, open=len(runs) == 1))
    return section("settings", "Settings", parts)


_FACTS = (("cpu", "processor"), ("cores", "cores"), ("memory_bytes", "memory"), ("system", "system"),
          ("python", "Python"), ("mxnet", "MXNet"), ("numpy", "NumPy"), ("gluonzoo", "gluonzoo"), ("threads", "threads"),
          ("workers", "workers"), ("devices", "devices"))


def machines(runs):
    """What the runs ran on; runs on the same machine share a line."""
    groups, untold = {}, []
    for index, run in enumerate(runs):
        found = (run.start or {}).get("machine")
        if isinstance(found, dict):
            shown = tuple(_fact(name, found.get(name)) for name, _ in _FACTS)
            groups.setdefault(shown, []).append((index, run))
        else:
            untold.append(run.key)
    parts = []
    if groups:
        head = ["runs"] + [words for _, words in _FACTS]
        rows = [[tag("th", [tag("span", run.key, class_=f"key c{index % COLOURS}", title=run.name) for index, run in members],
                     scope="row", class_="keys")] + list(shown) for shown, members in groups.items()]
        parts.append(table(head, rows, "Machines and versions"))
    if untold:
        parts.append(note(f"The log of {', '.join(untold)} does not tell its machine; ", tag("code", "tools/train.py"),
                          " writes it at the beginning of every run."))
    return section("machines", "Machine", parts)


def _fact(name, value):
    if value is None:
        return "\u2014"
    return f"{value / 2**30:.1f} GiB" if name == "memory_bytes" and isinstance(value, (int, float)) else str(value)


def problems(runs, refused):
    """What could not be read, and what is missing."""
    items = [tag("li", tag("b", "not shown: "), why) for _, why in refused]
    same = {}
    for run in runs:
        for problem in run.problems:
            same.setdefault(problem, []).append(run)
    items += [tag("li", tag("b", ", ".join(f"{run.key} {run.name}" for run in members), ": "), problem)
              for problem, members in same.items()]
    if not items:
        return None
    return section("problems", "What is missing or broken", tag("ul", items))


def heading(title, runs, made):
    """Title, what the page is of, and the way to its parts."""
    words = (f"{len(runs)} training {'run' if len(runs) == 1 else 'runs'}; written "
             f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(made))}.")
    return tag("header", tag("h1", title), tag("p", words), tag("button", "Dark", type="button", id="theme", hidden=True))


def navigation(parts):
    """Links to the parts of the page. parts: [(name, title)]."""
    return tag("nav", tag("ul", [tag("li", tag("a", title, href=f"#{name}")) for name, title in parts]), aria_label="Parts")
