"""Putting the graph's page together: template, style, script and data in one file."""

from importlib import resources

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.page.embed import assemble
from pellucid.graphs.page.payload import page_payload

SCRIPTS = ("model.js", "layout.js", "draw.js", "attention.js", "panel.js", "trust.js", "main.js")


def to_html(graph: AttributionGraph, *, max_nodes: int = 2000, max_edges: int = 200_000) -> str:
    """The graph as one HTML page that needs no network.

    Args:
        graph: the unpruned graph; the page says what it leaves out.
        max_nodes: embed at most about this many nodes, the most influential.
        max_edges: embed at most this many edges, the most influential.
    """
    return assemble(
        asset("template.html"),
        style=asset("page.css"),
        script=page_script(),
        data=page_payload(graph, max_nodes=max_nodes, max_edges=max_edges),
    )


def page_script() -> str:
    """All of the page's script."""
    return '"use strict";\n(() => {\n' + "\n".join(map(asset, SCRIPTS)) + "\n})();\n"


def asset(name: str) -> str:
    """The text of one of the page's files."""
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
