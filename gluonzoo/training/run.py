"""From a configuration to a finished run: everything `tools/train.py` does, as one call."""
import dataclasses
import os
import random

import mxnet as mx
import numpy as np

from .. import data, registry, runtime
from ..distributed import cluster
from ..distributed import kvstore as kvstores
from ..errors import UserError
from . import checkpoint
from . import config as configs
from .finetune import freeze, load_all_but_output
from .loop import fit
from .session import Run, parts_of_a_batch
from .tasks import Classification
from .trainer import Trainer
from .weights import set_parameters

__all__ = ["prepare", "train", "find_checkpoint"]

#: In a run's folder: which job of the launcher's made it. A restarted job finds the folder by it.
_MARK = ".job"


def optimizer_arguments(config):
    """The optimizer's arguments that the configuration decides; momentum only where the optimizer has one."""
    arguments = {"learning_rate": config.lr, "wd": config.wd}
    if config.optimizer in ("sgd", "nag", "signum", "lars"):
        arguments["momentum"] = config.momentum
    return arguments


def numbered_outputs(output):
    """The folders a run without ``--output`` has used so far: output, output-2, output-3, ..."""
    found, number, path = [], 1, output
    while os.path.isdir(os.path.join(path, "checkpoints")):
        found.append(path)
        number += 1
        path = f"{output}-{number}"
    return found, path


def _job():
    """What is the same in every attempt and worker of a launcher's job, and in no other job; None where nothing is."""
    progress, environ = os.environ.get("GLUONZOO_PROGRESS_FILE"), os.environ
    if environ.get("GLUONZOO_JOB_ID") or not progress:
        return environ.get("GLUONZOO_JOB_ID") or None
    # The job's log folder; but on several hosts, workers of one job have different ones.
    alone = environ.get("GLUONZOO_LOCAL_WORKERS") == environ.get("DMLC_NUM_WORKER")
    return os.path.dirname(os.path.abspath(progress)) if alone else None


def _mark(output):
    """Leave word in a run's folder of the job it belongs to."""
    if _job() is not None:
        with open(os.path.join(output, _MARK), "w", encoding="utf-8") as file:
            file.write(_job())


def _own_output(base):
    """The folder that an earlier attempt of this job made, where none was named; None when it had not come so far."""
    number, path, found = 1, base, None
    while os.path.isdir(path):
        try:
            with open(os.path.join(path, _MARK), encoding="utf-8") as file:
                found = path if file.read() == _job() else found
        except OSError:
            pass  # Made without a launcher.
        number += 1
        path = f"{base}-{number}"
    return found


def _checkpoints(output):
    return checkpoint._names(os.path.join(output, "checkpoints"))


def _newest(output, tell):
    return checkpoint.newest(output, tell) if os.path.isdir(output) else None


def find_checkpoint(explicit, resume, restarted=False, tell=print):
    """The checkpoint that ``--resume [DIR|auto]`` means, or None when a run is to begin.

    Args: explicit: settings given by hand; output is set when it was not, and the run's folder is known; resume: False,
        True (the newest of the run's own output folder), "auto" (the same, or None when there is none), or a path;
        restarted: the launcher started this job again, so it continues where it got to, whatever resume says.
    Raises: CheckpointError when a checkpoint is asked for and there is none, or every one there is damaged.
    """
    default = configs.build({k: v for k, v in explicit.items() if k in ("model", "dataset")}).output
    if restarted and "output" not in explicit and resume is False:
        # Not simply the folder used last: this job may have ended before it made its own.
        own = _own_output(default) if _job() is not None else ([None] + numbered_outputs(default)[0])[-1]
        if own is None:
            return None
        explicit["output"] = own
    if resume == "auto":
        explicit.setdefault("output", default)
    found = _newest(explicit["output"], tell) if (restarted or resume == "auto") and "output" in explicit else None
    if found is not None or resume in (False, "auto"):
        return found
    if isinstance(resume, str):
        return checkpoint.load(resume, tell)
    if "output" not in explicit:
        used, _ = numbered_outputs(default)
        if not used:
            raise checkpoint.CheckpointError(f"nothing to resume: no checkpoint under {default}; expected one, or --resume DIR")
        explicit["output"] = used[-1]
    found = _newest(explicit["output"], tell)
    if found is None:
        raise checkpoint.CheckpointError(f"nothing to resume: no checkpoint under {explicit['output']}")
    return found


def _run_folder(path):
    """The run's folder of a checkpoint at RUN/checkpoints/step-N, else the checkpoint's parent."""
    parent = os.path.dirname(os.path.abspath(path))
    folder = os.path.dirname(parent) if os.path.basename(parent) == "checkpoints" else parent
    return os.path.relpath(folder) if folder.startswith(os.getcwd() + os.sep) else folder


def settings(explicit, resume=False, tell=print):
    """Layer the sources of a configuration: defaults, the resumed checkpoint's, the file's, the command line's.

    Args: explicit: {TrainConfig field: value} of what was given by hand; resume: see `find_checkpoint`.
    Returns: (TrainConfig, Checkpoint or None).
    """
    explicit = dict(explicit)
    restarted = cluster.restarts() > 0
    saved = find_checkpoint(explicit, resume, restarted, tell)
    if saved is None:
        rate = registry.model_spec(explicit.get("model", configs.TrainConfig.model)).learning_rate
        config = configs.build({} if rate is None else {"lr": rate}, explicit)
        if "output" not in explicit:
            config = dataclasses.replace(config, output=numbered_outputs(config.output)[1])
        elif not restarted and resume != "auto" and _checkpoints(config.output):
            raise UserError(f"--output {config.output} holds checkpoints of an earlier run; continue it with --resume, or "
                            "name another folder")
        return config, None
    folder, output = _run_folder(saved.path), explicit.get("output")
    if not restarted and output and os.path.abspath(output) != os.path.abspath(folder) and _checkpoints(output):
        raise UserError(f"--output {output} holds checkpoints already and --resume means {saved.path}; continue the one with "
                        f"--resume {output}, or the other in another folder")
    for name in ("model", "dataset"):
        if explicit.get(name, saved.config[name]) != saved.config[name]:
            raise checkpoint.CheckpointError(f"checkpoint {saved.path} is of {name} {saved.config[name]!r}; "
                                             f"--{name} asks for {explicit[name]!r}")
    for name in ("freeze", "reset_classes"):
        if str(explicit.get(name, saved.config.get(name))) != str(saved.config.get(name)):  # Text, from the command line.
            flag = "--" + name.replace("_", "-")
            raise checkpoint.CheckpointError(
                f"checkpoint {saved.path} was trained with {flag} {saved.config.get(name)}; a run cannot change it to "
                f"{explicit[name]}: start a new one with --weights {os.path.join(saved.path, 'parameters.params')}")
    known = {field.name for field in dataclasses.fields(configs.TrainConfig)}
    old = {name: value for name, value in saved.config.items() if name in known and name not in ("output", "data_dir")}
    if isinstance(resume, str) and resume != "auto":
        old["output"] = folder
    return configs.build(old, explicit), saved


def _seed(config, rank):
    random.seed(config.seed)
    np.random.seed(config.seed)
    mx.random.seed(config.seed + rank)


def _fitting_model(config, train_set):
    """Builder arguments so that the network fits the data: number of classes, channels of grey images."""
    spec = registry.model_spec(config.model)
    arguments = {}
    if len(train_set.classes) != spec.classes:
        arguments["classes"] = len(train_set.classes)
    channels = train_set.image_shape[0] if train_set.image_shape else spec.input_shape[0]
    if channels != spec.input_shape[0]:
        arguments["in_channels"] = channels
    return arguments


def _check_reset(config, train_set):
    """Raise UserError unless --reset-classes, where it is given, fits the data and there are weights to go with it."""
    if config.reset_classes is None:
        return
    if config.reset_classes != len(train_set.classes):
        raise UserError(f"--reset-classes is {config.reset_classes}; {config.dataset} has {len(train_set.classes)} classes")
    if config.weights is None:
        raise UserError(f"--reset-classes {config.reset_classes} makes a new last layer for loaded weights; name their file "
                        "with --weights")


def _load(net, config):
    """Load --weights, all of them or all but the last layer."""
    from ..interop import WeightsError, load_weights

    if config.reset_classes is not None:
        load_all_but_output(net, config.weights)
        return
    try:
        load_weights(net, config.weights)
    except WeightsError as error:
        try:
            load_all_but_output(net, config.weights)
        except UserError:
            raise error from None
        raise UserError(f"{config.weights}: its last layer is not for the {net.classes} classes of {config.dataset}; all else "
                        f"fits: with --reset-classes {net.classes} that layer is made anew") from None


def _share(net, names, store):
    """Give every worker rank 0's values of the named parameters; every worker must call it."""
    parameters = net._collect_params_with_prefix()
    shared = [parameters[name] for name in names if np.dtype(parameters[name].dtype) in (np.float32, np.float16)]
    first = store.allocate(len(shared))
    store.broadcast({first + index: parameter.list_data() for index, parameter in enumerate(shared)})


def prepare(config, saved=None):
    """Build the network, the data, the KVStore and the trainer of a run; continue from a checkpoint when there is one.

    Returns: a `Run`, ready for `fit`.
    Raises: UserError for anything the configuration asks that cannot be had; nothing has been written then.
    """
    spec = registry.model_spec(config.model)
    contexts = config.contexts()
    if len(contexts) > 1 and config.gpus is None and not os.environ.get("OMP_NUM_THREADS"):
        # Every CPU device runs its operators in a thread of its own; together they share this process's processors.
        runtime.set_threads(max(1, runtime.default_threads() // len(contexts)), contexts)
    train_set = data.load(config.dataset, train=True, data_dir=config.data_dir)
    valid_set = data.load(config.dataset, train=False, data_dir=config.data_dir)
    if saved is None:
        _check_reset(config, train_set)
    arguments = saved.config.get("model_arguments", {}) if saved else _fitting_model(config, train_set)
    size = (config.input_size, config.input_size) if config.input_size else spec.input_shape[1:]
    shape = (arguments.get("in_channels", spec.input_shape[0]), *size)
    augment = train_set.default_augment if config.augment == "default" else config.augment
    transforms = [data.Transform(shape, train_set.mean, train_set.std, train=train, augment=augment if train else "none",
                                 seed=config.seed) for train in (True, False)]
    store = kvstores.create(config.kvstore)
    _seed(config, store.rank)
    net = registry.get_model(config.model, **arguments)
    net.initialize(ctx=contexts)
    if saved is not None:
        set_parameters(net, saved.arrays("parameters.params"), saved.path)
    elif config.weights is not None:
        _load(net, config)
    frozen = freeze(net, config.freeze) if config.freeze else ()
    trainer = Trainer(net, config.optimizer, optimizer_arguments(config), store, clip_value=config.clip_value,
                      clip_norm=config.clip_norm, accumulate=parts_of_a_batch(config, store),
                      decay_bias_and_norm=config.decay_bias_and_norm, on_nan=config.on_nan,
                      compression=config.compression, compression_threshold=config.compression_threshold,
                      local_steps=config.local_steps)
    if frozen and saved is None and store.is_distributed:
        # The trainer brings the trained ones to rank 0's values; fresh random ones differ between workers too.
        _share(net, frozen, store)
    run = Run(net, trainer, Classification(), (train_set, transforms[0]), (valid_set, transforms[1]), config,
              output=config.output, model_arguments=arguments)
    if saved is not None:
        run.restore(saved)
    net.hybridize(static_alloc=True, static_shape=True)
    return run


def train(explicit, resume=False):
    """Train as the settings say, until done or until SIGUSR1 (outside a job SIGTERM too) asks for an orderly stop.

    Args: explicit: {TrainConfig field: value} of what differs from the defaults; resume: see `find_checkpoint`.
    Returns: (the `Run`, its history).
    """
    config, saved = settings(explicit, resume)
    run = prepare(config, saved)
    if run.store.rank == 0:
        run.log.say("configuration: " + "  ".join(f"{name}={value}" for name, value in config.as_dict().items()))
        run.log.say(f"data: {run.train_set[0]!r}")
        os.makedirs(config.output, exist_ok=True)
        _mark(config.output)
    with run.stop.on_signals():
        history = fit(run)
    if run.stopped:
        run.log.say(f"stopped at update {run.position.step} by {run.stop.reason}; continue with --resume --output "
                    f"{config.output}")
    elif run.store.rank == 0:
        finish(run, config)
    return run, history


def finish(run, config):
    """Write what a person looks at after a run: the training curve. Says what is where."""
    run.log.say(f"checkpoints and log: {config.output}")
    try:
        from ..visual.curves import training_curve
        curve = os.path.join(config.output, "curve.png")
        training_curve(os.path.join(config.output, "log.jsonl"), curve)
        run.log.say(f"training curve: {curve}")
    except (ImportError, UserError) as error:
        run.log.say(f"no training curve: {error}")
