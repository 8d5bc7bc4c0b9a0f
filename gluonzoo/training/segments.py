"""Where a network's graph is cut so that its segments can be computed one at a time."""
import json
from collections import namedtuple

import mxnet as mx
import numpy as np

from ..errors import UserError

__all__ = ["Segment", "cut_points", "operators", "split"]

Segment = namedtuple("Segment", ["symbol", "inputs", "outputs", "last", "draws"])
Segment.__doc__ = """Part of a network's graph.

symbol: its outputs; inputs: {name of its variable: entry} of what it reads from earlier segments or of the network's input;
outputs: the entries that the symbol gives; last: the last operator's name; draws: whether it draws random numbers.
An entry is (number of the node in the network's graph, which of its outputs)."""

#: About so many sizes of the largest segment are tried.
_LIMITS = 64
#: In the names of operators that draw random numbers.
_DRAWING = ("dropout", "random", "sample_", "shuffle")


def operators(symbol):
    """The names of a symbol's operators."""
    return {node["op"] for node in json.loads(symbol.tojson())["nodes"]} - {"null"}


class _Nodes:
    """A symbol's nodes, who reads what, and how many bytes each one's outputs have."""

    def __init__(self, symbol, data, shapes):
        graph = json.loads(symbol.tojson())
        self.nodes = graph["nodes"]
        self.heads = [(node, index) for node, index, *_ in graph["heads"]]
        #: Numbers of the operators, in the order in which they are computed, and of the network's input.
        self.operators = [number for number, node in enumerate(self.nodes) if node["op"] != "null"]
        self.data = next(number for number, node in enumerate(self.nodes) if node["op"] == "null" and node["name"] == data)
        self.place = {number: place for place, number in enumerate(self.operators)}
        internals = symbol.get_internals()
        entries = [(node, index) for node, index, *_ in json.loads(internals.tojson())["heads"]]
        _, sizes, _ = internals.infer_shape(**shapes)
        self.sizes = {entry: 4 * int(np.prod(size)) for entry, size in zip(entries, sizes)}

    def is_entry(self, number):
        """Whether a node's outputs are maps and not a parameter."""
        return number in self.place or number == self.data

    def last_uses(self):
        """{entry: place of the last operator that reads it}; of what the network gives, behind all operators."""
        uses = {}
        for place, number in enumerate(self.operators):
            for source, index, *_ in self.nodes[number]["inputs"]:
                if self.is_entry(source):
                    uses[source, index] = place
        uses.update(dict.fromkeys(self.heads, len(self.operators)))
        return uses

    def shared(self):
        """[(first, last)] places of operators that share a parameter. Between them there is no cut: its gradient would be
        written by two segments."""
        found = {}
        for place, number in enumerate(self.operators):
            for source, *_ in self.nodes[number]["inputs"]:
                if not self.is_entry(source):
                    found.setdefault(source, []).append(place)
        return [(places[0], places[-1]) for places in found.values() if len(places) > 1]


def cut_points(costs, crossing, segments):
    """After which operators a chain is cut so that what must be kept at once is least.

    That is what crosses all cuts, and the most that one segment holds within.

    Args: costs: (L,) bytes that each operator makes. crossing: {place of an operator: bytes that cross a cut behind it}, of those
        behind which there may be one. segments: at most so many.
    Returns: sorted list of places, the last operators of all segments but the last one.
    """
    places = sorted(crossing)
    if segments == 1 or not places:
        return []
    ends = np.concatenate([[0], np.cumsum(costs)])
    bounds = np.array([0, *(place + 1 for place in places), len(costs)])  # Where a segment may begin or end.
    within = ends[bounds][None, :] - ends[bounds][:, None]  # Bytes of the segment from one bound to another.
    paid = np.array([0, *(crossing[place] for place in places), 0], dtype=np.float64)  # For ending there.
    ordered = np.arange(len(bounds))[None, :] > np.arange(len(bounds))[:, None]
    best = None
    limits = np.unique(within[ordered])
    limits = limits[limits * segments >= ends[-1]]  # Below that so many segments cannot hold it all.
    for limit in limits[::max(1, len(limits) // _LIMITS)]:
        step = np.where(ordered & (within <= limit), paid[None, :], np.inf)
        total, back = np.where(np.arange(len(bounds)) == 0, 0.0, np.inf), []
        ways = []
        for _ in range(segments):
            reached = total[:, None] + step
            back.append(reached.argmin(axis=0))
            total = reached.min(axis=0)
            ways.append(total[-1])
        count = int(np.argmin(ways))
        if np.isfinite(ways[count]) and (best is None or ways[count] + limit < best[0]):
            chosen, at = [], len(bounds) - 1
            for step_back in reversed(back[:count + 1]):
                at = int(step_back[at])
                chosen.append(at)
            best = ways[count] + limit, sorted(int(bounds[at]) - 1 for at in chosen if at)
    return best[1] if best else []


def split(symbol, shapes, segments, data="data"):
    """Cut a network's symbol into at most so many segments.

    Cuts lie where a single map leads on, unless there are too few such places. Operators that share a parameter stay together.

    Args: symbol: of the whole network; shapes: {variable: shape} of its input and parameters; data: the input's name.
    Returns: (list of `Segment`, entries that the network gives).
    Raises: UserError when `segments` is no whole number of at least 1.
    """
    if not isinstance(segments, (int, np.integer)) or isinstance(segments, bool) or segments < 1:
        raise UserError(f"segments is {segments!r}; expected a whole number of at least 1")
    graph = _Nodes(symbol, data, shapes)
    uses = graph.last_uses()
    costs = [sum(graph.sizes.get((number, index), 0) for index in range(4)) for number in graph.operators]
    together = graph.shared()
    single, several = {}, {}
    for place in range(len(graph.operators) - 1):
        crossing = [entry for entry, last in uses.items() if last > place and graph.place.get(entry[0], -1) <= place]
        # The input stays in the first segment, where its own gradient is asked for in one place.
        if (graph.data, 0) in crossing or any(first <= place < last for first, last in together):
            continue
        several[place] = sum(graph.sizes[entry] for entry in crossing)
        if len(crossing) == 1:
            single[place] = several[place]
    cuts = cut_points(costs, single if len(single) >= segments - 1 else several, int(segments))
    bounds = [0, *(cut + 1 for cut in cuts), len(graph.operators)]
    parts = [_part(graph, graph.operators[first:last], uses) for first, last in zip(bounds, bounds[1:])]
    return parts, graph.heads


def _part(graph, numbers, uses):
    """The `Segment` of consecutive operators."""
    inside, nodes, inputs, index_of = set(numbers), [], {}, {}

    def variable(key, name):
        if key not in index_of:
            index_of[key] = len(nodes)
            nodes.append({"op": "null", "name": name, "inputs": []})
        return index_of[key]

    for number in numbers:
        node, entries = graph.nodes[number], []
        for source, index, *_ in node["inputs"]:
            if source in inside:
                entries.append([index_of[source], index, 0])
            elif graph.is_entry(source):
                name = f"segment_input_{source}_{index}"
                inputs[name] = source, index
                entries.append([variable((source, index), name), 0, 0])
            else:
                entries.append([variable(source, graph.nodes[source]["name"]), 0, 0])
        index_of[number] = len(nodes)
        nodes.append({**node, "inputs": entries})
    last = graph.place[numbers[-1]]
    outputs = sorted(entry for entry, use in uses.items() if entry[0] in inside and use > last)
    leaves = [place for place, node in enumerate(nodes) if node["op"] == "null"]
    text = json.dumps({"nodes": nodes, "arg_nodes": leaves, "node_row_ptr": list(range(len(nodes) + 1)),
                       "heads": [[index_of[number], index, 0] for number, index in outputs],
                       "attrs": {"mxnet_version": ["int", 10901]}})
    draws = any(word in graph.nodes[number]["op"].lower() for number in numbers for word in _DRAWING)
    return Segment(mx.sym.load_json(text), inputs, outputs, graph.nodes[numbers[-1]]["name"], draws)
