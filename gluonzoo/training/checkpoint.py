"""Checkpoints: a directory written beside its final name, verified and renamed; read only when every byte is right.

Layout of ``checkpoints/step-0000001234/``:

- parameters.params: the network by structural names, running statistics averaged over devices and workers,
- optimizer.params: `Trainer.state_dict`, or server-N.params written by the servers of a dist_async job,
- ema.params: the moving average of the parameters, by the same names, where the run keeps one,
- constraint.params: masks of pruned weights, or clusters of shared ones, where the run has them,
- workers.params: every worker's and device's own running statistics, when there is more than one,
- state.json: update, epoch, position in the epoch, numbers that the order of samples and the random state follow from,
- config.json: the run's configuration and how to build the network,
- manifest.json: format, model, size and SHA-256 of every file, and a digest of itself.

Arrays are in MXNet's own format, everything else is JSON; nothing is ever unpickled.
"""
import hashlib
import json
import os
import re
import shutil

from .. import arrays
from ..errors import UserError

__all__ = ["CheckpointError", "Checkpoint", "save", "load", "newest", "verify"]

FORMAT, VERSION = "gluonzoo-checkpoint", 1
_NAME = re.compile(r"step-(\d{10})$")
_WRITING, _REPLACED, _REMOVING = ".writing-", ".replaced-", ".removing-"


class CheckpointError(UserError):
    """A checkpoint that is damaged, incomplete, or of something else. The message names its path and what is wrong."""


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _digest(manifest):
    """SHA-256 of the manifest's canonical text without its own digest."""
    rest = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save(folder, *, parameters, optimizer, state, config, workers=None, write_more=None, keep=3, best=None, ema=None,
         constraint=None):
    """Write one checkpoint under folder (a run's ``checkpoints``) and remove those past keep.

    Args:
        parameters, optimizer, workers, ema, constraint: {name: NumPy array}; all but parameters may be None.
        state: dict with at least "step"; config: dict with "model".
        write_more: called with the unfinished directory, to let others (servers) write their files into it.
        keep: number of newest checkpoints kept. best: name of one that is kept too.
    Returns: the checkpoint's path.
    Raises: OSError (disk full, ...): the earlier checkpoints are intact and nothing half-written is left.
    """
    name = f"step-{state['step']:010d}"
    final, temporary = os.path.join(folder, name), os.path.join(folder, f"{_WRITING}{name}")
    os.makedirs(folder, exist_ok=True)
    for stale in os.listdir(folder):
        # Left by a killed run; there is one writer a run, so no other process is writing it now.
        if stale.startswith(_REPLACED) and not os.path.isdir(os.path.join(folder, stale[len(_REPLACED):])):
            os.rename(os.path.join(folder, stale), os.path.join(folder, stale[len(_REPLACED):]))
        elif stale.startswith((_WRITING, _REPLACED, _REMOVING)):
            shutil.rmtree(os.path.join(folder, stale))
    try:
        os.mkdir(temporary)
        arrays.save(os.path.join(temporary, "parameters.params"), parameters)
        for file, values in (("optimizer.params", optimizer), ("workers.params", workers), ("ema.params", ema),
                             ("constraint.params", constraint)):
            if values:
                arrays.save(os.path.join(temporary, file), values)
        if write_more is not None:
            write_more(temporary)
        _write_json(os.path.join(temporary, "state.json"), state)
        _write_json(os.path.join(temporary, "config.json"), config)
        files = {file: {"bytes": os.path.getsize(os.path.join(temporary, file)),
                        "sha256": _sha256(os.path.join(temporary, file))} for file in sorted(os.listdir(temporary))}
        manifest = {"format": FORMAT, "version": VERSION, "model": config["model"], "step": state["step"], "files": files}
        _write_json(os.path.join(temporary, "manifest.json"), {**manifest, "digest": _digest(manifest)})
        _sync_folder(temporary)
        verify(temporary)
        replaced = None
        if os.path.isdir(final):
            # The same update again, after a resume from an earlier checkpoint: the verified new one takes its place.
            replaced = os.path.join(folder, f"{_REPLACED}{name}")
            os.rename(final, replaced)
        os.rename(temporary, final)
        if replaced is not None:
            shutil.rmtree(replaced)
        _sync_folder(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in sorted(_names(folder))[:-keep]:
        if old not in (best, name):
            # Renamed first: half a checkpoint must not be found under a checkpoint's name.
            os.rename(os.path.join(folder, old), os.path.join(folder, _REMOVING + old))
            shutil.rmtree(os.path.join(folder, _REMOVING + old))
    return final


def _names(folder):
    try:
        return [name for name in os.listdir(folder) if _NAME.match(name)]
    except OSError:
        return []


def _candidates(folder):
    """Names under which checkpoints of a folder are to be found, newest first.

    A kill between the two renames that replace a checkpoint leaves the old one under another name.
    """
    names = set(_names(folder))
    try:
        replaced = {name for name in os.listdir(folder) if name.startswith(_REPLACED) and _NAME.match(name[len(_REPLACED):])}
    except OSError:
        replaced = set()
    names |= {name for name in replaced if name[len(_REPLACED):] not in names}
    return sorted(names, key=lambda name: _NAME.search(name).group(), reverse=True)


def _read_json(path, where):
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {where}: {os.path.basename(path)} is missing") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {where}: {os.path.basename(path)} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"checkpoint {where}: {os.path.basename(path)} holds no JSON object")
    return value


def verify(path):
    """Check every file of one checkpoint directory against its manifest.

    Returns: the manifest.
    Raises: CheckpointError naming the first file that is missing, foreign, truncated or changed.
    """
    manifest = _read_json(os.path.join(path, "manifest.json"), path)
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"checkpoint {path}: format is {manifest.get('format')!r}; expected {FORMAT!r}")
    if manifest.get("version") != VERSION:
        raise CheckpointError(f"checkpoint {path}: version is {manifest.get('version')!r}; this gluonzoo reads {VERSION}")
    if manifest.get("digest") != _digest(manifest):
        raise CheckpointError(f"checkpoint {path}: manifest.json was changed (its digest does not match)")
    for file in ("parameters.params", "state.json", "config.json"):
        if file not in manifest["files"]:
            raise CheckpointError(f"checkpoint {path}: the manifest names no {file}")
    for file, facts in manifest["files"].items():
        place = os.path.join(path, file)
        if os.path.basename(file) != file or not os.path.isfile(place):
            raise CheckpointError(f"checkpoint {path}: {file} is missing")
        size = os.path.getsize(place)
        if size != facts["bytes"]:
            raise CheckpointError(f"checkpoint {path}: {file} has {size} bytes; expected {facts['bytes']}")
        found = _sha256(place)
        if found != facts["sha256"]:
            raise CheckpointError(f"checkpoint {path}: {file} has SHA-256 {found[:16]}...; expected "
                                  f"{facts['sha256'][:16]}...")
    return manifest


class Checkpoint:
    """A verified checkpoint. Attributes: path, config (dict), state (dict)."""

    def __init__(self, path):
        self.path = path
        self.manifest = verify(path)
        self.state = _read_json(os.path.join(path, "state.json"), path)
        self.config = _read_json(os.path.join(path, "config.json"), path)
        if self.state.get("step") != self.manifest["step"] or self.config.get("model") != self.manifest["model"]:
            raise CheckpointError(f"checkpoint {path}: manifest, state and configuration disagree")

    @property
    def model(self):
        """The network's registered name."""
        return self.config["model"]

    def has(self, file):
        """Whether the checkpoint holds a file of this name."""
        return file in self.manifest["files"]

    def arrays(self, file):
        """The arrays of one of its files, {name: NumPy array}; {} when there is no such file."""
        return arrays.load(os.path.join(self.path, file)) if self.has(file) else {}

    def net(self, ctx=None, raw=False):
        """The network for inference, built from the registry and filled with the saved parameters.

        Auxiliary heads are left out, and what stochastic depth scales in inference is scaled.

        Args: raw: the weights as they were trained, also where the checkpoint holds their moving average (ema.params), which
            is taken by default.
        """
        from ..registry import get_model
        from .building import inference_network
        from .weights import set_parameters

        net = inference_network(self.config)
        net.initialize(ctx=ctx)
        file = "ema.params" if self.has("ema.params") and not raw else "parameters.params"
        values = self.arrays(file)
        if self.config.get("model_arguments", {}).get("aux"):
            with_heads = get_model(self.model, **self.config["model_arguments"])
            heads = tuple(f"{name}." for name in with_heads.auxiliary)
            values = {name: value for name, value in values.items() if not name.startswith(heads)}
        # float16 is for training on GPUs; the network that is built here also runs elsewhere.
        values = {name: value.astype("float32") if value.dtype == "float16" else value for name, value in values.items()}
        set_parameters(net, values, self.path)
        return net


def newest(folder, tell=None):
    """The newest valid checkpoint under a run's folder or its ``checkpoints``, or None when there is none at all.

    Args: tell: called with a line for every checkpoint that is refused on the way.
    Raises: CheckpointError when there are checkpoints but none is valid; it names the reason for each.
    """
    inner = os.path.join(folder, "checkpoints")
    folder = inner if os.path.isdir(inner) else folder
    reasons = []
    for name in _candidates(folder):
        try:
            return Checkpoint(os.path.join(folder, name))
        except CheckpointError as error:
            reasons.append(str(error))
            if tell is not None:
                tell(f"refused: {error}")
    if reasons:
        raise CheckpointError(f"no valid checkpoint under {folder}: " + "; ".join(reasons))
    return None


def load(path, tell=None):
    """Open a checkpoint directory, or the newest valid one under a run's folder.

    Raises: CheckpointError naming the path and what is wrong with it.
    """
    path = os.fspath(path)
    if not os.path.isdir(path):
        raise CheckpointError(f"no checkpoint at {path}: " + ("not a directory" if os.path.exists(path) else "no such directory"))
    if os.path.exists(os.path.join(path, "manifest.json")) or _NAME.search(os.path.normpath(path)):
        return Checkpoint(os.path.normpath(path))
    found = newest(path, tell)
    if found is None:
        raise CheckpointError(f"no checkpoint under {path}; expected {path}/checkpoints/step-NNNNNNNNNN or a checkpoint itself")
    return found

