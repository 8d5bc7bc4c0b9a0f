"""Inference of one network with one engine in this process. Argument: a JSON object.

engine: stock (MXNet as it comes), stock-omp (told to use all processors), mxnet (with gluonzoo's threads), gluonzoo
(`export.fuse`), int8, bf16, onnxruntime, onnxruntime-int8; model; batches: list of numbers; size: height and width, or null
for the network's own; seconds: of measuring each batch; threads; folder: where the ONNX files of the network lie or are made.
A line for each batch: see `speed.report`.
"""
import json
import os
import sys

from speed import begin, report, rounds

wishes = begin({"size": None, "seconds": 2.0, "folder": None, **json.loads(sys.argv[1])})
engine = wishes["engine"]

import gluonzoo  # noqa: E402 - after what makes MXNet the stock one.

import mxnet as mx  # noqa: E402
import numpy as np  # noqa: E402


def build():
    """(network with made-up weights and statistics of trained size, its input shape)."""
    spec = gluonzoo.model_spec(wishes["model"])
    size = wishes["size"] or spec.input_shape[1]
    np.random.seed(0)  # MXNet's initializers draw from both.
    mx.random.seed(0)
    net = gluonzoo.get_model(wishes["model"])
    net.initialize(mx.init.Xavier(magnitude=2))
    return net, (spec.input_shape[0], size, size)


def images(batch, shape, seed=0):
    return np.random.RandomState(seed).rand(batch, *shape).astype(np.float32)


def onnx_file(net, shape, small):
    """The network's ONNX file, written by the first process that needs it."""
    path = os.path.join(wishes["folder"], f"{wishes['model']}-{shape[1]}{'-int8' if small else ''}.onnx")
    if not os.path.exists(path):
        from gluonzoo import export
        if small:
            export.quantize(net, images(16, shape)).to_onnx(path)
        else:
            export.to_onnx(net, path, shape)
    return path


def mxnet_call(net, shape):
    from gluonzoo import export
    if engine == "gluonzoo":
        net = export.fuse(net, input_shape=shape)
    elif engine == "int8":
        net = export.quantize(net, images(16, shape))
    elif engine == "bf16":
        net = export.to_bf16(net, shape, force=True)
    else:
        net.hybridize(static_alloc=True)

    def prepare(batch):
        data = mx.nd.array(images(batch, shape))
        if engine == "gluonzoo":
            net.prepare(data)

        def call():
            outputs = net(data)
            for output in outputs if isinstance(outputs, (list, tuple)) else [outputs]:
                output.wait_to_read()
        return call
    return prepare


def onnxruntime_call(net, shape):
    path = onnx_file(net, shape, engine.endswith("int8"))
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = wishes["threads"]
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def prepare(batch):
        data = images(batch, shape)
        return lambda: session.run(None, {name: data})
    return prepare


net, shape = build()
prepare = (onnxruntime_call if engine.startswith("onnxruntime") else mxnet_call)(net, shape)
for batch in wishes["batches"]:
    report(batch, rounds(prepare(batch), wishes["seconds"]))
sys.stdout.flush()
os._exit(0)
