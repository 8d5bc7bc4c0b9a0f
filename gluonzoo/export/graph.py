"""A network as data: the nodes of its symbol and its parameters, to be read, rewritten and run without the network's code."""
import ast
import json
from dataclasses import dataclass, field
from typing import Dict, List, Tuple

import mxnet as mx
import numpy as np

from .metadata import ExportError
from .symbol import _INPUT, _parameters, _trace, _values

__all__ = ["Graph", "Node", "VARIABLE"]

#: The operator of a node that computes nothing: the input, or a parameter.
VARIABLE = "null"


@dataclass
class Node:
    """An operator, or a variable (the input or a parameter).

    Args:
        op: MXNet's name of the operator, `VARIABLE` of a variable.
        name: each once in a graph; a parameter's is its structural name.
        attrs: by name, as Python values: (3, 3), True, 0.1, "relu".
        inputs: entries (name of a node, which of its outputs), in the operator's order.
        subgraphs: of a fused operator, as MXNet's JSON has them.
    """
    op: str
    name: str
    attrs: Dict[str, object] = field(default_factory=dict)
    inputs: List[Tuple[str, int]] = field(default_factory=list)
    subgraphs: list = field(default_factory=list)

    @property
    def entry(self):
        """(name, 0): the first output, which for most operators is the only one."""
        return self.name, 0


class Graph:
    """A network's nodes, parameters and outputs; inference mode, one input named "data".

    Args:
        nodes: `Node`s, each behind those that it reads.
        parameters: {structural name: NumPy array}, auxiliary states (running statistics) among them.
        outputs: entries (name of a node, which of its outputs).
        output_names: a name for each output; the nodes' by default.
    Raises: ExportError when a node reads one that does not stand before it, or two have one name.
    """
    input = _INPUT

    def __init__(self, nodes, parameters, outputs, output_names=None):
        #: {name: Node}, in an order in which they can be computed.
        self.nodes = {}
        self.parameters = dict(parameters)
        self.outputs = [tuple(entry) for entry in outputs]
        self.output_names = tuple(output_names or (name for name, _ in self.outputs))
        for node in nodes:
            self.append(node)
        for name, _ in self.outputs:
            if name not in self.nodes:
                raise ExportError(f"output {name!r} of the graph is none of its nodes")

    @classmethod
    def from_net(cls, net):
        """The graph of an initialised HybridBlock of one input; the parameters are copies.

        Raises: ExportError when it is not initialised, or a parameter holds NaN or infinity.
        """
        parameters = _parameters(net)
        names, text = _trace(net, parameters)
        return cls.from_symbol(text, _values(text, parameters), names)

    @classmethod
    def from_symbol(cls, symbol, parameters, output_names=None):
        """The graph of a symbol (or its JSON text) and its parameters, with or without "arg:" and "aux:" before their names.

        Raises: ExportError when the symbol reads other variables than these and "data".
        """
        if isinstance(symbol, mx.sym.Symbol):
            symbol = symbol.tojson()
        graph = json.loads(symbol)
        names = [node["name"] for node in graph["nodes"]]
        nodes = [Node(node["op"], node["name"], {key: _parsed(text) for key, text in node.get("attrs", {}).items()},
                      [(names[entry[0]], entry[1]) for entry in node["inputs"]], node.get("subgraphs", []))
                 for node in graph["nodes"]]
        values = {name[4:] if name[:4] in ("arg:", "aux:") else name: value for name, value in parameters.items()}
        lost = [node.name for node in nodes if node.op == VARIABLE and node.name != _INPUT and node.name not in values]
        if lost:
            raise ExportError(f"the graph reads {lost[0]!r}, which is neither its input nor a parameter")
        return cls(nodes, values, [(names[entry[0]], entry[1]) for entry in graph["heads"]], output_names)

    def copy(self):
        """Another graph that may be changed; arrays of parameters are shared."""
        nodes = [Node(node.op, node.name, dict(node.attrs), list(node.inputs), list(node.subgraphs))
                 for node in self.nodes.values()]
        return Graph(nodes, self.parameters, self.outputs, self.output_names)

    def with_outputs(self, entries):
        """A copy of this graph that gives these entries instead, without what they do not need."""
        graph = self.copy()
        graph.outputs = [tuple(entry) for entry in entries]
        graph.output_names = tuple(name if index == 0 else f"{name}_{index}" for name, index in graph.outputs)
        return graph.prune()

    # Reading

    @property
    def operators(self):
        """The nodes that compute something, in order."""
        return [node for node in self.nodes.values() if node.op != VARIABLE]

    def source(self, node, position=0):
        """The node that feeds one of a node's inputs."""
        return self.nodes[node.inputs[position][0]]

    def value(self, entry):
        """The array of an entry that is a parameter, else None."""
        return self.parameters.get(entry[0]) if self.nodes[entry[0]].op == VARIABLE else None

    def consumers(self):
        """{entry: [(node that reads it, position among its inputs)]}; the graph's outputs are not among the readers."""
        found = {}
        for node in self.nodes.values():
            for position, entry in enumerate(node.inputs):
                found.setdefault(entry, []).append((node, position))
        return found

    def shapes(self, input_shape):
        """{entry: shape} for an input of `input_shape`, (N, C, H, W); a size that MXNet cannot infer is 0.

        Raises: ExportError when the input does not fit.
        """
        internals = self.to_symbol().get_internals()
        names = [node["name"] for node in json.loads(internals.tojson())["nodes"]]
        heads = [(names[entry[0]], entry[1]) for entry in json.loads(internals.tojson())["heads"]]
        # Parameters that the symbol does not read would be refused.
        given = {name: value.shape for name, value in self.parameters.items() if name in set(names)}
        if _INPUT in names:
            given[_INPUT] = tuple(input_shape)
        try:
            _, shapes, _ = internals.infer_shape_partial(**given)
        except mx.MXNetError as error:
            raise ExportError(f"the graph does not take an input of shape {tuple(input_shape)}: {error}") from None
        return {entry: tuple(shape) for entry, shape in zip(heads, shapes or ())}

    # Writing

    def append(self, node):
        """Add a node at the end. Raises: ExportError when its name is taken or it reads a node that is not there."""
        if node.name in self.nodes:
            raise ExportError(f"the graph has two nodes named {node.name!r}")
        for name, _ in node.inputs:
            if name not in self.nodes:
                raise ExportError(f"{node.op} {node.name!r} reads {name!r}, which does not stand before it")
        self.nodes[node.name] = node
        return node

    def insert(self, node, before):
        """Add a node in front of the one named `before`."""
        nodes, self.nodes = list(self.nodes.values()), {}
        for other in nodes:
            if other.name == before:
                self.append(node)
            self.nodes[other.name] = other
        if node.name not in self.nodes:
            raise ExportError(f"the graph has no node {before!r} to put {node.name!r} in front of")
        return node

    def add_parameter(self, name, value, before):
        """A new parameter, its variable in front of the node named `before`; returns its entry."""
        self.parameters[name] = value
        return self.insert(Node(VARIABLE, name, {"__shape__": tuple(value.shape)}), before).entry

    def redirect(self, old, new):
        """Let all that read the entry `old`, and the outputs, read `new`."""
        for node in self.nodes.values():
            node.inputs = [new if entry == old else entry for entry in node.inputs]
        self.outputs = [new if entry == old else entry for entry in self.outputs]

    def prune(self):
        """Drop nodes and parameters that no output needs, except the input; returns the graph."""
        needed, todo = {_INPUT}, [name for name, _ in self.outputs]
        while todo:
            name = todo.pop()
            if name not in needed:
                needed.add(name)
                todo.extend(source for source, _ in self.nodes[name].inputs)
        self.nodes = {name: node for name, node in self.nodes.items() if name in needed}
        self.parameters = {name: value for name, value in self.parameters.items() if name in self.nodes}
        return self

    # Back to MXNet

    def to_json(self):
        """The text of MXNet's JSON, with the outputs in their order."""
        numbers = {name: number for number, name in enumerate(self.nodes)}
        nodes = []
        for node in self.nodes.values():
            entry = {"op": node.op, "name": node.name, "inputs": [[numbers[name], index, 0] for name, index in node.inputs]}
            if node.attrs:
                entry["attrs"] = {key: str(value) for key, value in node.attrs.items()}
            if node.subgraphs:
                entry["subgraphs"] = node.subgraphs
            nodes.append(entry)
        leaves = [numbers[node.name] for node in self.nodes.values() if node.op == VARIABLE]
        return json.dumps({"nodes": nodes, "arg_nodes": leaves, "node_row_ptr": list(range(len(nodes) + 1)),
                           "heads": [[numbers[name], index, 0] for name, index in self.outputs],
                           "attrs": {"mxnet_version": ["int", 10901]}}, indent=2) + "\n"

    def to_symbol(self):
        """The MXNet symbol; one of several outputs where there are several."""
        return mx.sym.load_json(self.to_json())

    def to_block(self, ctx=None):
        """A SymbolBlock that computes the graph."""
        symbol = self.to_symbol()
        block = mx.gluon.SymbolBlock(symbol, [mx.sym.var(_INPUT, dtype="float32")])
        for name, parameter in block.collect_params().items():
            value = self.parameters[name]
            parameter._load_init(mx.nd.array(value, dtype=value.dtype), ctx or mx.cpu(), cast_dtype=True, dtype_source="saved")
        return block

    def run(self, data, ctx=None):
        """Compute the outputs for an input (N, C, H, W), a NumPy array: a list of NumPy arrays."""
        with mx.autograd.pause(train_mode=False):
            outputs = self.to_block(ctx)(mx.nd.array(data, dtype=np.float32, ctx=ctx))
        return [output.asnumpy() for output in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]


def _parsed(text):
    """An attribute's text as a Python value; what is no literal stays text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
