#!/usr/bin/env python
"""Chaos: seeded trials, each a small real job whose processes are killed, stopped and cut off at random moments.

    python tests/chaos/run.py --trials 50 --out FILE        # goes on where FILE ends when it is started again
    python tests/chaos/run.py --show FILE                   # the table
"""
import argparse
import json
import os
import shutil
import signal
import sys
import tempfile

__all__ = ["main", "table"]


def read(path, cut=False):
    """The lines of a file of results. cut: half a line at its end, of a run that was killed, is taken away."""
    try:
        with open(path, "rb+" if cut else "rb") as file:
            text = file.read()
            if cut:
                file.truncate(text.rfind(b"\n") + 1)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.split(b"\n")[:-1]]


def table(lines):
    """The results as text."""
    rows = ["seed launcher workers servers restarts seconds result   faults"]
    for line in sorted(lines, key=lambda one: one["seed"]):
        rows.append(f"{line['seed']:4d} {line['launcher']:8s} {line['workers']:7d} {line['servers']:7d} {line['restarts']:8d} "
                    f"{line['seconds']:7.1f} {line['result'][:60]:8s} "
                    + "; ".join(line["faults"] + [f"(not reached: {one})" for one in line["not_reached"]]))
    good = sum(line["result"] == "ok" for line in lines)
    return "\n".join(rows + [f"{good} of {len(lines)} ok, {sum(line['restarts'] for line in lines)} restarts, "
                             f"{sum(len(line['faults']) for line in lines)} faults"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50, metavar="N", help="seeds 0 to N-1 (default: 50)")
    parser.add_argument("--seed", type=int, action="append", metavar="N", help="only this one; may come again")
    parser.add_argument("--out", metavar="FILE", help="JSON lines, one a trial")
    parser.add_argument("--show", metavar="FILE", help="print such a file as a table")
    parser.add_argument("--folder", metavar="DIR", help="where trials work; what failed stays there (default: a new one)")
    options = parser.parse_args()
    if options.show:
        print(table(read(options.show)))
        return 0
    lines = read(options.out, cut=True) if options.out else []
    done = {line["seed"] for line in lines}
    wanted = [seed for seed in options.seed or range(options.trials) if seed not in done]
    bad = run(wanted, lines, options) if wanted else any(line["result"] != "ok" for line in lines)
    print(table(lines))
    return int(bad)


def run(seeds, lines, options):
    """Run the trials of these seeds, add their results to lines and to the file; returns whether any trial has failed."""
    from chaos import NO_NETWORK, References, run_trial  # not at the top: they import MXNet
    from plan import draw
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # so that nothing is left of a trial that is cut short
    if NO_NETWORK:
        print(f"all trials with --launcher local: {NO_NETWORK}", file=sys.stderr)
    folder = options.folder or tempfile.mkdtemp(prefix="chaos-")
    os.makedirs(folder, exist_ok=True)
    for seed in seeds:
        shutil.rmtree(os.path.join(folder, f"trial-{seed}"), ignore_errors=True)
        line = run_trial(draw(seed, ssh=not NO_NETWORK), os.path.join(folder, f"trial-{seed}"), References(folder))
        lines.append(line)
        print(json.dumps(line), flush=True)
        if options.out:
            with open(options.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    bad = any(line["result"] != "ok" for line in lines)
    if not bad and not options.folder:
        shutil.rmtree(folder)
    return bad


if __name__ == "__main__":
    sys.exit(main())
