"""Names, shapes, order, parameter counts and layer ids of all thirteen released configurations."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from vistalib.models import Segmentor, create_model, from_released, to_released

RELEASED = json.loads(gzip.decompress((Path(__file__).parent / "data" / "manifests" / "released.json.gz").read_bytes()))
CONFIGS, MODELS = RELEASED["configs"], RELEASED["models"]


def on_meta(name: str, **options: object) -> Segmentor:
    with torch.device("meta"):
        return create_model(name, **options)


@pytest.mark.parametrize("config", CONFIGS)
def test_state_dict_has_the_released_names_shapes_types_and_order(config: str) -> None:
    state = to_released(on_meta(CONFIGS[config]).state_dict())
    got = [[name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")] for name, tensor in state.items()]
    assert got == MODELS[CONFIGS[config]]["state_dict"]


@pytest.mark.parametrize("name", MODELS)
def test_translating_names_there_and_back_changes_nothing(name: str) -> None:
    released = {key: index for index, (key, *_) in enumerate(MODELS[name]["state_dict"])}
    there = from_released(released)
    assert list(there) == list(on_meta(name).state_dict())
    assert list(to_released(there).items()) == list(released.items())


@pytest.mark.parametrize("name", MODELS)
def test_number_of_parameters_is_the_published_one_to_the_unit(name: str) -> None:
    model = on_meta(name)
    parts = {part: sum(p.numel() for p in child.parameters()) for part, child in model.named_children()}
    assert parts == MODELS[name]["by_part"]
    assert sum(parts.values()) == MODELS[name]["parameters"]


@pytest.mark.parametrize("name", [name for name in MODELS if "layer_ids" in MODELS[name]])
def test_layer_ids_are_the_released_ones(name: str) -> None:
    assert to_released(on_meta(name).layer_ids()) == MODELS[name]["layer_ids"]


def test_drop_path_rises_linearly_from_zero_over_all_blocks() -> None:
    model = on_meta("upernet_internimage_l")
    rates = [block.drop_path.rate for stage in model.backbone.stages for block in stage.blocks]
    assert rates == pytest.approx([0.4 * i / 36 for i in range(37)], abs=1e-7)  # float32 steps


def test_huge_style_carries_the_released_names_in_order() -> None:
    options = {"norm": "res_post", "dw_kernel_size": 5, "extra_post_norm_blocks": (0, 1), "center_feature_scale": True}
    model = on_meta("upernet_internimage_nano", depths=(1, 1, 2, 1), **options)
    names = [name for name in to_released(model.state_dict()) if name.startswith("backbone.levels.2.")]
    block = [
        *("norm1.0.weight", "norm1.0.bias", "dcn.center_feature_scale_proj_weight", "dcn.center_feature_scale_proj_bias"),
        *(f"dcn.{part}.{kind}" for part in ("dw_conv.0", "dw_conv.1.1", "offset", "mask") for kind in ("weight", "bias")),
        *(f"{part}.{kind}" for part in ("dcn.input_proj", "dcn.output_proj", "norm2.0") for kind in ("weight", "bias")),
        *(f"{part}.{kind}" for part in ("mlp.fc1", "mlp.fc2") for kind in ("weight", "bias")),
        *(f"res_post_norm{i}.0.{kind}" for i in (1, 2) for kind in ("weight", "bias")),
    ]
    end = [f"{part}.{kind}" for part in ("norm.0", "post_norms.0.0", "post_norms.1.0") for kind in ("weight", "bias")]
    end += ["downsample.conv.weight", "downsample.norm.1.weight", "downsample.norm.1.bias"]
    assert names == [f"backbone.levels.2.{name}" for name in [*(f"blocks.{j}.{n}" for j in (0, 1) for n in block), *end]]
    assert list(from_released(to_released(model.state_dict()))) == list(model.state_dict())


@pytest.mark.parametrize("size", ["h", "g"])
def test_the_huge_models_keep_every_name_there_and_back(size: str) -> None:
    ours = list(on_meta(f"upernet_internimage_{size}").state_dict())
    released = to_released(dict.fromkeys(ours))
    assert len(released) == len(ours)
    assert not any("stages" in name or "stem" in name or "ppm" in name for name in released)
    assert list(from_released(released)) == ours


def test_extra_post_norms_count_as_blocks_for_layer_decay() -> None:
    ids = on_meta("upernet_internimage_nano", extra_post_norm_blocks=(0, 2)).layer_ids()
    assert ids["backbone.stages.2.extra_post_norms.0.weight"] == ids["backbone.stages.2.blocks.0.norm1.weight"] == 3
    assert ids["backbone.stages.2.extra_post_norms.1.weight"] == ids["backbone.stages.2.blocks.1.norm1.weight"] == 4
