#!/usr/bin/env python
"""Classify images with an exported network: python tools/predict.py photo.jpg --model runs/demo/lenet5

Needs nothing but the export (NAME-symbol.json, NAME-0000.params, NAME.json): it knows sizes, normalisation and classes.
"""
import argparse
import json

from gluonzoo.errors import UserError, run


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="JPEG, PNG, BMP, PPM or PGM files, NumPy arrays "
                        "(.npy, uint8, height x width [x channels]), folders of these, or quoted patterns such as "
                        "'photos/*.jpg'")
    parser.add_argument("--model", required=True, metavar="PREFIX", help="the export: DIR/NAME, one of its three "
                        "files, or the folder that holds it")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many classes to show (default: 5)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images run at once (default: 32)")
    parser.add_argument("--json", action="store_true", help="print one JSON list, an object for each image")
    return parser.parse_args()


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


def main():
    arguments = parse_arguments()
    for name in ("top", "batch_size"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; expected at least 1")
    from gluonzoo.export.predictor import Predictor, find_images

    predictor = Predictor(arguments.model)
    results = []
    for batch in batches(find_images(arguments.images), arguments.batch_size):
        names, images = zip(*batch)
        for name, guesses in zip(names, predictor.predict(images, arguments.top)):
            if arguments.json:
                results.append({"image": name, "predictions": [
                    {"index": guess.index, "class": guess.name, "probability": guess.probability}
                    for guess in guesses]})
                continue
            print(name)
            for guess in guesses:
                print(f"  {100 * guess.probability:6.2f} %  {guess.index if guess.name is None else guess.name}")
    if arguments.json:
        print(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    run(main)
