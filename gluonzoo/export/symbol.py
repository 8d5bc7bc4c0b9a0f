"""MXNet's own exchange format: a graph (``-symbol.json``) and its parameters (``.params``), and a JSON about them.

The files work with ``mx.gluon.SymbolBlock.imports(symbol, ["data"], parameters)``, with ``mx.model.load_checkpoint(
prefix, 0)`` and so with Module and MXNet's C++ interface, and with `load_symbol` here, which also verifies them.
Nodes and parameters carry structural names (``features.c1.weight``), whatever else was built in the process before,
so the same network always gives the same bytes.
"""
import contextlib
import ctypes
import glob
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, MXNetError, check_call

from .. import arrays
from .check import Difference, compare, flatten
from .metadata import ExportError, Metadata, read_json, sha256

__all__ = ["Exported", "to_symbol", "load_symbol"]

#: The largest relative difference between live and exported outputs (see `check.Difference`) that is let through.
TOLERANCE = 1e-5

_INPUT = "data"


@dataclass(frozen=True)
class Exported:
    """What `to_symbol` wrote: the paths of the three files, and how far the outputs are from the live network's."""
    symbol: str
    parameters: str
    metadata: str
    difference: Difference


def to_symbol(net, prefix, input_shape=None, *, metadata=None, force=False):
    """Write PREFIX-symbol.json, PREFIX-0000.params and PREFIX.json, once they are checked against the live network.

    The network is traced, not changed: its parameters, statistics, devices and hybridization stay as they are. Of a
    network on several devices the first one's parameters are taken.

    Args:
        net: an initialised HybridBlock of one input; it may have several outputs.
        prefix: path of the files up to what distinguishes them; its folder is made when absent.
        input_shape: (C, H, W) of one input; from the registry when not given.
        metadata: further fields of `Metadata` by name: classes, mean, std, dataset.
        force: replace files that are there.
    Returns: Exported.
    Raises: ExportError when a file is there, the network is not initialised, its shape is unknown, or the files read
        back give other outputs than the network; no file is left then, and old ones are untouched. OSError when the
        disk fails.
    """
    prefix = os.fspath(prefix)
    names = _file_names(prefix)
    folder = os.path.dirname(os.path.abspath(prefix))
    parameters = _parameters(net)
    details = _describe(net, input_shape, metadata or {})
    final = {role: os.path.join(os.path.dirname(prefix), name) for role, name in names.items()}
    taken = [path for path in final.values() if os.path.lexists(path)]
    if taken and not force:
        raise ExportError(f"{', '.join(taken)}: already there; use force (--force) to replace them")
    ctx = next(iter(parameters.values()))[1].list_ctx()[0] if parameters else mx.cpu()
    outputs, graph = _trace(net, parameters)
    values = _values(graph, parameters)
    _run_once(net, details["input_shape"], ctx)
    os.makedirs(folder, exist_ok=True)
    beside = tempfile.mkdtemp(prefix=f".{os.path.basename(prefix)}.tmp-", dir=folder)
    try:
        files = {role: os.path.join(beside, name) for role, name in names.items()}
        with open(files["symbol"], "w", encoding="utf-8") as file:
            file.write(graph)
            file.flush()
            os.fsync(file.fileno())
        arrays.save(files["parameters"], values)
        hashes = {role: (names[role], sha256(files[role])) for role in ("symbol", "parameters")}
        Metadata(outputs=outputs, files=hashes, **details).write(files["metadata"])
        difference = _verify(net, files["metadata"], ctx)
        # The metadata comes last: an export cut off here is refused for its hashes rather than read half new, half old.
        for role in ("symbol", "parameters", "metadata"):
            os.replace(files[role], final[role])
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Exported(difference=difference, **final)


def load_symbol(source, ctx=None):
    """Load an export as a block, after checking the files.

    Args:
        source: the prefix, any of an export's three files, or a folder that holds one export; or a pair (symbol file,
            parameter file) of an export without metadata, as ``HybridBlock.export`` writes it.
        ctx: the device; the default is the processor.
    Returns: (SymbolBlock, Metadata), the latter None for a pair.
    Raises: ExportError when files are missing, damaged (SHA-256) or do not belong together; arrays.FormatError for a
        malformed parameter file. Each names the file.
    """
    if isinstance(source, (tuple, list)):
        symbol, parameters = (os.fspath(path) for path in source)
        metadata = None
    else:
        path = _find_metadata(os.fspath(source))
        metadata = _reading(Metadata.read, path)
        if set(metadata.files) != {"symbol", "parameters"}:
            raise ExportError(f"{path}: names the files {sorted(metadata.files)}; expected symbol and parameters")
        for name, digest in sorted(metadata.files.values()):
            file = os.path.join(os.path.dirname(path), name)
            found = _reading(sha256, file)
            if found != digest:
                raise ExportError(f"{file}: not the file that {path} describes: expected SHA-256 {digest[:12]}..., "
                                  f"found {found[:12]}...")
        symbol, parameters = (os.path.join(os.path.dirname(path), metadata.files[role][0])
                              for role in ("symbol", "parameters"))
    shape = metadata.input_shape if metadata else None
    graph, values = _reading(_read_graph, symbol), _reading(arrays.load, parameters)
    if any(name.startswith("scale:") for name in values):
        from .quantize_store import unpacked  # It reads networks with what is here.
        values = unpacked(parameters, values)
    return _build(symbol, graph, parameters, values, shape, ctx), metadata


def _fits(shape, expected):
    return len(shape) == len(expected) and all(b <= 0 or a == b for a, b in zip(shape, expected))


def _file_names(prefix):
    """The three files' names without folder, by role."""
    name = os.path.basename(prefix)
    if not name or os.path.isdir(prefix):
        raise ExportError(f"the prefix {prefix!r} is a folder; expected FOLDER/NAME, for FOLDER/NAME-symbol.json")
    return {"symbol": f"{name}-symbol.json", "parameters": f"{name}-0000.params", "metadata": f"{name}.json"}


def _parameters(net):
    """{MXNet's name: (structural name, Parameter)} of an initialised HybridBlock."""
    if not isinstance(net, mx.gluon.HybridBlock):
        raise ExportError(f"expected a HybridBlock, received {type(net).__name__}")
    parameters = {}
    for name, parameter in net._collect_params_with_prefix().items():
        # A parameter shared by two blocks keeps the first name.
        parameters.setdefault(parameter.name, (name, parameter))
    empty = [name for name, parameter in parameters.values() if parameter._data is None]
    if empty:
        raise ExportError(f"{len(empty)} of {len(parameters)} parameters have no values yet (the first is {empty[0]}): "
                          "initialise the network, or load its parameters, and if shapes are deferred run it once")
    return parameters


def _describe(net, input_shape, fields):
    """The metadata's fields that do not depend on the files."""
    unknown = set(fields) - {"classes", "mean", "std", "dataset"}
    if unknown:
        raise ExportError(f"metadata has {', '.join(sorted(unknown))}; expected some of classes, mean, std, dataset")
    name = getattr(net, "model_name", None)
    if input_shape is None:
        if name is None:
            raise ExportError(f"{type(net).__name__} is not from the registry: give input_shape, such as (3, 224, 224)")
        from ..registry import model_spec
        input_shape = tuple(model_spec(name).input_shape)
        channels = getattr(net, "in_channels", None)
        if channels:
            input_shape = (channels,) + input_shape[1:]
    try:
        details = dict(fields, input_shape=tuple(int(size) for size in input_shape), model=name,
                       model_kwargs=dict(getattr(net, "model_kwargs", None) or {}))
        for key in ("classes", "mean", "std"):
            if details.get(key) is not None:
                kind = str if key == "classes" else float
                details[key] = tuple(kind(item) for item in details[key])
    except (TypeError, ValueError) as error:
        raise ExportError(f"input_shape {input_shape!r} or metadata {fields!r}: {error}") from None
    Metadata(**details)  # Complains before anything is written.
    classes, count = details.get("classes"), getattr(net, "classes", None)
    if classes is not None and isinstance(count, int) and len(classes) != count:
        raise ExportError(f"{len(classes)} class names for a network of {count} classes")
    return details


def _trace(net, parameters):
    """(names of the outputs, graph as JSON text) of a network called on a symbol."""
    # Names count from zero here, and a recording around the caller does not leak into the graph.
    with mx.name.NameManager(), mx.autograd.pause(train_mode=False):
        outputs = flatten(net(mx.sym.var(_INPUT)))
    names = [name for name, _ in outputs]
    if len(set(names)) != len(names):
        raise ExportError(f"the network names two outputs alike: {names}")
    symbols = [symbol for _, symbol in outputs]
    symbol = symbols[0] if len(symbols) == 1 else mx.sym.Group(symbols)
    graph = json.loads(symbol.tojson())
    _rename(graph["nodes"], parameters, sorted(_prefixes(net), key=lambda pair: -len(pair[0])))
    _restart_versions(graph["nodes"])
    return tuple(names), json.dumps(graph, indent=2) + "\n"


def _rename(nodes, parameters, prefixes):
    """Give a graph's nodes structural names, each once. Longer prefixes come before shorter ones."""
    taken = {_INPUT}
    for node in nodes:
        name = node["name"]
        if node["op"] == "null":
            # Initialisers are not needed to run the graph; constants have one under a name no other program knows.
            node.get("attrs", {}).pop("__init__", None)
            if name != _INPUT:
                if name not in parameters:
                    raise ExportError(f"the graph reads {name!r}, which is neither its input nor a parameter")
                node["name"] = parameters[name][0]
            continue
        for prefix, path in prefixes:
            if name.startswith(prefix):
                name = path + name[len(prefix):]
                break
        unique, number = name, 0
        while unique in taken:  # A block used twice names its operators alike.
            number += 1
            unique = f"{name}_{number}"
        taken.add(unique)
        node["name"] = unique


def _restart_versions(nodes):
    """Count the uses of statistics from one: MXNet goes on counting from one trace of a network to the next."""
    first = {}
    entries = [entry for node in nodes for entry in node["inputs"] if len(entry) == 3 and entry[2] > 0]
    for source, _, version in entries:
        first[source] = min(version, first.get(source, version))
    for entry in entries:
        entry[2] -= first[entry[0]] - 1


def _prefixes(block, path=""):
    """(prefix of MXNet's names, structural path with a dot) of a block and all inside it."""
    if block.prefix:
        yield block.prefix, path
    for name, child in block._children.items():
        yield from _prefixes(child, f"{path}{name}.")


def _values(graph, parameters):
    """{"arg:" or "aux:" + structural name: NumPy array} of the parameters that the graph reads, in its order."""
    symbol = mx.sym.load_json(graph)
    mx.nd.waitall()  # A backward pass still running writes statistics without the engine knowing.
    by_name = dict(parameters.values())
    values = {}
    for kind, names in (("arg", symbol.list_arguments()), ("aux", symbol.list_auxiliary_states())):
        for name in names:
            if name != _INPUT:
                values[f"{kind}:{name}"] = value = by_name[name].list_data()[0].asnumpy()
                if value.dtype.kind == "f" and not np.isfinite(value).all():
                    raise ExportError(f"parameter {name} holds NaN or infinity; such a network is not exported")
    return values


def _run_once(net, input_shape, ctx):
    """Raise unless the network takes one random input, before anything is written."""
    with _layouts_restored(net):
        try:
            compare(net, net, input_shape, batches=(1,), ctx=ctx)
        except MXNetError as error:
            raise ExportError(f"the network does not run on float32 inputs of shape {input_shape}: "
                              f"{_reason(error)}") from None


def _verify(net, path, ctx):
    """Read the files back and compare with the live network."""
    block, metadata = load_symbol(path, ctx=ctx)
    with _layouts_restored(net):
        difference = compare(net, block, metadata.input_shape, ctx=ctx)
    if not difference.relative <= TOLERANCE:
        raise ExportError(f"the exported network differs from the live one by {difference.absolute:.3g} "
                          f"(relative {difference.relative:.3g}; at most {TOLERANCE:g} passes); "
                          f"{_first_difference(net, path, metadata, ctx)}; nothing was kept")
    return difference


def _first_difference(net, path, metadata, ctx):
    """Words for the first layer at which an export and the network's own graph differ."""
    from .first_difference import describe
    from .graph import Graph  # It reads networks with what is here.

    symbol, parameters = (os.path.join(os.path.dirname(path), metadata.files[role][0]) for role in ("symbol", "parameters"))
    exported = Graph.from_symbol(_read_graph(symbol), arrays.load(parameters))
    data = np.random.RandomState(0).standard_normal((1,) + metadata.input_shape).astype(np.float32)
    return describe(Graph.from_net(net), *(
        lambda entries, graph=graph: graph.with_outputs(entries).run(data, ctx) for graph in (Graph.from_net(net), exported)))


@contextlib.contextmanager
def _layouts_restored(net):
    """Undo oneDNN's reordering of weights in place by inference, which a KVStore started afterwards cannot read."""
    try:
        yield
    finally:
        pointer = ctypes.c_void_p()
        for parameter in net.collect_params().values():
            for data in parameter.list_data() if parameter._data is not None else ():
                # Asking for the address of its memory brings an array back to the plain order.
                check_call(_LIB.MXNDArrayGetData(data.handle, ctypes.byref(pointer)))


def _reading(read, path):
    """read(path), a missing or unreadable file told as an ExportError."""
    try:
        return read(path)
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror or error}") from None


def _find_metadata(source):
    """The path of the metadata file that a prefix, a file of an export or a folder stands for."""
    if os.path.isdir(source):
        found = [path[:-len("-symbol.json")] + ".json" for path in sorted(glob.glob(
            os.path.join(glob.escape(source), "*-symbol.json")))]
        found = [path for path in found if os.path.isfile(path)]
        if len(found) != 1:
            names = ", ".join(os.path.basename(path) for path in found) or "none"
            raise ExportError(f"{source}: expected a folder with one export (NAME.json and NAME-symbol.json), "
                              f"found {names}")
        return found[0]
    prefix = re.sub(r"(-symbol\.json|-\d{4}\.params|\.json)$", "", source)
    if not os.path.isfile(prefix + ".json"):
        raise ExportError(f"{source}: no export there; expected the file {prefix}.json")
    return prefix + ".json"


def _read_graph(path):
    """The text of a graph whose nodes refer only to nodes before them; anything else could lead MXNet astray."""
    graph = read_json(path)

    def entries(value):
        return isinstance(value, list) and all(
            isinstance(entry, list) and len(entry) in (2, 3) and all(type(n) is int and n >= 0 for n in entry)
            for entry in value)

    nodes, heads = (graph.get("nodes"), graph.get("heads")) if isinstance(graph, dict) else (None, None)
    sound = isinstance(nodes, list) and entries(heads) and heads and all(entry[0] < len(nodes) for entry in heads)
    for index, node in enumerate(nodes if sound else ()):
        sound = sound and isinstance(node, dict) and isinstance(node.get("op"), str) and isinstance(
            node.get("name"), str) and entries(node.get("inputs")) and all(entry[0] < index for entry in node["inputs"])
    leaves = graph.get("arg_nodes") if sound else ()
    sound = sound and isinstance(leaves, list) and all(
        type(index) is int and 0 <= index < len(nodes) for index in leaves)
    if not sound:
        raise ExportError(f"{path}: not the graph of an MXNet symbol")
    return json.dumps(graph)


def _without_kind(path, values):
    """Parameters by name alone: ``arg:`` and ``aux:`` taken off."""
    plain = {re.sub("^(arg|aux):", "", name): value for name, value in values.items()}
    if len(plain) != len(values):
        raise ExportError(f"{path}: holds a parameter both as arg: and as aux:")
    return plain


def _build(symbol_path, graph, parameters_path, values, input_shape, ctx):
    """A SymbolBlock with its parameters set, once both are known to belong together."""
    values = _without_kind(parameters_path, values)
    try:
        symbol = mx.sym.load_json(graph)
        needed = symbol.list_arguments() + symbol.list_auxiliary_states()
        inputs = [name for name in needed if name not in values]
        if inputs != [_INPUT]:
            raise ExportError(f"{parameters_path}: {symbol_path} needs {', '.join(inputs[:5]) or 'no input'} beside "
                              f"these parameters; expected only {_INPUT}")
        extra = [name for name in values if name not in needed]
        if extra:
            raise ExportError(f"{parameters_path}: {symbol_path} has no {', '.join(extra[:5])}")
        _check_shapes(symbol, parameters_path, values, input_shape)
        block = mx.gluon.SymbolBlock(symbol, [mx.sym.var(_INPUT, dtype="float32")])
        for name, parameter in block.collect_params().items():
            value = mx.nd.array(values[name], dtype=values[name].dtype)
            parameter._load_init(value, ctx or mx.cpu(), cast_dtype=True, dtype_source="saved")
    except (MXNetError, AssertionError) as error:
        raise ExportError(f"{symbol_path} with {parameters_path}: MXNet refuses them: {_reason(error)}") from None
    return block


def _check_shapes(symbol, path, values, input_shape):
    """Raise ExportError naming the first parameter whose shape is not the graph's."""
    expected = {}
    for name, attributes in symbol.attr_dict().items():
        if "__shape__" in attributes and name in values:
            expected[name] = tuple(int(size) for size in re.findall(r"-?\d+", attributes["__shape__"]))
    if input_shape:
        arguments, _, states = symbol.infer_shape_partial(**{_INPUT: (1,) + tuple(input_shape)})
        inferred = [*zip(symbol.list_arguments(), arguments or ()), *zip(symbol.list_auxiliary_states(), states or ())]
        expected.update((name, tuple(shape)) for name, shape in inferred if shape and name in values)
    for name, shape in expected.items():
        if not _fits(values[name].shape, shape):
            raise ExportError(f"{path}: {name} has shape {values[name].shape}; the graph expects {shape}")


def _reason(error):
    """The last line of an MXNet error, which holds the reason; the others are a trace of C++ calls."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
