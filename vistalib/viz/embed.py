"""Pictures inside one HTML page: figures as inline SVG that follows the page's colours, images as base64 data addresses."""

import base64
import hashlib
import io
import re
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vistalib.viz.overlay import Labels, Pixels
from vistalib.viz.style import PAGE_COLORS, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_svg(figure: "Figure", description: str) -> str:
    """The figure as an `<svg>` element for an HTML page; `description` is its alternative text.

    Text stays text, photographs become JPEG, and the colours of the house style become the variables of `page_variables`, so
    that the figure is right on a light and on a dark page.
    """
    with styled():
        import matplotlib

        file = io.StringIO()
        with matplotlib.rc_context({"svg.hashsalt": "vistalib"}):
            figure.savefig(file, format="svg", facecolor="none", metadata={"Date": None})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(?<=xlink:href=")data:image/png;base64,([^"]+)', lambda found: _smaller(found[1]), svg)
    for name, (light, _) in PAGE_COLORS.items():
        svg = re.sub(rf"(?<=: ){light}\b", f"var(--{name}, {light})", svg)
    prefix = "f" + hashlib.sha256(description.encode()).hexdigest()[:8]
    svg = re.sub(r'(?<= id=")|(?<=href="#)|(?<=url\(#)', f"{prefix}-", svg)  # ids are unique in a page, not only in a figure
    width, height = (72 * inches for inches in figure.get_size_inches())
    label = escape(description, quote=True)
    head = f'<svg class="figure" role="img" aria-label="{label}" viewBox="0 0 {width:g} {height:g}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return head + svg[svg.index(">") + 1 :].strip()


def page_variables(dark: bool) -> str:
    """The CSS declarations of the colours that `figure_svg` and the report's style sheet use."""
    return " ".join(f"--{name}: {colors[dark]};" for name, colors in PAGE_COLORS.items())


def photograph(image: Pixels) -> str:
    """A data address with the image (H, W, 3) as JPEG."""
    return _address("jpeg", Image.fromarray(np.ascontiguousarray(image)), quality=86, optimize=True)


def label_map(label: Labels, colors: Pixels) -> str:
    """A data address with the label map (H, W) as palette PNG in `colors` (C, 3); labels outside the table are black."""
    label = np.asarray(label)
    picture = Image.fromarray(np.where((label >= 0) & (label < len(colors)), label, 255).astype(np.uint8), "P")
    picture.putpalette(np.vstack([colors, np.zeros((256 - len(colors), 3), np.uint8)]).astype(np.uint8).tobytes())
    return _address("png", picture, optimize=True)


def stain(mask: NDArray[np.bool_], color: str) -> str:
    """A data address with a PNG that is `color` (#rrggbb) where the mask (H, W) holds and transparent elsewhere."""
    picture = Image.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, *bytes.fromhex(color[1:])])
    return _address("png", picture, optimize=True, transparency=0)


def _address(kind: str, picture: Image.Image, **options: Any) -> str:
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _smaller(encoded: str) -> str:
    """An opaque PNG in base64 as the data address of a JPEG, where that is shorter."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    png = f"data:image/png;base64,{encoded}"
    if picture.mode == "RGBA" and np.asarray(picture)[..., 3].min() < 255:
        return png
    return min(png, photograph(np.asarray(picture.convert("RGB"))), key=len)
