"""Images a second from JPEGs to batches ready for a network: random resized crop to 224, flip, normalisation.

python loading.py '{"way": "gluonzoo", "prefix": "/tmp/x/photos", "threads": 2, "batch": 100}'    (from tools/benchmark.py load)

Ways: gluonzoo, record_iter (mx.io.ImageRecordIter), gluon (gluon.data.DataLoader over ImageRecordDataset), torch (torch's
DataLoader over image files with Pillow). `workers` of the DataLoaders: 0, or processes, or with "pool": "threads" threads. Prints
JSON: value in images a second over the second pass of all images.
"""
import itertools
import json
import os
import sys
import time

SIZE, MEAN, STD = 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def gluonzoo(wish):
    """The record data set with `Loader`; batches become MXNet's arrays, as in training."""
    import gluonzoo.data as data

    import mxnet as mx

    photos = data.load("records", data_dir=wish["prefix"] + ".rec")
    transform = data.Transform((3, SIZE, SIZE), MEAN, STD, train=True, augment="resized_crop+flip")
    for epoch in itertools.count():
        batches = data.ShardedBatches(len(photos), wish["batch"], seed=1, blocks=photos.blocks)
        with data.Loader(photos, batches, transform, epoch, threads=wish["threads"]) as loader:
            for _, images, _ in loader:
                batch = mx.nd.array(images)
                batch.wait_to_read()
                yield len(batch)


def record_iter(wish):
    """MXNet's C++ iterator."""
    import gluonzoo  # noqa: F401  (MXNet on this Python and NumPy)

    import mxnet as mx

    scale = {f"{name}_{channel}": 255 * value for name, values in (("mean", MEAN), ("std", STD))
             for channel, value in zip("rgb", values)}
    photos = mx.io.ImageRecordIter(
        path_imgrec=wish["prefix"] + ".rec", path_imgidx=wish["prefix"] + ".idx", data_shape=(3, SIZE, SIZE),
        batch_size=wish["batch"], shuffle=True, seed=1, preprocess_threads=wish["threads"], random_resized_crop=True,
        min_random_area=AREA[0], max_random_area=AREA[1], min_aspect_ratio=RATIO[0], max_aspect_ratio=RATIO[1],
        rand_mirror=True, **scale)
    for _ in itertools.count():
        for batch in photos:
            batch.data[0].wait_to_read()
            yield len(batch.data[0]) - batch.pad
        photos.reset()


def gluon(wish):
    """Gluon's DataLoader with its own transforms."""
    import gluonzoo  # noqa: F401

    import mxnet as mx
    from mxnet.gluon.data.vision import transforms

    if wish.get("pool") == "threads":  # Its record file has one place at which all threads read: they get each other's bytes.
        photos = mx.gluon.data.vision.ImageFolderDataset(wish["folder"])
    else:
        photos = mx.gluon.data.vision.ImageRecordDataset(wish["prefix"] + ".rec")
    photos = photos.transform_first(transforms.Compose([
        transforms.RandomResizedCrop(SIZE, AREA, RATIO), transforms.RandomFlipLeftRight(), transforms.ToTensor(),
        transforms.Normalize(MEAN, STD)]))
    loader = mx.gluon.data.DataLoader(photos, wish["batch"], shuffle=True, num_workers=wish["workers"],
                                      thread_pool=wish.get("pool") == "threads")
    for _ in itertools.count():
        for images, _ in loader:
            images.wait_to_read()
            yield len(images)


def torch(wish):
    """torch's DataLoader over the files."""
    import importlib.util

    import torch
    folder = importlib.util.find_spec("torchvision").submodule_search_locations[0]
    try:
        torch.ops.load_library(os.path.join(folder, "_C.so"))
    except OSError:
        # A torchvision built for another torch: its operators, which are not used here, are declared so that it imports.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(1)
    photos = ImageFolder(wish["folder"], transforms.Compose([
        transforms.RandomResizedCrop(SIZE, AREA, RATIO), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize(MEAN, STD)]))
    loader = torch.utils.data.DataLoader(photos, wish["batch"], shuffle=True, num_workers=wish["workers"],
                                         persistent_workers=wish["workers"] > 0)
    for _ in itertools.count():
        for images, _ in loader:
            yield len(images)


def main():
    wish = json.loads(sys.argv[1])
    stream = {"gluonzoo": gluonzoo, "record_iter": record_iter, "gluon": gluon, "torch": torch}[wish["way"]](wish)
    # The clock starts with an epoch, when no loader has batches in store.
    before = 0
    while before < wish["images"]:
        before += next(stream)
    begun, count = time.perf_counter(), 0
    while count < wish["images"]:
        count += next(stream)
    print(json.dumps({"value": count / (time.perf_counter() - begun)}), flush=True)
    os._exit(0)  # The endings of the loaders' processes are not what is measured.


if __name__ == "__main__":
    main()
