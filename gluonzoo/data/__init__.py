"""Data sets by name, the transforms that fit them to a network, and the order in which workers read them.

    train = load("mnist")
    batches = ShardedBatches(len(train), batch_size=64, rank=0, num_workers=2)
    transform = Transform((1, 32, 32), train.mean, train.std, train=True, augment=train.default_augment)
    for batch, images, labels in Loader(train, batches, transform, epoch=0):
        ...
"""
from .augment import AUGMENTATIONS
from .base import ArrayDataset, FolderDataset
from .datasets import load, names
from .images import decode
from .loader import Loader
from .records_dataset import RecordDataset
from .sharding import Batch, ShardedBatches
from .transforms import Transform, resize

__all__ = ["load", "names", "ArrayDataset", "FolderDataset", "RecordDataset", "AUGMENTATIONS", "Transform", "Batch",
           "ShardedBatches", "Loader", "decode", "resize"]
