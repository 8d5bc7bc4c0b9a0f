"""A file's arrays into a network, and a network's parameters into a file, under any known package's names."""
import dataclasses
import os
from typing import Any, Dict, Tuple

import numpy as np

from ..errors import UserError
from .files import read, write
from .native import net_name
from .styles import MODULES, style, styles

__all__ = ["Report", "WeightsError", "load_weights", "save_weights", "place", "arrays_for"]

_SHOWN = 40


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of a file.

    Args:
        source: name of the style; title: whose network its names are; path, format: of the file.
        placed: our parameters that were set.
        missing: our parameters that keep their values (the last layers, with `skip_output`).
        unused: (array of the file, why it has no place).
        notes: what else to know, for instance a different epsilon.
        options: builder's keywords that the network was adapted to, because the weights were trained so.
    """
    source: str
    title: str
    path: str
    format: str
    placed: Tuple[str, ...]
    missing: Tuple[str, ...]
    unused: Tuple[Tuple[str, str], ...]
    notes: Tuple[str, ...]
    options: Dict[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self):
        parts = [f"{self.path} ({self.format}) as {self.title}: {len(self.placed)} parameters placed"]
        if self.missing:
            parts.append(f"{len(self.missing)} left as they were ({', '.join(self.missing)})")
        for reason in sorted({reason for _, reason in self.unused}):
            names = [name for name, why in self.unused if why == reason]
            parts.append(f"{len(names)} arrays not used ({names[0]}{', ...' if names[1:] else ''}: {reason})")
        return "; ".join(parts + list(self.notes))


class WeightsError(UserError):
    """Arrays and network do not fit. `missing`: names that the file lacks; `unplaced`: names that the network has no place
    for; `misshapen`: (name, shape in the file, shape expected)."""

    def __init__(self, message, missing=(), unplaced=(), misshapen=()):
        super().__init__(message)
        self.missing, self.unplaced, self.misshapen = tuple(missing), tuple(unplaced), tuple(misshapen)


class _Match:
    """How well the arrays of a file fit one layout; `heads` are prefixes of our parameters that are left out."""

    def __init__(self, name, layout, shapes, heads):
        self.name, self.layout = name, layout
        self.pieces = [piece for piece in layout.pieces if not piece.ours.startswith(heads)]
        self.skipped = [piece for piece in layout.pieces if piece.ours.startswith(heads)]
        wanted = {}
        for piece in self.pieces:
            wanted.update(zip(piece.theirs, piece.shapes))
        heads_names = {their for piece in self.skipped for their in piece.theirs} - set(wanted)
        self.missing = [their for their in wanted if their not in shapes]
        self.misshapen = [(their, shapes[their], tuple(shape)) for their, shape in wanted.items()
                          if their in shapes and shapes[their] != tuple(shape)]
        self.unused = []
        self.unplaced = []
        for their in shapes:
            if their in wanted:
                continue
            reason = "of the last layers, which are left out" if their in heads_names else layout.why_ignored(their)
            if reason is None:
                self.unplaced.append(their)
            else:
                self.unused.append((their, reason))

    @property
    def faults(self):
        return len(self.missing) + len(self.misshapen) + len(self.unplaced)

    @property
    def placing(self):
        """What decides the values that the network gets."""
        return sorted((piece.ours, piece.theirs, piece.read is None) for piece in self.pieces)

    def describe(self):
        parts = []
        for count, text, names in (
                (len(self.missing), "missing in the file", self.missing),
                (len(self.misshapen), "of another shape", [f"{name} is {found}, expected {wanted}"
                                                           for name, found, wanted in self.misshapen]),
                (len(self.unplaced), "without a place in the network", self.unplaced)):
            if count:
                more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
                parts.append(f"{count} {text}: {', '.join(names[:_SHOWN])}{more}")
        return "; ".join(parts)


def _head_prefixes(net):
    return tuple(["output."] + [f"{name}.output." for name in getattr(net, "auxiliary", ())])


def _matches(net, shapes, source, skip_output):
    """How the file fits each style that knows the network. Raises: UserError when the style asked for does not."""
    heads = _head_prefixes(net) if skip_output else ()
    names = styles() if source == "auto" else (source,)
    found = []
    for name in names:
        layout = style(name).layout(net, shapes)
        if layout is not None:
            found.append(_Match(name, layout, shapes, heads))
    if not found:
        known = sorted(style(source).counterparts())
        raise UserError(f"{source} has no counterpart of {net_name(net)}; it has those of {', '.join(known)}")
    return found


def _choose(net, matches, path, skip_output):
    """The one match without faults. Raises: WeightsError when there is none, UserError when several differ."""
    fitting = [match for match in matches if not match.faults]
    if fitting:
        first = fitting[0]
        for other in fitting[1:]:
            if other.placing != first.placing:
                raise UserError(f"{path}: fits {net_name(net)} as {first.layout.title} and, differently, as "
                                f"{other.layout.title}; say which: source={first.name!r} or {other.name!r}")
        return first
    best = min(matches, key=lambda match: (match.faults, -len(match.pieces)))
    closest = f"; closest is {best.layout.title}" if len(matches) > 1 else f" as {best.layout.title}"
    # Only the last layers differ: say how to leave them out.
    faulty = set(best.missing) | {name for name, _, _ in best.misshapen}
    heads = {their for piece in best.layout.pieces if piece.ours.startswith(_head_prefixes(net)) for their in piece.theirs}
    hint = "; skip_output=True loads all but the last layers" if not skip_output and faulty and faulty <= heads else ""
    raise WeightsError(f"{path}: does not fit {net_name(net)}{closest}: {best.describe()}{hint}",
                       best.missing, best.unplaced, best.misshapen)


def place(net, contents, path, source="auto", skip_output=False):
    """What `load_weights` would set: ({our name: float32 array}, Report). Nothing is changed.

    Raises: WeightsError, UserError as `load_weights`.
    """
    if source != "auto" and source not in MODULES:
        raise UserError(f"source is {source!r}; expected auto, {', '.join(MODULES)}")
    shapes = {name: tuple(array.shape) for name, array in contents.arrays.items()}
    match = _choose(net, _matches(net, shapes, source, skip_output), path, skip_output)
    values, parameters = {}, net._collect_params_with_prefix()
    for piece in match.pieces:
        arrays = [contents.arrays[name] for name in piece.theirs]
        for name, array in zip(piece.theirs, arrays):
            if array.dtype.kind != "f":
                raise UserError(f"{path}: {name}: expected floating point numbers, found {array.dtype}")
        shape = tuple(parameters[piece.ours].shape)
        value = piece.read(*arrays) if piece.read else arrays[0].reshape(shape)
        values[piece.ours] = np.asarray(value, dtype=np.float32).reshape(shape)
    given = net.model_kwargs or {}
    options = {name: value for name, value in match.layout.options.items() if given.get(name) != value}
    adapted = tuple(f"the network is adapted to them: {name}={value!r}" for name, value in options.items())
    report = Report(match.name, match.layout.title, str(path), contents.format, tuple(values),
                    tuple(piece.ours for piece in match.skipped), tuple(match.unused), match.layout.notes + adapted, options)
    return values, report


def load_weights(net, path, source="auto", skip_output=False, ctx=None, allow_nonfinite=False):
    """Put the arrays of a parameter file into a network: of this package, torchvision, timm and others (`styles()`).

    The file's format and, with source="auto", whose names it has, are found by content. Every array must have a place
    and every parameter an array of exactly its shape, or nothing is changed. Weights of a variant that has the same parameters
    (Caffe's AlexNet normalizes with other constants) adapt the network to it; the report says so.

    Args:
        net: a network of this package; one that is not initialised is initialised first.
        source: "auto", or the style of names.
        skip_output: leave the last layers (and those of auxiliary heads) as they are, for another number of classes.
        ctx: context or contexts on which an uninitialised network is initialised; by default the current one.
        allow_nonfinite: take NaN and infinity too.
    Returns: Report.
    Raises: WeightsError (a UserError) when names or shapes do not fit; UserError for a broken or hostile file.
    """
    contents = read(path, allow_nonfinite)
    values, report = place(net, contents, os.fspath(path), source, skip_output)
    if report.options:
        net.adapt(**report.options)
    set_values(net, values, ctx)
    return report


def set_values(net, values, ctx=None):
    """Set parameters, on all devices of the network; what is not initialised is initialised first."""
    import mxnet as mx
    parameters = net._collect_params_with_prefix()
    for parameter in parameters.values():
        if parameter._data is None:
            parameter.initialize(None, ctx or mx.current_context(), mx.init.Uniform())
    for name, value in values.items():
        parameters[name].set_data(mx.nd.array(value, dtype=parameters[name].dtype))


def arrays_for(net, name="gluonzoo"):
    """{name: array} of a network's parameters in a style. Raises: UserError when the style lacks it or is only read."""
    import mxnet as mx
    module = style(name)
    layout = module.layout(net, None)
    if not getattr(module, "WRITES", True):
        raise UserError(f"{name} names can only be read; written can be {', '.join(styles(writing=True))}")
    if layout is None:
        known = ", ".join(sorted(module.counterparts()))
        raise UserError(f"{name} has no counterpart of {net_name(net)}; it has those of {known}")
    mx.nd.waitall()  # A backward pass still running writes running statistics without the engine knowing.
    parameters, values = net._collect_params_with_prefix(), {}
    for piece in layout.pieces:
        if parameters[piece.ours]._data is None:
            raise UserError(f"{net_name(net)}: expected an initialised network, found {piece.ours} without values")
        array = parameters[piece.ours].list_data()[0].asnumpy()
        made = piece.write(array) if piece.write else (array.reshape(piece.shapes[0]),)
        for their, shape, value in zip(piece.theirs, piece.shapes, made):
            values[their] = np.ascontiguousarray(value, dtype=array.dtype).reshape(shape)
    values.update({their: np.array(value) for their, value in layout.extra.items()})
    return values


def save_weights(net, path, style="gluonzoo"):
    """Write a network's parameters under the names of a style; the format is that of the ending: `.params`,
    `.safetensors`, `.pth`, `.pt` or `.th`. An existing file is replaced, once the new one is whole.

    Raises: UserError for another ending, a style without this network, or a package that is missing; OSError.
    """
    write(path, arrays_for(net, style))
