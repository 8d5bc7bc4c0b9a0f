#!/usr/bin/env python
"""Measure on this machine, always against a peer in the same run: fresh processes, interleaved repeats, medians, ratios.

threads   ResNet-50 inference, stock MXNet's threads against gluonzoo.runtime's
lenet     LeNet-5 training: two workers, one process, stock gluon.Trainer, torch (with --torch-python)
race      the start-up race of stock gluon.Trainer under dist_sync: how many small jobs end with wrong weights
kvstore   push and pull by size, workers, servers and compression
scaling   training with 1, 2, 4 workers of one processor each against one process with as many threads
link      a step behind a slow link: without, with overlap, with 2-bit compression, with both (needs root)
channel   training through the secure channel and with --insecure-network (needs root)
start     a job of very many workers: start-up time, memory
project   what a cluster would do, by a model of cost; --check holds it against measured runs
infer     inference: networks x batches x engines (MXNet, torch, torch.compile, onnxruntime, 8 bits, bfloat16)
train     training: networks x batches x engines
growth    inference over batch and image size, beside the machine's largest speed
load      JPEGs to batches: our records, ImageRecordIter, Gluon's and torch's DataLoader
"""
import argparse
import os
import signal
import sys
import tempfile

from benchmarks import communication, loading, projection, speed
from benchmarks.common import MEASURES, interleaved, launcher, run, table, write


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


DEFAULTS = {"threads": {"batch_size": 16}, "lenet": {"batch_size": 128}, "race": {},
            "kvstore": {"workers": "1,2", "servers": "1,2", "compression": "none,2bit,fp16,memory"},
            "scaling": {"model": "resnet18_v1b", "size": 32, "batch_size": 32, "workers": "1,2,4", "steps": 20},
            "link": {"model": "resnet18_v1b", "size": 32, "batch_size": 32, "steps": 3, "repeats": 1},
            "channel": {"model": "resnet18_v1b", "size": 32, "batch_size": 32, "steps": 10},
            "start": {"model": "lenet5", "size": 32, "batch_size": 8, "workers": "32", "servers": "4", "steps": 5},
            "project": projection.DEFAULTS, **speed.DEFAULTS, "load": {"images": 2000}}


def parse(words=None):
    """The command line; what was not given is the benchmark's own default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=DEFAULTS)
    parser.add_argument("--repeats", type=int, metavar="N", help="of every variant (default: 3)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="threads, lenet: global batch; else of each worker")
    parser.add_argument("--runs", type=int, metavar="N", help="of the race (default: 20)")
    parser.add_argument("--torch-python", metavar="PATH", help="a Python that has torch")
    parser.add_argument("--json", metavar="FILE", help="also write the rows there")
    parser.add_argument("--csv", metavar="FILE", help="also write the rows there")
    parser.add_argument("--picture", metavar="FILE", help="kvstore, infer, train, growth: draw the figures (needs matplotlib)")
    parser.add_argument("--model", metavar="NAME", help="network that is trained")
    parser.add_argument("--size", type=int, metavar="N", help="height and width of its images")
    parser.add_argument("--classes", type=int, metavar="N", help="of the network (default: 1000)")
    parser.add_argument("--steps", type=int, metavar="N", help="updates that are timed")
    parser.add_argument("--workers", metavar="LIST", help="numbers of workers, with commas")
    parser.add_argument("--servers", metavar="LIST", help="kvstore, start, project: numbers of servers")
    parser.add_argument("--num-servers", type=int, metavar="N", help="scaling, link, channel: number of servers (default: 1)")
    parser.add_argument("--sizes", metavar="LIST", help="kvstore: sizes (default: 64K,1M,4M,16M,100M)")
    parser.add_argument("--seconds", type=float, metavar="S", help="of measuring a size or batch (default: 1, infer 2, train 5)")
    parser.add_argument("--compression", metavar="LIST", help="none, 2bit, fp16; kvstore: memory too")
    parser.add_argument("--link", metavar="RATE", help="run in network namespaces with such links, for example 100mbit, "
                        "or unlimited (needs root); project: of a cluster, for example 10Gbit")
    parser.add_argument("--models", metavar="LIST", help="infer, train, growth: networks, with commas")
    parser.add_argument("--engines", metavar="LIST", help="infer, train, growth: some of " + ", ".join(speed.ENGINES))
    parser.add_argument("--batches", metavar="LIST", help="infer, train, growth: batch sizes, with commas")
    parser.add_argument("--segments", type=int, default=4, metavar="N", help="train: of the engine recompute (default: 4)")
    parser.add_argument("--image-sizes", metavar="LIST", help="growth: heights and widths, with commas")
    parser.add_argument("--images", type=int, metavar="N", help="load: JPEGs (default: 2000)")
    projection.add_options(parser)
    arguments = parser.parse_args(words)
    general = {"repeats": 3, "runs": 20, "classes": 1000, "compression": "none", "num_servers": 1, "batch_size": 0,
               "sizes": "64K,1M,4M,16M,100M", "seconds": 1.0}
    for name, value in {**general, **DEFAULTS[arguments.what]}.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    unknown = [engine for engine in (arguments.engines or "").split(",") if engine and engine not in speed.ENGINES]
    if unknown:
        parser.error(f"--engines: {unknown[0]!r} is none; expected some of {', '.join(speed.ENGINES)}")
    return arguments


def main():
    arguments = parse()
    # So that namespaces, hosts and folders are removed then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    functions = {"threads": threads, "lenet": lenet, "race": race, "project": projection.project, "load": loading.load,
                 **{name: getattr(communication, name) for name in communication.__all__},
                 **{name: getattr(speed, name) for name in speed.DEFAULTS}}
    write(functions[arguments.what](arguments), arguments)


if __name__ == "__main__":
    main()
