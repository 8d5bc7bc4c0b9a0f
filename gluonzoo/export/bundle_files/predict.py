"""Classify image files: python predict.py IMAGE ... [--json]; needs numpy, pillow, onnxruntime and the files beside it."""
import json
import math
import os
import sys

import numpy as np
import onnxruntime
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
RULE, LABELS = (json.load(open(os.path.join(HERE, name), encoding="utf-8")) for name in ("preprocessing.json", "labels.json"))


def read(path):
    """An image file as (h, w, 3) uint8 RGB; transparency is dropped, a camera's rotation is not applied."""
    with Image.open(path) as image:
        if image.mode[:1] == "I":  # 16-bit grey.
            return np.repeat((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        return np.asarray((image.convert("RGBA") if "transparency" in image.info else image).convert("RGB"))


def resize(rows, count, start, stop):
    """The rows from `start` to `stop` as `count` rows, by a triangle filter that widens when shrinking."""
    scale = (stop - start) / count
    reach, centre = max(scale, 1.0), start + (np.arange(count)[:, None] + 0.5) * scale
    taps = np.floor(centre - reach).astype(np.int64) + np.arange(2 * math.ceil(reach) + 1)
    weights = np.maximum(0.0, 1.0 - np.abs(taps + 0.5 - centre) / reach) * ((taps >= 0) & (taps < len(rows)))
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)[..., None, None]
    return sum(rows[taps[:, tap].clip(0, len(rows) - 1)] * weights[:, tap] for tap in range(taps.shape[1]))


def fit(image):
    """(h, w, 3) uint8 -> (height, width, channels) uint8, as the network was trained to see images."""
    height, width, (rows, columns) = RULE["height"], RULE["width"], image.shape[:2]
    if RULE["channels"] == 1:
        image = ((image.astype(np.uint32) * RULE["luma"]).sum(axis=2, keepdims=True) + 0x8000 >> 16).astype(np.uint8)
    inner, box = (height, width), (0, 0, rows, columns)
    small = max(height, width) <= RULE["small"] and all(0 <= n <= RULE["margin"] for n in (height - rows, width - columns))
    if small or (rows, columns) == inner:
        inner = rows, columns
    elif max(rows, columns) <= RULE["tiny"] and rows < height and columns < width:
        inner = round(height * RULE["tiny_share"]), round(width * RULE["tiny_share"])
    else:  # The centre, with the aspect of the input.
        tall, wide = (RULE["centre_share"] * min(rows / height, columns / width) * size for size in inner)
        box = (rows - tall) / 2, (columns - wide) / 2, (rows + tall) / 2, (columns + wide) / 2
    image = resize(resize(image, inner[0], box[0], box[2]).swapaxes(0, 1), inner[1], box[1], box[3]).swapaxes(0, 1)
    canvas = np.zeros((height, width, RULE["channels"]), dtype=np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    canvas[top:top + inner[0], left:left + inner[1]] = np.rint(image)
    return canvas


if __name__ == "__main__":
    paths = [word for word in sys.argv[1:] if word != "--json"] or sys.exit(__doc__)
    session = onnxruntime.InferenceSession(os.path.join(HERE, "model.onnx"), providers=["CPUExecutionProvider"])
    for path in paths:
        scores = session.run(None, {"images": fit(read(path))[None]})[0][0]
        best = [(LABELS[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")[:5]]
        print(json.dumps({path: best}) if "--json" in sys.argv else path + "".join(f"\n  {p:.4f}  {name}" for name, p in best))
