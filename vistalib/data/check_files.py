"""The doctor's look at single files: an image, its label, how sure that is; and at what lies beside them.

Files are read as training reads them, by `vistalib.data.decode`, and a little more closely: the colours of a label's palette
are compared, which training does not need. A PNG has checksums, a JPEG has none: wrong bytes in its middle are found only where
they keep it from being decoded.
Letters: H, W height and width.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from vistalib.data import png
from vistalib.data.cityscapes import no_probability
from vistalib.data.decode import Label, map_label, read_image, read_label, read_probability, wrong_size
from vistalib.data.findings import Finding
from vistalib.data.layout import Place, Reading, probability_of
from vistalib.data.vistas_labels import VISTAS_V1_2, VISTAS_V2_0

LEFT_BY_SYSTEMS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # harmless, and everywhere
VERSIONS = {"v1.2": VISTAS_V1_2, "v2.0": VISTAS_V2_0}


@dataclass(frozen=True)
class Sample:
    """One sample to examine, as far as it is there; `reading` is None where nobody knows the classes."""

    image: Path | None
    label: Path | None
    reading: Reading | None
    with_probability: bool


@dataclass
class Examined:
    """What a sample turned out to be: its faults, the size (H, W) of its image, and which values its label stores."""

    findings: list[Finding] = field(default_factory=list)
    size: tuple[int, int] | None = None
    seen: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(256, np.bool_))


def examine(sample: Sample) -> Examined:
    """Decode what there is of a sample."""
    done = Examined()
    if sample.image is not None:
        done.size = _examine_image(sample.image, done.findings)
    if sample.label is not None:
        label = _examine_label(sample.label, sample.reading, done)
        if label is not None and done.size is not None and done.size != label.shape:
            done.findings.append(Finding.of("wrong-size", sample.label, wrong_size(sample.label, label.shape, done.size)))
        if label is not None and sample.with_probability:
            _examine_probability(probability_of(sample.label), label.shape, done.findings)
    return done


def strays(place: Place) -> Iterator[Finding]:
    """The files below a folder that are neither read nor belong there, and the folders that cannot be listed."""
    known = {path for paths in place.files().values() for path in paths}
    closed: list[OSError] = []
    for folder, _, names in os.walk(place.folder, onerror=closed.append):
        for path in (Path(folder, name) for name in sorted(names)):
            belongs = path in known or (path.name.endswith(place.beside) and not path.name.startswith("."))
            if not belongs and path.name not in LEFT_BY_SYSTEMS:
                yield Finding("stray", path, "is not read", _way_with(path, place))
    for error in closed:
        yield _unreadable(Path(error.filename), error)


def _way_with(path: Path, place: Place) -> str:
    """What to do about a file that nothing reads."""
    if path.name.startswith("._"):
        return f"macOS left these behind; remove them: find {place.folder} -name '._*' -delete"
    if path.suffix == ".part":
        return "unpacking was interrupted; call `vistalib data unpack` again"
    if path.suffix.lower() in place.suffixes and path.stem.endswith(place.ending) and not path.name.startswith("."):
        return f"it lies too deep; move it into {place.folder}, or into a folder there"
    return f"remove it, or name it as the layout does: NAME{place.ending}{' or '.join(place.suffixes)}"


def _content(path: Path, findings: list[Finding]) -> bytes:
    """The bytes of a file; none where it is empty or cannot be read, and a finding says so."""
    try:
        data = path.read_bytes()
    except OSError as error:
        findings.append(_unreadable(path, error))
        return b""
    if not data:
        findings.append(Finding("empty", path, "has 0 bytes", "copy or unpack this file again"))
    return data


def _unreadable(path: Path, error: OSError) -> Finding:
    if os.path.islink(path) and not os.path.exists(path):  # unlike those of Path, these answer where a folder is closed
        found, repair = f"is a link to {os.readlink(path)}, which is not there", "restore what it leads to, or remove it"
    elif os.path.isdir(path) and not isinstance(error, PermissionError):
        found, repair = "is a folder", "put the file in its place"
    else:
        found, repair = f"cannot be read: {error.strerror}", "mend its permissions, or copy it again"
    return Finding("unreadable", path, found, repair)


def _examine_image(path: Path, findings: list[Finding]) -> tuple[int, int] | None:
    data = _content(path, findings)
    if not data:
        return None
    if damage := png.damage(data):
        findings.append(Finding("damaged-image", path, f"has {damage}", "copy or unpack this file again"))
        return None
    try:
        height, width, _ = read_image(path).shape
    except ValueError as error:
        findings.append(Finding.of("damaged-image", path, error))
        return None
    return height, width


def _examine_label(path: Path, reading: Reading | None, done: Examined) -> Label | None:
    data = _content(path, done.findings)
    if not data:
        return None
    if damage := png.damage(data):
        done.findings.append(Finding("damaged-label", path, f"has {damage}", "copy or unpack this file again"))
        return None
    try:
        label = read_label(path)
    except ValueError as error:
        undecoded = error.__context__ is not None  # the decoder gave up, where the header promised class indices
        done.findings.append(Finding.of("damaged-label" if undecoded else "label-mode", path, error))
        return None
    seen = cv2.calcHist([label], [0], None, [256], [0, 256]).ravel() > 0  # (256,)
    if reading is None:
        return label
    strange = _palette_finding(path, np.flatnonzero(seen).tolist(), reading)
    if strange is not None:
        done.findings.append(strange)
        if strange.is_error:
            return label
    try:
        map_label(label, reading.table, path, reading.names)
    except ValueError as error:
        done.findings.append(Finding.of("unknown-value", path, error))
    done.seen = seen
    return label


def _examine_probability(path: Path, shape: tuple[int, ...], findings: list[Finding]) -> None:
    if not os.path.lexists(path):
        findings.append(Finding.of("probability", path, no_probability(path)))
        return
    try:
        read_probability(path, shape)
    except ValueError as error:
        findings.append(Finding.of("probability", path, error))


def _palette_finding(path: Path, seen: list[int], reading: Reading) -> Finding | None:
    """Whether the colours that a palette gives to the values in the label are those of the classes; None where they are."""
    with PillowImage.open(path) as image:
        flat = image.getpalette("RGB") if image.mode == "P" else None
    if flat is None:
        return None
    palette = dict(enumerate(zip(flat[0::3], flat[1::3], flat[2::3], strict=True)))
    wrong = [value for value in seen if value in reading.colors and palette.get(value) != reading.colors[value]]
    if not wrong:
        return None
    for version, table in VERSIONS.items():
        fits = all(value < len(table) and palette.get(value) == table[value].color for value in seen)
        others = [value for value in wrong if fits and table[value].name != reading.values[value]]
        if others:
            value = others[0]
            found = f"has the colours of Vistas {version}, where {value} is {table[value].name} and not {reading.values[value]}"
            repair = f"put the labels here that go with {reading.names}, or read these with a configuration of their own"
            return Finding("other-version", path, found, repair)
    value = wrong[0]
    shown = f"paints {value} ({reading.values[value]}) in the colour {palette.get(value)}"
    found = f"{shown}, which is {reading.colors[value]} in {reading.names}"
    return Finding("palette", path, found, "check that the classes of these labels have this order")
