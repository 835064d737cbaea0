"""The loss in tiles equals that of logits resized as a whole: value, accuracy, gradient."""

import pytest
import torch

from vistalib.models import loss, loss_tiles
from vistalib.models.loss import head_loss

SIZES = {
    "quarter": ((8, 12), (32, 48)),
    "odd": ((9, 13), (35, 50)),
    "smaller": ((9, 13), (5, 7)),
    "same": ((6, 7), (6, 7)),
    "wider than a tile": ((3, 70), (12, 280)),
}


def draw(logits: tuple[int, int], label: tuple[int, int], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 6, (2, *label), generator=generator)
    truth[truth == 5] = 255
    return torch.randn(2, 5, *logits, dtype=dtype, generator=generator).requires_grad_(), truth


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-14), (torch.float32, 2e-6)], ids=["float64", "float32"])
@pytest.mark.parametrize("tile", [1, 1500, 1 << 20], ids=["a row", "some rows", "all rows"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_tiles_give_loss_accuracy_and_gradient_of_the_whole(
    sizes: tuple[tuple[int, int], tuple[int, int]],
    tile: int,
    dtype: torch.dtype,
    bound: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits, label = draw(*sizes, dtype)
    monkeypatch.setattr(loss_tiles, "TILE", tile)
    found = []
    for whole in (False, True):
        monkeypatch.setattr(loss.convolution, "written_out", lambda x, whole=whole: whole)
        losses = head_loss("a", logits, label, weight=0.4)
        (gradient,) = torch.autograd.grad(3 * losses["a.loss_ce"], logits)
        found.append((losses["a.loss_ce"].detach(), losses["a.acc_seg"], gradient))
    for got, expected in zip(*found, strict=True):
        assert float((got - expected).norm() / expected.norm()) < bound  # worst measured 6e-16 and 3e-7
        assert got.dtype == expected.dtype


def test_no_label_at_all_is_no_loss_and_full_accuracy() -> None:
    logits, label = draw((4, 4), (8, 8), torch.float32)
    losses = head_loss("a", logits, torch.full_like(label, 255), weight=1.0)
    assert losses["a.loss_ce"] == 0
    assert losses["a.acc_seg"] == 100


def test_without_gradients_none_is_made() -> None:
    logits, label = draw((4, 4), (8, 8), torch.float32)
    with torch.no_grad():
        assert not head_loss("a", logits, label, weight=1.0)["a.loss_ce"].requires_grad


def test_tiles_work_under_autocast() -> None:
    logits, label = draw((4, 4), (16, 16), torch.float32)
    exact = head_loss("a", logits, label, weight=1.0)["a.loss_ce"]
    with torch.autocast("cpu", torch.bfloat16):
        low = head_loss("a", logits.bfloat16(), label, weight=1.0)["a.loss_ce"]
    assert float((low - exact).detach().abs()) < 0.01 * float(exact.detach())  # measured 0.0003
    assert low.dtype == torch.float32


def test_of_equal_logits_the_first_class_is_the_most_likely() -> None:
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 1:, :, 1] = 1  # on the right classes 1 and 2, on the left all three
    label = torch.tensor([[[0, 1], [1, 2]]])
    assert head_loss("a", logits, label, weight=1.0)["a.acc_seg"] == 50


def test_a_label_beyond_the_classes_is_refused() -> None:
    logits, label = draw((4, 4), (8, 8), torch.float32)
    label[0, 0, 0] = 5
    with pytest.raises((RuntimeError, IndexError)):
        head_loss("a", logits, label, weight=1.0)
