"""The backbone's options, one claim each."""

import pytest
import torch

from vistalib.models import InternImage
from vistalib.models.block import Block, DropPath

SMALL = {"channels": 8, "depths": (1, 1, 2, 1), "groups": (1, 2, 4, 8)}
BLOCK = {
    "mlp_ratio": 4.0,
    "drop_path_rate": 0.0,
    "layer_scale": None,
    "offset_scale": 1.0,
    "dw_kernel_size": None,
    "center_feature_scale": False,
    "recompute": False,
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("size", [(64, 96), (75, 101)], ids=["multiple of 32", "odd"])
def test_maps_have_a_quarter_to_a_thirtysecond_of_the_side_rounded_up(size: tuple[int, int]) -> None:
    maps = InternImage(**SMALL)(torch.randn(2, 3, *size))
    expected = [(2, 8 * 2**i, -(-size[0] // 2 ** (i + 2)), -(-size[1] // 2 ** (i + 2))) for i in range(4)]
    assert [tuple(y.shape) for y in maps] == expected


def test_maps_are_views_of_channels_last_memory() -> None:
    maps = InternImage(**SMALL)(torch.randn(2, 3, 64, 96))
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in maps)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "pre"},
        {"norm": "post", "layer_scale": 1.0},
        {"norm": "res_post", "dw_kernel_size": 5, "extra_post_norm_blocks": (1,), "center_feature_scale": True},
    ],
    ids=["pre", "post", "huge"],
)
def test_recomputed_blocks_give_the_same_gradients(options: dict[str, object]) -> None:
    image = torch.randn(1, 3, 64, 64)
    plain = InternImage(**SMALL, **options)
    recomputed = InternImage(**SMALL, **options, recompute_blocks=True)
    recomputed.load_state_dict(plain.state_dict())
    for model in (plain, recomputed):
        sum(y.square().mean() for y in model(image)).backward()
    for (name, a), b in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        assert a.grad is not None, name
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-7), name  # bit-equal on one thread


def test_recomputed_blocks_drop_the_same_paths_again() -> None:
    image = torch.randn(8, 3, 32, 32)
    plain = InternImage(**SMALL, drop_path_rate=0.5).train()
    recomputed = InternImage(**SMALL, drop_path_rate=0.5, recompute_blocks=True).train()
    recomputed.load_state_dict(plain.state_dict())
    for model in (plain, recomputed):
        torch.manual_seed(1)
        model(image)[3].square().mean().backward()
    assert torch.allclose(plain.stem.conv1.weight.grad, recomputed.stem.conv1.weight.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("norm", ["post", "res_post"])
def test_a_norm_ends_both_branches(norm: str) -> None:
    block = Block(8, 2, norm=norm, **BLOCK)
    for end in (block.norm1, block.norm2) if norm == "post" else (block.res_post_norm1, block.res_post_norm2):
        torch.nn.init.zeros_(end.weight)
    x = torch.randn(1, 5, 6, 8)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_layer_scale_of_zero_leaves_the_input(norm: str) -> None:
    block = Block(8, 2, norm=norm, **(BLOCK | {"layer_scale": 0.0}))
    x = torch.randn(1, 5, 6, 8)
    assert torch.equal(block(x), x)


def test_pre_norm_makes_branches_blind_to_the_scale_of_their_input() -> None:
    block = Block(8, 2, norm="pre", **BLOCK)
    x = torch.randn(1, 5, 6, 8)
    branch = block.dcn(block.norm1(x))
    assert torch.allclose(block.dcn(block.norm1(100 * x)), branch, atol=1e-4)  # eps 1e-6 beside a variance of 1


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    x, branch = torch.zeros(4000, 1, 1, 2), torch.ones(4000, 1, 1, 2)
    y = DropPath(0.25).train()(x, branch)
    assert sorted(set(y[..., 0].flatten().tolist())) == pytest.approx([0.0, 4 / 3])
    assert torch.equal(y[..., 0], y[..., 1])
    assert y.mean().item() == pytest.approx(1.0, abs=0.05)  # measured 1.003; the standard deviation is 0.009


def test_drop_path_does_nothing_in_evaluation() -> None:
    x, branch = torch.randn(3, 2, 2, 4), torch.randn(3, 2, 2, 4)
    assert torch.equal(DropPath(0.9).eval()(x, branch), x + branch)


def test_construction_leaves_offsets_and_masks_at_zero() -> None:
    for block in (block for stage in InternImage(**SMALL).stages for block in stage.blocks):
        assert not any(p.any() for linear in (block.dcn.offset, block.dcn.mask) for p in linear.parameters())


def test_init_weights_draws_every_projection_with_deviation_002() -> None:
    model = InternImage(32, (1, 1, 1, 1), (2, 4, 8, 16))
    model.init_weights()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1), name  # worst measured 2 percent
            assert not module.bias.any(), name


@pytest.mark.parametrize("frozen_stages", [0, 1, 2, 4])
def test_frozen_stages_and_the_stem_get_no_gradients_and_the_others_do(frozen_stages: int) -> None:
    model = InternImage(**SMALL, frozen_stages=frozen_stages).train()
    losses = [y.square().mean() for y in model(torch.randn(1, 3, 64, 64)) if y.requires_grad]
    assert len(losses) == 4 - frozen_stages
    if losses:
        torch.stack(losses).sum().backward()
    frozen = ("stem.", *(f"stages.{i}." for i in range(frozen_stages))) if frozen_stages else ()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad is (parameter.grad is not None) is not name.startswith(frozen), name


def test_frozen_stages_stay_in_evaluation_mode_when_the_model_is_trained() -> None:
    model = torch.nn.Sequential(InternImage(**SMALL, drop_path_rate=0.5, frozen_stages=2))
    for _ in range(2):
        model.train()
        backbone = model[0]
        frozen = [module.training for part in (backbone.stem, *backbone.stages[:2]) for module in part.modules()]
        others = [module.training for part in backbone.stages[2:] for module in part.modules()]
        assert not any(frozen)
        assert all(others)
        model.eval()
        assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("options", "repair"),
    [
        ({"norm": "both"}, "pre, post, res_post"),
        ({"channels": 7}, "try 8"),
        ({"groups": (3, 2, 4, 8)}, "divisible by its groups, got 3"),
        ({"depths": (1, 1, 1)}, "one entry for each of 4 stages"),
        ({"norm": "res_post", "layer_scale": 1.0}, "layer_scale=None"),
        ({"extra_post_norm_blocks": (2,)}, "third stage from 0"),
        ({"drop_path_rate": 1.0}, "less than 1, got 1.0; try 0.2"),
        ({"frozen_stages": -1}, "0, for none, to 4, for the whole backbone, got -1"),
    ],
    ids=["norm", "odd channels", "groups", "stages", "layer scale", "post-norms", "drop path", "frozen stages"],
)
def test_options_that_do_not_fit_are_refused_with_the_repair(options: dict[str, object], repair: str) -> None:
    with pytest.raises(ValueError, match=repair):
        InternImage(**(SMALL | options))
