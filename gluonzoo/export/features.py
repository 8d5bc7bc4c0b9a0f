"""Feature maps of many images into one file."""
import os

import mxnet as mx
import numpy as np

__all__ = ["extract_features"]


def extract_features(predictor, stages, batches, path, pool=False):
    """Write the feature maps of images after the named stages of a network.

    The file is NumPy's .npz: an array for each stage, (N, C, H, W) or, pooled, (N, C), and `files`, the images' names.
    It is written beside its name and renamed.

    Args:
        predictor: a `Predictor` of a live network.
        stages: names of its stages.
        batches: lists of (name, image (h, w, c) uint8).
        path: of the file. pool: keep each map's mean only.
    Returns: {name of the array: its shape}.
    Raises: UserError for a stage that the network does not have; the message lists those it has.
    """
    from ..layers import features

    block = features(predictor.block, stages)
    names, parts = [], {stage: [] for stage in stages}
    for batch in batches:
        files, images = zip(*batch)
        names.extend(files)
        for stage, maps in zip(stages, block(mx.nd.array(predictor.transform(list(images))))):
            parts[stage].append((maps.mean(axis=(2, 3)) if pool else maps).asnumpy())
    arrays = {stage: np.concatenate(values) for stage, values in parts.items()}
    arrays["files"] = np.array(names)
    beside = f"{os.fspath(path)}.tmp-{os.getpid()}"
    try:
        with open(beside, "wb") as file:  # A file object: a name without .npz would get it appended.
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        if os.path.exists(beside):
            os.unlink(beside)
    return {name: array.shape for name, array in arrays.items()}
