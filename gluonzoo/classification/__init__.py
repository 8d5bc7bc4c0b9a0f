"""Classifiers, one file a family. Importing this package registers them all."""
from . import cifar_resnet, lenet, resnet

__all__ = ["cifar_resnet", "lenet", "resnet"]
