"""The networks by name: what each is, where it comes from, and how to build it.

A family file puts `register` on its builders. The files are imported at the first look-up, so that
``import gluonzoo`` stays light.
"""
import dataclasses
import difflib
import fnmatch
import functools
import importlib
import inspect
from typing import Callable, Optional, Tuple

import numpy as np

from .errors import UserError

__all__ = ["ModelSpec", "UnknownModelError", "register", "get_model", "list_models", "list_pretrained", "model_spec"]

#: The rooms whose import registers networks, one a task.
ROOMS = ("gluonzoo.classification",)

_specs = {}


class UnknownModelError(UserError):
    """No network has this name; the message shows the nearest ones."""


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What is known of a registered network without building it.

    Args:
        task: "classification", ...; the room it lives in.
        family: the family's name as its paper spells it.
        paper: title of the paper.
        year: of the paper.
        input_shape: (C, H, W) of one standard input.
        classes: default number of classes.
        params: trainable parameters of the default network, exact.
        macs: multiply-adds of convolution, deconvolution and dense layers for one standard input, exact.
        counting: "macs", or "connections" where `macs` holds the paper's count of connections, biases included.
        link: arXiv number or where else the paper stands.
        notes: one line, where there is something to say.
        learning_rate: for SGD with momentum, where `training.TrainConfig`'s default does not train it.
        name, builder: filled in by `register`.
    """
    task: str
    family: str
    paper: str
    year: int
    input_shape: Tuple[int, ...]
    classes: int
    params: int
    macs: int
    counting: str = "macs"
    link: str = ""
    notes: str = ""
    learning_rate: Optional[float] = None
    name: str = ""
    builder: Optional[Callable] = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self):
        if self.counting not in ("macs", "connections"):
            raise ValueError(f"counting is {self.counting!r}; expected 'macs' or 'connections'")


def register(spec=None, **fields):
    """Decorator that enters a builder under its own name; takes a ModelSpec or its fields.

    The registered builder returns networks that know `model_name` and `model_kwargs` (every argument of the builder,
    defaults included), so that a checkpoint or an export can build them again.

    Raises: ValueError when the name is taken.
    """
    if spec is None:
        spec = ModelSpec(**fields)
    elif fields:
        spec = dataclasses.replace(spec, **fields)

    def enter(builder):
        name = builder.__name__
        if name in _specs:
            taken = inspect.unwrap(_specs[name].builder)
            raise ValueError(f"two networks are called {name!r}: in {taken.__module__} and in {builder.__module__}")
        signature = inspect.signature(builder)

        @functools.wraps(builder)
        def build(*args, **kwargs):
            net = builder(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            # JSON knows no NumPy numbers.
            given = {key: value.item() if isinstance(value, np.generic) else value
                     for key, value in bound.arguments.items()}
            net.model_name, net.model_kwargs = name, given
            return net

        _specs[name] = dataclasses.replace(spec, name=name, builder=build)
        return build

    return enter


def _load_rooms():
    for room in ROOMS:
        importlib.import_module(room)


def model_spec(name):
    """The ModelSpec of a registered network.

    Raises: UnknownModelError, which names the nearest networks.
    """
    _load_rooms()
    if name not in _specs:
        near = difflib.get_close_matches(str(name).lower(), _specs, n=5, cutoff=0.5)
        hint = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(sorted(_specs)[:5])}, ..."
        raise UnknownModelError(f"no network is called {name!r}; {hint} (gluonzoo.list_models() shows all)")
    return _specs[name]


def get_model(name, pretrained=False, root=None, ctx=None, **kwargs):
    """Build a registered network. The further keywords are the builder's own (`classes`, ...).

    Args:
        pretrained: False: the network is not initialised. True: with the weights that `root` offers under its name; with
            another number of `classes`, all but the last layer. A path: with that file's weights, of any format that
            `interop.load_weights` knows.
        root: with pretrained=True, a folder of weights or its address (`interop.pretrained`); default $GLUONZOO_WEIGHTS.
        ctx: with pretrained, the context or contexts of the parameters.
    Raises: UnknownModelError for an unknown name; TypeError for an unknown keyword; ValueError for a bad value, weights
        that cannot be had or do not fit.
    """
    spec = model_spec(name)
    if pretrained is False or pretrained is None:
        if root is not None or ctx is not None:
            given = "ctx" if root is None else "root"
            raise UserError(f"{given} goes with pretrained; without weights use net.initialize(ctx=...)")
        return spec.builder(**kwargs)
    from .interop.pretrained import build_pretrained
    return build_pretrained(name, pretrained, root, ctx, kwargs)


def list_models(pattern="*", task=None):
    """Sorted names of the registered networks.

    Args:
        pattern: shell wildcards, as in ``"resnet*_v1b"``.
        task: only networks of this task.
    Raises: UserError for a task that no network has.
    """
    _load_rooms()
    tasks = {spec.task for spec in _specs.values()}
    if task is not None and task not in tasks:
        raise UserError(f"no network has the task {task!r}; the tasks are {', '.join(sorted(tasks))}")
    return sorted(name for name, spec in _specs.items()
                  if fnmatch.fnmatchcase(name, pattern) and task in (None, spec.task))


def list_pretrained(root=None):
    """{network: file, sha256, size, classes} of the weights that can be had from `root` or $GLUONZOO_WEIGHTS; see
    `interop.pretrained`. Without a place named, none: this package publishes no weights."""
    from .interop.pretrained import list_pretrained
    return list_pretrained(root)
