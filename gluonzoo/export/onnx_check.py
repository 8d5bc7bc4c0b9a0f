"""Is an ONNX file still the same function as the network, and if not, where does it begin to differ?

The whole is compared first. Two correct programs can still differ by more than rounding: where the input of a sign is as near
to 0 as rounding reaches, one may say -1 and the other 1, and everything behind differs. So what differs is compared layer by
layer too: each layer of the file gets the live network's own values in place of what the file computed before it, and must give
what the live network's layer gives. That is enough for a network with signs of activations. For any other network the whole
must agree as well.
"""
import mxnet as mx
import numpy as np

from .check import Difference, compare, flatten, relative
from .first_difference import depending, describe
from .metadata import ExportError
from .onnx_session import OnnxNetwork, package
from .symbol import TOLERANCE

__all__ = ["check"]

_LIVE = "live/"  # Before the name of a value that the live network gives.


class _Sides:
    """The live network and the file, each fed and read in its own way, from the same random numbers (N, C, H, W).

    Args: metadata: given where the file takes images and gives probabilities.
    """

    def __init__(self, net, path, metadata, ctx):
        self.net, self.path, self.ctx, self._rule = net, path, ctx, None
        self.file = OnnxNetwork(path)
        if metadata is not None:
            from ..data import Transform
            self._rule = Transform(metadata.input_shape, metadata.mean, metadata.std)

    def images(self, numbers):
        """Random pixels, (N, H, W, C) uint8."""
        return np.clip(np.rint(numbers * 64 + 128), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)

    def live_input(self, numbers):
        return numbers if self._rule is None else self._rule(self.images(numbers))

    def file_input(self, numbers):
        return numbers if self._rule is None else np.ascontiguousarray(self.images(numbers))

    def live(self, numbers):
        """The live network's outputs, as NDArrays by name."""
        return self.finished(flatten(self.net(mx.nd.array(self.live_input(numbers.asnumpy()), ctx=self.ctx))))

    def finished(self, pairs):
        if self._rule is None:
            return dict(pairs)
        scores = pairs[0][1]
        scores = scores.reshape((0, 0, -1)).mean(axis=2) if scores.ndim > 2 else scores
        return {"probabilities": mx.nd.softmax(scores)}

    def exported(self, numbers):
        """The file's outputs, as NDArrays."""
        return [mx.nd.array(value) for value in self.file.run({self.file.inputs[0]: self.file_input(numbers.asnumpy())})]


def check(net, path, graph, names, shapes, metadata=None, ctx=None, tolerance=TOLERANCE):
    """Compare an ONNX file with the live network on three random batches.

    Args:
        graph, names: the network's `Graph` and the file's name for each of its entries.
        shapes: two example inputs; the images of the second may be larger.
        metadata: `Metadata` where the file takes images and gives probabilities.
        tolerance: the largest relative difference of the whole that passes; of a single layer that is always `TOLERANCE`.
    Returns: Difference, the largest; for a network with signs whose whole differs, that of the single layers.
    Raises: ExportError naming the first layer that differs.
    """
    sides = _Sides(net, path, metadata, ctx)
    runs = [(shapes[0][1:], (1, 3), 0), (shapes[1][1:], (2,), 1)]
    found = [compare(sides.live, sides.exported, shape, batches, seed) for shape, batches, seed in runs]
    worst = Difference(max(item.absolute for item in found), max(item.relative for item in found))
    if worst.relative <= TOLERANCE:
        return worst
    signs = any(node.op in ("sign", "_contrib_sign_ste") for node in depending(graph))
    layers = [_layers(sides, graph, names, _numbers(*run)) for run in runs]
    if signs or worst.relative <= tolerance:
        return Difference(max(item.absolute for item in layers), max(item.relative for item in layers)) if signs else worst
    single = max(item.relative for item in layers)
    numbers = _numbers(*next(run for run, item in zip(runs, found) if not item.relative <= TOLERANCE))
    raise ExportError(f"the ONNX file differs from the live network by {worst.absolute:.3g} (relative {worst.relative:.3g}; at "
                      f"most {tolerance:g} passes); {_where(sides, graph, names, numbers)}. Every layer by itself agrees (at "
                      f"most {single:.3g}): this network enlarges rounding errors, and a larger "
                      "tolerance would let it pass; nothing was kept")


def _numbers(shape, batches, seed):
    """The first of a run's batches, as `compare` draws them."""
    return np.random.RandomState(seed).standard_normal((batches[0],) + tuple(shape)).astype(np.float32)


def _where(sides, graph, names, numbers):
    """Words for the first layer at which what has gathered exceeds the tolerance."""
    data = sides.live_input(numbers)

    def theirs(entries):
        onnx = package("onnx")
        model = onnx.load(sides.path)
        del model.graph.output[:]
        model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                                  for name in dict.fromkeys(names[entry] for entry in entries))
        session = OnnxNetwork(model.SerializeToString())
        values = dict(zip(session.outputs, session.run({sides.file.inputs[0]: sides.file_input(numbers)})))
        return [values[names[entry]] for entry in entries]

    return describe(graph, lambda entries: graph.with_outputs(entries).run(data, sides.ctx), theirs)


def _layers(sides, graph, names, numbers):
    """Compare every layer of the file, fed with the live network's values: the largest Difference.

    Raises: ExportError naming the first that differs; or the output where the live network is not what its own graph gives.
    """
    data = sides.live_input(numbers)
    nodes = {node.name: node for node in depending(graph)}
    entries = [entry for entry in names if entry[0] in nodes]
    values = dict(zip(entries, graph.with_outputs(entries).run(data, sides.ctx)))
    ends = sides.finished([(name, mx.nd.array(values[entry])) for entry, name in zip(graph.outputs, graph.output_names)])
    for name, value in flatten(sides.live(mx.nd.array(numbers))):
        if not relative(value.asnumpy(), ends[name].asnumpy()) <= TOLERANCE:
            raise ExportError(f"output {name!r} of the live network is not what its own graph gives; nothing was kept")
    values[(graph.input, 0)] = data
    session = _cut(sides.path, {names[entry]: value for entry, value in values.items()})
    feed = {_LIVE + names[entry]: value for entry, value in values.items()}
    feed[sides.file.inputs[0]] = sides.file_input(numbers)
    theirs = dict(zip(session.outputs, session.run({name: feed[name] for name in session.inputs})))
    absolute = largest = 0.0
    for entry in entries:
        if names[entry] not in theirs:
            continue  # Another name of a value that is compared: the layer only matters in training.
        distance = relative(values[entry], theirs[names[entry]])
        if not distance <= TOLERANCE:
            node = nodes[entry[0]]
            raise ExportError(f"the ONNX file differs from the live network: the first layer that differs is {node.op} "
                              f"{node.name!r} (relative {distance:.3g}, at most {TOLERANCE:g} passes); nothing was kept")
        absolute = max(absolute, float(np.abs(values[entry] - theirs[names[entry]]).max()))
        largest = max(largest, distance)
    return Difference(absolute, largest)


def _cut(path, values):
    """The model in a file cut behind every one of these values: it reads the live ones, and gives all that it computes.

    Args: values: {name in the file: the live network's array}.
    """
    onnx = package("onnx")
    model = onnx.load(path)
    outputs = []
    for node in model.graph.node:
        outputs += [name for name in node.output if name in values]
        for index, name in enumerate(node.input):
            if name in values:
                node.input[index] = _LIVE + name

    def described(name, shape):
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    read = {name for node in model.graph.node for name in node.input}
    kept = [item for item in model.graph.input if item.name in read]
    del model.graph.input[:]
    del model.graph.output[:]
    model.graph.input.extend(kept)
    model.graph.input.extend(described(_LIVE + name, value.shape) for name, value in values.items() if _LIVE + name in read)
    model.graph.output.extend(described(name, None) for name in outputs)
    return OnnxNetwork(model.SerializeToString())
