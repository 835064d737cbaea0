"""References to a name where it is defined lead to the room that exports it, under which the API pages describe it.

Signatures name `vistalib.models.segmentor.Segmentor`; the page describes `vistalib.models.Segmentor`. A name that its room
keeps to itself (a protocol, a type variable) is on no page and stays plain text.
"""

from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.Element) -> nodes.Element | None:
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("vistalib."):
        return None
    package, room, *_, name = target.split(".")
    exported = f"{package}.{room}.{name}"
    if name not in getattr(import_module(f"{package}.{room}"), "__all__", ()):
        return shown
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, node["reftype"], exported, node, shown)
