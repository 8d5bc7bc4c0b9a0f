"""Every recipe names real networks and settings; the papers' numbers are those of the papers."""
import dataclasses
import fnmatch

from gluonzoo import list_models
from gluonzoo.data.augment import parse
from gluonzoo.errors import UserError
from gluonzoo.training import TrainConfig, optimizers, recipes
from gluonzoo.training.building import _takes, build_network
from gluonzoo.training.config import build

import pytest

FIELDS = {field.name for field in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize("name", recipes.list_recipes())
def test_a_recipe_is_whole(name):
    recipe = recipes.get_recipe(name)
    config = build(recipe.settings, {"recipe": name, "output": "unused"})
    optimizers.check(config)
    parse(config.augment)
    assert config.model in list_models()
    for pattern in recipe.models:
        assert fnmatch.filter(list_models(), pattern), pattern
    assert any(fnmatch.fnmatchcase(config.model, pattern) for pattern in recipe.models)
    arguments = {"aux": True} if config.aux else {}
    arguments.update({"dropout": config.dropout} if config.dropout is not None and _takes(config.model, "dropout") else {})
    build_network(config, arguments)  # Raises where the network has no place for dropout or stochastic depth.
    named = {setting.strip() for settings in recipe.sources for setting in settings.split(",")}
    assert named <= set(recipe.settings) <= FIELDS
    assert recipe.sources and "20" in recipe.paper + "recipe of this project 20"
    text = recipes.describe(name)
    assert all(f"{setting} = " in text for setting in recipe.settings) and all(note in text for note in recipe.notes)


@pytest.mark.parametrize("name, expected", [
    ("alexnet_2012", {"batch_size": 128, "momentum": 0.9, "wd": 0.0005, "lr": 0.01, "epochs": 90}),
    ("vgg_2014", {"batch_size": 256, "momentum": 0.9, "wd": 0.0005, "lr": 0.01, "epochs": 74, "dropout": 0.5}),
    ("resnet_2015", {"batch_size": 256, "momentum": 0.9, "wd": 0.0001, "lr": 0.1}),
    ("resnet_cifar_2015", {"batch_size": 128, "wd": 0.0001, "lr": 0.1, "milestones": (0.5, 0.75)}),
    ("inception_v3_2015", {"optimizer": "rmsprop", "rms_decay": 0.9, "epsilon": 1.0, "lr": 0.045, "lr_decay": 0.94,
                           "decay_epochs": 2.0, "clip_norm": 2.0, "label_smoothing": 0.1}),
    ("densenet_cifar_2016", {"epochs": 300, "batch_size": 64, "optimizer": "nag", "milestones": (0.5, 0.75)}),
    ("shufflenet", {"lr": 0.5, "wd": 0.00004, "batch_size": 1024, "schedule": "poly"}),
    ("bwn_2016", {"optimizer": "sgd", "momentum": 0.9, "batch_size": 128, "lr": 0.01, "epochs": 55, "dropout": 0.1}),
    ("xnornet_2016", {"optimizer": "adam", "batch_size": 800, "lr": 0.001, "epochs": 55}),
    ("darknet", {"epochs": 160, "lr": 0.1, "power": 4.0, "wd": 0.0005})])
def test_papers_numbers(name, expected):
    found = recipes.get_recipe(name).settings
    assert {field: found[field] for field in expected} == expected


def test_the_ones_that_were_asked_for_are_there():
    for name in ("alexnet_2012", "zfnet_2013", "vgg_2014", "googlenet_2014", "inception_v3_2015", "resnet_2015", "preresnet",
                 "resnext", "densenet", "squeezenet", "mobilenet_v1", "mobilenet_v2", "shufflenet", "senet", "xception",
                 "lenet5_1998", "nin", "darknet", "cifar10", "fashion_mnist"):
        recipes.get_recipe(name)
    with pytest.raises(UserError, match="'mobilnet_v2'; did you mean mobilenet_v2_2018"):
        recipes.get_recipe("mobilnet_v2")
    assert len(recipes.describe().splitlines()) == len(recipes.list_recipes())


def test_the_command_line_shows_them(run_program):
    result = run_program("tools/train.py", "--list-recipes", "vgg_2014")
    assert result.returncode == 0 and "section 3.1" in result.stdout
