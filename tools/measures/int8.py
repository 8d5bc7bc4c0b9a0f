"""What 8 bits cost and bring: python tools/measures/int8.py RUN [RUN ...]

A row for each trained network (a checkpoint, or a run's folder): accuracy on its whole test set in float32 and in 8 bits, by
MXNet and by onnxruntime; the sizes of the files; how many times as fast as the fused float32 network. Calibrated on
training images without augmentation.

    python tools/measures/int8.py --train vgg11_bn --dataset cifar10 --epochs 5 --output RUN
"""
import argparse
import json
import os
import sys
import tempfile
import time

from gluonzoo import data, get_model
from gluonzoo.export import fuse, load_onnx, load_symbol, quantize, to_onnx, to_symbol

import mxnet as mx
import numpy as np

BATCH = 50


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--method", default="percentile", help="naive, percentile or entropy (default: percentile)")
    parser.add_argument("--images", type=int, default=500, metavar="N", help="to calibrate on (default: 500)")
    parser.add_argument("--max-drop", type=float, metavar="POINTS", help="leave layers in float32 until no more is lost on the "
                        "calibration images")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="interleaved repeats of the speed (default: 7); 0: "
                        "no speeds")
    parser.add_argument("--json", metavar="FILE", help="also write the rows there")
    group = parser.add_argument_group("a network of dense layers for 224x224 images, trained at 32x32")
    group.add_argument("--train", metavar="MODEL", help="vgg11 or vgg11_bn: its convolutions and one dense layer")
    group.add_argument("--dataset", default="cifar10")
    group.add_argument("--epochs", type=int, default=5)
    group.add_argument("--samples", type=int, metavar="N", help="images of each epoch, others in each (default: all)")
    group.add_argument("--output", metavar="RUN")
    return parser.parse_args()


class Small(mx.gluon.HybridBlock):
    """A VGG's convolutions, whose last map of a 32x32 image is one pixel, and one dense layer.

    Shape: (N, in_channels, 32, 32) -> (N, classes).
    """

    def __init__(self, model, classes, in_channels):
        super().__init__()
        with self.name_scope():
            self.features = get_model(model, classes=classes, in_channels=in_channels).features
            self.output = mx.gluon.nn.Dense(classes, in_units=512)

    def hybrid_forward(self, F, x):
        return self.output(self.features(x))


def train(arguments):
    """Train a `Small` with Adam, cosine rate, crops and flips; write its parameters and what it was trained on."""
    images = data.load(arguments.dataset, train=True)
    samples = min(arguments.samples or len(images), len(images))
    channels, steps = images.image_shape[0], arguments.epochs * (samples // 64)
    mx.random.seed(0)
    net = Small(arguments.train, len(images.classes), channels)
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    transform = data.Transform((channels, 32, 32), images.mean, images.std, train=True, augment=images.default_augment)
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 1e-3})
    loss_of, step = mx.gluon.loss.SoftmaxCrossEntropyLoss(), 0
    for epoch in range(arguments.epochs):
        order, total = np.random.RandomState(epoch).permutation(len(images))[:samples], 0.0
        for begin in range(0, len(order) - 63, 64):
            chosen = order[begin:begin + 64]
            x = mx.nd.array(transform(images.images(chosen), chosen, epoch))
            y = mx.nd.array(np.asarray(images.labels)[chosen])
            trainer.set_learning_rate(1e-3 * 0.5 * (1 + np.cos(np.pi * step / steps)))
            with mx.autograd.record():
                loss = loss_of(net(x), y)
            loss.backward()
            trainer.step(64)
            total, step = total + float(loss.mean().asscalar()), step + 1
        print(f"epoch {epoch + 1}/{arguments.epochs}  loss {total / (samples // 64):.4f}", flush=True)
    os.makedirs(arguments.output, exist_ok=True)
    net.save_parameters(os.path.join(arguments.output, "small.params"))
    with open(os.path.join(arguments.output, "small.json"), "w") as file:
        json.dump({"model": arguments.train, "dataset": arguments.dataset}, file)


def load(path):
    """(name, network, data set's name, transform's input shape) of a run."""
    if os.path.exists(os.path.join(path, "small.json")):
        with open(os.path.join(path, "small.json")) as file:
            facts = json.load(file)
        images = data.load(facts["dataset"], train=False)
        net = Small(facts["model"], len(images.classes), images.image_shape[0])
        net.load_parameters(os.path.join(path, "small.params"))
        return facts["model"], net, facts["dataset"], (images.image_shape[0], 32, 32)
    from gluonzoo.training import checkpoint
    saved = checkpoint.load(path, tell=lambda line: print(line, file=sys.stderr))
    return saved.config["model"], saved.net(), saved.config["dataset"], tuple(saved.config["input_shape"])


def inputs(dataset, shape, train, count=None):
    """(normalised images, labels) of a data set: all, or `count` of them drawn at random."""
    images = data.load(dataset, train=train)
    chosen = np.arange(len(images))
    if count is not None:
        chosen = np.random.RandomState(0).permutation(len(images))[:count]
    transform = data.Transform(shape, images.mean, images.std)
    # As they come: a list would stand for image files, and lose its margins.
    parts = [transform(images.images(part)) for part in np.array_split(chosen, -(-len(chosen) // 500))]
    return np.concatenate(parts), np.asarray(images.labels)[chosen]


def accuracy(function, images, labels):
    """Percent right, of a function from NumPy to NumPy."""
    scores = np.concatenate([function(images[i:i + BATCH]) for i in range(0, len(images), BATCH)])
    return 100.0 * float((scores.argmax(axis=1) == labels).mean())


def seconds(functions, batch, repeats):
    """Median time of each function on a batch, run in turn."""
    times = {name: [] for name in functions}
    for turn in range(repeats + 2):
        for name, function in functions.items():
            begun = time.perf_counter()
            for _ in range(3):
                function(batch)
            if turn >= 2:
                times[name].append((time.perf_counter() - begun) / 3)
    return {name: float(np.median(values)) for name, values in times.items()}


def measure(path, arguments, folder):
    """The row of one network."""
    name, net, dataset, shape = load(path)
    calibration, known = inputs(dataset, shape, True, arguments.images)
    images, labels = inputs(dataset, shape, False)
    small = quantize(net, calibration, method=arguments.method, max_drop=arguments.max_drop,
                     labels=known if arguments.max_drop is not None else None)
    plain, eight = to_symbol(net, f"{folder}/{name}", shape), small.save(f"{folder}/{name}-int8")
    plain_onnx = to_onnx(net, f"{folder}/{name}.onnx", shape)
    eight_onnx = small.to_onnx(f"{folder}/{name}-int8.onnx")
    read, fused = load_symbol(eight.metadata)[0], fuse(net, input_shape=shape)
    read.hybridize(static_alloc=True, static_shape=len(images) % BATCH == 0)  # Then every run is of one shape.
    functions = {"fp32": lambda x: fused(mx.nd.array(x)).asnumpy(), "int8": lambda x: read(mx.nd.array(x)).asnumpy(),
                 "onnx": load_onnx(plain_onnx.path), "onnx int8": load_onnx(eight_onnx.path)}
    row = {"network": name, "data": dataset, "input": "x".join(map(str, shape)), "test images": len(labels),
           "layers": len(small.layers), "in fp32": len(small.excluded)}
    row.update((f"accuracy {key}", accuracy(function, images, labels)) for key, function in functions.items())
    row.update((f"MB {key}", os.path.getsize(file) / 1e6) for key, file in (
        ("fp32", plain.parameters), ("int8", eight.parameters), ("onnx", plain_onnx.path), ("onnx int8", eight_onnx.path)))
    times = seconds(functions, images[:BATCH], arguments.repeats) if arguments.repeats else {}
    row.update((f"speed {name}", times["fp32"] / times[name] if times else None) for name in ("int8", "onnx", "onnx int8"))
    return row


def table(rows):
    """Markdown."""
    yield ("| network | data | layers | fp32 % | int8 % | lost | onnxruntime int8 % | lost | MB fp32 | MB int8 | MB ONNX fp32 | "
           "MB ONNX int8 | speed int8 | onnxruntime fp32 | onnxruntime int8 |")
    yield "|---" * 15 + "|"
    for row in rows:
        full, speeds = row["accuracy fp32"], [row[f"speed {name}"] for name in ("int8", "onnx", "onnx int8")]
        yield (f"| {row['network']} {row['input']} | {row['data']} ({row['test images']}) | {row['layers']} ({row['in fp32']} in "
               f"fp32) | {full:.2f} | {row['accuracy int8']:.2f} | {full - row['accuracy int8']:+.2f} | "
               f"{row['accuracy onnx int8']:.2f} | {full - row['accuracy onnx int8']:+.2f} | {row['MB fp32']:.2f} | "
               f"{row['MB int8']:.2f} | {row['MB onnx']:.2f} | {row['MB onnx int8']:.2f} | "
               + " | ".join("-" if speed is None else f"{speed:.2f}" for speed in speeds) + " |")


def main():
    arguments = parse_arguments()
    if arguments.train:
        train(arguments)
        return
    rows = []
    for path in arguments.runs:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(path, arguments, folder))
        print("\n".join(table(rows[-1:])) if len(rows) == 1 else list(table(rows[-1:]))[-1], flush=True)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
