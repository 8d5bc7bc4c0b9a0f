#!/usr/bin/env python
"""Measure trained or exported networks on a test set: python tools/evaluate.py runs/lenet5-mnist

Several networks are averaged: their softmax outputs. With several workers each runs a share, every sample counts once:
python launch/launch.py -n 2 -s 1 python tools/evaluate.py runs/lenet5-mnist
"""
import argparse
import json
import os
import sys

from gluonzoo.errors import UserError, run


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="PATH", nargs="+", help="a checkpoint, a run's folder (its newest sound checkpoint), or "
                        "an export: DIR/NAME or DIR/NAME.json, or a registered network's name with --weights; several are "
                        "averaged")
    parser.add_argument("--dataset", metavar="NAME", help="default: the one it was trained on")
    parser.add_argument("--data-dir", metavar="DIR", help="folder or zip that holds the data set; default: "
                        "$GLUONZOO_DATA, then ~/.mxnet/datasets, then a download")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="which images (default: test)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images or crops run at once (default: 64)")
    parser.add_argument("--kvstore", choices=("dist_sync", "dist_device_sync"), help="how workers share the work; default: "
                        "dist_sync under launch/launch.py, else none")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--at-least", type=float, metavar="PERCENT", help="exit code 1 when the accuracy is lower, or "
                        "when --compare finds any difference")
    parser.add_argument("--compare", metavar="PATH", help="another checkpoint or export; also print how far the "
                        "outputs of the two are apart on this test set")
    group = parser.add_argument_group("with a registered network's name")
    group.add_argument("--weights", metavar="FILE", help="its parameters")
    group.add_argument("--pretrained", action="store_true", help="parameters by the network's name")
    group.add_argument("--classes", type=int, metavar="N", help="number of classes, if not the network's own")
    group.add_argument("--mean", type=numbers, metavar="M[,M,M]", help="of pixels in [0, 1], as in its training (default: "
                       "ImageNet's for a network of 3 channels and 1000 classes)")
    group.add_argument("--std", type=numbers, metavar="S[,S,S]", help="the same, standard deviation")
    group = parser.add_argument_group("how images are shown")
    group.add_argument("--crops", default="1", metavar="N|dense", help="1: the centre; 10: four corners and the centre, mirrored "
                       "too; 144: GoogLeNet's; dense: the whole image, averaged over positions; another number: crops on a grid, "
                       "half of an even number mirrored (default: 1)")
    group.add_argument("--scales", type=scales, default=(), metavar="S[,S]", help="shorter sides in pixels, each shown with all "
                       "crops (default: 256 for an input of 224, in the same relation for others)")
    group.add_argument("--mirror", action="store_true", help="with --crops 1 or dense: each image and its mirror image")
    group = parser.add_argument_group("what is told beside accuracy and loss")
    group.add_argument("--calibration", action="store_true", help="the reliability of the probabilities, a line for each bin")
    group.add_argument("--bins", type=int, default=15, metavar="N", help="bins of confidence (default: 15)")
    group.add_argument("--confusion", metavar="FILE", help="write the confusion matrix (.csv)")
    group.add_argument("--per-class", metavar="FILE", help="write accuracy and precision of each class (.csv)")
    group.add_argument("--predictions", metavar="FILE", help="write what was said of every sample (.npz, its format: "
                       "gluonzoo/evaluation/__init__.py); as RUN/predictions.npz it is shown by tools/report.py")
    group.add_argument("--speed", type=int, nargs="?", const=100, metavar="RUNS", help="also time the first network alone: "
                       "latency percentiles of so many single images, and throughput at --batch-size (default: 100)")
    return parser.parse_args()


def scales(text):
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number or whole numbers with commas") from None


def numbers(text):
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number or numbers with commas") from None


def load(path, arguments):
    """(block, {dataset, classes, mean, std, input_shape, perhaps data_dir and step}) of whatever the path names."""
    from gluonzoo.export import load_symbol

    if arguments.weights or arguments.pretrained:
        from gluonzoo.sources import open_network
        net, metadata = open_network(path, arguments.weights, arguments.pretrained, arguments.classes, arguments.mean,
                                     arguments.std, tell=lambda line: print(line, file=sys.stderr))
        net.hybridize(static_alloc=True)
        return net, {name: getattr(metadata, name) for name in ("dataset", "classes", "mean", "std", "input_shape")}
    from gluonzoo.sources import is_compact
    if is_compact(path):
        from gluonzoo.compact import open_compact
        net, facts = open_compact(path)
        net.hybridize(static_alloc=True)
        return net, facts
    names = os.listdir(path) if os.path.isdir(path) else ()
    if "checkpoints" in names or "manifest.json" in names or os.path.isdir(path) and not any(
            name.endswith("-symbol.json") for name in names):
        from gluonzoo.training import checkpoint
        saved = checkpoint.load(path, tell=lambda line: print(line, file=sys.stderr))
        net = saved.net()
        net.hybridize(static_alloc=True)
        return net, {**saved.config, "step": saved.state["step"]}
    if not os.path.exists(path) and not os.path.exists(path + ".json"):
        raise UserError(f"{path}: nothing there; expected a checkpoint, a run's folder, or an export ({path}.json)")
    block, metadata = load_symbol(path)
    return block, {name: getattr(metadata, name) for name in ("dataset", "classes", "mean", "std", "input_shape")}


def load_other(path):
    """The block of --compare, whose images are those of the first network."""
    return load(path, argparse.Namespace(weights=None, pretrained=False))[0]


def open_data(arguments, loaded):
    """The data set; raises UserError when a network does not know its classes."""
    from gluonzoo import data

    facts = loaded[0][1]
    name = arguments.dataset or facts.get("dataset")
    if not name:
        raise UserError(f"{arguments.path[0]} does not say what it was trained on; name a data set with --dataset")
    dataset = data.load(name, train=arguments.split == "train", data_dir=arguments.data_dir or facts.get("data_dir"))
    for path, (_, facts) in zip(arguments.path, loaded):
        classes = facts.get("classes")
        if classes and list(classes) != list(dataset.classes):
            raise UserError(f"{path} knows the classes {', '.join(map(str, classes[:5]))}, ...; {name} has "
                            f"{', '.join(map(str, dataset.classes[:5]))}, ...; expected the same")
    return dataset


def evaluate(arguments, store):
    """The figures as a dict; writes the files that were asked for."""
    from gluonzoo import data, evaluation
    from gluonzoo.evaluation.predictions import write_confusion, write_per_class

    protocol = evaluation.Protocol(arguments.crops, arguments.scales, arguments.mirror)
    loaded = [load(path, arguments) for path in arguments.path]
    dataset = open_data(arguments, loaded)
    members = []
    for path, (block, facts) in zip(arguments.path, loaded):
        mean, std = (facts.get(key) or getattr(dataset, key) for key in ("mean", "std"))
        members.append(evaluation.Member(block, data.Transform(facts["input_shape"], mean, std, train=False), path))
    first = store is None or store.rank == 0
    result = evaluation.evaluate(members, dataset, protocol, arguments.batch_size, store, confusion=bool(arguments.confusion),
                                 predictions=bool(arguments.predictions), bins=arguments.bins, beat=beat,
                                 compare=load_other(arguments.compare) if arguments.compare else None)
    figures = {"path": arguments.path[0] if len(arguments.path) == 1 else arguments.path, "dataset": dataset.name,
               "split": arguments.split, "crops": protocol.crops, "scales": list(protocol.scales), "mirror": protocol.mirrored,
               "workers": store.num_workers if store is not None else 1, **result.figures}
    if result.largest_difference is not None:
        figures["largest_difference"] = result.largest_difference
    if arguments.calibration:
        found = result.metrics.calibration()
        figures["calibration"] = [{"from": low, "to": high, "samples": int(count), "confidence": none_for_nan(confidence),
                                   "accuracy": none_for_nan(accuracy)}
                                  for low, high, count, confidence, accuracy in zip(
                                      found.edges.tolist(), found.edges[1:].tolist(), found.counts, found.confidence.tolist(),
                                      found.accuracy.tolist())]
    if first:
        if arguments.confusion:
            write_confusion(arguments.confusion, result.metrics.confusion(), dataset.classes)
        if arguments.per_class:
            write_per_class(arguments.per_class, result.metrics.per_class(), dataset.classes)
        if arguments.predictions:
            step = loaded[0][1].get("step", -1) if len(loaded) == 1 else -1
            result.predictions.step = step
            evaluation.write_predictions(arguments.predictions, result.predictions)
        if arguments.speed is not None:
            figures["speed"] = evaluation.measure_speed(loaded[0][0], loaded[0][1]["input_shape"], arguments.batch_size,
                                                        arguments.speed, members[0].ctx)
    return figures


def none_for_nan(value):
    return None if value != value else value


def beat(samples):
    """Tell the launcher, which ends jobs that make no progress, that work goes on."""
    path = os.environ.get("GLUONZOO_PROGRESS_FILE")
    if path:
        with open(path, "w", encoding="ascii") as file:
            file.write(f"evaluating {samples}\n")


def check(arguments):
    """Refuse what cannot be before anything is loaded."""
    for name, least in (("batch_size", 1), ("bins", 1), ("speed", 20)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} is {value}; expected at least {least}")
    bare = [name for name in ("classes", "mean", "std") if getattr(arguments, name) is not None]
    if bare and not (arguments.weights or arguments.pretrained):
        raise UserError(f"--{bare[0]} goes with a registered network's name and --weights FILE or --pretrained")
    if (arguments.weights or arguments.pretrained) and len(arguments.path) > 1:
        raise UserError(f"--weights and --pretrained are for one network; {len(arguments.path)} were named")
    for name in ("confusion", "per_class", "predictions"):
        path = getattr(arguments, name)
        folder = os.path.dirname(path or "") or "."
        if path is not None and (not os.path.isdir(folder) or os.path.isdir(path)):
            raise UserError(f"--{name.replace('_', '-')} {path}: expected a file's name in a folder that exists")


def open_store(arguments):
    """The job's KVStore, or None where this process is alone."""
    from gluonzoo.distributed import cluster

    if arguments.kvstore is None and cluster.role() is None:
        return None
    from gluonzoo.distributed import kvstore
    return kvstore.create(arguments.kvstore or "dist_sync")


def show(arguments, figures):
    paths = figures["path"] if isinstance(figures["path"], list) else [figures["path"]]
    shown = "" if figures["crops"] == "1" else f", {'dense' if figures['crops'] == 'dense' else figures['crops'] + ' crops'}"
    shown += f", scales {','.join(map(str, figures['scales']))}" if figures["scales"] else ""
    shown += ", mirrored too" if figures["mirror"] else ""
    shown += f", {figures['workers']} workers" if figures["workers"] > 1 else ""
    print(f"{' + '.join(paths)} on the {figures['samples']:,} {figures['split']} images of {figures['dataset']}{shown}:")
    for member in figures.get("members", ()):
        print(f"  {member['name']} alone: accuracy {100 * member['top1']:.2f} %, loss {member['loss']:.4f}")
    print(f"  accuracy  {100 * figures['top1']:.2f} %")
    if "top5" in figures:
        print(f"  top-5     {100 * figures['top5']:.2f} %")
    print(f"  loss      {figures['loss']:.4f}")
    print(f"  calibration error {100 * figures['ece']:.2f} %, Brier score {figures['brier']:.4f}")
    if "not_finite" in figures:
        print(f"  outputs that are no numbers: {figures['not_finite']:,} samples, counted as wrong")
    print(f"  {figures['images_per_second']:,.0f} img/s with decoding; {100 * figures['waited']:.0f} % of the time was spent "
          "waiting for images")
    for row in figures.get("calibration", ()):
        means = f"confidence {100 * row['confidence']:6.2f} %, right {100 * row['accuracy']:6.2f} %" if row["samples"] else "none"
        print(f"  {row['from']:.3f} to {row['to']:.3f}: {row['samples']:7,} samples, {means}")
    if "speed" in figures:
        speed = figures["speed"]
        print("  one image: " + ", ".join(f"{name} {speed['latency_ms'][name]:.2f} ms" for name in ("p50", "p95", "p99"))
              + f"; batches of {speed['batch_size']}: {speed['images_per_second']:,.0f} img/s")
    if "largest_difference" in figures:
        gap = figures["largest_difference"]
        told = f"largest difference {gap:.3g}" if gap else "equal, to the bit"
        print(f"  outputs against {arguments.compare}: {told}")
    for name in ("confusion", "per_class", "predictions"):
        if getattr(arguments, name):
            print(f"wrote {getattr(arguments, name)}")


def main():
    arguments = parse_arguments()
    check(arguments)
    store = open_store(arguments)
    figures = evaluate(arguments, store)
    failed = arguments.at_least is not None and (100 * figures["top1"] < arguments.at_least
                                                 or figures.get("largest_difference", 0) != 0)
    if store is None or store.rank == 0:
        if arguments.json:
            print(json.dumps(figures))
        else:
            show(arguments, figures)
    return int(failed)


if __name__ == "__main__":
    run(main)
