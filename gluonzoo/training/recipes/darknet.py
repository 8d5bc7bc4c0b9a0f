"""Darknet, 2016 and 2018."""
from . import Recipe

RECIPES = [Recipe(
    "darknet_2016",
    "Redmon, Farhadi, YOLO9000: Better, Faster, Stronger, 2016, arXiv:1612.08242; Darknet-53: YOLOv3, 2018, arXiv:1804.02767",
    {"model": "darknet19", "dataset": "imagenet", "epochs": 160, "batch_size": 128, "optimizer": "sgd", "momentum": 0.9,
     "wd": 0.0005, "lr": 0.1, "schedule": "poly", "power": 4.0, "input_size": 224,
     "augment": "resized_crop+flip+color_jitter:0.4"},
    {"epochs, momentum, wd": "section 3, training for classification",
     "lr, schedule, power": "section 3: 0.1, polynomial decay of power 4", "input_size": "section 3: 224, then 448",
     "augment": "section 3: random crops, rotations, and hue, saturation, and exposure shifts"},
    ("The paper does not say the batch; 128 is in the authors' configuration.", "Rotations and hue shifts are not applied.",
     "Then it trains 10 epochs at 448 with a rate of 0.001: --weights of this run, --input-size 448 --epochs 10 --lr 0.001 "
     "--schedule constant."),
    ("darknet*",))]
