"""Small pieces of HTML: tables, legends, captioned figures, and numbers as a page shows them. Text is escaped here."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any


def figure(svg: str, caption: str, *, narrow: bool = False) -> str:
    """A card with an `<svg>` element and its caption; on a small screen the card scrolls sideways."""
    kind = "plot narrow" if narrow else "plot"
    return f'<figure class="{kind}"><div class="scroll">{svg}</div><figcaption>{escape(caption)}</figcaption></figure>'


def legend(names: Sequence[str], colors: Sequence[Sequence[int]], shown: Iterable[int]) -> str:
    """Swatches with names for the classes `shown`."""
    items = ""
    for c in shown:
        red, green, blue = colors[c]
        items += f'<li><span style="background:rgb({red},{green},{blue})"></span>{escape(names[c])}</li>'
    return f'<ul class="legend" aria-label="Colours of the classes">{items}</ul>'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: int) -> str:
    """A table whose first column heads its rows and whose last `numbers` columns are numbers."""
    looks = [""] * (len(head) - numbers) + [" class=number"] * numbers
    top = "".join(f'<th scope="col"{look}>{escape(name)}</th>' for look, name in zip(looks, head, strict=True))
    body = ""
    for first, *rest in rows:
        cells = "".join(f"<td{look}>{escape(str(value))}</td>" for look, value in zip(looks[1:], rest, strict=True))
        body += f'<tr><th scope="row">{escape(str(first))}</th>{cells}</tr>'
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and values."""
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<div class="scroll"><table class="pairs"><tbody>{body}</tbody></table></div>'


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested mappings as rows (dotted name, text), without what is None."""
    if isinstance(value, Mapping):
        return [row for key, inner in value.items() for row in flat(inner, f"{name}.{key}" if name else str(key))]
    return [] if value is None else [(name, text(value))]


def text(value: Any) -> str:
    """A JSON value for a table: `(128, 256)` as 128, 256; everything else as it prints."""
    return ", ".join(map(text, value)) if isinstance(value, list | tuple) else str(value)


def percent(fraction: float | None) -> str:
    """A fraction as percent with two decimals, or a dash where it is undefined."""
    return "–" if fraction is None else f"{100 * fraction:.2f}"


def points(fraction: float) -> float:
    """A fraction as percent with one decimal: rounded first, so that differences are those of the numbers shown."""
    return round(100 * fraction, 1)
