"""Reduced recipes for machines without a GPU: an hour at most on two cores."""
from . import Recipe

RECIPES = [
    Recipe(
        "cifar10", "a recipe of this project: a ResNet of 20 layers, one cycle of the learning rate",
        {"model": "cifar_resnet20_v1_a", "dataset": "cifar10", "epochs": 30, "batch_size": 128, "optimizer": "nag",
         "momentum": 0.95,
         "min_momentum": 0.85, "wd": 0.0005, "decay_bias_and_norm": False, "lr": 0.4, "schedule": "one_cycle",
         "cycle_share": 0.4, "label_smoothing": 0.1, "augment": "crop+flip"},
        {"schedule, min_momentum": "Smith, 2018, arXiv:1803.09820", "label_smoothing": "Szegedy et al., 2015, section 7"},
        ("For other small networks: --model, perhaps with a smaller --lr; networks without BatchNorm want 0.02.",),
        ("cifar_*", "nin_cifar10", "resnet18*")),
    Recipe(
        "fashion_mnist", "a recipe of this project: a ResNet of 20 layers, one cycle of the learning rate, averaged weights",
        {"model": "cifar_resnet20_v1_a", "dataset": "fashion_mnist", "input_size": 28, "epochs": 20, "batch_size": 128,
         "optimizer": "nag", "momentum": 0.95, "min_momentum": 0.85, "wd": 0.0005, "decay_bias_and_norm": False, "lr": 0.3,
         "schedule": "one_cycle", "cycle_share": 0.4, "label_smoothing": 0.1, "ema": 0.999, "augment": "crop:2+flip+cutout:8"},
        {"schedule, min_momentum": "Smith, 2018, arXiv:1803.09820", "label_smoothing": "Szegedy et al., 2015, section 7",
         "augment": "DeVries, Taylor, 2017, arXiv:1708.04552, for cutout"},
        (), ("cifar_*",))]
