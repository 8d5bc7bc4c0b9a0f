"""Where channels lie in memory: widths that oneDNN's fastest kernels take, and no operator that only moves channels.

oneDNN 2.4 runs a convolution whose channels are not a multiple of 16 by its AVX2 or its matrix-product kernels. Here every
map gets a width of a multiple of 16; the extra channels have zero weights. A slice, a concatenation or a shuffle of channels
then is only another table of which channel lies where, and the next layer's weights are arranged by it.
"""
from dataclasses import dataclass
from typing import Tuple

import numpy as np

from .graph import VARIABLE, Graph, Node

__all__ = ["arrange_channels", "shuffles"]

#: Channels in a block of AVX-512's layouts.
BLOCK = 16
#: A map is widened by at most this factor; a narrow one (LeNet's 6 channels) stays as it is.
WIDEST = 1.5
#: A 1x1 convolution reads a map of at most so many times the channels that it needs, before they are gathered.
READ = 2.3

#: Operators that work value by value, or on each channel's map alone: (name, whether zeros stay zeros).
_PLAIN = {"Activation": None, "LeakyReLU": None, "clip": None, "sigmoid": False, "tanh": True, "relu": True, "abs": True,
          "square": True, "negative": True, "_mul_scalar": True, "_div_scalar": True, "_plus_scalar": False,
          "_minus_scalar": False, "Pooling": True, "Pad": None, "mean": True}
_ELEMENTWISE = {"elemwise_add", "elemwise_sub", "elemwise_mul", "broadcast_add", "broadcast_sub", "broadcast_mul"}


@dataclass(frozen=True, eq=False)
class Placed:
    """Channels of a tensor (N, C, ...) of the old graph in one of the new graph.

    Args:
        entry: in the new graph.
        places: (C,) whole numbers: which of its channels is each of the old ones.
        width: its channels.
        shape: of the old tensor, batch 1; sizes that are not known are 0.
        zeros: whether the channels that are no places hold zeros.
    """
    entry: Tuple[str, int]
    places: np.ndarray
    width: int
    shape: Tuple[int, ...]
    zeros: bool = True

    @property
    def in_order(self):
        return np.array_equal(self.places, np.arange(len(self.places)))

    @property
    def plain(self):
        return self.width == len(self.places) and self.in_order


def padded(channels):
    """The width that a map of so many channels gets."""
    width = -(-channels // BLOCK) * BLOCK
    return width if width <= WIDEST * channels else channels


def arrange_channels(graph, input_shape):
    """A new graph of the same function whose maps have the widths and the order of channels that run fastest.

    Args:
        input_shape: (C, H, W); only C matters where the network takes any size.
    """
    return _Arranger(graph, graph.shapes((1,) + tuple(input_shape))).run()


class _Arranger:
    def __init__(self, graph, shapes):
        self.old, self.shapes = graph, shapes
        self.new = Graph([], {}, [])
        self.placed, self._selected = {}, {}
        self.readers = graph.consumers()
        # A shuffle ahead of a grouped convolution that is no depthwise one would have to be undone by another operator.
        grouped = any(node.op == "Convolution" and 1 < node.attrs.get("num_group", 1) < node.attrs["num_filter"]
                      for node in graph.operators)
        self.shuffles = {} if grouped else dict(shuffles(graph, self.readers))

    def run(self):
        skipped = {name for _, inner in self.shuffles.values() for name in inner}
        for node in self.old.nodes.values():
            if node.op == VARIABLE:
                if node.name == Graph.input:
                    self.new.append(Node(VARIABLE, node.name, dict(node.attrs)))
                    self._put(node, node.entry, None, None)
            elif node.name in self.shuffles:
                groups, inner = self.shuffles[node.name]
                data = self.placed[self.old.nodes[inner[0]].inputs[0]]
                self._put(node, data.entry, data.places.reshape(groups, -1).T.ravel(), data.width, data.zeros)
            elif node.name not in skipped:
                handler = getattr(self, "_" + node.op.lower(), None) if node.op in _HANDLED else None
                handler = handler or (self._per_channel if node.op in _PLAIN else None)
                handler = handler or (self._together if node.op in _ELEMENTWISE else None)
                if handler is None or not handler(node):
                    self._unknown(node)
        self.new.outputs = [self._plainly(self.placed[entry]) for entry in self.old.outputs]
        self.new.output_names = self.old.output_names
        return self.new.prune()

    # Making nodes

    def _put(self, node, entry, places, width, zeros=True, index=0):
        shape = self.shapes.get((node.name, index), ())
        channels = shape[1] if len(shape) > 1 else 0
        if places is None:
            places, width = np.arange(channels), channels
        self.placed[node.name, index] = Placed(entry, places, width, shape, zeros)
        return True

    def _parameter(self, name, value):
        number, free = 0, name
        while free in self.new.nodes:
            number += 1
            free = f"{name}_{number}"
        self.new.parameters[free] = value
        return self.new.append(Node(VARIABLE, free, {"__shape__": tuple(value.shape)})).entry

    def _copied(self, entry):
        """The entry of the new graph for one that is a parameter in the old one, taken as it is."""
        if entry[0] not in self.new.nodes:
            node = self.old.nodes[entry[0]]
            self.new.parameters[entry[0]] = self.old.parameters[entry[0]]
            self.new.append(Node(VARIABLE, node.name, dict(node.attrs)))
        return entry

    def _data(self, node, position=0):
        """The placed input of a node, or None when it is a parameter or has no channels."""
        placed = self.placed.get(node.inputs[position])
        return placed if placed is not None and len(placed.places) else None

    def _values(self, node):
        """The arrays of all inputs but the first, or None when one is no parameter."""
        values = [self.old.value(entry) for entry in node.inputs[1:]]
        return None if any(value is None for value in values) else values

    def _plainly(self, data):
        """The entry of exactly the old tensor."""
        return data.entry if data.plain or not len(data.places) else self._select(data, len(data.places)).entry

    def _compact(self, data):
        """The same channels with little between them, in the order in which they lie."""
        if data.width <= max(WIDEST * len(data.places), padded(len(data.places))):
            return data
        return self._select(data, padded(len(data.places)) if len(data.shape) == 4 else len(data.places))

    def _select(self, data, width):
        """The channels in their order from 0, and zeros up to `width`; one operator."""
        key = data.entry, data.places.tobytes(), width
        if key in self._selected:
            return self._selected[key]
        count, first = len(data.places), int(data.places[0])
        name = f"{data.entry[0]}_select{len(self._selected)}"
        if width == count and np.array_equal(data.places, np.arange(first, first + count)):
            node = Node("slice_axis", name, {"axis": 1, "begin": first, "end": first + count}, [data.entry])
        elif len(data.shape) == 4:
            weight = np.zeros((width, data.width, 1, 1), np.float32)
            weight[np.arange(count), data.places] = 1
            node = Node("Convolution", name, {"kernel": (1, 1), "num_filter": width, "no_bias": True, "num_group": 1},
                        [data.entry, self._parameter(name + "_weight", weight)])
        else:
            index = self._parameter(name + "_index", data.places.astype(np.float32))
            node = Node("take", name, {"axis": 1}, [data.entry, index])
        entry = self.new.append(node).entry
        self._selected[key] = Placed(entry, np.arange(count), width, data.shape)
        return self._selected[key]

    def _unknown(self, node):
        """An operator as it is, on the old tensors."""
        inputs = [self._copied(entry) if self.old.value(entry) is not None else self._plainly(self.placed[entry])
                  for entry in node.inputs]
        self.new.append(Node(node.op, node.name, dict(node.attrs), inputs, list(node.subgraphs)))
        for name, index in self.shapes:
            if name == node.name:
                self._put(node, (name, index), None, None, index=index)

    # Operators. Each returns whether it could place the node.

    def _convolution(self, node):
        data, values = self._data(node), self._values(node)
        if data is None or values is None or len(data.shape) != 4:
            return False
        weight, bias = values[0], values[1] if len(values) > 1 else None
        count, groups = weight.shape[0], node.attrs.get("num_group", 1)
        if groups == 1:
            limit = READ if weight.shape[2:] == (1, 1) else WIDEST
            if data.width > max(limit * len(data.places), padded(len(data.places))):
                data = self._compact(data)
            width, places = padded(count), np.arange(count)
            arranged = np.zeros((width, data.width) + weight.shape[2:], np.float32)
            arranged[:count, data.places] = weight
        elif groups == count == len(data.places):
            data = self._compact(data)
            width, places = data.width, data.places
            arranged = np.zeros((width,) + weight.shape[1:], np.float32)
            arranged[places] = weight
            groups = width
        else:
            return False
        inputs = [data.entry, self._parameter(node.inputs[1][0], arranged)]
        if bias is not None:
            spread = np.zeros(width, np.float32)
            spread[places] = bias
            inputs.append(self._parameter(node.inputs[2][0], spread))
        attrs = dict(node.attrs, num_filter=width, num_group=groups)
        return self._put(node, self.new.append(Node(node.op, node.name, attrs, inputs)).entry, places, width)

    def _batchnorm(self, node):
        data, values = self._data(node), self._values(node)
        if data is None or values is None or node.attrs.get("axis", 1) != 1:
            return False
        inputs = [data.entry]
        for (name, _), value, rest in zip(node.inputs[1:], values, (0, 0, 0, 1)):  # gamma, beta, mean, variance
            spread = np.full(data.width, rest, np.float32)
            spread[data.places] = value
            inputs.append(self._parameter(name, spread))
        entry = self.new.append(Node(node.op, node.name, dict(node.attrs), inputs)).entry
        return self._put(node, entry, data.places, data.width, data.zeros)

    def _per_channel(self, node):
        data = self._data(node)
        if data is None or len(node.inputs) != 1 or node.op == "mean" and sorted(np.ravel(node.attrs["axis"])) != [2, 3]:
            return False
        keeps = _PLAIN[node.op]
        if keeps is None:
            attrs = node.attrs
            keeps = {"Activation": attrs.get("act_type") in ("relu", "tanh"), "LeakyReLU": True,
                     "clip": float(attrs.get("a_min", 1)) <= 0 <= float(attrs.get("a_max", -1)),
                     "Pad": attrs.get("mode") == "constant" and not float(attrs.get("constant_value", 0))}[node.op]
        if node.op == "LeakyReLU" and node.attrs.get("act_type", "leaky") not in ("leaky", "elu"):
            return False
        if node.op == "Pad" and any(node.attrs["pad_width"][:4]):
            return False
        entry = self.new.append(Node(node.op, node.name, dict(node.attrs), [data.entry])).entry
        return self._put(node, entry, data.places, data.width, data.zeros and keeps)

    def _lrn(self, node):
        data = self._data(node)
        if data is None or not (data.zeros and data.in_order):
            return False  # It sums over neighbouring channels.
        entry = self.new.append(Node(node.op, node.name, dict(node.attrs), [data.entry])).entry
        return self._put(node, entry, data.places, data.width)

    def _together(self, node):
        parts = [self._data(node, position) for position in range(len(node.inputs))]
        if any(part is None for part in parts) or len({(part.shape[1], len(part.shape)) for part in parts}) != 1:
            return False
        first = parts[0]
        if any(part.width != first.width or not np.array_equal(part.places, first.places) for part in parts):
            if len(first.shape) != 4:
                return False
            width = padded(len(first.places))
            parts = [part if part.in_order and part.width == width else self._select(part, width) for part in parts]
            first = parts[0]
        entry = self.new.append(Node(node.op, node.name, dict(node.attrs), [part.entry for part in parts])).entry
        return self._put(node, entry, first.places, first.width, all(part.zeros for part in parts))

    def _concat(self, node):
        parts = [self._data(node, position) for position in range(len(node.inputs))]
        if any(part is None for part in parts) or node.attrs.get("dim", 1) != 1:
            return False
        parts = [self._compact(part) for part in parts]
        starts = np.cumsum([0] + [part.width for part in parts])
        places = np.concatenate([part.places + start for part, start in zip(parts, starts)])
        entry = self.new.append(Node(node.op, node.name, dict(node.attrs), [part.entry for part in parts])).entry
        return self._put(node, entry, places, int(starts[-1]), all(part.zeros for part in parts))

    def _slice_axis(self, node):
        data, axis = self._data(node), node.attrs["axis"]
        if data is None or axis != 1 or len(data.shape) != 4:
            return False
        begin, end = node.attrs.get("begin", 0), node.attrs.get("end")
        places = data.places[begin:None if end in (None, "None") else end]
        part = Placed(data.entry, places, data.width, self.shapes[node.entry], data.zeros)
        if int(places[0]) % BLOCK == 0 and len(places) % BLOCK == 0 and np.array_equal(
                places, np.arange(places[0], places[0] + len(places))) and not self.shuffles:
            part = self._select(part, len(places))  # Whole blocks: a copy costs less than zero weights in every reader.
        return self._put(node, part.entry, part.places, part.width, part.zeros)

    def _flatten(self, node):
        data = self._data(node)
        if data is None or len(data.shape) != 4 or not all(data.shape[2:]):
            return False
        places, width = _flat(data)
        entry = self.new.append(Node(node.op, node.name, dict(node.attrs), [data.entry])).entry
        return self._put(node, entry, places, width, data.zeros)

    def _fullyconnected(self, node):
        data, values = self._data(node), self._values(node)
        if data is None or values is None or data.plain or not node.attrs.get("flatten", True):
            return False
        if len(data.shape) == 4 and all(data.shape[2:]):
            places, width = _flat(data)
        elif len(data.shape) == 2:
            places, width = data.places, data.width
        else:
            return False
        arranged = np.zeros((values[0].shape[0], width), np.float32)
        arranged[:, places] = values[0]
        inputs = [data.entry, self._parameter(node.inputs[1][0], arranged)] + [self._copied(e) for e in node.inputs[2:]]
        return self._put(node, self.new.append(Node(node.op, node.name, dict(node.attrs), inputs)).entry, None, None)


_HANDLED = {"Convolution", "BatchNorm", "LRN", "Concat", "slice_axis", "Flatten", "FullyConnected"}


def _flat(data):
    """(places, width) of a map's values in one row: channels, rows, columns."""
    pixels = data.shape[2] * data.shape[3]
    return (data.places[:, None] * pixels + np.arange(pixels)).ravel(), data.width * pixels


def shuffles(graph, readers):
    """(name of the last node, (groups, names of the two before it)) of every channel shuffle of `layers.ChannelShuffle`."""
    for last in graph.operators:
        if last.op != "Reshape" or len(np.ravel(last.attrs["shape"])) != 4:
            continue
        middle = graph.source(last)
        first = graph.source(middle) if middle.op == "transpose" else None
        if first is None or first.op != "Reshape" or len(readers[middle.entry]) != 1 or len(readers[first.entry]) != 1:
            continue
        rows, flat = tuple(first.attrs["shape"]), tuple(last.attrs["shape"])
        if (first.attrs.get("reverse") and last.attrs.get("reverse") and middle.attrs.get("axes") == (0, 2, 1, 3, 4)
                and len(rows) == 5 and rows[0] == -1 and rows[3:] == (0, 0)
                and flat == (-1, rows[1] * rows[2], 0, 0)):
            yield last.name, (rows[1], (first.name, middle.name))
