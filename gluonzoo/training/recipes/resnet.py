"""Residual networks: ResNet, 2015; pre-activation, 2016; ResNeXt, 2016; stochastic depth, 2016."""
from . import Recipe

_SGD = {"optimizer": "sgd", "momentum": 0.9, "wd": 0.0001, "lr": 0.1, "schedule": "step", "lr_decay": 0.1}
_IMAGENET = {"dataset": "imagenet", "batch_size": 256, **_SGD}
_CIFAR = {"dataset": "cifar10", "batch_size": 128, **_SGD, "augment": "crop+flip"}
_RESNET = "He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385"
_IDENTITY = "He, Zhang, Ren, Sun, Identity Mappings in Deep Residual Networks, 2016, arXiv:1603.05027"
_RESNEXT = "Xie, Girshick, Dollar, Tu, He, Aggregated Residual Transformations for Deep Neural Networks, 2016, arXiv:1611.05431"

RECIPES = [
    Recipe(
        "resnet_2015", _RESNET,
        {"model": "resnet50_v1", **_IMAGENET, "epochs": 120, "milestones": (0.25, 0.5, 0.75),
         "augment": "scale_jitter:256,480+flip+pca_lighting"},
        {"epochs": "section 3.4: up to 60 x 10^4 iterations, 119.9 epochs", "batch_size, momentum, wd, lr": "section 3.4",
         "lr_decay": "section 3.4: divided by 10 when the error plateaus",
         "augment": "section 3.4: the shorter side in [256, 480], a crop of 224, flips, the standard colour augmentation"},
        ("Where the error plateaued the paper does not say; the rate falls after 30, 60 and 90 epochs, as in the authors' later "
         "work. "
         "--schedule plateau watches validation instead.",),
        ("resnet*_v1*", "resnet*_v1b")),
    Recipe(
        "resnet_cifar_2015", _RESNET,
        {"model": "cifar_resnet20_v1_a", **_CIFAR, "epochs": 164, "milestones": (0.5, 0.75)},
        {"epochs": "section 4.2: 64k iterations, 164 epochs of 50,000 images", "batch_size, momentum, wd, lr, "
         "lr_decay": "section 4.2",
         "milestones": "section 4.2: after 32k and 48k iterations",
         "augment": "section 4.2: 4 pixels of padding, a crop of 32, flips"},
        ("The paper trains on 45,000 images while it chooses settings; its figures are of all 50,000.",
         "For 110 layers it begins with a rate of 0.01 until the training error is below 80 %, about 400 updates; here "
         "--warmup-epochs 1 does the like."),
        ("cifar_resnet*_v1_*",)),
    Recipe(
        "preresnet_2016", _IDENTITY,
        {"model": "resnet200_v2", **_IMAGENET, "epochs": 90, "milestones": (1 / 3, 2 / 3), "augment": "resized_crop+flip"},
        {"batch_size, lr": "appendix: 256 images on 8 GPUs, 0.1", "milestones, lr_decay": "appendix: divided by 10 at 30 and 60 "
         "epochs",
         "augment": "table 5: scale and aspect ratio augmentation, as in fb.resnet.torch"},
        ("Epochs in all: the paper does not say; 90 as in fb.resnet.torch, which it builds on.",
         "Momentum and weight decay are those of ResNet's paper."),
        ("resnet*_v2*",)),
    Recipe(
        "preresnet_cifar_2016", _IDENTITY,
        {"model": "cifar_resnet110_v2", **_CIFAR, "epochs": 164, "milestones": (0.5, 0.75), "warmup_epochs": 1.0},
        {"batch_size, momentum, wd, lr": "appendix", "milestones, lr_decay": "appendix: divided by 10 at 32k and 48k iterations",
         "augment": "appendix: translation and flipping"},
        ("The paper warms up with a rate of 0.01 for 400 updates; here the rate rises linearly over the 391 of the first epoch.",
         ),
        ("cifar_resnet*_v2",)),
    Recipe(
        "resnext_2016", _RESNEXT,
        {"model": "resnext50_32x4d", **_IMAGENET, "epochs": 90, "milestones": (1 / 3, 2 / 3), "augment": "resized_crop+flip"},
        {"batch_size, momentum, wd, lr": "section 4, implementation details",
         "lr_decay": "section 4: divided by 10 three times by the schedule of fb.resnet.torch",
         "augment": "section 4: scale and aspect ratio augmentation"},
        ("fb.resnet.torch's schedule divides after 30 and 60 of 90 epochs; a third time would come at the end.",),
        ("resnext*",)),
    Recipe(
        "resnext_cifar_2016", _RESNEXT,
        {"model": "cifar_resnext29_8x64d", **_CIFAR, "wd": 0.0005, "epochs": 300, "milestones": (0.5, 0.75)},
        {"epochs, batch_size, wd, momentum, lr": "section 5.3", "milestones": "section 5.3: after 150 and 225 epochs",
         "augment": "section 5.3: as ResNet's"},
        (), ("cifar_resnext*",)),
    Recipe(
        "stochastic_depth_2016",
        "Huang, Sun, Liu, Sedra, Weinberger, Deep Networks with Stochastic Depth, 2016, arXiv:1603.09382",
        {"model": "cifar_resnet110_v1_a", **_CIFAR, "epochs": 500, "milestones": (0.5, 0.75), "stochastic_depth": 0.5},
        {"epochs, batch_size, wd, momentum, lr": "section 4", "milestones, lr_decay": "section 4: after 250 and 375 epochs",
         "stochastic_depth": "section 3: linear decay with p_L = 0.5", "augment": "section 4: as ResNet's"},
        ("Momentum 0.9 is Nesterov's in the authors' code; the paper says momentum.",),
        ("cifar_resnet*_v1_a",))]
