"""`vistalib train`: what its options do before anything is trained."""

import pytest

from vistalib.cli import main

OWN = "upernet_internimage_nano_192x256_3k_folder"


def test_every_value_of_a_recipe_is_printed_as_an_option_that_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", OWN, "--settings.betas", "0.8", "0.9", "--augmentation.no-photometric", "--print"]) == 0
    printed = capsys.readouterr().out
    assert ["--settings.betas", "0.8", "0.9"] in [line.split() for line in printed.splitlines()]
    assert "--augmentation.no-photometric" in printed
    assert main(["train", OWN, *printed.split(), "--print"]) == 0
    assert capsys.readouterr().out == printed
