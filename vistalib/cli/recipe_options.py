"""The options of `vistalib train` that replace values of its recipe.

They are the recipe's fields, and those of its parts behind a dot; sizes are height and width, whatever the field has. Their
defaults are known only when the recipe is, and that follows from other options. So each may be left out, the help says so in
words, and what was given replaces the recipe's.
"""

import ast
import dataclasses
import inspect
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, get_type_hints

import tyro

if TYPE_CHECKING:  # the rooms bring torch along; `vistalib --help` does without
    from vistalib.recipes import Recipe

ALIASES = {"accumulate": ["--accumulate"]}  # what memory asks for most, without its part's name
HINT = "(default: the recipe's)"


def recipe_options() -> Any:
    """The options as a type for tyro, which asks for it when the command is `train`."""
    from vistalib.recipes import Recipe

    return _options(Recipe)


def with_options(recipe: "Recipe", given: Mapping[str, Any]) -> "Recipe":
    """`recipe` with the values that were given; `ValueError` for values that do not go together."""
    changed: Recipe = _replaced(recipe, given)
    return changed


def _replaced(kept: Any, given: Mapping[str, Any]) -> Any:
    from vistalib.recipes.recipe import SIZE_OPTIONS

    fields = {option: field for field, option in SIZE_OPTIONS.items()}
    changed = {}
    for name, value in given.items():
        if isinstance(value, Mapping):
            changed[name] = _replaced(getattr(kept, name), value)
        else:
            changed[fields.get(name, name)] = value[::-1] if name in fields else value
    return dataclasses.replace(kept, **changed)


def _options(kind: type) -> Any:
    """A `TypedDict` with the fields of the dataclass `kind`, any of which may be left out; its parts are such, too."""
    from vistalib.recipes.recipe import SIZE_OPTIONS

    types, texts = get_type_hints(kind), _texts(kind)
    asked = {}
    for name in (field.name for field in dataclasses.fields(kind)):
        text = texts[name].replace("(width, height)", "(height, width)") if name in SIZE_OPTIONS else texts[name]
        asked[SIZE_OPTIONS.get(name, name)] = Annotated[
            _options(types[name]) if dataclasses.is_dataclass(types[name]) else types[name],
            tyro.conf.arg(help=text, help_behavior_hint=HINT, aliases=ALIASES.get(name)),
        ]
    return TypedDict(kind.__name__, asked, total=False)  # type: ignore[operator]  # the names are known at run time alone


def _texts(kind: type) -> dict[str, str]:
    """The text below each field of a dataclass."""
    (made,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(made, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(made.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }
