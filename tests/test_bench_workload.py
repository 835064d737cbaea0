"""The cost model against cases counted by hand, and the workloads against the models themselves."""

import pytest
import torch
from torch import nn

from vistalib.bench import Cost, Workload, stage_workloads
from vistalib.bench.machine import Machine
from vistalib.bench.workload import Offsets, draw, sizes
from vistalib.models import create_model
from vistalib.ops import DCNv3

L1 = Workload("l1", "512x1024", 2, 128, 256, 160, 10)
GROUPS = 2 * 128 * 256 * 10  # of all pixels


def test_forward_moves_118_bytes_a_pixel_and_group_of_16_channels_in_bfloat16() -> None:
    value, offset, mask, output = 16 * 2, 18 * 2, 9 * 2, 16 * 2
    assert L1.cost("forward", torch.bfloat16).bytes == (value + offset + mask + output) * GROUPS == 77_332_480


def test_backward_moves_204_bytes_a_pixel_and_group_of_16_channels_in_bfloat16() -> None:
    read, written = 16 * 2 + 16 * 2 + 27 * 2, 16 * 2 + 27 * 2
    assert L1.cost("backward", torch.bfloat16).bytes == (read + written) * GROUPS == 133_693_440


def test_forward_takes_576_multiply_adds_a_pixel_and_group_and_backward_twice_as_many() -> None:
    assert L1.cost("forward", torch.float32).flops == 2 * 576 * GROUPS
    assert L1.cost("backward", torch.float32).flops == 4 * 576 * GROUPS


def test_both_is_the_sum_and_float32_twice_the_bytes() -> None:
    forward, backward = (L1.cost(direction, torch.bfloat16) for direction in ("forward", "backward"))
    assert L1.cost("both", torch.float32) == Cost(2 * (forward.bytes + backward.bytes), forward.flops + backward.flops)


def test_the_stages_of_l_have_the_floors_counted_for_them() -> None:
    works = stage_workloads(["l"], [1, 2, 3, 4], ["512x1024"], 2)
    megabytes = [round(work.cost("forward", torch.bfloat16).bytes / 1e6, 1) for work in works]
    assert megabytes == [77.3, 38.7, 19.3, 9.7]
    machine = Machine(4.3e12, {"float32": 67e12})
    floors = [machine.floor(work.cost("forward", torch.bfloat16), torch.bfloat16) for work in works]
    assert [(round(1e6 * seconds, 1), bound) for seconds, bound in floors] == [
        *((18.0, "memory"), (9.0, "memory"), (4.5, "memory"), (2.2, "memory")),
    ]


def test_a_slow_multiplier_makes_the_floor_one_of_compute() -> None:
    assert Machine(1e9, {"float32": 1e9}).floor(Cost(10, 2_000_000_000), torch.float16) == (2.0, "compute")


@pytest.mark.parametrize("crop", ["64x96", "72x100"], ids=["whole", "rounded up"])
def test_workloads_are_the_calls_that_a_model_makes(crop: str) -> None:
    model, calls = create_model("upernet_internimage_nano", 4).eval(), []

    def remember(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, DCNv3)
        calls.append((*inputs[0].shape, module.groups, module.offset_scale))

    for module in model.modules():
        if isinstance(module, DCNv3):
            module.register_forward_pre_hook(remember)
    with torch.no_grad():
        model(torch.zeros(1, 3, *sizes(crop, "HxW")))
    expected = [
        (work.images, work.height, work.width, work.channels, work.groups, work.offset_scale)
        for work in stage_workloads(["nano"], [1, 2, 3, 4], [crop], 1)
    ]
    assert list(dict.fromkeys(calls)) == expected


@pytest.mark.parametrize(("text", "deviation", "most"), [("normal:0.5", 0.5, 9.0), ("uniform:4", 4 / 3**0.5, 4.0)])
def test_offsets_have_the_spread_they_are_named_after(text: str, deviation: float, most: float) -> None:
    drawn = Offsets(text).draw(40_000, generator=torch.Generator().manual_seed(0))
    assert float(drawn.std()) == pytest.approx(deviation, rel=0.02)  # measured 0.004
    assert float(drawn.abs().max()) <= most


def test_drawn_masks_sum_to_one_and_a_seed_draws_the_same_again() -> None:
    work = Workload("", None, 1, 3, 4, 8, 2)
    first, second = (draw(work, Offsets("normal:1"), torch.float32, device=torch.device("cpu"), seed=3) for _ in range(2))
    assert [tuple(tensor.shape[1:]) for tensor in first] == [(3, 4, 8), (3, 4, 36), (3, 4, 18), (3, 4, 8)]
    assert torch.allclose(first[2].unflatten(-1, (2, 9)).sum(-1), torch.ones(()))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_no_drawn_offset_leads_to_a_pixels_centre(scale: float) -> None:
    work = Workload("", None, 1, 30, 40, 8, 2, offset_scale=scale)
    _, offset, _, _ = draw(work, Offsets("uniform:4"), torch.bfloat16, device=torch.device("cpu"), seed=0)
    assert not ((offset * scale).frac() == 0).any()


@pytest.mark.parametrize("text", ["512", "512x", "0x4", "512X1024", "1x2x3", "axb"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be written HEIGHTxWIDTH .* got"):
        sizes(text, "HEIGHTxWIDTH")


@pytest.mark.parametrize("text", ["normal", "normal:-1", "gauss:1", "uniform:", "uniform:1e3"])
def test_a_distribution_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="normal:DEVIATION or uniform:REACH"):
        Offsets(text)
