"""Class weights, hard pixels and Dice: each against its definition pixel by pixel, in tiles and as a whole."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vistalib.models import LossSettings, balanced_weights, create_model, loss_tiles
from vistalib.models import loss as module
from vistalib.models.loss import head_loss

WEIGHTS = (0.5, 2.0, 0.0, 1.0, 3.0)
CHOICES = {
    "weights": LossSettings(class_weights=WEIGHTS),
    "hard pixels": LossSettings(ohem_threshold=0.1, ohem_share=0.05),
    "the hardest": LossSettings(ohem_threshold=1e-6, ohem_share=0.3),
    "dice": LossSettings(dice_weight=0.7),
    "all": LossSettings(class_weights=WEIGHTS, ohem_threshold=0.2, ohem_share=0.5, dice_weight=2.0),
}
choices = pytest.mark.parametrize("settings", CHOICES.values(), ids=CHOICES.keys())


def draw(*, classes: int = 5, shown: int = 4, size: int = 6, scale: int = 3) -> tuple[Tensor, Tensor]:
    """Logits of `classes`, and labels of the first `shown` of them with some ignored."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, shown + 1, (2, scale * size, scale * (size + 1)), generator=generator)
    label[label == shown] = 255
    logits = torch.randn(2, classes, size, size + 1, dtype=torch.float64, generator=generator)
    return (2 * logits).requires_grad_(), label


def weights_of(settings: LossSettings) -> Tensor | None:
    return None if settings.class_weights is None else torch.tensor(settings.class_weights)


def by_definition(logits: Tensor, label: Tensor, settings: LossSettings) -> dict[str, Tensor]:
    """The losses pixel by pixel, as the papers write them down."""
    large = nn.functional.interpolate(logits, size=label.shape[1:], mode="bilinear", align_corners=False)
    probability = large.softmax(1)
    places = list(map(tuple, (label != 255).nonzero().tolist()))
    true = {(n, y, x): probability[n, label[n, y, x], y, x] for n, y, x in places}
    weights = settings.class_weights or (1.0,) * logits.shape[1]
    kept, divisor = places, label.numel()
    if settings.ohem_threshold is not None:
        least = math.ceil(settings.ohem_share * label.numel())
        hardest_first = sorted(places, key=lambda place: float(true[place].detach()))
        below = [place for place in places if true[place] < settings.ohem_threshold]
        kept = max(hardest_first[:least], below, key=len)
        divisor = max(1, len(kept))
    zero = logits.sum() * 0
    losses = {"a.loss_ce": 0.4 * sum((-weights[int(label[p])] * true[p].log() for p in kept), zero) / divisor}
    if settings.dice_weight:
        scores = []
        for c in sorted({int(label[place]) for place in places}):
            shared = sum((true[place] for place in places if label[place] == c), zero)
            predicted = sum((probability[n, c, y, x] for n, y, x in places), zero)
            scores.append(2 * shared / (predicted + sum(int(label[place]) == c for place in places)))
        dice = 1 - sum(scores) / len(scores) if scores else zero
        losses["a.loss_dice"] = 0.4 * settings.dice_weight * dice
    return losses


@choices
@pytest.mark.parametrize("tile", [1, 700, 1 << 20], ids=["a row", "some rows", "all rows"])
@pytest.mark.parametrize("whole", [False, True], ids=["tiles", "whole"])
def test_losses_and_gradients_are_those_of_the_definition(
    settings: LossSettings, tile: int, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, label = draw()
    monkeypatch.setattr(loss_tiles, "TILE", tile)
    monkeypatch.setattr(module.convolution, "written_out", lambda x: whole)
    found = head_loss("a", logits, label, weight=0.4, settings=settings, class_weights=weights_of(settings))
    expected = by_definition(logits, label, settings)
    assert list(found) == [*expected, "a.acc_seg"]
    for name, value in expected.items():
        assert float(found[name].detach()) == pytest.approx(float(value.detach()), rel=1e-12)  # worst measured 4e-16
    gradients = [torch.autograd.grad(sum(losses[name] for name in expected), logits)[0] for losses in (found, expected)]
    assert float((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()) < 1e-12  # worst measured 1e-15


@choices
def test_gradients_are_those_of_differences(settings: LossSettings) -> None:
    logits, label = draw(size=2, scale=2)

    def total(logits: Tensor) -> Tensor:
        losses = head_loss("a", logits, label, weight=1.0, settings=settings, class_weights=weights_of(settings))
        return sum(value for name, value in losses.items() if "loss" in name)

    assert torch.autograd.gradcheck(total, logits)


@choices
@pytest.mark.parametrize("whole", [False, True], ids=["tiles", "whole"])
def test_no_label_at_all_is_no_loss_and_no_gradient(
    settings: LossSettings, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, label = draw()
    monkeypatch.setattr(module.convolution, "written_out", lambda x: whole)
    label = torch.full_like(label, 255)
    losses = head_loss("a", logits, label, weight=1.0, settings=settings, class_weights=weights_of(settings))
    total = sum(value for name, value in losses.items() if "loss" in name)
    assert float(total.detach()) == 0
    assert not torch.autograd.grad(total, logits)[0].any()


@choices
def test_what_lies_on_ignored_pixels_changes_nothing(settings: LossSettings) -> None:
    logits, label = draw(scale=1)
    other = logits.detach() + 50 * torch.randn_like(logits) * (label == 255)[:, None]
    first, second = (
        head_loss("a", x, label, weight=1.0, settings=settings, class_weights=weights_of(settings)) for x in (logits, other)
    )
    losses = [name for name in first if "loss" in name]
    assert all(torch.allclose(first[name], second[name], rtol=1e-12) for name in losses)


def test_dice_takes_no_notice_of_how_many_pixels_a_class_has() -> None:
    """A class of 4 pixels that is missed costs as much as one of 60."""
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    label[0, :2, :2] = 1
    losses = []
    for missed in (0, 1):
        sure = torch.where(label == missed, 1 - missed, label)  # every pixel of the class is given to the other
        logits = 100.0 * nn.functional.one_hot(sure, 2).permute(0, 3, 1, 2).double()
        losses.append(head_loss("a", logits, label, weight=1.0, settings=LossSettings(dice_weight=1.0))["a.loss_dice"])
    scores = [2 * 4 / (64 + 4) / 2, 2 * 60 / (64 + 60) / 2]  # of the class that takes all, halved over two
    assert [float(loss) for loss in losses] == pytest.approx([1 - score for score in scores])


def test_dice_counts_millions_of_pixels() -> None:
    """Added one after the other, that many float32 numbers would be off by a percent."""
    label = torch.zeros(1, 1024, 2048, dtype=torch.int64)
    label[0, 0] = 1
    logits = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    found = float(head_loss("a", logits, label, weight=1.0, settings=LossSettings(dice_weight=1.0))["a.loss_dice"])
    p, many, few = 1 / (1 + math.exp(-2.0)), 1023 * 2048, 2048
    scores = [2 * p * many / (p * (many + few) + many), 2 * (1 - p) * few / ((1 - p) * (many + few) + few)]
    assert found == pytest.approx(1 - sum(scores) / 2, rel=1e-4)  # measured 3e-5


def test_without_gradients_none_is_made() -> None:
    logits, label = draw()
    with torch.no_grad():
        losses = head_loss("a", logits, label, weight=1.0, settings=CHOICES["dice"])
    assert not any(value.requires_grad for value in losses.values())


def test_autocast_leaves_the_losses_in_float32() -> None:
    logits, label = draw()
    exact = head_loss("a", logits.float(), label, weight=1.0, settings=CHOICES["dice"])
    with torch.autocast("cpu", torch.bfloat16):
        low = head_loss("a", logits.bfloat16(), label, weight=1.0, settings=CHOICES["dice"])
    for name in ("a.loss_ce", "a.loss_dice"):
        assert low[name].dtype == torch.float32
        assert float(low[name].detach()) == pytest.approx(float(exact[name].detach()), rel=1e-2)  # measured 4e-4


def test_the_heads_of_a_model_share_the_settings_and_its_weights_do_not_grow() -> None:
    model = create_model("upernet_internimage_nano", num_classes=5)
    names = list(model.state_dict())
    image, label = torch.randn(2, 3, 64, 64), torch.randint(0, 4, (2, 64, 64))
    losses = []
    for settings in (LossSettings(), LossSettings(class_weights=(2.0,) * 5, dice_weight=0.5)):
        model.set_loss(settings)
        torch.manual_seed(1)  # of dropout
        losses.append({name: float(value.detach()) for name, value in model.loss(image, label).items() if "loss" in name})
    assert list(model.state_dict()) == names
    assert list(losses[1]) == ["decode.loss_ce", "decode.loss_dice", "aux.loss_ce", "aux.loss_dice"]
    assert all(losses[1][name] == pytest.approx(2 * losses[0][name], rel=1e-4) for name in losses[0])  # measured 1e-7


def test_weights_that_depend_on_the_data_are_refused_by_a_model() -> None:
    model = create_model("upernet_internimage_nano", num_classes=5)
    with pytest.raises(ValueError, match=r'must be given numbers, got class_weights="balanced"; try .*balanced_weights'):
        model.set_loss(LossSettings(class_weights="balanced"))


def test_balanced_weights_prefer_rare_classes_within_bounds_and_average_one_over_the_pixels() -> None:
    pixels = [900_000, 99_990, 10, 0]
    weights = balanced_weights(pixels)
    assert weights[0] < weights[1] < weights[2] <= weights[3] <= 35.5 * weights[0]
    assert sum(w * n for w, n in zip(weights, pixels)) / sum(pixels) == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(math.log(1.02 + 0.9) / math.log(1.02 + 0.09999))


def test_balanced_weights_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="need labelled pixels, got none"):
        balanced_weights([0, 0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class_weights": (1.0, -1.0)}, r"class_weights must be .*got \(1.0, -1.0\); try class_weights=\"balanced\""),
        ({"class_weights": (0.0, 0.0)}, "not all 0"),
        ({"class_weights": ()}, "not all 0"),
        ({"class_weights": "rare"}, "got 'rare'"),
        ({"class_weights": (float("nan"),)}, "finite"),
        ({"ohem_threshold": 0.0}, "ohem_threshold must be None or above 0 and at most 1, got 0.0; try ohem_threshold=0.7"),
        ({"ohem_threshold": 1.5}, "ohem_threshold"),
        ({"ohem_share": 0.0}, "ohem_share must be above 0 and at most 1, got 0.0; try ohem_share=0.0625"),
        ({"dice_weight": -1.0}, "dice_weight must be a finite number of at least 0, got -1.0; try dice_weight=1.0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_mean_nothing_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LossSettings(**change)
