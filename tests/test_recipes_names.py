"""The recipes by name: what was released, and that every one of them can be made into a run."""

import dataclasses
import json

import pytest

from vistalib.models import list_models
from vistalib.recipes import Recipe, get_recipe, list_recipes

# (learning rate, layer decay, clip norm) by size, as released
OPTIMIZER = {
    "t": (6e-5, 1.0, None),
    "s": (6e-5, 1.0, None),
    "b": (6e-5, 1.0, None),
    "l": (2e-5, 0.94, 0.1),
    "xl": (2e-5, 0.94, 0.1),
}
PAIRS = [(head, size) for head in ("upernet", "segformer") for size in ("l", "xl")]
RELEASED = [
    *(f"{head}_internimage_{size}_512x1024_80k_mapillary" for head, size in PAIRS),
    *(f"{head}_internimage_{size}_512x1024_160k_mapillary2cityscapes" for head, size in PAIRS),
    *(f"upernet_internimage_{size}_512x1024_160k_cityscapes" for size in OPTIMIZER),
]


def test_the_thirteen_released_names_come_first() -> None:
    assert list_recipes()[:13] == RELEASED


@pytest.mark.parametrize("size", ["l", "xl"])
def test_finetuning_upernet_begins_with_segformer_as_released_and_with_upernet_as_intended(size: str) -> None:
    name = f"upernet_internimage_{size}_512x1024_160k_mapillary2cityscapes"
    released, intended = get_recipe(name), get_recipe(f"{name}_as_intended")
    assert released.starts_from == f"segformer_internimage_{size}_512x1024_80k_mapillary"
    assert intended.starts_from == f"upernet_internimage_{size}_512x1024_80k_mapillary"
    assert dataclasses.replace(intended, name=released.name, starts_from=released.starts_from) == released


def test_no_name_occurs_twice() -> None:
    assert len(set(list_recipes())) == len(list_recipes())


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_recipe_has_the_released_optimizer(name: str) -> None:
    settings, size = get_recipe(name).settings, name.split("_")[2]
    assert (settings.learning_rate, settings.layer_decay, settings.clip_norm) == OPTIMIZER[size]
    assert settings.precision == "tf32"  # what the released trainer computes with


@pytest.mark.parametrize(
    ("task", "iterations", "every", "ratios"),
    [
        ("80k_mapillary", 80_000, 8_000, (0.5, 1.0)),
        ("160k_mapillary2cityscapes", 160_000, 4_000, (0.5, 2.0)),
        ("160k_cityscapes", 160_000, 16_000, (0.5, 2.0)),
    ],
)
def test_a_released_recipe_has_the_released_schedule_and_scales(
    task: str, iterations: int, every: int, ratios: tuple[float, float]
) -> None:
    recipe = get_recipe(f"upernet_internimage_l_512x1024_{task}")
    found = (recipe.settings.iterations, recipe.settings.evaluate_every, recipe.augmentation.ratio_range)
    assert found == (iterations, every, ratios)


def test_mapillary_recipes_train_on_training_and_validation_and_evaluate_on_cityscapes() -> None:
    recipe = get_recipe("upernet_internimage_xl_512x1024_80k_mapillary")
    assert (recipe.train.split, recipe.validation.kind) == ("training+validation", "cityscapes")


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_names_a_model_of_the_zoo_and_is_plain_json(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.name == name
    assert recipe.model in list_models()
    json.dumps(recipe.to_json(), allow_nan=False)


def test_an_unknown_name_is_answered_with_the_nearest_ones() -> None:
    with pytest.raises(ValueError, match="upernet_internimage_l_512x1024_80k_mapillary"):
        get_recipe("upernet_internimage_l_512x1024_80k_mapilary")


def test_a_recipe_cannot_be_changed_by_accident() -> None:
    recipe: Recipe = get_recipe(RELEASED[0])
    with pytest.raises(AttributeError):
        recipe.batch_size = 1  # type: ignore[misc]
