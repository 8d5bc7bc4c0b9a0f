#!/usr/bin/env python
"""Make a page of training runs: python tools/report.py runs/* -o report.html. It works offline; nothing is loaded from outside.

With an output that ends in .png or .svg: the runs' curves in one picture; in .md: the table of runs as Markdown, and with
--against RUN of groups of runs that differ in their seed alone: mean, standard deviation, difference to the group of RUN.
"""
import argparse
import os
import sys

from gluonzoo.errors import UserError, run


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, as tools/train.py --output writes it")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the page (.html), a picture of the curves "
                        "(.png, .svg), or the table (.md)")
    parser.add_argument("--evaluate", action="store_true", help="run the newest checkpoint of each run that has no saved "
                        "predictions on its test images, and save them in its folder (predictions.npz)")
    parser.add_argument("--against", metavar="RUN", help="with an output that ends in .md: compare groups of runs of the same "
                        "settings but for the seed with the group that this run is in, by the last epoch's accuracy")
    parser.add_argument("--title", metavar="TEXT", help="heading (default: Training report)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder or zip that holds the data sets; default: where the run found "
                        "them, then $GLUONZOO_DATA, then ~/.mxnet/datasets; nothing is downloaded")
    parser.add_argument("--images", type=int, default=24, metavar="N", help="wrong test images shown of each run, fewer of each "
                        "when there are many runs (default: 24)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="with --evaluate: images run at once "
                        "(default: 64)")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size is {arguments.batch_size}; expected at least 1")
    ending = os.path.splitext(arguments.output)[1].lower()
    if arguments.against is not None and ending != ".md":
        raise UserError(f"--against goes with a table; {arguments.output} does not end in .md")
    if ending in (".png", ".svg"):
        if arguments.evaluate:
            raise UserError(f"--evaluate goes with a page; {arguments.output} is a picture of the curves")
        from gluonzoo.visual import overlaid_curves
        names = overlaid_curves(arguments.runs, arguments.output, title=arguments.title)
        print(f"wrote {arguments.output}: {len(names)} {'run' if len(names) == 1 else 'runs'}")
        return 0
    if ending == ".md":
        if arguments.evaluate:
            raise UserError(f"--evaluate goes with a page; {arguments.output} is a table")
        if arguments.against is not None:
            from gluonzoo.visual import write_comparison
            groups = write_comparison(arguments.runs, arguments.output, arguments.against, arguments.title,
                                      tell=lambda line: print(line, file=sys.stderr))
            print(f"wrote {arguments.output}: {len(groups)} {'group' if len(groups) == 1 else 'groups'} of "
                  f"{sum(len(group.runs) for group in groups)} runs")
            return 0
        from gluonzoo.visual import write_table
        shown = write_table(arguments.runs, arguments.output, arguments.title, tell=lambda line: print(line, file=sys.stderr))
        print(f"wrote {arguments.output}: {len(shown)} {'run' if len(shown) == 1 else 'runs'}")
        return 0
    if ending not in (".html", ".htm"):
        raise UserError(f"--output is {arguments.output}; expected a name that ends in .html, .png, .svg or .md")
    from gluonzoo.visual import write_report

    shown = write_report(arguments.runs, arguments.output, arguments.title, arguments.evaluate, arguments.data_dir,
                         arguments.images, arguments.batch_size, tell=lambda line: print(line, file=sys.stderr))
    print(f"wrote {arguments.output}: {len(shown)} {'run' if len(shown) == 1 else 'runs'}, "
          f"{os.path.getsize(arguments.output) / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    run(main)
