"""Squeeze-and-Excitation networks, 2017."""
from . import Recipe

RECIPES = [Recipe(
    "senet_2017", "Hu, Shen, Sun, Squeeze-and-Excitation Networks, 2017, arXiv:1709.01507",
    {"model": "se_resnet50", "dataset": "imagenet", "epochs": 100, "batch_size": 1024, "optimizer": "sgd", "momentum": 0.9,
     "wd": 0.0001, "lr": 0.6, "schedule": "step", "milestones": (0.3, 0.6, 0.9), "lr_decay": 0.1, "augment": "resized_crop+flip"},
    {"epochs": "implementation details: 100 epochs from scratch", "batch_size, momentum, lr": "implementation details",
     "milestones, lr_decay": "implementation details: decreased 10 times every 30 epochs",
     "augment": "implementation details: random cropping with scale and aspect ratio, flips"},
    ("The paper does not mention weight decay; 0.0001 is ResNet's.",
     "For SENet-154 it has label smoothing too (--label-smoothing 0.1), and balances the classes of a batch, which is not done "
     "here.", "The authors' own retraining: --batch-size 256 --lr 0.1 and more epochs (github.com/hujie-frank/SENet)."),
    ("se_*", "senet154"))]
