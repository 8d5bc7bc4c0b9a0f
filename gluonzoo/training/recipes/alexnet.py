"""AlexNet, 2012."""
from . import Recipe

RECIPES = [Recipe(
    "alexnet_2012",
    "Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks, 2012",
    {"model": "alexnet", "dataset": "imagenet", "epochs": 90, "batch_size": 128, "optimizer": "sgd", "momentum": 0.9,
     "wd": 0.0005, "lr": 0.01, "schedule": "plateau", "lr_decay": 0.1, "patience": 5, "dropout": 0.5,
     "augment": "scale_jitter:256,256+flip+pca_lighting:0.1"},
    {"epochs": "section 5: roughly 90 cycles", "batch_size, momentum, wd": "section 5", "lr": "section 5: initialized at 0.01",
     "schedule, lr_decay": "section 5: divided by 10 when the validation error rate stopped improving, three times in all",
     "dropout": "section 4.2: the first two fully connected layers",
     "augment": "section 4.1: a random crop of 224 from 256, reflections, PCA lighting of deviation 0.1"},
    ("How long validation may stand still the paper does not say; patience is 5 epochs.",
     "The update v <- 0.9 v - 0.0005 lr w - lr g (section 5) is that of --optimizer sgd, which decays biases too; their code "
     "(cuda-convnet) did not."),
    ("alexnet*",))]
