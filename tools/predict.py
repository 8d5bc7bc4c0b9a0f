#!/usr/bin/env python
"""Classify images, or extract their features: python tools/predict.py photo.jpg --model runs/demo/lenet5

The model is an export (NAME-symbol.json, NAME-0000.params, NAME.json, which is all that is needed then), a checkpoint or a
run's folder, or a registered network with its weights: --model resnet50_v1b --weights FILE --labels names.txt
"""
import argparse
import json
import os
import sys

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
    parser.add_argument("--json", action="store_true", help="print one JSON list, an object for each image")
    parser.add_argument("--pictures", metavar="DIR", help="also write a picture of each image with its classes")
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
    if bool(arguments.features) != bool(arguments.output):
        parser.error("--features and -o FILE go together")
    if arguments.pool and not arguments.features:
        parser.error("--pool goes with --features")
    given = [name for name in ("mirror", "json", "pictures") if getattr(arguments, name)]
    given += ["crops"] * (arguments.crops != "1")
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


def load(arguments):
    """The Predictor of whatever --model names. Remarks go to standard error when JSON is printed."""
    from gluonzoo.export.predictor import Predictor

    model = arguments.model
    bare = [name for name in ("weights", "pretrained", "classes", "labels", "mean", "std") if getattr(arguments, name)]
    is_export = os.path.exists(model + ".json") or os.path.isfile(model) or os.path.isdir(model) and any(
        name.endswith("-symbol.json") for name in os.listdir(model))
    from gluonzoo.sources import is_checkpoint, is_compact, open_network

    if is_export and not is_compact(model) and not set(bare) & {"weights", "pretrained"}:
        if bare:
            raise UserError(f"--{bare[0]} goes with a registered network's name; {model} is an export and has its own")
        if arguments.features:
            raise UserError(f"--features: {model} is an export, one graph without the network's named stages; use a checkpoint, "
                            "or a registered network's name with --weights")
        return Predictor(model)
    if not is_checkpoint(model) and not is_compact(model) and model not in registered():
        if os.sep in model or os.path.exists(model):
            return Predictor(model)  # Its error says what is expected of an export.
        raise unknown(model)
    stream = sys.stderr if arguments.json else sys.stdout
    net, metadata = open_network(
        model, arguments.weights, arguments.pretrained, arguments.classes, arguments.mean, arguments.std, arguments.labels,
        tell=lambda line: print(line, file=stream))
    net.hybridize()
    return Predictor.of(net, metadata)


def registered():
    from gluonzoo import list_models

    return list_models()


def unknown(model):
    """The error for a --model that is nothing known; it names the nearest networks."""
    from gluonzoo.registry import UnknownModelError, model_spec

    try:
        model_spec(model)
    except UnknownModelError as error:
        return UserError(f"{model}: no such export, checkpoint or folder, and {error}")


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


def classify(predictor, arguments, files):
    results, taken = [], set()
    if arguments.pictures:
        from gluonzoo.visual.predictions import prediction_picture
        os.makedirs(arguments.pictures, exist_ok=True)
    for batch in batches(files, arguments.batch_size):
        images = [image for _, image in batch]
        for (name, image), guesses in zip(batch, predictor.predict(images, arguments.top, arguments.crops, arguments.mirror)):
            if arguments.pictures:
                prediction_picture(image, guesses, picture_path(arguments.pictures, name, taken), title=name)
            if not arguments.json:
                show(name, guesses)
                continue
            results.append({"image": name, "predictions": [
                {"index": guess.index, "class": guess.name, "probability": guess.probability} for guess in guesses]})
    if arguments.json:
        print(json.dumps(results, indent=1))
    elif arguments.pictures:
        print(f"wrote {len(taken)} pictures to {arguments.pictures}")


def main():
    parser, arguments = parse_arguments()
    check(parser, arguments)
    from gluonzoo.export.predictor import find_images

    predictor = load(arguments)
    files = find_images(arguments.images)
    try:
        if not arguments.features:
            classify(predictor, arguments, files)
            return 0
        from gluonzoo.export.features import extract_features
        stages = [stage.strip() for stage in arguments.features.split(",")]
        shapes = extract_features(predictor, stages, batches(files, arguments.batch_size), arguments.output, arguments.pool)
    except OSError as error:
        raise UserError(f"cannot write {arguments.output or arguments.pictures}: {error.strerror or error}") from error
    for name, shape in shapes.items():
        print(f"{name}: {'x'.join(map(str, shape))}")
    print(f"wrote {arguments.output}")
    return 0


if __name__ == "__main__":
    run(main)
