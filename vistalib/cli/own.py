"""`vistalib train --data FOLDER`: the recipe for your own data, and what is said about it."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from vistalib.cli.parts import UsageError

if TYPE_CHECKING:  # the rooms bring torch along; `vistalib --help` does without
    from vistalib.cli.train import Training
    from vistalib.recipes import Recipe


class OwnTraining:
    """The recipe for a folder: chosen by what lies there, or that of the run which is resumed.

    `UsageError` where no folder was given; `ValueError` for a folder or a checkpoint that will not do.
    """

    def __init__(self, training: "Training", model: str | None) -> None:
        from vistalib.recipes import look_at_checkpoint, look_at_folder, own_recipe, recipe_of_run, this_machine

        if training.folder is None:
            raise UsageError(
                "train needs the name of a recipe, or your own data with --data FOLDER; `vistalib zoo` lists the recipes"
            )
        self.data = look_at_folder(training.folder)
        self.machine = this_machine(training.device)
        self.start = None if training.weights is None else look_at_checkpoint(training.weights)
        chosen = own_recipe(self.data, self.start, self.machine, model=model)
        self.out = training.out or Path("runs") / chosen.name
        begun = recipe_of_run(self.out) if training.resume else None
        self.resumed = begun is not None
        self.recipe = begun or chosen

    def tell(self, recipe: "Recipe") -> None:
        """Say what was chosen and how to change it, where `recipe` is what became of it by the options; one process speaks."""
        from vistalib.recipes import as_given, own_decisions

        if os.environ.get("RANK", "0") != "0":
            return
        if self.resumed:
            print(f"The run in {self.out} goes on with the recipe that it began with; --print shows it.")
            return
        if self.start is None:
            warnings.warn(
                f"without a checkpoint {recipe.model} starts from random weights and learns less from as many images; "
                "--weights takes a run, a file or a released name, and `vistalib zoo` lists those",
                stacklevel=2,
            )
        for decision in as_given(own_decisions(recipe, self.data, self.start, self.machine), self.recipe, recipe):
            print(f"- {decision.text} ({', '.join(decision.options)})")
        print(flush=True)
