"""XNOR-Net and Binary-Weight-Network, 2016."""
from . import Recipe

_PAPER = ("Rastegari, Ordonez, Redmon, Farhadi, XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks, "
          "2016, arXiv:1603.05279")
#: The authors' train.lua: 55 epochs, the rate after epochs 18, 29, 43 and 52 as a share of the first one.
_REGIMES = {"epochs": 55, "schedule": "step", "milestones": (18 / 55, 29 / 55, 43 / 55, 52 / 55),
            "step_rates": (0.5, 0.1, 0.05, 0.01), "schedule_per": "epoch", "wd": 0.0005,
            "augment": "scale_jitter:256,256+flip"}
_SOURCES = {"epochs, schedule, milestones, step_rates, wd": "the authors' train.lua (allenai/XNOR-Net)"}
_NOTES = ("After epoch 29 the authors' weight decay is 0; here it stays (--resume with --wd 0 from there does the same).",
          "Their loop also centres and clips the weights and scales their gradients: see gluonzoo/layers/binary.py.",
          "Crops of 224 out of images of 256, and flips, as their loader makes them.")
_SMALL = {"model": "cifar_resnet20_v1_b", "dataset": "cifar10", "epochs": 30, "batch_size": 64, "optimizer": "adam", "lr": 0.005,
          "wd": 0.0, "schedule": "cosine", "augment": "crop+flip"}

RECIPES = [
    Recipe("bwn_2016", _PAPER,
           {"model": "bwn_alexnet", "dataset": "imagenet", "batch_size": 128, "optimizer": "sgd", "momentum": 0.9, "lr": 0.01,
            "dropout": 0.1, **_REGIMES},
           {"batch_size, dropout": "the authors' README: -batchSize 128 -dropout 0.1", "optimizer, momentum": "section 4.1: SGD "
            "with momentum for the binary weights", "lr": "the authors' train.lua", **_SOURCES}, _NOTES, ("bwn_alexnet",)),
    Recipe("xnornet_2016", _PAPER,
           {"model": "xnor_alexnet", "dataset": "imagenet", "batch_size": 800, "optimizer": "adam", "lr": 0.001, **_REGIMES},
           {"batch_size": "the authors' README: -batchSize 800", "optimizer": "section 4.1: Adam for binary inputs; README: "
            "-optimType adam", "lr": "the authors' train.lua: a tenth of SGD's with Adam", **_SOURCES}, _NOTES, ("xnor_*",)),
    Recipe("cifar10_bwn", "a recipe of this project: a ResNet of 20 layers with binary weights (Rastegari et al., 2016)",
           {**_SMALL, "binary": "weights"}, {"binary": "arXiv:1603.05279, section 3.1"},
           ("Adam, because the gradients of binary weights are small; no weight decay, which would only shrink the scales.",),
           ("cifar_*",)),
    Recipe("cifar10_xnor", "a recipe of this project: a ResNet of 20 layers with binary weights and inputs (Rastegari et "
           "al., 2016)",
           {**_SMALL, "binary": "inputs"}, {"binary": "arXiv:1603.05279, section 3.2", "optimizer": "section 4.1"},
           ("The scale K of the inputs (--binary inputs_scaled) is left out as in the authors' code.",), ("cifar_*",))]
