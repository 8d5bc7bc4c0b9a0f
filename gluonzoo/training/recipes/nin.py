"""Network in Network, 2013."""
from . import Recipe

RECIPES = [Recipe(
    "nin_2013",
    "Lin, Chen, Yan, Network In Network, 2013, arXiv:1312.4400",
    {"model": "nin_cifar10", "dataset": "cifar10", "epochs": 230, "batch_size": 128, "optimizer": "sgd", "momentum": 0.9,
     "wd": 0.0001, "lr": 0.1, "schedule": "step", "milestones": (0.87, 0.96), "lr_decay": 0.1, "dropout": 0.5,
     "augment": "crop+flip"},
    {"batch_size": "section 4.1", "lr_decay": "section 4.1: lowered by 10 when training stops improving, once more later",
     "dropout": "section 4.1: behind all but the last mlpconv layer", "augment": "section 4.2: translation and horizontal flip"},
    ("The paper follows AlexNet and sets rates by hand without saying which: lr, wd, epochs and milestones are those of the "
     "authors' "
     "Caffe solver for CIFAR-10 (rate 0.1, decay 0.0001, most of 120,000 updates at the first rate).",
     "It watches the training set, not validation; here the falls come at fixed places.",
     "Its global contrast normalisation and ZCA whitening are not applied."),
    ("nin_*",))]
