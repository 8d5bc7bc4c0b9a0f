#!/usr/bin/env python
"""Pack images into a record file for fast sequential reading, compatible with MXNet's im2rec, its iterators and data sets.

  python tools/pack.py FOLDER -o PREFIX             a folder with a folder for each class; with train and val in it: both
  python tools/pack.py LIST.lst --root DIR -o PREFIX   the images of a list: lines of key, labels, path with tabs between
  python tools/pack.py --imagenet DIR -o PREFIX     ImageNet's published tar files, without unpacking them
  python tools/pack.py --verify PREFIX              check digests, index, list and every record

Makes PREFIX.rec, PREFIX.idx, PREFIX.lst and PREFIX.json (classes, options, SHA-256 of the files); train with
tools/train.py --dataset records --data-dir PREFIX. An interrupted pack goes on with the same command. Images that cannot be read
are left out and listed in PREFIX.broken.txt.

Exit code: 0, all images packed; 3, packed but some were left out; 2, an error.
"""
import argparse
import os
import sys
import time

# Only NumPy and Pillow are needed: without this, importing the package would import MXNet too.
os.environ.setdefault("GLUONZOO_LIGHT_SERVER", "1")


def parse(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", metavar="FOLDER|LIST", help="what to pack")
    parser.add_argument("-o", "--output", metavar="PREFIX", help="of the files to write, for example data/birds")
    parser.add_argument("--root", metavar="DIR", help="folder that a list's paths are relative to (default: the list's folder)")
    parser.add_argument("--imagenet", metavar="DIR", help="folder with ImageNet's tar files; writes PREFIX_train and PREFIX_val")
    parser.add_argument("--check", choices=("md5", "size", "none"), default="md5", help="of ImageNet's files (default: md5)")
    parser.add_argument("--verify", metavar="PREFIX", help="check packed files and do nothing else")
    parser.add_argument("--decode", action="store_true", help="with --verify: decode every image too")
    parser.add_argument("--resize", type=int, metavar="SHORT", help="make the shorter side so many pixels long")
    parser.add_argument("--quality", type=int, default=95, metavar="1-100", help="of JPEGs that are made anew (default: 95)")
    parser.add_argument("--encoding", choices=("keep", "jpg", "png"), default="keep", help="of the packed images; keep: files as "
                        "they are, and of the same kind where --resize makes them anew (default: keep)")
    parser.add_argument("--pass-through", action="store_true", help="say that no image may be made anew: an error with --resize "
                        "or --encoding")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="decides the order in the file (default: 0; a list's own "
                        "order for a list)")
    parser.add_argument("--no-shuffle", action="store_true", help="keep the order of classes and names")
    parser.add_argument("--train-ratio", type=float, metavar="R", help="put this share of the images into PREFIX_train, the rest "
                        "into PREFIX_val")
    parser.add_argument("--test-ratio", type=float, default=0.0, metavar="R", help="with --train-ratio: a share for PREFIX_test")
    parser.add_argument("--processes", type=int, metavar="N", help="default: as many as this process has processors")
    parser.add_argument("--overwrite", action="store_true", help="replace other files at PREFIX, when the new ones are whole")
    arguments = parser.parse_args(words)
    given = [name for name in ("source", "imagenet", "verify") if getattr(arguments, name)]
    if len(given) != 1:
        parser.error("expected one of FOLDER|LIST, --imagenet DIR and --verify PREFIX")
    if not arguments.verify and not arguments.output:
        parser.error("expected -o PREFIX")
    if arguments.resize is not None and arguments.resize < 1 or not 1 <= arguments.quality <= 100:
        parser.error(f"--resize {arguments.resize}, --quality {arguments.quality}: expected at least 1 pixel and 1 to 100")
    if arguments.pass_through and (arguments.resize or arguments.encoding != "keep"):
        parser.error("--pass-through keeps the files as they are; --resize and --encoding would not")
    if arguments.shuffle is not None and arguments.no_shuffle:
        parser.error("--shuffle and --no-shuffle exclude each other")
    ratios = arguments.train_ratio, arguments.test_ratio
    if arguments.train_ratio is not None and not (0 < ratios[0] < 1 and 0 <= ratios[1] < 1 and sum(ratios) < 1):
        parser.error(f"--train-ratio {ratios[0]}, --test-ratio {ratios[1]}: expected shares whose sum is between 0 and 1")
    if arguments.train_ratio is None and arguments.test_ratio:
        parser.error("--test-ratio goes with --train-ratio")
    if arguments.processes is not None and arguments.processes < 1:
        parser.error(f"--processes is {arguments.processes}; expected at least 1")
    return arguments


def listings(arguments):
    """{prefix: Listing} of what is asked for."""
    from gluonzoo.data import images, packing_list, sources
    from gluonzoo.errors import UserError

    output, seed = arguments.output, None if arguments.no_shuffle else arguments.shuffle or 0
    if arguments.imagenet:
        if arguments.train_ratio is not None:
            raise UserError("ImageNet has its own training and validation images; --train-ratio does not go with --imagenet")
        return {f"{output}_{name}": packing_list.from_imagenet(arguments.imagenet, name == "train", seed, arguments.check)
                for name in ("train", "val")}
    source = arguments.source
    if os.path.isdir(source):
        opened = sources.Folder(source)
        if images.find_split(opened, ("train",), depth=0) and arguments.train_ratio is None:
            others = [name for name in ("val", "valid", "validation", "test") if name in opened.children()[0]]
            if others:
                training = packing_list.from_folder(os.path.join(source, "train"), seed)
                return {f"{output}_train": training, f"{output}_val": packing_list.from_folder(
                    os.path.join(source, others[0]), seed, training.classes)}
        listing = packing_list.from_folder(source, seed)
    elif os.path.isfile(source):
        listing = packing_list.from_list(source, arguments.root or os.path.dirname(os.path.abspath(source)),
                                         None if arguments.no_shuffle else arguments.shuffle)
    else:
        raise UserError(f"{source}: no such folder or list")
    if arguments.train_ratio is None:
        return {output: listing}
    return {f"{output}_{name}": part
            for name, part in packing_list.split(listing, arguments.train_ratio, arguments.test_ratio).items()}


def main():
    arguments = parse()
    from gluonzoo import runtime
    from gluonzoo.data import packing, packing_check

    from tqdm import tqdm

    if arguments.verify:
        with tqdm(desc="verifying", unit="record", disable=None, leave=False) as bar:
            count, known = packing_check.verify(arguments.verify, arguments.decode, bar.update)
        print(f"{arguments.verify}: {count} records are whole" + ("" if known else "; there is no manifest, so digests were not "
                                                                  "compared"))
        return 0
    options = {"resize": arguments.resize, "quality": arguments.quality, "encoding": arguments.encoding}
    left_out = 0
    for prefix, listing in listings(arguments).items():
        begun = time.monotonic()
        with tqdm(total=len(listing.entries), desc=os.path.basename(prefix), unit="image", disable=None, leave=False) as bar:
            packed = packing.pack(listing, prefix, options, arguments.processes or runtime.available_cpus(), arguments.overwrite,
                                  bar.update)
        left_out += packed.broken
        took = f"in {time.monotonic() - begun:.1f} s" if packed.new else "were there already"
        print(f"{prefix}.rec: {packed.images} images, {packed.size / 1e6:.1f} MB, {took}")
        if packed.broken:
            print(f"{packed.broken} images cannot be read and were left out; they are listed in {prefix}.broken.txt",
                  file=sys.stderr)
    return 3 if left_out else 0


if __name__ == "__main__":
    from gluonzoo.errors import run

    run(main)
