"""Print what a network consists of: layers, output shapes, parameters, multiply-adds, memory; or a table of all networks;
or draw published accuracies against multiply-adds."""
import argparse
import dataclasses
import json

from gluonzoo import get_model, list_models, model_spec
from gluonzoo.errors import UserError, run
from gluonzoo.summary import format_table, overview, summarize


def shape(text):
    """Parse "3,224,224" (or 3x224x224) into (3, 224, 224)."""
    sizes = tuple(int(part) for part in text.replace("x", ",").split(","))
    if len(sizes) != 3 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not C,H,W with numbers of at least 1")
    return sizes


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("net", nargs="?", metavar="NET", help="a network's name; with --all a pattern like 'resnet*'")
    parser.add_argument("--input-shape", type=shape, metavar="C,H,W", help="default: the network's standard input")
    parser.add_argument("--classes", type=int, help="default: the network's own")
    parser.add_argument("--all", action="store_true", help="a table of all registered networks")
    parser.add_argument("--markdown", action="store_true", help="write the table as Markdown")
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.add_argument("--compare", nargs="?", const="*", metavar="PATTERN", help="draw published accuracies against "
                        "multiply-adds for the networks that match, for example 'resnet*' (default: all)")
    parser.add_argument("-o", "--output", metavar="FILE", help="with --compare: the picture (PNG)")
    arguments = parser.parse_args()
    if bool(arguments.compare) != bool(arguments.output):
        parser.error("--compare and -o FILE go together")
    if arguments.compare:
        given = [name for name in ("net", "input_shape", "classes", "all", "markdown", "json") if getattr(arguments, name)]
        if given:
            parser.error(f"--compare takes no {given[0].upper() if given[0] == 'net' else '--' + given[0].replace('_', '-')}")
        return arguments
    if not arguments.net and not arguments.all:
        parser.error("name a network, or ask for --all or --compare")
    if arguments.markdown and arguments.json:
        parser.error("--markdown and --json exclude each other")
    if arguments.all and (arguments.input_shape or arguments.classes):
        parser.error("--all shows the standard inputs and classes; it takes no --input-shape or --classes")
    return arguments


def all_networks(pattern, markdown, as_json):
    """The table of `--all` as text."""
    names = list_models(pattern)
    if not names:
        raise UserError(f"no network's name matches {pattern!r}")
    if not as_json:
        return overview(names, markdown)
    fields = [dataclasses.asdict(dataclasses.replace(model_spec(name), builder=None)) for name in names]
    return json.dumps([{key: value for key, value in spec.items() if key != "builder"} for spec in fields])


def compare(pattern, path):
    """The picture of `--compare`, and a table of what is on it with sources."""
    from gluonzoo.accuracies import ACCURACIES, published
    from gluonzoo.visual import accuracy_picture

    names = published(pattern)
    try:
        points = accuracy_picture(names, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    lines = [(name, f"{points[name]:,}", f"{ACCURACIES[name].top1:.1f}",
              "" if ACCURACIES[name].top5 is None else f"{ACCURACIES[name].top5:.1f}", ACCURACIES[name].protocol,
              ACCURACIES[name].source) for name in names]
    print(format_table(("network", "multiply-adds", "top-1 %", "top-5 %", "protocol", "source"), lines))
    print(f"wrote {path}: {len(names)} networks")
    return 0


def main():
    arguments = parse_arguments()
    if arguments.compare:
        return compare(arguments.compare, arguments.output)
    if arguments.all:
        print(all_networks(arguments.net or "*", arguments.markdown, arguments.json))
        return 0
    spec = model_spec(arguments.net)
    input_shape = arguments.input_shape or spec.input_shape
    options = {} if arguments.classes is None else {"classes": arguments.classes}
    if input_shape[0] != spec.input_shape[0]:
        options["in_channels"] = input_shape[0]
    summary = summarize(get_model(arguments.net, **options), input_shape, spec.counting)
    if arguments.json:
        print(json.dumps(summary.as_dict()))
    else:
        print(summary.text(arguments.markdown))
        # A paragraph of its own, or Markdown would take it for a row.
        print(("\n" if arguments.markdown else "") + summary.memory())
    return 0


if __name__ == "__main__":
    run(main)
