"""`vistalib train --data FOLDER`: the recipe that is chosen, and the command from a folder to a score."""

import json
import shutil
import signal
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from tests.data_helpers import pixels, values, write_folder, write_image, write_label
from vistalib.cli import main
from vistalib.data.augment import fitted_size
from vistalib.files import read_json
from vistalib.models import create_model, save_pretrained
from vistalib.recipes import (
    Machine,
    OwnData,
    OwnStart,
    Recipe,
    Roots,
    Runtime,
    as_given,
    get_recipe,
    list_recipes,
    look_at_checkpoint,
    look_at_folder,
    open_model,
    own_decisions,
    own_recipe,
    recipe_of_run,
    run,
)
from vistalib.train import Interrupted, load_checkpoint

CPU, SMALL_GPU, GPU = Machine("cpu", 16 * 10**9), Machine("cuda", 8 * 10**9), Machine("cuda:1", 80 * 10**9)
SIZES = {"tiny": (48, 64), "small": (360, 480), "street": (1024, 2048), "photograph": (3024, 4032), "upright": (4032, 3024)}
MODELS = ("upernet_internimage_nano", "upernet_internimage_t", "upernet_internimage_xl", "segformer_internimage_l")
STARTS = [None, *(OwnStart(f"runs/{model}", model, ("road", "sky")) for model in MODELS)]
QUICK = [
    *("--device", "cpu", "--workers", "0", "--batch-size", "2"),
    *("--settings.iterations", "2", "--settings.warmup-iters", "0", "--settings.log-every", "1"),
]


def found(images: int = 400, size: tuple[int, int] = (360, 480)) -> OwnData:
    return OwnData(Path("streets"), ("train", "val"), images, 10, ("road", "sky", "kiosk"), (size,) * min(images, 200))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_folder(tmp_path_factory.mktemp("own") / "streets")  # sky, road, car; void is ignored
    for i in range(2):
        write_image(root / "images" / "val" / f"{i}.png", pixels(60 + i))
        write_label(root / "labels" / "val" / f"{i}.png", values(60 + i, range(4)))
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    model = create_model("upernet_internimage_nano", 4)
    return save_pretrained(model, tmp_path_factory.mktemp("start") / "model", classes=["car", "tree", "sky", "bus"])


CASES = list(product([1, 4, 37, 400, 5000, 100_000], SIZES.values(), STARTS, [CPU, SMALL_GPU, GPU]))


def test_a_crop_has_a_multiple_of_32_and_fits_into_the_images() -> None:
    for images, size, start, machine in CASES:
        recipe = own_recipe(found(images, size), start, machine)
        width, height = fitted_size(*size, recipe.augmentation.scale)
        assert all(side % 32 == 0 for side in recipe.augmentation.crop)
        assert recipe.augmentation.crop[0] <= height
        assert recipe.augmentation.crop[1] <= width
        assert max(recipe.augmentation.crop) <= 1024
        assert min(recipe.augmentation.crop) <= 512
        assert width <= size[1]  # nothing is enlarged to be scored


@pytest.mark.parametrize(
    ("model", "image", "shown", "crop"),
    [
        ("nano", "small", (288, 384), (192, 256)),
        ("micro", "small", (288, 384), (192, 256)),
        ("nano", "street", (256, 512), (192, 256)),
        ("nano", "upright", (384, 288), (256, 192)),
        ("nano", "tiny", (48, 64), (32, 64)),
        ("t", "small", (360, 480), (192, 384)),
        ("t", "street", (512, 1024), (192, 384)),
        ("xl", "upright", (683, 512), (384, 192)),
    ],
)
def test_a_cpu_shows_a_small_network_less_of_an_image_at_a_time_than_a_larger_one(
    model: str, image: str, shown: tuple[int, int], crop: tuple[int, int]
) -> None:
    data = found(400, SIZES[image])
    recipe = own_recipe(data, None, CPU, model=f"upernet_internimage_{model}")
    height, width = SIZES[image]
    assert fitted_size(height, width, recipe.evaluation_scale) == shown[::-1]
    assert recipe.augmentation.scale == recipe.evaluation_scale
    assert recipe.augmentation.crop == crop
    said = " ".join(decision.text for decision in own_decisions(recipe, data, None, CPU))
    assert (f"network at {shown[0]}x{shown[1]};" in said) is (shown != SIZES[image])
    assert f"Crops are {crop[0]}x{crop[1]}:" in said


def test_a_batch_is_no_larger_than_the_data_and_can_be_cut_as_the_memory_wants_it() -> None:
    for images, size, start, machine in CASES:
        recipe = own_recipe(found(images, size), start, machine)
        assert recipe.batch_size <= max(2, images)
        assert recipe.batch_size % recipe.settings.accumulate == 0
        assert recipe.model.startswith("segformer") or recipe.batch_size // recipe.settings.accumulate >= 2


def test_a_schedule_has_a_warm_up_and_evaluations_within_it() -> None:
    for images, size, start, machine in CASES:
        settings = own_recipe(found(images, size), start, machine).settings
        assert 300 <= settings.iterations <= 80_000
        assert 0 < settings.warmup_iters <= settings.iterations // 10
        assert settings.evaluate_every <= settings.iterations // 10


@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
def test_more_images_are_never_trained_on_for_fewer_iterations(machine: Machine) -> None:
    numbers = [own_recipe(found(images), STARTS[1], machine).settings.iterations for images in (4, 40, 400, 4000, 40_000)]
    assert numbers == sorted(numbers)
    assert numbers[0] < numbers[-1]


def test_a_batch_is_cut_where_the_memory_is_short_and_only_there() -> None:
    start = OwnStart("l", "segformer_internimage_l")
    pieces = [own_recipe(found(400, (1024, 2048)), start, machine).settings.accumulate for machine in (SMALL_GPU, GPU)]
    assert pieces[0] == 16
    assert pieces[1] == 4  # 9.0 GB an image and 4.1 GB beside them, in 64 GB


def test_the_schedule_follows_the_model_that_is_asked_for(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = "upernet_internimage_t"
    assert own_recipe(found(), None, GPU, model=wanted).settings.learning_rate == 6e-5
    assert main(["train", "--data", str(own), "--model", wanted, "--device", "cpu", "--print"]) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["--model", wanted] in printed
    assert ["--settings.learning-rate", "6e-05"] in printed


@pytest.mark.parametrize("size", ["t", "l"])
def test_the_rates_are_those_of_the_released_finetuning(size: str) -> None:
    settings = own_recipe(found(), OwnStart("x", f"upernet_internimage_{size}"), GPU).settings
    released = get_recipe(f"upernet_internimage_{size}_512x1024_160k_cityscapes").settings
    for name in ("learning_rate", "layer_decay", "clip_norm", "weight_decay", "power"):
        assert getattr(settings, name) == getattr(released, name)


def test_one_odd_image_does_not_decide_the_crop() -> None:
    data = found()
    odd = replace(data, sizes=((40, 480), *data.sizes[1:]))
    assert own_recipe(odd, None, GPU).augmentation.crop == own_recipe(data, None, GPU).augmentation.crop == (352, 480)


@pytest.mark.parametrize("start", [None, STARTS[2]], ids=["from scratch", "from a checkpoint"])
def test_every_decision_names_options_that_there_are(start: OwnStart | None) -> None:
    recipe = own_recipe(found(), start, GPU)
    known = {option for option, _ in recipe.options()} | {"--weights"}
    for decision in own_decisions(recipe, found(), start, GPU):
        assert set(decision.options) <= known
        assert decision.options


def test_what_the_user_says_is_told_as_such() -> None:
    chosen = own_recipe(found(), None, CPU)
    given = replace(chosen, batch_size=6)
    told = [decision.text for decision in as_given(own_decisions(given, found(), None, CPU), chosen, given)]
    assert "As you say: --batch-size 6." in told
    assert sum(text.startswith("As you say") for text in told) == 1


def test_a_recipe_returns_from_json_as_it_was() -> None:
    for recipe in (own_recipe(found(), STARTS[3], GPU), get_recipe("upernet_internimage_l_512x1024_80k_mapillary")):
        assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_a_folder_is_described_by_its_splits_its_classes_and_its_sizes(own: Path) -> None:
    data = look_at_folder(own)
    assert (data.images, data.validation, data.classes) == (5, 2, ("sky", "road", "car"))
    assert data.sizes == ((24, 40),) * 5


def test_a_photograph_that_lies_on_its_side_counts_as_it_is_decoded(own: Path, tmp_path: Path) -> None:
    from PIL import Image

    root = shutil.copytree(own, tmp_path / "turned")
    for path in (root / "images" / "train").glob("*.jpg"):
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    assert look_at_folder(root).sizes == ((24, 40),) * 5


def test_data_without_images_to_score_on_is_refused_with_the_repair(own: Path, tmp_path: Path) -> None:
    root = shutil.copytree(own, tmp_path / "unsplit")
    shutil.rmtree(root / "images" / "val")
    shutil.rmtree(root / "labels" / "val")
    with pytest.raises(ValueError, match=r"got the splits train; move about every tenth image and its label there"):
        look_at_folder(root)


def test_a_backbone_alone_becomes_upernet(checkpoint: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("upernet_internimage_t", 3)
    backbone = {name: value for name, value in model.state_dict().items() if name.startswith("backbone.")}
    torch.save(backbone, tmp_path / "backbone.pth")
    assert look_at_checkpoint(tmp_path / "backbone.pth").model == "upernet_internimage_t"
    assert look_at_checkpoint(checkpoint).classes == ("car", "tree", "sky", "bus")


def test_one_command_copies_the_rows_of_shared_classes_trains_and_scores(
    own: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unmoved = ["--settings.learning-rate", "1e-20", "--settings.weight-decay", "0"]  # no bit of a weight of usual size changes
    out = tmp_path / "run"
    assert main(["train", "--data", str(own), "--weights", str(checkpoint), "--out", str(out), *QUICK, *unmoved]) == 0
    theirs = create_model("upernet_internimage_nano", 4, checkpoint).state_dict()
    ours = load_checkpoint(out).model
    for head in ("decode_head", "auxiliary_head"):
        rows, source = ours[f"{head}.conv_seg.weight"], theirs[f"{head}.conv_seg.weight"]
        assert len(rows) == 3  # sky, road, car
        assert torch.equal(rows[[0, 2]], source[[2, 0]])
        assert not any(torch.equal(rows[1], row) for row in source)
    said = capsys.readouterr().out
    assert "the checkpoint knows sky, car; new are road." in said
    assert "As you say: --batch-size 2." in said
    assert f"mIoU {100 * read_json(out / 'evaluation.json')['mean_iou']:.2f}%" in said
    assert f"vistalib predict {own / 'images' / 'val'} --weights {out}" in said


def test_a_resumed_run_keeps_the_recipe_that_it_began_with(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["train", "--data", str(own), "--out", str(out), "--device", "cpu", "--workers", "0"]
    with pytest.warns(UserWarning, match="without a checkpoint upernet_internimage_nano starts from random weights"):
        assert main([*command, *QUICK]) == 0
    begun = recipe_of_run(out)
    assert begun is not None
    assert (begun.batch_size, begun.settings.iterations) == (2, 2)
    assert main([*command, "--resume"]) == 0
    assert "goes on with the recipe that it began with" in capsys.readouterr().out
    assert recipe_of_run(out) == begun


def test_a_run_whose_recipe_has_a_name_that_no_recipe_has_goes_on_and_opens(own: Path, tmp_path: Path) -> None:
    chosen = own_recipe(look_at_folder(own), None, CPU)
    schedule = replace(chosen.settings, iterations=3, warmup_iters=0, log_every=1)
    older = replace(chosen, name="upernet_internimage_nano_192x256_3k_folder", batch_size=2, settings=schedule)
    assert older.name not in list_recipes()
    with pytest.raises(Interrupted):
        run(
            older,
            Roots(folder=own),
            folder=tmp_path / "run",
            runtime=Runtime("cpu", num_workers=0),
            on_log=lambda line: signal.raise_signal(signal.SIGTERM),
        )
    assert load_checkpoint(tmp_path / "run").state["iteration"] < 3
    command = ["train", "--data", str(own), "--out", str(tmp_path / "run"), "--device", "cpu", "--workers", "0"]
    assert main([*command, "--resume"]) == 0
    assert load_checkpoint(tmp_path / "run").state["iteration"] == 3
    assert recipe_of_run(tmp_path / "run") == older
    assert open_model(tmp_path / "run", device="cpu").classes == ("sky", "road", "car")


def test_every_value_is_printed_as_an_option_that_is_understood(
    own: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", f"--data={own}", "--weights", str(checkpoint), "--device", "cpu", "--print"]
    assert main([*command, "--settings.keep", "1"]) == 0
    printed = capsys.readouterr().out
    assert ["--settings.keep", "1"] in [line.split() for line in printed.splitlines()]
    assert main([*command, *printed.split()]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--weights", "somewhere", "--workers", "0"], 2, "--data FOLDER"),
        (["--data", "nowhere", "--workers", "0"], 1, "nowhere"),
        (["--data", "{own}", "--weights", "nowhere"], 1, "nowhere"),
        (["--data", "{own}", "--weights", "{other}"], 1, "got no InternImage"),
        (["--data", "{own}", "--device", "gpu"], 1, "cpu, cuda"),
        (["--data", "{own}", "--model", "upernet_internimage_q"], 1, "upernet_internimage_t"),
    ],
    ids=["no data", "no such data", "no such checkpoint", "weights of something else", "no such device", "no such model"],
)
def test_a_failure_is_one_message_with_the_repair(
    arguments: list[str], status: int, said: str, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    filled = [argument.format(own=own, other=tmp_path / "other.pth") for argument in arguments]
    assert main(["train", *filled, "--out", str(tmp_path / "out")]) == status
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
