"""`vistalib zoo`: the models."""

from pathlib import Path

from vistalib.cli.parts import app
from vistalib.files import write_json


@app.command
def zoo(*, json: Path | None = None) -> None:
    """List the models with their parameters, and the recipes.

    Args:
        json: File for the table.
    """
    import torch

    from vistalib.models import create_model, list_models
    from vistalib.recipes import list_recipes

    table = {}
    for name in list_models():
        with torch.device("meta"):
            model = create_model(name)
        table[name] = sum(parameter.numel() for parameter in model.parameters())
    print(f"{'model (150 classes)':34}{'parameters':>14}")
    for name, parameters in table.items():
        print(f"{name:34}{parameters:>14,}")
    print("\nrecipes")
    for name in list_recipes():
        print(f"  {name}")
    if json is not None:
        write_json(json, {"parameters": table, "recipes": list_recipes()})
