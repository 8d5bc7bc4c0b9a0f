"""Inference of one network with one engine in this process. Argument: a JSON object.

engine: stock (MXNet as it comes), stock-omp (told to use all processors), mxnet (with gluonzoo's threads), gluonzoo
(`export.fuse`), int8, bf16, onnxruntime, onnxruntime-int8; model; batches: list of numbers; size: height and width, or null
for the network's own; seconds: of measuring each batch; threads; folder: where the ONNX files of the network lie or are made.
A line for each batch: see `speed.report`.
"""
import gc
import json
import os
import subprocess
import sys

from speed import begin, mark, report, rounds

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


def onnx_path(shape, small):
    return os.path.join(wishes["folder"], f"{wishes['model']}-{shape[1]}{'-int8' if small else ''}.onnx")


def write_onnx(small):
    """Write the network's ONNX file."""
    from gluonzoo import export
    net, shape = build()
    if small:
        export.quantize(net, images(16, shape)).to_onnx(onnx_path(shape, small))
    else:
        export.to_onnx(net, onnx_path(shape, small), shape)


def mxnet_call():
    from gluonzoo import export
    net, shape = build()
    if engine == "gluonzoo":
        net = export.fuse(net, input_shape=shape)
    elif engine == "int8":
        net = export.quantize(net, images(16, shape))
    elif engine == "bf16":
        net = export.to_bf16(net, shape, force=True)
    else:
        net.hybridize(static_alloc=True)
    gc.collect()  # The network that a copy was made of.

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


def onnxruntime_call():
    spec = gluonzoo.model_spec(wishes["model"])
    shape = (spec.input_shape[0], *[wishes["size"] or spec.input_shape[1]] * 2)
    path = onnx_path(shape, engine.endswith("int8"))
    if not os.path.exists(path):  # Written by another process, whose memory is not counted.
        kind = "write-onnx-int8" if engine.endswith("int8") else "write-onnx"
        subprocess.run([sys.executable, __file__, json.dumps({**wishes, "engine": kind})], check=True)
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = wishes["threads"]
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def prepare(batch):
        data = images(batch, shape)
        return lambda: session.run(None, {name: data})
    return prepare


if engine.startswith("write-onnx"):
    write_onnx(engine.endswith("int8"))
    sys.stdout.flush()
    os._exit(0)
mark()
prepare = (onnxruntime_call if engine.startswith("onnxruntime") else mxnet_call)()
for batch in wishes["batches"]:
    report(batch, rounds(prepare(batch), wishes["seconds"]))
sys.stdout.flush()
os._exit(0)
