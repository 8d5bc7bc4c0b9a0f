"""ZFNet, 2013."""
from . import Recipe

RECIPES = [Recipe(
    "zfnet_2013",
    "Zeiler, Fergus, Visualizing and Understanding Convolutional Networks, 2013, arXiv:1311.2901",
    {"model": "zfnet", "dataset": "imagenet", "epochs": 70, "batch_size": 128, "optimizer": "sgd", "momentum": 0.9, "wd": 0.0005,
     "lr": 0.01, "schedule": "plateau", "lr_decay": 0.1, "patience": 5, "dropout": 0.5, "augment": "scale_jitter:256,256+flip"},
    {"epochs, batch_size, momentum, lr": "section 3, training details",
     "schedule": "section 3: annealed by hand when the validation error plateaus",
     "dropout": "section 3: layers 6 and 7", "augment": "section 3: crops of 224 from 256, with and without flips"},
    ("The paper does not mention weight decay; 0.0005 is AlexNet's, whose code it began from.",
     "How much the rate falls, and after how long, it does not say: 10, and patience 5.",
     "It takes ten fixed crops of each image (corners and centre) where here a crop is anywhere; filters whose RMS is above 0.1 "
     "are "
     "renormalised there, which is not done here."),
    ("zfnet*",))]
