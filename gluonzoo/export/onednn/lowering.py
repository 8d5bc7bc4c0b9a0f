"""From a network's graph to steps: what oneDNN does in one call each, with activations and sums taken into what computes them."""
from dataclasses import dataclass, field
from typing import Dict, List, Tuple

import numpy as np

from ..fuse_fold import norm_scale_and_shift
from ..fuse_layout import shuffles
from ..graph import VARIABLE, Graph
from .library import CLAMP, ELTWISE

__all__ = ["Step", "Tensors", "Unsupported", "lower"]


class Unsupported(Exception):
    """An operator, or a form of it, that has no step here; the text says which."""


@dataclass
class Step:
    """One call.

    Args:
        kind: as the methods of `candidates.Maker` are named: "convolution", "dense", "pooling" and so on.
        inputs: numbers of tensors; a binary step and a concatenation read several.
        output: number of a tensor.
        values: what it is told, by kind.
        posts: done to the result in order: ("sum", number of a tensor), or (algorithm, alpha, beta).
        name: of the graph's node that it began with.
    """
    kind: str
    inputs: List[int]
    output: int
    name: str
    values: Dict[str, object] = field(default_factory=dict)
    posts: List[Tuple] = field(default_factory=list)

    @property
    def reads(self):
        """All tensors that it reads."""
        return list(self.inputs) + [post[1] for post in self.posts if post[0] == "sum"]


@dataclass
class Tensors:
    """A lowered network.

    Args:
        shapes: of each tensor, (N, C, H, W) or (N, features); number 0 is the input.
        steps: in an order in which they can run.
        outputs: numbers of the tensors that the network gives.
        forms: the outputs' shapes as the graph has them.
    """
    shapes: List[Tuple[int, ...]]
    steps: List[Step]
    outputs: List[int]
    forms: List[Tuple[int, ...]]


def lower(graph, input_shape):
    """The steps for an input (N, C, H, W).

    Raises: Unsupported when the graph has something that no step does.
    """
    return _Lowering(graph, input_shape).run()


_ACTIVATIONS = {"relu": ("relu", 0.0, 0.0), "sigmoid": ("sigmoid", 0.0, 0.0), "tanh": ("tanh", 0.0, 0.0),
                "softrelu": ("softrelu", 1.0, 0.0), "abs": ("abs", 0.0, 0.0), "square": ("square", 0.0, 0.0),
                "sqrt": ("sqrt", 0.0, 0.0)}
_SUMS = ("elemwise_add", "broadcast_add", "_plus", "_Plus")
_PRODUCTS = ("elemwise_mul", "broadcast_mul")


class _Lowering:
    def __init__(self, graph, input_shape):
        self.graph, self.known = graph, graph.shapes(input_shape)
        self.shapes, self.steps = [tuple(input_shape)], []
        self.tensor = {(Graph.input, 0): 0}  # Entry of the graph: number of a tensor.
        self.maker = {}  # Number of a tensor: index of the step that makes it.
        self.uses = {}
        for node in graph.nodes.values():
            for entry in node.inputs:
                self.uses[entry] = self.uses.get(entry, 0) + 1
        for entry in graph.outputs:
            self.uses[entry] = self.uses.get(entry, 0) + 2  # Never taken into another step.
        self.shuffled = dict(shuffles(graph, graph.consumers()))
        self.inner = {name for _, names in self.shuffled.values() for name in names}
        self.padded = {}  # Entry: ((above, left), (below, right)) zeros that the convolution reading it adds.

    def run(self):
        for node in self.graph.nodes.values():
            if node.name in self.shuffled:
                self._shuffle(node, *self.shuffled[node.name])
            elif node.op != VARIABLE and node.name not in self.inner:
                handler = getattr(self, "_on_" + node.op.strip("_").lower(), None)
                if node.op in _SUMS:
                    handler = self._sum
                elif node.op in _PRODUCTS:
                    handler = self._product
                elif handler is None:
                    handler = self._activation
                handler(node)
        forms = [self.known[entry] for entry in self.graph.outputs]
        outputs = [self._read(entry) for entry in self.graph.outputs]
        if any(number == 0 for number in outputs) or len(set(outputs)) < len(outputs):
            raise Unsupported("an output that is the input, or another output")
        return Tensors(self.shapes, self.steps, outputs, forms)

    # Entries and tensors

    def _read(self, entry):
        if entry not in self.tensor:
            raise Unsupported(f"{entry[0]} as a tensor")
        return self.tensor[entry]

    def _shape(self, entry):
        shape = self.known.get(entry, ())
        if not shape or 0 in shape:
            raise Unsupported(f"the unknown shape of {entry[0]}")
        return shape

    def _new(self, node, kind, inputs, shape, **values):
        number = len(self.shapes)
        self.shapes.append(tuple(int(size) for size in shape))
        self.maker[number] = len(self.steps)
        self.steps.append(Step(kind, inputs, number, node.name, values))
        self.tensor[node.entry] = number
        return self.steps[-1]

    def _value(self, node, position):
        value = self.graph.value(node.inputs[position])
        if value is None:
            raise Unsupported(f"{node.op} {node.name} with computed weights")
        return value

    def _alone(self, entry):
        """The step that makes an entry, if nothing but one node reads it."""
        number = self.tensor.get(entry)
        if self.uses.get(entry, 0) != 1 or number not in self.maker:
            return None
        step = self.steps[self.maker[number]]
        # Views have several entries a tensor: all but one of them would miss what is done to it.
        return step if [e for e, n in self.tensor.items() if n == number] == [entry] else None

    def _after(self, node, posts, kinds=("convolution", "dense", "binary", "pooling")):
        """Do something to each value of a node's input: in the step that makes it, if it may, else in one of its own."""
        entry = node.inputs[0]
        number = self._read(entry)
        step = self._alone(entry)
        if step is not None and step.kind == "norm" and not step.values["relu"] and posts == [(ELTWISE["relu"], 0.0, 0.0)]:
            step.values["relu"] = True
        elif step is not None and step.kind in kinds and len(step.posts) + len(posts) <= 4:
            step.posts.extend(posts)
        else:
            first, rest = posts[0], posts[1:]
            self._new(node, "eltwise", [number], self.shapes[number], algorithm=first).posts.extend(rest)
            return
        self.tensor[node.entry] = number

    # Layers

    def _on_convolution(self, node):
        attrs, weight = node.attrs, self._value(node, 1)
        if weight.ndim != 4 or attrs.get("layout") not in (None, "None", "NCHW"):
            raise Unsupported(f"{node.op} {node.name} of another layout than NCHW")
        bias = None if attrs.get("no_bias", False) else self._value(node, 2)
        own = _pair(attrs.get("pad"), 0)
        pads = tuple(tuple(map(sum, zip(own, more))) for more in self.padded.get(node.inputs[0], ((0, 0), (0, 0))))
        self._new(node, "convolution", [self._read(node.inputs[0])], self._shape(node.entry), weight=weight, bias=bias,
                  weight_name=node.inputs[1][0], groups=int(attrs.get("num_group", 1)), strides=_pair(attrs.get("stride"), 1),
                  dilates=tuple(size - 1 for size in _pair(attrs.get("dilate"), 1)), pads=pads)

    def _on_pad(self, node):
        """Zeros around a map that convolutions alone read, which add them."""
        widths = tuple(int(width) for width in node.attrs["pad_width"])
        readers = [other for other in self.graph.nodes.values() if node.entry in other.inputs]
        if (node.attrs.get("mode") != "constant" or float(node.attrs.get("constant_value", 0)) != 0 or any(widths[:4])
                or len(widths) != 8 or node.entry in self.graph.outputs
                or not all(reader.op == "Convolution" for reader in readers)):
            raise Unsupported(f"Pad {node.name} of this form")
        self.tensor[node.entry] = self._read(node.inputs[0])
        self.padded[node.entry] = (widths[4], widths[6]), (widths[5], widths[7])

    def _on_fullyconnected(self, node):
        number, weight = self._read(node.inputs[0]), self._value(node, 1)
        bias = None if node.attrs.get("no_bias", False) else self._value(node, 2)
        shape = self.shapes[number]
        if not node.attrs.get("flatten", True) and len(self.known[node.inputs[0]]) > 2:
            raise Unsupported(f"{node.op} {node.name} over a map's last axis")
        self._new(node, "dense", [number], self._shape(node.entry), weight=weight.reshape((len(weight),) + shape[1:]), bias=bias,
                  weight_name=node.inputs[1][0])

    def _on_pooling(self, node):
        attrs, number = node.attrs, self._read(node.inputs[0])
        shape, kind = self.shapes[number], attrs.get("pool_type", "max")
        if len(shape) != 4 or kind not in ("max", "avg") or attrs.get("layout") not in (None, "None", "NCHW"):
            raise Unsupported(f"{kind} pooling {node.name} of {len(shape)} axes")
        if attrs.get("global_pool", False):
            return self._global(node, number, kind)
        kernel, strides, pads = _pair(attrs["kernel"], 1), _pair(attrs.get("stride"), 1), _pair(attrs.get("pad"), 0)
        out = self._shape(node.entry)
        over = tuple((size - 1) * stride + window - (length + 2 * pad)
                     for size, stride, window, length, pad in zip(out[2:], strides, kernel, shape[2:], pads))
        if kind == "avg" and any(extra > 0 for extra in over):
            # MXNet divides by the part of the window inside of the padding; oneDNN by the whole window or the part in the map.
            if any(pads) and attrs.get("count_include_pad", True):
                raise Unsupported(f"average pooling {node.name} beyond its padding")
            kind = "avg_exclude"
        elif kind == "avg":
            kind = "avg_include" if attrs.get("count_include_pad", True) else "avg_exclude"
        end = tuple(max(pad + extra, 0) for pad, extra in zip(pads, over))
        self._new(node, "pooling", [number], out, algorithm=kind, kernel=kernel, strides=strides, pads=(pads, end))

    def _global(self, node, number, kind):
        shape = self.shapes[number]
        self._new(node, "pooling", [number], shape[:2] + (1, 1), algorithm={"avg": "avg_exclude"}.get(kind, kind),
                  kernel=shape[2:], strides=(1, 1), pads=((0, 0), (0, 0)))

    def _on_mean(self, node):
        axes = node.attrs.get("axis")
        number = self._read(node.inputs[0])
        if len(self.shapes[number]) != 4 or axes in (None, "None") or sorted(np.ravel(axes) % 4) != [2, 3] \
                or node.attrs.get("exclude", False):
            raise Unsupported(f"mean {node.name} over axes {axes}")
        self._global(node, number, "avg")

    def _on_batchnorm(self, node, relu=False):
        number = self._read(node.inputs[0])
        if node.attrs.get("axis", 1) != 1:
            raise Unsupported(f"BatchNorm {node.name} over another axis than the channels")
        for position in range(1, 5):
            self._value(node, position)
        scale, shift = norm_scale_and_shift(self.graph, node)
        self._new(node, "norm", [number], self.shapes[number], scale=scale, shift=shift, relu=relu)

    def _on_contrib_batchnormwithrelu(self, node):
        self._on_batchnorm(node, relu=True)

    def _on_lrn(self, node):
        number, attrs = self._read(node.inputs[0]), node.attrs
        # Both divide the squares' sum by the window: k + alpha / n * sum.
        self._new(node, "response", [number], self.shapes[number], size=int(attrs["nsize"]),
                  alpha=float(attrs.get("alpha", 1e-4)), beta=float(attrs.get("beta", 0.75)), k=float(attrs.get("knorm", 2)))

    def _shuffle(self, node, groups, inner):
        number = self._read(self.graph.nodes[inner[0]].inputs[0])
        self._new(node, "shuffle", [number], self.shapes[number], groups=groups)

    def _on_softmax(self, node):
        number, axis = self._read(node.inputs[0]), int(node.attrs.get("axis", -1))
        shape = self.known[node.inputs[0]]
        if shape != self.shapes[number] or len(node.inputs) > 1 or float(node.attrs.get("temperature") or 1) != 1:
            raise Unsupported(f"softmax {node.name} of this form")
        self._new(node, "softmax", [number], shape, axis=axis % len(shape))

    # Values by themselves

    def _activation(self, node):
        form = node.attrs.get("act_type", "") if node.op == "Activation" else node.op
        if form not in _ACTIVATIONS or len(node.inputs) != 1:
            raise Unsupported(f"{node.op} {form}".strip())
        name, alpha, beta = _ACTIVATIONS[form]
        self._after(node, [(ELTWISE[name], alpha, beta)])

    def _on_leakyrelu(self, node):
        form, slope = node.attrs.get("act_type", "leaky"), float(node.attrs.get("slope", 0.25))
        if form not in ("leaky", "elu"):
            raise Unsupported(f"LeakyReLU {form}")
        self._after(node, [(ELTWISE["relu" if form == "leaky" else "elu"], slope, 0.0)])

    def _on_zeros_like(self, node):
        number = self._read(node.inputs[0])
        self._new(node, "eltwise", [number], self.shapes[number], algorithm=(CLAMP, 0.0, 0.0))

    def _on_clip(self, node):
        self._after(node, [(CLAMP, float(node.attrs["a_min"]), float(node.attrs["a_max"]))])

    def _on_hard_sigmoid(self, node):
        self._after(node, [(ELTWISE["linear"], float(node.attrs.get("alpha", 0.2)), float(node.attrs.get("beta", 0.5))),
                           (CLAMP, 0.0, 1.0)])

    def _on_mul_scalar(self, node):
        self._after(node, [(ELTWISE["linear"], float(node.attrs["scalar"]), 0.0)])

    def _on_div_scalar(self, node):
        self._after(node, [(ELTWISE["linear"], 1 / float(node.attrs["scalar"]), 0.0)])

    def _on_plus_scalar(self, node):
        self._after(node, [(ELTWISE["linear"], 1.0, float(node.attrs["scalar"]))])

    def _on_minus_scalar(self, node):
        self._after(node, [(ELTWISE["linear"], 1.0, -float(node.attrs["scalar"]))])

    # Two and more

    def _sum(self, node):
        numbers = [self._read(entry) for entry in node.inputs]
        if self.shapes[numbers[0]] != self.shapes[numbers[1]]:
            return self._binary(node, "add", numbers)
        makers = [self._alone(entry) for entry in node.inputs]
        # The later of the two is computed when the other one is there.
        order = sorted((0, 1), key=lambda index: -self.maker.get(numbers[index], -1))
        for index in order:
            step, other = makers[index], numbers[1 - index]
            if step is not None and step.kind == "convolution" and numbers[0] != numbers[1] and not step.posts \
                    and self.maker.get(other, -1) < self.maker[numbers[index]]:
                step.posts.append(("sum", other))
                self.tensor[node.entry] = numbers[index]
                return None
        return self._binary(node, "add", numbers)

    def _product(self, node):
        self._binary(node, "mul", [self._read(entry) for entry in node.inputs])

    def _on_elemwise_sub(self, node):
        self._binary(node, "sub", [self._read(entry) for entry in node.inputs])

    def _binary(self, node, algorithm, numbers):
        shapes = [self.shapes[number] for number in numbers]
        if len(shapes[0]) != len(shapes[1]):
            raise Unsupported(f"{node.op} {node.name} of {len(shapes[0])} and {len(shapes[1])} axes")
        shape = tuple(max(sizes) for sizes in zip(*shapes))
        if shape != shapes[0]:
            if algorithm == "sub" or shape != shapes[1]:
                raise Unsupported(f"{node.op} {node.name} of shapes {shapes[0]} and {shapes[1]}")
            numbers = numbers[::-1]
        self._new(node, "binary", list(numbers), shape, algorithm=algorithm)

    def _on_concat(self, node):
        numbers = [self._read(entry) for entry in node.inputs]
        if int(node.attrs.get("dim", 1)) != 1 or len({len(self.shapes[number]) for number in numbers}) > 1:
            raise Unsupported(f"Concat {node.name} over another axis than the channels")
        shape = list(self.shapes[numbers[0]])
        shape[1] = sum(self.shapes[number][1] for number in numbers)
        self._new(node, "concat", numbers, shape)

    def _on_slice_axis(self, node):
        number, attrs = self._read(node.inputs[0]), node.attrs
        shape = self.shapes[number]
        if int(attrs["axis"]) not in (1, 1 - len(self.known[node.inputs[0]])):
            raise Unsupported(f"slice_axis {node.name} over another axis than the channels")
        begin, end = attrs.get("begin") or 0, attrs.get("end")
        begin, end, _ = slice(begin, None if end in (None, "None") else end).indices(shape[1])
        self._new(node, "part", [number], shape[:1] + (end - begin,) + shape[2:], begin=begin)

    # Other views of the same values

    def _view(self, node):
        """(N, C, 1, 1) as (N, C), or a map as features in front of a dense layer, which reads either."""
        number, form = self._read(node.inputs[0]), self._shape(node.entry)
        shape = self.shapes[number]
        features = (shape[0], int(np.prod(shape[1:], dtype=np.int64)))
        readers = [other for other in self.graph.nodes.values() if node.entry in other.inputs]
        pixel = len(shape) == 2 or shape[2:] == (1, 1)
        if form not in (features, features + (1, 1), shape) or not (pixel or form == features):
            raise Unsupported(f"{node.op} {node.name} from {shape} to {form}")
        if not pixel and not all(reader.op == "FullyConnected" for reader in readers):
            raise Unsupported(f"{node.op} {node.name} of a map for another layer than a dense one")
        if pixel and len(shape) == 2 and len(form) == 4:
            raise Unsupported(f"{node.op} {node.name} from features to a map")
        self.tensor[node.entry] = number

    _on_flatten = _on_reshape = _on_expand_dims = _on_squeeze = _view


def _pair(value, default):
    if value in (None, "None", ()):
        return default, default
    return tuple(int(size) for size in np.ravel(value)) if np.size(value) == 2 else (int(np.ravel(value)[0]),) * 2
