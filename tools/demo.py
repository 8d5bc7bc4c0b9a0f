#!/usr/bin/env python
"""The main job, end to end: a scheduler, a server and two workers train LeNet-5 on real digits; export; load back.

python tools/demo.py [--output DIR]     (make demo installs first)
"""
import argparse
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def step(title, *command):
    """Say what is run, run it, and end with its exit code when it fails."""
    shown = " ".join(os.path.relpath(part, ROOT) if part.startswith(ROOT) else part for part in command)
    print(f"\n--- {title}\n$ {shown}", flush=True)
    code = subprocess.call(command, cwd=ROOT)
    if code:
        print(f"error: {title}: exit code {code}", file=sys.stderr)
        sys.exit(code)


def fresh(path):
    """path, or path-2, path-3, ...: the first that does not exist, so that no earlier demo is overwritten."""
    number, chosen = 1, path
    while os.path.exists(os.path.join(ROOT, chosen)):
        number += 1
        chosen = f"{path}-{number}"
    return chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", metavar="DIR", help="folder of the run (default: a fresh runs/demo)")
    arguments = parser.parse_args()
    output = arguments.output or fresh(os.path.join("runs", "demo"))
    tool = {name: os.path.join("tools", f"{name}.py") for name in ("train", "export", "evaluate")}
    prefix = os.path.join(output, "lenet5")
    python = sys.executable
    step("train on 2 workers and 1 server", python, os.path.join("launch", "launch.py"), "-n", "2", "-s", "1",
         "--log-dir", os.path.join(output, "roles"), python, tool["train"], "--model", "lenet5", "--dataset", "digits",
         "--kvstore", "dist_sync", "--epochs", "15", "--batch-size", "16", "--schedule", "step", "--output", output)
    step("export", python, tool["export"], "--checkpoint", output, "--output", prefix)
    step("load the export back in a fresh process and compare it with the live network", python, tool["evaluate"], prefix,
         "--compare", output, "--at-least", "97")
    print(f"\nLook at {os.path.join(output, 'curve.png')}; beside it are log.jsonl, checkpoints/, roles/ (every role's output), "
          "lenet5-symbol.json and lenet5-0000.params")


if __name__ == "__main__":
    main()
