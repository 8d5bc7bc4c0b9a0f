#!/usr/bin/env python
"""Take a network out of its training: python tools/export.py --checkpoint runs/lenet5-mnist --output export/lenet5

Writes PREFIX-symbol.json, PREFIX-0000.params and PREFIX.json, which tools/predict.py, MXNet's SymbolBlock, Module and
C++ interface read. The files are read back and compared with the live network before they are kept.
"""
import argparse

from gluonzoo.errors import UserError, run


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", metavar="PATH", help="a checkpoint, or a run's folder (its newest sound one)")
    source.add_argument("--model", metavar="NAME", help="a registered network, with --weights or fresh random ones")
    parser.add_argument("--output", required=True, metavar="PREFIX", help="where to write: FOLDER/NAME")
    parser.add_argument("--to", choices=("symbol",), default="symbol", help="the format (default: symbol)")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    group = parser.add_argument_group("with --model")
    group.add_argument("--weights", metavar="FILE", help="parameters (.params) for it")
    group.add_argument("--classes", type=int, metavar="N", help="number of classes, if not the network's own")
    group.add_argument("--in-channels", type=int, metavar="N", help="channels of the input, if not the network's own")
    group.add_argument("--labels", metavar="FILE", help="names of the classes, a line each")
    group.add_argument("--mean", type=numbers, metavar="M[,M,M]", help="of pixels in [0, 1], as in its training")
    group.add_argument("--std", type=numbers, metavar="S[,S,S]", help="the same, standard deviation")
    return parser, parser.parse_args()


def numbers(text):
    """Parse "0.5" or "0.5,0.4,0.4" into a tuple."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number or numbers with commas") from None


def from_checkpoint(path):
    """(network, input shape, metadata) of a checkpoint."""
    from gluonzoo.training import checkpoint

    saved = checkpoint.load(path, tell=print)
    config = saved.config
    metadata = {name: config[name] for name in ("classes", "mean", "std", "dataset") if config.get(name) is not None}
    print(f"checkpoint: {saved.path}")
    return saved.net(), config.get("input_shape"), metadata


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
        try:
            with open(arguments.labels, encoding="utf-8") as file:
                metadata["classes"] = file.read().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--labels {arguments.labels}: {getattr(error, 'strerror', None) or error}") from None
    return net, None, metadata


def main():
    parser, arguments = parse_arguments()
    given = [name for name in ("weights", "classes", "in_channels", "labels", "mean", "std")
             if getattr(arguments, name) is not None]
    if arguments.checkpoint and given:
        parser.error(f"--{given[0].replace('_', '-')} goes with --model; a checkpoint brings its own")
    from gluonzoo.export import to_symbol

    net, shape, metadata = from_checkpoint(arguments.checkpoint) if arguments.checkpoint else from_registry(arguments)
    try:
        exported = to_symbol(net, arguments.output, shape, metadata=metadata, force=arguments.force)
    except OSError as error:
        raise UserError(f"cannot write {arguments.output}: {error.strerror or error}") from error
    for path in (exported.symbol, exported.parameters, exported.metadata):
        print(f"wrote {path}")
    print(f"largest difference between exported and live outputs: {exported.difference.absolute:.3g} "
          f"(relative {exported.difference.relative:.3g})")
    return 0


if __name__ == "__main__":
    run(main)
