"""A network's steps as calls of oneDNN, with their memory laid out."""
import ctypes

import numpy as np

from .calls import address_of
from .candidates import aligned
from .layouts import choose
from .library import BLOCKED, NHWC, PLAIN

__all__ = ["Program", "compile_steps", "select"]


class Program:
    """Calls of oneDNN on memory of its own, for one shape of input.

    Args:
        library: of `library.load`.
        calls: [(primitive, {argument: (descriptor, key)})]; a key is that of a `Layout`'s buffer, or an array.
        buffers: the `_Buffers` that the keys are in.
        source, targets: keys of the input and of the outputs, whose addresses are told to each run.
        constants: arrays that calls read, which this keeps alive.
    """

    def __init__(self, library, calls, buffers, source, targets, constants):
        self._library = library
        self._arena, places = buffers.place(calls, {source, *targets})
        self._constants, self._primitives = constants, [primitive for primitive, _ in calls]
        scratch = max([primitive.scratchpad for primitive in self._primitives] + [1])
        self._scratch = aligned(scratch)
        self._moving = {source: [], **{key: [] for key in targets}}
        self._source, self._targets = source, list(targets)
        self._memories, self._calls = {}, []
        for primitive, arguments in calls:
            memories = {}
            for name, (md, key) in arguments.items():
                memories[name] = self._memory(md, key, places)
            if primitive.scratchpad:
                memories["scratchpad"] = self._memory(primitive.md("scratchpad"), self._scratch, places)
            self._calls.append(primitive.arguments(memories))

    def rows(self):
        """What `calls.Calls` takes: ({row: 0 where it says where the input is, 1, 2, ... where an output is}, all rows)."""
        move, execute = (address_of(getattr(self._library.c, name)) for name in (
            "dnnl_memory_set_data_handle", "dnnl_primitive_execute"))
        moves, rows = {}, []
        for number, key in enumerate([self._source] + self._targets):
            for memory in self._moving[key]:
                moves[len(rows)] = number
                rows.append((move, memory.value, 0))
        for handle, stream, count, packed in self._calls:
            rows.append((execute, handle.value, stream.value, count, ctypes.addressof(packed)))
        return moves, rows

    def _memory(self, md, key, places):
        known = (md.key, id(key) if isinstance(key, np.ndarray) else key)
        if known not in self._memories:
            if isinstance(key, np.ndarray):
                address = key.ctypes.data
            else:
                address = places.get(key, 0)
            self._memories[known] = self._library.memory(md, address)
            if not isinstance(key, np.ndarray) and key in self._moving:
                self._moving[key].append(self._memories[known])
        return self._memories[known]

    def __del__(self):
        for memory in getattr(self, "_memories", {}).values():
            self._library.destroy_memory(memory)

    @property
    def size(self):
        """Bytes of maps and of scratch memory; weights are not counted, which programs may share."""
        return self._arena.nbytes + self._scratch.nbytes


def select(tensors, maker, costs, outside=PLAIN):
    """For each step the candidate with which all together cost least.

    Args: outside: the order of tensor 0.
    Returns: a candidate a step.
    Raises: LookupError for a step that oneDNN has no way of doing.
    """
    found = []
    for step in tensors.steps:
        ways, all_made = [], [(layout, maker.make(step, layout, outside)) for layout in (NHWC, BLOCKED)]
        plain_code = all(way.reference for _, made in all_made for way in made)
        for layout, made in all_made:
            # oneDNN's plain code takes seconds where its compiled code takes milliseconds: not even measured.
            made = [way for way in made if plain_code or not way.reference]
            for candidate in made:
                candidate.cost = costs.of(step, candidate)
                if 0 in step.inputs and candidate.sources[0].key != maker.md(0, outside).key:
                    candidate.cost += costs.reorder(tensors.shapes[0], outside, layout)
            ways.append(min(made, key=lambda candidate: candidate.cost) if made else None)
        if not any(ways):
            raise LookupError(f"{step.kind} {step.name}")
        found.append(ways)
    makers = {step.output: index for index, step in enumerate(tensors.steps)}
    joins = []
    for index, step in enumerate(tensors.steps):
        for number in dict.fromkeys(step.reads):
            if number in makers and len(tensors.shapes[number]) == 4:
                shape = tensors.shapes[number]
                joins.append((makers[number], index, costs.reorder(shape, NHWC, BLOCKED), costs.reorder(shape, BLOCKED, NHWC)))
    labels = choose({index: tuple(np.inf if way is None else way.cost for way in ways) for index, ways in enumerate(found)},
                    joins)
    chosen = [ways[labels[index]] for index, ways in enumerate(found)]
    if None in chosen:
        raise LookupError(f"{tensors.steps[chosen.index(None)].kind} {tensors.steps[chosen.index(None)].name}")
    return chosen


class _Buffers:
    """Where tensors lie: some inside of others (`inside`), the rest in one arena, reused when nothing reads them any more."""

    def __init__(self):
        self.sizes, self.parents = {}, {}

    def add(self, key, size):
        self.sizes.setdefault(key, size)

    def inside(self, key, parent, offset):
        self.parents[key] = parent, offset

    def root(self, key):
        offset = 0
        while key in self.parents:
            key, more = self.parents[key]
            offset += more
        return key, offset

    def within(self, key):
        """Keys that lie inside of one, itself among them."""
        return [other for other in self.sizes if other == key or self._reaches(other, key)]

    def _reaches(self, key, other):
        while key in self.parents:
            key = self.parents[key][0]
            if key == other:
                return True
        return False

    def place(self, calls, outside):
        """(the arena, {key: address})."""
        lives = {}
        for time, (_, arguments) in enumerate(calls):
            for _, key in arguments.values():
                if not isinstance(key, np.ndarray) and key not in outside:
                    root, _ = self.root(key)
                    begin, _ = lives.get(root, (time, time))
                    lives[root] = begin, time
        offsets, placed = {}, []
        for root in sorted(lives, key=lambda root: (-self.sizes[root], lives[root])):
            begin, end = lives[root]
            size = -(-self.sizes[root] // 64) * 64
            at = 0
            for other_at, other_size, other_begin, other_end in sorted(placed):
                if other_begin <= end and begin <= other_end and at < other_at + other_size and other_at < at + size:
                    at = other_at + other_size
            placed.append((at, size, begin, end))
            offsets[root] = at
        arena = aligned(max([at + size for at, size, _, _ in placed] + [64]))
        addresses = {}
        for key in self.sizes:
            root, offset = self.root(key)
            if root in offsets:
                addresses[key] = arena.ctypes.data + offsets[root] + offset
        return arena, addresses


class _Compiler:
    """Calls and buffers for chosen candidates."""

    def __init__(self, tensors, chosen, maker, weights, outside, results):
        self.tensors, self.chosen, self.maker, self.lib = tensors, chosen, maker, maker.library
        self.weights, self.outside, self.results = weights, outside, results
        self.calls, self.buffers, self.constants = [], _Buffers(), []
        self.written = {0: outside}  # Number of a tensor: the order in which it was first written.
        self.there = {(0, self._order(0, outside))}
        self.buffers.add((0, self._order(0, outside)), 0)
        self.last = {}
        for index, step in enumerate(tensors.steps):
            for number in step.reads:
                self.last[number] = index
        for number in tensors.outputs:
            self.last[number] = len(tensors.steps)

    def _order(self, number, layout):
        return layout if len(self.tensors.shapes[number]) == 4 else PLAIN

    def run(self):
        for index, (step, way) in enumerate(zip(self.tensors.steps, self.chosen)):
            self._step(index, step, way)
        targets = []
        for index, (number, layout) in enumerate(zip(self.tensors.outputs, self.results)):
            source = number, self._order(number, self.written[number])
            mds = self.maker.md(number, source[1]), self.maker.md(number, layout)
            targets.append(("output", index))
            self.buffers.add(targets[-1], 0)
            self.calls.append((self.lib.reorder(*mds), {"src": (mds[0], source), "dst": (mds[1], targets[-1])}))
        return Program(self.lib, self.calls, self.buffers, (0, self._order(0, self.outside)), targets, self.constants)

    def _need(self, number, layout):
        """The key of a tensor in an order, which it is brought into if it is not there."""
        key = number, self._order(number, layout)
        if key not in self.there:
            source = number, self._order(number, self.written[number])
            mds = self.maker.md(number, source[1]), self.maker.md(number, layout)
            self.buffers.add(key, self.lib.size(mds[1]))
            self.calls.append((self.lib.reorder(*mds), {"src": (mds[0], source), "dst": (mds[1], key)}))
            self.there.add(key)
        return key

    def _step(self, index, step, way):
        keys = []
        for number, md in zip(step.inputs, way.sources):
            # The input may be read as it comes.
            direct = number == 0 and step.kind == "convolution" and md.key == self.maker.md(0, self.outside).key
            keys.append(self._need(number, self.outside if direct else way.layout))
        target = step.output, self._order(step.output, way.layout)
        self.buffers.add(target, self.lib.size(way.target))
        if way.primitive is None:
            self._join(step, way, keys, target)
        else:
            if any(post[0] == "sum" for post in step.posts):
                self._start_with(index, [post[1] for post in step.posts if post[0] == "sum"][0], way, keys, target)
            if step.kind == "part":
                place = ("part of", step.output)
                self.buffers.add(place, self.lib.size(way.sources[0]))
                self.buffers.inside(place, keys[0], self.maker.part_offset(step, way.layout))
                keys = [place]
            names = {"binary": ["src", "src1"], "concat": [1024 + place for place in range(len(keys))]}.get(step.kind, ["src"])
            arguments = {name: (md, key) for name, md, key in zip(names, way.sources, keys)}
            for name, (title, array, md) in way.constants.items():
                arguments[name] = md, self._constant(title, array, md)
            arguments["dst"] = way.target, target
            self.calls.append((way.primitive, arguments))
        self.there.add(target)
        self.written[step.output] = target[1]

    def _constant(self, title, array, md):
        key = title, md.key
        own = self.weights.get(key)
        if own is None:
            source = np.ascontiguousarray(array, dtype=np.float32)
            own = aligned(self.lib.size(md))
            plain = self.lib.dense(source.shape)
            primitive = self.lib.reorder(plain, md)
            memories = {"src": self.lib.memory(plain, source.ctypes.data), "dst": self.lib.memory(md, own.ctypes.data)}
            if primitive.scratchpad:
                scratch = aligned(primitive.scratchpad)
                memories["scratchpad"] = self.lib.memory(primitive.md("scratchpad"), scratch.ctypes.data)
            primitive.execute(primitive.arguments(memories))
            for memory in memories.values():
                self.lib.destroy_memory(memory)
            self.weights[key] = own
        self.constants.append(own)
        return own

    def _start_with(self, index, number, way, keys, target):
        """Let the tensor that a convolution adds to be in its place: that tensor's own memory where nothing reads it later, nor
        the convolution (from `keys`) while it writes.
        """
        key = self._need(number, way.layout)
        inside = self.buffers.within(key)
        free = (number != 0 and key not in self.buffers.parents and all(self.buffers.root(other)[0] != key for other in keys)
                and all(self._last(other) <= index for other in inside if isinstance(other[0], int)))
        if free:
            self.buffers.inside(key, target, 0)
        else:
            self.calls.append((self.lib.reorder(way.target, way.target), {"src": (way.target, key), "dst": (way.target, target)}))

    def _last(self, key):
        return self.last.get(key[0], -1)

    def _join(self, step, way, keys, target):
        """A concatenation whose parts are written one behind the other."""
        offset = 0
        for place, (key, md) in enumerate(zip(keys, way.sources)):
            if key in self.buffers.parents or key[0] == 0:
                copy = ("part", step.output, place)
                self.buffers.add(copy, self.lib.size(md))
                self.buffers.inside(copy, target, offset)
                self.calls.append((self.lib.reorder(md, md), {"src": (md, key), "dst": (md, copy)}))
            else:
                self.buffers.inside(key, target, offset)
            offset += self.lib.size(md)


def compile_steps(tensors, chosen, maker, weights, outside=PLAIN, results=None):
    """The `Program` of steps and the candidates chosen for them.

    Args:
        weights: a WeakValueDictionary of weights in oneDNN's orders, shared by the programs of one network.
        outside: the order of the input.
        results: the order of each output; PLAIN by default.
    """
    return _Compiler(tensors, chosen, maker, weights, outside, results or [PLAIN] * len(tensors.outputs)).run()
