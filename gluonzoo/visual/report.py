"""A report on training runs: one HTML page that holds all it shows and needs no network."""
import gc
import os
import time

import numpy as np

from ..errors import UserError
from . import report_predictions, report_sections
from .picture import write_text
from .report_details import PAIRS, run_details
from .report_html import Html, join, tag
from .report_runs import read_runs

__all__ = ["write_report", "costs_of"]

_FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "report_files")
#: Pictures of test images on a page, over all its runs, and of a pair of classes at most.
ALL_IMAGES, OF_PAIR = 720, 8
#: What the page may load: nothing. What it brings along is inside it.
POLICY = ("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
          "form-action 'none'")


def write_report(paths, output, title=None, evaluate=False, data_dir=None, images=24, batch_size=64, tell=None):
    """Write a page on one or several runs.

    Of a run that lacks parts the page shows the others and tells what would make them. Nothing is downloaded.

    Args:
        paths: runs' folders, as `tools/train.py` writes them.
        output: the page; an earlier one is replaced only when the new one is complete.
        evaluate: run the newest checkpoint of each run that has no saved predictions on its test set, and save them in the
            run's folder (predictions.npz).
        data_dir: where the data sets are, as for training; by default where the run found it.
        images: wrong test images shown of each run; fewer when there are many runs.
        tell: called with a line for every run that is read and every problem.
    Returns: the [RunFacts] that are on the page.
    Raises: UserError when no run can be read, or the page cannot be written.
    """
    if images < 0:
        raise UserError(f"the number of images is {images}; expected 0 or more")
    tell = tell or (lambda line: None)
    if not os.path.isdir(os.path.dirname(os.path.abspath(output))) or os.path.isdir(output):
        raise UserError(f"cannot write {output}: " + ("it is a folder" if os.path.isdir(output) else "no such folder"))
    runs, refused = read_runs(paths)
    for _, why in refused:
        tell(f"not shown: {why}")
    images = min(images, ALL_IMAGES // (4 * len(runs)))
    predictions, pictures, missing, costs = {}, {}, {}, {}
    for index, run in enumerate(runs):
        tell(f"{run.key}: {run.path}, {run.state()}")
        pictures[index], missing[index] = {"images": {}}, {}
        _look(run, index, predictions, pictures[index], missing[index], costs, evaluate, data_dir, images, len(runs), batch_size)
        for problem in run.problems:
            tell(f"  {problem}")
        gc.collect()  # Networks are cycles; one at a time is enough.
    write_text(output, _page(title or "Training report", runs, refused, predictions, pictures, missing, costs))
    return runs


def _look(run, index, predictions, pictures, missing, costs, evaluate, data_dir, images, runs, batch_size):
    """Fill in what one run's checkpoint, predictions and test images show."""
    try:
        found = report_predictions.find(run)
    except UserError as error:
        run.problems.append(str(error))
        found = None
    if run.checkpoint is None:
        why = "This run has no sound checkpoint; tools/train.py writes one at the end of every epoch."
        missing.update(predictions=why, filters=why, maps=why, images=why)
        if found is not None:
            predictions[index] = found
        return
    missing["predictions"] = f"No predictions are saved for this run: tools/report.py {run.path} --evaluate makes them."
    dataset = net = None
    try:
        dataset = report_predictions.test_images(run, data_dir, found.split if found is not None else "test")
    except (UserError, OSError) as error:
        missing["images"] = missing["maps"] = f"The test images are not here: {error}"
        if found is None and evaluate:
            missing["predictions"] = missing["images"]
    try:
        net = run.checkpoint.net()
        costs[index] = costs_of(run, net)
    except Exception as error:  # Of a network this version does not have, or has otherwise.
        missing["filters"] = missing["maps"] = f"The network cannot be built: {error}"
        run.problems.append(missing["filters"])
    if found is None and evaluate and net is not None and dataset is not None:
        try:
            found = report_predictions.compute(run, net, dataset, batch_size)
        except UserError as error:
            run.problems.append(str(error))
            missing["predictions"] = str(error)
    if found is not None:
        predictions[index] = found
    _pictures(run, net, dataset, found, pictures, missing, images, runs)


def costs_of(run, net):
    """(trainable parameters, multiply-adds) of a run's network at its input size; None for what cannot be told."""
    from ..summary import count_parameters, summarize

    try:
        found = summarize(net, run.checkpoint.config["input_shape"])
        return found.params, found.macs
    except Exception:  # A network of the user's own may not let symbols pass.
        return count_parameters(net), None


def _pictures(run, net, dataset, found, pictures, missing, images, runs):
    from . import report_pictures

    if dataset is not None and found is not None:
        if found.index.min() < 0 or found.index.max() >= len(dataset) or not np.array_equal(
                dataset.labels[found.index], found.labels):
            missing["images"] = f"The {found.split} images here are not those that the predictions are of."
            dataset = None
        else:
            each = min(OF_PAIR, max(2, ALL_IMAGES // (2 * runs * PAIRS)))
            pictures["wrong"] = found.most_wrong(images).tolist()
            confused = report_predictions.pairs(found, PAIRS) if images else []
            pictures["pairs"] = {row for _, _, rows in confused for row in rows[:each].tolist()}
            try:
                for row in sorted({*pictures["wrong"], *pictures["pairs"]}):
                    pictures["images"][row] = report_pictures.thumbnail(dataset.images([int(found.index[row])])[0])
            except UserError as error:
                missing["images"] = str(error)
    if net is None:
        return
    try:
        pictures["filters"] = report_pictures.filter_picture(net)
    except UserError as error:
        missing["filters"] = str(error)
    if dataset is None:
        missing.setdefault("maps", missing.get("images", "The test images are not here."))
        return
    try:
        index = int(found.index[pictures["wrong"][0]]) if pictures.get("wrong") else 0
        inputs = report_predictions.transform_of(run, dataset)(dataset.images([index]))[0]
        source, stages = report_pictures.map_pictures(net, inputs)
        pictures["maps"] = (source, index, stages)
    except UserError as error:
        missing["maps"] = str(error)


def _read(name):
    with open(os.path.join(_FILES, name), encoding="utf-8") as file:
        return file.read()


def _page(title, runs, refused, predictions, pictures, missing, costs):
    """The whole page as text."""
    best = max(range(len(runs)), key=lambda i: runs[i].best()[0] if runs[i].best() else -1)
    details = [run_details(run, index, predictions.get(index), pictures[index], missing[index], index == best)
               for index, run in enumerate(runs)]
    parts = [report_sections.problems(runs, refused), report_sections.summary(runs, costs, predictions),
             report_sections.curves(runs), report_sections.throughput(runs), report_sections.settings(runs),
             report_sections.section("runs", "Run by run", details), report_sections.machines(runs)]
    names = [("summary", "Runs"), ("curves", "Curves"), ("throughput", "Throughput"), ("settings", "Settings"),
             ("runs", "Run by run"), ("machines", "Machine")]
    if parts[0] is not None:
        names.insert(0, ("problems", "Missing or broken"))
    head = join(tag("meta", charset="utf-8"), tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
                tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
                tag("meta", name="color-scheme", content="light dark"), tag("title", title),
                tag("style", Html(_read("report.css"))))
    body = join(tag("a", "To the content", href="#content", class_="skip"), report_sections.heading(title, runs, time.time()),
                report_sections.navigation(names), tag("main", parts, id="content"), tag("footer", _footer()),
                tag("script", Html(_read("report.js"))))
    return f"<!DOCTYPE html>\n{tag('html', tag('head', head), tag('body', body), lang='en')}\n"


def _footer():
    from .._version import __version__

    return tag("p", f"Made by tools/report.py of gluonzoo {__version__}. This page needs no network.")
