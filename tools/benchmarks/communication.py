"""Benchmarks of what jobs cost: kvstore, scaling, link, channel, start."""
import contextlib
import json
import os
import re
import statistics
import sys
import tempfile

from benchmarks.common import MEASURES, Hosts, cores, interleaved, launcher, run, table

__all__ = ["kvstore", "scaling", "link", "channel", "start"]


def _measure(name, **wishes):
    return [sys.executable, os.path.join(MEASURES, f"{name}.py"), json.dumps(wishes)]


def _numbers(text):
    return [int(part) for part in text.split(",")]


def _bytes(text):
    found = re.fullmatch(r"([\d.]+)([KMG]?)B?", text.strip().upper())
    if not found:
        raise SystemExit(f"error: {text!r} is no size; expected for example 64K, 4M")
    return int(float(found.group(1)) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[found.group(2)]) // 4 * 4


def _size(number):
    return f"{number / (1 << 20):g} MB" if number >= 1 << 20 else f"{number / 1024:g} KB"


@contextlib.contextmanager
def _jobs(arguments, workers):
    """job(servers, *command): the command line of a job, on this machine or, with --link, on hosts with such links."""
    if arguments.link:
        with Hosts(workers, None if arguments.link == "unlimited" else arguments.link) as hosts:
            yield hosts.job
        return
    with tempfile.TemporaryDirectory() as folder:
        yield lambda servers, *command: launcher(workers, servers, os.path.join(folder, "logs"), *command)


def kvstore(arguments):
    """Push and pull of one array by all workers at once, by size, workers, servers and compression."""
    sizes, rows = [_bytes(part) for part in arguments.sizes.split(",")], []
    for workers in _numbers(arguments.workers):
        with _jobs(arguments, workers) as job:
            for servers in _numbers(arguments.servers):
                for compression in arguments.compression.split(","):
                    if compression == "memory" and (workers == 1 or arguments.link):
                        continue
                    found = []
                    for _ in range(arguments.repeats):
                        outcome = run(job(servers, *_measure("kvstore", sizes=sizes, compression=compression,
                                                             seconds=arguments.seconds)), every=True)
                        if isinstance(outcome, str):
                            print(f"  {workers} workers, {servers} servers, {compression}: {outcome}", file=sys.stderr)
                        else:
                            found.append(outcome)
                    for several in zip(*found):
                        ms = statistics.median(row["ms"] for row in several)
                        rows.append({"workers": workers, "servers": servers, "compression": compression,
                                     "link": arguments.link or "loopback", "bytes": several[0]["bytes"], "ms": ms,
                                     "lowest_ms": min(row["lowest_ms"] for row in several),
                                     "MB_per_s": several[0]["bytes"] / ms / 1000})
    print("| workers | servers | compression | size | ms, median | lowest | MB/s |\n|---|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['workers']} | {row['servers']} | {row['compression']} | {_size(row['bytes'])} | {row['ms']:.2f} | "
              f"{row['lowest_ms']:.2f} | {row['MB_per_s']:,.0f} |")
    if arguments.picture and rows:
        _picture(rows, arguments.picture)
    return rows


def _picture(rows, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), constrained_layout=True)
    lines = {}
    for row in rows:
        name = f"{row['workers']} workers, {row['servers']} servers, {row['compression']}"
        lines.setdefault(name, []).append((row["bytes"], row["MB_per_s"]))
    for name, points in lines.items():
        axes.plot(*zip(*sorted(points)), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="bytes of the array", ylabel="MB/s of every worker, there and back")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    figure.savefig(path)


def _training(arguments, **more):
    wishes = {"model": arguments.model, "size": arguments.size, "batch": arguments.batch_size, "steps": arguments.steps,
              "warmup": 2, "classes": arguments.classes}
    return _measure("training", **{**wishes, **more})


def _efficiencies(figures, base):
    """Print and return rows: images a second, efficiency by it, processor time an image, efficiency by that."""
    print("\n| variant | img/s | lowest to highest | efficiency | processor ms an image | efficiency by that |\n"
          "|---|---|---|---|---|---|")
    rows, medians = [], {}
    for name, found in figures.items():
        if not found:
            print(f"| {name} | did not run | | | | |")
            continue
        values = [one["value"] for one in found]
        speed, cpu = statistics.median(values), statistics.median(one["cpu"] for one in found)
        medians[name] = speed, cpu
        against = medians.get(base(name)) or (float("nan"), float("nan"))
        rows.append({"variant": name, "img_per_s": speed, "lowest": min(values), "highest": max(values),
                     "efficiency": speed / against[0], "cpu_ms": cpu, "efficiency_by_cpu": against[1] / cpu,
                     "roles": json.dumps(found[-1]["roles"])})
        print(f"| {name} | {speed:,.1f} | {min(values):,.1f} to {max(values):,.1f} | {speed / against[0]:.2f} | {cpu:.2f} | "
              f"{against[1] / cpu:.2f} |")
    return rows


def scaling(arguments):
    """Images a second of N workers with one processor each, servers on the same N processors, against one process with N threads.

    The efficiency by processor time is the ratio of processor time an image: what the first would be were all processors
    always busy, and hardly changed by other programs on the machine.
    """
    here, variants = cores(), {}
    with contextlib.ExitStack() as stack:
        for workers in _numbers(arguments.workers):
            if workers > len(here) and not arguments.link:
                print(f"{workers} workers are left out: there are {len(here)} processors")
                continue
            job, one = stack.enter_context(_jobs(arguments, workers)), {"OMP_NUM_THREADS": "1"}
            some = None if arguments.link else here[:workers]
            variants[f"1 process, {workers} threads"] = lambda workers=workers, some=some: run(
                _training(arguments, batch=arguments.batch_size * workers), {"OMP_NUM_THREADS": str(workers)}, some)
            ways = {"": one, **({", no shared memory": {**one, "GLUONZOO_SHARED_MEMORY": "0"}}
                                if workers > 1 and not arguments.link else {})}
            for way, env in ways.items():
                for compression in arguments.compression.split(","):
                    if compression != "none" and way:
                        continue
                    name = f"{workers} workers" + way + ("" if compression == "none" else f", {compression}")
                    more = {"trainer": {"compression": compression}} if compression != "none" else {}
                    variants[name] = lambda job=job, env=env, some=some, more=more: run(
                        job(arguments.num_servers, *_training(arguments, kvstore="dist_sync", **more)), env, some)
        figures = interleaved(variants, arguments.repeats, None)
    return _efficiencies(figures, lambda name: f"1 process, {re.match('[0-9]+', name).group()} threads"
                         if "process" not in name else name)


def link(arguments):
    """Milliseconds a step of two workers behind a slow link: without and with overlap of backward pass and sending, with and
    without 2-bit compression."""
    arguments.link = arguments.link or "100mbit"
    with _jobs(arguments, 2) as job:
        def variant(overlap, compression):
            return lambda: run(job(arguments.num_servers, *_training(
                arguments, kvstore="dist_sync", overlap=overlap, trainer={"compression": compression})), {"OMP_NUM_THREADS": "1"})

        variants = {"none": variant(False, "none"), "overlap": variant(True, "none"), "2bit": variant(False, "2bit"),
                    "overlap and 2bit": variant(True, "2bit"), "overlap and fp16": variant(True, "fp16")}
        figures = interleaved(variants, arguments.repeats, "ms")
    return table(figures, "none", "ms a step")


def channel(arguments):
    """Images a second of two workers on hosts of their own, through the secure channel and with --insecure-network."""
    arguments.link = arguments.link or "unlimited"
    with _jobs(arguments, 2) as job:
        def variant(*options):
            return lambda: run(job(arguments.num_servers, *options, *_training(arguments, kvstore="dist_sync")),
                               {"OMP_NUM_THREADS": "1"})

        figures = interleaved({"--insecure-network": variant("--insecure-network"), "secure channel": variant()},
                              arguments.repeats)
    return table(figures, "--insecure-network", "img/s")


def start(arguments):
    """A job of many workers on this machine: seconds to the first update and to the end, memory of the processes."""
    workers, servers = _numbers(arguments.workers)[-1], _numbers(arguments.servers)[-1]
    with tempfile.TemporaryDirectory() as folder:
        found = run(launcher(workers, servers, os.path.join(folder, "logs"), "--timeout", "600", *_measure(
            "start", steps=arguments.steps, model=arguments.model, size=arguments.size, batch=arguments.batch_size)))
    if isinstance(found, str):
        raise SystemExit(f"error: {found}")
    print("| | |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value} |")
    return [{"workers": workers, "servers": servers, **found}]
