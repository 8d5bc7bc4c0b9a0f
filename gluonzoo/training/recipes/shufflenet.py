"""ShuffleNet, 2017 and 2018."""
from . import Recipe

RECIPES = [Recipe(
    "shufflenet_2017",
    "Zhang, Zhou, Lin, Sun, ShuffleNet, 2017, arXiv:1707.01083; the same settings in Ma et al., ShuffleNet V2, 2018, "
    "arXiv:1807.11164",
    {"model": "shufflenet_v1_g3_1_0", "dataset": "imagenet", "epochs": 240, "batch_size": 1024, "optimizer": "sgd",
     "momentum": 0.9,
     "wd": 0.00004, "lr": 0.5, "schedule": "poly", "power": 1.0, "augment": "resized_crop:0.35,1+flip"},
    {"epochs": "section 4: 3 x 10^5 iterations, 240 epochs", "batch_size, wd": "section 4",
     "lr, schedule, power": "section 4: linear decay from 0.5 to 0", "momentum": "section 4: as in ResNeXt's paper",
     "augment": "section 4: slightly less aggressive scale augmentation"},
    ("How much less aggressive the paper does not say; crops of 35 % of the area and more are chosen.",),
    ("shufflenet*",))]
