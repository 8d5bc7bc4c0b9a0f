"""GoogLeNet, 2014; Inception with BatchNorm and Inception-v3, 2015."""
from . import Recipe

_AUGMENT = "resized_crop+flip+color_jitter:0.4"

RECIPES = [
    Recipe(
        "googlenet_2014", "Szegedy et al., Going Deeper with Convolutions, 2014, arXiv:1409.4842",
        {"model": "googlenet", "dataset": "imagenet", "epochs": 250, "batch_size": 256, "optimizer": "sgd", "momentum": 0.9,
         "wd": 0.0002, "lr": 0.01, "schedule": "exponential", "lr_decay": 0.96, "decay_epochs": 8.0, "aux": True,
         "aux_weight": 0.3, "ema": 0.9999, "augment": _AUGMENT},
        {"momentum": "section 6", "schedule, lr_decay, decay_epochs": "section 6: decreasing the learning rate by 4 % every 8 "
         "epochs",
         "aux, aux_weight": "section 5: losses of the auxiliary classifiers weighted by 0.3",
         "ema": "section 6: Polyak averaging", "augment": "section 6: 8 % to 100 % of the area, aspect 3/4 to 4/3, photometric "
                                                          "distortions"},
        ("The paper gives neither rate, batch, decay nor epochs. lr and wd are of BVLC/caffe's replication (bvlc_googlenet); "
         "batch and "
         "epochs are chosen; the average's decay too.",
         "Its training was asynchronous, on few machines; here it is synchronous.",
         "Dropout 0.4 and 0.7 (section 5) are the network's own."),
        ("googlenet*",)),
    Recipe(
        "inception_bn_2015", "Ioffe, Szegedy, Batch Normalization, 2015, arXiv:1502.03167",
        {"model": "bn_inception", "dataset": "imagenet", "epochs": 64, "batch_size": 32, "optimizer": "sgd", "momentum": 0.9,
         "wd": 0.00004, "lr": 0.045, "schedule": "exponential", "lr_decay": 0.94, "decay_epochs": 1.0,
         "augment": "resized_crop+flip"},
        {"batch_size": "section 4.2: mini-batches of 32 of asynchronous replicas",
         "lr": "section 4.2.2: 0.045, that of BN-x30", "augment": "section 4.2.1: fewer photometric distortions than "
         "Inception's"},
        ("The paper trains asynchronously with momentum, of which it gives no number; nor does it of epochs, weight decay, or "
         "how fast "
         "the rate falls (six times as fast as Inception's, section 4.2.1): those here are chosen.",),
        ("bn_inception", "inception_v2")),
    Recipe(
        "inception_v3_2015",
        "Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, Rethinking the Inception Architecture for Computer Vision, 2015, "
        "arXiv:1512.00567",
        {"model": "inception_v3", "dataset": "imagenet", "epochs": 100, "batch_size": 32, "optimizer": "rmsprop",
         "rms_decay": 0.9,
         "epsilon": 1.0, "wd": 0.00004, "lr": 0.045, "schedule": "exponential", "lr_decay": 0.94, "decay_epochs": 2.0,
         "clip_norm": 2.0, "label_smoothing": 0.1, "aux": True, "aux_weight": 0.3, "ema": 0.9999, "augment": _AUGMENT},
        {"epochs, batch_size": "section 8: 50 replicas with batches of 32 for 100 epochs",
         "optimizer, rms_decay, epsilon": "section 8: RMSProp with decay 0.9 and epsilon 1.0",
         "lr, schedule, lr_decay, decay_epochs": "section 8: 0.045, every two epochs times 0.94",
         "clip_norm": "section 8: gradient clipping with threshold 2.0", "label_smoothing": "section 7",
         "ema": "section 8: evaluated with a running average of the parameters over time"},
        ("batch_size is one replica's; the paper had 50 of them, asynchronous: begin with a smaller lr on few workers.",
         "Weight decay, the auxiliary loss's weight and the average's decay the paper does not say: 0.00004 is from the "
         "authors' code, "
         "0.3 from the paper of GoogLeNet, 0.9999 from their code.", "Augmentation: that of GoogLeNet."),
        ("inception_v3",))]
