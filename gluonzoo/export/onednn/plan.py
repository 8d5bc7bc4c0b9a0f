"""The fastest way of running a network on one shape of input, found by running."""
import time
import weakref

import numpy as np

from .calls import Calls
from .candidates import Costs, Maker, aligned
from .library import Library
from .lowering import Step, Tensors, Unsupported, lower
from .program import compile_steps, select

__all__ = ["Plan", "make_plan"]


class Plan:
    """A network compiled for one shape of input.

    Args:
        parts: [(program, how many times it runs, bytes of its input and of each of its outputs a time)]; each one's output is the
            next one's input.
        forms: shapes of the outputs.
    """

    def __init__(self, parts, forms):
        self._parts, self.forms = parts, forms
        self._between = [aligned(times * outputs[0]) for _, times, _, outputs in parts[:-1]]
        self.seconds = None
        rows, where = [], []  # where: (row, 0 the input, 1... an output; bytes from its beginning)
        for place, (program, times, step, sizes) in enumerate(parts):
            moves, own = program.rows()
            first, last = place == 0, place == len(parts) - 1
            for index in range(times):
                for row, number in moves.items():
                    offset = index * (step if number == 0 else sizes[number - 1])
                    if number == 0 and not first:
                        own[row] = own[row][:2] + (self._between[place - 1].ctypes.data + offset,)
                    elif number > 0 and not last:
                        own[row] = own[row][:2] + (self._between[place].ctypes.data + offset,)
                    else:
                        where.append((len(rows) + row, number, offset))
                rows.extend(own)
        self._calls = Calls(rows)
        self._rows, self._numbers, self._offsets = np.array(where, dtype=np.int64).T

    @property
    def size(self):
        """Bytes of memory for maps."""
        return sum(program.size for program, _, _, _ in self._parts) + sum(array.nbytes for array in self._between)

    @property
    def rows(self):
        """The rows of its calls, to be copied."""
        return self._calls.rows

    def point(self, rows, source, targets):
        """Let rows, its own or a copy, read and write at these addresses: of the input and of each output, as NumPy has them."""
        bases = np.array([source, *targets], dtype=np.int64)
        rows[self._rows, 2] = bases[self._numbers] + self._offsets

    def run(self, source, targets):
        """Compute, by addresses as of `point`. Raises: OneDNNError."""
        self.point(self._calls.rows, source, targets)
        Library.check(self._calls())


def make_plan(library, graphs, input_shape, weights, costs=None, winograd=True):
    """The fastest plan for an input (N, C, H, W) among those for several graphs of one function.

    Args:
        weights: {}, in which all plans of one network find weights that are in oneDNN's orders already.
        costs: `Costs` measured so far.
        winograd: whether Winograd convolutions are taken where they are faster.
    Raises: lowering.Unsupported when the graphs have something that oneDNN has not.
    """
    costs = costs or Costs(library)
    plans, problem = [], None
    for place, graph in enumerate(graphs):
        # Weights of plans that lose go with them.
        own = weights.setdefault(place, weakref.WeakValueDictionary())
        for several in _images_at_a_time(input_shape[0]):
            try:
                plans.append(_plan(library, graph, input_shape, several, own, costs, winograd))
            except Unsupported as error:
                problem = problem or error
            except LookupError as error:
                problem = problem or Unsupported(str(error))
    plans = [plan for plan in plans if plan is not None]
    if not plans:
        raise problem
    if len(plans) > 1:
        _race(plans, input_shape)
    return min(plans, key=lambda plan: plan.seconds or 0)


def _images_at_a_time(batch):
    """How many images may run at once up to the first dense layer: fewer, whose maps stay in the processor's caches, or all."""
    return sorted({1, batch} | {several for several in (4,) if batch > several and batch % several == 0})


def _race(plans, input_shape):
    source = aligned(int(np.prod(input_shape)) * 4)
    source.view(np.float32)[:] = np.random.RandomState(0).uniform(-1, 1, source.size // 4)
    for plan in plans:
        targets = [aligned(int(np.prod(form)) * 4) for form in plan.forms]
        addresses = [target.ctypes.data for target in targets]
        plan.run(source.ctypes.data, addresses)
        times, begin = [], time.perf_counter()
        while len(times) < 2 or (time.perf_counter() - begin < 0.1 and len(times) < 10):
            before = time.perf_counter()
            plan.run(source.ctypes.data, addresses)
            times.append(time.perf_counter() - before)
        plan.seconds = min(times)


def _plan(library, graph, input_shape, several, weights, costs, winograd):
    """A plan that runs `several` images at a time up to the first dense layer, and all from there on; None where it cannot."""
    whole = lower(graph, input_shape)
    if several == input_shape[0]:
        program = _compile(library, whole, weights, costs, winograd)
        sizes = [int(np.prod(whole.shapes[number])) * 4 for number in whole.outputs]
        return Plan([(program, 1, 0, sizes)], whole.forms)
    cut = next((index for index, step in enumerate(whole.steps) if step.kind == "dense"), len(whole.steps))
    head = lower(graph, (several,) + tuple(input_shape[1:]))
    if len(head.steps) != len(whole.steps):
        return None
    made = {0} | {step.output for step in whole.steps[:cut]}
    read = [number for step in whole.steps[cut:] for number in step.reads] + whole.outputs
    crossing = made.intersection(read)
    if len(crossing) != 1 or 0 in crossing:
        return None
    number = crossing.pop()
    first = Tensors(head.shapes, head.steps[:cut], [number], [])
    times = input_shape[0] // several
    step_in, step_out = (int(np.prod(head.shapes[index])) * 4 for index in (0, number))
    program = _compile(library, first, weights, costs, winograd)
    parts = [(program, times, step_in, [step_out])]
    if cut < len(whole.steps):
        parts.append((_tail(library, whole, cut, number, weights, costs), 1, 0, [0] * len(whole.outputs)))
    return Plan(parts, whole.forms)


def _tail(library, whole, cut, number, weights, costs):
    """The program of the steps from `cut` on, whose input is tensor `number`."""
    numbers = {number: 0}
    for step in whole.steps[cut:]:
        numbers[step.output] = len(numbers)
    shapes = [whole.shapes[old] for old in numbers]
    steps = [Step(step.kind, [numbers[old] for old in step.inputs], numbers[step.output], step.name, step.values,
                  [("sum", numbers[post[1]]) if post[0] == "sum" else post for post in step.posts]) for step in whole.steps[cut:]]
    tensors = Tensors(shapes, steps, [numbers[old] for old in whole.outputs], whole.forms)
    return _compile(library, tensors, weights, costs, False)


def _compile(library, tensors, weights, costs, winograd):
    maker = Maker(library, tensors.shapes, winograd)
    return compile_steps(tensors, select(tensors, maker, costs), maker, weights)
