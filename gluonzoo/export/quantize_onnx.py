"""A float ONNX model with QuantizeLinear and DequantizeLinear around what 8 bits hold; onnxruntime makes 8-bit kernels of it.

Activations become uint8 (zero at 128 where a tensor has negative values), weights int8 with a scale for each output channel,
biases int32. Source: ONNX, docs/Operators.md, QuantizeLinear; onnxruntime, Quantize ONNX Models, section "ONNX quantization
representation format".
"""
import numpy as np

from .onnx_session import package
from .quantize_mxnet import quantized_weight

__all__ = ["insert_qdq"]

#: Operators that take and give 8 bits beside the layers, and whether they hand on values as they are, so that input and output
#: share a scale.
_AROUND = {"MaxPool": True, "Flatten": True, "AveragePool": False, "GlobalAveragePool": False, "Add": False, "Concat": False}
#: What onnxruntime takes into the layer before, where nothing else reads that.
_ACTIVATIONS = ("Relu", "Clip")


def insert_qdq(model, ranges, layers):
    """Insert the nodes into a model, in place.

    Args:
        model: onnx.ModelProto in float32.
        ranges: {name of a value: (low, high)}.
        layers: names of the weights (initializers) that get 8 bits.
    """
    package("onnx")
    _Inserter(model, ranges, set(layers)).run()


class _Inserter:
    def __init__(self, model, ranges, layers):
        from onnx import numpy_helper
        self.graph, self.ranges, self.layers = model.graph, dict(ranges), layers
        self.weights = {item.name: item for item in model.graph.initializer}
        self.arrays = {name: numpy_helper.to_array(item) for name, item in self.weights.items()}
        self.readers = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {item.name for item in model.graph.output}
        self.scales = {}  # {value: (scale, zero point)} of the values that are quantized.

    def run(self):
        for node in self.graph.node:  # The converter's own values in between have no range of their own.
            if _AROUND.get(node.op_type) and node.input[0] in self.ranges:
                self.ranges.setdefault(node.output[0], self.ranges[node.input[0]])
        quantized = [node for node in self.graph.node if node.op_type in ("Conv", "Gemm") and node.input[1] in self.layers
                     and node.input[0] in self.ranges]
        for node in quantized:
            self._want(node.input[0])
            after = self._after(node.output[0])
            if after not in self.outputs:
                self._want(after)
        self._spread()
        nodes = []
        for name in [item.name for item in self.graph.input]:
            nodes += self._pair(name)
        renamed = {name: f"{name}/dequantized" for name in self.scales}
        for node in self.graph.node:
            if node in quantized and node.input[0] in self.scales:
                nodes += self._layer(node)
            for index, name in enumerate(node.input):
                node.input[index] = renamed.get(name, name)
            nodes.append(node)
            for name in node.output:
                nodes += self._pair(name)
        del self.graph.node[:]
        self.graph.node.extend(nodes)

    def _after(self, name):
        """The value behind a layer's activation, where it has one of its own."""
        readers = self.readers.get(name, [])
        if len(readers) == 1 and readers[0].op_type in _ACTIVATIONS and name not in self.outputs:
            return readers[0].output[0]
        return name

    def _want(self, name):
        if name in self.ranges and name not in self.scales:
            low, high = self.ranges[name]
            self.scales[name] = (high / 127.0, 128) if low < 0 else (high / 255.0, 0)

    def _spread(self):
        """Operators between quantized values take and give 8 bits too."""
        for node in self.graph.node:
            shares = _AROUND.get(node.op_type)
            if shares is None or not all(name in self.scales for name in node.input):
                continue
            after = self._after(node.output[0])
            if after in self.outputs:
                continue
            if shares:
                self.scales[node.output[0]] = self.scales[node.input[0]]
            else:
                self._want(after)

    def _initializer(self, name, array):
        from onnx import numpy_helper
        if name not in self.weights:
            item = numpy_helper.from_array(array, name)
            self.graph.initializer.append(item)
            self.weights[name] = item
        return name

    def _pair(self, name):
        """The two nodes behind a value that is quantized; none behind others."""
        from onnx import helper
        if name not in self.scales:
            return []
        scale, zero = self.scales[name]
        settings = [self._initializer(f"{name}/scale", np.array(scale, np.float32)),
                    self._initializer(f"{name}/zero", np.array(zero, np.uint8))]
        return [helper.make_node("QuantizeLinear", [name, *settings], [f"{name}/quantized"], name=f"{name}/quantize"),
                helper.make_node("DequantizeLinear", [f"{name}/quantized", *settings], [f"{name}/dequantized"],
                                 name=f"{name}/dequantize")]

    def _layer(self, node):
        """Nodes that give a layer its weight and bias from whole numbers."""
        from onnx import helper, numpy_helper
        weight = node.input[1]
        nodes = []
        if weight not in self.readers:
            return nodes
        steps, scale = quantized_weight(self.arrays[weight])
        self.weights[weight].CopyFrom(numpy_helper.from_array(steps, weight))
        extra = [self._initializer(f"{weight}/scale", scale), self._initializer(f"{weight}/zero", np.zeros(len(scale), np.int8))]
        nodes.append(helper.make_node("DequantizeLinear", [weight, *extra], [f"{weight}/dequantized"], axis=0,
                                      name=f"{weight}/dequantize"))
        node.input[1] = f"{weight}/dequantized"
        if len(node.input) > 2:
            bias = node.input[2]
            step = self.scales[node.input[0]][0] * scale.astype(np.float64)
            whole = np.clip(np.rint(self.arrays[bias] / step), -2 ** 31, 2 ** 31 - 1).astype(np.int32)
            self.weights[bias].CopyFrom(numpy_helper.from_array(whole, bias))
            extra = [self._initializer(f"{bias}/scale", step.astype(np.float32)),
                     self._initializer(f"{bias}/zero", np.zeros(len(step), np.int32))]
            nodes.append(helper.make_node("DequantizeLinear", [bias, *extra], [f"{bias}/dequantized"], axis=0,
                                          name=f"{bias}/dequantize"))
            node.input[2] = f"{bias}/dequantized"
        return nodes
