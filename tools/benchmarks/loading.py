"""Benchmark of data loading: load."""
import glob
import json
import os
import sys
import tempfile

from benchmarks.common import MEASURES, ROOT, interleaved, run, table

import numpy as np

__all__ = ["load", "make_photos"]

SIDE, CLASSES = 256, 10


def make_photos(folder, count, source=None):
    """Write JPEGs of 256 x 256 pixels, by class: parts of the photographs in a folder, else textures as detailed as those.

    Returns: their mean size in bytes.
    """
    from PIL import Image
    files = sorted(glob.glob(os.path.join(source, "**", "*.jpg"), recursive=True)) if source else []
    random, total = np.random.RandomState(0), 0
    photos = []
    for name in files[:100]:
        with Image.open(name) as photo:
            photos.append(photo.convert("RGB"))
    for number in range(count):
        if photos:
            photo = photos[number % len(photos)]
            side = random.uniform(0.5, 1.0) * min(photo.size)
            left, top = (random.uniform(0, length - side) for length in photo.size)
            made = photo.resize((SIDE, SIDE), Image.BICUBIC, box=(left, top, left + side, top + side))
        else:
            # Noise at several scales, each weaker the finer it is, as in photographs.
            layers = [np.asarray(Image.fromarray(random.randint(0, 256, (cells, cells, 3), dtype=np.uint8)).resize(
                (SIDE, SIDE), Image.BICUBIC), dtype=np.float32) / cells for cells in (4, 8, 16, 32, 64, 128)]
            mixed = sum(layers)
            made = Image.fromarray(np.uint8(255 * (mixed - mixed.min()) / np.ptp(mixed)))
        path = os.path.join(folder, f"class{number % CLASSES}", f"{number:05d}.jpg")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        made.save(path, quality=95 if number % 2 else 85)
        total += os.path.getsize(path)
    return total / count


def load(arguments):
    """Images a second from JPEGs to batches: gluonzoo's records, ImageRecordIter, Gluon's and torch's DataLoader, same images."""
    sys.path.insert(0, ROOT)
    from gluonzoo.data import packing, packing_list

    script, threads = os.path.join(MEASURES, "loading.py"), len(os.sched_getaffinity(0))
    source = os.path.join(os.environ.get("GLUONZOO_DATA", ""), "coco_mini")
    with tempfile.TemporaryDirectory() as work:
        folder, prefix = os.path.join(work, "photos"), os.path.join(work, "packed")
        size = make_photos(folder, arguments.images, source if os.path.isdir(source) else None)
        packing.pack(packing_list.from_folder(folder), prefix, processes=threads)
        print(f"{arguments.images} JPEGs of {SIDE} x {SIDE} pixels, {size / 1000:.1f} kB in the mean, "
              f"{'parts of photographs' if os.path.isdir(source) else 'textures'}; {threads} processors")

        def measure(way, python=sys.executable, **wishes):
            wish = {"way": way, "prefix": prefix, "folder": folder, "batch": arguments.batch_size or 100, "threads": threads,
                    "images": arguments.images, "workers": 0, **wishes}
            return lambda: run([python, script, json.dumps(wish)])

        # On few processors ImageRecordIter takes one thread, whatever it is given.
        variants = {"gluonzoo records, threads": measure("gluonzoo"), "ImageRecordIter": measure("record_iter"),
                    "gluonzoo records, 1 thread": measure("gluonzoo", threads=1)}
        variants.update({f"Gluon DataLoader, {label}": measure("gluon", **wishes) for label, wishes in (
            ("no worker", {}), (f"{threads} processes", {"workers": threads}),
            (f"{threads} threads", {"workers": threads, "pool": "threads"}))})
        if arguments.torch_python:
            variants.update({f"torch DataLoader, {label}": measure("torch", arguments.torch_python, workers=workers)
                             for label, workers in (("no worker", 0), (f"{threads} processes", threads))})
        else:
            print("torch is left out: give --torch-python /path/to/python with torch and torchvision installed")
        figures = interleaved(variants, arguments.repeats)
    return table(figures, "gluonzoo records, threads", "img/s")
