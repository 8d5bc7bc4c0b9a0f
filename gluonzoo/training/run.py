"""From a configuration to a finished run: everything `tools/train.py` does, as one call."""
import dataclasses
import glob
import json
import os
import random

import mxnet as mx
import numpy as np

from .. import data, registry, runtime
from ..data.augment import resolve
from ..data.augment_color import lighting_for
from ..distributed import cluster
from ..distributed import kvstore as kvstores
from ..errors import UserError
from ..layers import weight_names
from . import checkpoint, optimizers, precision, recipes
from . import config as configs
from .building import build_network, check_reset, load_start, model_arguments
from .distillation import Distillation, open_teacher
from .finetune import freeze
from .loop import fit
from .machine import machine_facts
from .session import Run, parts_of_a_batch
from .tasks import Classification
from .trainer import Trainer
from .weights import set_parameters

__all__ = ["prepare", "train", "find_checkpoint"]

#: In a run's folder: which job of the launcher's made it. A restarted job finds the folder by it.
_MARK = ".job"


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
    named = {**recipes.settings_of(explicit.get("recipe")), **explicit}
    default = configs.build({k: v for k, v in named.items() if k in ("model", "dataset")}).output
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


def _is_here(data_dir):
    """Whether there is something under a run's data_dir: a folder, a file, or files of that prefix (packed images)."""
    path = os.path.expanduser(data_dir)
    return os.path.exists(path) or bool(glob.glob(glob.escape(path) + "*"))


def settings(explicit, resume=False, tell=print):
    """Layer the sources of a configuration: defaults, the resumed checkpoint's, the file's, the command line's.

    Args: explicit: {TrainConfig field: value} of what was given by hand; resume: see `find_checkpoint`.
    Returns: (TrainConfig, Checkpoint or None).
    """
    explicit = dict(explicit)
    restarted = cluster.restarts() > 0
    saved = find_checkpoint(explicit, resume, restarted, tell)
    if saved is None:
        recipe = recipes.settings_of(explicit.get("recipe"))
        rate = registry.model_spec({**recipe, **explicit}.get("model", configs.TrainConfig.model)).learning_rate
        config = configs.build({} if rate is None else {"lr": rate}, recipe, explicit)
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
    if explicit.get("recipe", saved.config.get("recipe")) != saved.config.get("recipe"):
        raise checkpoint.CheckpointError(f"checkpoint {saved.path} was trained by recipe {saved.config.get('recipe')}; "
                                         f"--recipe asks for {explicit['recipe']}")
    for name in ("freeze", "reset_classes", "prune_skip", "keep_zeros", "share_bits", "share_skip", "binary", "binary_skip"):
        before = saved.config.get(name, getattr(configs.TrainConfig, name))
        if str(explicit.get(name, before)) != str(before):  # Text, from the command line.
            flag = "--" + name.replace("_", "-")
            raise checkpoint.CheckpointError(
                f"checkpoint {saved.path} was trained with {flag} {before}; a run cannot change it to "
                f"{explicit[name]}: start a new one with --weights {os.path.join(saved.path, 'parameters.params')}")
    known = {field.name for field in dataclasses.fields(configs.TrainConfig)}
    old = {name: value for name, value in saved.config.items() if name in known and name != "output"}
    if old.get("data_dir") and "data_dir" not in explicit and not _is_here(old["data_dir"]):
        tell(f"{old.pop('data_dir')}, where checkpoint {saved.path} had its data from, is not here; looking in the default "
             "places; name another with --data-dir")
    if isinstance(resume, str) and resume != "auto":
        old["output"] = folder
    return configs.build(old, explicit), saved


def _seed(config, rank):
    random.seed(config.seed)
    np.random.seed(config.seed)
    mx.random.seed(config.seed + rank)


def _share(net, names, store):
    """Give every worker rank 0's values of the named parameters; every worker must call it."""
    parameters = net._collect_params_with_prefix()
    shared = [parameters[name] for name in names if np.dtype(parameters[name].dtype) in (np.float32, np.float16)]
    first = store.allocate(len(shared))
    store.broadcast({first + index: parameter.list_data() for index, parameter in enumerate(shared)})


def _task(config, train_set, transform, contexts, saved):
    """What is learnt: the labels, and with --teacher what that one says.

    Raises: UserError for a teacher that does not fit, or is not the one that the checkpoint was trained with.
    """
    options = {"label_smoothing": config.label_smoothing, "aux_weight": config.aux_weight, "half": config.precision == "fp16"}
    if config.teacher is None:
        return Classification(**options)
    teacher = open_teacher(config, train_set, transform, contexts)
    task = Distillation(teacher, config.temperature, config.distill_weight, **options)
    before = saved.config.get("teacher_digest") if saved else None
    if before is not None and before != task.teacher.digest():
        raise checkpoint.CheckpointError(f"checkpoint {saved.path} was trained with another teacher than {config.teacher} holds "
                                         f"now: its parameters' SHA-256 was {before[:12]}..., now "
                                         f"{task.teacher.digest()[:12]}...")
    return task


def prepare(config, saved=None):
    """Build the network, the data, the KVStore and the trainer of a run; continue from a checkpoint when there is one.

    Returns: a `Run`, ready for `fit`.
    Raises: UserError for anything the configuration asks that cannot be had; nothing has been written then.
    """
    spec = registry.model_spec(config.model)
    optimizers.check(config)
    precision.check(config.precision, config.model, config.gpus is not None)
    contexts = config.contexts()
    if config.sync_bn and config.gpus is None:
        # CPU devices share the process's processors, and on one of them BatchNorm sees the worker's whole part anyway.
        contexts = contexts[:1]
    if len(contexts) > 1 and config.gpus is None and not os.environ.get("OMP_NUM_THREADS"):
        # Every CPU device runs its operators in a thread of its own; together they share this process's processors.
        runtime.set_threads(max(1, runtime.default_threads() // len(contexts)), contexts)
    train_set = data.load(config.dataset, train=True, data_dir=config.data_dir)
    valid_set = data.load(config.dataset, train=False, data_dir=config.data_dir)
    if saved is None:
        check_reset(config, train_set)
    arguments = saved.config.get("model_arguments", {}) if saved else model_arguments(config, train_set)
    size = (config.input_size, config.input_size) if config.input_size else spec.input_shape[1:]
    shape = (arguments.get("in_channels", spec.input_shape[0]), *size)
    augment = resolve(config.augment, train_set.default_augment)
    lighting = lighting_for(augment, train_set, saved.config.get("lighting") if saved else None)
    transforms = [data.Transform(shape, train_set.mean, train_set.std, train=train, augment=augment if train else "none",
                                 seed=config.seed, lighting=lighting) for train in (True, False)]
    store = kvstores.create(config.kvstore)
    _seed(config, store.rank)
    precision.begin(config.precision)
    net = build_network(config, arguments)
    if config.precision == "fp16":
        net.cast("float16")
    net.initialize(ctx=contexts)
    if saved is not None:
        set_parameters(net, saved.arrays("parameters.params"), saved.path)
    elif config.weights is not None:
        load_start(net, config)
    frozen = freeze(net, config.freeze) if config.freeze else ()
    for skip, wanted in ((config.prune_skip, config.prune or config.keep_zeros), (config.share_skip, config.share_bits)):
        if wanted:
            weight_names(net, skip)  # Raises where it names what there is not.
    trainer = Trainer(net, config.optimizer, optimizers.arguments_of(config, config.optimizer, config.lr), store,
                      clip_value=config.clip_value, clip_norm=config.clip_norm, accumulate=parts_of_a_batch(config, store),
                      decay_bias_and_norm=config.decay_bias_and_norm, on_nan=config.on_nan,
                      compression=config.compression, compression_threshold=config.compression_threshold,
                      local_steps=config.local_steps,
                      loss_scaler=precision.LossScaler() if config.precision == "fp16" else None)
    if frozen and saved is None and store.is_distributed:
        # The trainer brings the trained ones to rank 0's values; fresh random ones differ between workers too.
        _share(net, frozen, store)
    task = _task(config, train_set, transforms[1], contexts, saved)
    run = Run(net, trainer, task, (train_set, transforms[0]), (valid_set, transforms[1]), config,
              output=config.output, model_arguments=arguments,
              recipe_values=saved.config.get("recipe_values") if saved else recipes.settings_of(config.recipe))
    if config.sync_bn and len(contexts) < config.devices:
        run.log.say(f"--sync-bn: the worker's part of the batch stays on one of {config.devices} CPU devices; they have the same "
                    "processors")
    if saved is not None:
        run.restore(saved)
    else:
        run.constrain()
    net.hybridize(static_alloc=True, static_shape=True)
    return run


def _tell(explicit):
    """What shows a line before there is a log: as JSON where that was asked for."""
    if explicit.get("log_format") == "json":
        return lambda text: print(json.dumps({"event": "message", "text": text}), flush=True)
    return print


def train(explicit, resume=False):
    """Train as the settings say, until done or until SIGUSR1 (outside a job SIGTERM too) asks for an orderly stop.

    Args: explicit: {TrainConfig field: value} of what differs from the defaults; resume: see `find_checkpoint`.
    Returns: (the `Run`, its history).
    """
    config, saved = settings(explicit, resume, _tell(explicit))
    run = prepare(config, saved)
    if run.store.rank == 0:
        if config.recipe:
            run.log.say(recipes.shown(config.recipe, run.recipe_values, config.as_dict()), detail=True)
        run.log.say(f"configuration: {configs.described(config)}", detail=True)
        run.log.say(f"data: {run.train_set[0]!r}", detail=True)
        run.log.start({"config": config.as_dict(), "data": repr(run.train_set[0]), "update": run.position.step,
                       "machine": machine_facts(run.contexts, run.store.num_workers)})
        os.makedirs(config.output, exist_ok=True)
        _mark(config.output)
    with run.stop.on_signals():
        history = fit(run)
    if run.stopped:
        run.log.say(f"stopped at update {run.position.step} by {run.stop.reason}; continue with --resume --output "
                    f"{config.output}")
    elif run.store.rank == 0:
        finish(run, config)
    run.log.finish({"output": config.output, "update": run.position.step, "stopped": run.stopped,
                    "reason": run.stop.reason if run.stopped else None})
    return run, history


def finish(run, config):
    """Write what a person looks at after a run: the training curve. Says what is where."""
    run.log.say(f"checkpoints and log: {config.output}", detail=True)
    try:
        from ..visual.curves import training_curve
        curve = os.path.join(config.output, "curve.png")
        training_curve(os.path.join(config.output, "log.jsonl"), curve)
        run.log.say(f"training curve: {curve}", detail=True)
    except (ImportError, UserError) as error:
        run.log.say(f"no training curve: {error}")
    run.log.say(f"a page of it: python tools/report.py {config.output} --evaluate -o report.html", detail=True)
