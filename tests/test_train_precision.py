"""Number formats, loss scaling, frozen parts and pieces of a batch: what they change, and what they must not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from train_helpers import Noise, Tiny, plain, score, settings, steady, tiny

from vistalib.train import fit, load_checkpoint, read_log
from vistalib.train.precision import float32_products, resolve_precision


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        (None, "fp32"),
        ((7, 0), "fp16"),
        ((7, 5), "fp16"),
        ((8, 0), "bf16"),
        ((8, 9), "bf16"),
        ((9, 0), "bf16"),
        ((10, 0), "bf16"),
    ],
    ids=["CPU", "Volta", "Turing", "Ampere", "Ada", "Hopper", "Blackwell"],
)
def test_auto_is_what_the_machine_is_good_at(capability: tuple[int, int] | None, expected: str) -> None:
    assert resolve_precision("auto", capability) == expected
    assert resolve_precision("tf32", capability) == "tf32"


@pytest.mark.parametrize(("precision", "products"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "tf32")])
def test_tf32_is_on_where_it_is_asked_for_and_given_back(precision: Any, products: str) -> None:
    before = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
    with float32_products(precision):
        assert torch.backends.cuda.matmul.fp32_precision == torch.backends.cudnn.conv.fp32_precision == products
    assert (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision) == before


def test_auto_on_a_cpu_is_float32_to_the_bit(tmp_path: Path) -> None:
    automatic, full = tiny(), tiny()
    fit(automatic, Noise(), settings(precision="auto"), folder=tmp_path / "auto")
    fit(full, Noise(), settings(), folder=tmp_path / "fp32")
    assert all(torch.equal(a, b) for a, b in zip(automatic.state_dict().values(), full.state_dict().values()))


def test_fp16_trains_float32_weights_under_a_loss_scale(tmp_path: Path) -> None:
    fit(tiny(), Noise(), settings(precision="fp16"), folder=tmp_path / "fp16")
    fit(tiny(), Noise(), settings(), folder=tmp_path / "fp32")
    assert all(value.dtype is not torch.float16 for value in load_checkpoint(tmp_path / "fp16").model.values())
    half, full = (read_log(tmp_path / name) for name in ("fp16", "fp32"))
    assert half[0]["loss_scale"] == 65536
    assert half[0]["loss"] != full[0]["loss"]
    assert half[0]["loss"] == pytest.approx(full[0]["loss"], rel=1e-4)  # measured: 6e-6
    assert half[0]["grad_norm"] == pytest.approx(full[0]["grad_norm"], rel=1e-3)  # measured: 2e-5


class Steep(Tiny):
    """Gradients of fp16 overflow under the first loss scales."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) * 100


def test_an_overflow_of_fp16_skips_the_update_and_lowers_the_scale(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Steep()
    start = {name: value.clone() for name, value in model.named_parameters()}

    class Enough(Exception):
        pass

    def stop(line: dict[str, Any]) -> None:
        raise Enough

    with pytest.raises(Enough):
        fit(model, Noise(), settings(precision="fp16", log_every=1), folder=tmp_path, on_log=stop)
    line = read_log(tmp_path)[0]
    assert (line["skipped"], line["grad_norm"], line["loss_scale"]) == (1, 0, 32768)
    assert all(torch.equal(value, start[name]) for name, value in model.named_parameters())


def test_fp16_resumes_with_its_scale_to_the_bit(tmp_path: Path) -> None:
    class Power(Exception):
        pass

    class Failing(Noise):
        def batches(self, start: int) -> Any:
            for iteration, batch in enumerate(super().batches(start), start):
                if iteration == 7:
                    raise Power
                yield batch

    torch.manual_seed(0)
    whole, killed = Steep(), Steep()
    killed.load_state_dict(whole.state_dict())
    fit(whole, Noise(), settings(precision="fp16"), folder=tmp_path / "whole", evaluate=score)
    with pytest.raises(Power):
        fit(killed, Failing(), settings(precision="fp16"), folder=tmp_path / "killed", evaluate=score)
    assert load_checkpoint(tmp_path / "killed").state["scaler"]["scale"] < 65536
    fit(killed, Noise(), settings(precision="fp16"), folder=tmp_path / "killed", evaluate=score, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), killed.state_dict().values()))
    assert steady(read_log(tmp_path / "whole")) == steady(read_log(tmp_path / "killed"))


def test_graphs_are_refused_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cuda_graphs needs one process with a CUDA device, got the device cpu; leave"):
        fit(tiny(), Noise(), settings(cuda_graphs=True), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pieces_take_the_step_of_the_whole_batch(tmp_path: Path) -> None:
    whole, pieces = plain(), plain()
    fit(whole, Noise(batch_size=4), settings(), folder=tmp_path / "whole")
    fit(pieces, Noise(batch_size=4), settings(accumulate=4), folder=tmp_path / "pieces")
    first, second = ([line["grad_norm"] for line in read_log(tmp_path / name)] for name in ("whole", "pieces"))
    assert first == pytest.approx(second, rel=1e-5)  # measured: 2e-7
    assert all(
        torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(whole.parameters(), pieces.parameters())
    )  # measured: 3e-8


def test_pieces_that_do_not_divide_the_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="accumulate must divide the 4 images that each rank has a step, got accumulate=3"):
        fit(tiny(), Noise(batch_size=4), settings(accumulate=3), folder=tmp_path)


def test_frozen_parts_keep_their_bits_and_the_rest_learns(tmp_path: Path) -> None:
    model = tiny()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, Noise(), settings(frozen=("stem", "norm")), folder=tmp_path, evaluate=score)
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
    assert changed == {"head"}


def test_frozen_statistics_stay_while_the_weights_learn(tmp_path: Path) -> None:
    model = tiny()
    fit(model, Noise(), settings(), folder=tmp_path / "first")
    start = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, Noise(), settings(frozen_statistics=True), folder=tmp_path / "second", evaluate=score)
    kept = {name for name, value in model.state_dict().items() if torch.equal(value, start[name])}
    assert kept == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}


def test_a_checkpoint_holds_the_weights_of_its_own_iteration(tmp_path: Path) -> None:
    """The training goes on while it is written."""
    moments: dict[int, Tensor] = {}
    model = tiny()

    class Watching(Noise):
        def batches(self, start: int) -> Any:
            for iteration, batch in enumerate(super().batches(start), start):
                moments[iteration] = model.head.weight.detach().clone()
                yield batch

    fit(model, Watching(), settings(checkpoint_every=1, keep=12), folder=tmp_path)
    for iteration in range(1, 12):
        saved = load_checkpoint(tmp_path / f"checkpoints/iter_{iteration:06d}").model["head.weight"]
        assert torch.equal(saved, moments[iteration])


def test_settings_of_a_run_are_plain_json(tmp_path: Path) -> None:
    fit(tiny(), Noise(), settings(frozen=("stem",)), folder=tmp_path)
    assert json.loads(json.dumps(load_checkpoint(tmp_path).state))["settings"]["frozen"] == ["stem"]
