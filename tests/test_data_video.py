"""Video files, frame by frame."""

from pathlib import Path

import numpy as np
import pytest

from tests.data_helpers import SIZE, pixels
from vistalib.data import open_video, writing_video


@pytest.mark.parametrize("size", [SIZE, (33, 47)], ids=["even", "odd"])
def test_a_written_video_is_read_back(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = [np.resize(np.linspace(0, 255, size[1]), (*size, 1)).repeat(3, 2).astype(np.uint8) // (i + 1) for i in range(4)]
    with writing_video(tmp_path / "v.mp4", fps=12.5) as append:
        for frame in frames:
            append(frame)
    with open_video(tmp_path / "v.mp4") as video:
        assert (video.fps, video.announced) == (12.5, 4)
        assert video.size == (size[0] + size[0] % 2, size[1] + size[1] % 2)
        for frame, found in zip(frames, video.frames, strict=True):
            # worst mean error measured: 2.8 of 255 levels, since MPEG-4 loses some
            assert np.abs(found[: size[0], : size[1]].astype(int) - frame).mean() < 4


def test_red_stays_red(tmp_path: Path) -> None:
    red = np.full((*SIZE, 3), (220, 20, 60), np.uint8)
    with writing_video(tmp_path / "v.mp4", fps=25) as append:
        append(red)
    with open_video(tmp_path / "v.mp4") as video:
        assert next(video.frames)[..., 0].min() > 200


def test_a_video_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    def stop_after_one_frame() -> None:
        with writing_video(tmp_path / "v.mp4", fps=25) as append:
            append(pixels(0))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_after_one_frame()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"no video"], ids=["missing", "empty", "other bytes"])
def test_a_file_that_is_no_video_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "v.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"v\.mp4"), open_video(path):
        pass
