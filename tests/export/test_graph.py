"""A network's graph as data: what is read is what is written, and rewriting it changes what it should."""
import json

import gluonzoo
from gluonzoo.export import ExportError
from gluonzoo.export.graph import VARIABLE, Graph, Node

import mxnet as mx
import numpy as np
import pytest
from onnx_nets import Op, images, prepared


@pytest.fixture(scope="module")
def net():
    return prepared("cifar_resnet20_v1_a")


@pytest.fixture(scope="module")
def graph(net):
    return Graph.from_net(net)


def test_attributes_are_values_and_parameters_the_networks(net, graph):
    conv = next(node for node in graph.operators if node.op == "Convolution")
    assert conv.attrs["kernel"] == (3, 3) and conv.attrs["no_bias"] is True and conv.attrs["num_filter"] == 16
    assert conv.inputs == [("data", 0), ("features.conv1.conv.weight", 0)] or conv.inputs[0] == ("data", 0)
    own = {name: parameter.data().asnumpy() for name, parameter in net._collect_params_with_prefix().items()}
    assert set(graph.parameters) == set(own)
    assert all(np.array_equal(graph.parameters[name], own[name]) for name in own)
    assert graph.output_names == ("output",) and graph.source(conv).op == VARIABLE
    assert graph.value(conv.inputs[1]) is graph.parameters[conv.inputs[1][0]] and graph.value(conv.inputs[0]) is None


def test_to_symbol_and_back_is_the_network_to_the_bit(net, graph):
    x = images(2, 3, 32, 32)
    expected = net(mx.nd.array(x)).asnumpy()
    np.testing.assert_array_equal(graph.run(x)[0], expected)
    again = Graph.from_symbol(graph.to_symbol(), graph.parameters, graph.output_names)
    assert again.nodes == graph.nodes and again.outputs == graph.outputs
    np.testing.assert_array_equal(again.to_block()(mx.nd.array(x)).asnumpy(), expected)
    assert graph.to_json() == again.to_json()


def test_several_outputs_keep_their_names_and_order():
    net = prepared("googlenet_bn", aux=True, classes=4)
    graph = Graph.from_net(net)
    assert graph.output_names == ("output", "aux1", "aux2")
    x = images(1, 3, 224, 224)
    for ours, theirs in zip(net(mx.nd.array(x)), graph.run(x)):
        np.testing.assert_array_equal(ours.asnumpy(), theirs)


def test_shapes_of_every_entry(graph):
    shapes = graph.shapes((2, 3, 40, 24))
    first = next(node for node in graph.operators if node.op == "Convolution")
    assert shapes[first.entry] == (2, 16, 40, 24) and shapes[graph.outputs[0]] == (2, 10)
    assert shapes[first.inputs[1]] == (16, 3, 3, 3)
    assert all(0 not in shape for shape in shapes.values())
    with pytest.raises(ExportError, match=r"\(2, 7, 8, 8\)"):
        graph.shapes((2, 7, 8, 8))


def test_operators_of_several_outputs_have_a_shape_each():
    def swapped(F, x):
        halves = F.split(x, num_outputs=2, axis=1)
        return F.concat(halves[1], halves[0], dim=1)

    graph = Graph.from_net(Op(swapped))
    split = next(node for node in graph.operators if node.op == "SliceChannel")
    shapes = graph.shapes((1, 6, 4, 4))
    assert shapes[(split.name, 0)] == shapes[(split.name, 1)] == (1, 3, 4, 4)
    x = images(1, 6, 4, 4)
    np.testing.assert_array_equal(graph.run(x)[0], np.concatenate([x[:, 3:], x[:, :3]], axis=1))


def test_consumers_and_with_outputs(graph):
    first = next(node for node in graph.operators if node.op == "Convolution")
    readers = graph.consumers()
    assert [node.op for node, _ in readers[first.entry]] == ["BatchNorm"] and readers[first.entry][0][1] == 0
    assert graph.outputs[0] not in readers
    part = graph.with_outputs([first.entry, ("data", 0)])
    assert set(part.parameters) == {first.inputs[1][0]} and len(part.operators) == 1
    x = images(1, 3, 8, 8)
    conv, data = part.run(x)
    np.testing.assert_array_equal(data, x)
    assert conv.shape == (1, 16, 8, 8) and len(graph.operators) > 20, "the graph itself must stay"


def test_rewriting():
    """x + w becomes (x * 3) + w2, with a node in front, a new parameter and all readers redirected."""
    graph = Graph.from_net(Op(lambda F, x, w: F.broadcast_add(x, w), w=np.ones((1, 2, 1, 1), "float32")))
    add = graph.operators[0]
    entry = graph.add_parameter("w2", np.full((1, 2, 1, 1), 7, "float32"), before=add.name)
    graph.redirect(("w", 0), entry)
    times = graph.insert(Node("_mul_scalar", "times", {"scalar": 3.0}, [("data", 0)]), before=add.name)
    add.inputs[0] = times.entry
    assert graph.prune().parameters.keys() == {"w2"} and "w" not in graph.nodes
    x = images(2, 2, 3, 3)
    np.testing.assert_allclose(graph.run(x)[0], 3 * x + 7, rtol=1e-6)
    copy = graph.copy()
    copy.nodes["times"].attrs["scalar"] = 5.0
    copy.nodes["times"].inputs.append(("w2", 0))
    assert graph.nodes["times"].attrs == {"scalar": 3.0} and len(graph.nodes["times"].inputs) == 1


def test_mistakes_are_named(graph):
    node = graph.operators[0]
    with pytest.raises(ExportError, match="two nodes named"):
        graph.copy().append(Node("relu", node.name))
    with pytest.raises(ExportError, match="'nowhere', which does not stand before"):
        graph.copy().append(Node("relu", "new", {}, [("nowhere", 0)]))
    with pytest.raises(ExportError, match="no node 'nowhere'"):
        graph.copy().insert(Node("relu", "new"), before="nowhere")
    with pytest.raises(ExportError, match="'gone'"):
        Graph([], {}, [("gone", 0)])
    text = json.dumps({"nodes": [{"op": "null", "name": "stranger", "inputs": []}], "heads": [[0, 0, 0]]})
    with pytest.raises(ExportError, match="stranger"):
        Graph.from_symbol(text, {})
    with pytest.raises(ExportError, match="no values yet"):
        Graph.from_net(gluonzoo.get_model("lenet5"))
