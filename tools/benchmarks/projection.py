"""project: what a cluster would do, by a model of cost with few constants, all measured; and how far the model is off.

One update of W workers, two or more, and S servers, each on a host of its own, moves B bytes of gradients from every worker and B
back:

    compute = step_ms + image_ms x batch                   one worker alone: forward, backward, update
    handling = worker_ns x B + codec_ns x (whole B)        the worker's processor: sending, receiving; packing for 2bit
    wire = B x max(1, W / S) / link                        the busier of a worker's and a server's link, each way
    adding = server_ns x B x W / S                         a server's processor: receiving, adding, sending
    lag = min(0.3, 0.1 x (W - 1)) x wire                   a sum waits for its slowest part
    sending = max(wire, adding) + lag + the largest key's way back + message_ms x keys / S
    step = compute + handling + max(0, sending - overlap x image_ms x batch)

The lag is the one constant that was fitted: TCP shares a server's link unevenly, so that sums are complete later than bytes
are there (100 Mbit/s, without compression: next to nothing with two workers in one run and a fifth in another, 0.3 with four).
Gradients are sent while the backward pass runs, two thirds of the work on an image. With ``processors`` P, all roles on one
machine with P processors, computing and handling take as many times as long as all roles' processor time, the secure channel's
among it, is more than P workers' own.
"""
import json
import math
import os
import re
import statistics
import sys
import tempfile

from benchmarks.common import MEASURES, Hosts, cores, launcher, run

__all__ = ["DEFAULTS", "add_options", "step_ms", "project"]

DEFAULTS = {"model": "resnet50_v1b", "size": 224, "batch_size": 32, "workers": "1024", "servers": "32", "link": "10Gbit",
            "steps": 6}

#: Share of a link that is left for the bytes of arrays: Ethernet, IP and TCP headers.
GOODPUT = 0.94

#: Share of the time on the wire for which sums are late: for each worker beside the first, and at most.
LAG, MOST_LAG = 0.1, 0.3

#: Processor nanoseconds a byte of both ends of the secure channel (`channel` measures it: 1.2 s a GB sending, as much receiving).
CHANNEL_NS = 2.4

#: Share of the work on an image that is left to do when the first gradients are there.
OVERLAP = 2 / 3

#: A single worker, and workers of one host, would do without the servers that the model is about.
_THROUGH_SERVERS = {"OMP_NUM_THREADS": "1", "GLUONZOO_SHARED_MEMORY": "0"}


def add_options(parser):
    """Options of project alone."""
    parser.add_argument("--calibration", metavar="FILE", help="project: JSON of the model's constants (default: measure them)")
    parser.add_argument("--save-calibration", metavar="FILE", help="project: write the measured constants there")
    parser.add_argument("--image-ms", type=float, metavar="MS", help="project: of an image on a worker, in place of the measured")
    parser.add_argument("--check", action="store_true", help="project: measure some workers behind limited links and compare")
    parser.add_argument("--check-links", metavar="LIST", default="100mbit,300mbit", help="project --check: links (default: "
                        "100mbit,300mbit)")
    parser.add_argument("--check-workers", metavar="LIST", default="1,2,4", help="project --check: workers (default: 1,2,4)")


def bits(text):
    """Bits a second of 10Gbit, 100mbit."""
    found = re.fullmatch(r"([\d.]+)([kmg])bit", text.strip().lower())
    if not found:
        raise SystemExit(f"error: {text!r} is no rate; expected for example 100mbit, 10Gbit")
    return float(found.group(1)) * {"k": 1e3, "m": 1e6, "g": 1e9}[found.group(2)]


def step_ms(constants, workers, servers, link, batch, compression="none", processors=None):
    """Milliseconds of one update by the model in this module's docstring.

    Args: constants: image_ms, step_ms, worker_ns, codec_ns, server_ns, message_ms, bytes, largest_bytes, keys; link: bits a
        second.
    """
    digits = int(math.log((1 << 23) - 0.5) / math.log(2 * workers + 1))
    squeeze = {"none": 1, "fp16": 2, "2bit": digits}[compression]
    moved, largest = constants["bytes"] / squeeze, constants["largest_bytes"] / squeeze
    compute = constants["step_ms"] + constants["image_ms"] * batch
    packing = constants["codec_ns"] * constants["bytes"] if compression == "2bit" else 0
    handling = (constants["worker_ns"] * moved + packing) / 1e6
    busier = max(1.0, workers / servers)
    per_byte = 8000 / (link * GOODPUT)
    adding = constants["server_ns"] * moved * workers / servers / 1e6
    messages = constants["message_ms"] * constants["keys"] / servers
    wire = moved * busier * per_byte
    sending = max(wire, adding) + min(MOST_LAG, LAG * (workers - 1)) * wire + largest * busier * per_byte + messages
    own, slower = compute + handling, 1.0
    if processors:
        everything = workers * own + servers * adding + 2 * workers * CHANNEL_NS * moved / 1e6
        slower = max(1.0, everything / processors / own)
    return slower * own + max(0.0, sending - slower * OVERLAP * constants["image_ms"] * batch)


def _training(arguments, batch, **more):
    return [sys.executable, os.path.join(MEASURES, "training.py"), json.dumps({
        "model": arguments.model, "size": arguments.size, "classes": arguments.classes, "batch": batch, "steps": arguments.steps,
        "warmup": 2, **more})]


def _must(outcome):
    if isinstance(outcome, str):
        raise SystemExit(f"error: a measurement failed: {outcome}")
    return outcome


def calibrate(arguments):
    """Measure the model's constants here: processor time, which other programs on the machine hardly change."""
    one, batch = _THROUGH_SERVERS, arguments.batch_size
    small = max(1, batch // 4)
    alone = [statistics.median(_must(run(_training(arguments, size), one))["cpu"] * size for _ in range(arguments.repeats))
             for size in (small, batch)]
    facts = _facts(arguments)
    with tempfile.TemporaryDirectory() as folder:
        logs = os.path.join(folder, "logs")
        job = _must(run(launcher(1, 1, logs, *_training(arguments, batch, kvstore="dist_sync")), one))["roles"]
        packed = _must(run(launcher(1, 1, logs, *_training(arguments, batch, kvstore="dist_sync", trainer={
            "compression": "2bit"})), one))["roles"]
        tiny = _must(run(launcher(1, 1, logs, sys.executable, os.path.join(MEASURES, "kvstore.py"),
                                  json.dumps({"sizes": [1024]})), one))
    image = (alone[1] - alone[0]) / (batch - small)
    return {"model": arguments.model, "size": arguments.size, "batch": batch,
            "image_ms": image, "step_ms": max(0.0, alone[1] - image * batch),
            "worker_ns": max(0.0, job["worker 0"] - alone[1]) * 1e6 / facts["bytes"],
            "codec_ns": max(0.0, packed["worker 0"] - alone[1]) * 1e6 / facts["bytes"],
            "server_ns": job["server 0"] * 1e6 / facts["bytes"], "message_ms": tiny["lowest_ms"] / 4, **facts}


def _facts(arguments):
    """Bytes and keys of the network's gradients, as the trainer sends them."""
    code = ("import json, sys, gluonzoo, numpy as np\n"
            "from gluonzoo.training import exchange\n"
            f"net = gluonzoo.get_model({arguments.model!r}, classes={arguments.classes}); net.initialize()\n"
            "import mxnet as mx\n"
            "sizes = [b.size * 4 for b in exchange.make_buckets([p for p in net._collect_params_with_prefix().values()\n"
            "         if p.grad_req != 'null'], [mx.cpu()])]\n"
            "print(json.dumps({'bytes': sum(sizes), 'largest_bytes': max(sizes), 'keys': len(sizes)}))\n")
    return _must(run([sys.executable, "-c", code]))


def check(arguments, constants):
    """Measure jobs behind limited links and compare. Returns rows."""
    rows, here = [], len(cores())
    print("\n| workers | link | compression | predicted ms | measured ms | off by |\n|---|---|---|---|---|---|")
    for workers in map(int, arguments.check_workers.split(",")):
        for rate in arguments.check_links.split(","):
            for compression in ("none", "2bit"):
                with Hosts(workers, rate) as hosts:
                    found = run(hosts.job(1, *_training(arguments, arguments.batch_size, steps=3, kvstore="dist_sync",
                                                        trainer={"compression": compression})), _THROUGH_SERVERS)
                if isinstance(found, str):
                    print(f"| {workers} | {rate} | {compression} | did not run: {found[-100:]} | | |")
                    continue
                guess = step_ms(constants, workers, 1, bits(rate), arguments.batch_size, compression, here)
                off = guess / found["ms"] - 1
                rows.append({"workers": workers, "link": rate, "compression": compression, "predicted_ms": guess,
                             "measured_ms": found["ms"], "off": off})
                print(f"| {workers} | {rate} | {compression} | {guess:,.0f} | {found['ms']:,.0f} | {off:+.0%} |", flush=True)
    if rows:
        print(f"\nwithin 20 %: {sum(abs(row['off']) <= 0.2 for row in rows)} of {len(rows)}")
    return rows


def project(arguments):
    """Efficiency over numbers of workers by the model, and where servers become the limit."""
    if arguments.calibration:
        with open(arguments.calibration, encoding="utf-8") as file:
            constants = json.load(file)
    else:
        constants = calibrate(arguments)
    if arguments.image_ms:
        constants["image_ms"] = arguments.image_ms
    print("constants: " + "  ".join(f"{name} {value:,.3g}" if isinstance(value, float) else f"{name} {value}"
                                     for name, value in constants.items()))
    if arguments.save_calibration:
        with open(arguments.save_calibration, "w", encoding="utf-8") as file:
            json.dump(constants, file, indent=1)
    if arguments.check:
        return check(arguments, constants)
    link, batch, rows = bits(arguments.link), arguments.batch_size, []
    alone = constants["step_ms"] + constants["image_ms"] * batch
    most, servers = max(map(int, arguments.workers.split(","))), max(map(int, arguments.servers.split(",")))
    print(f"\n| workers | servers | step, ms: {arguments.link} | efficiency | img/s | with 2bit | servers for 0.9 |\n"
          "|---|---|---|---|---|---|---|")
    workers = 1
    while True:
        step = step_ms(constants, workers, servers, link, batch) if workers > 1 else alone
        squeezed = step_ms(constants, workers, servers, link, batch, "2bit") if workers > 1 else alone
        enough = next((count for count in range(1, 4 * workers + 1)
                       if step_ms(constants, workers, count, link, batch) * 0.9 <= alone), None)
        speed = workers * batch / step * 1000
        rows.append({"workers": workers, "servers": servers, "ms": step, "efficiency": alone / step, "img_per_s": speed,
                     "efficiency_2bit": alone / squeezed, "servers_for_0.9": enough})
        print(f"| {workers} | {servers} | {step:,.1f} | {alone / step:.2f} | {speed:,.0f} | {alone / squeezed:.2f} | "
              f"{enough or 'none'} |")
        if workers >= most:
            break
        workers = min(workers * 2, most)
    last = max((row["workers"] for row in rows if row["efficiency"] >= 0.9), default=0)
    print(f"\nWith {servers} servers and {arguments.link} links the efficiency is 0.9 up to {last or 'no'} workers. A server's "
          "link and processor see W / S times a worker's bytes: from there on more workers need more servers in proportion, "
          "and with a server for every worker the limit is the worker's own link.")
    return rows
