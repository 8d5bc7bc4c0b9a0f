#!/usr/bin/env python
"""Measure on this machine, always against a peer in the same run: fresh processes, interleaved repeats, medians, ratios.

threads   ResNet-50 inference, stock MXNet's threads against gluonzoo.runtime's
lenet     LeNet-5 training: two workers, one process, stock gluon.Trainer, torch (with --torch-python)
race      the start-up race of stock gluon.Trainer under dist_sync: how many small jobs end with wrong weights
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MEASURES = os.path.join(ROOT, "tools", "measures")


def launcher(workers, servers, logs, *command):
    """The command line of a job on this machine."""
    return [sys.executable, os.path.join(ROOT, "launch", "launch.py"), "-n", str(workers), "-s", str(servers), "--log-dir", logs,
            *command]


def run(command, env=None):
    """Run a measuring process. Returns the JSON object on the last line of rank 0's output, or an error as a text."""
    environment = {**os.environ, "PYTHONPATH": ROOT, **(env or {})}
    for name in [name for name, value in environment.items() if value is None]:
        del environment[name]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    for line in reversed(result.stdout.splitlines()):
        _, brace, rest = line.partition("{")
        if brace and result.returncode == 0:
            return json.loads(brace + rest)
    return f"exit code {result.returncode}: {(result.stderr or result.stdout).strip()[-300:]}"


def interleaved(variants, repeats):
    """Run {name: function giving a figure} in turn, repeats times. Returns {name: [figures]}; None where one failed."""
    figures = {name: [] for name in variants}
    for repeat in range(repeats):
        for name, function in variants.items():
            outcome = function()
            if isinstance(outcome, str):
                print(f"  {name}: {outcome}", file=sys.stderr)
            else:
                figures[name].append(outcome["value"])
                print(f"  repeat {repeat + 1}  {name}: {outcome['value']:,.1f}", flush=True)
    return figures


def table(figures, baseline, unit):
    """Print medians, spread and the ratio to the baseline. Returns the rows."""
    rows = []
    base = statistics.median(figures[baseline]) if figures.get(baseline) else None
    print(f"\n| variant | median {unit} | lowest to highest | ratio to {baseline} |\n|---|---|---|---|")
    for name, values in figures.items():
        if not values:
            print(f"| {name} | did not run | | |")
            continue
        middle = statistics.median(values)
        ratio = middle / base if base else float("nan")
        rows.append({"variant": name, "median": middle, "values": values, "ratio": ratio})
        print(f"| {name} | {middle:,.1f} | {min(values):,.1f} to {max(values):,.1f} | {ratio:.2f} |")
    return rows


def threads(arguments):
    """ResNet-50 inference in images a second, with MXNet's own choice of threads and with gluonzoo.runtime's."""
    script = os.path.join(MEASURES, "inference.py")
    clean = {name: None for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ}
    figures = interleaved({way: (lambda way=way: run([sys.executable, script, way, str(arguments.batch_size)], clean))
                           for way in ("stock", "gluonzoo")}, arguments.repeats)
    return table(figures, "stock", "img/s")


def lenet(arguments):
    """LeNet-5 training in images a second over all workers, same global batch everywhere."""
    script, batch = os.path.join(MEASURES, "lenet.py"), arguments.batch_size
    with tempfile.TemporaryDirectory() as folder:
        variants = {
            "one process, gluonzoo": lambda: run([sys.executable, script, "gluonzoo", str(batch), "device"]),
            "two workers, gluonzoo": lambda: run(launcher(2, 1, os.path.join(folder, "logs"), sys.executable, script, "gluonzoo",
                                                          str(batch // 2), "dist_sync")),
            "one process, stock gluon.Trainer": lambda: run([sys.executable, script, "stock", str(batch), "device"])}
        if arguments.torch_python:
            peer = os.path.join(MEASURES, "lenet_torch.py")
            variants["one process, torch"] = lambda: run([arguments.torch_python, peer, str(batch)])
        else:
            print("torch is left out: give --torch-python /path/to/python with torch installed")
        figures = interleaved(variants, arguments.repeats)
    return table(figures, "one process, gluonzoo", "img/s")


def race(arguments):
    """How many small two-worker jobs end with weights that differ from one worker's, stock and ours side by side."""
    script = os.path.join(MEASURES, "race.py")
    wrong = {"stock": 0, "gluonzoo": 0}
    failed = dict(wrong)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.runs):
            for way in wrong:
                outcome = run(launcher(2, 1, os.path.join(folder, f"{way}-{number}"), "--timeout", "60", sys.executable, script,
                                       way))
                if isinstance(outcome, str):
                    failed[way] += 1
                    print(f"  {way}: {outcome}", file=sys.stderr)
                else:
                    wrong[way] += outcome["value"] > 1e-5
            print(f"  after {number + 1} runs: " + ", ".join(
                f"{way} {wrong[way]} wrong, {failed[way]} did not end well" for way in wrong), flush=True)
    return [{"variant": way, "runs": arguments.runs, "wrong": wrong[way], "failed": failed[way]} for way in wrong]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("threads", "lenet", "race"))
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="of every variant (default: 3)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="global batch (default: threads 16, lenet 128)")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="of the race (default: 20)")
    parser.add_argument("--torch-python", metavar="PATH", help="a Python that has torch")
    parser.add_argument("--json", metavar="FILE", help="also write the rows there")
    arguments = parser.parse_args()
    arguments.batch_size = arguments.batch_size or {"threads": 16, "lenet": 128, "race": 0}[arguments.what]
    rows = {"threads": threads, "lenet": lenet, "race": race}[arguments.what](arguments)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
