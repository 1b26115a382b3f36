"""Graph pages as files a browser can open."""

from pathlib import Path

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.page import to_html


def write_page(graph: AttributionGraph, folder: Path) -> str:
    """The address of a graph's page, written into `folder`."""
    path = folder / "page.html"
    path.write_text(to_html(graph), encoding="utf-8")
    return path.as_uri()
