"""Recipes: the settings with which papers trained their networks, by name, each setting with its source.

    from gluonzoo.training import recipes, train
    recipes.list_recipes()
    train({"recipe": "resnet_cifar_2015", "model": "cifar_resnet56_v1_a"})

One file a family. A recipe fills `TrainConfig`; flags given beside it win. Batch sizes are the papers' whole batches, as of one
worker: on W workers divide --batch-size by W, or on little memory use --accumulate. What a paper does not say is in the notes.
"""
import difflib
import importlib
from dataclasses import dataclass, field
from typing import Dict, Tuple

from ...errors import UserError

__all__ = ["Recipe", "list_recipes", "get_recipe", "settings_of", "shown", "describe"]

#: The files; each defines RECIPES.
_FILES = ("lenet", "alexnet", "zfnet", "nin", "vgg", "inception", "resnet", "densenet", "squeezenet", "mobilenet", "shufflenet",
          "senet", "xception", "darknet", "xnornet", "reduced")

_recipes = {}


@dataclass(frozen=True)
class Recipe:
    """How a paper trained a network.

    Args:
        name: what ``--recipe`` takes.
        paper: authors, title, year, link.
        settings: {TrainConfig field: value}.
        sources: {field, or several with commas: where the paper says so}; a field in none of them is in the notes.
        notes: what the paper does not say and what was taken instead, and what cannot be had here.
        models: wildcards of the registered networks that it is meant for.
    """

    name: str
    paper: str
    settings: Dict[str, object]
    sources: Dict[str, str]
    notes: Tuple[str, ...] = ()
    models: Tuple[str, ...] = field(default=())


def _load():
    if not _recipes:
        for file in _FILES:
            for recipe in importlib.import_module(f"{__name__}.{file}").RECIPES:
                if recipe.name in _recipes:
                    raise ValueError(f"two recipes are called {recipe.name!r}")
                _recipes[recipe.name] = recipe
    return _recipes


def list_recipes():
    """Names of all recipes, in the order of their files."""
    return list(_load())


def get_recipe(name):
    """The `Recipe` of a name; the year at the end may be left out.

    Raises: UserError that names the nearest ones.
    """
    known = _load()
    if name not in known:
        without_year = [recipe for recipe in known.values() if recipe.name.rpartition("_")[0] == name]
        if len(without_year) == 1:
            return without_year[0]
        near = difflib.get_close_matches(str(name).lower(), known, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise UserError(f"no recipe is called {name!r}; {hint}")
    return known[name]


def settings_of(name):
    """{TrainConfig field: value} of a recipe; {} for None."""
    return {} if name is None else dict(get_recipe(name).settings)


def shown(name, values, now):
    """A line on a run's recipe: what it set, and what was set otherwise by hand.

    Args: values: what the recipe set when the run began; now: the configuration as a dict.
    """
    changed = {field: now.get(field) for field, value in values.items()
               if now.get(field) != (list(value) if isinstance(value, tuple) else value)}

    def listed(settings):
        return "  ".join(f"{field}={value}" for field, value in settings.items())
    return f"recipe {name}: {listed(values)}" + (f"; set by hand: {listed(changed)}" if changed else "")


def describe(name=None):
    """Text for a person: a line for each recipe, or with a name all that one recipe sets, with sources and notes."""
    if name is None:
        return "\n".join(f"{recipe.name:22s} {recipe.settings['model']:22s} {recipe.paper}" for recipe in _load().values())
    recipe = get_recipe(name)
    places = {setting.strip(): where for settings, where in recipe.sources.items() for setting in settings.split(",")}
    lines = [f"{recipe.name}: {recipe.paper}"]
    lines += [f"  {setting} = {value}" + (f"  ({places[setting]})" if setting in places else "")
              for setting, value in recipe.settings.items()]
    return "\n".join(lines + [f"  note: {note}" for note in recipe.notes])
