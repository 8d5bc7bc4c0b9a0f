"""The configuration of a training run: one frozen dataclass that makes the command line, is printed and is saved."""
import argparse
import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Optional, Tuple

from ..compact.sharing import INITS
from ..data import augment
from ..distributed.kvstore import KINDS
from ..errors import UserError
from ..layers.binary_network import BINARY
from . import pruning
from .compression import COMPRESSIONS, DEFAULT_THRESHOLD
from .schedule import SCHEDULES

__all__ = ["TrainConfig", "add_arguments", "build"]


def _option(default, help, kind=None, choices=None, low=None, high=None, metavar=None, view=False):
    return dataclasses.field(default=default, metadata={
        "help": help, "kind": kind or (type(default) if default is not None else str), "choices": choices,
        "low": low, "high": high, "metavar": metavar, "view": view})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run's result, and last how it is shown. Field `x_y` is the flag ``--x-y``."""

    recipe: Optional[str] = _option(None, "begin with a paper's settings (--list-recipes); flags given here win over them",
                                    metavar="NAME")
    model: str = _option("lenet5", "network to train, a name of gluonzoo.list_models()")
    dataset: str = _option("mnist", "data set, a name of gluonzoo.data.names()")
    data_dir: Optional[str] = _option(None, "folder, zip, or prefix of .rec files that holds the data set; default: "
                                      "$GLUONZOO_DATA, then ~/.mxnet/datasets, then a download", metavar="DIR")
    epochs: int = _option(10, "passes over the training set", low=1)
    batch_size: int = _option(64, "samples of each worker in one update", low=1)
    lr: float = _option(0.05, "peak learning rate", low=0.0)
    kvstore: str = _option("device", "how gradients are summed", choices=KINDS)
    devices: int = _option(1, "number of CPU devices (mx.cpu(0), mx.cpu(1), ...) that share a worker's batch", low=1)
    gpus: Optional[str] = _option(None, "GPU numbers, for example 0,1; not set: CPU", metavar="LIST")
    output: str = _option("", "folder of the run: checkpoints, logs, curve (default: runs/MODEL-DATASET)", metavar="DIR")
    weights: Optional[str] = _option(None, "start from these parameters: a file, a checkpoint or a run's folder",
                                     metavar="PATH")
    reset_classes: Optional[int] = _option(None, "with --weights: load all but the last layer, which is made anew for this "
                                           "number of classes, the data set's", kind=int, low=1, metavar="N")
    freeze: Optional[str] = _option(None, "layers that stay as they are: beginnings of structural names, for example "
                                    "features or features.stem,features.stage1", metavar="LIST")
    seed: int = _option(0, "decides initial weights, sample order, augmentation and dropout", low=0, high=2**31 - 1)
    optimizer: str = _option("sgd", "sgd, nag (Nesterov), adam, rmsprop, lars, or another MXNet optimizer's name")
    momentum: float = _option(0.9, "momentum of sgd, nag, signum and lars", low=0.0, high=1.0)
    beta1: float = _option(0.9, "of adam: decay of the mean of gradients", low=0.0, high=1.0)
    beta2: float = _option(0.999, "of adam: decay of the mean of their squares", low=0.0, high=1.0)
    epsilon: Optional[float] = _option(None, "of adam and rmsprop: what keeps the divisor from zero, 1.0 in Inception-v3; "
                                       "default: the optimizer's own", kind=float, low=0.0, metavar="E")
    rms_decay: float = _option(0.9, "of rmsprop: decay of the mean of squared gradients", low=0.0, high=1.0)
    rms_momentum: float = _option(0.0, "of rmsprop: momentum of the divided gradients, 0.9 in MobileNetV2", low=0.0, high=1.0)
    wd: float = _option(1e-4, "weight decay", low=0.0)
    decay_bias_and_norm: bool = _option(True, "apply weight decay to biases and BatchNorm too")
    schedule: str = _option("cosine", "learning rate over the run; plateau: falls when validation stops improving; poly: "
                            "(1 - share of the run) to the --power; one_cycle: up and down once, momentum the other way round",
                            choices=SCHEDULES)
    milestones: Tuple[float, ...] = _option((0.5, 0.75), "with --schedule step: where the rate falls, as fractions of the run",
                                            kind="fractions", metavar="LIST")
    step_rates: Tuple[float, ...] = _option((), "with --schedule step: the rate from each milestone on as a share of --lr, where "
                                            "it is not --lr-decay times the one before", kind="numbers", metavar="LIST")
    lr_decay: float = _option(0.1, "with step, plateau, exponential: what the rate is multiplied by each time", low=0.0, high=1.0)
    decay_epochs: float = _option(2.0, "with --schedule exponential: epochs from one fall to the next", low=1e-6)
    patience: int = _option(5, "with --schedule plateau: validations without a better result before the rate falls", low=1)
    power: float = _option(1.0, "with --schedule poly", low=0.0)
    cycle_share: float = _option(0.45, "with --schedule one_cycle: share of the run in which the rate rises; as long it falls, "
                                 "the rest is the tail", low=0.01, high=0.5)
    cycle_divisor: float = _option(10.0, "with --schedule one_cycle: the cycle begins and ends at --lr over this", low=1.0)
    min_momentum: float = _option(0.85, "with --schedule one_cycle: momentum where the rate is at its peak; --momentum is that "
                                  "at its ends", low=0.0, high=1.0)
    schedule_per: str = _option("update", "how often the rate changes after warm-up", choices=("update", "epoch"))
    warmup_epochs: float = _option(0.0, "epochs over which the rate rises linearly from zero", low=0.0)
    switch_to: Optional[str] = _option(None, "optimizer that takes over in mid-training, sgd for example after adam",
                                       metavar="NAME")
    switch_at: float = _option(0.5, "with --switch-to: when, as a fraction of the run", low=0.0, high=1.0)
    switch_lr: Optional[float] = _option(None, "with --switch-to: its peak learning rate, in the place of --lr from then on",
                                         kind=float, low=0.0)
    clip_value: Optional[float] = _option(None, "cut every gradient element to [-V, V]", kind=float, low=0.0, metavar="V")
    clip_norm: Optional[float] = _option(None, "scale the whole gradient down to this norm", kind=float, low=0.0, metavar="V")
    accumulate: int = _option(1, "run a worker's batch in this many parts, one update for all", low=1)
    recompute: int = _option(0, "train in less memory: cut the network into at most this many segments and compute the maps "
                             "within them again in the backward pass; the same result to the bit, more time; 4 is good, 8 for "
                             "very deep networks; 0: keep all maps", low=0, metavar="SEGMENTS")
    label_smoothing: float = _option(0.0, "share of the labels' weight that is spread evenly over all classes, 0.1 in "
                                     "Inception-v3", low=0.0, high=1.0)
    aux: bool = _option(False, "train with the network's auxiliary heads, where it can have some; evaluation ignores them")
    aux_weight: float = _option(0.3, "with --aux: weight of every auxiliary head's loss", low=0.0)
    dropout: Optional[float] = _option(None, "rate of the network's dropout layers; default: their own", kind=float, low=0.0,
                                       high=0.99)
    stochastic_depth: float = _option(0.0, "chance that training leaves a residual network's last unit out; of the units before "
                                      "it in proportion to their depth (Huang et al., 2016: 0.5)", low=0.0, high=0.99)
    ema: float = _option(0.0, "decay of a moving average of the weights, 0.999 for example; it is validated and exported in "
                         "place of the weights; 0: none", low=0.0, high=0.999999)
    prune: float = _option(0.0, "share of the weights of convolutions and dense layers that are to be zero at the end, the "
                           "smallest ones; 0: none. With --weights of a trained network this is pruning with retraining", low=0.0,
                           high=0.9999)
    prune_schedule: str = _option("gradual", "gradual: more and more, quickly at first (Zhu and Gupta, 2017); iterative: in "
                                  "--prune-rounds with training between (Han et al., 2015); oneshot: all at --prune-begin",
                                  choices=pruning.SCHEDULES)
    prune_begin: float = _option(0.0, "with --prune: when it begins, as a fraction of the run", low=0.0, high=1.0)
    prune_end: float = _option(0.5, "with --prune: when all is pruned, as a fraction of the run; the rest is retraining", low=0.0,
                               high=1.0)
    prune_every: int = _option(100, "with --prune-schedule gradual: updates from pruning to pruning", low=1)
    prune_rounds: int = _option(5, "with --prune-schedule iterative", low=1)
    prune_scope: str = _option("layer", "layer: the same share of each layer; global: the smallest of all; std: the smallest of "
                               "all in units of their layer's standard deviation", choices=pruning.SCOPES)
    prune_skip: str = _option("", "layers that are not pruned: first, last, or beginnings of structural names, with commas",
                              metavar="LIST")
    keep_zeros: bool = _option(False, "weights that are zero at the beginning stay so: to train a pruned network on")
    share_bits: Optional[int] = _option(None, "share weights: each layer's take 2 to the power of this many values, found by "
                                        "k-means on --weights, and these are trained (Han et al., 2016)", kind=int, low=1, high=8,
                                        metavar="BITS")
    share_init: str = _option("linear", "with --share-bits: where k-means begins", choices=INITS)
    share_skip: str = _option("", "with --share-bits: layers whose weights are not shared, as in --prune-skip", metavar="LIST")
    binary: str = _option("none", "binary convolutions (Rastegari et al., 2016); weights: a Binary-Weight-Network; inputs: an "
                          "XNOR-Network, with a BatchNorm before each; inputs_scaled: with the inputs' scale K", choices=BINARY)
    binary_skip: str = _option("first,last", "with --binary: layers that stay real, as in --prune-skip", metavar="LIST")
    teacher: Optional[str] = _option(None, "learn from this network too (Hinton et al., 2015): a checkpoint, a run's folder, a "
                                     "compact file, or a registered name with --teacher-weights", metavar="PATH|NAME")
    teacher_weights: Optional[str] = _option(None, "with --teacher NAME: its parameters (a file)", metavar="FILE")
    temperature: float = _option(4.0, "with --teacher: by which both networks' logits are divided", low=1e-3)
    distill_weight: float = _option(0.9, "with --teacher: weight of agreeing with it; the labels have the rest", low=0.0,
                                    high=1.0)
    sync_bn: bool = _option(False, "BatchNorm over the whole global batch, not over each device's part")
    precision: str = _option("float32", "arithmetic of training; bf16: where it was measured to pay on a CPU; fp16: GPUs only, "
                             "with loss scaling", choices=("float32", "bf16", "fp16"))
    augment: str = _option("default", f"augmentation of training images, names joined by +, numbers after a colon, for example "
                           f"resized_crop+flip+color_jitter:0.4+mixup:0.2; default: the data set's own; of "
                           f"{', '.join(['none', *augment.AUGMENTATIONS])} (gluonzoo/data/augment.py says what they do)",
                           metavar="NAMES")
    input_size: Optional[int] = _option(None, "height and width fed to the network; default: its own", kind=int, low=1)
    on_nan: str = _option("stop", "when a gradient is not finite; stop: end with an error, the last checkpoint is from before "
                          "it; skip: leave that update out on all workers (costs waiting for every update's gradient)",
                          choices=("stop", "skip"))
    auto_scale_lr: bool = _option(False, "multiply --lr by the global batch (workers x --batch-size) over --base-batch; give "
                                  "--warmup-epochs too, 5 in the paper (Goyal et al., 2017)")
    base_batch: int = _option(256, "with --auto-scale-lr: the global batch that --lr is meant for", low=1)
    compression: str = _option("none", "of gradients between workers and servers; 2bit: -T, 0 or T, what is lost goes into the "
                               "next gradient; fp16: half precision", choices=COMPRESSIONS)
    compression_threshold: Optional[float] = _option(None, "T of --compression 2bit, in units of a worker's gradient summed over "
                                                     f"its samples; default: {DEFAULT_THRESHOLD}", kind=float, low=1e-12,
                                                     metavar="T")
    local_steps: int = _option(1, "updates that each worker makes by itself between averages of all workers' parameters; 1: "
                               "gradients are summed in every update", low=1)
    sample_log: Optional[str] = _option(None, "folder in which every worker logs its samples of every update", metavar="DIR")
    checkpoint_every: int = _option(0, "updates between checkpoints; 0: at each epoch's end only", low=0)
    keep: int = _option(3, "newest checkpoints kept, beside the best one", low=1)
    validate_every: int = _option(1, "epochs between validations", low=1)
    # How a run is shown: decides nothing, is in no checkpoint, and a resumed run begins with the defaults.
    quiet: bool = _option(False, "print only epochs' results and what needs attention", view=True)
    show_workers: bool = _option(False, "lines of progress from every worker, not from worker 0 alone", view=True)
    log_format: str = _option("text", "json: on standard output one JSON object a line and nothing else, for scripts; with "
                              "--quiet without those within epochs", choices=("text", "json"), view=True)
    board_images: int = _option(8, "training images, as augmented, with predictions in TensorBoard after every epoch; 0: none",
                                low=0, high=64, view=True)
    board_histograms: int = _option(0, "epochs between TensorBoard's histograms of weights and gradients, layer by layer; 0: "
                                    "none", low=0, metavar="EPOCHS", view=True)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        if not self.output:
            object.__setattr__(self, "output", os.path.join("runs", f"{self.model}-{self.dataset}"))
        augment.resolve(self.augment, "none")  # Raises where it says what there is not.
        if self.gpus is not None and self.devices > 1:
            raise UserError(f"--gpus {self.gpus} and --devices {self.devices} exclude each other; --devices counts CPU devices")
        for flag, given in (("--switch-to", self.switch_to is not None), ("--ema", self.ema > 0),
                            ("--precision fp16", self.precision == "fp16")):
            if given and (self.kvstore == "dist_async" or self.local_steps > 1):
                raise UserError(f"{flag} goes neither with --kvstore dist_async, whose servers make the updates, nor with "
                                "--local-steps, between which workers differ")
        self._check_small()
        if self.schedule == "one_cycle" and self.kvstore == "dist_async":
            raise UserError("--schedule one_cycle moves the momentum; --kvstore dist_async has it on the servers, out of reach")
        if self.switch_to is not None and self.switch_lr is None:
            raise UserError(f"--switch-to {self.switch_to} needs --switch-lr, its learning rate: rates of different optimizers "
                            "do not compare")
        if self.step_rates and len(self.step_rates) != len(self.milestones):
            raise UserError(f"--step-rates has {len(self.step_rates)} numbers and --milestones {len(self.milestones)}; expected "
                            "a rate for each milestone")
        if self.schedule == "one_cycle" and self.warmup_epochs:
            raise UserError(f"--warmup-epochs {self.warmup_epochs} with --schedule one_cycle, whose first part is a warm-up")
        if self.recompute and self.sync_bn:
            raise UserError(f"--recompute {self.recompute} and --sync-bn exclude each other: synchronised BatchNorms sum over "
                            "the workers whenever they run, and would run twice")
        if self.accumulate > self.batch_size:
            raise UserError(f"--accumulate {self.accumulate} is more than --batch-size {self.batch_size}")

    def _check_small(self):
        """Raise UserError where settings that make a network small do not go together."""
        if (self.prune or self.keep_zeros or self.share_bits) and self.kvstore == "dist_async":
            raise UserError("--prune, --keep-zeros and --share-bits do not go with --kvstore dist_async, whose servers make the "
                            "updates and know nothing of weights that stay zero or equal")
        if self.share_bits and (self.prune or self.keep_zeros):
            raise UserError("--share-bits with --prune or --keep-zeros: prune in a first run and share in a second, with "
                            "--weights of the first; zeros stay zeros there by themselves")
        if self.prune_end < self.prune_begin:
            raise UserError(f"--prune-end is {self.prune_end} and --prune-begin {self.prune_begin}; expected the end not to be "
                            "earlier")
        if self.teacher_weights is not None and self.teacher is None:
            raise UserError("--teacher-weights goes with --teacher, the network's name")

    def as_dict(self):
        """What decides the result as a dict that JSON can hold."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if not field.metadata["view"]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def contexts(self):
        """The devices of this worker as MXNet contexts."""
        import mxnet as mx

        if self.gpus is None:
            return [mx.cpu(i) for i in range(self.devices)]
        try:
            numbers = [int(part) for part in self.gpus.split(",")]
        except ValueError:
            raise UserError(f"--gpus is {self.gpus!r}; expected numbers with commas, for example 0,1") from None
        present = mx.context.num_gpus()
        if len(set(numbers)) != len(numbers) or not all(0 <= number < present for number in numbers):
            raise UserError(f"--gpus {self.gpus}: this MXNet sees {present} GPUs; expected different numbers below that")
        return [mx.gpu(number) for number in numbers]


def _checked(field, value):
    """The value in the field's own type, or a UserError that names the flag."""
    rules, flag = field.metadata, "--" + field.name.replace("_", "-")
    kind = rules["kind"]
    if value is None:
        if field.default is None:
            return None
        raise UserError(f"{flag} is null; expected {'a value' if isinstance(kind, str) else kind.__name__}")
    try:
        if kind in ("fractions", "numbers"):
            parts = value.split(",") if isinstance(value, str) and (value or kind == "fractions") else value
            value = tuple(float(part) for part in parts)
            fractions = all(0 < part < 1 for part in value) and list(value) == sorted(value)
            if not (fractions if kind == "fractions" else all(0 <= part < float("inf") for part in value)):
                raise ValueError
            return value
        if kind is bool:
            if not isinstance(value, bool):
                raise ValueError
        elif kind is float and (isinstance(value, bool) or float(value) != float(value)):
            raise ValueError
        elif kind is int and (isinstance(value, (bool, str)) and not str(value).lstrip("-").isdigit()
                              or int(value) != float(value)):
            raise ValueError
        elif kind is str and not isinstance(value, str):
            raise ValueError
        value = kind(value)
    except (TypeError, ValueError):
        expected = {"fractions": "rising fractions of the run between 0 and 1, with commas",
                    "numbers": "numbers of at least 0, with commas", bool: "true or false",
                    int: "a whole number", float: "a number", str: "a text"}[kind]
        raise UserError(f"{flag} is {value!r}; expected {expected}") from None
    if rules["choices"] and value not in rules["choices"]:
        raise UserError(f"{flag} is {value!r}; expected one of {', '.join(rules['choices'])}")
    if rules["low"] is not None and value < rules["low"] or rules["high"] is not None and value > rules["high"]:
        top = f" to {rules['high']}" if rules["high"] is not None else " or more"
        raise UserError(f"{flag} is {value}; expected {rules['low']}{top}")
    return value


#: Settings that are told whatever they are.
_TOLD = ("model", "dataset", "epochs", "batch_size", "lr", "optimizer", "schedule", "seed", "output")


def described(config):
    """One line for a person: the settings that matter most, and those that are not the defaults."""
    values, defaults = config.as_dict(), TrainConfig().as_dict()
    told = [f"{name}={value}" for name, value in values.items() if name in _TOLD or value != defaults[name]]
    return "  ".join(told) + "  (all others are the defaults)"


def add_arguments(parser):
    """Add a flag for every field of `TrainConfig`; one for true or false may stand alone for true.

    A flag not given leaves no trace, so that `build` can layer sources.
    """
    for field in dataclasses.fields(TrainConfig):
        rules, flag = field.metadata, "--" + field.name.replace("_", "-")
        default = field.default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        note = "" if default in (None, "", ()) else f" (default: {str(shown).lower() if rules['kind'] is bool else shown})"
        if rules["kind"] is bool:
            parser.add_argument(flag, dest=field.name, default=argparse.SUPPRESS, metavar="true|false",
                                type=_boolean, nargs="?", const=True, help=rules["help"] + note)
        else:
            # Text here, checked in `TrainConfig`: one place for the rules, whatever the source of a value.
            metavar = rules["metavar"] or (None if rules["choices"] else field.name.rpartition("_")[2].upper())
            parser.add_argument(flag, dest=field.name, default=argparse.SUPPRESS, choices=rules["choices"],
                                metavar=metavar, help=rules["help"] + note)


def _boolean(text):
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return text.lower() == "true"


def read_file(path):
    """A configuration file's values: JSON, an object of `TrainConfig`'s field names (dashes or underscores)."""
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"--config {path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"--config {path} holds a JSON {type(values).__name__}; expected an object of settings")
    return {name.replace("-", "_"): value for name, value in values.items()}


def build(*layers):
    """A `TrainConfig` from dicts of field values, later ones winning.

    Raises: UserError naming an unknown field and the nearest known ones, or a value out of range.
    """
    known = [field.name for field in dataclasses.fields(TrainConfig)]
    values = {}
    for layer in layers:
        for name, value in layer.items():
            if name not in known:
                import difflib
                near = difflib.get_close_matches(name, known, n=3)
                raise UserError(f"unknown setting {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
            values[name] = value
    return TrainConfig(**values)
