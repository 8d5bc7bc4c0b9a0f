#!/usr/bin/env python
"""Measure a trained or exported network on a test set: python tools/evaluate.py runs/lenet5-mnist"""
import argparse
import json
import os
import sys

from gluonzoo.errors import UserError, run
from gluonzoo.training import Classification

import numpy as np


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", metavar="PATH", help="a checkpoint, a run's folder (its newest sound checkpoint), or "
                        "an export: DIR/NAME or DIR/NAME.json")
    parser.add_argument("--dataset", metavar="NAME", help="default: the one it was trained on")
    parser.add_argument("--data-dir", metavar="DIR", help="folder or zip that holds the data set; default: "
                        "$GLUONZOO_DATA, then ~/.mxnet/datasets, then a download")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images run at once (default: 64)")
    parser.add_argument("--compare", metavar="PATH", help="another checkpoint or export; also print how far the "
                        "outputs of the two are apart on this test set")
    parser.add_argument("--at-least", type=float, metavar="PERCENT", help="exit code 1 when the accuracy is lower, or "
                        "when --compare finds any difference")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


class Scores(Classification):
    """Counts what the training's task does not: correct within five guesses, and the distance to another network."""

    def __init__(self, other=None):
        super().__init__()
        self._other, self.top5, self.difference = other, 0, 0.0

    def forward(self, net, images, labels):
        losses, outputs = super().forward(net, images, labels)
        if self._other is not None:
            distance = np.abs(outputs.asnumpy() - self._other(images).asnumpy())
            # NaN counts as far apart; max() alone would pass over it.
            self.difference = max(self.difference, float(np.where(np.isnan(distance), np.inf, distance).max()))
        return losses, outputs

    def score(self, losses, outputs, labels):
        # Stable, so that ties fall as they do for argmax.
        best = np.argsort(-outputs.asnumpy(), axis=1, kind="stable")[:, :5]
        self.top5 += int((best == np.asarray(labels)[:, None]).any(axis=1).sum())
        return super().score(losses, outputs, labels)


def load(path):
    """(block, {dataset, classes, mean, std, input_shape, perhaps data_dir}) of a checkpoint or an export."""
    from gluonzoo.export import load_symbol

    names = os.listdir(path) if os.path.isdir(path) else ()
    if "checkpoints" in names or "manifest.json" in names or os.path.isdir(path) and not any(
            name.endswith("-symbol.json") for name in names):
        from gluonzoo.training import checkpoint
        saved = checkpoint.load(path, tell=lambda line: print(line, file=sys.stderr))
        return saved.net(), saved.config
    if not os.path.exists(path) and not os.path.exists(path + ".json"):
        raise UserError(f"{path}: nothing there; expected a checkpoint, a run's folder, or an export ({path}.json)")
    block, metadata = load_symbol(path)
    return block, {name: getattr(metadata, name) for name in ("dataset", "classes", "mean", "std", "input_shape")}


def evaluate(arguments):
    """The figures as a dict."""
    from gluonzoo import data
    from gluonzoo.training import evaluate as measure

    block, facts = load(arguments.path)
    name = arguments.dataset or facts.get("dataset")
    if not name:
        raise UserError(f"{arguments.path} does not say what it was trained on; name a data set with --dataset")
    dataset = data.load(name, train=False, data_dir=arguments.data_dir or facts.get("data_dir"))
    classes = facts.get("classes")
    if classes and list(classes) != list(dataset.classes):
        raise UserError(f"{arguments.path} knows the classes {', '.join(map(str, classes[:5]))}, ...; {name} has "
                        f"{', '.join(map(str, dataset.classes[:5]))}, ...; expected the same")
    mean, std = (facts.get(key) or getattr(dataset, key) for key in ("mean", "std"))
    transform = data.Transform(facts["input_shape"], mean, std, train=False)
    scores = Scores(load(arguments.compare)[0] if arguments.compare else None)
    result = measure(block, scores, dataset, transform, arguments.batch_size)
    figures = {"path": arguments.path, "dataset": name, "samples": result["samples"], "loss": result["loss"],
               "top1": result["accuracy"]}
    if len(dataset.classes) > 5:
        figures["top5"] = scores.top5 / result["samples"]
    if arguments.compare:
        figures["largest_difference"] = scores.difference
    return figures


def main():
    arguments = parse_arguments()
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size is {arguments.batch_size}; expected at least 1")
    figures = evaluate(arguments)
    failed = arguments.at_least is not None and (100 * figures["top1"] < arguments.at_least
                                                 or figures.get("largest_difference", 0) != 0)
    if arguments.json:
        print(json.dumps(figures))
        return int(failed)
    print(f"{figures['path']} on the {figures['samples']:,} test images of {figures['dataset']}:")
    print(f"  accuracy  {100 * figures['top1']:.2f} %")
    if "top5" in figures:
        print(f"  top-5     {100 * figures['top5']:.2f} %")
    print(f"  loss      {figures['loss']:.4f}")
    if "largest_difference" in figures:
        gap = figures["largest_difference"]
        told = f"largest difference {gap:.3g}" if gap else "equal, to the bit"
        print(f"  outputs against {arguments.compare}: {told}")
    return int(failed)


if __name__ == "__main__":
    run(main)
