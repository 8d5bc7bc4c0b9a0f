"""DenseNet, 2016."""
from . import Recipe

_PAPER = "Huang, Liu, van der Maaten, Weinberger, Densely Connected Convolutional Networks, 2016, arXiv:1608.06993"
_NESTEROV = {"optimizer": "nag", "momentum": 0.9, "wd": 0.0001, "lr": 0.1, "schedule": "step", "lr_decay": 0.1}

RECIPES = [
    Recipe(
        "densenet_2016", _PAPER,
        {"model": "densenet121", "dataset": "imagenet", "epochs": 90, "batch_size": 256, **_NESTEROV,
         "milestones": (1 / 3, 2 / 3), "augment": "resized_crop+flip"},
        {"epochs, batch_size, lr": "section 4.2", "milestones, lr_decay": "section 4.2: lowered 10 times at epochs 30 and 60",
         "optimizer, momentum, wd": "section 4.2: Nesterov momentum 0.9 without dampening, decay 10^-4",
         "augment": "section 4.1: as in ResNet's and pre-activation's"},
        (), ("densenet*",)),
    Recipe(
        "densenet_cifar_2016", _PAPER,
        {"model": "cifar_densenet_l40_k12", "dataset": "cifar10", "epochs": 300, "batch_size": 64, **_NESTEROV,
         "milestones": (0.5, 0.75), "augment": "crop+flip"},
        {"epochs, batch_size, lr": "section 4.2", "milestones, lr_decay": "section 4.2: divided by 10 at 50 % and 75 % of the "
         "epochs",
         "optimizer, momentum, wd": "section 4.2", "augment": "section 4.1: shifting and mirroring (C10+)"},
        ("Without augmentation (--augment none) the paper has dropout of 0.2 behind each convolution but the first: --dropout "
         "0.2.",),
        ("cifar_densenet*",))]
