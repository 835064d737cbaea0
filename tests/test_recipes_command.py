"""`vistalib train`: what its options do, in one process and under torchrun."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data_helpers import pixels, values, write_folder, write_image, write_label
from tests.helpers import ROOT
from vistalib.cli import main
from vistalib.cli.recipe_options import with_options
from vistalib.files import read_json
from vistalib.recipes import get_recipe, open_model
from vistalib.train import load_checkpoint, read_log

RECIPE = "upernet_internimage_nano_64x128_300_cityscapes"
TINY = [
    *("--batch-size", "4", "--evaluation-size", "64", "64", "--workers", "0", "--device", "cpu"),
    *("--settings.iterations", "3", "--settings.warmup-iters", "0", "--settings.log-every", "1"),
    *("--augmentation.size", "64", "64", "--augmentation.crop", "64", "64"),
]
pytestmark = pytest.mark.filterwarnings("ignore:without a checkpoint")  # --data: as tests/test_recipes_own.py expects it


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_folder(tmp_path_factory.mktemp("own") / "streets")
    for i in range(3):
        write_image(root / "images" / "val" / f"{i}.png", pixels(60 + i))
        write_label(root / "labels" / "val" / f"{i}.png", values(60 + i, range(4)))
    return root


def helped(*command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What `vistalib ... --help` says of each option, by its name."""
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*command, "--help"])
    texts: dict[str, str] = {}
    for line in (line.strip("│ ") for line in capsys.readouterr().out.splitlines()):
        if line.startswith("--"):
            option, _, text = line.partition("  ")  # the text begins there, or in the next line
            names = [word.rstrip(",") for word in option.split() if word.startswith("--")]
            texts |= dict.fromkeys(names, text)
        elif texts:
            texts |= {name: f"{texts[name]} {line}" for name in names}
    return texts


@pytest.mark.parametrize("arguments", [[], [RECIPE], ["--data", "nowhere"]], ids=["alone", "a recipe", "data"])
def test_the_help_explains_every_option_that_a_recipe_prints(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    texts = helped("train", *arguments, capsys=capsys)
    for option, _ in get_recipe(RECIPE).options():
        text, _, rest = texts[option].partition("(default: the recipe's)")
        assert len(text.split()) > 2, f"{option}: {text}"
        assert rest or texts[option].endswith("(default: the recipe's)")
    assert "hours, memory and disk" in texts["--estimate"]


@pytest.mark.parametrize(
    ("command", "sizes"),
    [
        (["train"], ["--evaluation-size", "--augmentation.size", "--augmentation.crop"]),
        (["predict"], ["--size", "--crop"]),
        (["evaluate"], ["--size", "--crop"]),
        (["export"], ["--size"]),
        (["data", "make"], ["--size"]),
    ],
    ids=lambda value: " ".join(value) if value[0][0] != "-" else "",
)
def test_a_size_is_height_then_width_and_its_help_says_so(
    command: list[str], sizes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    texts = helped(*command, capsys=capsys)
    assert [name for name in texts if name.endswith(("size", "crop")) and name != "--batch-size"] == sizes
    for name in sizes:
        assert re.search(r"Height and width|\(height, width\)", " ".join(texts[name].split())), name


def test_sizes_are_given_and_printed_height_first(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = get_recipe("upernet_internimage_t_512x1024_160k_cityscapes")
    options = dict(recipe.options())
    assert (options["--evaluation-size"], options["--augmentation.size"]) == ("1024 2048", "1024 2048")
    given = with_options(recipe, {"evaluation_size": (48, 96), "augmentation": {"size": (64, 160), "crop": (32, 64)}})
    assert given.evaluation_scale == (96, 48)
    assert (given.augmentation.scale, given.augmentation.crop) == ((160, 64), (32, 64))
    with pytest.raises(SystemExit, match=r"^2$"):  # the older name was of the other order
        main(["train", RECIPE, "--evaluation-scale", "96", "48", "--print"])
    assert "--evaluation-size" in "".join(capsys.readouterr())


def test_the_name_of_the_recipe_may_stand_behind_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--print", "--settings.betas", "0.8", "0.9", RECIPE]) == 0
    assert ["--settings.betas", "0.8", "0.9"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_every_value_of_a_recipe_is_printed_as_an_option_that_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", RECIPE, "--settings.betas", "0.8", "0.9", "--augmentation.no-photometric", "--print"]) == 0
    printed = capsys.readouterr().out
    assert ["--settings.betas", "0.8", "0.9"] in [line.split() for line in printed.splitlines()]
    assert "--augmentation.no-photometric" in printed
    assert main(["train", RECIPE, *printed.split(), "--print"]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("weights", [["balanced"], ["1.0", "2.5", "0.5"]], ids=["balanced", "numbers"])
def test_the_loss_is_chosen_on_the_command_line(weights: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--loss.class-weights", *weights, "--loss.ohem-threshold", "0.7", "--loss.dice-weight", "0.5"]
    assert main(["train", RECIPE, *chosen, "--print"]) == 0
    printed = capsys.readouterr().out
    assert ["--loss.class-weights", *weights] in [line.split() for line in printed.splitlines()]
    assert main(["train", RECIPE, *printed.split(), "--print"]) == 0
    assert capsys.readouterr().out == printed


def test_event_files_lie_in_the_runs_folder(own: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for name, options in (("with", ["--tensorboard"]), ("without", [])):
        assert main(["train", "--data", str(own), "--out", str(tmp_path / name), *options, *TINY]) == 0
    assert len(list(tmp_path.glob("with/tensorboard/events.out.tfevents.*"))) == 1
    assert not (tmp_path / "without/tensorboard").exists()


def test_accumulating_says_what_batch_norm_makes_of_it(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", str(own), "--out", str(tmp_path / "run"), "--accumulate", "2", *TINY]) == 0
    assert "statistics from 2 images at a time instead of 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--accumulate", "3"], "batch_size=4 for 1 x 3; try accumulate=2"),
        (["--accumulate", "4"], "one image for batch norm.*try accumulate=2, or frozen_statistics"),
        (["--settings.frozen-statistics"], "have seen images.*start from a checkpoint with the same heads"),
        (["--settings.frozen", "backbones"], "got 'backbones'; try one of backbone, decode_head, auxiliary_head"),
    ],
    ids=["pieces that do not divide", "one image for batch norm", "statistics of nothing", "no such part"],
)
def test_what_cannot_work_is_refused_with_what_can(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["train", "--data", str(own), "--out", str(tmp_path / "run"), *TINY, *options]) == 1
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def torchrun(own: Path, out: Path, *options: str) -> None:
    """Train on two processes, of which one says how it went."""
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vistalib"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    done = subprocess.run(
        [sys.executable, *run, "train", "--data", str(own), "--out", str(out), *TINY, *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mIoU") == 1


@pytest.mark.slow
def test_torchrun_trains_one_run_on_two_processes_that_copy_the_model_or_share_it(own: Path, tmp_path: Path) -> None:
    torchrun(own, tmp_path / "two")
    assert [line["iteration"] for line in read_log(tmp_path / "two") if line["kind"] == "train"] == [1, 2, 3]
    assert read_json(tmp_path / "two" / "evaluation.json")["images"] == 3
    assert main(["train", "--data", str(own), "--out", str(tmp_path / "one"), *TINY]) == 0
    one, two = (load_checkpoint(tmp_path / name).model for name in ("one", "two"))
    assert one.keys() == two.keys()
    # The first loss differs by dropout and drop path alone, whose draws are another rank's.
    first, second = (read_log(tmp_path / name)[0]["loss"] for name in ("one", "two"))
    assert first == pytest.approx(second, rel=0.05)

    torchrun(own, tmp_path / "shared", "--settings.shard")
    for copied, shared in zip(read_log(tmp_path / "two"), read_log(tmp_path / "shared"), strict=True):
        names = [name for name in copied if "loss" in name or name in ("grad_norm", "mean_iou")]
        assert [shared[name] for name in names] == pytest.approx([copied[name] for name in names], rel=1e-5)  # measured: 2e-7
    assert open_model(tmp_path / "shared", device="cpu").model.num_classes == two["decode_head.conv_seg.bias"].numel()
