"""What TensorBoard shows of a run beside its scalars: the network's graph, histograms by layer, images with predictions."""
import numpy as np

__all__ = ["write_graph", "write_histograms", "write_images"]

#: TensorBoard's number for float32 (tensorflow/core/framework/types.proto).
_FLOAT = 1


def _scope(name):
    """A structural name with TensorBoard's separators, so that blocks open and close there."""
    return name.replace(".", "/")


def graph_definition(net, input_shape):
    """A network's symbol as TensorFlow's GraphDef: operators, parameters, edges, attributes, and shapes of outputs.

    Args: input_shape: (C, H, W); shapes are given for a batch of any size.
    Raises: UserError when symbols cannot pass through the network.
    """
    from tensorboardX.proto.graph_pb2 import GraphDef
    from tensorboardX.proto.node_def_pb2 import NodeDef
    from tensorboardX.proto.versions_pb2 import VersionDef

    from ..export.graph import VARIABLE, Graph
    from ..export.symbol import _parameters, _trace

    parameters = _parameters(net)
    names, text = _trace(net, parameters)
    # The graph asks for values, of which only the shapes are looked at here: one zero stands for all.
    values = {name: np.broadcast_to(np.float32(0), parameter.shape) for name, parameter in parameters.values()}
    graph = Graph.from_symbol(text, values, names)
    shapes = graph.shapes((1, *input_shape))
    nodes = []
    for node in graph.nodes.values():
        kind = node.op if node.op != VARIABLE else "Placeholder" if node.name == graph.input else "Parameter"
        inputs = [_scope(name) + (f":{index}" if index else "") for name, index in node.inputs]
        proto = NodeDef(name=_scope(node.name), op=kind, input=inputs)
        for key, value in node.attrs.items():
            if not key.startswith("__"):
                proto.attr[key].s = str(value).encode("utf-8")
        shape = shapes.get((node.name, 0))
        if shape is None and node.name in values:
            shape = values[node.name].shape
        if shape:
            proto.attr["T"].type = _FLOAT
            sizes = proto.attr["_output_shapes"].list.shape.add()
            for place, size in enumerate(shape):
                sizes.dim.add(size=-1 if place == 0 and kind != "Parameter" or size < 1 else size)
        nodes.append(proto)
    for name, index in graph.outputs:
        nodes.append(NodeDef(name=f"output/{_scope(name)}", op="Output", input=[_scope(name) + (f":{index}" if index else "")]))
    return GraphDef(node=nodes, versions=VersionDef(producer=22))


def write_graph(writer, net, input_shape):
    """Write a network's graph with tensorboardX's SummaryWriter. See `graph_definition`."""
    from tensorboardX.proto.event_pb2 import Event

    definition = graph_definition(net, input_shape)
    writer._get_file_writer().add_event(Event(graph_def=definition.SerializeToString()))


def write_histograms(writer, net, step):
    """Write histograms of every parameter and, where it has one, of its gradient in the last update, both of device 0."""
    for name, parameter in net._collect_params_with_prefix().items():
        writer.add_histogram(f"weights/{_scope(name)}", parameter.list_data()[0].astype("float32").asnumpy(), step)
        # Gradients that are added up are zeroed after the update: nothing is left to show.
        if parameter.grad_req == "write":
            gradient = parameter.list_grad()[0].astype("float32").asnumpy()
            if np.isfinite(gradient).all():
                writer.add_histogram(f"gradients/{_scope(name)}", gradient, step)


def write_images(writer, net, dataset, transform, count, epoch, step):
    """Write training images as this epoch augments them, each with its class and what the network takes it for now.

    Args: count: how many, spread evenly over the data set; epoch: decides the augmentation, from 0.
    """
    import mxnet as mx

    indices = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(np.int64))
    inputs = np.asarray(transform(dataset.images(indices), indices, epoch), dtype=np.float32)
    first = next(iter(net.collect_params().values()))
    half = np.dtype(first.dtype) == np.float16
    with mx.autograd.pause(train_mode=False):
        outputs = net(mx.nd.array(inputs, ctx=first.list_ctx()[0], dtype="float16" if half else "float32"))
    outputs = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
    scores = outputs.astype("float32").asnumpy().astype(np.float64)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    picture = captioned(pixels_of(inputs, transform), [
        (str(dataset.classes[label]), str(dataset.classes[share.argmax()]), float(share.max()), share.argmax() == label)
        for label, share in zip(dataset.labels[indices], shares)])
    writer.add_image("images/training", picture, step, dataformats="HWC")


def pixels_of(inputs, transform):
    """Normalised inputs as pixels again.

    Shape: (N, C, H, W) float32 -> (N, H, W, 3) uint8.
    """
    channels = inputs.shape[1]
    mean, std = (np.broadcast_to(np.asarray(values, dtype=np.float32), channels).reshape(-1, 1, 1) if len(values) in (1, channels)
                 else np.float32(np.mean(values)) for values in (transform.mean, transform.std))
    pixels = np.rint(255 * np.clip(inputs * std + mean, 0, 1)).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.repeat(pixels, 3, axis=3) if channels == 1 else pixels


def captioned(images, captions, side=128, columns=4):
    """Images side by side with words below: the class, and what it was taken for; wrong answers are marked by a cross.

    Shape: (N, H, W, 3) uint8 -> (rows, columns, 3) uint8.
    Args: captions: (class, answer, probability, right) of each.
    """
    from PIL import Image, ImageDraw

    tall, gap = side + 30, 6
    columns = min(columns, len(images))
    canvas = Image.new("RGB", (columns * (side + gap) + gap, -(-len(images) // columns) * (tall + gap) + gap), "white")
    draw = ImageDraw.Draw(canvas)
    for place, (pixels, (true, answer, share, right)) in enumerate(zip(images, captions)):
        left, top = gap + place % columns * (side + gap), gap + place // columns * (tall + gap)
        scale = side / max(pixels.shape[:2])
        size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
        canvas.paste(Image.fromarray(pixels).resize(size, Image.NEAREST if scale > 1 else Image.BILINEAR), (left, top))
        for line, (text, colour) in enumerate(((true, "#222222"), (f"{'=' if right else 'x'} {answer} {100 * share:.0f} %",
                                                                   "#00624a" if right else "#a33a00"))):
            # The font that comes with Pillow has Latin letters only.
            draw.text((left, top + side + 2 + 14 * line), text.encode("latin-1", "replace").decode("latin-1")[:22], fill=colour)
    return np.asarray(canvas)
