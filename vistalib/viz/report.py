"""The report of a demo: one HTML page that carries its pictures, figures and style with it and asks the network for nothing.

Every number on the page comes from the demo's folder (`record`). What stands on the page is in `sections`; how it looks is in
`report.html.template`, `report.css.template` and `style`; `report.js.template` moves the slider, names the class under the
pointer and copies commands, and the page is complete without it.
"""

import json
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from vistalib.files import write_text
from vistalib.viz import sections
from vistalib.viz.embed import page_variables
from vistalib.viz.record import read_demo


def write_report(folder: str | Path) -> Path:
    """Write `report.html` into the demo's `folder` and return its path.

    `sampling.npz` and the record's `scripts_check` may be missing; their sections are then left out. Raises `ValueError` naming
    the file when another one is missing or unreadable, `ModuleNotFoundError` where seaborn is missing.
    """
    demo = read_demo(folder)
    shown = [
        sections.pictures(demo),
        sections.curves(demo),
        sections.scores(demo),
        sections.confusion(demo),
        *([sections.sampling(demo, demo.sampling)] if demo.sampling else []),
        *([sections.check(demo)] if demo.record.get("scripts_check") else []),
        sections.facts(demo),
        sections.commands(demo),
    ]
    headline, lead = sections.answer(demo)
    palette = [[name, *color] for name, color in zip(demo.classes, demo.record["colors"], strict=True)]
    page = Template(_asset("report.html")).substitute(
        title=escape(headline),
        kicker=sections.kicker(demo),
        lead=lead,
        tiles=sections.tiles(demo),
        hero=sections.hero(demo),
        navigation="".join(f'<a href="#{section.anchor}">{escape(section.short)}</a>' for section in shown),
        sections="\n".join(section.html for section in shown),
        light=page_variables(dark=False),
        dark=page_variables(dark=True),
        style=_asset("report.css"),
        script=_asset("report.js"),
        palette=json.dumps(palette).replace("<", "\\u003c"),
    )
    path = Path(folder) / "report.html"
    write_text(path, page)
    return path


def _asset(name: str) -> str:
    return resources.files("vistalib.viz").joinpath(f"{name}.template").read_text(encoding="utf-8")
