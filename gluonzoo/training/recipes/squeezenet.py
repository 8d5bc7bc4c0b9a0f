"""SqueezeNet, 2016."""
from . import Recipe

RECIPES = [Recipe(
    "squeezenet_2016",
    "Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size, 2016, arXiv:1602.07360",
    {"model": "squeezenet1_0", "dataset": "imagenet", "epochs": 68, "batch_size": 512, "optimizer": "sgd", "momentum": 0.9,
     "wd": 0.0002, "lr": 0.04, "schedule": "poly", "power": 1.0, "dropout": 0.5, "augment": "scale_jitter:256,256+flip"},
    {"lr, schedule, power": "section 3.2: begins at 0.04, linearly decreased throughout training",
     "dropout": "section 3.2: 50 % behind fire9"},
    ("For the rest the paper points to its Caffe configuration: 170,000 updates of batches of 512 (32 by 16 accumulated: "
     "--batch-size 512 --accumulate 16), momentum 0.9, decay 0.0002, crops of 227 of 256 with mirroring.",),
    ("squeezenet*",))]
