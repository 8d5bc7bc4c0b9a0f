"""`benchmark.py infer` and `train`: networks x batch sizes x engines, and how cost grows with batch and image size."""
import json
import os
import statistics
import sys
import tempfile

from .common import MEASURES, cores, run, write

__all__ = ["infer", "train", "growth", "NETWORKS", "DEFAULTS"]

NETWORKS = ("alexnet,vgg16,googlenet,inception_v3,resnet18_v1b,resnet50_v1b,resnext50_32x4d,densenet121,squeezenet1_1,"
            "mobilenet_v1_1_0,mobilenet_v2_1_0,shufflenet_v2_1_0,xception")
#: What each engine is; those of torch run in the Python of --torch-python.
ENGINES = {"stock": "MXNet as it comes", "stock-omp": "MXNet told to use all processors",
           "mxnet": "MXNet with gluonzoo's threads", "gluonzoo": "gluonzoo.export.fuse",
           "int8": "gluonzoo.export.quantize", "bf16": "gluonzoo.export.to_bf16",
           "recompute": "gluonzoo.training.Recomputed: training in less memory", "torch": "torch eager, channels_last",
           "torch-compile": "torch.compile, channels_last", "torch-bf16": "torch in bfloat16, channels_last",
           "onnxruntime": "onnxruntime on gluonzoo's export", "onnxruntime-int8": "onnxruntime on gluonzoo's 8-bit export"}
OURS = ("gluonzoo", "int8", "bf16", "recompute")
#: Whom ours are measured against, all in float32.
PEERS = ("stock", "stock-omp", "torch", "torch-compile", "onnxruntime")
DEFAULTS = {
    "infer": {"models": NETWORKS, "batches": "1,16", "seconds": 2.0,
              "engines": "stock,stock-omp,gluonzoo,torch,torch-compile,onnxruntime"},
    "train": {"models": NETWORKS, "batches": "16", "engines": "stock,stock-omp,gluonzoo,torch,torch-compile", "seconds": 5.0},
    "growth": {"models": "resnet50_v1b,mobilenet_v2_1_0", "batches": "1,2,4,8,16,32,64", "image_sizes": "128,224,320,448",
               "engines": "gluonzoo", "seconds": 1.0}}


def words(text):
    return [word for word in text.split(",") if word]


def measure(script, engine, model, arguments, folder, size=None):
    """The rows of one process, a batch each; a text where it failed."""
    wishes = {"engine": engine, "model": model, "batches": [int(batch) for batch in words(arguments.batches)], "size": size,
              "seconds": arguments.seconds, "threads": len(cores()), "folder": folder, "segments": arguments.segments}
    python = sys.executable
    if engine.startswith("torch"):
        if not arguments.torch_python:
            return "torch is left out: give --torch-python /path/to/python with torch, torchvision and timm"
        python, script = arguments.torch_python, f"{script}_torch"
    return run([python, os.path.join(MEASURES, f"{script}.py"), json.dumps(wishes)], every=True)


def collect(script, arguments, sizes=(None,)):
    """[{model, engine, batch, size, value, ...}], medians over the repeats; networks in turn, engines interleaved.

    Rows are written to --json after every network, so that a long run that is ended loses nothing.
    """
    rows, told = [], set()
    with tempfile.TemporaryDirectory() as folder:
        for model in words(arguments.models):
            for size in sizes:
                found = {}
                for _ in range(arguments.repeats):
                    for engine in words(arguments.engines):
                        outcome = measure(script, engine, model, arguments, folder, size)
                        if isinstance(outcome, str):
                            if outcome not in told:
                                print(f"  {model} {engine}: {outcome}", file=sys.stderr, flush=True)
                            told.add(outcome)
                            continue
                        for row in outcome:
                            found.setdefault((engine, row["batch"]), []).append(row)
                rows += [summary(model, engine, batch, size, several) for (engine, batch), several in found.items()]
                show(rows, model, size)
                write(rows, arguments)
    return rows


def summary(model, engine, batch, size, several):
    """One row from the repeats of one engine: medians, and the lowest and highest speed."""
    values = [row["value"] for row in several]
    row = {"model": model, "engine": engine, "batch": batch, "size": size, "value": statistics.median(values),
           "low": min(values), "high": max(values), "values": values}
    row.update((name, statistics.median(one[name] for one in several)) for name in ("ms", "p95", "p99"))
    return {**row, "mb": statistics.median(one["mb"] for one in several), "mb_values": [one["mb"] for one in several]}


def show(rows, model, size):
    for row in rows:
        if row["model"] == model and row["size"] == size:
            name = model if size is None else f"{model} {size}"
            print(f"  {name} batch {row['batch']} {row['engine']}: {row['value']:,.1f} img/s "
                  f"({row['low']:,.1f} to {row['high']:,.1f}), {row['mb']:,.0f} MB", flush=True)


def ratios(rows):
    """[(model, batch, ours, {engine: row}, best peer's engine, ratio)] for each of our engines that was measured."""
    table = {}
    for row in rows:
        table.setdefault((row["model"], row["batch"]), {})[row["engine"]] = row
    for (model, batch), found in table.items():
        peers = {engine: row for engine, row in found.items() if engine in PEERS}
        best = max(peers, key=lambda engine: peers[engine]["value"], default=None)
        for ours in OURS:
            if ours in found:
                yield model, batch, ours, found, best, found[ours]["value"] / peers[best]["value"] if best else float("nan")


def memory_share(found, ours):
    """An engine's most memory over that of torch, or of torch.compile where there is no other; None without.

    Args: found: {engine: row} of one network and batch.
    """
    peer = found.get("torch") or found.get("torch-compile")
    return found[ours]["mb"] / peer["mb"] if peer else None


def report(rows, arguments):
    """Print the table: every engine's median, spread and most memory; each of ours against the best float32 peer of the same
    run, and its memory against torch's."""
    engines = words(arguments.engines)
    print("\nimages a second, median [lowest-highest], and the most memory in MB above what the process held before the network "
          "was made\n\n| network | batch | " + " | ".join(engines) + " | best peer | ratio | memory / torch's |\n"
          + "|---" * (len(engines) + 5) + "|")
    for model, batch, ours, found, best, ratio in ratios(rows):
        cells = [f"{found[e]['value']:,.1f} [{found[e]['low']:,.1f}-{found[e]['high']:,.1f}] {found[e]['mb']:,.0f} MB"
                 if e in found else "-" for e in engines]
        share = memory_share(found, ours)
        print(f"| {model} | {batch} | " + " | ".join(cells) + f" | {best or '-'} | {ours} {ratio:.2f} | "
              + (f"{share:.2f} |" if share is not None else "- |"))
    for ours in OURS:
        for batch in sorted({row["batch"] for row in rows}):
            found = [ratio for _, b, o, _, best, ratio in ratios(rows) if o == ours and b == batch and best]
            if found:
                print(f"{ours}, batch {batch}: median ratio {statistics.median(found):.2f}, lowest {min(found):.2f}, "
                      f"{sum(ratio >= 1 for ratio in found)} of {len(found)} at least 1")
            shares = [share for share in (memory_share(found, o) for _, b, o, found, _, _ in ratios(rows)
                                          if o == ours and b == batch) if share is not None]
            if shares:
                print(f"{ours}, batch {batch}: memory over torch's: median {statistics.median(shares):.2f}, lowest "
                      f"{min(shares):.2f}, highest {max(shares):.2f}")


def infer(arguments):
    """Images a second of inference."""
    rows = collect("infer", arguments)
    report(rows, arguments)
    if arguments.picture:
        bars(rows, arguments, "inference")
    return rows


def train(arguments):
    """Images a second of training: forward, backward, update."""
    rows = collect("train", arguments)
    report(rows, arguments)
    if arguments.picture:
        bars(rows, arguments, "training")
    return rows


def bars(rows, arguments, what):
    """Draw each of our engines relative to the best peer."""
    from gluonzoo.visual.picture import new_figure, save_figure

    batches = sorted({row["batch"] for row in rows})
    figure = new_figure((1 + 5 * len(batches), 5.5), "speeds", layout="constrained")
    axes = figure.subplots(1, len(batches), sharey=True, squeeze=False)
    for axis, batch in zip(axes[0], batches):
        here = [(f"{model} {'' if ours == 'gluonzoo' else ours}", ratio, best) for model, b, ours, _, best, ratio in ratios(rows)
                if b == batch and best]
        axis.barh([name for name, _, _ in here], [ratio for _, ratio, _ in here],
                  color=["#2a7f62" if ratio >= 1 else "#b5651d" for _, ratio, _ in here])
        for place, (_, ratio, best) in enumerate(here):
            axis.text(ratio, place, f" {ratio:.2f} ({best})", va="center", fontsize=8)
        axis.axvline(1, color="black", linewidth=1)
        axis.set(title=f"{what}, batch {batch}", xlabel="speed / best peer's speed", xlim=(0, 1.4 * max(r for _, r, _ in here)))
        axis.invert_yaxis()
    save_figure(figure, arguments.picture)


def growth(arguments):
    """Images a second over batch and image size, beside the most that this machine's arithmetic allows."""
    peak = run([sys.executable, os.path.join(MEASURES, "peak.py"), str(len(cores()))])
    if isinstance(peak, str):
        raise SystemExit(f"error: the machine's peak was not measured: {peak}")
    print(f"a large matrix product: {peak['value']:,.0f} GFLOP/s")
    rows = collect("infer", arguments, [int(size) for size in words(arguments.image_sizes)])
    macs = {(model, size): run([sys.executable, os.path.join(MEASURES, "macs.py"), json.dumps([model, size])])["value"]
            for model, size in {(row["model"], row["size"]) for row in rows}}
    for row in rows:
        row["share"] = 2e-9 * macs[row["model"], row["size"]] * row["value"] / peak["value"]
    print("\n| network | image | " + " | ".join(f"batch {batch}" for batch in words(arguments.batches)) + " |")
    print("|---" * (2 + len(words(arguments.batches))) + "|")
    for model in words(arguments.models):
        for size in map(int, words(arguments.image_sizes)):
            here = sorted((row["batch"], row) for row in rows if (row["model"], row["size"]) == (model, size))
            print(f"| {model} | {size} | " + " | ".join(
                f"{row['value']:,.1f} ({100 * row['share']:.0f} % of peak)" for _, row in here) + " |")
    if arguments.picture:
        curves(rows, peak["value"], arguments)
    return [{"model": "large matrix product", "engine": "mxnet", "value": peak["value"]}, *rows]


def curves(rows, peak, arguments):
    """Draw speed and share of the peak over the batch, a line for each image size."""
    from gluonzoo.visual.picture import new_figure, save_figure

    models = words(arguments.models)
    figure = new_figure((5.5 * len(models), 7.5), "how cost grows", layout="constrained")
    axes = figure.subplots(2, len(models), sharex=True, squeeze=False)
    for column, model in enumerate(models):
        for size in sorted({row["size"] for row in rows}):
            here = sorted((row["batch"], row["value"], row["share"]) for row in rows
                          if (row["model"], row["size"]) == (model, size))
            batches = [batch for batch, _, _ in here]
            axes[0][column].plot(batches, [value for _, value, _ in here], marker="o", label=f"{size}x{size}")
            axes[1][column].plot(batches, [100 * share for _, _, share in here], marker="o", label=f"{size}x{size}")
        axes[0][column].set(title=model, xscale="log", yscale="log", ylabel="images a second")
        axes[1][column].set(xlabel="batch", ylabel=f"% of {peak:,.0f} GFLOP/s (a large matrix product)", ylim=(0, 105))
        axes[1][column].set_xticks(batches, [str(batch) for batch in batches], minor=False)
        axes[0][column].legend()
    save_figure(figure, arguments.picture)
