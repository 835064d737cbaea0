"""The model card: `README.md` of a saved model, with the front matter that the Hub reads."""

import json
import re
from collections.abc import Mapping, Sequence

from vistalib.models.config import ModelConfig

PLACE = "owner/name"  # stands in a card for the repository, until that has a name
CARD = """---
{matter}
---

# {model}

InternImage with deformable convolutions (DCNv3) for street scenes: a class for every pixel. {parameters:,} parameters,
{num_classes} outputs{named}. Trained on {trained}. Licence of the weights: {licence}.

## How to use it

```python
from vistalib.models import from_pretrained

model = from_pretrained("{place}")  # this repository, or the folder it was copied to
labels = model.predict(image)  # (N, 3, H, W), RGB, normalised as ImageNet's: to a class for every pixel, (N, H, W)
```

`pip install "vistalib[hub]"` installs what that needs; `vistalib predict photo.jpg --weights {place}` draws over a photograph.

## What was measured

{measured}
{classes}"""


def model_card(
    config: ModelConfig, parameters: int, *, licence: str, datasets: Sequence[str], measured: Mapping[str, float]
) -> str:
    """The text of the card; `measured` maps a dataset, and how it was scored, to the mean IoU as a fraction."""
    for name, value in measured.items():
        if not 0 <= value <= 1:
            raise ValueError(
                f"measured must be mean IoU as fractions from 0 to 1, got {value} for {name!r}; divide percent by 100"
            )
    matter = {
        "license": licence,
        "library_name": "vistalib",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "internimage", "dcnv3"],
        "datasets": list(datasets),
        "model-index": _results(config.model, measured),
    }
    rows = [f"| {name} | {100 * value:.2f}% |" for name, value in measured.items()]
    named = f", of which the first {len(config.classes)} have a name" if len(config.classes) < config.num_classes else ""
    return CARD.format(
        matter="\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in matter.items() if value),
        place=PLACE,
        model=config.model,
        parameters=parameters,
        num_classes=config.num_classes,
        named=named if config.classes else "",
        trained=", ".join(datasets) or "data that was not stated",
        licence="not stated" if licence == "other" else licence,
        measured="\n".join(["| data | mean IoU |", "|---|---|", *rows]) if rows else "Nothing was stated.",
        classes=f"\n## Classes\n\n{', '.join(config.classes)}\n" if config.classes else "",
    )


def _results(model: str, measured: Mapping[str, float]) -> list[dict[str, object]]:
    """The Hub's `model-index`: one model, a result a measurement."""
    results = [
        {
            "task": {"type": "image-segmentation"},
            "dataset": {"name": name, "type": re.sub(r"\W+", "-", name.lower()).strip("-")},
            "metrics": [{"type": "mean_iou", "value": value}],
        }
        for name, value in measured.items()
    ]
    return [{"name": model, "results": results}] if results else []
