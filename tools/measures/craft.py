"""The runs behind docs/results.md, and that file.

    python tools/measures/craft.py run FOLDER       one run after the other; what is done is skipped, what was torn is continued
    python tools/measures/craft.py write FOLDER docs/results.md

FOLDER gets ablation/ and table/ with a run in each folder. The data sets are found as by tools/train.py.
"""
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SEEDS = (0, 1, 2)

#: What every run of the ablation has but for one change.
BASE = {"model": "cifar_resnet20_v1_a", "dataset": "cifar10", "input-size": 12, "epochs": 3, "batch-size": 64, "lr": 0.1,
        "optimizer": "sgd", "momentum": 0.9, "wd": 5e-4, "schedule": "cosine", "augment": "none"}
CHANGES = {
    "base": {},
    "crop-flip": {"augment": "crop:2+flip"}, "nesterov": {"optimizer": "nag"}, "label-smoothing": {"label-smoothing": 0.1},
    "no-weight-decay": {"wd": 0}, "cutout": {"augment": "cutout:5"}, "mixup": {"augment": "mixup:0.2"},
    "cutmix": {"augment": "cutmix"}, "step": {"schedule": "step"}, "one-cycle": {"schedule": "one_cycle"},
    "poly": {"schedule": "poly"}, "warmup": {"warmup-epochs": 0.5}, "adam": {"optimizer": "adam", "lr": 0.002},
    "rmsprop": {"optimizer": "rmsprop", "lr": 0.001}, "lars": {"optimizer": "lars", "lr": 4.0},
    "adam-to-sgd": {"optimizer": "adam", "lr": 0.002, "switch-to": "sgd", "switch-lr": 0.05, "switch-at": 0.5},
    "ema": {"ema": 0.99}, "stochastic-depth": {"stochastic-depth": 0.3}, "clip-norm": {"clip-norm": 1.0},
    "clip-value": {"clip-value": 0.1}, "color-jitter": {"augment": "color_jitter:0.4"},
    "pca-lighting": {"augment": "pca_lighting"}, "randaugment": {"augment": "randaugment:2,9"},
    "trivialaugment": {"augment": "trivialaugment"}}
#: A CIFAR ResNet has no dropout; this small network has.
DROPOUT_BASE = {**BASE, "model": "stn_mnist", "input-size": 28, "lr": 0.03, "epochs": 6}
DROPOUT = {"stn-no-dropout": {"dropout": 0}, "stn-dropout": {"dropout": 0.5}}

TABLE_BASE = {"dataset": "cifar10", "batch-size": 32, "optimizer": "nag", "momentum": 0.9, "wd": 5e-4, "schedule": "one_cycle",
              "cycle-share": 0.4}
#: Network: input size, epochs, peak rate.
TABLE = {
    "lenet5": (32, 8, 0.02), "nin_cifar10": (16, 2, 0.05), "googlenet_bn": (32, 3, 0.05), "squeezenet1_1": (64, 4, 0.01),
    "cifar_resnet20_v1_a": (32, 3, 0.1), "resnet18_v1": (32, 2, 0.05), "cifar_resnet20_v2": (32, 3, 0.1),
    "cifar_densenet_l40_k12": (16, 2, 0.1), "cifar_resnext29_32x4d": (16, 1, 0.05), "mobilenet_v1_0_5": (64, 3, 0.05),
    "se_resnet18": (32, 2, 0.05), "shufflenet_v1_g3_0_5": (64, 3, 0.05), "mobilenet_v2_0_5": (64, 3, 0.05),
    "shufflenet_v2_0_5": (64, 3, 0.05)}
#: Deep and without BatchNorm: with momentum they stayed at chance for so few updates.
ADAM = {"nin_cifar10": 0.001, "squeezenet1_1": 0.0005}


def ablation(seeds=SEEDS):
    """{path below the folder: flags} of the ablation's runs."""
    return {f"ablation/{name}-s{seed}": {**base, **change, "seed": seed} for seed in seeds
            for base, changes in ((BASE, CHANGES), (DROPOUT_BASE, DROPOUT)) for name, change in changes.items()}


def table():
    """{path below the folder: flags} of the networks' runs. Images are padded by an eighth of the input before the crop."""
    return {f"table/{name}": {**TABLE_BASE, "augment": f"crop:{size // 8}+flip", "model": name, "input-size": size,
                              "epochs": epochs, "lr": rate, **({"optimizer": "adam", "lr": ADAM[name]} if name in ADAM else {})}
            for name, (size, epochs, rate) in TABLE.items()}


def records(path):
    """The log's records of a run, [] where there is none."""
    try:
        with open(os.path.join(path, "log.jsonl"), encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except FileNotFoundError:
        return []


def done(path, flags):
    """Whether a run has come to its end."""
    return any(record.get("event") == "epoch" and record["epoch"] + 1 == flags["epochs"] for record in records(path))


def run(folder):
    """Make what is missing, on one thread each: these networks are too small for two."""
    env = {**os.environ, "PYTHONPATH": ROOT + os.pathsep + os.environ.get("PYTHONPATH", ""), "OMP_NUM_THREADS": "1"}
    for name, flags in {**table(), **ablation()}.items():
        path = os.path.join(folder, name)
        if done(path, flags):
            continue
        print(name, flush=True)
        words = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
        subprocess.run([sys.executable, os.path.join(ROOT, "tools", "train.py"), *words, "--output", path, "--quiet", "--keep",
                        "1", "--board-images", "0", "--validate-every", str(flags["epochs"]), "--resume", "auto"],
                       env=env, check=True)


def _tables(groups):
    """The Markdown that tools/report.py makes of runs: [(paths, run to compare with or None)] -> [text].

    Where there are no runs, or not the one to compare with, a line says so.
    """
    sys.path.insert(0, ROOT)
    from gluonzoo.visual import write_comparison, write_table

    texts = []
    with tempfile.TemporaryDirectory() as made:
        output = os.path.join(made, "table.md")
        for paths, against in groups:
            if not paths or against is not None and against not in paths:
                texts.append("These runs are not made yet.\n")
                continue
            if against:
                write_comparison(paths, output, against, tell=print)
            else:
                write_table(paths, output, tell=print)
            with open(output, encoding="utf-8") as file:
                texts.append(file.read())
    return texts


def write(folder, output):
    """Write the file from the runs' logs; what is not there yet is told in it."""
    wanted = {**ablation(), **table()}
    there = {name: os.path.join(folder, name) for name, flags in wanted.items() if done(os.path.join(folder, name), flags)}
    residual = [path for name, path in there.items() if name.startswith("ablation/") and "/stn-" not in name]
    dropout = [path for name, path in there.items() if "/stn-" in name]
    networks = [path for name, path in there.items() if name.startswith("table/")]
    if not there:
        raise SystemExit(f"{folder}: none of the runs is there; expected those that `run` makes")
    against = [os.path.join(folder, "ablation", name) for name in ("base-s0", "stn-no-dropout-s0")]
    seeds, small, other = _tables([(residual, against[0]), (dropout, against[1]), (networks, None)])
    start = next(record for record in records(next(iter(there.values()))) if record["event"] == "start")
    missing = len(wanted) - len(there)
    with open(output, "w", encoding="utf-8") as file:
        file.write(PAGE.format(data=start["data"].split(", from")[0], machine=_machine(start["machine"]), table=other,
                               seeds=seeds, dropout=small, base=_words(BASE), dropout_base=_words(DROPOUT_BASE),
                               count=len(SEEDS), epochs=BASE["epochs"],
                               recipe=_words(TABLE_BASE), adam=" and ".join(ADAM),
                               missing=f"\n{missing} of the {len(wanted)} runs are not made yet.\n"
                               if missing else ""))
    print(f"wrote {output}: {len(there)} of {len(wanted)} runs")


def _machine(facts):
    return f"{facts['cpu']}, {facts['cores']} cores, MXNet {facts['mxnet']}, Python {facts['python']}, one thread"


def _words(flags):
    return " ".join(f"--{name} {value}" for name, value in flags.items())


PAGE = """# Results of short runs

All figures are of the logs of runs that `python tools/measures/craft.py run FOLDER` makes and `... write FOLDER docs/results.md`
puts together; the tables are those of `tools/report.py`. They show that the parts work together and what a few epochs give,
not what the networks can reach: their papers train 100 times as long.

**Data:** CIFAR-10 as a subset of lossy JPEGs: {data}; 1,500 test images (150 a class).
A test accuracy of 1,500 images has a standard error of 1.3 points at 50 %. Not comparable with figures on the full set.

**Machine:** {machine}. Other programs had most of it meanwhile, so that "training time" and
images/s, by the clock, say little; processor time says more.
{missing}
## Networks of 1998 to 2018, the best accuracy first

Each with `{recipe}`, crop and flip; input size,
epochs and peak rate by network (`tools/measures/craft.py`), for one to two minutes of one processor; {adam} by Adam.
Accuracy is that of the last epoch, the only one that is validated; 10 % is chance.
AlexNet, ZFNet and VGG are absent: their dense layers fix the input at 224 and more, which is hours of this machine.

{table}
The accuracies rank the recipes and the number of epochs as much as the networks.

## What each technique does in a short run

A ResNet of 20 layers on images of 12x12: `{base}`.
Each line changes what it names; up to {count} seeds each.
"Within the spread": the ranges mean - deviation to mean + deviation of both overlap. With {count} seeds, and with 24 lines read
at once, even "better" and "worse" are hints. {epochs} epochs are few: what guards against fitting the training images too closely
(augmentation, weight decay, smoothing, dropout, stochastic depth) is meant for long runs, and a loss here says nothing of those.

{seeds}
Dropout, in a network that has it (`{dropout_base}`):

{dropout}"""

if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "run":
        run(sys.argv[2])
    elif len(sys.argv) == 4 and sys.argv[1] == "write":
        write(*sys.argv[2:])
    else:
        raise SystemExit(__doc__)
