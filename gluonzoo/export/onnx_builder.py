"""ONNX nodes put together for a `Graph`: names, constants, sizes that are known, and the operator set that is needed."""
import numpy as np

from .metadata import ExportError

__all__ = ["Builder", "LOWEST", "HIGHEST", "axes_of", "into", "ir_version", "known_sizes"]

#: Operator sets that can be written. 13 is the first in which the axes of Unsqueeze, Squeeze and ReduceSum are inputs; what
#: changed up to 21 in the operators used here is the form of ReduceMean's axes (18), Split's count (18) and GridSample's
#: name for linear (20).
LOWEST, HIGHEST = 13, 21


def ir_version(opset):
    """The file format's version: the oldest that may carry an operator set, so that old runtimes load the file.

    onnxruntime 1.15 loads version 9 and operator sets up to 19. Source: ONNX, docs/Versioning.md, table of releases.
    """
    return 8 if opset <= 18 else 9 if opset <= 20 else 10


def known_sizes(graph, shapes):
    """{entry: sizes of its axes}, None for an axis whose size depends on the input.

    Args: shapes: two or more inputs' (N, C, H, W) that differ wherever the input may.
    """
    found = [graph.shapes(shape) for shape in shapes]
    return {entry: tuple(sizes[0] if len(set(sizes)) == 1 and sizes[0] > 0 else None
                         for sizes in zip(*(shapes[entry] for shapes in found)))
            for entry in found[0]}


def into(table):
    """A decorator that enters a function into a table of operators under MXNet's names for them."""
    def names(*names):
        def add(function):
            table.update(dict.fromkeys(names, function))
            return function
        return add
    return names


def axes_of(value, rank):
    """MXNet's axis (None or () for all, a number, or several) as numbers from 0 on, None for all."""
    if value is None or value == ():
        return None
    return sorted(axis % rank for axis in (value if isinstance(value, (tuple, list)) else (value,)))


class Builder:
    """The ONNX nodes of one graph, growing.

    Parameters become initializers under their own names, and nothing else does: every constant is a Constant node, so that
    the initializers of a file are the network's parameters.

    Args:
        graph: `Graph`. sizes: of `known_sizes`. opset: the operator set to write, None for the lowest that will do.
    """

    def __init__(self, graph, sizes, opset=None):
        self.graph, self.sizes, self.asked = graph, sizes, opset
        self.opset = opset or LOWEST
        self.reason = None  # The node that needs more than the lowest operator set.
        self.nodes, self.values = [], {}
        self.taken = {graph.input, *graph.parameters, *graph.output_names}
        self._node, self._constants = None, {}
        self.values[(graph.input, 0)] = graph.input
        for name in graph.parameters:
            self.values[(name, 0)] = name

    # For the functions that translate one operator

    def sizes_of(self, node, position=0):
        """Sizes of a node's input, None where they depend on the network's input."""
        return self.sizes[node.inputs[position]]

    def need(self, opset, what):
        """Demand an operator set. Raises: ExportError when a lower one was asked for."""
        if self.opset < opset:
            if self.asked:
                raise ExportError(f"opset is {self.asked}; {self._node.op} {self._node.name!r} becomes {what}, which needs at "
                                  f"least {opset}")
            self.opset, self.reason = opset, self._node.name

    def emit(self, op, *inputs, outputs=1, **attributes):
        """Add an ONNX node that reads these values; returns the name of its output, or a list of names for several."""
        from onnx import helper
        base = f"{self._node.name}/{op}"
        names = [self._unique(base) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=names[0], **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value, dtype=None):
        """The name of a constant: a NumPy array, a number (float32) or numbers; the same value is written once."""
        from onnx import helper, numpy_helper
        value = np.asarray(value, dtype=dtype or (value.dtype if isinstance(value, np.ndarray) else np.float32))
        key = value.dtype.str, value.shape, value.tobytes()
        if key not in self._constants:
            name = self._unique("constant/" + "x".join(map(str, value.shape or ("scalar",))))
            tensor = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
            self.nodes.append(helper.make_node("Constant", [], [name], name=name, value=tensor))
            self._constants[key] = name
        return self._constants[key]

    def whole(self, *numbers):
        """A constant of 64-bit whole numbers, in one axis."""
        return self.constant(np.array(numbers, dtype=np.int64))

    def scalar(self, number):
        """A constant 64-bit whole number without axes."""
        return self.constant(np.array(number, dtype=np.int64))

    def size(self, value, axis):
        """The size of an axis as a tensor of one whole number, found while the graph runs."""
        return self.emit("Gather", self.emit("Shape", value), self.whole(axis), axis=0)

    def reduce(self, op, value, axes, keepdims):
        """ReduceMean, ReduceSum or ReduceMax; axes None for all. ReduceSum's axes were an input first."""
        keepdims = int(keepdims)
        if axes is None:
            return self.emit(op, value, keepdims=keepdims)
        if op == "ReduceSum" or self.opset >= 18:
            return self.emit(op, value, self.whole(*axes), keepdims=keepdims)
        return self.emit(op, value, axes=list(axes), keepdims=keepdims)

    def refuse(self, what):
        """Raise ExportError about the node being translated."""
        raise ExportError(f"{self._node.op} {self._node.name!r}: {what} has no translation to ONNX here")

    # The whole graph

    def translate(self, table):
        """Translate every operator by a table {MXNet's name: function(builder, node, *values) -> value or values}.

        Raises: ExportError naming the operator and the node that the table lacks.
        """
        wanted = {}
        for entry, name in zip(self.graph.outputs, self.graph.output_names):
            wanted.setdefault(entry, name)
        for node in self.graph.operators:
            if node.op not in table:
                raise ExportError(f"operator {node.op} of node {node.name!r} has no translation to ONNX here; known are "
                                  f"{', '.join(sorted(table))}")
            self._node, first = node, len(self.nodes)
            results = table[node.op](self, node, *(self.values[entry] for entry in node.inputs))
            results = list(results) if isinstance(results, (list, tuple)) else [results]
            made = {name for new in self.nodes[first:] if new.op_type != "Constant" for name in new.output}
            for index, result in enumerate(results):
                entry = (node.name, index)
                if result in made:
                    result = self._rename(first, result, wanted.get(entry) or self._unique(
                        node.name if len(results) == 1 else f"{node.name}_{index}"))
                self.values[entry] = result
        self._finish(wanted)
        return self

    def _finish(self, wanted):
        """Give outputs that are no operator's own value (an input, an alias, a second name) a node of their own."""
        from onnx import helper
        for entry, name in zip(self.graph.outputs, self.graph.output_names):
            if self.values[entry] != name:
                self.nodes.append(helper.make_node("Identity", [self.values[entry]], [name], name=name))

    def _rename(self, first, old, new):
        """Rename a value made since the node number `first`."""
        for node in self.nodes[first:]:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == old:
                        names[index] = new
            if node.name == old:
                node.name = new
        self.taken.discard(old)
        return new

    def _unique(self, name):
        unique, number = name, 0
        while unique in self.taken:
            number += 1
            unique = f"{name}_{number}"
        self.taken.add(unique)
        return unique
