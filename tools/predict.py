#!/usr/bin/env python
"""Classify images, or extract their features: python tools/predict.py photo.jpg --model runs/demo/lenet5

The model is an export (NAME-symbol.json, NAME-0000.params, NAME.json, which is all that is needed then), a checkpoint or a
run's folder, or a registered network with its weights: --model resnet50_v1b --weights FILE --labels names.txt
"""
import argparse
import json
import os
import sys
import time

from gluonzoo.errors import UserError, run


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="JPEG, PNG, BMP, PPM or PGM files, NumPy arrays "
                        "(.npy, uint8, height x width [x channels]), folders of these, or quoted patterns such as "
                        "'photos/*.jpg'")
    parser.add_argument("--model", required=True, metavar="NET|EXPORT", help="an export: DIR/NAME, one of its three files, or "
                        "the folder that holds it; a checkpoint, a run's folder or a compact file; or a registered "
                        "network's name")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many classes to show (default: 5)")
    parser.add_argument("--crops", choices=("1", "10", "dense"), default="1", help="1: the centre; 10: four corners and the "
                        "centre, mirrored too, averaged; dense: the whole larger image, averaged over positions (default: 1)")
    parser.add_argument("--mirror", action="store_true", help="average over each image and its mirror image")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images run at once (default: 32)")
    parser.add_argument("--json", action="store_true", help="print one JSON list, an object for each image; with --latency one "
                        "object")
    parser.add_argument("--pictures", metavar="DIR", help="also write a picture of each image with its classes")
    parser.add_argument("-k", "--keep-going", action="store_true", help="pass over images that cannot be read, name them and end "
                        "with exit code 1; without, the first one ends the job")
    group = parser.add_argument_group("speed")
    group.add_argument("--jobs", default="1", metavar="N|auto", help="processes that share out the images, each on processors of "
                       "its own; auto: as many as processors where time and memory say that it pays (default: 1, this one)")
    group.add_argument("--fuse", action="store_true", help="run the faster copy that gluonzoo.export.fuse makes; what it says "
                       "differs by 1e-4 at most, relative to the largest output")
    group.add_argument("--latency", type=int, nargs="?", const=100, metavar="RUNS", help="time images one at a time, from file "
                       "to classes, in place of showing these: percentiles of at least so many (default: 100), images a "
                       "second")
    group = parser.add_argument_group("with a registered network's name")
    group.add_argument("--weights", metavar="FILE", help="its parameters")
    group.add_argument("--pretrained", action="store_true", help="parameters by the network's name")
    group.add_argument("--classes", type=int, metavar="N", help="number of classes, if not the network's own")
    group.add_argument("--labels", metavar="FILE", help="names of the classes: a line each, or a JSON list")
    group.add_argument("--mean", type=numbers, metavar="M[,M,M]", help="of pixels in [0, 1], as in its training (default: "
                       "ImageNet's for a network of 3 channels and 1000 classes)")
    group.add_argument("--std", type=numbers, metavar="S[,S,S]", help="the same, standard deviation")
    group = parser.add_argument_group("features instead of classes")
    group.add_argument("--features", metavar="STAGE[,STAGE]", help="write the feature maps after these stages")
    group.add_argument("-o", "--output", metavar="FILE", help="the file for them (.npz)")
    group.add_argument("--pool", action="store_true", help="the mean of each map only")
    return parser, parser.parse_args()


def numbers(text):
    """Parse "0.5" or "0.5,0.4,0.4" into a tuple."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number or numbers with commas") from None


def check(parser, arguments):
    """Refuse what does not go together before anything is loaded."""
    for name in ("top", "batch_size", "classes"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; expected at least 1")
    if arguments.latency is not None and arguments.latency < 20:
        raise UserError(f"--latency is {arguments.latency}; expected at least 20, below which percentiles say nothing")
    from gluonzoo.export.shares import check_jobs
    check_jobs(arguments.jobs)
    if arguments.latency is not None and arguments.jobs == "auto":
        parser.error("--latency takes a number of --jobs, not auto")
    if arguments.latency is not None and (arguments.pictures or arguments.features):
        parser.error(f"--latency takes no --{'pictures' if arguments.pictures else 'features'}")
    if bool(arguments.features) != bool(arguments.output):
        parser.error("--features and -o FILE go together")
    if arguments.pool and not arguments.features:
        parser.error("--pool goes with --features")
    given = [name for name in ("mirror", "json", "pictures") if getattr(arguments, name)]
    given += ["crops"] * (arguments.crops != "1") + ["jobs"] * (arguments.jobs != "1")
    given += ["keep-going"] * arguments.keep_going + ["fuse"] * arguments.fuse
    if arguments.fuse and arguments.crops == "dense":
        parser.error("--crops dense takes no --fuse")
    if arguments.features and given:
        parser.error(f"--features takes no --{given[0]}")


def batches(files, size):
    """(name, image) pairs of all files, in lists of at most `size`; an array of several images numbers them."""
    from gluonzoo.export.predictor import read_images

    pending = []
    for path in files:
        images = read_images(path)
        for index, image in enumerate(images):
            pending.append((path if len(images) == 1 else f"{path}[{index}]", image))
            if len(pending) == size:
                yield pending
                pending = []
    if pending:
        yield pending


def tell(line):
    print(line, file=sys.stderr, flush=True)


def source(arguments):
    """What says which network to open."""
    return {name: getattr(arguments, name) for name in ("weights", "pretrained", "classes", "mean", "std", "labels", "fuse")}


def show(name, guesses):
    """One image's classes as text."""
    print(name)
    for guess in guesses:
        print(f"  {100 * guess.probability:6.2f} %  {guess.index if guess.name is None else guess.name}")


def picture_path(folder, name, taken):
    """A file name of its own for an image: its base name, numbered when another folder has the same."""
    base = os.path.basename(name).replace("[", "-").replace("]", "")
    path, number = os.path.join(folder, f"{base}.png"), 1
    while path in taken:
        number += 1
        path = os.path.join(folder, f"{base}-{number}.png")
    taken.add(path)
    return path


def open_pool(arguments, **options):
    """The Pool of processes, or of this one alone. Remarks go to standard error when JSON is printed."""
    from gluonzoo.export.pool import Pool

    lines = tell if arguments.json or arguments.jobs != "1" else print
    return Pool(arguments.model, arguments.jobs, **{
        "batch_size": arguments.batch_size, "top": arguments.top, "crops": arguments.crops, "mirror": arguments.mirror,
        "keep_going": arguments.keep_going, "tell": lines, **source(arguments), **options})


def classify(arguments):
    """Show the classes of all images. Returns the exit code: 1 when some have none."""
    results, taken, wrong, begun = [], set(), 0, time.perf_counter()
    if arguments.pictures:
        import gluonzoo.visual.predictions  # noqa: F401 (says at once which package is missing)
        os.makedirs(arguments.pictures, exist_ok=True)
    count = 0
    with open_pool(arguments) as pool:
        for result in pool.predict(arguments.images, (
                lambda name: picture_path(arguments.pictures, name, taken)) if arguments.pictures else None):
            count += 1
            if result.error is not None:
                wrong += 1
                tell(f"{result.name}: {result.error}" if result.lost else result.error)
            elif not arguments.json:
                show(result.name, result.predictions)
            if arguments.json:
                results.append(entry(result))
        seconds, jobs = time.perf_counter() - begun, pool.jobs or 1
        if arguments.jobs != "1":
            tell(f"{count:,} images in {seconds:.1f} s from start to end, {count / seconds:,.1f} img/s; processes: {jobs}, "
                 f"threads of each: {pool.threads}")
    if arguments.json:
        print(json.dumps(results, indent=1))
    elif arguments.pictures:
        print(f"wrote {len(taken) - wrong} pictures to {arguments.pictures}")
    if wrong:
        tell(f"{wrong:,} of {count:,} images have no classes")
    return int(wrong > 0)


def entry(result):
    """One image's object in the JSON list."""
    if result.error is not None:
        return {"image": result.name, "error": result.error}
    return {"image": result.name, "predictions": [
        {"index": guess.index, "class": guess.name, "probability": guess.probability} for guess in result.predictions]}


def latency(arguments):
    """Time images one by one, from file to classes."""
    from gluonzoo.evaluation.timing import percentiles
    from gluonzoo.export.pool import list_items
    from gluonzoo.export.predictor import find_images

    items = [[*item, None] for item in list_items(find_images(arguments.images))]
    runs, times, wrong = max(arguments.latency, len(items)), [], 0
    with open_pool(arguments, batch_size=1, warm_up=True) as pool:
        # One image for each process, which opens the network and warms it up before time is counted.
        list(pool.run(items[:1] * pool.jobs))
        begun = time.perf_counter()
        for number, result in enumerate(pool.run([items[number % len(items)] for number in range(runs)])):
            if result.error is None:
                times.append(result.seconds)
            else:
                wrong += 1
                if number < len(items):
                    tell(f"{result.name}: {result.error}" if result.lost else result.error)
        seconds = time.perf_counter() - begun
        if not times:
            raise UserError("none of the images could be read")
        figures = {"images": len(items), "runs": len(times), "jobs": pool.jobs, "threads": pool.threads,
                   "latency_ms": percentiles([read + rest for read, rest in times]),
                   "read_ms": percentiles([read for read, _ in times]), "network_ms": percentiles([rest for _, rest in times]),
                   "images_per_second": len(times) / seconds}
    if arguments.json:
        print(json.dumps(figures, indent=1))
        return int(wrong > 0)
    print(f"{figures['runs']:,} runs of {figures['images']:,} images, one at a time; processes: {figures['jobs']}, threads of "
          f"each: {figures['threads']}")
    for name, words in (("latency_ms", "from file to classes"), ("read_ms", "  reading and decoding"),
                        ("network_ms", "  fitting and network")):
        print(f"{words:22} " + ", ".join(f"{key} {figures[name][key]:.2f} ms" for key in ("p50", "p95", "p99", "mean")))
    print(f"{figures['images_per_second']:,.1f} img/s")
    return int(wrong > 0)


def features(arguments):
    """Write feature maps."""
    from gluonzoo.export.features import extract_features
    from gluonzoo.export.predictor import find_images
    from gluonzoo.sources import open_predictor

    if is_export(arguments):
        raise UserError(f"--features: {arguments.model} is an export, one graph without the network's named stages; use a "
                        "checkpoint, or a registered network's name with --weights")
    predictor = open_predictor(arguments.model, **source(arguments))
    files = find_images(arguments.images)
    stages = [stage.strip() for stage in arguments.features.split(",")]
    shapes = extract_features(predictor, stages, batches(files, arguments.batch_size), arguments.output, arguments.pool)
    for name, shape in shapes.items():
        print(f"{name}: {'x'.join(map(str, shape))}")
    print(f"wrote {arguments.output}")
    return 0


def is_export(arguments):
    """Whether the model is an export: what its own weights are in."""
    from gluonzoo import sources
    return sources.is_export(arguments.model) and not (arguments.weights or arguments.pretrained)


def main():
    parser, arguments = parse_arguments()
    check(parser, arguments)
    try:
        if arguments.features:
            return features(arguments)
        return classify(arguments) if arguments.latency is None else latency(arguments)
    except OSError as error:
        raise UserError(f"cannot write {arguments.output or arguments.pictures}: {error.strerror or error}") from error


if __name__ == "__main__":
    run(main)
