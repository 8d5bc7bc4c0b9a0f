#!/usr/bin/env python
"""Train a network: python tools/train.py --model lenet5 --dataset mnist. With launch/launch.py in front, on many workers."""
import argparse
import signal


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    from gluonzoo.training import config

    config.add_arguments(parser)
    parser.add_argument("--resume", nargs="?", const=True, default=False, metavar="DIR|auto",
                        help="continue from the newest valid checkpoint of --output, or from DIR (a run or a checkpoint); auto: "
                        "from that of --output when it has one, else begin: the same command line can be started again and again")
    parser.add_argument("--config", metavar="FILE", help="JSON file of these settings; flags given here win over it")
    parser.add_argument("--list-recipes", nargs="?", const=True, default=False, metavar="NAME",
                        help="show the recipes that --recipe knows, or with NAME all that one sets and where it is from, and end")
    parser.add_argument("--list-augmentations", action="store_true", help="show what --augment knows, and end")
    arguments = vars(parser.parse_args())
    if arguments.pop("list_augmentations"):
        from gluonzoo.data import augment
        print("\n".join(augment.describe()))
        return 0
    shown = arguments.pop("list_recipes")
    if shown:
        from gluonzoo.training import recipes
        print(recipes.describe(None if shown is True else shown))
        return 0
    resume, file = arguments.pop("resume"), arguments.pop("config")

    from gluonzoo.distributed import cluster
    if cluster.role() in ("scheduler", "server"):
        # MXNet's own launcher starts the same command in every role.
        from gluonzoo.distributed import server
        return server.main()
    from gluonzoo.training import train

    run, _ = train({**(config.read_file(file) if file else {}), **arguments}, resume)
    return run.exit_code()


if __name__ == "__main__":
    # A word to stop that comes while this program still starts waits until the run can heed it. Before the imports, so that
    # no thread is made to which it could go.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    from gluonzoo.errors import run

    run(main)
