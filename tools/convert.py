#!/usr/bin/env python
"""Convert a file of weights: python tools/convert.py resnet50.pth resnet50.params --model resnet50_v1b

Reads what torchvision, timm, MXNet and others wrote (`--source`, by default found out) and writes this package's names or, with
`--style`, those of another, in the format of OUT's ending: .params, .safetensors, .pth. Every array must have a place and the
exact shape; what is written is read back into a second network and compared before it gets its name.
"""
import argparse
import os
import sys

from gluonzoo.errors import UserError, run


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", metavar="IN", help="the file to read; its format is found by what is in it")
    parser.add_argument("output", metavar="OUT", help="the file to write: NAME.params, .safetensors, .pth, .pt or .th")
    parser.add_argument("--model", required=True, metavar="NAME", help="the registered network whose weights they are")
    parser.add_argument("--source", default="auto", metavar="S", help="whose names IN has (default: found out)")
    parser.add_argument("--style", default="gluonzoo", metavar="S", help="whose names OUT gets (default: gluonzoo)")
    parser.add_argument("--classes", type=int, metavar="N", help="number of classes, if not the network's own")
    parser.add_argument("--in-channels", type=int, metavar="N", help="channels of the input, if not the network's own")
    parser.add_argument("--aux", action="store_true", help="with the auxiliary heads of a network that has such")
    parser.add_argument("--allow-nonfinite", action="store_true", help="take NaN and infinity too")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")
    parser.add_argument("--index", metavar="DIR", help="enter OUT, which lies in DIR, into the index that pretrained=True reads")
    return parser.parse_args()


def build(arguments):
    """The network that the weights are for."""
    from gluonzoo import get_model

    options = {"classes": arguments.classes, "in_channels": arguments.in_channels, "aux": arguments.aux or None}
    try:
        return get_model(arguments.model, **{name: value for name, value in options.items() if value is not None})
    except TypeError as error:
        raise UserError(f"{arguments.model}: {error}") from None


def check_output(arguments):
    """Complain before any work about an OUT that cannot be."""
    from gluonzoo.interop import styles
    from gluonzoo.interop.files import WRITERS

    if os.path.splitext(arguments.output)[1].lower() not in WRITERS:
        raise UserError(f"{arguments.output}: expected a name that ends in {', '.join(WRITERS)}")
    if os.path.exists(arguments.output) and not arguments.force:
        raise UserError(f"{arguments.output} is there already; --force replaces it")
    if arguments.style not in styles(writing=True):
        raise UserError(f"--style {arguments.style}: expected one of {', '.join(styles(writing=True))}")
    folder = os.path.dirname(os.path.abspath(arguments.output))
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder")
    if arguments.index and os.path.abspath(arguments.index) != folder:
        raise UserError(f"--index {arguments.index}: expected the folder of {arguments.output}")


def load(net, arguments):
    """Load IN; what has no place or no counterpart is listed in full."""
    from gluonzoo.interop import WeightsError, load_weights

    try:
        return load_weights(net, arguments.input, arguments.source, allow_nonfinite=arguments.allow_nonfinite)
    except WeightsError as error:
        for title, names in (("missing in the file", error.missing), ("without a place in the network", error.unplaced),
                             ("of another shape", [f"{name}: {found}, expected {wanted}"
                                                   for name, found, wanted in error.misshapen])):
            for name in names:
                print(f"{title}: {name}", file=sys.stderr)
        raise


def write(net, arguments):
    """Write OUT beside its name, read it into a second network, compare, rename."""
    from gluonzoo.interop import load_weights, save_weights

    import numpy as np

    folder, name = os.path.split(os.path.abspath(arguments.output))
    beside = os.path.join(folder, f".tmp-{os.getpid()}-{name}")
    try:
        save_weights(net, beside, arguments.style)
        second = build(arguments)
        load_weights(second, beside, arguments.style, allow_nonfinite=arguments.allow_nonfinite)
        values = second._collect_params_with_prefix()
        for parameter, original in net._collect_params_with_prefix().items():
            # Variances that take up a difference of epsilon are rounded twice.
            if not np.allclose(values[parameter].data().asnumpy(), original.data().asnumpy(), rtol=1e-6, atol=1e-9,
                               equal_nan=True):
                raise UserError(f"{arguments.output}: {parameter} read back differs from what was written; nothing is kept")
        os.replace(beside, arguments.output)
    except OSError as error:
        raise UserError(f"cannot write {arguments.output}: {error.strerror or error}") from error
    finally:
        if os.path.exists(beside):
            os.unlink(beside)


def main():
    arguments = parse_arguments()
    check_output(arguments)
    net = build(arguments)
    report = load(net, arguments)
    print(f"read {report.path} ({report.format}): {report.title}; {len(report.placed)} parameters placed, "
          f"{len(report.unused)} arrays not used")
    for name, reason in report.unused:
        print(f"not used: {name} ({reason})")
    for note in report.notes:
        print(f"note: {note}")
    write(net, arguments)
    print(f"wrote {arguments.output} ({os.path.getsize(arguments.output)} bytes), names of {arguments.style}; read back, equal")
    if report.options:
        keywords = ", ".join(f"{name}={value!r}" for name, value in report.options.items())
        print(f"these weights want the network as get_model({arguments.model!r}, {keywords}); "
              f"{arguments.output} does not hold that")
    if arguments.index:
        from gluonzoo.interop import add_to_index
        entry = add_to_index(arguments.index, arguments.model, arguments.output, net.classes, report.options)
        print(f"entered {arguments.model} into {os.path.join(arguments.index, 'index.json')}: SHA-256 {entry['sha256']}")
    return 0


if __name__ == "__main__":
    run(main)
