"""MobileNet v1, 2017, and v2, 2018."""
from . import Recipe

RECIPES = [
    Recipe(
        "mobilenet_v1_2017", "Howard et al., MobileNets, 2017, arXiv:1704.04861",
        {"model": "mobilenet_v1_1_0", "dataset": "imagenet", "epochs": 100, "batch_size": 96, "optimizer": "rmsprop",
         "rms_decay": 0.9, "rms_momentum": 0.9, "epsilon": 1.0, "wd": 0.00004, "lr": 0.045, "schedule": "exponential",
         "lr_decay": 0.94, "decay_epochs": 2.0, "augment": "resized_crop:0.35,1+flip"},
        {"optimizer": "section 3.2: RMSprop, similar to Inception-v3",
         "augment": "section 3.2: less augmentation than Inception's, limited small crops"},
        ("The paper gives no number; rate, decay of the rate and weight decay are Inception-v3's, batch, momentum and epochs "
         "chosen "
         "to go with MobileNetV2's.",
         "It has little or no weight decay on depthwise filters; here it is the same for all.",
         "Neither label smoothing nor side heads (section 3.2). Narrow networks want even less regularisation."),
        ("mobilenet_v1*",)),
    Recipe(
        "mobilenet_v2_2018", "Sandler, Howard, Zhu, Zhmoginov, Chen, MobileNetV2, 2018, arXiv:1801.04381",
        {"model": "mobilenet_v2_1_0", "dataset": "imagenet", "epochs": 300, "batch_size": 96, "optimizer": "rmsprop",
         "rms_decay": 0.9, "rms_momentum": 0.9, "epsilon": 1.0, "wd": 0.00004, "lr": 0.045, "schedule": "exponential",
         "lr_decay": 0.98, "decay_epochs": 1.0, "ema": 0.9999, "augment": "resized_crop+flip"},
        {"batch_size": "section 6.1: 96, of each of 16 asynchronous workers",
         "optimizer, rms_decay, rms_momentum": "section 6.1: RMSPropOptimizer, both 0.9", "wd": "section 6.1",
         "lr, lr_decay, decay_epochs": "section 6.1: 0.045, times 0.98 per epoch"},
        ("Epsilon, epochs, the average and the augmentation are not in the paper; 1.0 and 0.9999 are from the authors' code.",
         "batch_size is one of 16 workers': begin with a smaller lr on few."),
        ("mobilenet_v2*",))]
