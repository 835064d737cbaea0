"""Named recipes, and the function that runs one: model, data, training and evaluation put together."""

import difflib

from vistalib.recipes.estimate import Estimate, estimate
from vistalib.recipes.event_files import event_files
from vistalib.recipes.machine import Machine, this_machine
from vistalib.recipes.own import Decision, OwnData, OwnStart, as_given, own_decisions, own_recipe
from vistalib.recipes.own_facts import look_at_checkpoint, look_at_folder
from vistalib.recipes.recipe import DEFAULT_SPLITS, Dataset, Recipe, Roots, Runtime, Source
from vistalib.recipes.released import released_recipes
from vistalib.recipes.reproduce import Cell, Reproduction, list_cells, reproduce
from vistalib.recipes.run import RunResult, run, same_classes
from vistalib.recipes.small import small_recipes
from vistalib.recipes.start import recipe_of_run
from vistalib.recipes.trained import TrainedModel, open_model

__all__ = [
    "DEFAULT_SPLITS",
    "Cell",
    "Dataset",
    "Decision",
    "Estimate",
    "Machine",
    "OwnData",
    "OwnStart",
    "Recipe",
    "Reproduction",
    "Roots",
    "RunResult",
    "Runtime",
    "Source",
    "TrainedModel",
    "as_given",
    "estimate",
    "event_files",
    "get_recipe",
    "list_cells",
    "list_recipes",
    "look_at_checkpoint",
    "look_at_folder",
    "open_model",
    "own_decisions",
    "own_recipe",
    "recipe_of_run",
    "reproduce",
    "run",
    "same_classes",
    "this_machine",
]


def list_recipes() -> list[str]:
    """Names of all recipes: the released ones first, then those for small machines."""
    return [recipe.name for recipe in _all()]


def get_recipe(name: str) -> Recipe:
    """The recipe called `name`; a `ValueError` names the nearest ones when there is none."""
    for recipe in _all():
        if recipe.name == name:
            return recipe
    near = difflib.get_close_matches(name, list_recipes(), n=3, cutoff=0.3)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"a recipe must be one of list_recipes(), got {name!r}; {meant}`vistalib zoo` lists them all")


def _all() -> list[Recipe]:
    return released_recipes() + small_recipes()
