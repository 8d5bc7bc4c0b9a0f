#!/usr/bin/env python
"""Store a network in a small file: python tools/compress.py runs/lenet -o lenet.compact

Nothing is lost: pruned weights are stored as sparse, shared ones as a codebook, binary ones with a bit each, whichever is
smallest, and the file gives back the same bits. --prune and --bits change the weights first, without training them again
(tools/train.py --prune and --share-bits do it with). The file goes wherever weights do (--weights), into tools/evaluate.py, and
back with --unpack.
"""
import argparse
import json
import os

from gluonzoo.errors import UserError, run


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="PATH", help="a checkpoint, a run's folder (its newest sound checkpoint), a compact "
                        "file, or a registered network's name with --weights")
    parser.add_argument("-o", "--output", metavar="FILE", help="what to write; without it the table of layers is "
                        "shown and nothing is written")
    parser.add_argument("--unpack", metavar="FILE", help="write the parameters as an ordinary file: .params, .safetensors, .pth")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument("--weights", metavar="FILE", help="parameters of a registered network")
    parser.add_argument("--classes", type=int, metavar="N", help="of a registered network: number of classes, if not its own")
    parser.add_argument("--in-channels", type=int, metavar="N", help="of a registered network: channels of the input, if not "
                                                                     "its own")
    parser.add_argument("--raw-weights", action="store_true", help="of a checkpoint: the weights themselves, not their moving "
                                                                   "average")
    parser.add_argument("--real-weights", action="store_true", help="keep the real weights behind binary ones, to train on; "
                        "without it binary convolutions keep a bit for each weight and a scale for each filter")
    group = parser.add_argument_group("changes to the weights, without training")
    group.add_argument("--prune", type=float, default=0.0, metavar="SHARE", help="set the smallest weights of convolutions and "
                       "dense layers to zero, this share of them")
    group.add_argument("--prune-scope", choices=("layer", "global", "std"), default="layer", help="as of tools/train.py")
    group.add_argument("--bits", type=int, metavar="N", help="share weights: at most 2 to the power of N values in each layer, "
                                                             "1 to 8")
    group.add_argument("--init", choices=("linear", "density", "random"), default="linear", help="where k-means begins")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of --init random")
    group.add_argument("--skip", default="", metavar="LIST", help="layers that stay as they are: first, last, or beginnings of "
                       "structural names")
    group = parser.add_argument_group("accuracy, before and after")
    group.add_argument("--dataset", nargs="?", const="", metavar="NAME", help="measure it on this data set's test images; "
                       "without NAME on those of the data set that it was trained on")
    group.add_argument("--data-dir", metavar="DIR", help="folder or zip that holds the data set")
    group.add_argument("--batch-size", type=int, default=100, metavar="N", help="images run at once (default: 100)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def load(arguments):
    """(network, facts) of what the path names."""
    from gluonzoo import compact, get_model, model_spec
    from gluonzoo.sources import is_checkpoint
    from gluonzoo.training import checkpoint, load_weights

    path = arguments.path
    named = [flag for flag in ("weights", "classes", "in_channels") if getattr(arguments, flag) is not None]
    if is_checkpoint(path) or os.path.isfile(path):
        if named:
            raise UserError(f"--{named[0].replace('_', '-')} goes with a registered network's name; {path} has its own")
        if os.path.isfile(path):
            return compact.open_compact(path)
        saved = checkpoint.load(path)
        return saved.net(raw=arguments.raw_weights), compact.facts_of(saved.config)
    spec = model_spec(path)
    if arguments.weights is None:
        raise UserError(f"{path} is a network without weights: give --weights FILE, or name a checkpoint, a run's folder or a "
                        "compact file")
    options = {name: getattr(arguments, name) for name in ("classes", "in_channels") if getattr(arguments, name) is not None}
    net = get_model(path, **options)
    net.initialize()
    load_weights(net, arguments.weights)
    return net, {"model": path, "model_arguments": options, "input_shape": [net.in_channels, *spec.input_shape[1:]]}


def accuracy(net, facts, arguments):
    """Share of right answers on the test images, in percent."""
    from gluonzoo import data
    from gluonzoo.training import Classification, evaluate

    name = arguments.dataset or facts.get("dataset")
    if not name:
        raise UserError(f"{arguments.path} does not say what it was trained on; name a data set: --dataset NAME")
    dataset = data.load(name, train=False, data_dir=arguments.data_dir)
    if len(dataset.classes) != net.classes:
        raise UserError(f"{name} has {len(dataset.classes)} classes; {arguments.path} knows {net.classes}")
    mean, std = (facts.get(name) or getattr(dataset, name) for name in ("mean", "std"))
    transform = data.Transform(facts["input_shape"], mean, std, train=False)
    return 100 * evaluate(net, Classification(), dataset, transform, arguments.batch_size)["accuracy"]


def check(arguments):
    """Refuse what cannot be before anything is loaded."""
    if not 0 <= arguments.prune < 1:
        raise UserError(f"--prune is {arguments.prune}; expected at least 0 and below 1")
    if arguments.bits is not None and not 1 <= arguments.bits <= 8:
        raise UserError(f"--bits is {arguments.bits}; expected 1 to 8")
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size is {arguments.batch_size}; expected at least 1")
    for flag in ("output", "unpack"):
        path = getattr(arguments, flag)
        if path is None:
            continue
        if not os.path.isdir(os.path.dirname(path) or ".") or os.path.isdir(path):
            raise UserError(f"--{flag} {path}: expected a file's name in a folder that exists")
        if os.path.exists(path) and not arguments.force:
            raise UserError(f"--{flag} {path} is there already; --force replaces it")
    endings = (".params", ".safetensors", ".pth", ".pt", ".th")
    if arguments.unpack and os.path.splitext(arguments.unpack)[1].lower() not in endings:
        raise UserError(f"--unpack {arguments.unpack}: expected a name that ends in {', '.join(endings)}")


def change(net, arguments):
    """Prune, share and make binary, as asked for; returns the names of the weights that changed."""
    from gluonzoo import compact
    from gluonzoo.training.weights import get_parameters, set_parameters

    before = get_parameters(net)
    changed = compact.one_shot(net, arguments.prune, arguments.prune_scope, arguments.bits, arguments.init, arguments.skip,
                               arguments.seed)
    if changed:
        set_parameters(net, {**before, **changed}, arguments.path)
    binary = {} if arguments.real_weights else compact.binary_weights(net)
    if binary:
        set_parameters(net, {**get_parameters(net), **binary}, arguments.path)
    return sorted({**changed, **binary})


def table(report):
    """The report as lines: layer by layer, and in all."""
    from gluonzoo.summary import format_table

    lines = [(row.name, "x".join(map(str, row.shape)), f"{100 * row.zeros:.1f}", f"{row.different:,}", row.stored,
              "" if row.bits_each is None else f"{row.bits_each:.2f}", f"{row.before:,}", f"{row.after:,}",
              f"{row.before / max(row.after, 1):.1f}") for row in report.rows]
    header = ("parameter", "shape", "% zeros", "values", "stored as", "entropy", "bytes before", "after", "ratio")
    return format_table(header, lines)


def main():
    arguments = parse_arguments()
    check(arguments)
    net, facts = load(arguments)
    from gluonzoo import compact
    from gluonzoo.interop import files
    from gluonzoo.training.weights import get_parameters, set_parameters

    figures = {"path": arguments.path}
    if arguments.dataset is not None:
        figures["accuracy_before"] = accuracy(net, facts, arguments)
    figures["changed"] = change(net, arguments)
    values = get_parameters(net)
    if arguments.output:
        report = compact.save(arguments.output, values, facts)
        values = compact.load(arguments.output)[0]
        set_parameters(net, values, arguments.output)
        figures.update(bytes_before=report.before, bytes_after=report.after, output=arguments.output)
    else:
        report = compact.measure(values, facts)
        figures.update(bytes_before=report.before, bytes_after=report.after, output=None)
    if arguments.unpack:
        files.write(arguments.unpack, values)
        figures["unpacked"] = arguments.unpack
    if arguments.dataset is not None:
        figures["accuracy_after"] = accuracy(net, facts, arguments)
    if arguments.json:
        print(json.dumps({**figures, "arrays": [dict(vars(row), shape=list(row.shape)) for row in report.rows]}))
        return 0
    print(table(report))
    print(f"{arguments.output or 'a compact file (-o) would have'}: {report.after:,} bytes in place of {report.before:,}, "
          f"{report.before / report.after:.1f} times smaller" + ("; read back to the bit" if arguments.output else ""))
    if arguments.unpack:
        print(f"wrote {arguments.unpack}")
    if arguments.dataset is not None:
        print(f"accuracy: {figures['accuracy_before']:.2f} % before, {figures['accuracy_after']:.2f} % after")
    return 0


if __name__ == "__main__":
    run(main)
