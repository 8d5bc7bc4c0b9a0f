#!/usr/bin/env python
"""Look into a trained network: python tools/visualize.py maps digit.png --model runs/lenet5-mnist -o maps.png

filters: the first convolution's filters. maps: what the stages make of an image. deconv: which pixels made a stage's
strongest channels respond (Zeiler and Fergus' deconvnet), or, with --channel, in which of several images it does most.
"""
import argparse

from gluonzoo.errors import UserError, run


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("filters", "maps", "deconv"))
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files, .npy arrays, folders or quoted patterns; maps "
                        "shows the first, filters needs none")
    parser.add_argument("--model", required=True, metavar="NET", help="a checkpoint or a run's folder, or a registered "
                        "network's name with --weights")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the picture (PNG)")
    parser.add_argument("--stages", metavar="STAGE[,STAGE]", help="maps: which (default: all); deconv: the one")
    parser.add_argument("--channel", type=int, metavar="N", help="deconv: this channel, on the images where it is strongest "
                        "(default: the strongest channels)")
    parser.add_argument("--top", type=int, default=9, metavar="N", help="deconv: how many projections (default: 9)")
    group = parser.add_argument_group("with a registered network's name")
    group.add_argument("--weights", metavar="FILE", help="its parameters")
    group.add_argument("--pretrained", action="store_true", help="parameters by the network's name")
    group.add_argument("--classes", type=int, metavar="N", help="number of classes, if not the network's own")
    group.add_argument("--mean", type=numbers, metavar="M[,M,M]", help="of pixels in [0, 1], as in its training (default: "
                       "ImageNet's for a network of 3 channels and 1000 classes)")
    group.add_argument("--std", type=numbers, metavar="S[,S,S]", help="the same, standard deviation")
    return parser, parser.parse_args()


def numbers(text):
    """Parse "0.5" or "0.5,0.4,0.4" into a tuple."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number or numbers with commas") from None


def check(parser, arguments):
    """Refuse what does not go together before anything is loaded."""
    if arguments.what == "filters":
        given = [name for name in ("images", "stages", "channel") if getattr(arguments, name) not in (None, [])]
        if given:
            parser.error("filters takes no " + ("IMAGE" if given[0] == "images" else "--" + given[0]))
        return
    if not arguments.images:
        parser.error(f"{arguments.what} needs an IMAGE")
    if arguments.what == "maps" and arguments.channel is not None:
        parser.error("--channel goes with deconv")
    if arguments.what == "deconv" and (not arguments.stages or "," in arguments.stages):
        parser.error("deconv needs one stage: --stages NAME")
    if arguments.top < 1:
        raise UserError(f"--top is {arguments.top}; expected at least 1")


def read(paths, metadata):
    """(names, normalised images (N, C, H, W)) of the files."""
    from gluonzoo.data import Transform
    from gluonzoo.export.predictor import find_images, read_images

    names, images = [], []
    for path in find_images(paths):
        found = read_images(path)
        names += [path if len(found) == 1 else f"{path}[{index}]" for index in range(len(found))]
        images += found
    return names, Transform(metadata.input_shape, metadata.mean, metadata.std)(images)


def main():
    parser, arguments = parse_arguments()
    check(parser, arguments)
    from gluonzoo import visual
    from gluonzoo.sources import open_network

    # Filters need no normalisation, so none is asked for.
    mean, std = (arguments.mean or (0.5,), arguments.std or (0.5,)) if arguments.what == "filters" else (
        arguments.mean, arguments.std)
    net, metadata = open_network(arguments.model, arguments.weights, arguments.pretrained, arguments.classes, mean, std)
    try:
        if arguments.what == "filters":
            name, shape = visual.filters(net, arguments.output)
            print(f"{name}: {'x'.join(map(str, shape))}")
        elif arguments.what == "maps":
            _, images = read(arguments.images, metadata)
            stages = arguments.stages.split(",") if arguments.stages else getattr(net, "stages", ())
            for stage, shape in visual.feature_maps(net, images[0], stages, arguments.output).items():
                print(f"{stage}: {'x'.join(map(str, shape))}")
        else:
            names, images = read(arguments.images, metadata)
            for found in visual.deconvnet_picture(net, images, arguments.stages, arguments.output, arguments.channel,
                                                  arguments.top, names):
                print(f"channel {found.channel} at row {found.position[0]}, column {found.position[1]}: "
                      f"{found.activation:.4g} on {names[found.index]}")
    except OSError as error:
        raise UserError(f"cannot write {arguments.output}: {error.strerror or error}") from error
    print(f"wrote {arguments.output}")
    return 0


if __name__ == "__main__":
    run(main)
