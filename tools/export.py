#!/usr/bin/env python
"""Take a network out of its training: python tools/export.py --checkpoint runs/lenet5-mnist --output export/lenet5 --to onnx

symbol: PREFIX-symbol.json, PREFIX-0000.params and PREFIX.json, which tools/predict.py, MXNet's SymbolBlock, Module and C++
interface read. onnx: PREFIX.onnx, for onnxruntime and others. int8, bf16: as symbol, with smaller numbers. --bundle DIR: a
folder with the ONNX model, labels and a predict.py that needs no MXNet. Each is read back and compared with the live network
before it is kept.
"""
import argparse
import json
import os

from gluonzoo.errors import UserError, run

#: Images of --calibration-data that are used; more do not change the ranges that matter.
MOST_IMAGES = 500


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", metavar="PATH", help="a checkpoint, a run's folder (its newest sound one), or a "
                        "compact file of tools/compress.py")
    source.add_argument("--model", metavar="NAME", help="a registered network, with --weights or fresh random ones")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", metavar="PREFIX", help="where to write: FOLDER/NAME")
    target.add_argument("--bundle", metavar="DIR", help="write a folder that classifies images without MXNet")
    parser.add_argument("--to", choices=("symbol", "onnx", "int8", "bf16"), default="symbol", help="the format (default: symbol)")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    group = parser.add_argument_group("with --to onnx or --bundle")
    group.add_argument("--opset", type=int, metavar="N", help="ONNX's operator set (default: the lowest that will do)")
    group.add_argument("--with-preprocess", action="store_true", help="uint8 images in, probabilities out (a bundle has it)")
    group = parser.add_argument_group("with --checkpoint")
    group.add_argument("--raw-weights", action="store_true", help="the weights themselves, where the checkpoint holds their "
                       "moving average too (--ema), which is taken otherwise")
    group = parser.add_argument_group("with --to int8")
    group.add_argument("--calibration-data", metavar="FOLDER", help=f"images such as it will see, of which {MOST_IMAGES} are "
                       "used, or the name of a data set of gluonzoo.data; needed. A PREFIX that ends in .onnx gives an ONNX file "
                       "with 8-bit nodes")
    group.add_argument("--method", choices=("naive", "percentile", "entropy"), help="how ranges are found (default: naive)")
    group.add_argument("--max-drop", type=float, metavar="POINTS", help="measure the accuracy on these images, and leave the "
                       "layers that hurt most in float32 until no more is lost; FOLDER then has a folder for each class")
    group = parser.add_argument_group("with --to bf16")
    group.add_argument("--force-bf16", action="store_true", help="also where it is slower than float32, which is refused "
                       "otherwise")
    group = parser.add_argument_group("with --model")
    group.add_argument("--weights", metavar="FILE", help="parameters for it: .params, .safetensors, .onnx, .pth ...")
    group.add_argument("--classes", type=int, metavar="N", help="number of classes, if not the network's own")
    group.add_argument("--in-channels", type=int, metavar="N", help="channels of the input, if not the network's own")
    group.add_argument("--labels", metavar="FILE", help="names of the classes: a line each, or a JSON list")
    group.add_argument("--mean", type=numbers, metavar="M[,M,M]", help="of pixels in [0, 1], as in its training")
    group.add_argument("--std", type=numbers, metavar="S[,S,S]", help="the same, standard deviation")
    return parser, parser.parse_args()


def numbers(text):
    """Parse "0.5" or "0.5,0.4,0.4" into a tuple."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number or numbers with commas") from None


def check(parser, arguments):
    """Complain about options that do not go together."""
    def given(*names):
        return [f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name) not in (None, False)]

    wrong = given("weights", "classes", "in_channels", "labels", "mean", "std")
    if arguments.checkpoint and wrong:
        parser.error(f"{wrong[0]} goes with --model; a checkpoint brings its own")
    if arguments.raw_weights and not arguments.checkpoint:
        parser.error("--raw-weights goes with --checkpoint")
    if arguments.bundle and arguments.to not in ("symbol", "onnx"):
        parser.error(f"--bundle holds an ONNX model in float32; --to {arguments.to} goes with --output")
    wrong = given("opset", "with_preprocess")
    if wrong and arguments.to != "onnx" and not arguments.bundle:
        parser.error(f"{wrong[0]} goes with --to onnx")
    if arguments.force_bf16 and arguments.to != "bf16":
        parser.error("--force-bf16 goes with --to bf16")
    if (arguments.to == "int8") != bool(arguments.calibration_data):
        parser.error("--to int8 needs --calibration-data, and nothing else takes it")
    wrong = given("method", "max_drop")
    if wrong and arguments.to != "int8":
        parser.error(f"{wrong[0]} goes with --to int8")


def from_checkpoint(path, raw=False):
    """(network, input shape, metadata) of a checkpoint."""
    from gluonzoo.compact import open_compact
    from gluonzoo.sources import is_compact
    from gluonzoo.training import checkpoint

    if is_compact(path):
        net, config = open_compact(path)
        return net, config.get("input_shape"), {name: config[name] for name in ("classes", "mean", "std", "dataset")
                                                if config.get(name) is not None}
    saved = checkpoint.load(path, tell=print)
    config = saved.config
    metadata = {name: config[name] for name in ("classes", "mean", "std", "dataset") if config.get(name) is not None}
    print(f"checkpoint: {saved.path}")
    if saved.has("ema.params"):
        print("weights: " + ("as trained" if raw else "their moving average"))
    return saved.net(raw=raw), config.get("input_shape"), metadata


def from_registry(arguments):
    """(network, input shape, metadata) of a registered network with the given weights."""
    from gluonzoo import get_model

    options = {"classes": arguments.classes, "in_channels": arguments.in_channels}
    net = get_model(arguments.model, **{name: value for name, value in options.items() if value is not None})
    net.initialize()
    if arguments.weights:
        from gluonzoo.training import load_weights
        load_weights(net, arguments.weights)
    else:
        print(f"no --weights: {arguments.model} is exported with random weights")
    metadata = {"mean": arguments.mean, "std": arguments.std}
    if arguments.labels:
        metadata["classes"] = read_labels(arguments.labels)
    return net, None, metadata


def read_labels(path):
    """Names of classes from a file: a JSON list where it begins with a bracket, else a name a line."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if not text.lstrip().startswith("["):
            return text.splitlines()
        labels = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--labels {path}: {getattr(error, 'strerror', None) or error}") from None
    if not all(isinstance(label, str) for label in labels):
        raise UserError(f"--labels {path}: expected a JSON list of names, found {labels[:3]!r}")
    return labels


def export(net, shape, metadata, arguments):
    """Write what was asked for; returns (paths, Difference or None)."""
    from gluonzoo import export as ways

    common = {"metadata": metadata, "force": arguments.force}
    if arguments.bundle:
        made = ways.bundle(net, arguments.bundle, shape, opset=arguments.opset, **common)
        return [made.folder], made.model.difference
    if arguments.to == "onnx":
        path = arguments.output if arguments.output.lower().endswith(".onnx") else arguments.output + ".onnx"
        made = ways.to_onnx(net, path, shape, opset=arguments.opset, with_preprocess=arguments.with_preprocess, **common)
        return [made.path], made.difference
    if arguments.to == "int8":
        images, labels = calibration_images(net, shape, metadata, arguments)
        made = ways.quantize(net, images, labels=labels, method=arguments.method or "naive", max_drop=arguments.max_drop)
        tell_accuracy(made)
        if arguments.output.lower().endswith(".onnx"):
            made = made.to_onnx(arguments.output, **common)
            return [made.path], made.difference
        made = made.save(arguments.output, **common)
    elif arguments.to == "bf16":
        made = ways.to_bf16(net, input_shape(net, shape), force=arguments.force_bf16).save(arguments.output, **common)
    else:
        made = ways.to_symbol(net, arguments.output, shape, **common)
    return [made.symbol, made.parameters, made.metadata], made.difference


def input_shape(net, shape):
    """(C, H, W) of one input: that of the checkpoint, or the registry's with the network's channels."""
    from gluonzoo import model_spec
    return tuple(shape or (net.in_channels,) + tuple(model_spec(net.model_name).input_shape[1:]))


def tell_accuracy(made):
    """Print what a quantized network lost, and which layers stayed in float32."""
    if made.accuracy is not None:
        print(f"accuracy on {made.accuracy.images} calibration images: {made.accuracy.fp32:.2f} % in float32, "
              f"{made.accuracy.int8:.2f} % in 8 bits")
    print(f"layers in float32: {', '.join(made.excluded) or 'none'} (of {len(made.layers)})")


def calibration_images(net, shape, metadata, arguments):
    """(images as the network takes them, (N, C, H, W) float32; their labels (N,) where --max-drop needs them, else None)."""
    from gluonzoo import data

    name, labels = arguments.calibration_data, None
    if name in data.names():
        source = data.load(name, train=True)
        chosen = [int(index) for index in spread(range(len(source)))]
        images, labels = source.images(chosen), [source.labels[index] for index in chosen]
        metadata = {key: metadata.get(key) or getattr(source, key) for key in ("mean", "std")}
    elif metadata.get("mean") is None or metadata.get("std") is None:
        raise UserError("--calibration-data needs to know how pixels are normalised: give --mean and --std")
    else:
        images, labels = folder_images(name, metadata.get("classes"), arguments.max_drop is not None)
    images = data.Transform(input_shape(net, shape), metadata["mean"], metadata["std"])(images)
    return images, labels if arguments.max_drop is not None else None


def folder_images(folder, classes, labelled):
    """(images of a folder, their labels or None). Labelled: its folders are named like the classes, or, where those have no
    names, stand in the classes' order."""
    from gluonzoo.export.predictor import find_images, read_images

    labels = {path: None for path in find_images([folder])}
    if labelled:
        names = sorted(name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name)))
        unknown = [name for name in names if classes and name not in classes]
        if not names or unknown:
            raise UserError(f"--max-drop: {folder} has the folders {', '.join(unknown or names) or 'none'}; expected one for "
                            f"each class{': ' + ', '.join(classes) if classes else ''}")
        order = list(classes or names)
        labels = {path: order.index(name) for name in names for path in find_images([os.path.join(folder, name)])}
    found = [(image, labels[path]) for path in spread(sorted(labels)) for image in read_images(path)]
    images, known = zip(*spread(found))
    return list(images), list(known) if labelled else None


def spread(items):
    """At most `MOST_IMAGES` of a sequence, evenly over it: in order, a folder's first ones may all be of one class."""
    count = len(items)
    return [items[index * count // MOST_IMAGES] for index in range(MOST_IMAGES)] if count > MOST_IMAGES else list(items)


def main():
    parser, arguments = parse_arguments()
    check(parser, arguments)
    net, shape, metadata = (from_checkpoint(arguments.checkpoint, arguments.raw_weights) if arguments.checkpoint
                            else from_registry(arguments))
    try:
        paths, difference = export(net, shape, metadata, arguments)
    except OSError as error:
        raise UserError(f"cannot write {arguments.bundle or arguments.output}: {error.strerror or error}") from error
    for path in paths:
        print(f"wrote {path}")
    if difference is not None:
        print(f"largest difference between exported and live outputs: {difference.absolute:.3g} "
              f"(relative {difference.relative:.3g})")
    return 0


if __name__ == "__main__":
    run(main)
