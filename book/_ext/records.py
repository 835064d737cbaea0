"""The role `record`: a number in the prose, read from a record in `book/results`.

``{record}`demo:runs.finetune.iterations` `` shows the value as it is; after a bar follows a Python format:
``{record}`demo:seconds|.0f` ``. A record or key that is not there is a warning, and so fails the build.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

from vistalib.course import quote, read_record


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_role("record", Record())
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Record(SphinxRole):
    """One quoted number; hovering over it shows where it comes from."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Read and format the number."""
        name, _, path = self.text.partition(":")
        path, _, form = path.partition("|")
        try:
            text = quote(read_record(name), path, form)
        except ValueError as error:
            message = self.inliner.reporter.warning(f"record {self.text!r}: {error}", line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        self.env.note_dependency(f"book/results/{name}.json")
        return [nodes.inline(self.rawtext, text, classes=["record"])], []
