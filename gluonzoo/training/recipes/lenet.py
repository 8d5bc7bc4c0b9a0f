"""LeNet-5, 1998."""
from . import Recipe

RECIPES = [Recipe(
    "lenet5_1998",
    "LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document Recognition, 1998",
    {"model": "lenet5_1998", "dataset": "mnist", "epochs": 20, "batch_size": 1, "optimizer": "sgd", "momentum": 0.0, "wd": 0.0,
     "lr": 0.001, "schedule": "step", "milestones": (0.1, 0.25, 0.4, 0.6), "step_rates": (0.4, 0.2, 0.1, 0.02),
     "augment": "none"},
    {"epochs": "section III.B: twenty passes over the training data",
     "batch_size": "section III.B and appendix C: weights change after each pattern",
     "schedule, milestones, step_rates": "section III.B: 0.0005 for two passes, 0.0002 for three, 0.0001 for three, 0.00005 for "
                                         "four, 0.00001 then",
     "augment": "section III.B: the first result, without distortions"},
    ("The paper's rates are those of stochastic diagonal Levenberg-Marquardt, which gives every weight a rate of its own, 7e-5 "
     "to "
     "0.016 in the first pass (section III.B). Plain SGD stands in its place: lr is their geometric mean, its course the "
     "paper's.",
     "Momentum and weight decay: the paper has none."),
    ("lenet5_1998", "lenet5"))]
