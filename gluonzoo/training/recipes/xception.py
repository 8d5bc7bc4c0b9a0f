"""Xception, 2016."""
from . import Recipe

RECIPES = [Recipe(
    "xception_2016", "Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, 2016, arXiv:1610.02357",
    {"model": "xception", "dataset": "imagenet", "epochs": 100, "batch_size": 32, "optimizer": "sgd", "momentum": 0.9,
     "wd": 0.00001, "lr": 0.045, "schedule": "exponential", "lr_decay": 0.94, "decay_epochs": 2.0, "ema": 0.9999,
     "augment": "resized_crop+flip+color_jitter:0.4"},
    {"optimizer, momentum, lr, schedule, lr_decay, decay_epochs": "section 4.3, ImageNet", "ema": "section 4.3: Polyak "
     "averaging at "
     "inference time", "wd": "section 4.4: L2 regularization of 1e-5"},
    ("Batch (60 GPUs, synchronous), epochs, augmentation and the average's decay the paper does not say; those here are "
     "Inception-v3's.", "The paper has dropout of 0.5 before the last layer (section 4.4), which the network here does not."),
    ("xception",))]
