"""Weights into models: what fits is copied, the rest is named with the reason, and a wrong model is refused.

A file may carry the released names or ours (`names`), be wrapped as training tools wrap it (`weight_files`), or be a
classification checkpoint, whose names lack the `backbone.` and whose head no segmentor has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vistalib.models.finite import not_finite
from vistalib.models.identify import HEADS, backbone_shape, describe, head_parts, models_of, some
from vistalib.models.names import from_released
from vistalib.models.weight_files import find_tensors

Classes = Sequence[str] | Literal["slice"]


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did: `loaded` names, `skipped` names of the file with the reason, `missing` names of the model.

    `notes` are sentences on what was more than a copy: where in the file the weights were, a change of type, rows of classes.
    """

    loaded: tuple[str, ...]
    skipped: dict[str, str]
    missing: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} tensors, skipped {len(self.skipped)}, left {len(self.missing)} as they were"]
        for reason in dict.fromkeys(self.skipped.values()):
            names = [name for name, why in self.skipped.items() if why == reason]
            lines.append(f"  skipped {some(names)}: {reason}")
        if self.missing:
            lines.append(f"  not in the file: {some(self.missing)}")
        return "\n".join(lines + [f"  {note}" for note in self.notes])


def load_weights(
    model: nn.Module,
    state_dict: Mapping[str, Any],
    *,
    classes: Classes | None = None,
    their_classes: Sequence[str] = (),
    source: str = "the weights",
) -> LoadReport:
    """Copy what fits of `state_dict`, under released names or ours, into the segmentor `model`.

    The backbone must fit entirely: a `ValueError` says what the file seems to be and which model takes it. A head of another
    kind is skipped, and of a head with another number of classes its last convolution; the report says so. Of what is loaded
    all must be finite: with NaN or infinity a `ValueError` names the tensors, and `source` as where they come from.

    `classes` fills that convolution after all. "slice" keeps the first rows, as many as the model has classes: the 19 that
    were trained of the 150 that were released. The names of the model's classes copy, from a file whose rows stand for
    `their_classes`, the row of every name that both have; the others stay as they were. `ValueError` if that cannot be done.
    """
    found = find_tensors(state_dict)
    theirs = under_our_names(found.tensors)
    ours = model.state_dict()
    notes = [f"found {found.where} of the file"]
    if found.ignored:
        notes.append(f"not used, as it is beside the weights: {some(found.ignored)}")
    if absent := _absent_layer_scales(ours, theirs):
        theirs |= {name: torch.ones_like(ours[name]) for name in absent}
        notes.append(f"{len(absent)} layer scales are not in the file, and are ones: the same network")
    _check_backbone(ours, theirs, found.ignored)
    if classes is not None:
        theirs, note = _rows_of_classes(ours, theirs, classes, their_classes)
        notes.append(note)
    (right,) = names if len(names := models_of(theirs)) == 1 else (None,)
    if right and head_parts(ours, "decode_head") != head_parts(theirs, "decode_head"):
        notes.append(f"its head is of {right}: create_model({_quoted(right)}) takes that too")
    skipped = {name: why for name, tensor in theirs.items() if (why := _reason_to_skip(name, tensor, ours, theirs))}
    fitting = {name: tensor for name, tensor in theirs.items() if name not in skipped}
    if wrong := not_finite(fitting, {name: ours[name].dtype for name in fitting}):
        raise ValueError(f"{source} must hold finite numbers, got {wrong}")
    types = {(t.dtype, ours[name].dtype) for name, t in fitting.items() if t.dtype != ours[name].dtype}
    notes += sorted(f"turned {str(a).removeprefix('torch.')} into {str(b).removeprefix('torch.')}" for a, b in types)
    model.load_state_dict(fitting, strict=False)
    loaded = tuple(name for name in fitting if name not in absent)
    return LoadReport(loaded, skipped, tuple(name for name in ours if name not in fitting), tuple(notes))


def under_our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under released names or ours, of a segmentor or of a backbone alone, under the names of a segmentor of ours."""
    if not any(name.startswith("backbone.") for name in tensors):
        bare = ("patch_embed.", "levels.", "stem.", "stages.")
        tensors = {f"backbone.{name}" if name.startswith(bare) else name: value for name, value in tensors.items()}
    return from_released(tensors)


def _absent_layer_scales(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """The layer scales that `ours` has where `theirs` has none at all, as in the released ImageNet weights of the T size."""
    if backbone_shape(ours) != backbone_shape(theirs) or any(".layer_scale" in name for name in theirs):
        return []
    return [name for name in ours if ".layer_scale" in name]


def _check_backbone(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], beside: Sequence[str]) -> None:
    """Raise unless both have the same backbone parameters in the same shapes; `beside` is what else the file holds."""
    shapes = [{name: tuple(t.shape) for name, t in s.items() if name.startswith("backbone.")} for s in (ours, theirs)]
    if shapes[0] == shapes[1]:
        return
    text = f"the weights must be of {describe(ours)}, got {describe(theirs)}"
    if backbone_shape(theirs) is None:
        raise ValueError(
            f"{text}; its names begin with {some(list(theirs) or beside) or 'nothing'}: give a file of such weights"
        )
    if backbone_shape(theirs) != backbone_shape(ours) and (names := models_of(theirs)):
        raise ValueError(f"{text}; build the model with create_model({' or '.join(map(_quoted, names))})")
    differing = [name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name)]
    raise ValueError(
        f"{text}; they differ in {some(sorted(differing))}: build the model with the options the weights were trained with"
    )


def _rows_of_classes(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], classes: Classes, their_classes: Sequence[str]
) -> tuple[dict[str, Tensor], str]:
    """`theirs` with the last convolutions cut to the classes of `ours`, and what was done in words."""
    K = ours["decode_head.conv_seg.bias"].shape[0]
    alike = [head for head in HEADS if head_parts(ours, head) and head_parts(ours, head) == head_parts(theirs, head)]
    last = [f"{head}.conv_seg.{kind}" for head in alike for kind in ("weight", "bias")]
    if not last:
        return dict(theirs), "no head like the model's is in the file: no rows of classes were taken"
    rows = min(theirs[name].shape[0] for name in last)
    if isinstance(classes, str):
        if classes != "slice" or rows < K:
            raise ValueError(
                f'classes must be "slice" for a file with at least the {K} classes of the model, or their names, '
                f"got {classes!r} for a file with {rows}; give the names of both to copy the rows that they share"
            )
        return {**theirs, **{name: theirs[name][:K] for name in last}}, f"kept the first {K} of {rows} classes"
    if len(set(classes)) != K or len(classes) != K:
        raise ValueError(
            f"classes must be {K} different names, one for each output of the model, got {len(classes)}: {some(classes)}; "
            "make the model with num_classes=len(classes)"
        )
    if len(set(their_classes)) != len(their_classes) or len(their_classes) > rows:
        raise ValueError(
            f"their_classes must be different names, at most the {rows} of the file, got {len(their_classes)}: "
            f"{some(their_classes)}; give them in the order of the file's outputs"
        )
    pairs = [(i, their_classes.index(name)) for i, name in enumerate(classes) if name in their_classes]
    if not pairs:
        raise ValueError(
            f"classes and their_classes must share a name, got {some(classes)} and {some(their_classes) or 'none'}; "
            "leave classes out to start that layer anew"
        )
    to, take = [list(rows) for rows in zip(*pairs, strict=True)]
    copied = {}
    for name in last:
        copied[name] = ours[name].clone()  # (K, ...)
        copied[name][to] = theirs[name][take].to(copied[name])
    new = [name for name in classes if name not in their_classes]
    note = f"copied the rows of {len(pairs)} classes by name" + (f"; new: {some(new)}" if new else "")
    return {**theirs, **copied}, note


def _reason_to_skip(name: str, tensor: Tensor, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str | None:
    """Why a tensor of the file cannot be loaded, or None."""
    head = name.partition(".")[0]
    if head in HEADS and head_parts(ours, head):
        kinds = [head_parts(names, head) for names in (ours, theirs)]
        if kinds[0] != kinds[1]:
            return f"a head of another kind, made of {', '.join(sorted(kinds[1] - {'conv_seg'}))}"
    if name not in ours:
        return "the model has no such parameter"
    if tensor.shape == ours[name].shape:
        if tensor.is_floating_point() and not ours[name].is_floating_point() and not bool(tensor.isfinite().all()):
            return f"a count that {str(tensor.dtype).removeprefix('torch.')} cannot hold"
        return None
    if name.startswith(f"{head}.conv_seg.") and tensor.shape[1:] == ours[name].shape[1:]:
        return f"another number of classes: {tensor.shape[0]} in the file, {ours[name].shape[0]} in the model"
    return f"another shape: {tuple(tensor.shape)} in the file, {tuple(ours[name].shape)} in the model"


def _quoted(name: str) -> str:
    return f'"{name}"'
