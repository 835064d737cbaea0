import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vistalib.data import CITYSCAPES, TRAIN_CLASSES, TRAIN_COLORS, normalize
from vistalib.evaluate import MULTI_SCALES, Evaluation, Window, evaluate_dataset, read_evaluation

SIZE = (64, 32)


class Painted:
    """Label maps of random blocks and images painted in the classes' colours."""

    ignore_index = 255

    def __init__(self, classes=TRAIN_CLASSES, images=3):
        self.classes = classes
        rng = np.random.default_rng(0)
        self.labels = [rng.integers(0, len(classes), (4, 8), np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(images)]

    def __len__(self):
        return len(self.labels)

    def name(self, i):
        return f"aachen_{i:06d}_000019_leftImg8bit"

    def read(self, i):
        label = self.labels[i].copy()
        label[:2] = 255
        return TRAIN_COLORS[self.labels[i]], label


class Nearest(nn.Module):
    """The class whose colour is nearest: right wherever the image is painted in pure colours."""

    def __init__(self, classes=19):
        super().__init__()
        colors = normalize(TRAIN_COLORS[:classes, None])[:, :, 0].T  # (C, 3)
        self.colors = nn.Parameter(colors)

    def forward(self, image):
        return -10 * (image[:, None] - self.colors[None, :, :, None, None]).square().sum(2)


class Failing(Painted):
    def read(self, i):
        if i == 2:
            raise ValueError("damaged")
        return super().read(i)


def evaluated(**options):
    return evaluate_dataset(Nearest(), Painted(), scale=SIZE, progress=False, **options)


def test_a_model_that_is_right_everywhere_scores_one():
    assert evaluated().mean_iou == 1.0


def test_every_pixel_that_is_not_ignored_is_counted():
    assert evaluated().confusion.sum() == 3 * 30 * 64


def test_the_scores_are_those_of_the_whole_dataset_not_means_over_images():
    class Half(Nearest):
        def forward(self, image):
            logits = super().forward(image)
            logits[:, 3] = -torch.inf
            return logits

    found = evaluate_dataset(Half(), Painted(), scale=SIZE, progress=False)
    truth = np.concatenate([Painted().read(i)[1].ravel() for i in range(3)])
    assert found.pixel_accuracy == pytest.approx(1 - (truth == 3).sum() / (truth != 255).sum())


def test_classes_beyond_the_dataset_are_misses():
    dataset = Painted(classes=TRAIN_CLASSES[:10])
    wide = Nearest()
    wide.colors = nn.Parameter(wide.colors.roll(9, 0))  # the ten painted colours are classes 9..18 to this model
    found = evaluate_dataset(wide, dataset, scale=SIZE, progress=False)
    assert (int(found.missed.sum()), int(found.confusion.sum())) == (
        sum(int(((label >= 1) & (label != 255)).sum()) for _, label in map(dataset.read, range(3))),
        sum(int((label == 0).sum()) for _, label in map(dataset.read, range(3))),
    )


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({}, "single scale"),
        ({"flip": True}, "single scale + flip"),
        ({"scales": MULTI_SCALES, "flip": True}, "multi-scale + flip"),
        ({"window": Window((16, 16), (16, 16))}, "single scale + sliding window"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_mode_says_how_the_images_were_shown(options, mode):
    assert evaluated(**options).mode == mode


def test_the_result_is_json_without_nan():
    found = evaluated()
    absent = replace(found, confusion=np.diag([0] + [1] * 18))
    plain = json.loads(json.dumps(absent.to_json(), allow_nan=False))
    assert (plain["iou"]["road"], plain["iou"]["sidewalk"], plain["mean_iou"]) == (None, 1.0, 1.0)


def test_the_result_names_what_it_holds():
    plain = evaluated().to_json()
    assert list(plain) == [
        *("mode", "mean_iou", "pixel_accuracy", "mean_accuracy", "iou", "accuracy", "mean_category_iou", "category_iou"),
        *("confusion", "missed", "images", "seconds"),
    ]


def test_an_export_holds_label_ids_under_the_names_of_the_images(tmp_path):
    evaluated(export=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{Painted().name(i)}.png" for i in range(3)]
    exported = np.asarray(Image.open(tmp_path / "out" / f"{Painted().name(1)}.png"))
    np.testing.assert_array_equal(exported, CITYSCAPES.train_id_to_id()[Painted().labels[1]])


def test_an_export_that_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="damaged"):
        evaluate_dataset(Nearest(), Failing(), scale=SIZE, progress=False, export=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_export_does_not_mix_with_what_is_there(tmp_path):
    (tmp_path / "old.png").touch()
    with pytest.raises(ValueError, match="must be new or empty"):
        evaluated(export=tmp_path)


def test_other_classes_than_those_of_cityscapes_are_not_exported(tmp_path):
    with pytest.raises(ValueError, match="only the 19 Cityscapes classes"):
        evaluate_dataset(Nearest(), Painted(TRAIN_CLASSES[:7]), export=tmp_path / "out")


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        evaluate_dataset(Nearest(), Painted(images=0))


def test_a_model_with_too_few_classes_is_refused():
    with pytest.raises(ValueError, match="num_classes=19"):
        evaluate_dataset(Nearest(7), Painted(), scale=SIZE, progress=False)


def test_progress_is_said_on_standard_error(capsys):
    evaluate_dataset(Nearest(), Painted(), scale=SIZE)
    assert "evaluating: 3/3" in capsys.readouterr().err


class Sizes(Painted):
    """The images in two sizes, the last two alike."""

    def read(self, i):
        image, label = super().read(i)
        return (image, label) if i == 0 else (image[:24], label[:24])


@pytest.mark.parametrize("window", [None, Window((16, 24), (11, 16))], ids=["whole", "sliding"])
@pytest.mark.parametrize("batch_size", [2, 3, 9], ids=["with a rest", "all", "more than there are"])
@pytest.mark.parametrize("dataset", [Painted(), Sizes()], ids=["one size", "two sizes"])
def test_several_images_at_a_time_score_as_one_by_one(dataset, batch_size, window):
    shown = {"scale": SIZE, "scales": (0.5, 1.0), "flip": True, "window": window, "progress": False}
    one = evaluate_dataset(Nearest(), dataset, **shown)
    several = evaluate_dataset(Nearest(), dataset, batch_size=batch_size, **shown)
    assert 0.1 < one.mean_iou < 1
    np.testing.assert_array_equal(several.per_image.cell, one.per_image.cell)
    np.testing.assert_array_equal(several.per_image.count, one.per_image.count)


def test_the_network_sees_as_many_images_at_a_time_as_asked():
    seen = []

    class Counting(Nearest):
        def forward(self, image):
            seen.append(len(image))
            return super().forward(image)

    evaluate_dataset(Counting(), Painted(images=5), scale=SIZE, batch_size=2, progress=False)
    assert seen == [2, 2, 1]


def test_no_image_at_a_time_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        evaluated(batch_size=0)


def _evaluate_share(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    evaluated(export=f"{folder}/export").save(f"{folder}/{rank}.json")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_share_the_images_and_agree(tmp_path):
    torch.multiprocessing.spawn(_evaluate_share, (str(tmp_path),), nprocs=2)
    whole: Evaluation = evaluated()
    for rank in range(2):
        found = read_evaluation(tmp_path / f"{rank}.json")
        np.testing.assert_array_equal(found.confusion, whole.confusion)
        assert found.per_image.names == whole.per_image.names
        np.testing.assert_array_equal(found.per_image.cell, whole.per_image.cell)
        np.testing.assert_array_equal(found.per_image.count, whole.per_image.count)
    assert sorted(path.stem for path in (tmp_path / "export").iterdir()) == [Painted().name(i) for i in range(3)]
