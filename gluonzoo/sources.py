"""Where a network comes from: a registered name with weights, a checkpoint, an export; and what is known of its images."""
import json
import os

from .errors import UserError
from .export.metadata import Metadata

__all__ = ["open_network", "open_predictor", "read_labels", "is_checkpoint", "is_compact", "is_export"]


def is_checkpoint(path):
    """Whether a path is a checkpoint or a run's folder (exports and everything else are not)."""
    return os.path.isdir(path) and (os.path.isdir(os.path.join(path, "checkpoints"))
                                    or os.path.isfile(os.path.join(path, "manifest.json")))


def is_compact(path):
    """Whether a path is a compact file (`gluonzoo.compact`)."""
    from .compact.files import recognise
    try:
        with open(path, "rb") as file:
            return recognise(file.read(8))
    except OSError:
        return False


def read_labels(path):
    """Names of classes from a file: a JSON list of texts, or one name a line (empty lines at the end are left out).

    Raises: UserError naming the file when it cannot be read, or is JSON of another kind.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--labels {path}: {getattr(error, 'strerror', None) or error}") from None
    if text.lstrip()[:1] in ("[", "{"):
        try:
            names = json.loads(text)
        except ValueError as error:
            raise UserError(f"--labels {path}: not JSON: {error}") from None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"--labels {path}: expected a JSON list of texts, or one name a line")
        return tuple(names)
    return tuple(line.strip() for line in text.rstrip().splitlines())


def open_network(model, weights=None, pretrained=False, classes=None, mean=None, std=None, labels=None, tell=print):
    """A network ready to run, and the Metadata of its images.

    Args:
        model: a registered network's name, a checkpoint, a run's folder (its newest sound checkpoint), or a compact file.
        weights: a file of parameters for a registered network; pretrained: load them by name instead.
        classes: number of classes of a registered network, if not its own.
        mean, std: of pixels in [0, 1]; by default the checkpoint's, or ImageNet's for a network with 3 channels and 1000
            classes.
        labels: a file with the names of the classes (`read_labels`), if not the checkpoint's.
        tell: called with a line about what was chosen where nothing was asked for.
    Returns: (network, Metadata).
    Raises: UserError when a bare network has no weights or no normalisation, names and classes differ in number, or
        something cannot be loaded.
    """
    names = read_labels(labels) if labels else None
    if (mean is None) != (std is None):
        raise UserError(f"--{'mean' if std is None else 'std'} was given alone; expected both --mean and --std, or neither")
    if is_checkpoint(model) or is_compact(model):
        given = [flag for flag, value in (("--weights", weights), ("--pretrained", pretrained), ("--classes", classes)) if value]
        if given:
            raise UserError(f"{given[0]} goes with a registered network's name; {model} is a checkpoint and has its own")
        net, known = _from_checkpoint(model, tell) if is_checkpoint(model) else _from_compact(model)
    else:
        net, known = _from_registry(model, weights, pretrained, classes)
        if mean is None:
            mean, std = _photographs(model, known, tell)
    if mean is not None:
        known.update(mean=mean, std=std)
    if names is not None:
        known["classes"] = names
    if known.get("classes") is not None and len(known["classes"]) != net.classes:
        raise UserError(f"--labels {labels}: {len(known['classes'])} names; {model} has {net.classes} classes")
    return net, Metadata(**known)


def open_predictor(model, weights=None, pretrained=False, classes=None, mean=None, std=None, labels=None, fuse=False, tell=print):
    """The Predictor of an export, a checkpoint, a run's folder, or a registered network with its weights.

    Args: model: an export's prefix, one of its files or its folder, or as of `open_network`, like all others. fuse: of the faster
        copy that `gluonzoo.export.fuse` makes.
    Raises: UserError when there is no such model, or it cannot be had with the other arguments.
    """
    from .export.predictor import Predictor

    if fuse:
        from .export import fuse as fused
        plain = open_predictor(model, weights, pretrained, classes, mean, std, labels, tell=tell)
        return Predictor.of(fused(plain.block, input_shape=plain.metadata.input_shape), plain.metadata)

    bare = [name for name, value in (("weights", weights), ("pretrained", pretrained), ("classes", classes), ("labels", labels),
                                     ("mean", mean), ("std", std)) if value]
    if is_export(model) and not is_compact(model) and not set(bare) & {"weights", "pretrained"}:
        if bare:
            raise UserError(f"--{bare[0]} goes with a registered network's name; {model} is an export and has its own")
        return Predictor(model)
    if not is_checkpoint(model) and not is_compact(model) and model not in _registered():
        if os.sep in model or os.path.exists(model):
            return Predictor(model)  # Its error says what is expected of an export.
        raise _unknown(model)
    net, metadata = open_network(model, weights, pretrained, classes, mean, std, labels, tell)
    net.hybridize()
    return Predictor.of(net, metadata)


def is_export(model):
    """Whether a path is an export: its prefix, one of its files, or the folder that holds it."""
    return os.path.exists(model + ".json") or os.path.isfile(model) or os.path.isdir(model) and any(
        name.endswith("-symbol.json") for name in os.listdir(model))


def _registered():
    from .registry import list_models
    return list_models()


def _unknown(model):
    """The error for a model that is nothing known; it names the nearest networks."""
    from .registry import UnknownModelError, model_spec

    try:
        model_spec(model)
    except UnknownModelError as error:
        return UserError(f"{model}: no such export, checkpoint or folder, and {error}")


def _from_checkpoint(path, tell):
    from .training import checkpoint

    saved = checkpoint.load(path, tell=tell)
    known = {name: saved.config[name] for name in ("input_shape", "classes", "mean", "std", "dataset")
             if saved.config.get(name) is not None}
    return saved.net(), dict(known, model=saved.model)


def _from_compact(path):
    from .compact import open_compact

    net, facts = open_compact(path)
    known = {name: facts[name] for name in ("input_shape", "classes", "mean", "std", "dataset") if facts.get(name) is not None}
    return net, dict(known, model=facts["model"])


def _from_registry(name, weights, pretrained, classes):
    from .interop import load_pretrained, load_weights
    from .registry import get_model, model_spec

    spec = model_spec(name)
    if weights is not None and pretrained:
        raise UserError("--weights and --pretrained exclude each other")
    if weights is None and not pretrained:
        raise UserError(f"{name} is a network without weights: give --weights FILE or --pretrained, or name a checkpoint, a "
                        "run's folder or an export as --model")
    net = get_model(name, **({} if classes is None else {"classes": classes}))
    net.initialize()
    report = load_pretrained(net) if pretrained else load_weights(net, weights)
    if report.missing:
        raise UserError(f"{report.path}: is for another number of classes than {net.classes}; leave --classes out")
    return net, {"input_shape": spec.input_shape, "model": name}


def _photographs(name, known, tell):
    """ImageNet's mean and deviation for a network that was made for it."""
    from .data.datasets import PHOTO_MEAN, PHOTO_STD
    from .registry import model_spec

    spec = model_spec(name)
    if known["input_shape"][0] != 3 or spec.classes != 1000:
        raise UserError(f"how pixels are normalised for {name} is not known; give --mean and --std of pixels in [0, 1], as in "
                        "its training")
    tell(f"normalisation: ImageNet's, mean {','.join(map(str, PHOTO_MEAN))}, std {','.join(map(str, PHOTO_STD))} "
         "(--mean and --std for another)")
    return PHOTO_MEAN, PHOTO_STD
