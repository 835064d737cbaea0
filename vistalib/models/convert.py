"""Weight files from the released names to ours and back, and between .pth and .safetensors: the tensors stay what they are.

Both ways keep the order and every bit, so that there and back gives the same names and tensors. A backbone alone, whose names
lack the `backbone.`, stays one. Tensors that only other programs know, such as the head of a classification, keep their names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from vistalib.models.finite import not_finite
from vistalib.models.identify import some
from vistalib.models.names import from_released, to_released
from vistalib.models.weight_files import find_tensors, read_weights, write_weights

Naming = Literal["released", "vistalib"]
BARE = ("patch_embed.", "levels.", "stem.", "stages.")  # how the names of a backbone begin, in either naming
OURS, RELEASED = ("stem.", "stages."), ("patch_embed.", "levels.")


@dataclass(frozen=True)
class Conversion:
    """What `convert_weights` did: the naming it found and where, and the names that were renamed, kept or left out.

    `not_finite` says which tensors hold NaN or infinity, with the repair; it is empty where none does.
    """

    naming: Naming
    where: str
    tensors: int
    renamed: int
    unknown: tuple[str, ...]
    ignored: tuple[str, ...]
    not_finite: str


def convert_weights(source: str | Path, target: str | Path, *, to: Naming = "vistalib") -> Conversion:
    """Write the tensors of the file `source` to the file `target` under the names `to`; the suffixes say the formats.

    Tensors with NaN or infinity are converted too, and named in what is returned. Raises `ValueError` for a file without the
    backbone of an InternImage, for names of both kinds in one file, for names that could not be turned back, and where
    `read_weights` or the writing does.
    """
    found = find_tensors(read_weights(source))
    naming = naming_of(found.tensors)
    if naming is None:
        raise ValueError(
            f"{source} must hold an InternImage under the released names or ours, and under one of them, got names like "
            f"{some(list(found.tensors)) or 'none'}; only such files can be converted"
        )
    tensors = _renamed(found.tensors, to)
    if list(_renamed(tensors, naming)) != list(found.tensors):
        lost = [name for name in found.tensors if name not in _renamed(tensors, naming)]
        raise ValueError(f"{source} must hold names that can be turned back, got {some(lost)}; take them out of the file")
    write_weights(target, tensors)
    known = ("backbone.", "decode_head.", "auxiliary_head.", *BARE)
    unknown = tuple(name for name in found.tensors if not name.startswith(known))
    changed = len(tensors.keys() - found.tensors.keys())
    return Conversion(naming, found.where, len(tensors), changed, unknown, found.ignored, not_finite(found.tensors))


def naming_of(names: Iterable[str]) -> Naming | None:
    """Whose names these are, told by the backbone; None where there is none, or names of both kinds."""
    bare = [name.removeprefix("backbone.") for name in names]
    ours, released = (any(name.startswith(beginnings) for name in bare) for beginnings in (OURS, RELEASED))
    return None if ours == released else "vistalib" if ours else "released"


def _renamed(tensors: Mapping[str, Tensor], to: Naming) -> dict[str, Tensor]:
    """`tensors` under the names `to`; those of a bare backbone are renamed as if they were not."""
    rename = to_released if to == "released" else from_released
    if any(name.startswith("backbone.") for name in tensors):
        return rename(tensors)
    whole = rename({f"backbone.{name}" if name.startswith(BARE) else name: value for name, value in tensors.items()})
    return {name.removeprefix("backbone."): value for name, value in whole.items()}
