"""What a network consists of: layers, output shapes, parameters and multiply-adds, without running it.

The network is traced once with a symbol in place of the input, and MXNet infers the shapes; nothing is computed, and
the network need not be initialised. Works for any Gluon block that symbols can pass through.
"""
import dataclasses
import json
import math
from typing import List, Tuple

import mxnet as mx

from .errors import UserError
from .registry import model_spec

__all__ = ["Row", "Summary", "count_parameters", "count_macs", "summarize", "overview", "format_table"]

#: Bytes of a number of float32.
FLOAT = 4


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer.

    `output_shape` is for one input, without N; a tuple of shapes where there are several outputs. `activation_bytes`
    is what these outputs take in float32. A layer that runs several times has one row, with the shape of its first run
    and the multiply-adds and bytes of all. Shared parameters stand at their first owner.
    """
    name: str
    type: str
    output_shape: tuple
    params: int
    macs: int
    activation_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Summary:
    """The layers of a network in the order in which they run, and the sums.

    `activation_bytes` is the sum over the layers' outputs for one image, all kept, as training keeps them; what a block
    computes between its layers (a ReLU, an addition) is not in it. `parameter_bytes` is the memory of all parameters,
    those without gradient (running statistics) included. Both in float32.
    """
    rows: List[Row]
    input_shape: Tuple[int, ...]
    params: int
    macs: int
    counting: str
    activation_bytes: int = 0
    parameter_bytes: int = 0

    def text(self, markdown=False):
        """The rows as a table with a last line of sums."""
        def counts(item):
            return tuple(f"{number:,}" for number in (item.params, item.macs, item.activation_bytes))

        lines = [(row.name, row.type, _shape_text(row.output_shape)) + counts(row) for row in self.rows]
        lines.append(("total", "", f"input {_shape_text(self.input_shape)}") + counts(self))
        macs = "connections" if self.counting == "connections" else "multiply-adds"
        return format_table(("layer", "type", "output", "parameters", macs, "activation bytes"), lines, markdown)

    def memory(self):
        """One line about memory in float32."""
        return (f"memory in float32: parameters {_mega(self.parameter_bytes)}, all layers' outputs for one image "
                f"{_mega(self.activation_bytes)}")

    def as_dict(self):
        """The same as plain values for JSON."""
        return dataclasses.asdict(self)


def _mega(size):
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"


def _shape_text(shape):
    if shape is None:
        return ""
    if shape and isinstance(shape[0], tuple):
        return ", ".join(map(_shape_text, shape))
    return "x".join(map(str, shape)) or "scalar"


def format_table(header, lines, markdown=False):
    """A table of text; columns of numbers are aligned to the right."""
    columns = list(zip(header, *lines))
    widths = [max(map(len, column)) for column in columns]
    right = [all(cell.replace(",", "").isdigit() for cell in column[1:]) for column in columns]

    def line(cells):
        padded = [cell.rjust(width) if flush else cell.ljust(width)
                  for cell, width, flush in zip(cells, widths, right)]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    rule = ["-" * (width - 1) + (":" if flush else "-") if markdown else "-" * width
            for width, flush in zip(widths, right)]
    return "\n".join([line(header), line(rule)] + [line(cells) for cells in lines])


def _size(parameter, shape):
    if not shape or min(shape) < 1:
        raise UserError(f"the parameter {parameter.name} has the unknown shape {shape}; "
                        "give the layer its in_channels or in_units, or run the network once")
    return math.prod(shape)


def count_parameters(net):
    """Trainable parameters: those with a gradient, each once; BatchNorm's running statistics are out.

    Raises: UserError when the shape of a parameter is not known yet.
    """
    return sum(_size(parameter, parameter.shape) for parameter in net.collect_params().values()
               if parameter.grad_req != "null")


def count_macs(net, input_shape, counting="macs"):
    """Multiply-adds of convolution, deconvolution and dense layers for one input of shape (C, H, W).

    Args:
        counting: "macs", or "connections" to count every bias addition as well, as LeCun et al. (1998) do.
    Raises: UserError when the network cannot take the input, or symbols cannot pass through it.
    """
    return summarize(net, input_shape, counting).macs


def summarize(net, input_shape, counting="macs"):
    """The layers of `net` for one input of shape (C, H, W); see `Summary`.

    Raises: UserError when the network cannot take the input, or symbols cannot pass through it.
    """
    shape = (1,) + tuple(input_shape)
    if hasattr(net, "check_input"):
        net.check_input(shape)
    calls, output = _trace(net)
    shapes = _infer(mx.sym.Group([symbol for _, _, symbols in calls for symbol in symbols]), shape)
    sizes = _parameter_sizes(net, output, shape)
    weights = {parameter.name: block.kernel_weights for _, block, _ in calls if hasattr(block, "kernel_weights")
               for parameter in block._reg_params.values()}
    macs = _macs_by_parameter(output, shape, counting, weights)
    rows = {}
    for name, block, symbols in calls:
        found = tuple(tuple(next(shapes)[1:]) for _ in symbols)
        own = list(block._reg_params.values())
        if block._children and not own:
            continue
        size = sum(FLOAT * math.prod(shape) for shape in found)
        if block in rows:
            rows[block] = dataclasses.replace(rows[block], activation_bytes=rows[block].activation_bytes + size)
            continue
        rows[block] = Row(name, type(block).__name__, found[0] if len(found) == 1 else found,
                          sum(sizes.pop(parameter.name, 0) for parameter in own),
                          sum(macs.pop(parameter.name, 0) for parameter in own), size)
    rows = list(rows.values())
    if sizes or macs:  # Parameters outside the traced layers, convolutions whose weights are computed from the input.
        rows.append(Row("(rest)", "", None, sum(sizes.values()), sum(macs.values())))
    return Summary(rows, tuple(input_shape), sum(row.params for row in rows), sum(row.macs for row in rows), counting,
                   sum(row.activation_bytes for row in rows), _parameter_bytes(net, output, shape))


def _trace(net):
    """Run a symbol through the net. Returns [(structural name, block, output symbols)] in order, and the output."""
    calls, hooks = [], []

    def flatten(outputs):
        return [outputs] if isinstance(outputs, mx.sym.Symbol) else [part for item in outputs for part in flatten(item)]

    def watch(block, name):
        def note(block, _, outputs):
            calls.append((name or type(net).__name__.lower(), block, flatten(outputs)))
        hooks.append(block.register_forward_hook(note))
        for child_name, child in block._children.items():
            if child not in watched:
                watched.add(child)
                watch(child, f"{name}.{child_name}" if name else child_name)

    watched = {net}
    watch(net, "")
    try:
        output = mx.sym.Group(flatten(net(mx.sym.var("data"))))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"symbols cannot pass through {type(net).__name__} ({type(error).__name__}: {error}); "
                        "a summary needs a HybridBlock with one input") from error
    finally:
        for hook in hooks:
            hook.detach()
    return calls, output


def _infer(symbol, shape, data="data"):
    """Iterator over the shapes of the symbol's outputs."""
    try:
        _, shapes, _ = symbol.infer_shape(**{data: shape})
    except mx.MXNetError as error:
        raise UserError(f"the network cannot take an input of shape {_shape_text(shape[1:])}: "
                        f"{str(error).strip().splitlines()[-1]}") from error
    if shapes is None:
        raise UserError(f"the shapes cannot be inferred from an input of shape {_shape_text(shape[1:])}")
    return iter(shapes)


def _inferred_shapes(output, shape):
    """{name: shape} of all parameters in the graph, also of those whose shapes the net does not know yet."""
    arguments, _, states = output.infer_shape(data=shape)
    return dict(zip(output.list_arguments() + output.list_auxiliary_states(), arguments + states))


def _parameter_sizes(net, output, shape):
    """{name of a trainable parameter: its size}; shapes that the net does not know yet are inferred."""
    inferred = _inferred_shapes(output, shape)
    return {name: _size(parameter, inferred.get(name, parameter.shape))
            for name, parameter in net.collect_params().items() if parameter.grad_req != "null"}


def _parameter_bytes(net, output, shape):
    """Memory of all parameters in float32, with or without gradient."""
    inferred = _inferred_shapes(output, shape)
    return sum(FLOAT * _size(parameter, inferred.get(name, parameter.shape))
               for name, parameter in net.collect_params().items())


def _macs_by_parameter(output, shape, counting, weights):
    """{name of the weight: multiply-adds of the operators that use it}; "" for weights computed from the input.

    Args:
        weights: {name of a weight: number of weights that exist} where the kernel is filled up with zeros; a block says
            so with the attribute `kernel_weights`.
    """
    if counting not in ("macs", "connections"):
        raise ValueError(f"counting is {counting!r}; expected 'macs' or 'connections'")
    graph = json.loads(output.tojson())
    nodes, names = graph["nodes"], [node["name"] for node in graph["nodes"]]
    # A block that is called twice makes two nodes of one name; by their numbers they can be told apart.
    for index, node in enumerate(nodes):
        node["name"] = str(index)
    internals = mx.sym.load_json(json.dumps(graph)).get_internals()
    shapes = {}
    for label, found in zip(internals.list_outputs(), _infer(internals, shape, str(names.index("data")))):
        shapes.setdefault(int(label.split("_")[0]), found)
    counts = {}
    for index, node in enumerate(nodes):
        if node["op"] not in ("Convolution", "Deconvolution", "FullyConnected"):
            continue
        data, weight = node["inputs"][0][0], node["inputs"][1][0]
        owner = _parameter_behind(nodes, names, weight)
        # Every output (a deconvolution's every input) meets all weights of its filter once.
        meeting = math.prod(shapes[data if node["op"] == "Deconvolution" else index])
        count = meeting * weights.get(owner, math.prod(shapes[weight])) // shapes[weight][0]
        if counting == "connections" and len(node["inputs"]) > 2:
            count += math.prod(shapes[index])
        counts[owner] = counts.get(owner, 0) + count
    return counts


def _parameter_behind(nodes, names, index):
    """Name of the one variable that a weight is computed from, or "" when the network's input is among them."""
    waiting, seen, variables = [index], {index}, []
    while waiting:
        index = waiting.pop()
        if nodes[index]["op"] == "null":
            variables.append(names[index])
        sources = {entry[0] for entry in nodes[index]["inputs"]} - seen
        seen |= sources
        waiting.extend(sources)
    return "" if "data" in variables or not variables else min(variables)


def overview(names, markdown=False):
    """A table of registered networks: name, paper, year, input, parameters, multiply-adds."""
    lines = []
    for name in names:
        spec = model_spec(name)
        counted = f"{spec.macs:,}" + (" (connections)" if spec.counting == "connections" else "")
        lines.append((name, spec.paper, str(spec.year), _shape_text(spec.input_shape), f"{spec.params:,}", counted))
    return format_table(("network", "paper", "year", "input", "parameters", "multiply-adds"), lines, markdown)
