"""Links every public function that a page names as code, so that no page has to say where it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# tl.learn_dag, npt.tl.learn_dag, tl.learn_dag(n_graphs=25), nextpert.report; names of other
# packages (sc.tl.dpt) do not start so, or lead nowhere and stay as they are.
NAMED = re.compile(r"(?:(?:npt|nextpert)\.)?((?:datasets|get|pl|pp|tl)\.\w+)(?:\(.*\))?", re.DOTALL)
AT_THE_TOP = re.compile(r"(?:npt|nextpert)\.(\w+)(?:\(.*\))?", re.DOTALL)
LEFT_ALONE = (nodes.reference, nodes.title, addnodes.pending_xref)


class LinkFunctions(SphinxTransform):
    """Makes a reference of each literal that names a public function outside the API's pages."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        """Wrap the literals of one page."""
        if self.env.docname.startswith("api/"):
            return
        for literal in list(self.document.findall(nodes.literal)):
            text = literal.astext()
            found = NAMED.fullmatch(text) or AT_THE_TOP.fullmatch(text)
            if not found or any(isinstance(node, LEFT_ALONE) for node in ancestors(literal)):
                continue
            link = addnodes.pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=f"nextpert.{found[1]}",
                refexplicit=True,
            )
            literal.replace_self(link)
            link += literal


def ancestors(node: nodes.Node) -> list[nodes.Node]:
    """Return what a node stands in, from the inside out."""
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the step to the reading of every page."""
    app.add_transform(LinkFunctions)
    return {"parallel_read_safe": True}
