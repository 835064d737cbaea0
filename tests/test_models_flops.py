"""What a forward pass costs, beside the released counter's numbers and sums by hand."""

import json
from pathlib import Path

import pytest
import torch

from vistalib.models import Cost, Segmentor, cost, create_model
from vistalib.models.variants import VARIANTS

RELEASED = json.loads((Path(__file__).parent / "data" / "manifests" / "flops.json").read_text())
OTHER_SIZES = [
    (name, classes, size)
    for name, row in RELEASED.items()
    for classes in ("150 classes", "19 classes")
    for size in row[classes]
    if (classes, size) != ("150 classes", "1024x2048")
]


def on_meta(name: str, **options: object) -> Segmentor:
    with torch.device("meta"):
        return create_model(name, **options)


def cost_at(name: str, size: str, **options: object) -> Cost:
    height, width = size.split("x")
    return cost(on_meta(name, **options), (int(height), int(width)))


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if "_xl" in name else ()) for name in RELEASED])
def test_every_kind_of_operation_costs_what_the_released_counter_says(name: str) -> None:
    released = cost_at(name, "1024x2048").released
    assert released == RELEASED[name]["by kind, 150 classes, 1024x2048"]
    assert sum(released.values()) == RELEASED[name]["150 classes"]["1024x2048"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "classes", "size"), OTHER_SIZES, ids=str)
def test_other_sizes_and_19_classes_cost_what_the_released_counter_says(name: str, classes: str, size: str) -> None:
    released = cost_at(name, size, num_classes=int(classes.split()[0])).released
    assert sum(released.values()) == RELEASED[name][classes][size]


@pytest.mark.parametrize(
    "name", [name for name, variant in VARIANTS.items() if variant.size != "h" and variant.published.flops]
)
def test_the_published_row_is_the_released_count_rounded(name: str) -> None:
    published, row = VARIANTS[name].published, RELEASED[name]["150 classes"]
    assert published.flops == f"{row['x'.join(map(str, published.size))] / 1e9:.0f}G"


@pytest.mark.parametrize("name", [name for name, variant in VARIANTS.items() if variant.published.parameters])
def test_the_published_parameters_are_the_count_rounded(name: str) -> None:
    parameters = sum(parameter.numel() for parameter in on_meta(name).parameters())
    rounded = f"{parameters / 1e6:.0f}M" if parameters < 1e9 else f"{parameters / 1e9:.2f}B"
    assert VARIANTS[name].published.parameters == rounded


# As the tables for ADE20K print them: a square crop's side is the shorter side there, the longer one is four times it
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "flops"),
    [
        ("upernet_internimage_t", "512x2048", "944G"),
        ("upernet_internimage_s", "512x2048", "1017G"),
        ("upernet_internimage_b", "512x2048", "1185G"),
        ("upernet_internimage_l", "640x2560", "2526G"),
        ("upernet_internimage_xl", "640x2560", "3142G"),
        ("upernet_internimage_h", "896x896", "3566G"),
    ],
    ids=str,
)
def test_the_rows_for_ade20k_are_reproduced(name: str, size: str, flops: str) -> None:
    assert f"{sum(cost_at(name, size).released.values()) / 1e9:.0f}G" == flops


def test_multiply_adds_are_the_sums_of_products_counted_by_hand() -> None:
    options = {"channels": 4, "depths": (1, 1, 1, 1), "groups": (2, 2, 2, 2), "center_feature_scale": True, "norm": "pre"}
    model = on_meta("segformer_internimage_l", num_classes=5, layer_scale=None, **options)
    counted = cost(model, (32, 64)).multiply_adds
    widths, pixels, head = (4, 8, 16, 32), (128, 32, 8, 2), 256
    stem = 512 * 2 * 3 * 9 + 128 * 4 * 2 * 9
    downsample = sum(p * 2 * c * c * 9 for p, c in zip(pixels[1:], widths[:-1], strict=True))
    depthwise = sum(p * c * 9 for p, c in zip(pixels, widths, strict=True))
    fuse = 128 * (4 * head * head + head * 5)
    assert (
        counted["convolution"]
        == stem + downsample + depthwise + sum(p * c * head for p, c in zip(pixels, widths, strict=True)) + fuse
    )
    # two projections, offset and mask of two groups, the gates, and the MLP
    assert counted["linear"] == sum(p * c * (2 * c + 2 * 9 * 3 + 2 + 8 * c) for p, c in zip(pixels, widths, strict=True))
    # nine points: four corners a channel; a group's location takes two, its corners' weights four
    assert counted["dcnv3"] == sum(p * 9 * (4 * c + 2 * 6) for p, c in zip(pixels, widths, strict=True))
    assert counted["resizing"] == 3 * 128 * head * 4
    assert counted.keys() == {"convolution", "linear", "dcnv3", "resizing"}


def test_a_model_with_weights_and_in_training_is_counted_and_left_as_it_was() -> None:
    model = create_model("upernet_internimage_nano", num_classes=5).train()
    model.decode_head.ppm.eval()
    modes = [module.training for module in model.modules()]
    assert cost(model, (64, 96)) == cost(on_meta("upernet_internimage_nano", num_classes=5), (64, 96))
    assert [module.training for module in model.modules()] == modes
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("size", [(64, 100), (0, 64)], ids=str)
def test_sides_that_are_no_multiples_of_32_are_refused_with_the_repair(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"multiples of 32, got {size[0]} and {size[1]}; pad"):
        cost(on_meta("upernet_internimage_nano"), size)
