"""VGG, 2014."""
from . import Recipe

RECIPES = [Recipe(
    "vgg_2014",
    "Simonyan, Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014, arXiv:1409.1556",
    {"model": "vgg16", "dataset": "imagenet", "epochs": 74, "batch_size": 256, "optimizer": "sgd", "momentum": 0.9, "wd": 0.0005,
     "lr": 0.01, "schedule": "plateau", "lr_decay": 0.1, "patience": 5, "dropout": 0.5,
     "augment": "scale_jitter:256,512+flip+pca_lighting"},
    {"epochs": "section 3.1: 370K iterations, 74 epochs", "batch_size, momentum, wd, lr": "section 3.1",
     "schedule, lr_decay": "section 3.1: divided by 10 when validation accuracy stopped improving, three times in all",
     "dropout": "section 3.1: the first two fully connected layers",
     "augment": "section 3.1: S in [256, 512], a random crop of 224, flips, the RGB colour shift of AlexNet"},
    ("How long validation may stand still the paper does not say; patience is 5 epochs.",
     "Deep configurations began from layers of the trained shallow one, A (section 3.1); random weights as here, He's, it found "
     "possible later."),
    ("vgg*",))]
