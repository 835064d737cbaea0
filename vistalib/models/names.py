"""The released parameter names and ours, one to one, in both directions.

Source: the state dictionaries of InternImage's segmentation release. The order of the parameters is the same in both, so a
translation keeps it.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

# (released, ours): the beginning of a name, a * standing for a number. The first row that fits counts.
_RENAMES = (
    ("backbone.patch_embed.norm*.1.", "backbone.stem.norm*."),
    ("backbone.patch_embed.", "backbone.stem."),
    ("backbone.levels.*.blocks.*.gamma*", "backbone.stages.*.blocks.*.layer_scale*"),
    ("backbone.levels.*.blocks.*.norm*.0.", "backbone.stages.*.blocks.*.norm*."),
    ("backbone.levels.*.blocks.*.res_post_norm*.0.", "backbone.stages.*.blocks.*.res_post_norm*."),
    ("backbone.levels.*.norm.0.", "backbone.stages.*.norm."),
    ("backbone.levels.*.post_norms.*.0.", "backbone.stages.*.extra_post_norms.*."),
    ("backbone.levels.*.downsample.norm.1.", "backbone.stages.*.downsample.norm."),
    ("backbone.levels.", "backbone.stages."),
    ("decode_head.psp_modules.*.1.", "decode_head.ppm.*."),
)


def _rule(source: str, target: str) -> tuple[re.Pattern[str], str]:
    """A pattern for names that begin like `source`, and the replacement that makes them begin like `target`."""
    pattern = re.escape(source).replace(r"\*", r"(\d+)")
    groups = iter(range(1, source.count("*") + 1))
    return re.compile(pattern), re.sub(r"\*", lambda _: rf"\{next(groups)}", target)


_TO_OURS = [_rule(released, ours) for released, ours in _RENAMES]
_TO_RELEASED = [_rule(ours, released) for released, ours in _RENAMES]


def from_released(state_dict: Mapping[str, T]) -> dict[str, T]:
    """The same values under our names, in the same order; a name that no rule fits stays as it is."""
    return _rename(state_dict, _TO_OURS)


def to_released(state_dict: Mapping[str, T]) -> dict[str, T]:
    """The exact inverse of `from_released`."""
    return _rename(state_dict, _TO_RELEASED)


def _rename(state_dict: Mapping[str, T], rules: list[tuple[re.Pattern[str], str]]) -> dict[str, T]:
    return {_renamed(name, rules): value for name, value in state_dict.items()}


def _renamed(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in rules:
        match = pattern.match(name)
        if match:
            return match.expand(replacement) + name[match.end() :]
    return name
