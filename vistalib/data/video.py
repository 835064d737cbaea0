"""Video files frame by frame, in constant memory, through OpenCV: what it can decode here, and MPEG-4 in an .mp4 as output.

Frames are RGB uint8 (H, W, 3), turned upright as the file says. Sound is not kept.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vistalib.data.decode import Image
from vistalib.files import replacing

_FPS = 25.0  # for files that do not tell


@dataclass(frozen=True)
class Video:
    """An open video: its `frames`, which can be taken once, their (H, W), their rate, and how many the file says there are."""

    frames: Iterator[Image]
    size: tuple[int, int]
    fps: float
    announced: int | None


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """Open a video file; `ValueError` when it is missing, or when OpenCV cannot decode it."""
    if not path.is_file():
        raise ValueError(f"the video {path} must be a readable file, and there is none; check its name")
    capture = cv2.VideoCapture(str(path))
    try:
        got, first = capture.read()
        if not got:
            raise ValueError(
                f"{path} must be a whole video that OpenCV can decode, got one without a frame; copy it again, or convert it: "
                f"ffmpeg -i {path.name} {path.stem}.mp4"
            )
        fps, announced = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        yield Video(_frames(capture, first), first.shape[:2], fps if fps > 0 else _FPS, announced if announced > 0 else None)
    finally:
        capture.release()


def _frames(capture: cv2.VideoCapture, frame: cv2.typing.MatLike) -> Iterator[Image]:
    got = True
    while got:
        yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
        got, frame = capture.read()


@contextmanager
def writing_video(path: Path, *, fps: float) -> Iterator[Callable[[Image], None]]:
    """Yield a function that appends a frame to the .mp4 `path`, which appears whole when the block ends without an error.

    Frames have one size; where it is odd, the last row or column is doubled, which MPEG-4 asks for. `ValueError` when the
    encoder is missing, and when the file does not hold every frame in the end.
    """
    with replacing(path) as beside:
        writer, written = cv2.VideoWriter(), 0

        def append(frame: Image) -> None:
            nonlocal written
            height, width = frame.shape[:2]
            frame = np.asarray(cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
            if not writer.isOpened():
                codec = cv2.VideoWriter.fourcc(*"mp4v")
                writer.open(str(beside), codec, fps, (frame.shape[1], frame.shape[0]))
                if not writer.isOpened():
                    raise ValueError(
                        f"{path} needs an MPEG-4 encoder, and this OpenCV has none; pip install opencv-python-headless"
                    )
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            written += 1

        try:
            yield append
        finally:
            writer.release()
        with open_video(beside) as video:
            if video.announced != written:
                raise ValueError(f"{path} must hold {written} frames, got {video.announced}; is the disk full?")
