"""The whole model: sizes, loss, prediction, and the zoo's door."""

import pytest
import torch

from vistalib.models import FCNHead, InternImage, SegFormerHead, Segmentor, UPerHead, block, create_model, list_models


def small(head: str = "upernet") -> Segmentor:
    torch.manual_seed(0)
    backbone = InternImage(8, (1, 1, 1, 1), (1, 2, 4, 8))
    kind = {"upernet": UPerHead, "segformer": SegFormerHead}[head]
    return Segmentor(backbone, kind(backbone.out_channels, channels=8, num_classes=5), FCNHead(32, channels=8, num_classes=5))


def batch(size: tuple[int, int] = (64, 96)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, *size, generator=generator), torch.randint(0, 5, (2, *size), generator=generator)


@pytest.mark.parametrize("head", ["upernet", "segformer"])
@pytest.mark.parametrize("size", [(64, 96), (75, 101)], ids=["multiple of 32", "odd"])
def test_logits_come_at_a_quarter_and_labels_at_full_size(head: str, size: tuple[int, int]) -> None:
    model, (image, _) = small(head).eval(), batch(size)
    assert model(image).shape == (2, 5, -(-size[0] // 4), -(-size[1] // 4))
    label = model.predict(image)
    assert label.shape == (2, *size)
    assert label.dtype == torch.int64


def test_prediction_in_training_mode_is_refused_with_the_repair() -> None:
    with pytest.raises(ValueError, match=r"training mode; call model\.eval\(\)"):
        small().train().predict(batch()[0])


@pytest.mark.parametrize("head", ["upernet", "segformer"])
def test_maps_stay_channels_last_up_to_the_classifier(head: str) -> None:
    model, seen = small(head).eval(), []
    model.decode_head.dropout.register_forward_hook(lambda module, args, output: seen.append(output))
    model(batch()[0])
    assert [x.is_contiguous(memory_format=torch.channels_last) for x in seen] == [True]


@pytest.mark.parametrize("head", ["upernet", "segformer"])
def test_logits_are_the_same_where_nobody_asks_for_a_gradient(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "PIECE", 7)
    model, (image, _) = small(head).double().eval(), batch()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                torch.nn.init.uniform_(values, 0.5, 2.0)
    with_gradient = model(image.double())
    with torch.no_grad():
        without = model(image.double())
    assert with_gradient.requires_grad
    assert ((without - with_gradient).norm() / with_gradient.norm()).item() < 1e-14  # measured 6.1e-16


@pytest.mark.parametrize("head", ["upernet", "segformer"])
def test_every_parameter_gets_a_gradient(head: str) -> None:
    model = small(head).train()
    losses = model.loss(*batch())
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_ignored_pixels_add_nothing_and_still_count_in_the_divisor() -> None:
    model, (image, label) = small().eval(), batch()
    whole = label.clone()
    whole[:, :, 48:] = 255
    logits = torch.nn.functional.interpolate(model(image), size=(64, 96), mode="bilinear")
    kept = torch.nn.functional.cross_entropy(logits[..., :48], label[..., :48])
    assert model.loss(image, whole)["decode.loss_ce"].item() == pytest.approx(kept.item() / 2, rel=1e-6)


def test_the_auxiliary_loss_has_its_weight_inside() -> None:
    model, (image, label) = small().eval(), batch()
    logits = torch.nn.functional.interpolate(model.auxiliary_head(model.backbone(image)[2]), size=(64, 96), mode="bilinear")
    expected = 0.4 * torch.nn.functional.cross_entropy(logits, label)
    assert model.loss(image, label)["aux.loss_ce"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_accuracy_is_the_percentage_of_labelled_pixels_predicted_right() -> None:
    model, (image, label) = small().eval(), batch()
    label[0] = 255
    right = (model.predict(image)[1] == label[1]).double().mean().item()
    assert model.loss(image, label)["decode.acc_seg"].item() == pytest.approx(100 * right, rel=1e-6)


def test_a_batch_without_labels_has_no_loss() -> None:
    model, (image, label) = small().eval(), batch()
    losses = model.loss(image, torch.full_like(label, 255))
    assert losses["decode.loss_ce"].item() == losses["aux.loss_ce"].item() == 0.0


def test_training_on_one_image_is_refused_with_the_repair() -> None:
    model, (image, label) = small().train(), batch()
    with pytest.raises(ValueError, match=r"at least 2 images a rank.*head\.ppm\.eval\(\)"):
        model.loss(image[:1], label[:1])


def test_training_on_one_image_works_with_frozen_pyramid_statistics() -> None:
    model, (image, label) = small().train(), batch()
    model.decode_head.ppm.eval()
    assert torch.isfinite(model.loss(image[:1], label[:1])["decode.loss_ce"])


@pytest.mark.parametrize("scale", [1, 2, 3, 6])
def test_each_pyramid_scale_sees_the_means_of_its_cells(scale: int) -> None:
    ppm = UPerHead((4, 4, 4, 4), channels=4, num_classes=2, pool_scales=(scale,)).eval().ppm
    torch.nn.init.dirac_(ppm[0].conv.weight)
    x = torch.rand(1, 4, 6, 12)  # positive, so that the ReLU lets it pass
    cells = x.reshape(1, 4, scale, 6 // scale, scale, 12 // scale).mean(dim=(3, 5))
    assert torch.allclose(ppm(x)[0], cells / (1 + 1e-5) ** 0.5, atol=1e-6)  # measured 1.2e-7


def test_heads_start_with_small_logits() -> None:
    head = UPerHead((8, 16, 32, 64), channels=64, num_classes=19)
    assert head.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.1)  # measured 1 percent
    assert not head.conv_seg.bias.any()


@pytest.mark.parametrize("name", list_models())
def test_every_listed_model_can_be_created(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=19)
    assert model.num_classes == 19
    assert model.num_layers == sum(model.backbone.depths)
    assert max(model.layer_ids().values()) == model.num_layers + 1


def test_an_unknown_model_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"got 'upernet_intern_image_l'; did you mean .*upernet_internimage_l"):
        create_model("upernet_intern_image_l")


def test_backbone_options_override_the_table() -> None:
    with torch.device("meta"):
        model = create_model("upernet_internimage_t", recompute_blocks=True, drop_path_rate=0.0)
    assert all(block.recompute and block.drop_path.rate == 0 for stage in model.backbone.stages for block in stage.blocks)


def test_the_smallest_model_learns_one_batch() -> None:
    torch.manual_seed(0)
    model = create_model("upernet_internimage_nano", num_classes=2).train()
    image = torch.randn(2, 3, 32, 64)
    label = (
        (torch.nn.functional.avg_pool2d(image[:, :1], 16) > 0).long().repeat_interleave(16, 2).repeat_interleave(16, 3)[:, 0]
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    values = []
    for _ in range(20):
        losses = model.loss(image, label)
        optimizer.zero_grad()
        (losses["decode.loss_ce"] + losses["aux.loss_ce"]).backward()
        optimizer.step()
        values.append(losses["decode.loss_ce"].item())
    assert values[-1] < 0.5 * values[0]  # measured: from 0.691 to 0.179
