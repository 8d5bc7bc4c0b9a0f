"""Images a second of LeNet-5's training over all workers. Arguments: gluonzoo|stock, batch of each worker, kvstore.

Data: 12,800 images of 28x28 bytes made here, padded to 32x32 and normalised in every epoch, as in a real run.
"""
import json
import sys
import time

import gluonzoo
from gluonzoo import data
from gluonzoo.training import Classification, TrainConfig, Trainer, loop

import mxnet as mx
import numpy as np

way, batch, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
EPOCHS, IMAGES = 4, 12800


def dataset():
    random = np.random.RandomState(0)
    return data.ArrayDataset(random.randint(0, 256, (IMAGES, 28, 28, 1), dtype=np.uint8), name="made", split="train",
                             classes=tuple("0123456789"), labels=random.randint(0, 10, IMAGES).astype(np.int32),
                             image_shape=(1, 28, 28), mean=(0.13,), std=(0.31,), default_augment="none", source="made here")


def ours():
    """The real loop with its loader, metrics and log, less the checkpoints."""
    net = gluonzoo.get_model("lenet5")
    net.initialize()
    config = TrainConfig(batch_size=batch, epochs=EPOCHS, kvstore=kind, lr=0.01)
    trainer = Trainer(net, "sgd", {"learning_rate": 0.01, "momentum": 0.9}, kvstore=kind)
    made = dataset()
    transform = data.Transform((1, 32, 32), made.mean, made.std, train=True)
    run = loop.Run(net, trainer, Classification(), (made, transform), None, config)
    run.log.enabled = False
    net.hybridize(static_alloc=True, static_shape=True)
    return [record["images_per_second"] for record in loop.fit(run)], run.store.rank


def stock():
    """The loop of MXNet's tutorials: DataLoader, gluon.Trainer, a metric read in every step; our threads."""
    net = gluonzoo.get_model("lenet5")
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01, "momentum": 0.9}, kvstore=kind)
    made = dataset()
    images = np.pad(made.images(np.arange(IMAGES)), ((0, 0), (2, 2), (2, 2), (0, 0)))
    pairs = mx.gluon.data.ArrayDataset(mx.nd.array(images.transpose(0, 3, 1, 2), dtype="uint8"), made.labels)
    loader = mx.gluon.data.DataLoader(pairs, batch, shuffle=True, last_batch="discard")
    loss, metric, speeds = mx.gluon.loss.SoftmaxCrossEntropyLoss(), mx.metric.Accuracy(), []
    for _ in range(EPOCHS):
        begun = time.perf_counter()
        for image, label in loader:
            image = (image.astype("float32") / 255 - 0.13) / 0.31
            with mx.autograd.record():
                outputs = net(image)
                value = loss(outputs, label)
            value.backward()
            trainer.step(batch)
            metric.update(label, outputs)
        mx.nd.waitall()
        speeds.append(IMAGES / (time.perf_counter() - begun))
    return speeds, 0


speeds, rank = ours() if way == "gluonzoo" else stock()
if rank == 0:
    print(json.dumps({"value": sorted(speeds[1:])[len(speeds[1:]) // 2]}), flush=True)
if kind.startswith("dist"):
    import gluonzoo.distributed
    gluonzoo.distributed.leave(0)
