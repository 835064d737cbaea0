"""The API pages: signatures as one would write them, and references that lead to where a name is described.

Signatures name `vistalib.models.segmentor.Segmentor`; the page describes `vistalib.models.Segmentor`, under the room that
exports it. A name that its room keeps to itself (a protocol, a type variable) is on no page and stays plain text.
"""

import re
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

ARRAY = re.compile(
    r"~?numpy\.ndarray\[tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[~?numpy\.(\w+)(?:\[~?typing\.Any\])?\]\]"
)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("autodoc-process-signature", _shorten)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _shorten(_app: Sphinx, _what: str, _name: str, _obj: Any, _options: Any, signature: str, returned: str) -> tuple[str, str]:
    """`NDArray[uint8]` as the source has it, for what it stands for."""
    return ARRAY.sub(r"NDArray[\1]", signature or ""), ARRAY.sub(r"NDArray[\1]", returned or "")


def _resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.Element) -> nodes.Element | None:
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("vistalib."):
        return None
    package, room, *_, name = target.split(".")
    exported = f"{package}.{room}.{name}"
    if name not in getattr(import_module(f"{package}.{room}"), "__all__", ()):
        return shown
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, node["reftype"], exported, node, shown)
