"""Ways in which oneDNN can do a step, with the values of maps in one order or another, and what each costs here."""
import time
from dataclasses import dataclass, field
from typing import Dict, List, Optional

import numpy as np

from .library import BINARY, BLOCKED, DIRECT, PLAIN, POOLING, WINOGRAD, Md, Primitive

__all__ = ["Candidate", "Costs", "Maker", "aligned"]

#: Seconds of measuring a call, after one that is not counted; at least one call, and at most so many.
SECONDS, CALLS = 0.008, 6
ALIGNMENT = 64


def aligned(size):
    """`size` bytes of memory at an address that AVX-512 likes, as a NumPy array."""
    array = np.empty(size + ALIGNMENT, dtype=np.uint8)
    start = -array.ctypes.data % ALIGNMENT
    return array[start:start + size]


@dataclass
class Candidate:
    """A way of doing a step.

    Args:
        layout: order of the maps that it writes, and of those that it reads unless `sources` say otherwise.
        primitive: None for a concatenation whose parts are written where they belong.
        sources: a descriptor for each tensor that the step reads as an input.
        target: of the tensor that it writes.
        constants: {argument: (name, array, descriptor)} of weights.
        cost: seconds a call.
    """
    layout: str
    primitive: Optional[Primitive]
    sources: List[Md]
    target: Md
    constants: Dict[str, tuple] = field(default_factory=dict)
    cost: float = 0.0

    @property
    def reference(self):
        """Whether it is oneDNN's plain code, which is there for everything."""
        return self.primitive is not None and self.primitive.implementation.startswith("ref")


class Maker:
    """Makes candidates for the steps of a network.

    Args:
        library: of `library.load`.
        shapes: of the tensors (`lowering.Tensors`).
        winograd: whether convolutions may be computed by Winograd's minimal filtering: fewer products, more rounding.
    """

    def __init__(self, library, shapes, winograd=True):
        self.library, self.shapes, self.winograd = library, shapes, winograd

    def md(self, number, layout):
        shape = self.shapes[number]
        return self.library.desc(shape, layout if len(shape) == 4 else PLAIN)

    def make(self, step, layout, outside=None):
        """Candidates of a step that writes its map in `layout`.

        Args: outside: the order of tensor 0 (the input), which may be read as it is; None: as all others.
        """
        made = getattr(self, "_" + step.kind)(step, layout)
        if outside not in (None, layout) and step.kind == "convolution" and step.inputs == [0]:
            made += self._convolution(step, layout, self.md(0, outside))
        return [candidate for candidate in made if candidate is not None]

    @staticmethod
    def _posts(step):
        return [post[0] if post[0] == "sum" else post for post in step.posts]

    def _candidate(self, layout, primitive, sources, target, constants=None):
        return None if primitive is None else Candidate(layout, primitive, sources, target, constants or {})

    def _convolution(self, step, layout, source=None):
        lib, values = self.library, step.values
        source = source or self.md(step.inputs[0], layout)
        target = self.md(step.output, layout)
        weight = values["weight"]
        groups = values["groups"]
        if groups > 1:
            weight = weight.reshape((groups, weight.shape[0] // groups) + weight.shape[1:])
        bias = None if values["bias"] is None else lib.dense(values["bias"].shape)
        plain = values["strides"] == (1, 1) and values["dilates"] == (0, 0) and groups == 1 and weight.shape[2:] == (3, 3)
        algorithms = [WINOGRAD, DIRECT] if self.winograd and plain and layout == BLOCKED else [DIRECT]
        made = []
        for algorithm in algorithms:
            primitive = lib.convolution(algorithm, source, lib.any(weight.shape), bias, target, values["strides"],
                                        values["dilates"], values["pads"], self._posts(step))
            if primitive is not None:
                constants = {"weights": (values["weight_name"], weight, primitive.md("weights"))}
                if bias is not None:
                    constants["bias"] = (step.name + " bias", values["bias"], bias)
                made.append(Candidate(layout, primitive, [source], target, constants))
        return made

    def _dense(self, step, layout):
        lib, values = self.library, step.values
        source, target = self.md(step.inputs[0], layout), self.md(step.output, PLAIN)
        bias = None if values["bias"] is None else lib.dense(values["bias"].shape)
        primitive = lib.inner_product(source, lib.any(values["weight"].shape), bias, target, self._posts(step))
        if primitive is None:
            return []
        constants = {"weights": (values["weight_name"], values["weight"], primitive.md("weights"))}
        if bias is not None:
            constants["bias"] = (step.name + " bias", values["bias"], bias)
        return [Candidate(layout, primitive, [source], target, constants)]

    def _pooling(self, step, layout):
        values, source, target = step.values, self.md(step.inputs[0], layout), self.md(step.output, layout)
        primitive = self.library.pooling(POOLING[values["algorithm"]], source, target, values["strides"], values["kernel"],
                                         values["pads"], self._posts(step))
        return [self._candidate(layout, primitive, [source], target)]

    def _norm(self, step, layout):
        md, values = self.md(step.output, layout), step.values
        channels = len(values["scale"])
        # In blocks that are not full oneDNN 2.6 leaves other values than zero behind the last channel, to be read.
        full = layout != BLOCKED or len(self.shapes[step.output]) == 2 or channels % self.library.block == 0
        primitive = self.library.normalization(md, values["relu"]) if full else None
        if primitive is None:
            return []
        numbers = {"mean": np.zeros(channels), "variance": np.ones(channels),
                   "weights": np.stack([values["scale"], values["shift"]])}
        constants = {name: (f"{step.name} {name}", value.astype(np.float32), self.library.dense(value.shape))
                     for name, value in numbers.items()}
        return [Candidate(layout, primitive, [md], md, constants)]

    def _response(self, step, layout):
        md, values = self.md(step.output, layout), step.values
        primitive = self.library.response_normalization(md, values["size"], values["alpha"], values["beta"], values["k"])
        return [self._candidate(layout, primitive, [md], md)]

    def _shuffle(self, step, layout):
        md = self.md(step.output, layout)
        size = self.shapes[step.output][1] // step.values["groups"]
        return [self._candidate(layout, self.library.shuffle(md, size), [md], md)]

    def _softmax(self, step, layout):
        md = self.md(step.output, layout)
        return [self._candidate(layout, self.library.softmax(md, step.values["axis"]), [md], md)]

    def _eltwise(self, step, layout):
        md = self.md(step.output, layout)
        return [self._candidate(layout, self.library.eltwise(*step.values["algorithm"][:1], md, *step.values["algorithm"][1:],
                                                             posts=self._posts(step)), [md], md)]

    def _binary(self, step, layout):
        sources, target = [self.md(number, layout) for number in step.inputs], self.md(step.output, layout)
        primitive = self.library.binary(BINARY[step.values["algorithm"]], *sources, target, self._posts(step))
        return [self._candidate(layout, primitive, sources, target)]

    def _part(self, step, layout):
        if self.part_offset(step, layout) is None:
            return []
        target = self.md(step.output, layout)
        source = self.library.first(self.md(step.inputs[0], layout), self.shapes[step.output])
        return [] if source is None else [self._candidate(layout, self.library.reorder(source, target), [source], target)]

    def part_offset(self, step, layout):
        """Bytes from the beginning of a tensor to a part of its channels; None where blocks would be cut.

        oneDNN has offsets in its descriptors, but does not run what reads one.
        """
        shape, begin = self.shapes[step.inputs[0]], step.values["begin"]
        if len(shape) == 2 or layout != BLOCKED:
            return begin * 4
        return None if begin % self.library.block else begin * shape[2] * shape[3] * 4

    def _concat(self, step, layout):
        sources, target = [self.md(number, layout) for number in step.inputs], self.md(step.output, layout)
        if self.in_place(step, layout):
            return [Candidate(layout, None, sources, target)]
        return [self._candidate(layout, self.library.concat(target, 1, sources), sources, target)]

    def in_place(self, step, layout):
        """Whether the parts of a concatenation lie one behind the other in its memory."""
        parts = [self.shapes[number] for number in step.inputs]
        return (parts[0][0] == 1 and layout == BLOCKED and len(parts[0]) == 4 and 0 not in step.inputs
                and len(set(step.inputs)) == len(parts) and all(shape[1] % self.library.block == 0 for shape in parts))


class Costs:
    """Seconds that calls take on this machine, each measured once."""

    def __init__(self, library):
        self.library = library
        self._known = {}

    def of(self, step, candidate):
        """Of a candidate of a step."""
        if candidate.primitive is None:
            return 0.0
        key = (step.kind, candidate.primitive.implementation, candidate.target.key, tuple(md.key for md in candidate.sources),
               tuple(md.key for _, _, md in candidate.constants.values()), str(step.posts and [post[0] for post in step.posts]),
               str({name: value for name, value in step.values.items() if np.ndim(value) == 0 or isinstance(value, tuple)
                    if name not in ("weight_name", "begin")}))
        if key not in self._known:
            names = {"binary": ["src", "src1"], "concat": [1024 + index for index in range(len(candidate.sources))]}
            tensors = dict(zip(names.get(step.kind, ["src"]), candidate.sources), dst=candidate.target)
            tensors.update({name: md for name, (_, _, md) in candidate.constants.items()})
            self._known[key] = self._measure(candidate.primitive, tensors)
        return self._known[key]

    def reorder(self, shape, source, target):
        """Of bringing the values of a map into another order."""
        key = shape, source, target
        if key not in self._known:
            mds = [self.library.desc(shape, layout) for layout in (source, target)]
            primitive = self.library.reorder(*mds)
            self._known[key] = np.inf if primitive is None else self._measure(primitive, {"src": mds[0], "dst": mds[1]})
        return self._known[key]

    def _measure(self, primitive, tensors):
        lib = self.library
        tensors = dict(tensors, scratchpad=primitive.md("scratchpad"))
        arrays, memories = [], {}
        for name, md in tensors.items():
            size = lib.size(md)
            if size:
                arrays.append(aligned(size))
                arrays[-1][:size // 4 * 4].view(np.float32)[:] = 0.01
                memories[name] = lib.memory(md, arrays[-1].ctypes.data)
        try:
            arguments = primitive.arguments(memories)
            primitive.execute(arguments)
            times, begin = [], time.perf_counter()
            while not times or (len(times) < CALLS and time.perf_counter() - begin < SECONDS):
                before = time.perf_counter()
                primitive.execute(arguments)
                times.append(time.perf_counter() - before)
            return min(times)
        finally:
            for memory in memories.values():
                lib.destroy_memory(memory)
